from __future__ import annotations

import csv
import shutil
from pathlib import Path

import h5py
import pytest

from ifmmin.cli.main import main
from tests.cli.running import SAMPLES, SMALL, best, fit, fresh, metrics, sample


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("fitted") / "run", *sample("IEMOCAP"), epochs=2)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_fresh_process_tests_to_the_same_result(run: Path, tmp_path: Path) -> None:
    done = fresh(
        "test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(best(run)), "--run_dir", "out", cwd=tmp_path
    )
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
