"""``extract``: the same corpus however it was made, and what is printed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules import Folder
from datamodules.extraction.index import index_of
from datamodules.extraction.parts import FOLDER
from datamodules.extraction.provenance import read_provenance
from datamodules.extraction.worker import Feature
from datamodules.storage.description import Description, read_description
from ifmmin.cli import extract_progress
from ifmmin.cli.extract_summary import next_steps
from ifmmin.cli.main import main
from tests.cli.extracting import (
    LABELS,
    alive,
    descendants,
    hashes,
    leftovers,
    program,
    use_fakes,
    write_clips,
    write_manifest,
)
from tests.cli.running import CHECKOUT, metrics
from tests.datamodules.extraction.fakes import NAMES, expected


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fakes(monkeypatch)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("out") / "corpus"
    with pytest.MonkeyPatch.context() as patch:
        use_fakes(patch)
        assert main(words(manifest, out)) == 0
    yield out


def words(manifest: Path, out: Path, *options: str) -> list[str]:
    return ["extract", "clips", str(manifest), str(out), "--jobs", "1", *options]


def test_the_corpus_has_what_fit_reads(undisturbed: Path) -> None:
    assert sorted(path.name for path in undisturbed.iterdir()) == [
        "A", "L", "V", "absent.csv", "corpus.json", "extraction.log", "target",
    ]  # fmt: skip
    described = json.loads((undisturbed / "corpus.json").read_text(encoding="utf-8"))
    assert described["features"] == {"audio": "sound", "visual": "faces", "text": "words"}
    assert described["folds"] == 3
    usable = {f"clip{number:02d}" for number in range(36) if number % 9 != 4 and number % 10 != 3}
    for fold in (1, 2, 3):
        ids = [
            name.decode()
            for split in ("trn", "val", "tst")
            for name in np.load(undisturbed / "target" / str(fold) / f"{split}_int2name.npy")[:, 0]
        ]
        assert sorted(ids) == sorted(usable)
    with h5py.File(undisturbed / "A" / "sound.h5") as file:
        np.testing.assert_array_equal(file["clip07"][()], expected("audio", "clip07", "clip 7"))
    provenance = read_provenance(undisturbed / "V" / "faces.h5")
    assert provenance is not None
    assert (provenance["extractor"], provenance["corpus"]) == ("face-hog", "Folder")
    assert str(undisturbed.parent) not in json.dumps(provenance)
    assert leftovers(undisturbed) == []


def test_the_corpus_checks_and_trains(undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", "Folder", "--data.root", str(undisturbed)]
    assert main(["check", *data]) == 0, capsys.readouterr().out
    run = ["--run_dir", str(tmp_path / "run"), "--trainer.max_epochs", "1"]
    assert main(["fit", "--model", "MeanFusion", *data, *run]) == 0
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_the_summary_says_what_is_absent_and_what_to_do_next(
    manifest: Path, tmp_path: Path, fakes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my corpus"
    assert main(words(manifest, out)) == 0
    shown = capsys.readouterr().out
    assert re.search(r"visual +│ V/faces\.h5 +│ +32 │ +4 │ +5 │", shown)
    assert re.search(r"visual +│ silent +│ +4 │", shown)
    assert re.search(r"text +│ no such file +│ +4 │", shown)
    assert f"next: check --data Folder --data.root '{out}', then fit --model IFMMIN --data Folder" in shown
    assert "36 utterances, " in shown


def test_the_log_names_ids_and_nothing_private(manifest: Path, undisturbed: Path) -> None:
    log = (undisturbed / "extraction.log").read_text(encoding="utf-8")
    assert "clip04: visual absent (silent)" in log.splitlines()
    assert str(manifest.parent) not in log
    assert "7 words" not in log


@pytest.mark.parametrize("jobs", ["2", "3"])
def test_jobs_change_nothing(jobs: str, manifest: Path, undisturbed: Path, tmp_path: Path, fakes: None) -> None:
    assert main(["extract", "clips", str(manifest), str(tmp_path / "out"), "--jobs", jobs]) == 0
    assert hashes(tmp_path / "out") == hashes(undisturbed)


def test_shards_change_nothing(
    manifest: Path, undisturbed: Path, tmp_path: Path, fakes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for shard in ("2/3", "3/3", "1/3"):
        assert main(words(manifest, out, "--shard", shard)) == 0
        assert f"shard {shard[0]} of 3 is made; once all are made" in capsys.readouterr().out
    assert not (out / "A").exists()
    before = {path: path.stat().st_mtime_ns for path in out.glob(f"{FOLDER}/*/*.npz")}
    assert len(before) == 6  # two groups of three modalities
    assert main(words(manifest, out, "--keep-parts")) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob(f"{FOLDER}/*/*.npz")} == before
    assert hashes(out) == hashes(undisturbed)


def test_one_modality_adds_its_file_and_leaves_the_rest(
    manifest: Path, undisturbed: Path, tmp_path: Path, fakes: None
) -> None:
    out = tmp_path / "out"
    for modality in ("visual", "text"):
        assert main(words(manifest, out, "--only", modality)) == 0
        assert not (out / "target").exists()
    before = (out / "V" / "faces.h5").stat().st_mtime_ns
    assert main(words(manifest, out, "--only", "audio")) == 0
    assert (out / "V" / "faces.h5").stat().st_mtime_ns == before
    mine, whole = hashes(out), hashes(undisturbed)
    del mine["extraction.log"], whole["extraction.log"]  # of the last run
    assert mine == whole


def test_other_feature_files_are_kept(manifest: Path, undisturbed: Path, tmp_path: Path, fakes: None) -> None:
    out = tmp_path / "out"
    assert main(words(manifest, out)) == 0
    (out / "V" / "other.h5").write_bytes((out / "V" / "faces.h5").read_bytes())
    assert main(words(manifest, out, "--refresh")) == 0
    assert hashes(out).keys() - hashes(undisturbed).keys() == {"V/other.h5"}


def test_targets_are_written_anew_without_extracting(
    manifest: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_fakes(monkeypatch)
    assert main(words(manifest, tmp_path / "out")) == 0
    before = hashes(tmp_path / "out")
    use_fakes(monkeypatch, delay=60)  # what is there is not extracted again
    capsys.readouterr()
    assert main(words(manifest, tmp_path / "out", "--incomplete", "keep")) == 0
    shown = capsys.readouterr().out
    assert "sound.h5, faces.h5, words.h5: made of these recordings by this recipe already" in shown
    changed = {name for name, found in hashes(tmp_path / "out").items() if found != before[name]}
    assert changed == {"corpus.json", *(name for name in before if name.startswith("target/"))}
    data = ["--data", "Folder", "--data.root", str(tmp_path / "out")]
    assert main(["check", *data]) == 0
    ids = [np.load(path) for path in (tmp_path / "out" / "target" / "1").glob("*_int2name.npy")]
    assert sum(map(len, ids)) == 36
    assert main(words(manifest, tmp_path / "out")) == 0  # and back
    assert hashes(tmp_path / "out") == before == hashes(undisturbed)


def test_other_recordings_are_extracted_again(tmp_path: Path, fakes: None, undisturbed: Path) -> None:
    manifest = write_clips(tmp_path / "raw")
    assert main(words(manifest, tmp_path / "out")) == 0
    assert hashes(tmp_path / "out") == hashes(undisturbed)
    (tmp_path / "raw" / "clip07.mp4").write_text("another film", encoding="utf-8")
    assert main(words(manifest, tmp_path / "out")) == 0
    with h5py.File(tmp_path / "out" / "A" / "sound.h5") as file:
        np.testing.assert_array_equal(file["clip07"][()], expected("audio", "clip07", "another film"))


def test_incomplete_utterances_are_kept_on_request_and_trained_on_by_what_is_printed(
    manifest: Path, tmp_path: Path, fakes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(manifest, tmp_path / "out", "--incomplete", "keep")) == 0
    ids = [np.load(path) for path in (tmp_path / "out" / "target" / "1").glob("*_int2name.npy")]
    assert sum(map(len, ids)) == 36
    following = f"--data Folder --data.root {tmp_path / 'out'}"
    line = f"next: check {following}, then fit --model IFMMIN {following}"
    assert "".join(line.split()) in "".join(capsys.readouterr().out.split())
    assert main(["check", *following.split(), "--data.incomplete", "refuse"]) == 1
    assert "or give --data.incomplete keep (or drop)" in capsys.readouterr().out
    assert main(["check", *following.split()]) == 0
    assert "Labelled utterances have: " in capsys.readouterr().out
    run = ["--run_dir", str(tmp_path / "run"), "--trainer.max_epochs", "1", "--trainer.logger", "false"]
    assert main(["fit", "--model", "MeanFusion", *following.split(), *run]) == 0
    found = metrics(tmp_path / "run")["metrics"]
    assert found["avt"]["n"] < max(found[one]["n"] for one in "avt")


def test_a_dry_run_decodes_and_writes_nothing(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fakes(monkeypatch, error="must not be made")
    assert main(words(manifest, tmp_path / "out", "--dry-run")) == 0
    assert "angry 9, happy 9, neutral 9, sad 9: 36 in all" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_recordings_without_labels_are_described_for_predict(
    tmp_path: Path, fakes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_clips(tmp_path / "raw")
    rows = [("clip00", "clip00.mp4", "words"), ("clip01", "clip01.mp4", "words")]
    write_manifest(manifest, rows, ("id", "media", "text"))
    assert main(words(manifest, tmp_path / "out")) == 0
    assert "nothing is labelled, so there are no folds; next: predict --data Folder" in capsys.readouterr().out
    assert not (tmp_path / "out" / "target").exists()
    assert read_description(tmp_path / "out") == Description(
        "clips", feature_names=NAMES, speakers=dict.fromkeys(("clip00", "clip01")), facts={"folds": "speaker"}
    )


def test_labels_that_are_gone_leave_no_folds_to_predict(tmp_path: Path, fakes: None) -> None:
    manifest, out = write_clips(tmp_path / "raw"), tmp_path / "out"
    assert main(words(manifest, out)) == 0
    assert Folder(root=str(out)).predict_split == "test"
    rows = [(f"clip{number:02d}", f"clip{number:02d}.mp4", f"{number} words") for number in range(9)]
    assert main(words(write_manifest(manifest, rows, ("id", "media", "text")), out)) == 0
    assert not (out / "target").exists()
    assert Folder(root=str(out)).predict_split == "all"


def test_a_corpus_without_any_words_is_not_extracted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fakes(monkeypatch)
    write_clips(tmp_path / "raw")
    rows = [
        (f"clip{number:02d}", f"clip{number:02d}.mp4", "", LABELS[number % 4], f"p{number % 3}") for number in range(12)
    ]
    manifest = write_manifest(tmp_path / "raw" / "manifest.csv", rows)
    assert main(words(manifest, tmp_path / "out")) == 0
    use_fakes(monkeypatch, delay=60)
    capsys.readouterr()
    assert main(words(manifest, tmp_path / "out")) == 0
    assert "made of these recordings by this recipe already" in capsys.readouterr().out


def test_the_next_command_names_a_file_beside_the_usual_one(manifest: Path, tmp_path: Path, fakes: None) -> None:
    out = tmp_path / "out"
    assert main(words(manifest, out)) == 0
    index = index_of("clips", manifest)
    usual, second = (Feature(name, 4, 10, {}, None) for name in ("faces", "clip vit"))
    assert "features" not in next_steps(out, index, {"visual": usual}, ()).plain
    assert "--data.visual_features 'clip vit'" in next_steps(out, index, {"visual": second}, ()).plain


# Kills. A step is a file that the parent moves into place; the process dies before or after it.

Killed = Callable[[Path], bool]


def killed_at_step(words: list[str], step: int, before: bool) -> bool:
    """Run in a fork of this process that kills itself; whether it did. One that ends otherwise must have succeeded."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _kill_at(step, before)
            code = main(words)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code == -signal.SIGKILL


def _kill_at(step: int, before: bool) -> None:
    taken = 0

    def dying(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def moved(source: Path, target: Path) -> Path:
            nonlocal taken
            taken += 1
            if taken == step and before:
                os.kill(os.getpid(), signal.SIGKILL)
            found = move(source, target)
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return moved

    Path.replace = dying(Path.replace)  # type: ignore[method-assign,assignment]
    Path.rename = dying(Path.rename)  # type: ignore[method-assign,assignment]


# A, V, L, absent.csv, extraction.log, corpus.json, three folds of six files, and the parts' folder.
STEPS = 3 + 3 + 3 * 6 + 1


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, marks=[] if step in (1, 3, 4, 6, 15, STEPS) else pytest.mark.slow)
        for step in range(1, STEPS + 1)
    ],
)
def test_a_kill_while_assembling_changes_nothing(
    step: int, before: bool, manifest: Path, undisturbed: Path, tmp_path: Path, fakes: None
) -> None:
    out = tmp_path / "out"
    assert killed_at_step(words(manifest, out), step, before)
    for path in out.glob("?/[!.]*.h5"):  # whole, or not there
        assert hashes(out)[str(path.relative_to(out))] == hashes(undisturbed)[str(path.relative_to(out))]
    assert main(words(manifest, out)) == 0
    assert hashes(out) == hashes(undisturbed)
    assert leftovers(out) == []


def test_there_are_as_many_steps(manifest: Path, tmp_path: Path, fakes: None) -> None:
    assert not killed_at_step(words(manifest, tmp_path / "out"), STEPS + 1, True)


def running(folder: Path, words: list[str], delay: float = 0.02) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(program(folder, delay)), *words],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(found: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not found() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found(), process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_a_signal_leaves_no_process_and_the_next_start_goes_on(
    signum: signal.Signals, manifest: Path, undisturbed: Path, tmp_path: Path, fakes: None
) -> None:
    out = tmp_path / "out"
    process = running(tmp_path, ["extract", "clips", str(manifest), str(out), "--jobs", "2"], delay=0.1)
    until(lambda: list(out.glob(f"{FOLDER}/*/*.npz")), process)  # the small group is done, the large one is not
    children = descendants(process.pid)
    assert len(children) >= 2
    process.send_signal(signum)
    _, err = process.communicate(timeout=30)
    if signum == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + signum
        (line,) = [line for line in err.splitlines() if not line.startswith("note: ")]
        assert line.endswith("; what is done is kept; the same command goes on")
        assert not list(out.glob(f"{FOLDER}/*/.ifmmin-*"))
    deadline = time.monotonic() + 10
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, children))
    assert not (out / "A").exists()
    done = {path: path.stat().st_mtime_ns for path in out.glob(f"{FOLDER}/*/*.npz")}
    assert main(words(manifest, out, "--keep-parts")) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert hashes(out) == hashes(undisturbed)


def test_without_a_terminal_there_is_a_line_now_and_then(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fakes(monkeypatch, delay=0.01)
    monkeypatch.setattr(extract_progress, "EVERY", 0.1)
    assert main(words(manifest, tmp_path / "out")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("extract: ")]
    assert 1 <= len(lines) <= 12
    form = r"extract: \d+ of 36 utterances \| \d+ s of speech \| \d+\.\dx real time( \| \d+ s left)?( \| absent: .*\d)?"
    assert all(re.fullmatch(form, line) for line in lines), lines
