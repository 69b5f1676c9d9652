"""A ``corpus.json`` that is hostile, damaged or of something else: one line, the same from `fit` and `check`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import Folder
from datamodules.errors import CorpusError
from datamodules.storage.check import check_corpus
from datamodules.storage.description import LARGEST
from ifmmin.cli.main import main
from tests.datamodules.corpora import write_clips
from tests.faults.cases import Case, one_line, table
from tests.faults.tiny import ANY

FILE = "corpus.json"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips") / "corpus"
    write_clips(root)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "corpus"))


def put(*keys: str, value: Any) -> Callable[[Path], None]:
    """Another value in the file; ``...`` takes the entry out, a function changes it."""

    def make(root: Path) -> None:
        content = json.loads((root / FILE).read_text(encoding="utf-8"))
        place = content
        for key in keys[:-1]:
            place = place[key]
        if value is ...:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value(place[keys[-1]]) if callable(value) else value
        (root / FILE).write_text(json.dumps(content), encoding="utf-8")

    return make


def text(change: Callable[[str], str]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        path = root / FILE
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return make


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / FILE).unlink()
        make(root / FILE)

    return change


def raw(content: bytes) -> Callable[[Path], None]:
    return instead(lambda path: path.write_bytes(content))


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)


def twice(root: Path) -> None:
    """The first utterance of the training split is tested as well."""
    for fold in (1, 2):
        folder = root / "target" / str(fold)
        ids, labels = np.load(folder / "tst_int2name.npy"), np.load(folder / "tst_label.npy")
        first = np.load(folder / "trn_int2name.npy")[:1]
        np.save(folder / "tst_int2name.npy", np.concatenate([ids, first]))
        np.save(folder / "tst_label.npy", np.concatenate([labels, labels[:1]]))


def label(value: int) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for fold in (1, 2):
            path = root / "target" / str(fold) / "trn_label.npy"
            labels = np.load(path)
            labels[0] = value
            np.save(path, labels)

    return make


WRONG = [
    Case("empty", raw(b""), "is no whole JSON"),
    Case("truncated", text(lambda text: text[: len(text) // 2]), "is no whole JSON"),
    Case("without its last brace", text(lambda text: text.rstrip().removesuffix("}")), "is no whole JSON"),
    Case("two in one file", text(lambda text: text + text), "is no whole JSON"),
    Case("zeros", raw(bytes(1000)), "is no whole JSON"),
    Case("Latin-1", raw(b'{"format": 1, "name": "caf\xe9"}'), "is not UTF-8"),
    Case("UTF-16", instead(lambda path: path.write_text('{"format": 1}', encoding="utf-16")), "is not UTF-8"),
    Case("a pickle", raw(b"\x80\x04\x95\x1c\x00\x00\x00cos\nsystem\n"), "is not UTF-8"),
    Case("YAML", raw(b"format: 1\nname: clips\n"), "is no whole JSON"),
    Case("Python", raw(b"__import__('os').system('touch ran')"), "is no whole JSON"),
    Case("a list", raw(b"[1]"), "has a list of 1 as the file, not values by name"),
    Case("a number", raw(b"1"), "has 1 as the file"),
    Case("null", raw(b"null"), "has null as the file"),
    Case("64 MB", instead(huge), f"has {LARGEST + 1} bytes, where a description may have {LARGEST}"),
    Case("100,000 brackets", raw(b"[" * 100_000), "is nested too deeply"),
    Case("deep facts", raw(b'{"format": 1, "facts": ' + b'{"a":' * 50_000), "is nested too deeply"),
    Case("a folder", instead(Path.mkdir), "corpus.json: is a folder, not a file"),
    Case("a pipe", instead(os.mkfifo), "corpus.json: is a pipe, not a file"),
    Case("a device", instead(lambda path: path.symlink_to("/dev/zero")), "corpus.json: is a device or socket"),
    Case("a dead link", instead(lambda path: path.symlink_to("gone.json")), "corpus.json: does not exist"),
    Case("a link to itself", instead(lambda path: path.symlink_to(FILE)), "corpus.json: cannot be read"),
    Case("missing", lambda root: (root / FILE).unlink(), "corpus.json: does not exist"),
    Case("another corpus.json", raw(b'{"documents": []}'), 'has no "format", so it describes no corpus'),
    Case("format of tomorrow", put("format", value=2), "has format 2, where this version reads 1"),
    Case("format is text", put("format", value="1"), 'has no "format"'),
    Case("format is true", put("format", value=True), 'has no "format"'),
    Case("format is 1.0", put("format", value=1.0), 'has no "format"'),
    Case("format of 10,000 digits", raw(b'{"format": 1' + b"0" * 10_000 + b"}"), "is no whole JSON"),
    Case("a misspelt entry", put("speeker", value={}), "has 'speeker', where there are format, corpus, name, classes"),
    Case("an entry twice", raw(b'{"format": 1, "name": "a", "name": "b"}'), "has name twice"),
    Case("a speaker twice", raw(b'{"format": 1, "name": "a", "speakers": {"u": "A", "u": "B"}}'), "has u twice"),
    Case("of another corpus", put("corpus", value="IEMOCAP"), "describes a corpus of IEMOCAP, not of Folder"),
    Case("no name", put("name", value=...), "has null as name, not text"),
    Case("an empty name", put("name", value=" "), "has ' ' as name"),
    Case("a name that clears the screen", put("name", value="\x1b[2J"), r"has '\x1b[2J' as name"),
    Case("a name of half a letter", put("name", value="\ud800"), "as name, not text of 1 to 100 letters"),
    Case("a name of 1 MB", put("name", value="x" * 10**6), "as name, not text of 1 to 100 letters"),
    Case("classes are text", put("classes", value="calm"), "has 'calm' as classes, not a list"),
    Case("one class", put("classes", value=["calm"]), "has 1 classes, where 2 to 1000 are possible"),
    Case("no class", put("classes", value=[]), "has 0 classes"),
    Case("1001 classes", put("classes", value=[str(number) for number in range(1001)]), "has 1001 classes"),
    Case("a class twice", put("classes", value=["calm", "angry", "calm"]), "has the class calm twice"),
    Case("a class that is null", put("classes", value=["calm", None]), "has null as a class"),
    Case("a class of lists", put("classes", value=[["calm"], ["angry"]]), "has a list of 1 as a class"),
    Case("folds without classes", put("classes", value=...), "has folds, but neither classes nor a scale"),
    Case("classes and a scale", put("scale", value=[0, 1]), "has both classes and a scale"),
    Case("folds are text", put("folds", value="2"), "has '2' as folds, not a whole number from 0 to 1000"),
    Case("folds are listed", put("folds", value=[1, 2]), "has a list of 2 as folds"),
    Case("folds below 0", put("folds", value=-1), "has -1 as folds"),
    Case("2.5 folds", put("folds", value=2.5), "has 2.5 as folds"),
    Case("true folds", put("folds", value=True), "has true as folds"),
    Case("10^30 folds", put("folds", value=10**30), "has a number out of range as folds"),
    Case("folds are NaN", text(lambda text: text.replace('"folds": 2', '"folds": NaN')), "has NaN, which is no number"),
    Case("folds are infinite", text(lambda text: text.replace('"folds": 2', '"folds": 1e999')), "has 1e999, which"),
    Case("features are listed", put("features", value=["a", "v", "t"]), "has a list of 3 as features"),
    Case("features of smell", put("features", value={"smell": "x"}), "has features of 'smell', where there are audio"),
    Case("features above the root", put("features", value={"audio": "../../x"}), "has '../../x' as audio features"),
    Case("features are hidden", put("features", value={"audio": ".x"}), "has '.x' as audio features"),
    Case("speakers are listed", put("speakers", value=["Ann"]), "has a list of 1 as speakers"),
    Case("a speaker is a number", put("speakers", "take 0/é00", value=3), "has 3 as speaker of take 0/é00"),
    Case("an empty speaker", put("speakers", "take 0/é00", value=""), "has '' as speaker of take 0/é00"),
    Case("an id that moves the cursor", put("speakers", "\x1b[9;9H", value="A"), r"has '\x1b[9;9H' as an utterance"),
    Case("monitor is a number", put("monitor", value=1), "has 1 as monitor"),
    Case("counts are listed", put("counts", value=[1]), "has a list of 1 as counts"),
    Case("counts of an unknown fold", put("counts", value={"3": {}}), "counts of fold 3, where there are folds 1..2"),
    Case("counts of a fold in letters", put("counts", value={"one": {}}), "fold 'one', which is no number"),
    Case("counts of fold 01", put("counts", value={"01": {}}), "fold '01', which is no number"),
    Case("counts of another split", put("counts", value={"1": {"dev": {}}}), "the split 'dev', not of train, val"),
    Case("counts of an unknown class", put("counts", value={"1": {"val": {"joy": 1}}}), "fold 1 val of 'joy', where"),
    Case("counts below 0", put("counts", value={"1": {"val": {"calm": -1}}}), "has -1 as counts of fold 1 val calm"),
    Case("counts are half", put("counts", value={"1": {"val": {"calm": 0.5}}}), "has 0.5 as counts of fold 1 val calm"),
    Case("facts are text", put("facts", value="none"), "has 'none' as facts"),
]  # fmt: skip

DISAGREES = [
    Case("fewer classes than labels", put("classes", value=["calm", "angry"]), "label 2 is outside 0..1"),
    Case("a label of no class", label(-1), "label -1 is outside 0..2"),
    Case("more folds than there are", put("folds", value=3), "target/3: this fold has no folder"),
    Case("a missing speaker", put("speakers", "take 0/é00", value=...), "utterance take 0/é00: no speaker of it"),
    Case("an id in two splits", twice, "in both train and test; keep it in one of them"),
    Case("values where there are classes", put("features", value={"audio": "other"}), "A/other.h5: does not exist"),
]


def options(root: Path, fold: int = 1) -> list[str]:
    return ["--data", "Folder", "--data.root", str(root), "--data.fold", str(fold)]


@pytest.mark.parametrize("case", table(WRONG))
def test_what_describes_no_corpus_is_one_line(case: Case, root: Path) -> None:
    case.make(root)
    with pytest.raises(CorpusError) as caught:
        Folder(str(root))
    line = str(caught.value)
    assert case.expected in line
    assert line.startswith(f"{root / FILE}: ")
    assert line.endswith(".")
    assert "; " in line  # what to do about it
    assert line.isprintable()
    assert len(line) < 1200
    assert not (root / "ran").exists()


@pytest.mark.parametrize("case", table(DISAGREES))
def test_what_is_not_of_the_other_files_is_said_by_check_and_fit(case: Case, root: Path) -> None:
    case.make(root)
    lines = check_corpus(root, Folder.layout_of({"root": str(root)})).lines
    assert any(case.expected in line for line in lines), lines
    if case.name != "more folds than there are":
        with pytest.raises(CorpusError) as caught:
            Folder(str(root)).setup("fit")
        assert str(caught.value) in lines or case.expected in str(caught.value)


COMMANDS = [WRONG[1], *(case for case in WRONG if case.name in ("a pipe", "missing", "a name of half a letter"))]


@pytest.mark.parametrize("case", table(COMMANDS))
def test_commands_say_the_same_line_and_leave_nothing(
    case: Case, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case.make(root)
    (place := tmp_path / "here").mkdir()
    monkeypatch.chdir(place)
    lines = {
        one_line(capsys, ["check", *options(root)], codes=(1,)),
        one_line(capsys, ["fit", "--model", "MeanFusion", *options(root)], codes=(1,)),
    }
    (line,) = lines
    assert case.expected in line
    assert not list(place.iterdir())


def test_an_unknown_monitor_is_one_line(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    put("monitor", value="accuracy")(root)
    words = ["fit", "--model", "MeanFusion", *options(root), "--run_dir", str(tmp_path / "run")]
    assert "monitor accuracy: the scores of a classification are WA, UA, F1." in one_line(capsys, words)


def test_target_files_that_were_changed_since_are_noted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("counts", value={"1": {"train": {"calm": 5, "angry": 6}, "test": {"calm": 3}}})(root)
    assert main(["check", *options(root)]) == 0
    shown = capsys.readouterr().out
    assert "target/1: 6 train utterances of calm, where corpus.json counted 5; they were changed since" in shown
    assert shown.count("note: ") == 1


@ANY
@given(data=st.binary(max_size=60), cut=st.integers(0, 5_000), place=st.integers(0, 5_000))
def test_any_bytes_are_read_or_refused(pristine: Path, data: bytes, cut: int, place: int) -> None:
    path = pristine / FILE
    before = path.read_bytes()
    place %= len(before)
    spoilt = before[:place] + data + before[place + len(data) :]
    try:
        path.write_bytes(spoilt[: len(spoilt) - cut % len(spoilt)])
        Folder(str(pristine)).setup("fit")
    except CorpusError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1200
    finally:
        path.write_bytes(before)
