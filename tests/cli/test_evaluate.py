from __future__ import annotations

import csv
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from matplotlib.image import imread
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from datamodules import IEMOCAP
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS, MODALITIES
from ifmmin.cli.main import main
from ifmmin.finished import read_run
from ifmmin.results.reading import read_predictions
from tests.cli.running import SAMPLES, SMALL, best, fit, fresh, metrics, same, sample, weights

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("fitted") / "run", *sample("IEMOCAP"), epochs=2)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_fresh_process_tests_to_the_same_result(run: Path, tmp_path: Path) -> None:
    words = ["test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run)), "--run_dir", "out"]
    # As from a notebook, whose backend this environment does not have.
    done = fresh(*words, cwd=tmp_path, MPLBACKEND="module://no_such_package.backend_inline")
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "out")["confusion"] == metrics(run)["confusion"]


def test_validate_scores_the_validation_split(run: Path, tmp_path: Path) -> None:
    words = ["validate", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run))]
    assert main([*words, "--run_dir", str(tmp_path)]) == 0
    found = metrics(tmp_path, "val_metrics.json")
    assert found["split"] == "val"
    assert sum(map(sum, found["confusion"]["avt"])) == 19


def test_the_checkpoints_settings_win_and_it_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run)), "--run_dir", str(tmp_path)]
    assert main([*words, "--model.lambda_inv", "7"]) == 0
    assert "win over the command line: lambda_inv 100.0" in capsys.readouterr().out
    assert metrics(tmp_path)["record"]["config"]["model"]["init_args"]["lambda_inv"] == 100.0


def test_test_conditions_can_be_chosen(run: Path, tmp_path: Path) -> None:
    words = ["test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run)), "--run_dir", str(tmp_path)]
    assert main([*words, "--data.conditions", '["t", "avt"]']) == 0
    found = metrics(tmp_path)["metrics"]
    assert found["a"]["WA"] is None
    assert found["mean"]["WA"] is None
    assert found["t"]["WA"] == metrics(run)["metrics"]["t"]["WA"]


def test_predict_where_a_modality_really_is_not_there(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(SAMPLES["IEMOCAP"], root)
    (root / "V/denseface.h5").unlink()
    with h5py.File(root / "L/bert_large.h5", "a") as file:
        deaf = sorted(file)[0]
        del file[deaf]
    words = ["predict", "--model", "IFMMIN", "--data", "IEMOCAP", "--ckpt_path", str(best(run))]
    broken, whole = tmp_path / "broken.csv", tmp_path / "whole.csv"
    assert main([*words, "--data.root", str(root), "--output", str(broken)]) == 0
    assert main([*words, "--data.root", str(SAMPLES["IEMOCAP"]), "--output", str(whole)]) == 0

    complete = {(row["utterance"], row["condition"]): row for row in rows_of(whole)}
    assert {row["condition"] for row in rows_of(broken)} == {"a", "t", "at"}
    assert [row["condition"] for row in rows_of(broken) if row["utterance"] == deaf] == ["a"]
    for row in rows_of(broken):
        assert row["visual"] == "0"
        intact = complete[row["utterance"], row["condition"]]
        assert all(
            float(row[key]) == pytest.approx(float(intact[key]), abs=1e-6) for key in row if key.startswith("p_")
        )


def test_predict_without_targets_reads_every_utterance(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(SAMPLES["IEMOCAP"], root, ignore=shutil.ignore_patterns("target"))
    output = tmp_path / "predictions.parquet"
    words = [
        "predict",
        "--model",
        "IFMMIN",
        "--data",
        "IEMOCAP",
        "--data.root",
        str(root),
        "--ckpt_path",
        str(best(run)),
    ]
    assert main([*words, "--output", str(output)]) == 0
    import pyarrow.parquet as parquet

    table = parquet.read_table(output)
    assert table.num_rows == 160 * 7
    assert table["label"].null_count == table.num_rows


def test_predictions_are_never_overwritten(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "predictions.csv"
    output.write_text("precious", encoding="utf-8")
    words = ["predict", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run)), "--output", str(output)]
    assert main(words) == 1
    assert "exists already" in capsys.readouterr().err
    assert output.read_text(encoding="utf-8") == "precious"


def test_the_built_in_corpus_is_the_default_for_test_too(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *SMALL)
    words = ["test", "--model", "IFMMIN", *SMALL, "--ckpt_path", str(best(run)), "--run_dir", str(tmp_path / "test")]
    assert main(words) == 0
    assert metrics(tmp_path / "test")["metrics"]["a"]["bayes_WA"] is not None


def test_a_test_writes_the_seed_of_the_training(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run).resolve())]
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--seed_everything", "5"]) == 0
    found = metrics(tmp_path / "runs/IEMOCAP/fold1/IFMMIN-seed0-test/run-1")
    assert found["seed"] == 0
    assert found["trained_on"] == {"corpus": "IEMOCAP", "fold": 1, "seed": 0}


def test_a_cross_corpus_test_says_where_the_model_was_trained(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["test", "--model", "IFMMIN", *sample("MSPIMPROV"), "--ckpt_path", str(best(run).resolve())]
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--data.fold", "2", "--intervals", "speakers"]) == 0
    shown = capsys.readouterr().out
    assert "trained on IEMOCAP fold 1" in shown
    assert "no intervals: the split has fewer than two speakers" in shown
    folder = tmp_path / "runs/MSPIMPROV/fold2/IFMMIN-seed0-from-IEMOCAP-fold1-test/run-1"
    found = metrics(folder)
    assert (found["corpus"], found["fold"]) == ("MSP-IMPROV", 2)
    assert found["trained_on"] == {"corpus": "IEMOCAP", "fold": 1, "seed": 0}


def test_a_test_leaves_its_predictions_and_tables(run: Path) -> None:
    found, rows = metrics(run), rows_of(run / "predictions.csv")
    for condition, matrix in found["confusion"].items():
        mine = [row for row in rows if row["condition"] == condition]
        assert len({row["utterance"] for row in mine}) == len(mine) == sum(map(sum, matrix))
        for c, name in enumerate(found["class_names"]):
            assert sum(row["label"] == row["prediction"] == name for row in mine) == matrix[c][c]
    low, high = found["intervals"]["values"]["pooled"]["WA"]
    assert low <= found["metrics"]["pooled"]["WA"] <= high
    assert {row["speaker"] for row in rows_of(run / "per_speaker.csv")} == {"Ses01F"}
    assert {row["class"] for row in rows_of(run / "per_class.csv")} == set(found["class_names"])


def test_a_fit_stores_a_temperature_per_condition_fitted_on_validation(run: Path, tmp_path: Path) -> None:
    stored = torch.load(best(run), weights_only=True)["ifmmin"]["temperatures"]
    assert list(stored) == list(CONDITIONS)
    assert metrics(run)["record"]["temperatures"] == stored
    words = ["predict", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run))]
    output = tmp_path / "validation.csv"
    assert main([*words, "--data.predict_split", "val", "--output", str(output)]) == 0
    names = metrics(run)["class_names"]
    for condition, temperature in stored.items():
        rows = [row for row in rows_of(output) if row["condition"] == condition]
        assert len(rows) == 19
        logits = np.log([[float(row[f"p_{name}"]) for name in names] for row in rows])
        label = [names.index(row["label"]) for row in rows]

        def nll(log: float, logits: Array = logits, label: list[int] = label) -> float:
            return float(log_loss(label, softmax(logits / math.exp(log), axis=1), labels=range(len(names))))

        best_log = minimize_scalar(nll, bounds=(math.log(0.05), math.log(20)), method="bounded").x
        assert nll(math.log(temperature)) <= nll(best_log) + 1e-6


def test_a_test_measures_calibration_before_and_after(run: Path, tmp_path: Path) -> None:
    found, names = metrics(run), metrics(run)["class_names"]
    table = {row["condition"]: row for row in rows_of(run / "calibration.csv")}
    for condition in (*CONDITIONS, "pooled"):
        counted = MISSING_CONDITIONS if condition == "pooled" else (condition,)
        rows = [row for row in rows_of(run / "predictions.csv") if row["condition"] in counted]
        probability = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
        label = [names.index(row["label"]) for row in rows]
        temperature = np.array([[found["calibration"][row["condition"]]["temperature"]] for row in rows])
        after = softmax(np.log(probability) / temperature, axis=1)
        measured = found["calibration"][condition]
        for name, values in {"NLL": probability, "calibrated_NLL": after}.items():
            assert measured[name] == pytest.approx(log_loss(label, values, labels=range(len(names))), abs=1e-5)
        assert float(table[condition]["ECE"]) == pytest.approx(measured["ECE"])
        assert (after.argmax(axis=1) == probability.argmax(axis=1)).all()
    mean = np.mean([found["calibration"][condition]["calibrated_ECE"] for condition in MISSING_CONDITIONS])
    assert found["calibration"]["mean"]["calibrated_ECE"] == pytest.approx(mean)
    assert imread(run / "reliability.png").shape[:2] == (924, 1650)
    words = ["test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run)), "--run_dir", str(tmp_path)]
    assert main(words) == 0
    assert metrics(tmp_path)["calibration"] == found["calibration"]


def test_predictions_are_calibrated_abstain_and_say_why(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored, names = metrics(run)["record"]["temperatures"], metrics(run)["class_names"]
    words = ["predict", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run))]
    plain, asked = tmp_path / "plain.csv", tmp_path / "asked.csv"
    assert main([*words, "--output", str(plain)]) == 0
    assert "run folder" not in capsys.readouterr().out  # nothing is written there
    probabilities = []
    for row in rows_of(plain):
        powers = np.array([float(row[f"p_{name}"]) for name in names]) ** (1 / stored[row["condition"]])
        probabilities.append(powers.max() / powers.sum())
    threshold = str(np.median(probabilities))  # of 70, so between two of them
    options = ["--calibrated", "true", "--abstain_below", threshold, "--why", "true"]
    assert main([*words, *options, "--output", str(asked)]) == 0
    abstained, calibrated = 0, {(row["utterance"], row["condition"]): row for row in rows_of(asked)}
    for before, row in zip(rows_of(plain), rows_of(asked), strict=True):
        values = np.array([float(before[f"p_{name}"]) for name in names]) ** (1 / stored[row["condition"]])
        found = np.array([float(row[f"p_{name}"]) for name in names])
        assert found == pytest.approx(values / values.sum(), abs=1e-6)
        assert row["abstained"] == str(int(found.max() < float(threshold)))
        assert row["prediction"] == ("" if row["abstained"] == "1" else before["prediction"])
        abstained += int(row["abstained"])
        shares = [float(row[f"share_{name}"]) for name in MODALITIES]
        assert sum(shares) == pytest.approx(found.max() - 1 / len(names), abs=1e-6)
        if row["condition"] == "at":
            alone = (float(calibrated[row["utterance"], part][f"p_{names[found.argmax()]}"]) for part in "at")
            audio, text = alone
            assert shares == pytest.approx(
                [(audio - 0.25 + found.max() - text) / 2, 0, (text - 0.25 + found.max() - audio) / 2], abs=1e-6
            )
    assert 0 < abstained < len(probabilities)
    tested = ["test", *words[1:], "--run_dir", str(tmp_path / "test"), "--intervals", "none", "--why", "true"]
    assert main(tested) == 0
    predictions = read_predictions(tmp_path / "test" / "predictions.csv", read_run(run).results.task)
    assert list(predictions.values) == [f"share_{name}" for name in MODALITIES]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--calibrated", "true"], "has no temperature of any condition, so its probabilities are not calibrated"),
        (["--abstain_below", "1.5"], "abstain_below 1.5: give a probability, from 0 to 1."),
    ],
)
def test_what_predictions_cannot_be_is_said_before_any_is_made(
    options: list[str], expected: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(best(run), weights_only=True)
    del content["ifmmin"]["temperatures"]
    torch.save(content, tmp_path / "older.ckpt")
    words = ["predict", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(tmp_path / "older.ckpt")]
    assert main([*words, *options, "--output", str(tmp_path / "answers.csv")]) == 1
    shown = capsys.readouterr().err.strip()
    assert expected in shown
    assert "\n" not in shown
    assert not (tmp_path / "answers.csv").exists()


def test_validate_gives_an_older_checkpoint_its_temperatures(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(best(run), weights_only=True)
    expected = content["ifmmin"].pop("temperatures")
    older = tmp_path / "older.ckpt"
    torch.save(content, older)
    words = ["--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(older), "--intervals", "none"]
    assert main(["test", *words, "--run_dir", str(tmp_path / "test")]) == 0
    measured = metrics(tmp_path / "test")["calibration"]["a"]
    assert measured["temperature"] is None
    assert measured["calibrated_ECE"] is None
    assert measured["ECE"] > 0
    assert "→" not in capsys.readouterr().out
    assert main(["validate", *words, "--calibrate", "true", "--run_dir", str(tmp_path / "val")]) == 0
    assert f"temperatures: written into {older}" in capsys.readouterr().out.splitlines()
    content = torch.load(older, weights_only=True)
    assert content["ifmmin"]["temperatures"] == expected
    assert same(weights(older), weights(best(run)))
    # Those of other conditions stay, and nothing is lost where nothing was answered.
    again = ["validate", *words, "--calibrate", "true", "--data.conditions", "[avt]"]
    assert main([*again, "--run_dir", str(tmp_path / "again")]) == 0
    assert torch.load(older, weights_only=True)["ifmmin"]["temperatures"] == pytest.approx(expected)
    assert main([*again, "--trainer.limit_predict_batches", "0", "--run_dir", str(tmp_path / "none")]) == 1
    assert "leave --trainer.limit_predict_batches out" in capsys.readouterr().err
    assert torch.load(older, weights_only=True)["ifmmin"]["temperatures"] == pytest.approx(expected)
    other = ["--model", "IFMMIN", *sample("MSPIMPROV"), "--ckpt_path", str(older), "--calibrate", "true"]
    assert main(["validate", *other, "--run_dir", str(tmp_path / "other")]) == 1
    assert "was trained on IEMOCAP; give that corpus" in capsys.readouterr().err


def test_curves_begin_at_the_table_in_any_precision(run: Path, tmp_path: Path) -> None:
    words = ["test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run)), "--intervals", "none"]
    words += ["--curves", "modalities", "--trainer.precision", "bf16-mixed", "--run_dir", str(tmp_path)]
    assert main(words) == 0
    complete = next(row for row in rows_of(tmp_path / "metrics.csv") if row["condition"] == "avt")
    nothing_missing = next(row for row in rows_of(tmp_path / "curves.csv") if row["rate"] == "0.0")
    assert {name: nothing_missing[name] for name in ("WA", "UA", "F1")} == {
        name: complete[name] for name in ("WA", "UA", "F1")
    }


def test_the_table_of_one_speaker_is_not_printed_twice(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run)), "--intervals", "none"]
    assert main([*words, "--run_dir", str(tmp_path / "one")]) == 0
    assert "┃ speaker" not in capsys.readouterr().out
    pattern = replace(IEMOCAP.layout, speaker_pattern=r"(\d)$")  # ten of them
    monkeypatch.setattr(IEMOCAP, "layout", pattern)
    assert main([*words, "--run_dir", str(tmp_path / "ten"), "--data.allow_shared_speakers", "true"]) == 0
    assert "┃ speaker" in capsys.readouterr().out


def test_a_fit_writes_what_selected_its_epoch(run: Path) -> None:
    found, logged = metrics(run), rows_of(run / "logs/metrics.csv")
    scores = {int(row["epoch"]): float(row["val/pooled/UA"]) for row in logged if row["val/pooled/UA"]}
    best_epoch = max(scores, key=lambda epoch: scores[epoch])
    assert len(scores) == 2
    assert found["monitor"]["name"] == "val/pooled/UA"
    assert found["monitor"]["value"] == pytest.approx(scores[best_epoch], abs=1e-6)
    assert best(run).name == f"epoch{found['monitor']['epoch']:03d}.ckpt"
    assert found["validation"]["pooled"]["UA"] == found["monitor"]["value"]
    assert found["split"] == "test"


def test_validation_beside_the_test_is_what_validate_finds(run: Path, tmp_path: Path) -> None:
    words = ["validate", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run))]
    assert main([*words, "--run_dir", str(tmp_path), "--intervals", "none"]) == 0
    found = metrics(tmp_path, "val_metrics.json")
    assert found["metrics"] == metrics(run)["validation"]
    assert found["intervals"] is None
    assert found["monitor"] is None


def test_a_fit_without_its_test_never_reads_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = fit(tmp_path / "tested", *sample("IEMOCAP"), model="MeanFusion", epochs=2)
    capsys.readouterr()

    def refuse(*_: object) -> None:
        raise AssertionError("the test split was read")

    monkeypatch.setattr("datamodules.base.EmotionDataModule.test_dataloader", refuse)
    blind = fit(tmp_path / "blind", *sample("IEMOCAP"), "--test", "false", model="MeanFusion", epochs=2)
    assert "· test ·" not in capsys.readouterr().out
    found = metrics(blind)
    assert found["split"] == "val"
    assert found["metrics"] == found["validation"] == metrics(tested)["validation"]
    assert found["monitor"] == metrics(tested)["monitor"]
    assert not (blind / "predictions.csv").exists()
    assert sorted(path.name for path in blind.glob("*.*")) == [
        "config.yaml",
        "metrics.json",
        "val_confusion.png",
        "val_metrics.csv",
        "val_per_class.csv",
    ]


def test_a_pattern_loses_frames_and_the_table_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run))]
    found = {}
    for pattern in ("frames:0", "frames:1", "bursts:0.5", "noise:3"):
        out = tmp_path / pattern.replace(":", "-")
        assert main([*words, "--run_dir", str(out), "--data.eval_pattern", pattern]) == 0
        found[pattern] = metrics(out)
        assert (f"IFMMIN, evaluated with {pattern}" in capsys.readouterr().out) is not pattern.endswith(":0")
    assert found["frames:0"]["confusion"] == metrics(run)["confusion"]
    for pattern in ("frames:1", "bursts:0.5", "noise:3"):
        assert found[pattern]["confusion"] != metrics(run)["confusion"]
        assert sum(map(sum, found[pattern]["confusion"]["avt"])) == sum(map(sum, metrics(run)["confusion"]["avt"]))
    assert found["bursts:0.5"]["remarks"] == ["evaluated with bursts:0.5:10"]


def test_a_model_trained_at_a_rate_of_lost_frames(tmp_path: Path) -> None:
    rate = ["--data.train_mask", "avt", "--data.train_pattern", "frames:0.5", "--data.eval_pattern", "frames:0.5"]
    words = ["fit", "--model", "EMT", *SMALL, "--trainer.max_epochs", "1", "--run_dir", str(tmp_path / "run"), *rate]
    assert main(words) == 0
    found = metrics(tmp_path / "run")
    assert found["remarks"] == ["evaluated with frames:0.5"]
    assert all(row["bayes_WA"] is None for row in found["metrics"].values())


def test_check_says_what_masks_and_patterns_take_away(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> list[str]:
        assert main(["check", *sample("IEMOCAP"), *words]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("train_", "eval_"))]

    assert said() == []
    assert said("--data.train_mask", "at") == ["train_mask at: of complete utterances it shows {a,t} 100 %"]
    (share,) = said("--data.train_mask", "share:0.6")  # one third each, and each of the others with 0.1
    assert share.endswith("shows {a} 27 %, {v} 27 %, {t} 27 %, {a,v} 6 %, {a,t} 6 %, {v,t} 6 %, full {a,v,t} 1 %")
    lost, noisy = said("--data.train_pattern", "frames:0.2,0.5,0.8", "--data.eval_pattern", "noise:0.5")
    assert lost.startswith("train_pattern frames:0.2,0.5,0.8: loses 20.0 % of audio, ")
    assert noisy.endswith("in standard deviations of the training frames 0.5 of audio, 0.5 of visual, 0.5 of text")


def test_curves_of_a_checkpoint(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run))]
    for command, prefix in (("test", ""), ("validate", "val_")):
        out = tmp_path / command
        assert main([command, *words, "--run_dir", str(out), "--curves", "frames,modalities"]) == 0
        printed = capsys.readouterr().out
        assert "UA by rate" in printed and "0.0–1.0" in printed
        rows = rows_of(out / f"{prefix}curves.csv")
        assert [row["curve"] for row in rows] == ["modalities"] * 9 + ["frames"] * 12
        assert [rows[8]["rate"], rows[-1]["rate"]] == ["area", "area"]
        full = metrics(out, f"{prefix}metrics.json")["metrics"]["avt"]
        for row in (rows[0], rows[9]):  # nothing is missing
            assert float(row["WA"]) == pytest.approx(full["WA"])
            assert int(row["n"]) == full["n"]
        heights = [float(row["WA"]) for row in rows[9:-1]]
        expected = sum((one + other) / 20 for one, other in pairwise(heights))
        assert float(rows[-1]["WA"]) == pytest.approx(expected)
        assert float(rows[-1]["WA_low"]) <= expected <= float(rows[-1]["WA_high"])
