from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from datamodules.conditions import CONDITIONS
from ifmmin.cli.main import main
from ifmmin.discovery import discover_models
from tests.cli.running import SMALL, best, end_to_end, fit, metrics, same, sample, weights


def test_fit_shows_and_keeps_what_a_reviewer_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tmp_path / "run", *SMALL, epochs=2)

    shown = capsys.readouterr().out
    assert "built-in synthetic corpus" in shown
    assert shown.index("stage 1: training InvariantPretraining") < shown.index("training IFMMIN")
    for row in ("{a}", "{v}", "{t}", "{a,v}", "{a,t}", "{v,t}", "mean", "pooled", "full {a,v,t}", "Bayes WA"):
        assert row in shown
    assert "not a corpus result" in shown

    for name in ("config.yaml", "metrics.csv", "confusion.png", "logs/metrics.csv", "stage1/best.json"):
        assert (run / name).is_file()
    assert list((run / "tensorboard").glob("events.*"))
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        assert [row["condition"] for row in csv.DictReader(file)] == [*CONDITIONS[:-1], "mean", "pooled", "avt"]

    record = metrics(run)["record"]
    assert record["data_fingerprint"]
    assert record["versions"]["torch"]
    assert "commit" in record
    assert record["config"]["model"]["class_path"].endswith("IFMMIN")
    assert record["config"]["seed_everything"] == 0
    assert Path(record["checkpoint"]).name == best(run).name


def test_the_checkpoint_of_stage_2_needs_no_stage_1_file(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *SMALL)
    teacher = {name for name in weights(best(run)) if name.startswith("teacher")}
    assert teacher
    stage1 = weights(next((run / "stage1/checkpoints").glob("epoch*.ckpt")))
    for name, value in stage1.items():
        if name.startswith("encoders."):
            assert weights(best(run))[f"teacher.{name}"].equal(value)


def test_pretrained_skips_stage_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage1 = fit(tmp_path / "stage1", *SMALL, model="InvariantPretraining")
    capsys.readouterr()
    run = fit(tmp_path / "run", *SMALL, "--model.pretrained", str(best(stage1)))
    assert "stage 1" not in capsys.readouterr().out
    assert not (run / "stage1").exists()
    assert weights(best(run))["teacher.encoders.audio.rnn.weight_hh_l0"].equal(
        weights(best(stage1))["encoders.audio.rnn.weight_hh_l0"]
    )


def test_an_option_of_stage_1_reaches_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tmp_path / "run", *SMALL, "--model.pretraining.discrepancy", "bounded", "--model.cascade_init=scaled")
    stage1 = next((run / "stage1/checkpoints").glob("epoch*.ckpt"))
    assert torch.load(stage1, weights_only=True)["hyper_parameters"]["discrepancy"] == "bounded"
    options = metrics(run)["record"]["config"]["model"]["init_args"]
    assert (options["pretraining"], options["cascade_init"]) == ({"discrepancy": "bounded"}, "scaled")
    alone = fit(tmp_path / "alone", *SMALL, "--model.discrepancy", "bounded", model="InvariantPretraining")
    assert same(weights(alone / "checkpoints/last.ckpt"), weights(run / "stage1/checkpoints/last.ckpt"))


def test_a_stage_1_of_another_architecture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.invariance_activation", "sigmoid", "--model.invariance_dropout", "0.3"]
    stage1 = best(fit(tmp_path / "stage1", *SMALL, *options, model="InvariantPretraining"))
    capsys.readouterr()
    # The parameters have the same shapes, so only its options tell.
    words = ["fit", "--model", "IFMMIN", *SMALL, "--model.pretrained", str(stage1), "--run_dir", str(tmp_path / "run")]
    assert main([*words, "--trainer.max_epochs", "1"]) == 1
    said = capsys.readouterr().err
    assert f"error: {stage1}: stage 1 has invariance_activation sigmoid; give that to IFMMIN too." in said
    # Another rate of dropout is fine: the public scripts have 0.3 in stage 1 and 0.5 in stage 2.
    rate = ["--model.invariance_dropout", "0.5", *options[:2]]
    fit(tmp_path / "run", *SMALL, *rate, "--model.pretrained", str(stage1))


def test_stage_1_alone_is_the_stage_1_of_a_whole_run(tmp_path: Path) -> None:
    alone = fit(tmp_path / "alone", *SMALL, model="InvariantPretraining", epochs=2)
    whole = fit(tmp_path / "whole", *SMALL, epochs=2)
    assert same(weights(alone / "checkpoints/last.ckpt"), weights(whole / "stage1/checkpoints/last.ckpt"))


@pytest.mark.parametrize("model", end_to_end(discover_models()))
def test_same_seed_same_bits(model: str, tmp_path: Path) -> None:
    first, second = (fit(tmp_path / name, *SMALL, "--seed_everything", "1", model=model) for name in ("one", "two"))
    assert same(weights(best(first)), weights(best(second)))
    assert metrics(first)["confusion"] == metrics(second)["confusion"]


def test_another_seed_other_bits(tmp_path: Path) -> None:
    first, second = (fit(tmp_path / seed, *SMALL, "--seed_everything", seed) for seed in ("1", "2"))
    assert not same(weights(best(first)), weights(best(second)))


def test_runs_never_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--model", "FusionPretraining", "--trainer.max_epochs", "1", *SMALL]
    assert main(words) == 0
    assert main(words) == 0
    parent = tmp_path / "runs/Synthetic/fold1/FusionPretraining-seed0"
    assert sorted(path.name for path in parent.iterdir()) == ["run-1", "run-2"]
    assert main([*words, "--run_dir", str(parent / "run-1")]) == 1
    assert "holds a run already" in capsys.readouterr().err


def test_settings_from_a_file_and_from_the_command_line_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SMALL, "--model.lambda_inv", "0", "--model.cascaded_input", "false"]
    first = fit(tmp_path / "first", *options)
    config = tmp_path / "config.yaml"
    config.write_text((first / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "second")]) == 0
    assert same(weights(best(first)), weights(best(tmp_path / "second")))
    assert metrics(tmp_path / "second")["record"]["config"]["model"]["init_args"]["lambda_inv"] == 0


@pytest.mark.parametrize("corpus", ["IEMOCAP", "MSPIMPROV"])
@pytest.mark.parametrize("model", end_to_end(discover_models()))
def test_every_model_on_both_sample_corpora_end_to_end(model: str, corpus: str, tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *sample(corpus), model=model)
    assert metrics(run)["corpus"] in ("IEMOCAP", "MSP-IMPROV")
    assert not metrics(run)["is_synthetic"]
    words = ["--model", model, *sample(corpus), "--ckpt_path", str(best(run))]
    assert main(["test", *words, "--run_dir", str(tmp_path / "test")]) == 0
    assert metrics(tmp_path / "test")["confusion"] == metrics(run)["confusion"]
    assert main(["predict", *words, "--output", str(tmp_path / "predictions.csv")]) == 0
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # Every answered row of the test is predicted again, and as often rightly.
    counts = metrics(run)["confusion"]
    assert len(rows) == sum(sum(map(sum, matrix)) for matrix in counts.values())
    right = sum(matrix[c][c] for matrix in counts.values() for c in range(4))
    assert sum(row["prediction"] == row["label"] for row in rows) == right


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions(precision: str, tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *SMALL, "--trainer.precision", precision)
    assert metrics(run)["metrics"]["pooled"]["WA"] is not None


@pytest.mark.parametrize("model", ["IFMMIN", "CompleteFusion"])
def test_fewer_conditions_can_be_evaluated(model: str, tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *SMALL, "--data.conditions", '["a", "av"]', model=model)
    rows = metrics(run)["metrics"]
    assert rows["av"]["WA"] is not None
    assert rows["t"]["WA"] is None
    assert rows["avt"]["WA"] is None
