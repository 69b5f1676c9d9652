"""Interrupted runs that were torn, moved, copied, edited or are in use: they go on to the same bits, or one line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from jsonargparse import Namespace

from datamodules.errors import InputError
from datamodules.files import locked
from ifmmin import runs
from ifmmin.checkpoints import load_model
from ifmmin.checkpoints.keeping import epoch_files
from ifmmin.checkpoints.training_state import usable_checkpoint
from ifmmin.checkpoints.writing import AtomicCheckpointIO
from ifmmin.cli.main import main
from ifmmin.cli.resuming import check_options, name_devices
from tests.cli.running import SAMPLES, best, fit, fresh, metrics, same, sample, weights
from tests.faults.cases import Case, judged, one_line, table
from tests.faults.test_checkpoints import Bomb, deflate, put, replace

TINY = ["--model.embedding_dim", "4", "--model.text_channels", "4", "--model.hidden_dims", "[4]"]
MODEL = "ModalityDropout"
LAST = Path("checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(SAMPLES["IEMOCAP"], tmp_path_factory.mktemp("corpora") / "corpus"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """Two epochs without an interruption."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return fit(folder, "--data", "IEMOCAP", "--data.root", str(corpus), *TINY, model=MODEL, epochs=2)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The first of two epochs, killed before the second."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    fit(folder, "--data", "IEMOCAP", "--data.root", str(corpus), *TINY, model=MODEL, epochs=1)
    for name in ("metrics.json", "metrics.csv", "confusion.png"):
        (folder / name).unlink()
    config = folder / runs.CONFIG
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    return folder


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


# last.ckpt: whatever is wrong with it, the best epoch's takes its place.

GROUP = ("optimizer_states", "param_groups")
FIT_LOOP = ("loops", "fit_loop")


def shorter_momentum(states: list[Any]) -> list[Any]:
    states[0]["state"][0]["exp_avg"] = states[0]["state"][0]["exp_avg"].view(-1)[:1].repeat(3)
    return states


def momentum_of_nan(states: list[Any]) -> list[Any]:
    states[0]["state"][0]["exp_avg"].mul_(torch.nan)
    return states


def fewer_parameters(states: list[Any]) -> list[Any]:
    states[0]["param_groups"][0]["params"].pop()
    return states


def without_rate(states: list[Any]) -> list[Any]:
    del states[0]["param_groups"][0]["lr"]
    return states


def of_other_sizes(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["state_dict"] = {name: value[:1] for name, value in content["state_dict"].items()}
    torch.save(content, path)


TORN = [
    Case("half of it", lambda path: os.truncate(path, path.stat().st_size // 2), "truncated, damaged"),
    Case("nothing of it", lambda path: path.write_bytes(b""), "it is empty"),
    Case("zeros", lambda path: path.write_bytes(bytes(path.stat().st_size)), "truncated, damaged"),
    Case("text", lambda path: path.write_text("last"), "truncated, damaged"),
    Case("gone", Path.unlink, "there is no such checkpoint"),
    Case("a dead link", replace(lambda path: path.symlink_to("nowhere")), "there is no such checkpoint"),
    Case("a FIFO", replace(os.mkfifo), "a pipe or a device"),
    Case("code", lambda path: torch.save({"state_dict": Bomb()}, path), "contains code, which is never run"),
    Case("compressed", deflate, "it is compressed"),
    Case("another model's", put("ifmmin", "model", value="MMIN"), "a checkpoint of MMIN, not of ModalityDropout"),
    Case("another size's", of_other_sizes, "its weights are not this model's"),
    Case("weights of NaN", put("state_dict", value=lambda state: {name: value * torch.nan for name, value in
         state.items()}), "is NaN or infinite"),
    Case("no loops", put("loops", value=...), "training cannot go on from it: loops is missing"),
    Case("loops are a list", put("loops", value=[]), "loops is of another kind"),
    Case("no loop of the fit", put("loops", value={}), "fit_loop is missing"),
    Case("no epochs", put(*FIT_LOOP, "epoch_progress", value=...), "epoch_progress is missing"),
    Case("no epochs done", put(*FIT_LOOP, "epoch_progress", "current", value={}), "ready is missing"),
    Case("epochs are text", put(*FIT_LOOP, "epoch_progress", "total", "ready", value="1"), "ready is of another kind"),
    Case("batches below 0", put(*FIT_LOOP, "epoch_loop.batch_progress", "current", "ready", value=-1), "a count must"),
    Case("no callbacks", put("callbacks", value=...), "callbacks is missing"),
    Case("callbacks by number", put("callbacks", value={1: {}}), "a name that is not text"),
    Case("no best epoch", put("callbacks", value=lambda found: {name: {} for name in found}), "best_k_models is"),
    Case("no optimiser", put("optimizer_states", value=...), "optimizer_states is missing"),
    Case("no optimiser's state", put("optimizer_states", value=[]), "optimizer_states or lr_schedulers is empty"),
    Case("fewer parameters", put("optimizer_states", value=fewer_parameters), "another number of parameters"),
    Case("other momenta", put("optimizer_states", value=shorter_momentum), "other sizes than the weights"),
    Case("momenta of NaN", put("optimizer_states", value=momentum_of_nan), "optimizer_states is NaN or infinite"),
    Case("no learning rate", put("optimizer_states", value=without_rate), "optimizer_states has no lr"),
    Case("no schedule", put("lr_schedulers", value=...), "lr_schedulers is missing"),
    Case("no version", put("pytorch-lightning_version", value=...), "pytorch-lightning_version is no version"),
    Case("a version of words", put("pytorch-lightning_version", value="new"), "is no version"),
]  # fmt: skip


@pytest.mark.parametrize("case", table(TORN))
def test_last_checkpoint(case: Case, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = best(run)
    model, _ = load_model(kept)
    (run / "checkpoints" / "epoch007.ckpt").write_bytes(b"")  # torn too, so the one before it is taken
    case.make(run / LAST)
    assert usable_checkpoint(run, model) == str(run / LAST)
    (note,) = caplog.messages
    assert case.expected in note
    assert note.endswith("; going on from epoch001.ckpt.")
    assert note.isprintable()
    assert (run / LAST).read_bytes() == kept.read_bytes()
    assert epoch_files(run / "checkpoints") == [kept]


def test_no_checkpoint_is_left(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, _ = load_model(best(run))
    for path in (best(run), run / LAST):
        path.write_bytes(b"")
    assert usable_checkpoint(run, model) is None
    assert caplog.messages[0].endswith("starting over, as no other checkpoint is there.")
    assert not list((run / "checkpoints").iterdir())


def test_epochs_of_before_the_kill_are_removed(run: Path) -> None:
    model, _ = load_model(best(run))
    for name in ("epoch002.ckpt", "epoch001-v1.ckpt", "epoch=3.ckpt", "mine.ckpt"):
        shutil.copy(best(run) if name == "epoch002.ckpt" else run / LAST, run / "checkpoints" / name)
    assert usable_checkpoint(run, model) == str(run / LAST)
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == ["epoch001.ckpt", "epoch=3.ckpt", "last.ckpt", "mine.ckpt"]


STAGE1 = [
    Case("empty", lambda path: path.write_text(""), ""),
    Case("torn", lambda path: path.write_text('{"check'), ""),
    Case("a list", lambda path: path.write_text("[1]"), ""),
    Case("a number", lambda path: path.write_text('{"checkpoint": 3}'), ""),
    Case("not UTF-8", lambda path: path.write_bytes(b"\xff\xfe{"), ""),
    Case("another key", lambda path: path.write_text('{"best": "x"}'), ""),
    Case("a file elsewhere", lambda path: path.write_text('{"checkpoint": "../../secret.ckpt"}'), ""),
    Case("a folder", replace(Path.mkdir), ""),
]


@pytest.mark.parametrize("case", table(STAGE1))
def test_the_record_of_stage_1(case: Case, tmp_path: Path) -> None:
    kept = tmp_path / "run" / "stage1" / "checkpoints" / "epoch001.ckpt"
    kept.parent.mkdir(parents=True)
    kept.touch()
    (tmp_path / "secret.ckpt").touch()
    runs.record_stage1(tmp_path / "run", kept)
    assert runs.finished_stage1(tmp_path / "run") == kept
    case.make(tmp_path / "run" / "stage1" / "best.json")
    assert runs.finished_stage1(tmp_path / "run") is None


# Options.

STARTED: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"devices": "auto", "max_epochs": 5, "gradient_clip_val": None, "callbacks": None, "logger": None},
    "model": {"class_path": "ifmmin.IFMMIN", "init_args": {"learning_rate": 1e-4, "pretraining": None, "cycle": True}},
    "data": {"class_path": "datamodules.IEMOCAP", "init_args": {"root": "x", "fold": 1, "workers": 0, "mask": "av"}},
    "run_dir": "there",
}  # fmt: skip

REFUSED = {
    "seed_everything=3": "--seed_everything 0, not 3",
    "trainer.gradient_clip_val=1.0": "--trainer.gradient_clip_val null, not 1.0",
    "trainer.precision=16": "--trainer.precision null, not 16",
    'trainer.callbacks=[{"class_path": "x.Y"}]': "--trainer.callbacks null, not [{'class_path': 'x.Y'}]",
    "model.class_path=ifmmin.Other": "--model ifmmin.IFMMIN, not ifmmin.Other",
    "model.init_args.learning_rate=0.1": "--model.learning_rate 0.0001, not 0.1",
    "model.init_args.cycle=1": "--model.cycle True, not 1",
    'model.init_args.pretraining={"constant_epochs": 1}': "--model.pretraining.constant_epochs null, not 1",
    "data.class_path=mine.Corpus": "--data datamodules.IEMOCAP, not mine.Corpus",
    "data.init_args.fold=3": "--data.fold 1, not 3",
    "data.init_args.mask=0.1": "--data.mask av, not 0.1",
    'data.init_args.mask="\\u001b[2J"': r"--data.mask av, not \x1b[2J",
    "ckpt_path=other.ckpt": "--ckpt_path null, not other.ckpt",
}

ALLOWED = [
    "trainer.devices=2",
    "trainer.strategy=ddp",
    "trainer.max_epochs=9",
    "trainer.logger=false",
    'trainer.logger={"class_path": "CSVLogger"}',
    "data.init_args.workers=2",
    "data.init_args.root=elsewhere",
    "run_dir=here",
    'model.init_args.learning_rate="1e-4"',
    'model.init_args.pretraining={}',
    "model.class_path=ifmmin.model.IFMMIN",
]  # fmt: skip


def changed(option: str) -> dict[str, Any]:
    name, _, value = option.partition("=")
    asked: dict[str, Any] = json.loads(json.dumps(STARTED))
    place = asked
    *parents, leaf = name.split(".")
    for parent in parents:
        place = place[parent]
    try:
        place[leaf] = json.loads(value)
    except ValueError:
        place[leaf] = value
    return asked


@pytest.mark.parametrize("option", REFUSED)
def test_an_option_that_differs_is_named(option: str) -> None:
    with pytest.raises(InputError) as caught:
        check_options(Path("run"), STARTED, changed(option))
    assert f"run: was started with {REFUSED[option]}; leave the option out" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("option", ALLOWED)
def test_where_and_how_a_run_goes_on_is_free(option: str) -> None:
    check_options(Path("run"), STARTED, changed(option))


def test_a_device_is_written_by_its_name() -> None:
    averaging = Namespace(class_path="StochasticWeightAveraging", init_args=Namespace(device=torch.device("cpu")))
    name_devices([averaging, None])
    assert averaging.init_args.device == "cpu"


WORDS = [
    (["--data.fold", "3"], "--data.fold 1, not 3"),
    (["--seed_everything", "7"], "--seed_everything 0, not 7"),
    (["--model", "MeanFusion"], "was started with --model baselines.plain_fusion.ModalityDropout, not baselines."),
    (["--model.learning_rate=0.1"], "--model.learning_rate null, not 0.1"),
    (["--data.train_mask=0.2,0.5,0.8"], "--data.train_mask uniform, not 0.2,0.5,0.8"),
    (["--data.permanent_mask=true"], "--data.permanent_mask False, not True"),
]


@pytest.mark.parametrize(
    ("words", "expected"), WORDS, ids=lambda part: " ".join(part) if isinstance(part, list) else ""
)
def test_words(words: list[str], expected: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(run.rglob("*"))
    assert expected in one_line(capsys, ["fit", "--resume", str(run), *words])
    assert sorted(run.rglob("*")) == before


# The data, and the configuration.


def edit(before: str, after: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        config = run / runs.CONFIG
        assert before in config.read_text()
        config.write_text(config.read_text().replace(before, after))

    return make


def other_corpus(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """A corpus that was changed since; the run's own is left alone for the other cases."""

    def make(run: Path) -> None:
        root = shutil.copytree(SAMPLES["IEMOCAP"], run.parent / "changed")
        change(Path(root))
        text = (run / runs.CONFIG).read_text()
        lines = [f"    root: {root}" if line.startswith("    root: ") else line for line in text.splitlines()]
        (run / runs.CONFIG).write_text("\n".join(lines))

    return make


def change_a_value(root: Path) -> None:
    with h5py.File(root / "V/denseface.h5", "a") as file:
        file[sorted(file)[0]][0, 0] += 1


def change_a_label(root: Path) -> None:
    path = root / "target/1/trn_label.npy"
    np.save(path, np.load(path)[::-1])


def drop_an_utterance(root: Path) -> None:
    for kind in ("label", "int2name"):
        path = root / f"target/1/trn_{kind}.npy"
        np.save(path, np.load(path)[:-1])


def change_a_test_label(root: Path) -> None:
    path = root / "target/1/tst_label.npy"
    np.save(path, np.load(path)[::-1])


EDITED = [
    Case("a value of a face", other_corpus(change_a_value), "the corpus changed since"),
    Case("training labels", other_corpus(change_a_label), "the corpus changed since"),
    Case("test labels", other_corpus(change_a_test_label), "the corpus changed since"),
    Case("an utterance fewer", other_corpus(drop_an_utterance), "the corpus changed since"),
    Case("the corpus is gone", other_corpus(shutil.rmtree), "does not exist"),
    Case("the fold in the configuration", edit("fold: 1", "fold: 3"), "trained on fold 1, but the run's"),
    Case("the seed in the configuration", edit("seed_everything: 0", "seed_everything: 5"), "trained on seed 0, but"),
    Case("the width in the configuration", edit("embedding_dim: 4", "embedding_dim: 8"), "with embedding_dim 4"),
    Case("no configuration", lambda run: (run / runs.CONFIG).unlink(), "no run to go on with"),
    Case("a result is there", lambda run: (run / runs.METRICS).write_text("{}"), "this run is finished"),
]  # fmt: skip


@pytest.mark.parametrize("case", table(EDITED))
def test_what_changed_is_named(case: Case, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case.make(run)
    before = (run / LAST).read_bytes()
    assert case.expected in one_line(capsys, ["fit", "--resume", str(run)])
    assert (run / LAST).read_bytes() == before


# Going on.


def test_a_moved_run_goes_on_in_itself(run: Path, interrupted: Path, finished: Path) -> None:
    moved = run.rename(run.parent / "elsewhere")
    before = {path: path.stat().st_mtime_ns for path in interrupted.rglob("*")}
    assert main(["fit", "--resume", str(moved)]) == 0
    assert same(weights(moved / LAST), weights(finished / LAST))
    assert best(moved).name == best(finished).name
    assert same(weights(best(moved)), weights(best(finished)))
    assert metrics(moved)["confusion"] == metrics(finished)["confusion"]
    assert metrics(moved)["record"]["resumed_after_epochs"] == [1]
    assert f"run_dir: {moved}" in (moved / runs.CONFIG).read_text()
    assert {path: path.stat().st_mtime_ns for path in interrupted.rglob("*")} == before


def test_a_job_that_slurm_starts_again_goes_on(
    run: Path, corpus: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--model", MODEL, "--data", "IEMOCAP", "--data.root", str(corpus), *TINY, "--run_dir", str(run)]
    words += ["--trainer.max_epochs", "2"]
    for count in ("", "0"):  # started for the first time: the folder was there by mistake
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        assert "holds a run already" in one_line(capsys, words)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert "--data.fold 1, not 3" in one_line(capsys, [*words, "--data.fold", "3"])
    assert main(words) == 0
    assert same(weights(run / LAST), weights(finished / LAST))
    assert metrics(run)["record"]["resumed_after_epochs"] == [1]
    assert "this run is finished" in one_line(capsys, words)
    fresh_words = [*words[:-4], "--run_dir", str(run.parent / "new"), "--trainer.fast_dev_run", "true"]
    assert main(fresh_words) == 0  # before the first configuration was written


def test_a_run_that_only_lacks_its_result(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "metrics.json").unlink()
    left = run / "checkpoints" / ".ifmmin-last.abc.ckpt"
    left.touch()
    assert main(["fit", "--resume", str(run), "--trainer.logger", "false"]) == 0
    assert metrics(run)["confusion"] == metrics(finished)["confusion"]
    assert not left.exists()
    assert metrics(run)["record"]["resumed_after_epochs"] == []
    assert metrics(run)["record"]["config"]["trainer"]["logger"] is False
    assert "logger: false" in (run / runs.CONFIG).read_text()


def test_a_users_own_checkpoints_do_not_decide(finished: Path, corpus: Path, tmp_path: Path) -> None:
    own = json.dumps({"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(tmp_path / "own"), "save_top_k": -1,
                      "monitor": "val/pooled/UA", "mode": "max"}})  # fmt: skip
    words = ["--data", "IEMOCAP", "--data.root", str(corpus), *TINY, f"--trainer.callbacks=[{own}]"]
    run = fit(tmp_path / "run", *words, model=MODEL, epochs=2)
    assert same(weights(best(run)), weights(best(finished)))
    assert metrics(run)["record"]["checkpoint"].endswith(f"run/checkpoints/{best(finished).name}")
    assert len(list((tmp_path / "own").iterdir())) == 2


def test_a_users_own_checkpoints_stay_in_one_place(
    corpus: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    best_two = {"class_path": "ModelCheckpoint", "init_args": {"save_top_k": 2, "monitor": "val/loss"}}
    newest = {"class_path": "ModelCheckpoint", "init_args": {"filename": "newest", "save_last": True}}
    own = json.dumps([best_two, newest])
    words = ["--data", "IEMOCAP", "--data.root", str(corpus), *TINY, f"--trainer.callbacks={own}"]
    run = fit(tmp_path / "run", *words, model=MODEL, epochs=2)
    for name in ("metrics.json", "predictions.csv"):
        (run / name).unlink()
    config = run / runs.CONFIG
    config.write_text(config.read_text().replace("max_epochs: 2", "max_epochs: 4"))
    moved = run.rename(tmp_path / "moved")
    assert main(["fit", "--resume", str(moved)]) == 0
    states = torch.load(moved / LAST, weights_only=True)["callbacks"]
    (kept,) = (state["best_k_models"] for name, state in states.items() if "val/loss" in name)
    losses = sorted(float(score) for score in kept.values())
    every = finished_losses(moved)
    assert len(every) == 4
    assert losses == pytest.approx(sorted(every)[:2], abs=1e-6)
    there = sorted(path.name for path in (moved / "logs" / "checkpoints").iterdir())
    assert there == sorted([*(Path(path).name for path in kept), "last.ckpt", "newest.ckpt"])
    assert not [path for path in moved.rglob("*.ckpt") if path.parts[-3] == "logs-2"]
    assert not [str(each.message) for each in recwarn if "dirpath has changed" in str(each.message)]


def finished_losses(run: Path) -> list[float]:
    """Validation losses of all epochs, in the two logs of a run that went on."""
    rows = [row for path in run.glob("logs*/metrics.csv") for row in csv.DictReader(path.open(encoding="utf-8"))]
    return [float(row["val/loss"]) for row in rows if row.get("val/loss")]


TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
RANK_1_SEES_NONE = """
import os
from ifmmin.checkpoints import training_state
from datamodules.errors import InputError
read = training_state.read_training_state
def blind(path, model):
    if os.environ.get("LOCAL_RANK") == "1":
        raise InputError("stale file handle")
    return read(path, model)
training_state.read_training_state = blind
"""


@pytest.mark.slow
def test_two_processes_fall_back_to_the_same_checkpoint(run: Path, finished: Path, tmp_path: Path) -> None:
    os.truncate(run / LAST, 1000)
    done = fresh("fit", "--resume", str(run), *TWO, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("going on from epoch001.ckpt")) == (0, 1), done.stderr
    assert metrics(run)["record"]["resumed_after_epochs"] == [1]


@pytest.mark.slow
def test_two_processes_that_would_not_start_alike(run: Path, tmp_path: Path) -> None:
    before = (run / LAST).read_bytes()
    done = fresh("fit", "--resume", str(run), *TWO, cwd=tmp_path, prelude=RANK_1_SEES_NONE)
    assert done.returncode == 1
    assert f"rank 1 would train {MODEL} from no checkpoint, rank 0 {MODEL} from last.ckpt; see" in judged(done.stderr)
    assert (run / LAST).read_bytes() == before


# Folders.


def test_a_run_in_use_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(run, "run"):
        assert f"in use by process {os.getpid()} on " in one_line(capsys, ["fit", "--resume", str(run)])
        words = ["fit", "--model", MODEL, *sample("IEMOCAP"), "--run_dir", str(run)]
        assert "this run is in use by" in one_line(capsys, words)
        words = ["test", "--model", MODEL, *sample("IEMOCAP"), "--ckpt_path", str(best(run)), "--run_dir", str(run)]
        assert "this run is in use by" in one_line(capsys, words)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_configuration_of_a_fit_scores_into_a_folder_of_its_own(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    config = run / runs.CONFIG
    start = f"run_dir: {run}\nckpt_path: {best(run)}"  # as of a fit that started from a checkpoint
    config.write_text(config.read_text().replace(f"run_dir: {finished}\nckpt_path: null", start))
    assert start in config.read_text()
    before, words = contents(run), ["--config", str(config)]
    for command in ("test", "validate", "predict"):
        assert f"{command}: --ckpt_path is needed" in one_line(capsys, [command, *words])
        for given in ([*words, "--ckpt_path", str(best(run))], ["--ckpt_path", str(best(run)), *words]):
            assert main([command, *given]) == 0
    assert contents(run) == before
    folders = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("runs/*/*/*/*"))
    place = f"runs/IEMOCAP/fold1/{MODEL}-seed0"
    assert folders == [f"{place}-{each}/run-{k}" for each in ("predict", "test", "validate") for k in (1, 2)]
    assert metrics(tmp_path / f"{place}-test/run-1")["confusion"] == metrics(run)["confusion"]


def test_results_are_not_overwritten(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["--model", MODEL, *sample("IEMOCAP"), "--ckpt_path", str(best(finished)), "--run_dir"]
    for command, first in (("test", "metrics.json"), ("validate", "val_metrics.json")):
        assert main([command, *words, str(out)]) == 0
        before = contents(out)
        assert one_line(capsys, [command, *words, str(out)]) == (
            f"{out / first}: exists already; name another folder, or move it away."
        )
        assert contents(out) == before
    assert f"{out}/metrics.json: exists already" in one_line(capsys, ["fit", *words[:-3], *TINY, "--run_dir", str(out)])
    (out / "metrics.json").unlink()
    assert f"{out}/predictions.csv: exists already" in one_line(capsys, ["test", *words, str(out)])
    assert f"{out}/predictions.csv: exists already" in one_line(capsys, ["predict", *words, str(out)])
    line = one_line(capsys, ["test", *words, str(finished)])
    assert line == f"{finished}: holds a run already; name another folder."


@pytest.fixture
def quiet_threads() -> Iterator[list[threading.ExceptHookArgs]]:
    caught: list[threading.ExceptHookArgs] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", caught.append)
        yield caught


def test_a_folder_that_is_deleted_while_training(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, folder = AtomicCheckpointIO.save_checkpoint, tmp_path / "run"

    def delete_and_save(self: AtomicCheckpointIO, *args: Any, **kwargs: Any) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        saved(self, *args, **kwargs)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", delete_and_save)
    words = ["fit", "--model", MODEL, "--data", "IEMOCAP", "--data.root", str(corpus), *TINY, "--run_dir", str(folder)]
    assert "run: this run's folder was deleted" in one_line(capsys, [*words, "--trainer.max_epochs", "2"])


def test_a_home_folder(interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(interrupted, tmp_path / "run")
    words = ["predict", "--model", MODEL, *sample("IEMOCAP"), "--run_dir", "~/out", "--output", "~/answers.csv"]
    assert main([*words, "--ckpt_path", "~/run/checkpoints/last.ckpt"]) == 0
    assert (tmp_path / "answers.csv").is_file()
    assert not (tmp_path / "~").exists()


def test_a_command_that_fails_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--model", MODEL, *sample("IEMOCAP"), "--run_dir", "deep/er/run"]
    assert one_line(capsys, [*words, "--data.root", "nowhere"])
    assert not list(tmp_path.iterdir())
    assert one_line(capsys, [*words, "--data.conditions", '["avt"]'])  # found when the trainer starts
    assert not list(tmp_path.iterdir())


def test_stage_1_of_another_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stage1 = best(fit(tmp_path / "stage1", *sample("IEMOCAP"), *TINY, model="InvariantPretraining"))
    words = ["fit", "--model", "IFMMIN", *sample("IEMOCAP"), *TINY, "--model.pretrained", str(stage1)]
    line = one_line(capsys, [*words, "--data.fold", "3", "--run_dir", "run"])
    assert "epoch001.ckpt: trained on fold 1, whose training data include fold 3's test data" in line
    assert not Path("run").exists()
