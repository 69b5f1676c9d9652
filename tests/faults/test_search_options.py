"""Words given to a search that it cannot do: one line before anything is trained or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.search.__main__ import main
from tests.faults.cases import judged, words_table

SMALL = "--data Synthetic --data.utterances_per_speaker 12"
MODEL = "--model ModalityDropout"

WRONG = [
    ("", "required: --model; --help lists the options"),
    ("--model ModalityDropot", "Did you mean ModalityDropout?"),
    ("--model InvariantPretraining", "a stage 1, which answers nothing by itself"),
    (f"{MODEL} --trials 0", "--trials 0: it must be at least 1"),
    (f"{MODEL} --trials -5", "--trials -5: it must be at least 1"),
    (f"{MODEL} --trials many", "--trials: invalid int value: 'many'"),
    (f"{MODEL} --jobs 0", "--jobs 0: it must be at least 1"),
    (f"{MODEL} --seed -1", "--seed -1: it must be at least 0"),
    (f"{MODEL} --gpus nan", "--gpus nan: it must be at least 0"),
    (f"{MODEL} --folds 9", "has folds 1..5"),
    (f"{MODEL} --space /nowhere.yaml", "/nowhere.yaml: there is no such configuration file"),
    (f"{MODEL} --data Nowhere", "corpus 'Nowhere' is not known"),
    (f"{MODEL} --data IEMOCAP --data.root /nowhere", "/nowhere"),
    (f"{MODEL} --data.fold 2", "--data.fold: the search sets it itself"),
    (f"{MODEL} --data.withhold_test false", "the search sets it itself: no trial reads the test split"),
    (f"{MODEL} --seed_everything 3", "the search sets it itself"),
    (f"{MODEL} --test false", "the search sets it itself"),
    (f"{MODEL} --run_dir x", "the search sets it itself"),
    (f"{MODEL} --trainer.devices 2", "each run of a search is on one device"),
    (f"{MODEL} --sapce x.yaml", "--sapce: not known. The search takes its own options"),
    (f"{MODEL} {SMALL} --model.dropot 0.3", "Did you mean --model.dropout?"),
    (f"{MODEL} {SMALL} --model.dropout 3", "dropout 3"),
    (f"{MODEL} {SMALL} --trainer.max_epoch 3", "Did you mean --trainer.max_epochs?"),
]


@pytest.mark.parametrize(("words", "expected"), words_table(WRONG))
def test_words_that_a_search_cannot_do(
    words: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = [] if not words else ["--folder", str(tmp_path / "search")]
    assert main([*words.split(), *folder]) == 1
    line = judged(capsys.readouterr().err)
    assert expected in line
    assert not (tmp_path / "search").exists()


def test_a_space_that_the_model_refuses_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each value is allowed; together with a fixed option they are not."""
    space = tmp_path / "space.yaml"
    space.write_text("model.constant_epochs: {low: 0, high: 3}\n", encoding="utf-8")
    words = f"{MODEL} {SMALL} --model.decay_epochs 0 --space {space} --folder {tmp_path / 'search'}"
    assert main(words.split()) == 1
    line = judged(capsys.readouterr().err)
    assert "space.yaml" in line and "epochs 0" in line
    assert not (tmp_path / "search").exists()


def test_a_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "search").write_text("mine", encoding="utf-8")
    assert main(f"{MODEL} {SMALL} --folder {tmp_path / 'search'}".split()) == 1
    assert "search" in judged(capsys.readouterr().err)
    assert (tmp_path / "search").read_text(encoding="utf-8") == "mine"


def test_a_test_split_that_is_wrong_is_said_before_the_first_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"{MODEL} {SMALL} --data.root {tmp_path / 'corpus'} --folder {tmp_path / 'search'}".split()
    assert main([*words, "--trials", "0"]) == 1
    from datamodules.synthetic import Synthetic

    Synthetic(str(tmp_path / "corpus"), utterances_per_speaker=12).setup("fit")
    (tmp_path / "corpus" / "target" / "1" / "tst_label.npy").unlink()
    capsys.readouterr()
    assert main([*words, "--trials", "1"]) == 1
    assert "tst_label.npy" in judged(capsys.readouterr().err)
    assert not (tmp_path / "search").exists()
