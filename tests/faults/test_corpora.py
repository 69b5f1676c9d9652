"""Corpora that are hostile, damaged or written otherwise: one line, the same from `fit`, `predict` and `check`."""

from __future__ import annotations

import csv
import fcntl
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import CorpusError
from datamodules.storage.check import check_corpus
from ifmmin.cli.main import main
from tests.faults.cases import Case, one_line, table
from tests.faults.tiny import (
    ANY,
    FIRST,
    IDS,
    LABEL,
    NAMES,
    SECOND,
    Runs,
    Tiny,
    complaints,
    npy,
    of,
    raw_pickle,
    read_or_refused,
    replaced,
)

Change = Callable[[h5py.File], object]


def audio(change: Change, name: str = FIRST) -> Callable[[Path], None]:
    """Take the entry out of the audio file and write another thing."""

    def make(root: Path) -> None:
        with h5py.File(root / "A" / "a.h5", "r+") as file:
            del file[name]
            change(file)

    return make


def outside(link: str) -> Callable[[Path], None]:
    """A second file with other frames under the same id, and a link to it."""

    def make(root: Path) -> None:
        with h5py.File(root / "A" / "other.h5", "w") as file:
            file[FIRST] = file["group/inner"] = np.ones((2, 3), dtype=np.float32)
        kinds: dict[str, Change] = {
            "external": lambda file: file.__setitem__(FIRST, h5py.ExternalLink("other.h5", FIRST)),
            "absolute": lambda file: file.__setitem__(FIRST, h5py.ExternalLink(str(root / "A/other.h5"), FIRST)),
            "dangling": lambda file: file.__setitem__(FIRST, h5py.ExternalLink("nowhere.h5", FIRST)),
            "device": lambda file: file.__setitem__(FIRST, h5py.ExternalLink("/dev/zero", FIRST)),
        }
        audio(kinds[link])(root)

    return make


def pipe_behind_link(root: Path) -> None:
    os.mkfifo(root / "A" / "pipe.h5")
    audio(lambda file: file.__setitem__(FIRST, h5py.ExternalLink("pipe.h5", FIRST)))(root)


def soft_through_external(root: Path) -> None:
    with h5py.File(root / "A" / "other.h5", "w") as file:
        file[FIRST] = np.ones((2, 3), dtype=np.float32)

    def change(file: h5py.File) -> None:
        file["door"] = h5py.ExternalLink("other.h5", "/")
        file[FIRST] = h5py.SoftLink(f"/door/{FIRST}")

    audio(change)(root)


def virtual(source: str) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((2, 3), "f4")
        layout[:] = h5py.VirtualSource(source, SECOND, (2, 3))
        file.create_virtual_dataset(FIRST, layout)

    return audio(change)


def dataset(*shape: int, kind: str = "f4", **options: Any) -> Callable[[Path], None]:
    return audio(lambda file: file.create_dataset(FIRST, shape, kind, **options))


def raw_storage(root: Path) -> None:
    (root / "secret").write_bytes(b"x" * 6)
    audio(lambda file: file.create_dataset(FIRST, (2, 3), "u1", external=[(str(root / "secret"), 0, 6)]))(root)


def partly_written(file: h5py.File) -> None:
    file.create_dataset(FIRST, (8, 3), "f4", chunks=(2, 3))[:2] = 1


def bomb(file: h5py.File) -> None:
    file.create_dataset(FIRST, (50_000, 3), "f4", chunks=(1000, 3), compression="gzip")[0, 0] = 1


def large_chunk(file: h5py.File) -> None:
    file.create_dataset(FIRST, (2, 3), "f8", maxshape=(None, 3), chunks=(10**8, 3), compression="gzip")


def values(frames: Any, name: str = FIRST) -> Callable[[Path], None]:
    return audio(lambda file: file.create_dataset(name, data=frames), name)


def unix_socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def id_at(position: int, name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        changed = list(NAMES)
        changed[position] = name
        np.save(root / IDS, np.array(changed[:8]))
        with h5py.File(root / "A" / "a.h5", "r+") as file:
            file.move(NAMES[position], name)

    return make


FEATURES = [
    Case("external link", outside("external"), f"a.h5: utterance {FIRST}: an external link: it would read another"),
    Case("external link by absolute path", outside("absolute"), "an external link: it would read another file"),
    Case("external link to nowhere", outside("dangling"), "an external link: it would read another file"),
    Case("external link to a device", outside("device"), "an external link: it would read another file"),
    Case("external link to a pipe", pipe_behind_link, "an external link: it would read another file"),
    Case("soft link through an external one", soft_through_external, f"utterance {FIRST}: not a readable dataset"),
    Case("soft link to itself", audio(lambda f: f.__setitem__(FIRST, h5py.SoftLink(FIRST))), "not a readable dataset"),
    Case("soft link to nowhere", audio(lambda f: f.__setitem__(FIRST, h5py.SoftLink("/no"))), "not a readable dataset"),
    Case("external raw storage", raw_storage, "external storage: it would read another file"),
    Case("virtual dataset of this file", virtual("."), "a virtual dataset: it would read other datasets"),
    Case("virtual dataset of a missing file", virtual("gone.h5"), "a virtual dataset: it would read other"),
    Case("1e7 frames never written", dataset(10**7, 3), "longer than 100000 frames: 10000000; cut it"),
    Case("1e7 frames in chunks", dataset(10**7, 3, chunks=(1000, 3)), "longer than 100000 frames: 10000000"),
    Case("1e12 frames in chunks", dataset(10**12, 3, chunks=(1000, 3)), "longer than 100000 frames"),
    Case("width 1e9", dataset(2, 10**9, chunks=(1, 1000)), "wider than 100000 values"),
    Case("100,000 frames of 99,999", dataset(10**5, 99_999, chunks=(10, 99)), "or more than 100000000 values in all"),
    Case("never written", dataset(2, 3), "was never written, so it would be read as zeros; extract"),
    Case("never written, in chunks", dataset(2, 3, chunks=(1, 3)), "was never written"),
    Case("never written, compressed", dataset(2, 3, compression="gzip"), "was never written"),
    Case("partly written", audio(partly_written), "not wholly written: 96 bytes declared, 24 stored"),
    Case("compressed out of measure", audio(bomb), "not wholly written: 600000 bytes declared"),
    Case("a chunk of 2.4 GB", audio(large_chunk), "in chunks of more than 10000000 values: 300000000"),
    Case("one vector", values(np.ones(3)), "not of the shape [frames, width] but [3]"),
    Case("batch of one", values(np.ones((1, 2, 3))), "not of the shape [frames, width] but [1, 2, 3]"),
    Case("scalar", values(1.0), "not of the shape [frames, width] but []"),
    Case("null", values(h5py.Empty("f4")), "not of the shape [frames, width] but nothing"),
    Case("text", values(np.full((2, 3), b"x")), "cannot be read: damaged, or not numbers"),
    Case("structure", values(np.zeros((2, 3), "f4,f4")), "cannot be read: damaged, or not numbers"),
    Case("references", audio(lambda f: f.create_dataset(FIRST, data=[[f.ref]])), f"utterance {FIRST}: "),
    Case("group", audio(lambda f: f.create_group(FIRST)), "not a readable dataset"),
    Case("named type", audio(lambda f: f.__setitem__(FIRST, np.dtype("f4"))), "not a readable dataset"),
    Case("pipe", replaced("A/a.h5", os.mkfifo), "a.h5: is a pipe, not a file; put"),
    Case("folder", replaced("V/v.h5", Path.mkdir), "v.h5: is a folder, not a file"),
    Case("device", replaced("L/t.h5", lambda path: path.symlink_to("/dev/zero")), "t.h5: is a device or socket"),
    Case("socket", replaced("L/t.h5", unix_socket), "t.h5: is a device or socket, not a file"),
    Case("dead link", replaced("L/t.h5", lambda path: path.symlink_to("gone.h5")), "t.h5: does not exist"),
    Case("id that clears the screen", id_at(0, "Ses01F_\x1b[2J_F0"), r"utterance Ses01F_\x1b[2J_F0: an id with contr"),
    Case("id of two lines", id_at(1, "Ses01F_a\r\nb_F1"), r"utterance Ses01F_a\r\nb_F1: an id with control char"),
    Case("id that reads backwards", id_at(2, "Ses01F_\u202e_M0"), r"Ses01F_\u202e_M0: an id with control characters"),
]


@pytest.mark.parametrize("case", table(FEATURES))
def test_fit_and_check_refuse_the_same_features_in_the_same_words(case: Case, root: Path) -> None:
    case.make(root)
    line, lines = complaints(root)
    assert case.expected in line
    assert line in lines
    assert complaints(root, memory_budget_gb=0.0)[0] == line


@pytest.mark.parametrize("case", [each for each in table(FEATURES) if "exist" not in each.values[0].expected])
def test_prediction_of_all_refuses_them_too(case: Case, root: Path) -> None:
    case.make(root)
    with pytest.raises(CorpusError) as caught:
        Tiny(str(root), predict_split="all").setup("predict")
    assert case.expected in str(caught.value)


def test_frames_behind_a_link_are_never_those_of_another_file(root: Path) -> None:
    """A soft link within the file is followed, and an offset belongs to this file."""
    with h5py.File(root / "A" / "a.h5", "r+") as file:
        expected = file[SECOND][()]
        del file[FIRST]
        file[FIRST] = h5py.SoftLink(f"/{SECOND}")
    data = Tiny(str(root))
    data.setup("fit")
    np.testing.assert_array_equal(data.corpus.frames[0].utterance(0), expected)


def test_a_file_that_another_program_writes_is_said_to_be_open(root: Path) -> None:
    with (root / "A" / "a.h5").open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)  # as HDF5 locks what it writes
        line, lines = complaints(root)
    assert line == f"{root}/A/a.h5: is open in another program; close it there, and try again."
    assert line in lines


@pytest.mark.parametrize("folder", "AVL")
def test_prediction_goes_on_without_any_one_feature_file(root: Path, folder: str) -> None:
    """Normalised by a checkpoint's statistics, as `predict` does."""
    trained = Tiny(str(root), visual_normalization="train", text_normalization="train")
    trained.setup("fit")
    record = trained.checkpoint_record()
    next((root / folder).glob("*.h5")).unlink()
    data = Tiny(str(root), predict_split="all")
    data.adopt_preprocessing(record)
    data.setup("predict")
    for batch in data.predict_dataloader():
        lost = "AVL".index(folder)
        assert [frames.shape[2] for frames in batch.frames] == [3, 4, 5]
        assert not batch.available[:, lost].any()
        assert batch.available.sum(dim=1).eq(2).all()
        assert batch.frames[lost].numel() == 0
        assert all(frames.isfinite().all() for frames in batch.frames)


def damaged(root: Path) -> None:
    (root / "A" / "comparE_mean_std.h5").write_bytes(b"x" * 500)


def huge(root: Path) -> None:
    with h5py.File(root / "A" / "comparE_mean_std.h5", "w") as file:
        file.create_dataset("1/mean", (10**12,), "f4", chunks=(1000,))


def elsewhere(root: Path) -> None:
    with h5py.File(root / "A" / "comparE_mean_std.h5", "w") as file:
        file["1/mean"] = h5py.ExternalLink("a.h5", FIRST)


STATISTICS = [
    Case("damaged", damaged, "comparE_mean_std.h5: not a whole HDF5 file"),
    Case("1e12 values", huge, "the mean and std of fold 1 cannot be read (mean has 1000000000000 values)"),
    Case("an external link", elsewhere, "cannot be read (mean is in another file)"),
    Case("a pipe", lambda root: os.mkfifo(root / "A" / "comparE_mean_std.h5"), "is a pipe, not a file"),
    Case("a folder", lambda root: (root / "A" / "comparE_mean_std.h5").mkdir(), "is a folder, not a file"),
]


@pytest.mark.parametrize("case", table(STATISTICS))
def test_statistics_that_nobody_needs_are_a_note(case: Case, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    case.make(root)
    data = Tiny(str(root))
    data.setup("fit")
    assert data.statistics[0] is not None
    (note,) = [record.getMessage() for record in caplog.records]
    assert case.expected in note and note.endswith("it is not needed.")
    assert note in check_corpus(root, Tiny.layout).lines


def test_a_batch_that_the_machine_cannot_hold_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(root / "A" / "a.h5", "r+") as file:
        del file[SECOND]
        file[SECOND] = np.ones((1000, 3), dtype=np.float32)
    monkeypatch.setattr("datamodules.batches.loading.memory_of_machine", lambda: 50_000.0)
    data = Tiny(str(root))
    data.setup("fit")
    with pytest.raises(CorpusError, match=rf"utterance {SECOND}: 1000 audio frames, so that its batch of 8 takes 0 GB"):
        list(data.train_dataloader())


# Through the command line.

SAMPLE = Path(__file__).parents[1] / "data" / "sample_iemocap"


def first_entry(change: Callable[[h5py.File, str], object]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        with h5py.File(root / "A" / "comparE.h5", "r+") as file:
            name = sorted(file)[0]
            del file[name]
            change(file, name)

    return make


def first_id(name: str) -> Callable[[Path], None]:
    """Another first id, as an object: in an array of text all would be as long."""

    def make(root: Path) -> None:
        ids = np.load(root / IDS).ravel().astype(object)
        ids[0] = name.encode()
        np.save(root / IDS, ids)

    return make


def ten_million(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (10**7, 26), "f4", chunks=(1000, 26))


COMMANDS = [
    Case("external link", first_entry(lambda f, n: f.__setitem__(n, h5py.ExternalLink("x.h5", n))), "an external link"),
    Case("1e7 frames", first_entry(ten_million), "longer than 100000"),
    Case("a pipe", replaced("V/denseface.h5", os.mkfifo), "denseface.h5: is a pipe, not a file"),
    Case("1e12 labels", replaced(LABEL, npy(of("<f8", "(1000000000000, 4)"))), "is not a whole NumPy file"),
    Case("a pickled command", raw_pickle(pickle.dumps(Runs())), "which is refused as unsafe"),
    Case("an id that moves the cursor", first_id("a\x1b[2J"), r"utterance a\x1b[2J: an id with control"),
    Case("an id of 100 kB", first_id("x" * 10**5), "xxx…"),
]


@pytest.mark.parametrize("case", table(COMMANDS))
def test_fit_and_check_say_one_line_and_leave_no_file(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(SAMPLE, tmp_path / "corpus"))
    case.make(root)
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    corpus = ["--data", "IEMOCAP", "--data.root", str(root)]
    line = one_line(capsys, ["fit", "--model", "MeanFusion", *corpus], codes=(1,))
    assert case.expected in line
    assert main(["check", *corpus]) == 1
    shown = capsys.readouterr()
    assert not shown.err
    assert case.expected in shown.out
    assert all(each.isprintable() and len(each) < 1200 for each in shown.out.splitlines())
    assert not [path for path in place.rglob("*") if path.is_file()]


def test_predict_answers_without_any_one_feature_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--model", "MeanFusion", "--data", "IEMOCAP", "--trainer.enable_progress_bar", "false"]
    whole = ["--data.root", str(SAMPLE)]
    assert main(["fit", *words, *whole, "--trainer.max_epochs", "1", "--run_dir", "run"]) == 0
    (checkpoint,) = Path("run/checkpoints").glob("epoch*.ckpt")
    for number, name in enumerate(("A/comparE.h5", "V/denseface.h5", "L/bert_large.h5")):
        root = Path(shutil.copytree(SAMPLE, tmp_path / str(number)))
        (root / name).unlink()
        output = tmp_path / f"{number}.csv"
        rest = ["--data.root", str(root), "--ckpt_path", str(checkpoint), "--output", str(output)]
        assert main(["predict", *words, *rest]) == 0, capsys.readouterr().err
        with output.open(encoding="utf-8") as file:
            conditions = {row["condition"] for row in csv.DictReader(file)}
        assert conditions == {"".join(left) for left in _subsets("avt".replace("avt"[number], ""))}


def _subsets(letters: str) -> list[str]:
    return [*letters, letters]


@ANY
@given(data=st.binary(max_size=300), cut=st.integers(0, 10_000), place=st.integers(0, 10_000))
def test_any_bytes_in_a_feature_file_are_read_or_refused(pristine: Path, data: bytes, cut: int, place: int) -> None:
    path = pristine / "A" / "a.h5"
    before = path.read_bytes()
    place %= len(before)
    spoilt = before[:place] + data + before[place + len(data) :]
    try:
        path.write_bytes(spoilt[: len(spoilt) - cut % len(spoilt)])
        read_or_refused(pristine)
    finally:
        path.write_bytes(before)
