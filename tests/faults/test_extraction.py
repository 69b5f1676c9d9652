"""What can go wrong around ``extract``: one line each, and what was there before is as it was."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import h5py
import numpy as np
import pytest

from datamodules import files
from datamodules.extraction import assembling
from datamodules.extraction.parts import FOLDER
from datamodules.files import lock, unlock
from ifmmin.cli.main import main
from tests.cli.extracting import hashes, leftovers, use_fakes, write_clips, write_manifest
from tests.faults.cases import Case, one_line, table, words_table


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write_clips(folder)
    return folder


@pytest.fixture(scope="module")
def extracted(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extracted") / "corpus"
    with pytest.MonkeyPatch.context() as patch:
        use_fakes(patch)
        assert main(["extract", "clips", str(raw), str(out), "--jobs", "1"]) == 0
    return out


@pytest.fixture
def here(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as current one, with the recordings beside; no worker can be started in it."""
    (tmp_path / "raw").symlink_to(raw)
    monkeypatch.chdir(tmp_path)
    use_fakes(monkeypatch, error="a worker was started")
    return tmp_path


IN_ONE_LINE = [
    ("extract", "corpus"),
    ("extract clips", "raw"),
    ("extract clips raw", "out"),
    ("extract clips raw out more", "unrecognized arguments: more"),
    ("extract iemocap raw out", "iemocap: no corpus of recordings that can be read; did you mean IEMOCAP?"),
    ("extract Folder raw out", "there are IEMOCAP, MSPIMPROV, clips"),
    ("extract clips nowhere out", "there is nothing to extract"),
    ("extract IEMOCAP nowhere out", "nowhere: there is nothing to extract"),
    ("extract MSPIMPROV raw out", "raw: there is nothing to extract"),
    ("extract clips raw raw", "raw: is the folder of the recordings"),
    ("extract clips raw/manifest.csv raw", "raw: is the folder of the recordings"),
    ("extract clips raw/manifest.csv ./raw/.", "is the folder of the recordings"),
    ("extract clips raw raw/manifest.csv", "raw/manifest.csv: is not a folder"),
    ("extract clips raw raw/manifest.csv/out", "Not a directory"),
    ("extract clips raw /proc/here/out", "/proc/here"),
    ("extract clips raw ~nobody_of_this_name/out", "no such user's home"),
    ("extract clips raw out --jobs 0", "--jobs 0: it must be at least 1"),
    ("extract clips raw out --jobs -3", "--jobs -3: it must be at least 1"),
    ("extract clips raw out --jobs 100000", "at most 1024"),
    ("extract clips raw out --jobs two", "--jobs"),
    ("extract clips raw out --batch 0", "--batch 0: it must be at least 1"),
    ("extract clips raw out --device gpu", "--device gpu: there is none here; give cpu"),
    ("extract clips raw out --device cuda:99", "--device cuda:99: there is none here"),
    ("extract clips raw out --shard 9/8", "--shard 9/8: give K/N"),
    ("extract clips raw out --shard 0/8", "--shard 0/8: give K/N"),
    ("extract clips raw out --shard 3", "--shard 3: give K/N"),
    ("extract clips raw out --shard 1/1000000", "give K/N"),
    ("extract clips raw out --shard -1/2", "--shard"),
    ("extract clips raw out --recipe portabel", "recipe 'portabel' is not known"),
    ("extract clips raw out --audio compare", "extractor 'compare' is not known or not installed"),
    ("extract clips raw out --audio face-hog", "extractor face-hog is of visual, not audio"),
    ("extract clips raw out --detector yolo", "face detector 'yolo' is not known"),
    ("extract clips raw out --visual hf-vision", "model"),
    ("extract clips raw out --audio.depth 3", "depth"),
    ("extract clips raw out --audio", "--audio needs a value"),
    ("extract clips raw out --audio none --visual none --text none", "all modalities are left out"),
    ("extract clips raw out --audio none --only audio", "--audio none leaves it out"),
    ("extract clips raw out --only sight", "--only sight: no modality; there are audio, visual, text"),
    ("extract clips raw out --only ''", "--only"),
    ("extract clips raw out --scenarios S", "clips has no option scenarios"),
    ("extract clips raw out --keep-tags", "clips has no option keep_tags"),
    ("extract IEMOCAP raw out --folds 5", "IEMOCAP has no option folds"),
    ("extract clips raw out --folds 0", "folds"),
    ("extract clips raw out --folds people", "folds"),
    ("extract MSPIMPROV raw out --scenarios Q", "Q"),
    ("extract clips raw out --incomplete zero", "--incomplete"),
    ("extract clips raw out --job 2", "--job is not known. Did you mean --jobs?"),
    ("extract clips raw out --keep_parts", "Did you mean --keep-parts?"),
    ("extract clips raw out --data IEMOCAP", "--data is not known"),
    ("extrct clips raw out", "Did you mean extract?"),
]


@pytest.mark.parametrize(("words", "expected"), words_table(IN_ONE_LINE))
def test_wrong_words_are_one_line_and_nothing_is_written(
    words: str, expected: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in one_line(capsys, shlex.split(words))
    assert [path.name for path in here.iterdir()] == ["raw"]


def test_a_dry_run_of_nothing_fails(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "IEMOCAP", "raw", "out", "--dry-run"]) == 1
    assert "1 problem" in capsys.readouterr().out
    assert not (here / "out").exists()


# A folder that holds something else.


def ready_made(out: Path) -> None:
    """A pack of features that nobody extracted here."""
    (out / "A").mkdir(parents=True)
    with h5py.File(out / "A" / "sound.h5", "w") as file:
        file["clip00"] = np.ones((2, 3), np.float32)


def targets_alone(out: Path) -> None:
    (out / "target" / "1").mkdir(parents=True)


def copied(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """A copy of the extracted corpus, changed."""

    def make(out: Path) -> None:
        shutil.copytree(os.environ["EXTRACTED"], out)
        change(out)

    return make


def other_ids(out: Path) -> None:
    text = (out / "corpus.json").read_text(encoding="utf-8")
    (out / "corpus.json").write_text(text.replace('"clip', '"other').replace('"others"', '"clips"'), encoding="utf-8")


def other_class(out: Path) -> None:
    text = (out / "corpus.json").read_text(encoding="utf-8")
    (out / "corpus.json").write_text(text.replace('"corpus": "Folder"', '"corpus": "IEMOCAP"'), encoding="utf-8")


def in_use(out: Path) -> None:
    out.mkdir()
    HELD.append(lock(out, "corpus"))


def file_in(name: str) -> Callable[[Path], None]:
    """A file in place of a folder."""

    def make(out: Path) -> None:
        out.mkdir()
        (out / name).write_bytes(b"x")

    return make


HELD: list[IO[str] | None] = []

FOLDERS_OF_OTHERS = [
    Case("a file", lambda out: out.write_bytes(b"x"), "out: is not a folder; name another one"),
    Case("a pipe", lambda out: os.mkfifo(out), "out: is not a folder"),
    Case("a link to nowhere", lambda out: out.symlink_to("/proc/nowhere"), "out"),
    Case("ready-made features", ready_made, "A/sound.h5: is not of this corpus, or not extracted"),
    Case("targets of others", targets_alone, "holds a corpus that was not extracted"),
    Case("other utterances", copied(other_ids), "out: holds another corpus, clips; name another folder"),
    Case("another class of corpus", copied(other_class), "holds another corpus"),
    Case("a description cut", copied(lambda out: os.truncate(out / "corpus.json", 100)), "corpus.json: "),
    Case("in use", in_use, "out: this corpus is in use by process"),
    Case("parts a file", file_in(FOLDER), FOLDER),
    Case("A a file", file_in("A"), "out/A"),
]


@pytest.mark.parametrize("case", table(FOLDERS_OF_OTHERS))
def test_a_folder_of_something_else_is_left_alone(
    case: Case, extracted: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fakes(monkeypatch)
    monkeypatch.setenv("EXTRACTED", str(extracted))
    case.make(here / "out")
    before = hashes(here / "out") if (here / "out").is_dir() else {}
    try:
        assert case.expected in one_line(capsys, ["extract", "clips", "raw", "out", "--jobs", "1"])
    finally:
        while HELD:
            if (held := HELD.pop()) is not None:
                unlock(held)
    after = hashes(here / "out") if (here / "out").is_dir() else {}
    assert {name: after[name] for name in before if not name.endswith(".lock")} == {
        name: found for name, found in before.items() if not name.endswith(".lock")
    }


def test_shards_share_a_folder_and_the_whole_does_not(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fakes(monkeypatch)
    words = ["extract", "clips", "raw", "out", "--jobs", "1"]
    (here / "out").mkdir()
    held = lock(here / "out", "corpus", shared=True)
    assert held is not None
    assert main([*words, "--shard", "1/2"]) == 0
    assert "in use by" in one_line(capsys, words)
    shard = lock(here / "out" / FOLDER / "shard-1-of-2", "shard")
    assert shard is not None
    assert "shard-1-of-2: this shard is in use by process" in one_line(capsys, [*words, "--shard", "1/2"])
    assert main([*words, "--shard", "2/2"]) == 0
    unlock(shard)
    held.close()
    assert main(words) == 0
    assert leftovers(here / "out") == []


# Damage while it runs.


@pytest.mark.parametrize("damage", ["parts removed", "parts cut", "a folder for a part", "unknown files"])
def test_damaged_parts_are_made_again(
    damage: str, extracted: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fakes(monkeypatch)
    words = ["extract", "clips", "raw", "out", "--jobs", "1"]
    assert main([*words, "--shard", "1/1"]) == 0
    parts = sorted(here.glob(f"out/{FOLDER}/*/*.npz"))
    assert len(parts) == 6
    if damage == "parts removed":
        shutil.rmtree(parts[0].parent)
    elif damage == "parts cut":
        for number, part in enumerate(parts):
            os.truncate(part, 60 * number)
    elif damage == "a folder for a part":
        parts[0].unlink()
        (parts[0].parent / f".ifmmin-{parts[0].stem}.x.npz").write_bytes(b"half")
    else:
        (here / "out" / FOLDER / "notes.txt").write_text("mine", encoding="utf-8")
        (parts[0].parent / "other.npz").write_bytes(b"x")
    assert main(words) == 0
    assert hashes(here / "out") == hashes(extracted)
    assert leftovers(here / "out") == []


MANIFESTS: list[tuple[str, list[tuple[str, ...]], str]] = [
    ("an id twice", [("clip00", "clip00.mp4", "x", "sad", "a")] * 2, "clip00"),
    ("no id", [("", "clip00.mp4", "x", "sad", "a")], "id"),
    ("no media", [("clip00", "nowhere.mp4", "", "sad", "a")], "nothing could be extracted (clip00: no such file)"),
]


@pytest.mark.parametrize(("rows", "expected"), [pytest.param(rows, line, id=name) for name, rows, line in MANIFESTS])
def test_bad_rows_are_said(
    rows: list[tuple[str, ...]],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_fakes(monkeypatch)
    write_clips(tmp_path / "raw")
    manifest = write_manifest(tmp_path / "raw" / "manifest.csv", rows)
    assert main(["extract", "clips", str(manifest), str(tmp_path / "out"), "--jobs", "1"]) in (0, 1)
    shown = capsys.readouterr()
    assert expected in shown.out + shown.err
    assert "Traceback" not in shown.err


# A full disk: before, in a worker, and at each file that is assembled.


def test_a_disk_that_is_clearly_too_small_is_said_before(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fakes(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    line = one_line(capsys, ["extract", "clips", "raw", "out", "--jobs", "1"])
    assert "the features and their parts take about" in line
    assert not list(here.glob(f"out/{FOLDER}/*/*.npz"))


@pytest.mark.parametrize(
    "name", ["sound.h5", "words.h5", "absent.csv", "extraction.log", "corpus.json", "val_label.npy"]
)
def test_a_disk_full_at_the_end_loses_nothing(
    name: str, extracted: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fakes(monkeypatch)
    words = ["extract", "clips", "raw", "out", "--jobs", "1"]
    with monkeypatch.context() as patch:
        sync = files._sync

        def full(path: Path) -> None:
            if path.name.startswith(f".ifmmin-{name.partition('.')[0]}."):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            sync(path)

        patch.setattr(files, "_sync", full)
        line = one_line(capsys, words)
    assert f"{name}: No space left on device; see that" in line
    assert len(list(here.glob(f"out/{FOLDER}/*/*.npz"))) == 6
    assert not list(here.rglob(".ifmmin-*"))
    use_fakes(monkeypatch, delay=60)  # nothing is extracted again
    assert main(words) == 0
    assert hashes(here / "out") == hashes(extracted)


def test_a_feature_file_that_has_no_room_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    use_fakes(monkeypatch)
    words = ["extract", "clips", "raw", "out", "--jobs", "1"]
    assert main([*words, "--shard", "1/1"]) == 0
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setattr(assembling, "write_text", lambda *_: None)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
        line = one_line(capsys, words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "sound.h5: File too large" in line
    assert not (here / "out" / "A" / "sound.h5").exists()
    assert len(list(here.glob(f"out/{FOLDER}/*/*.npz"))) == 6
