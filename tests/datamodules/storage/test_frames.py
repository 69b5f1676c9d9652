"""The two forms of a corpus, in memory and on disk, against h5py and against each other."""

from __future__ import annotations

import math
import os
import pickle
import shutil
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import h5py
import lightning as L
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from datamodules.batches.batch import Batch
from datamodules.batches.loading import LengthBatches, padded, pooled
from datamodules.conditions import CONDITIONS
from datamodules.errors import CorpusError, InputError
from datamodules.iemocap import IEMOCAP
from datamodules.storage.corpus import Corpus, fingerprint, read_corpus, train_statistics
from datamodules.storage.frames import Frames, RaggedFrames, StoredFrames
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from datamodules.synthetic import Synthetic
from tests.batches import CLASSES
from tests.datamodules.corpora import change_features, load_features, write_corpus
from tests.ifmmin.models import Small

AUDIO, VISUAL, TEXT = (IEMOCAP_LAYOUT.feature_path(Path(), modality) for modality in range(3))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored in every way: audio as usual, visual float16, text partly compressed, float64 or compact."""
    root = tmp_path_factory.mktemp("corpus") / "mixed"
    names = write_corpus(root)
    visual = load_features(root / VISUAL, names)
    change_features(root / VISUAL, {name: one.astype(np.float16) for name, one in zip(names, visual, strict=True)})
    text = load_features(root / TEXT, names)
    with h5py.File(root / TEXT, "r+") as file:
        for number, (name, frames) in enumerate(zip(names, text, strict=True)):
            if number % 4 == 0:
                continue
            del file[name]
            if number % 4 == 1:
                file.create_dataset(name, data=frames, chunks=(1, 3), compression="gzip")
            elif number % 4 == 2:
                file[name] = frames.astype(np.float64)
            else:
                create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                create.set_layout(h5py.h5d.COMPACT)
                space = h5py.h5s.create_simple(frames.shape)
                h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, create).write(
                    h5py.h5s.ALL, h5py.h5s.ALL, frames
                )
    return root


@pytest.fixture
def root(mixed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mixed, tmp_path / "corpus"))


def both(root: Path) -> tuple[Corpus, Corpus]:
    held = read_corpus(root, IEMOCAP_LAYOUT, None, require_all=True)
    stored = read_corpus(root, IEMOCAP_LAYOUT, None, require_all=True, memory_budget=0)
    assert all(isinstance(frames, RaggedFrames) for frames in held.frames)
    assert all(isinstance(frames, StoredFrames) for frames in stored.frames)
    return held, stored


def plainly_padded(sequences: list[npt.NDArray[Any]], rows: list[int], dim: int) -> npt.NDArray[np.float32]:
    longest = max((len(sequences[row]) for row in rows), default=0)
    expected = np.zeros((len(rows), longest, dim), dtype=np.float32)
    for slot, row in enumerate(rows):
        expected[slot, : len(sequences[row])] = sequences[row]
    return expected


@pytest.mark.parametrize("rows", [[], [5], [3, 1, 2, 3], list(range(47, -1, -1))])
def test_both_forms_gather_what_h5py_reads(mixed: Path, rows: list[int]) -> None:
    for corpus in both(mixed):
        for frames, path in zip(corpus.frames, (AUDIO, VISUAL, TEXT), strict=True):
            sequences = load_features(mixed / path, corpus.utterances)
            gathered, true = padded(frames, torch.tensor(rows, dtype=torch.int64))
            assert gathered.dtype == torch.float32
            np.testing.assert_array_equal(gathered, plainly_padded(sequences, rows, frames.dim))
            assert true.sum(dim=1).tolist() == [len(sequences[row]) for row in rows]
            for row in rows:
                assert frames.utterance(row).dtype == torch.float32
                np.testing.assert_array_equal(frames.utterance(row), sequences[row])


@pytest.mark.parametrize("rows", [[], [5], [3, 1, 2, 3], list(range(47, -1, -1))])
def test_both_forms_of_a_corpus_are_pooled_to_the_same_bits(mixed: Path, rows: list[int]) -> None:
    chosen = torch.tensor(rows, dtype=torch.int64)
    for held, stored in zip(*(corpus.frames for corpus in both(mixed)), strict=True):
        (ours, there), (theirs, _) = (pooled(frames, chosen, 20) for frames in (held, stored))
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)
        expected = [held.utterance(row).double() for row in rows]
        assert there.tolist() == [[len(frames) > 0] * 20 for frames in expected]
        for steps, frames in zip(ours, expected, strict=True):
            alone = F.adaptive_avg_pool1d(frames.T[None], 20)[0].T
            torch.testing.assert_close(steps.double(), alone, rtol=1e-6, atol=1e-6)


def test_whole_arrays_are_read_without_hdf5(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        return False

    _, stored = both(mixed)
    monkeypatch.setattr("datamodules.storage.frames.FeatureFile.read_into", refuse)
    for frames in stored.frames[:2]:
        frames.gather(torch.arange(48), 9)
    with pytest.raises(CorpusError, match="cannot be read"):
        stored.frames[2].gather(torch.arange(48), 9)


def test_features_are_held_as_stored_if_they_fit_the_budget(mixed: Path) -> None:
    held, _ = both(mixed)
    values = [frames.values for frames in held.frames if isinstance(frames, RaggedFrames)]
    assert [each.dtype for each in values] == [torch.float32, torch.float16, torch.float32]
    size = sum(each.nbytes for each in values)
    for budget, kind in ((size, RaggedFrames), (size - 1, StoredFrames)):
        corpus = read_corpus(mixed, IEMOCAP_LAYOUT, None, require_all=True, memory_budget=budget)
        assert {type(frames) for frames in corpus.frames} == {kind}
    for gigabytes, kind in ((size / 1e9, RaggedFrames), (0.999 * size / 1e9, StoredFrames)):
        data = IEMOCAP(str(mixed), memory_budget_gb=gigabytes)
        data.setup("fit")
        assert {type(frames) for frames in data.corpus.frames} == {kind}


@pytest.mark.parametrize("budget", [-1.0, math.nan])
def test_a_budget_that_is_none_is_refused(mixed: Path, budget: float) -> None:
    with pytest.raises(InputError, match=r"memory_budget_gb .*: it must be at least 0"):
        IEMOCAP(str(mixed), memory_budget_gb=budget)


def test_statistics_and_fingerprint_are_those_of_the_form_in_memory(mixed: Path) -> None:
    held, stored = both(mixed)
    rows = np.arange(0, 48, 3)
    for one, other in zip(held.frames, stored.frames, strict=True):
        for ours, theirs in zip(train_statistics(one, rows), train_statistics(other, rows), strict=True):
            assert torch.equal(ours, theirs)
    assert fingerprint(held, None) == fingerprint(stored, None)


def test_the_fingerprint_is_made_of_the_checksums_of_all_values(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[dict[str, Any]] = []

    def keep(given: dict[str, Any], **_: object) -> str:
        described.append(given)
        return ""

    _, stored = both(mixed)
    monkeypatch.setattr("datamodules.storage.corpus.json.dumps", keep)
    fingerprint(stored, None)
    expected = [
        zlib.crc32(np.concatenate(load_features(mixed / path, stored.utterances)).astype(np.float32).tobytes())
        for path in (AUDIO, VISUAL, TEXT)
    ]
    assert described[0]["values"] == expected


def test_looking_a_corpus_over_takes_little_memory(tmp_path: Path) -> None:
    write_corpus(tmp_path, dims=(2000, 3000, 4000), utterances=60)
    tracemalloc.start()
    corpus = read_corpus(tmp_path, IEMOCAP_LAYOUT, None, require_all=True, memory_budget=0)
    statistics = [train_statistics(frames, np.arange(60)) for frames in corpus.frames]
    fingerprint(corpus, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(each.mean) for each in statistics] == [2000, 3000, 4000]
    size = sum((tmp_path / path).stat().st_size for path in (AUDIO, VISUAL, TEXT))
    assert peak < size / 4


# Training.


def batches_of(root: Path, budget: float, workers: int = 0) -> list[Batch]:
    data = IEMOCAP(str(root), memory_budget_gb=budget, batch_size=8, eval_batch_size=4, workers=workers, seed=3)
    data.setup("fit")
    batches: list[Batch] = []
    train: DataLoader[Batch] = data.train_dataloader()
    for epoch in range(2):
        assert isinstance(train.sampler, LengthBatches)
        train.sampler.set_epoch(epoch)
        batches += train
    return [*batches, *data.val_dataloader(), *data.in_order("train")]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_budget_changes_no_batch(mixed: Path, workers: int) -> None:
    held, stored = batches_of(mixed, 1.0), batches_of(mixed, 0.0, workers)
    assert len(held) == len(stored) > 10
    for one, other in zip(held, stored, strict=True):
        assert one.utterances == other.utterances
        for ours, theirs in zip((*one.frames, one.present), (*other.frames, other.present), strict=True):
            assert torch.equal(ours, theirs)


def test_the_budget_changes_no_weight(mixed: Path) -> None:
    weights = []
    for budget in (1.0, 0.0):
        torch.manual_seed(0)
        data = IEMOCAP(str(mixed), memory_budget_gb=budget, seed=3)
        model = Small(feature_dims=data.feature_dims, class_names=CLASSES, batch_size=8)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(model, datamodule=data)
        weights.append(model.state_dict())
        assert any(not torch.equal(start[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_bayes_accuracy_is_that_of_the_whole_split_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.linear_gaussian.datamodule._TOGETHER", 7)
    data = Synthetic(utterances_per_speaker=20, memory_budget_gb=0.0)
    data.setup("fit")
    rows, paths = data.indices("test"), [data.corpus_layout.feature_path(data.root, modality) for modality in range(3)]
    sequences = [load_features(path, [data.corpus.utterances[row] for row in rows]) for path in paths]
    values = [np.concatenate(each) for each in sequences]
    offsets = [np.cumsum([0, *map(len, each)]) for each in sequences]
    decided = data.source.log_posterior_batch(values, offsets).argmax(axis=-1)
    expected = (decided == data.labels.numpy()[rows]).mean(axis=1)
    assert list(data.bayes_accuracy("test")) == list(CONDITIONS)
    np.testing.assert_allclose(list(data.bayes_accuracy("test").values()), expected, rtol=1e-12)


# What happens to files while they are in use.


def stored_audio(root: Path) -> Frames:
    return read_corpus(root, IEMOCAP_LAYOUT, None, require_all=True, memory_budget=0).frames[0]


@pytest.mark.parametrize("how", ["cut", "rewritten"])
def test_a_file_that_changes_is_refused(root: Path, how: str) -> None:
    frames, path = stored_audio(root), root / AUDIO
    if how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        os.utime(path, ns=(0, 0))
    message = r"comparE\.h5: was changed while it was in use.*start again\.$"
    with pytest.raises(CorpusError, match=message):
        frames.gather(torch.arange(48), 9)
    with pytest.raises(CorpusError, match=message):
        frames.utterance(0)


def test_a_file_that_is_replaced_or_deleted_is_read_on(root: Path) -> None:
    frames, expected = stored_audio(root), stored_audio(root).utterance(3)
    (root / AUDIO).unlink()
    assert torch.equal(frames.utterance(3), expected)


def test_a_disk_that_fails_is_named(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    frames = stored_audio(mixed)
    for broken in (fail, lambda *_: 3):
        monkeypatch.setattr("datamodules.storage.frames.os.preadv", broken)
        with pytest.raises(CorpusError, match=r"comparE\.h5: utterance Ses.*: cannot be read"):
            frames.gather(torch.arange(4), 9)


def test_frames_are_the_same_without_preadv(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indices = torch.tensor([7, 0, 31])
    in_memory, on_disk = both(root)
    monkeypatch.delattr("datamodules.storage.frames.os.preadv")
    for memory, disk in zip(in_memory.frames, on_disk.frames, strict=True):
        assert torch.equal(padded(disk, indices)[0], padded(memory, indices)[0])


def test_frames_on_disk_go_to_workers_that_are_no_forks(root: Path) -> None:
    for frames in both(root)[1].frames:
        copy = pickle.loads(pickle.dumps(frames))
        assert torch.equal(padded(copy, torch.arange(48))[0], padded(frames, torch.arange(48))[0])
    kept = pickle.dumps(stored_audio(root))
    (root / AUDIO).unlink()
    with pytest.raises(CorpusError, match=r"comparE\.h5: cannot be opened \(No such file or directory\)"):
        pickle.loads(kept)
