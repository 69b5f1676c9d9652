"""Groups extracted by worker processes: the same parts however it was done, and one line where it cannot be."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.assembling import ABSENT, Assembled, assemble, read_parts
from datamodules.extraction.groups import Group, Sizes, groups_of, shard_of
from datamodules.extraction.parts import FOLDER
from datamodules.extraction.provenance import describe, read_provenance
from datamodules.extraction.recordings import Recording
from datamodules.extraction.running import Workers, check_room, estimated_bytes, tasks_of
from datamodules.extraction.worker import Done, Feature, Make, Seen
from datamodules.storage.features import open_features
from datamodules.storage.layouts import FOLDERS
from datamodules.storage.problems import Strict
from tests.datamodules.extraction.fakes import NAMES, WIDTHS, MakeFake, reference, write_recordings


def run(
    recordings: Sequence[Recording], out: Path, make: Make, jobs: int = 1, groups: Sequence[Group] | None = None
) -> tuple[dict[str, Feature], list[str]]:
    """Make the missing parts; what is made, and the utterances that were extracted."""
    sizes = Sizes()
    chosen = groups_of(recordings, sizes) if groups is None else groups
    done = []
    with Workers(make, jobs, out) as workers:
        features = workers.features()
        for _, message in workers.run(tasks_of(chosen, features, out, sizes).tasks):
            done += [message.utterance] if isinstance(message, Seen) else []
    return features, done


def put_together(recordings: Sequence[Recording], out: Path, features: dict[str, Feature]) -> Assembled:
    sizes = Sizes()
    parts = read_parts(out, groups_of(recordings, sizes), features, sizes)
    provenance = {
        modality: describe(
            feature.name, {}, feature.recipe, None, rate=feature.rate, width=feature.width, corpus="Folder",
            facts={}, utterances=[], sources=[],
        )
        for modality, feature in features.items()
    }  # fmt: skip
    return assemble(out, parts, provenance)


def hashes(out: Path) -> dict[str, str]:
    """What the corpus's files hold, without the parts."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and FOLDER not in path.parts]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    return write_recordings(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def undisturbed(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    features, done = run(recordings, out, MakeFake())
    assert sorted(done) == sorted(recording.utterance for recording in recordings)
    put_together(recordings, out, features)
    return out


@pytest.mark.parametrize("modality", ["audio", "visual", "text"])
def test_features_are_those_of_a_plain_loop(modality: str, undisturbed: Path, recordings: list[Recording]) -> None:
    features, absent = reference(recordings, modality)
    path = undisturbed / FOLDERS[MODALITIES.index(modality)] / f"{NAMES[modality]}.h5"
    with h5py.File(path) as file:
        assert list(file) == sorted(features)
        for name, frames in features.items():
            np.testing.assert_array_equal(file[name][()], frames)
            assert (file[name].dtype, file[name].chunks, file[name].compression) == (np.float32, None, None)
    rows = (undisturbed / ABSENT).read_text(encoding="utf-8").splitlines()
    assert {row for row in rows[1:] if f",{modality}," in row} == {
        f"{name},{modality},{NAMES[modality]},{why}" for name, why in absent.items()
    }
    assert rows == [rows[0], *sorted(rows[1:])]
    provenance = read_provenance(path)
    assert provenance is not None
    assert (provenance["extractor"], provenance["width"]) == (NAMES[modality], WIDTHS[modality])


def test_the_fast_reader_reads_them(undisturbed: Path, recordings: list[Recording]) -> None:
    features, _ = reference(recordings, "visual")
    file = open_features(undisturbed / "V" / "faces.h5", Strict())
    assert file is not None
    with file:
        entries = file.entries(sorted(features), True, Strict())
    assert (entries.positions > 0).all()
    content = (undisturbed / "V" / "faces.h5").read_bytes()
    for name, length, position in zip(sorted(features), entries.lengths, entries.positions, strict=True):
        stored = np.frombuffer(content, "<f4", length * entries.width, position).reshape(length, -1)
        np.testing.assert_array_equal(stored, features[name])


def test_two_workers_make_the_same_bytes_as_one(undisturbed: Path, recordings: list[Recording], tmp_path: Path) -> None:
    time.sleep(1.1)  # HDF5 writes times in seconds, if it does
    features, done = run(recordings, tmp_path, MakeFake(delay=0.005), jobs=2)
    assert len(done) == len(recordings)
    put_together(recordings, tmp_path, features)
    assert hashes(tmp_path) == hashes(undisturbed)


def test_shards_make_the_same_bytes_as_the_whole(
    undisturbed: Path, recordings: list[Recording], tmp_path: Path
) -> None:
    groups, extracted = groups_of(recordings, Sizes()), []
    for shard in (3, 1, 2):
        features, done = run(recordings, tmp_path, MakeFake(), groups=shard_of(groups, shard, 3))
        extracted += done
        if shard != 2:
            with pytest.raises(InputError, match=r"parts of \d of 5 groups are missing"):
                put_together(recordings, tmp_path, features)
    assert sorted(extracted) == sorted(recording.utterance for recording in recordings)
    put_together(recordings, tmp_path, features)
    assert hashes(tmp_path) == hashes(undisturbed)


def test_only_what_is_missing_or_changed_is_done(recordings: list[Recording], tmp_path: Path) -> None:
    run(recordings, tmp_path, MakeFake())
    assert run(recordings, tmp_path, MakeFake())[1] == []
    (text,) = tmp_path.glob(f"{FOLDER}/words-*/dialogue1-*.npz")
    text.unlink()
    (audio,) = tmp_path.glob(f"{FOLDER}/sound-*/dialogue2-*.npz")
    os.truncate(audio, 100)
    expected_again = sorted(f"dialogue{dialogue}_turn{turn}" for dialogue in (1, 2) for turn in range(4))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"{FOLDER}/*/*.npz")}
    assert sorted(run(recordings, tmp_path, MakeFake())[1]) == expected_again
    written = [path for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert written == [audio]  # and not the other modalities of the two groups
    assert text.is_file()
    # Another visual recipe: visual parts only, and those of the first stay.
    assert len(run(recordings, tmp_path, MakeFake(visual_version=2))[1]) == len(recordings)
    assert len(list(tmp_path.glob(f"{FOLDER}/faces-*"))) == 2
    assert len(list(tmp_path.glob(f"{FOLDER}/sound-*"))) == 1


def test_refresh_does_all_again(recordings: list[Recording], tmp_path: Path) -> None:
    groups, sizes = groups_of(recordings, Sizes()), Sizes()
    features, _ = run(recordings, tmp_path, MakeFake())
    assert not tasks_of(groups, features, tmp_path, sizes).tasks
    assert len(tasks_of(groups, features, tmp_path, sizes, refresh=True).tasks) == len(groups)
    assert not list(tmp_path.glob(f"{FOLDER}/*/*.npz"))


def with_text(recordings: list[Recording], text: str, utterance: str = "clip20") -> list[Recording]:
    return [replace(each, text=text) if each.utterance == utterance else each for each in recordings]


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("crash", InputError, r"^utterance clip20: the process that extracted it ended \(killed by signal 9.*--jobs"),
        ("defect", InputError, r"^utterance clip20: ZeroDivisionError: division by zero; IFMMIN_DEBUG=1 shows where"),
        ("refuse", InputError, r"^utterance clip20: refused\.$"),
        ("full", OSError, "No space left on device"),
    ],
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_ends_the_run_and_names_the_utterance(
    text: str, kind: type[Exception], line: str, jobs: int, recordings: list[Recording], tmp_path: Path
) -> None:
    spoilt = with_text(recordings, text)
    with pytest.raises(kind, match=line):
        run(spoilt, tmp_path, MakeFake(), jobs)
    parts = list(tmp_path.glob(f"{FOLDER}/*/*"))
    assert all(path.suffix == ".npz" and not path.name.startswith(".") for path in parts)
    # The repaired corpus takes up what was done.
    features, done = run(recordings, tmp_path, MakeFake(), jobs)
    assert "clip20" in done
    put_together(recordings, tmp_path, features)
    assert len(list(tmp_path.glob("?/*.h5"))) == 3


def test_a_pipeline_that_cannot_be_made_is_one_line(recordings: list[Recording], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'^opensmile is not installed: pip install "ifmmin\[media\]"\.$'):
        run(recordings, tmp_path, MakeFake(error='opensmile is not installed: pip install "ifmmin[media]".'))


def test_workers_end_with_the_block(recordings: list[Recording], tmp_path: Path) -> None:
    sizes = Sizes()
    slow = with_text(recordings, "wait", "dialogue1_turn0")
    with Workers(MakeFake(), 2, tmp_path) as workers:
        features = workers.features()
        processes = workers._workers
        for _, message in workers.run(tasks_of(groups_of(slow, sizes), features, tmp_path, sizes).tasks):
            if isinstance(message, Done):
                break
        alive = [worker.process for worker in processes]
        assert len(alive) == 2 and any(process.is_alive() for process in alive)
    assert not any(process.is_alive() for process in alive)
    assert not list(tmp_path.glob(f"{FOLDER}/*/.ifmmin-*"))


def test_what_clearly_has_no_room_is_refused(recordings: list[Recording], tmp_path: Path) -> None:
    features = {"audio": Feature("sound", 130, 10, {}, None), "text": Feature("words", 384, 0, {}, None)}
    (one,) = [each for each in recordings if each.utterance == "clip00"]
    assert estimated_bytes([one], features) == pytest.approx((45 * 130 + 4.6 * 384) * 4, abs=4)
    check_room(tmp_path, 1000, "the features")
    with pytest.raises(InputError, match=r"the features take about 1000000\.0 GB, and .* are free; make room"):
        check_room(tmp_path, 10**15, "the features")
