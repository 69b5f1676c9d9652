"""``import`` on the command line, and what it makes under ``check`` and ``fit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datamodules import Folder
from datamodules.importing.invented import invented_pack, write_pack
from datamodules.storage.check import check_corpus
from ifmmin.cli.main import main
from tests.cli.running import fit, metrics

RANDOM = np.random.default_rng(0)
IDS = ["a", "b", "c", "d", "e", "f"]
WHERE = ["train", "train", "valid", "dev", "test", "test"]


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    made = invented_pack("CMUMOSI", "aligned", (12, 4, 8), widths=(5, 6, 7), steps=(9, 9, 9))
    return write_pack(tmp_path / "pack.pkl", made)


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """A table and three folders; the visual files of an utterance are a folder of frames, those of text [1, T, D]."""
    rows = [f"{name},{'calm' if row % 2 else 'angry'},{WHERE[row]}" for row, name in enumerate(IDS)]
    (tmp_path / "table.csv").write_text("\n".join(["name,label,split", *rows]) + "\n", encoding="utf-8")
    for name in IDS:
        for kind in ("hubert", "bert", f"clip/{name}"):
            (tmp_path / kind).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "hubert" / f"{name}.npy", RANDOM.standard_normal(3))
        np.save(tmp_path / "bert" / f"{name}.npy", RANDOM.standard_normal((1, 4, 2)))
        for frame in range(2):
            np.save(tmp_path / "clip" / name / f"{frame}.npy", np.full(5, frame + 1.0))
    places = [("--audio", "hubert"), ("--visual", "clip"), ("--text", "bert")]
    options = [word for option, folder in places for word in (option, str(tmp_path / folder))]
    return ["import", "npy", str(tmp_path / "table.csv"), str(tmp_path / "out"), *options]


def test_a_pack_is_imported_checked_and_trained_on(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["import", "CMUMOSI", str(pack), str(out)]
    assert main([*words, "--dry-run"]) == 0
    assert not out.exists()
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "not known by its SHA-256" in shown
    assert "aligned, train 12, val 4, test 8; widths audio 5, visual 6, text 7" in shown
    assert main(words) == 0
    assert "made of this pack already" in capsys.readouterr().out
    options = ["--data", "CMUMOSI", "--data.root", str(out)]
    assert main(["check", *options]) == 0
    assert "12: mean" in capsys.readouterr().out
    found = metrics(fit(tmp_path / "run", *options, "--trainer.enable_progress_bar", "false", model="MeanFusion"))
    assert (found["corpus"], found["is_synthetic"], found["invented"]) == ("CMU-MOSI", True, True)
    assert "MAE" in found["metrics"]["avt"]


def test_folders_are_imported(folders: list[str], tmp_path: Path) -> None:
    assert main(folders) == 0
    data = Folder(str(tmp_path / "out"))
    data.setup("fit")
    assert (data.corpus_name, data.class_names, data.feature_dims) == ("Folder-out", ["angry", "calm"], [3, 5, 2])
    assert check_corpus(tmp_path / "out", data.corpus_layout).lines == []
    expected = {
        "A/hubert": np.load(tmp_path / "hubert" / "c.npy")[None],
        "L/bert": np.load(tmp_path / "bert" / "c.npy")[0],
    }
    expected["V/clip"] = np.repeat([[1.0], [2.0]], 5, axis=1)
    for name, frames in expected.items():
        with h5py.File(tmp_path / "out" / f"{name}.h5") as file:
            np.testing.assert_array_equal(file["c"][()], frames.astype(np.float32))


def test_a_gap_is_refused_unless_it_is_meant(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hubert" / "b.npy").unlink()
    assert main(folders) == 1
    assert "hubert: utterance b: has no .npy file" in capsys.readouterr().err
    assert main([*folders, "--incomplete", "keep"]) == 0
    facts = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))["facts"]
    assert facts["incomplete"] == "keep"
    Folder(str(tmp_path / "out")).setup("fit")


def test_two_modalities_wait_for_the_third(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    visual = folders.index("--visual")
    assert main([*folders[:visual], *folders[visual + 2 :], "--incomplete", "keep"]) == 0
    shown = capsys.readouterr().out
    assert "next: put features of visual there too; training and check need all three" in shown
    assert main(["check", "--data", "Folder", "--data.root", str(tmp_path / "out")]) == 1
    assert main([*folders[:3], str(tmp_path / "whole"), *folders[4:]]) == 0
    assert "next: check --data Folder" in capsys.readouterr().out


@pytest.mark.parametrize("values", [False, True])
def test_merbenchs_labels_serve(values: bool, folders: list[str], tmp_path: Path) -> None:
    corpora: dict[str, dict[str, dict[str, float]]] = {"train": {}, "val": {}, "test": {}}
    for row, name in enumerate(IDS):
        split = {"valid": "val", "dev": "val"}.get(WHERE[row], WHERE[row])
        corpora[split][name] = {"emo": row % 2, "val": row / 5 - 0.5}
    kinds: dict[str, Any] = {f"{split}_corpus": np.array(found, dtype=object) for split, found in corpora.items()}
    np.savez_compressed(tmp_path / "label.npz", **kinds)
    folders[2] = str(tmp_path / "label.npz")
    assert main([*folders, *(["--low", "-1", "--high", "1"] if values else ["--classes", "joy,fear"])]) == 0
    data = Folder(str(tmp_path / "out"))
    data.setup("fit")
    expected = [row / 5 - 0.5 if values else row % 2 for row in range(6)]
    np.testing.assert_allclose([float(label) for label in data.labels], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["import", "MOSI", "a", "b"], "no such source; there are CMUMOSI, CMUMOSEI, CHSIMS, npy"),
        (["import", "CMUMOSI", "a", "b"], "a: does not exist; give the path of the pack"),
        (["import", "CMUMOSI", "a", "b", "--name", "x"], "--name is an option of npy, not of CMUMOSI"),
        (["import", "npy", "a", "b", "--zero-not-finite"], "--zero-not-finite is an option of packs, not of npy"),
        (["import", "npy", "a", "b"], "no folder of features; give --audio, --visual or --text"),
        (["import", "npy", "a", "b", "--audio", "."], "a: does not exist; give the CSV file of labels and splits"),
        (["import", "npy", "a", "b", "--audio", ".", "--low", "1"], "--low and --high: give both ends"),
        (["import", "npy", "a", "b", "--audio", ".", "--low", "1", "--high", "0"], "the first must be below"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("name,label,split", "name,label", "does not name the columns id, label and split"),
        ("b,calm,train", "a,calm,train", "utterance a: listed more than once"),
        ("b,calm,train", "b,calm,later", "utterance b: split 'later' is none of train"),
        ("b,calm,train", "../b,calm,train", "an id that leads out of its folder"),
        ("b,calm,train", "b,,train", "utterance b: label '' is none of"),
        ("b,calm,train", "b,1,train", "is a number; name classes in label order"),
        ("b,calm,train", "g,calm,train", "utterance g: has no .npy file"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(
    before: str, after: str, expected: str, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    assert main(folders) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert not (tmp_path / "out").exists()
