from __future__ import annotations

import json
import multiprocessing
import resource
from multiprocessing.synchronize import Barrier
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from datamodules.conditions import CONDITIONS
from datamodules.errors import CorpusError, InputError
from datamodules.linear_gaussian import files as linear_gaussian_files
from datamodules.linear_gaussian.files import FEATURE_FILES, SOURCE_FILE, load_source, sessions
from datamodules.linear_gaussian.generator import LinearGaussianCorpus
from datamodules.linear_gaussian.views import View

FloatArray = npt.NDArray[np.float64]

SMALL = LinearGaussianCorpus(
    seed=3,
    overlap=0.7,
    gain_swing=0.4,
    gain_decay=0.3,
    views=(
        View(8, (1.0, 0.5, 0.8, 0.7), 0.9, 0.6, 3.0, 0.4, 2, 4, distractors=3, distractor_std=2.0),
        View(5, (0.6, 1.1, 0.4, 1.0), 1.2, 0.9, 2.0, 0.4, 1, 3, 1, 0.8, rms=0.25, split_signs=True),
        View(4, (0.9, 0.7, 1.3, 0.5), 0.5, 1.5, 2.0, 0.4, 1, 3, rms=0.5, outliers=1),
    ),
)


BUILT_IN = LinearGaussianCorpus()


def write_corpus(folder: Path, corpus: LinearGaussianCorpus = BUILT_IN, utterances_per_speaker: int = 400) -> None:
    """Write the corpus in five sessions."""
    linear_gaussian_files.write_corpus(folder, corpus, sessions(utterances_per_speaker))


@pytest.fixture(scope="module")
def corpus() -> LinearGaussianCorpus:
    return LinearGaussianCorpus()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "built_in"
    write_corpus(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_layout(written: Path, corpus: LinearGaussianCorpus) -> None:
    names = sorted(p.name for p in (written / "target").iterdir())
    assert names == ["1", "2", "3", "4", "5"]
    labels: dict[str, int] = {}
    for fold in names:
        splits = {}
        for split in ("trn", "val", "tst"):
            ids = np.load(written / "target" / fold / f"{split}_int2name.npy", allow_pickle=False)
            one_hot = np.load(written / "target" / fold / f"{split}_label.npy", allow_pickle=False)
            assert ids.dtype.kind == "S"
            assert ids.shape == (len(one_hot), 1)
            assert one_hot.shape[1] == 4
            assert one_hot.dtype.kind == "f"
            assert np.array_equal(np.sort(one_hot, axis=1), np.tile([0.0, 0, 0, 1], (len(ids), 1)))
            splits[split] = [name.decode() for name in ids[:, 0]]
            for name, label in zip(splits[split], one_hot.argmax(axis=1), strict=True):
                assert labels.setdefault(name, int(label)) == label
        speakers = {split: {name[:6] for name in ids} for split, ids in splits.items()}
        assert {split: len(ids) for split, ids in splits.items()} == {"trn": 3200, "val": 400, "tst": 400}
        assert speakers["val"] == {f"Ses0{fold}M"}
        assert speakers["tst"] == {f"Ses0{fold}F"}
        assert len(speakers["trn"]) == 8
        assert not speakers["trn"] & (speakers["val"] | speakers["tst"])
    assert len(labels) == 4000
    ids = list(labels)
    values, offsets = [], []
    for path, view in zip(FEATURE_FILES, corpus.views, strict=True):
        with h5py.File(written / path, "r") as file:
            assert set(file) == set(ids)
            frames = [file[name][()] for name in ids]
        assert {(f.dtype, f.shape[1]) for f in frames} == {(np.dtype("float32"), view.width)}
        values.append(np.concatenate(frames))
        offsets.append(np.cumsum([0] + [len(f) for f in frames]))
    # What was written answers to the shipped posterior: the rule's accuracy is that of the model.
    rule = load_source(written).log_posterior_batch(values, offsets)
    truth = np.array([labels[name] for name in ids])
    for c, condition in enumerate(CONDITIONS):
        accuracy = np.mean(rule[c].argmax(axis=1) == truth)
        assert abs(accuracy - np.exp(rule[c].max(axis=1)).mean()) < 4 * 0.5 / np.sqrt(4000), condition


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "one", utterances_per_speaker=5)
    write_corpus(tmp_path / "two", utterances_per_speaker=5)
    write_corpus(tmp_path / "other", LinearGaussianCorpus(seed=1), utterances_per_speaker=5)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert all(one[name] != other[name] for name in (*FEATURE_FILES, "target/1/trn_label.npy"))


def test_source_round_trip(written: Path, tmp_path: Path, corpus: LinearGaussianCorpus) -> None:
    assert load_source(written) == corpus
    write_corpus(tmp_path / "small", SMALL, utterances_per_speaker=2)
    assert load_source(tmp_path / "small") == SMALL


@pytest.mark.parametrize("damage", ["missing", "truncated", "binary", "version", "list", "parameter", "value", "views"])
def test_damaged_source(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "corpus"
    write_corpus(folder, utterances_per_speaker=1)
    path = folder / SOURCE_FILE
    source = json.loads(path.read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    elif damage == "list":
        path.write_text("[]")
    else:
        if damage == "version":
            source["version"] += 1
        elif damage == "parameter":
            source["parameters"]["colour"] = "blue"
        elif damage == "value":
            source["parameters"]["overlap"] = "wide"
        else:
            source["parameters"]["views"].pop()
        path.write_text(json.dumps(source))
    with pytest.raises(CorpusError) as caught:
        load_source(folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(CorpusError, match="delete the folder"):
        write_corpus(folder, utterances_per_speaker=1)


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "corpus"
    write_corpus(folder, utterances_per_speaker=1)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    write_corpus(folder, utterances_per_speaker=1)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CorpusError, match="choose another"):
        write_corpus(tmp_path)
    write_corpus(tmp_path / "seed0", utterances_per_speaker=1)
    with pytest.raises(CorpusError, match="seed 1"):
        write_corpus(tmp_path / "seed0", LinearGaussianCorpus(seed=1), utterances_per_speaker=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("limit", [100_000, 1_500_000])
def test_full_disk_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str], limit: int) -> None:
    # A limit on the size of files fails as a full disk does: in the middle of a write.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written .*choose another folder") as caught:
            write_corpus(tmp_path / "corpus", utterances_per_speaker=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_no_utterances(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1"):
        write_corpus(tmp_path / "corpus", utterances_per_speaker=0)
    assert list(tmp_path.iterdir()) == []


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_corpus(tmp_path / "file" / "corpus")


def test_the_slower_writer_uses_the_quicker_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "corpus"
    write_targets = linear_gaussian_files._write_targets

    def overtaken(*args: object) -> None:
        monkeypatch.setattr(linear_gaussian_files, "_write_targets", write_targets)
        write_corpus(folder, utterances_per_speaker=1)
        write_targets(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(linear_gaussian_files, "_write_targets", overtaken)
    write_corpus(folder, utterances_per_speaker=1)
    assert load_source(folder) == LinearGaussianCorpus()
    assert list(tmp_path.iterdir()) == [folder]


def write_at_the_barrier(folder: Path, barrier: Barrier) -> None:
    barrier.wait(timeout=60)
    write_corpus(folder, utterances_per_speaker=20)


def test_several_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    folder = tmp_path / "together"
    writers = [context.Process(target=write_at_the_barrier, args=(folder, barrier)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    write_corpus(tmp_path / "alone", utterances_per_speaker=20)
    assert contents(folder) == contents(tmp_path / "alone")
    assert {p.name for p in tmp_path.iterdir()} == {"together", "alone"}
