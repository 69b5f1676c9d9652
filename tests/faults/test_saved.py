"""Folders that save_pretrained wrote, damaged or in the way: one line each, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as safe
import torch

from datamodules.errors import InputError
from ifmmin import IFMMIN, MissingModalityModule, Predictor
from ifmmin.sharing.folder import digest
from tests.cli.running import best, fit, sample
from tests.faults.cases import Case, one_line, table
from tests.ifmmin.sharing.saved import fresh, record

WEIGHT = max(fresh("MeanFusion").state_dict())
PREPROCESSING = "preprocessing.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Predictor(fresh("MeanFusion"), record()).save_pretrained(tmp_path_factory.mktemp("saved") / "whole")


def edited(**changes: Any) -> Any:
    """Change entries of the configuration; a double underscore goes a level down, None removes."""

    def make(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        for name, value in changes.items():
            place, keys = config, name.split("__")
            for key in keys[:-1]:
                place = place[key]
            if value is None:
                del place[keys[-1]]
            else:
                place[keys[-1]] = value
        path.write_text(json.dumps(config))

    return make


def written(name: str, content: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(content)


def replaced(folder: Path, name: str, tensors: dict[str, torch.Tensor]) -> None:
    """Write other tensors, with their digest in the configuration."""
    content = safe.save(tensors)
    (folder / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    config["files"][name] = digest(content)
    (folder / "config.json").write_text(json.dumps(config))


def changed(which: str, change: Any, name: str = "model.safetensors") -> Any:
    """Replace one tensor; None removes it."""

    def make(folder: Path) -> None:
        tensors = safe.load_file(folder / name)
        value = change(tensors.pop(which, None))
        replaced(folder, name, tensors | ({} if value is None else {which: value}))

    return make


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def flipped(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def folder_for_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")


def no_safetensors(folder: Path) -> None:
    content = b"\xff" * 64
    (folder / "model.safetensors").write_bytes(content)
    edited(files={"model.safetensors": digest(content)})(folder)


DAMAGED = [
    Case("no configuration", lambda folder: (folder / "config.json").unlink(), "config.json: not there, so no model"),
    Case("no weights", lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: not there; take"),
    Case("weights in a pickle", only_pickle, "not there; pytorch_model.bin is a pickle, which is never read"),
    Case("a folder for weights", folder_for_weights, "model.safetensors: not there"),
    Case("no statistics", lambda folder: (folder / "preprocessing.safetensors").unlink(), "preprocessing.safetensors"),
    Case("truncated weights", truncated, "bytes, but config.json says"),
    Case("a flipped bit", flipped, "not the file that config.json was written with (its SHA-256 differs)"),
    Case("no safetensors", no_safetensors, "model.safetensors: not readable as safetensors"),
    Case("a weight too many", changed("out.weight", lambda _: torch.zeros(2, 2)), "unknown"),
    Case("NaN", changed(WEIGHT, lambda value: value * torch.nan), "is NaN or infinite"),
    Case("a weight is missing", changed(WEIGHT, lambda _: None), f"{WEIGHT} is missing"),
    Case("a weight of other sizes", changed(WEIGHT, lambda value: value[:-1]), f"{WEIGHT} is ["),
    Case("a weight of whole numbers", changed(WEIGHT, lambda value: value.long()), f"{WEIGHT} is torch.int64"),
    Case("std of 0", changed("audio.std", lambda value: value * 0, PREPROCESSING), "std is 0 or negative"),
    Case("no audio std", changed("audio.std", lambda _: None, PREPROCESSING), "audio is not mean and std"),
    Case("a mean of another width", changed("text.mean", lambda value: value[1:], PREPROCESSING), "not floats [7]"),
    Case("an empty configuration", written("config.json", b""), "config.json: not readable as JSON"),
    Case("half a configuration", written("config.json", b'{"library_name": "ifm'), "not readable as JSON"),
    Case("a deep configuration", written("config.json", b"[" * 100_000), "not readable as JSON (nested too deep)"),
    Case("a list", written("config.json", b"[]"), "config.json: of a model of another library"),
    Case("of transformers", written("config.json", b'{"model_type": "bert"}'), "of a model of another library"),
    Case("of a later version", edited(format=2), "format 2, but this version of ifmmin knows up to 1; update ifmmin"),
    Case("no format", edited(format=None), "format None, but this version"),
    Case("format true", edited(format=True), "format True, but this version"),
    Case("no digests", edited(files=None), "config.json: has no files"),
    Case("no record", edited(ifmmin=None), "config.json: has no ifmmin"),
    Case("data of another kind", edited(ifmmin__data="IEMOCAP"), "config.json: has no data"),
    Case("no name of a model", edited(ifmmin__model="../x"), "no name of a class"),
    Case("an unknown model", edited(ifmmin__model="Nobody"), "Nobody, which is not among the installed"),
    Case("braces for a class", edited(ifmmin__model="Nobody", class_path="{0}\x1b[2J"), "Nobody.from_pretrained"),
    Case("another model's options", edited(ifmmin__model="IFMMIN"), "its settings make no IFMMIN"),
    Case("an option out of range", edited(hyper_parameters__learning_rate=-1.0), "learning_rate"),
    Case("an unknown option", edited(hyper_parameters__nothing=1), "its settings make no MeanFusion"),
    Case("other widths", edited(hyper_parameters__feature_dims=[5, 6, 8]), "feature_dims is not ifmmin.data.feature_d"),
    Case("other classes", edited(ifmmin__data__class_names=["a", "b"]), "class_names is not ifmmin.data.class_names"),
    Case("an unknown normalisation", edited(ifmmin__data__normalization=["x", "none", "none"]), "normalization has x"),
    Case("a fold of 0", edited(ifmmin__data__fold=0), "ifmmin.data.fold is 0"),
]


@pytest.mark.parametrize("case", table(DAMAGED))
def test_a_damaged_folder(case: Case, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "saved"))
    case.make(folder)
    for load in (MissingModalityModule.from_pretrained, Predictor.from_pretrained):
        with pytest.raises(InputError) as raised:
            load(folder)
        assert case.expected in str(raised.value)
        assert str(raised.value).isprintable()


def test_another_models_folder(whole: Path) -> None:
    with pytest.raises(InputError, match="a checkpoint of MeanFusion, not of IFMMIN"):
        IFMMIN.from_pretrained(whole)


def test_what_is_no_folder(whole: Path) -> None:
    with pytest.raises(InputError, match="a file, not a folder that save_pretrained wrote; checkpoints are for `load`"):
        Predictor.from_pretrained(whole / "config.json")


def test_weights_that_diverged_are_not_saved(tmp_path: Path) -> None:
    model = fresh("MeanFusion")
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(InputError, match=r"MeanFusion: cannot be saved: .* is NaN or infinite"):
        model.save_pretrained(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def holding(name: str) -> Any:
    def make(place: Path) -> None:
        place.mkdir()
        (place / name).write_text("{}")

    return make


IN_THE_WAY = [
    Case("a file", lambda place: place.write_text("x"), "exists already and is no folder"),
    Case("a link", lambda place: place.symlink_to(place.parent), "exists already and is no folder"),
    Case("somebody's folder", holding("thesis.tex"), "has thesis.tex, which save"),
    Case("another library's", holding("config.json"), "holds no saved model"),
]


@pytest.mark.parametrize("case", table(IN_THE_WAY))
def test_what_is_in_the_way_stays(case: Case, tmp_path: Path) -> None:
    case.make(tmp_path / "saved")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as raised:
        fresh("MeanFusion").save_pretrained(tmp_path / "saved", overwrite=True)
    assert case.expected in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_saved_model_is_replaced_only_on_request(tmp_path: Path) -> None:
    first, second = fresh("MeanFusion"), fresh("LinearImputation")
    first.save_pretrained(tmp_path / "saved")
    with pytest.raises(
        InputError,
        match=r"holds a saved model already; name another folder, or overwrite it \(--overwrite, overwrite=True\)",
    ):
        second.save_pretrained(tmp_path / "saved")
    second.save_pretrained(tmp_path / "saved", overwrite=True)
    assert type(MissingModalityModule.from_pretrained(tmp_path / "saved")) is type(second)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("fails", range(4))
def test_a_full_disk_leaves_what_was_there(fails: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh("MeanFusion").save_pretrained(tmp_path / "saved")
    before = {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    synced: list[int] = []

    def full(number: int) -> None:
        synced.append(number)
        if len(synced) > fails:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for place, overwrite in ((tmp_path / "saved", True), (tmp_path / "new", False)):
        synced.clear()
        with pytest.raises(OSError, match=f"No space left on device: '{place}'"):
            fresh("LinearImputation").save_pretrained(place, overwrite=overwrite)
        assert len(synced) == fails + 1
    assert {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_the_old_folder_is_put_back_if_the_new_one_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh("MeanFusion").save_pretrained(tmp_path / "saved")
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OSError, match="Permission denied"):
        fresh("LinearImputation").save_pretrained(tmp_path / "saved", overwrite=True)
    assert type(MissingModalityModule.from_pretrained(tmp_path / "saved")).__name__ == "MeanFusion"
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return best(fit(tmp_path_factory.mktemp("fitted") / "run", *sample("IEMOCAP"), model="MeanFusion"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("save", "checkpoint"),
        ("save CHECKPOINT", "save: give the folder to make, or --push ORG/NAME"),
        ("save CHECKPOINT out --public", "--public belongs to --push"),
        ("save CHECKPOINT --push lab/x --overwrite", "--overwrite belongs to FOLDER"),
        ("save CHECKPOINT out --fast", "--fast is not known"),
        ("save nothing.ckpt out", "nothing.ckpt: there is no such checkpoint file"),
        ("save CHECKPOINT out --run nowhere", "nowhere: there is no such file"),
        ("save CHECKPOINT out --model Nobody", "model 'Nobody' is not known"),
        ("save CHECKPOINT out --model IFMMIN", "a checkpoint of MeanFusion, not of IFMMIN"),
        ("save CHECKPOINT file/out", "file"),
        ("save CHECKPOINT --push name", "name: no name on the Hub; give org/name"),
    ],
)
def test_commands(
    words: str,
    expected: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    assert expected in one_line(capsys, words.replace("CHECKPOINT", str(checkpoint)).split())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_a_saved_model_is_told_from_a_folder_of_a_run(
    command: str, whole: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, "--model", "MeanFusion", *sample("IEMOCAP"), "--ckpt_path"]
    assert "but a folder; name the" in one_line(capsys, [*words, str(checkpoint.parent)])
    if command == "fit":  # it has no optimiser; others read it
        assert "needed that it was saved from" in one_line(capsys, [*words, str(whole)])
