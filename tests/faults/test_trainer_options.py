"""Options of Lightning's trainer that would give wrong numbers, hang, or end in a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from baselines import MeanFusion
from datamodules import Synthetic
from datamodules.errors import InputError
from ifmmin import IFMMIN
from ifmmin.cli.counts import check_counts
from ifmmin.cli.main import main
from ifmmin.cli.trainer_options import check_monitors, check_trainer_options
from tests.cli.running import SMALL, metrics, sample
from tests.faults.cases import one_line

CPU = {"accelerator": "cpu"}


def named(name: str, **settings: Any) -> Namespace:
    return Namespace(class_path=f"lightning.pytorch.{name}", init_args=Namespace(**settings))


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"devices": 0}, "fit", "devices 0: give how many, at least 1"),
    ({"devices": "0"}, "fit", "devices 0: give how many"),
    ({"devices": -1}, "fit", "devices -1: give how many"),
    ({"devices": -2}, "test", "devices -2: give how many"),
    ({"devices": "x"}, "predict", "devices x: give how many"),
    ({"devices": ""}, "fit", "devices : give how many"),
    ({"devices": "1.5"}, "fit", "devices 1.5: give how many"),
    ({"devices": []}, "fit", "devices []: give how many"),
    ({"devices": [0, 1]}, "fit", "devices [0, 1]: give how many"),
    ({"devices": "0,1"}, "fit", "devices 0,1: give how many"),
    ({"devices": 100_000}, "fit", "devices 100000: more than there are here"),
    ({"devices": "100000"}, "validate", "devices 100000: more than there are here"),
    ({"accelerator": "quantum"}, "fit", "accelerator quantum: not known; give cpu, gpu or auto"),
    ({"accelerator": "tpu"}, "fit", "accelerator tpu: not supported"),
    ({"num_nodes": 0}, "fit", "num_nodes 0: it must be at least 1"),
    ({"num_nodes": -3}, "fit", "num_nodes -3: it must be at least 1"),
    ({"num_nodes": 2}, "fit", "num_nodes 2: nobody starts the processes on the other machines"),
    ({"strategy": "foo"}, "fit", "strategy foo: not known; there are auto, ddp"),
    ({"strategy": "ddp_spawn"}, "fit", "strategy ddp_spawn: processes started that way cannot give their results back"),
    ({"strategy": "ddp_notebook"}, "fit", "give ddp"),
    ({"strategy": "ddp_fork_find_unused_parameters_true"}, "fit", "give ddp"),
    ({"strategy": "DDP_SPAWN"}, "fit", "give ddp"),
    ({"strategy": "fsdp"}, "fit", "clipped per whole sub-network; give ddp"),
    ({"strategy": "fsdp_cpu_offload"}, "fit", "give ddp"),
    ({"strategy": "deepspeed_stage_2"}, "fit", "give ddp"),
    ({"strategy": "single_device"}, "fit", "one device needs no strategy"),
    ({"strategy": named("strategies.FSDPStrategy")}, "fit", "strategy FSDPStrategy: it splits the parameters"),
    ({"strategy": named("strategies.DDPStrategy", start_method="spawn")}, "fit", "strategy DDPStrategy: it"),
    ({"precision": "transformer-engine"}, "fit", "precision transformer-engine: not supported; there are 32-true"),
    ({"precision": "16-true"}, "test", "precision 16-true: not on a CPU"),
    ({"fast_dev_run": -1}, "fit", "fast_dev_run -1: give true, or a count"),
    ({"max_epochs": -5}, "fit", "max_epochs -5: give a whole number, at least 1, or -1"),
    ({"max_epochs": 0}, "fit", "max_epochs 0: trains nothing"),
    ({"max_steps": 0}, "fit", "max_steps 0: give a whole number"),
    ({"max_steps": -7}, "fit", "max_steps -7: give a whole number"),
    ({"min_epochs": -1}, "fit", "min_epochs -1: it must be at least 0"),
    ({"min_epochs": 5, "max_epochs": 2}, "fit", "min_epochs 5: more than --trainer.max_epochs 2"),
    ({"min_steps": -1}, "fit", "min_steps -1: it must be at least 0"),
    ({"min_steps": 9, "max_steps": 3}, "fit", "min_steps 9: more than --trainer.max_steps 3"),
    ({"max_time": "soon"}, "fit", "max_time soon: give DD:HH:MM:SS"),
    ({"max_time": "12:00"}, "fit", "max_time 12:00: give DD:HH:MM:SS"),
    ({"max_time": {"fortnights": 1}}, "fit", "give DD:HH:MM:SS"),
    ({"max_time": {"hours": 0}}, "fit", "give DD:HH:MM:SS"),
    ({"limit_train_batches": 1.5}, "fit", "limit_train_batches 1.5: give a share above 0 and at most 1.0"),
    ({"limit_train_batches": 0}, "fit", "limit_train_batches 0: give a share"),
    ({"limit_train_batches": -1}, "fit", "limit_train_batches -1: give a share"),
    ({"limit_train_batches": float("nan")}, "fit", "limit_train_batches nan: give a share"),
    ({"limit_val_batches": 0}, "fit", "without validation there is no best epoch"),
    ({"limit_val_batches": 0.0}, "validate", "without validation there is no best epoch"),
    ({"limit_test_batches": 0}, "fit", "without a test there is no result"),
    ({"limit_test_batches": 0.0}, "test", "without a test there is no result"),
    ({"limit_predict_batches": 0}, "predict", "limit_predict_batches 0: give a share"),
    ({"overfit_batches": 1}, "fit", "overfit_batches 1: not supported"),
    ({"overfit_batches": 0.5}, "fit", "overfit_batches 0.5: not supported"),
    ({"val_check_interval": 0}, "fit", "val_check_interval 0: give a share"),
    ({"val_check_interval": 2.5}, "fit", "val_check_interval 2.5: give a share"),
    ({"val_check_interval": "often"}, "fit", "val_check_interval often: give a share, a number of batches, or DD"),
    ({"check_val_every_n_epoch": 0}, "fit", "check_val_every_n_epoch 0: it must be at least 1"),
    ({"check_val_every_n_epoch": 3, "max_epochs": 2}, "fit", "more than --trainer.max_epochs 2, so no epoch"),
    ({"num_sanity_val_steps": -2}, "fit", "num_sanity_val_steps -2: give a whole number"),
    ({"log_every_n_steps": -1}, "fit", "log_every_n_steps -1: it must be at least 0"),
    ({"accumulate_grad_batches": 0}, "fit", "accumulate_grad_batches 0: it must be at least 1"),
    ({"accumulate_grad_batches": -2}, "fit", "accumulate_grad_batches -2: it must be at least 1"),
    ({"gradient_clip_val": 0}, "fit", "gradient_clip_val 0: it must be above 0"),
    ({"gradient_clip_val": -1.0}, "fit", "gradient_clip_val -1.0: it must be above 0"),
    ({"gradient_clip_val": float("inf")}, "fit", "gradient_clip_val inf: it must be above 0"),
    ({"gradient_clip_algorithm": "value"}, "fit", "gradient_clip_algorithm value: gradients are clipped by the norm"),
    ({"reload_dataloaders_every_n_epochs": -1}, "fit", "it must be at least 0"),
    ({"profiler": "stopwatch"}, "fit", "profiler stopwatch: not known here; there are simple, advanced and pytorch"),
    ({"profiler": "xla"}, "test", "profiler xla: not known here"),
    ({"barebones": True}, "fit", "barebones True: leaves out what selects the best epoch"),
    ({"use_distributed_sampler": False}, "fit", "every process would see every utterance"),
    ({"model_registry": "x"}, "fit", "model_registry x: not supported"),
    ({"callbacks": [named("callbacks.LearningRateMonitor")], "logger": False}, "fit", "LearningRateMonitor: writes to"),
    ({"callbacks": [named("callbacks.DeviceStatsMonitor")], "logger": False}, "fit", "DeviceStatsMonitor: writes to a"),
    ({"callbacks": named("callbacks.BatchSizeFinder")}, "fit", "BatchSizeFinder: the batch size is the model's"),
    ({"callbacks": [named("callbacks.LearningRateFinder")]}, "fit", "give --model.learning_rate"),
    (
        {"callbacks": [named("callbacks.ModelCheckpoint")], "enable_checkpointing": False},
        "fit",
        "ModelCheckpoint: needs --trainer.enable_checkpointing true",
    ),
    (
        {"callbacks": [named("callbacks.RichProgressBar")], "enable_progress_bar": False},
        "fit",
        "RichProgressBar: needs --trainer.enable_progress_bar true",
    ),
    (
        {"callbacks": [named("callbacks.GradientAccumulationScheduler")], "accumulate_grad_batches": 2},
        "fit",
        "contradicts --trainer.accumulate_grad_batches",
    ),
]


@pytest.mark.parametrize(("options", "command", "expected"), REFUSED, ids=[f"{o} {c}" for o, c, _ in REFUSED])
def test_refused_before_anything_is_made(
    options: dict[str, Any], command: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError) as refused:
        check_trainer_options(CPU | options, command)
    line = str(refused.value)
    assert expected in line
    assert line.startswith("--trainer.")
    assert line.isprintable()


ACCEPTED: list[tuple[dict[str, Any], str]] = [
    ({}, "fit"),
    ({"devices": "auto", "strategy": "auto", "accelerator": "auto", "num_nodes": 1}, "fit"),
    ({"devices": 2, "strategy": "ddp"}, "fit"),
    ({"devices": "2", "strategy": "ddp_find_unused_parameters_true"}, "test"),
    ({"strategy": named("strategies.DDPStrategy", start_method="popen")}, "fit"),
    ({"max_epochs": -1, "min_epochs": 3}, "fit"),
    ({"max_epochs": 0}, "test"),
    ({"fast_dev_run": True, "check_val_every_n_epoch": 5, "max_epochs": 2}, "fit"),
    ({"fast_dev_run": 0}, "fit"),
    ({"max_time": "00:12:00:00"}, "fit"),
    ({"max_time": {"minutes": 5}}, "fit"),
    ({"limit_train_batches": 1.0, "limit_val_batches": 1, "limit_test_batches": 0.5}, "fit"),
    ({"limit_test_batches": 0}, "predict"),
    ({"overfit_batches": 0.0, "val_check_interval": 0.5, "check_val_every_n_epoch": None}, "fit"),
    ({"val_check_interval": "00:00:10:00"}, "fit"),
    ({"gradient_clip_val": 0.5, "gradient_clip_algorithm": "norm", "precision": "bf16-mixed"}, "fit"),
    ({"profiler": "simple", "barebones": False, "use_distributed_sampler": True, "num_sanity_val_steps": -1}, "fit"),
    ({"callbacks": [named("callbacks.LearningRateMonitor"), named("callbacks.EarlyStopping")], "logger": True}, "fit"),
    ({"callbacks": [named("callbacks.TQDMProgressBar")], "enable_progress_bar": True}, "fit"),
]


@pytest.mark.parametrize(
    ("options", "command"), ACCEPTED, ids=[f"{options} {command}" for options, command in ACCEPTED]
)
def test_accepted(options: dict[str, Any], command: str) -> None:
    check_trainer_options(CPU | options, command)


def test_several_machines_need_somebody_who_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    check_trainer_options(CPU | {"num_nodes": 2}, "fit")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_no_gpu(accelerator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["fit", "--model", "MeanFusion", "--run_dir", str(run), "--trainer.accelerator", accelerator]
    assert (
        one_line(capsys, words) == f"--trainer.accelerator {accelerator}: no GPU here; give --trainer.accelerator cpu."
    )
    assert not run.exists()


def test_gpus_are_counted_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for devices in (1, 2, -1, "-1", "0,1", [1], "auto"):
        check_trainer_options({"accelerator": "gpu", "devices": devices}, "fit")
    for devices, expected in (
        (3, "more than there are here"),
        ([0, 2], "more than there are here"),
        ("0,5", "more than there are here"),
        ([0, 0], "give how many"),
        (-2, "give how many"),
    ):
        with pytest.raises(InputError, match=expected):
            check_trainer_options({"accelerator": "gpu", "devices": devices}, "fit")


@pytest.mark.parametrize("monitor", ["val_loss", "val/UA", "val/pooled/accuracy", "UA", "", "val/pooled/\x1b[2J"])
def test_a_monitor_that_is_not_logged_is_answered_by_the_names_there_are(monitor: str) -> None:
    data = Synthetic(utterances_per_speaker=8)
    model = MeanFusion(feature_dims=data.feature_dims, class_names=data.class_names, corpus=data.corpus_name)
    for callback in (EarlyStopping(monitor), ModelCheckpoint(monitor=monitor)):
        with pytest.raises(InputError) as refused:
            check_monitors([callback], model)
        assert "is not logged. There are: train/loss, val/loss, and val/ROW/SCORE" in str(refused.value)
        assert "pooled" in str(refused.value)
        assert str(refused.value).isprintable()
    for known in ("val/pooled/UA", "val/avt/WA", "val/loss", "train/loss"):
        check_monitors([EarlyStopping(known), ModelCheckpoint(monitor=known)], model)


def test_callbacks_of_ones_own_work_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["fit", "--model", "MeanFusion", "--run_dir", str(run), *SMALL, "--trainer.max_epochs", "2"]
    words += ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]
    words += ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath", str(tmp_path / "theirs")]
    words += ["--trainer.callbacks+=TQDMProgressBar", "--trainer.callbacks+=LearningRateMonitor"]
    words += ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.01"]
    assert main([*words, "--trainer.min_epochs", "2"]) == 0
    assert len(list((run / "checkpoints").glob("epoch*.ckpt"))) == 1
    assert list((tmp_path / "theirs").glob("*.ckpt"))
    assert "checkpoints/epoch" in metrics(run)["record"]["checkpoint"]
    assert "device: cpu" in (run / "config.yaml").read_text()  # of the averaging: it can be read back
    assert "best epoch by val/pooled/UA" in capsys.readouterr().out


# Once the batches are counted: 8 of training, 4 of each other split.

FEW = "less than one of the {} batch(es) there are; give a larger share, or 1"
COUNTED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("fit", {"limit_train_batches": 0.01}, {}, "limit_train_batches 0.01: " + FEW.format(8)),
    ("fit", {"limit_train_batches": 0.124}, {}, "limit_train_batches 0.124: " + FEW.format(8)),
    ("fit", {"limit_val_batches": 0.1}, {}, "limit_val_batches 0.1: " + FEW.format(4)),
    ("fit", {"limit_test_batches": 0.24}, {"test": True}, "limit_test_batches 0.24: " + FEW.format(4)),
    ("validate", {"limit_val_batches": 0.1}, {}, "limit_val_batches 0.1: " + FEW.format(4)),
    ("test", {"limit_test_batches": 0.1}, {}, "limit_test_batches 0.1: " + FEW.format(4)),
    ("predict", {"limit_predict_batches": 0.1}, {}, "limit_predict_batches 0.1: " + FEW.format(4)),
    ("fit", {"val_check_interval": 9}, {}, "val_check_interval 9: more than the 8 batch(es) of an epoch; give a share"),
    ("fit", {"val_check_interval": 3, "limit_train_batches": 2}, {}, "more than the 2 batch(es) of an epoch"),
    ("fit", {"val_check_interval": 3, "limit_train_batches": 0.25}, {}, "more than the 2 batch(es) of an epoch"),
    (
        "fit",
        {"check_val_every_n_epoch": 72},
        {},
        "72: more than the 71 epoch(s) of the model's schedule, so none would",
    ),
    ("fit", {"limit_train_batches": 0.125}, {}, ""),
    ("fit", {"limit_train_batches": 1, "val_check_interval": 1, "check_val_every_n_epoch": 5}, {}, ""),
    ("fit", {"val_check_interval": 8}, {}, ""),
    ("fit", {"val_check_interval": 9, "check_val_every_n_epoch": None}, {}, ""),
    ("fit", {"limit_val_batches": 0.1, "val_check_interval": 99, "fast_dev_run": True}, {}, ""),
    ("fit", {"limit_test_batches": 0.1}, {"test": False}, ""),
    ("test", {"limit_train_batches": 0.01, "limit_val_batches": 0.01, "val_check_interval": 99}, {}, ""),
]


@pytest.fixture(scope="module")
def data() -> Synthetic:
    """64 training utterances and 8 of each other split."""
    data = Synthetic(utterances_per_speaker=8, eval_batch_size=2)
    data.setup("fit")
    return data


def of_corpus(data: Synthetic) -> dict[str, Any]:
    return {"feature_dims": data.feature_dims, "class_names": data.class_names, "corpus": data.corpus_name}


@pytest.mark.parametrize(("command", "trainer", "more", "expected"), COUNTED, ids=lambda part: str(part)[:60])
def test_limits_that_leave_nothing(
    command: str, trainer: dict[str, Any], more: dict[str, Any], expected: str, data: Synthetic
) -> None:
    model = MeanFusion(**of_corpus(data), batch_size=8, constant_epochs=1, decay_epochs=0)
    options = Namespace(trainer=Namespace(**CPU, **trainer), **more)
    if not expected:
        check_counts(options, command, model, data, 1)
        return
    with pytest.raises(InputError) as refused:
        check_counts(options, command, model, data, 1)
    assert expected in str(refused.value)
    assert str(refused.value).startswith("--trainer.")


def test_limits_that_leave_nothing_of_stage_1(data: Synthetic) -> None:
    small: dict[str, Any] = {"embedding_dim": 4, "text_channels": 4, "hidden_dims": [4]}
    model = IFMMIN(**of_corpus(data), **small, batch_size=8, pretraining={"batch_size": 64})
    options = Namespace(trainer=Namespace(**CPU, limit_train_batches=0.5))
    before = torch.random.get_rng_state()
    with pytest.raises(InputError, match=r"limit_train_batches 0.5: less than one of the 1 batch\(es\)"):
        check_counts(options, "fit", model, data, 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    model.taught = True
    check_counts(options, "fit", model, data, 1)


def test_several_devices_share_the_batches(data: Synthetic) -> None:
    assert [data.count_batches("val", devices=devices) for devices in (1, 2, 3, 4)] == [4, 2, 1, 1]
    assert [data.count_batches("train", 8, devices) for devices in (1, 2, 64)] == [8, 8, 1]


@pytest.mark.parametrize("words", ["--trainer.limit_train_batches 0.1", "--trainer.val_check_interval 50"])
def test_nothing_is_left_of_a_limit_that_leaves_nothing(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "batch(es)" in one_line(capsys, ["fit", "--model", "MeanFusion", *SMALL, *words.split()])
    assert not list(tmp_path.iterdir())


def test_epochs_beyond_the_schedule_are_noted_and_validation_beyond_them_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--model", "MeanFusion", *sample("IEMOCAP"), "--model.constant_epochs", "0"]
    words += ["--model.decay_epochs", "1", "--trainer.max_epochs", "7"]
    assert main([*words, "--run_dir", str(tmp_path / "noted")]) == 0
    assert "note: --trainer.max_epochs 7: MeanFusion's schedule ends after 1 epoch" in capsys.readouterr().err
    words += ["--run_dir", str(tmp_path / "refused"), "--trainer.check_val_every_n_epoch", "5"]
    assert "more than the 1 epoch(s) of the model's schedule" in one_line(capsys, words)
    assert not (tmp_path / "refused").exists()
