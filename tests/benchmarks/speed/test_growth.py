from __future__ import annotations

import argparse
import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import lightning as L
import numpy as np
import pytest

from benchmarks.speed import growth
from benchmarks.speed.random_corpus import RandomCorpus
from datamodules.batches.batch import Batch
from datamodules.storage.frames import RaggedFrames, StoredFrames


def test_written_numbers_are_a_corpus_of_the_drawn_lengths(tmp_path: Path) -> None:
    drawn, written = RandomCorpus(20, 0.5), RandomCorpus(20, 0.5, folder=tmp_path, memory_budget_gb=0)
    drawn.write(tmp_path)
    for data in (drawn, written):
        data.setup("fit")
    assert drawn.corpus.lengths.tolist() == written.corpus.lengths.tolist()
    assert drawn.corpus.utterances == written.corpus.utterances
    for modality, frames in enumerate(written.corpus.frames):
        with h5py.File(written.corpus_layout.feature_path(tmp_path, modality)) as file:
            np.testing.assert_array_equal(frames.utterance(3), file[written.corpus.utterances[3]][()])
    for data in (drawn, written):
        audio, visual, text = (
            np.concatenate([frames.utterance(row) for row in range(20)]) for frames in data.corpus.frames
        )
        assert audio.std() == pytest.approx(1, abs=0.02)
        assert visual.min() == 0 and np.mean(visual == 0) == pytest.approx(0.5, abs=0.01)
        assert np.sqrt(np.mean(visual**2)) == pytest.approx(0.25, abs=0.005)
        deviations = np.sort(text.std(axis=0))
        assert deviations[:-4].mean() == pytest.approx(0.5, abs=0.01) and deviations[-4] > 2


def test_every_size_is_measured_in_both_forms_where_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "SIZES", ("1x0.1", "2x0.1"))
    monkeypatch.setattr(growth, "apart", growth.measure)
    monkeypatch.setattr(growth, "silence", lambda: None)
    size = RandomCorpus(30, 0.1)
    size.setup("fit")
    gigabytes = sum(frames.utterance(row).nbytes for frames in size.corpus.frames for row in range(30)) / 1e9
    options = ["--model", "ModalityDropout", "--utterances", "30", "--repeats", "1", "--batches", "1"]
    files = ["--csv", str(tmp_path / "table.csv"), "--plot", str(tmp_path / "table.png"), "--scratch", str(tmp_path)]
    growth.main([*options, *files, "--memory", str(1.01 * gigabytes)])
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["utterances"], row["form"]) for row in rows] == [("30", "disk"), ("30", "memory"), ("60", "disk")]
    assert float(rows[0]["gigabytes"]) == pytest.approx(gigabytes)
    assert float(rows[0]["ratio"]) > 0
    assert [math.isnan(float(row["growth"])) for row in rows] == [False, True, False]
    assert math.isnan(float(rows[2]["ratio"]))
    assert all(float(row["clock"]) > 0 and float(row["peak"]) > 100 for row in rows)
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert "CPU ratio" in capsys.readouterr().out


def test_all_forms_go_through_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[type, list[str]]] = []

    def record(turns: growth.Turns, trainer: L.Trainer, _: L.LightningModule, batch: Batch, number: int) -> None:
        loader: Any = trainer.train_dataloader
        seen.append((type(loader.dataset.corpus.frames[0]), batch.utterances))
        turns.utterances[-1] += len(batch)

    monkeypatch.setattr(growth, "silence", lambda: None)
    monkeypatch.setattr(growth.Turns, "on_train_batch_start", record)
    RandomCorpus(600, 0.05).write(tmp_path)
    growth.measure("ModalityDropout", tmp_path, 600, 0.05, ["disk", "memory"], 1, 2)
    kinds, batches = zip(*seen, strict=True)
    assert kinds == (StoredFrames, StoredFrames, RaggedFrames, RaggedFrames) * 2
    assert batches[:2] == batches[2:4] and batches[4:6] == batches[6:]
    assert batches[:2] != batches[4:6]


def test_growth_is_relative_to_the_smallest_corpus_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = iter([2.0, 6.0, 4.0, 12.0, 8.0])  # smallest, a size, smallest, another size, smallest
    point = growth.Point(0, 1.0, 0.0, "disk", 0.0, 0.0, 0.0, math.nan, math.nan, 0.0, 0.0)
    monkeypatch.setattr(growth, "apart", lambda *_: [replace(point, clock=next(clocks))])
    monkeypatch.setattr(RandomCorpus, "write", lambda *_: None)
    options = argparse.Namespace(
        model="IFMMIN", sizes=["4x1", "16x1"], repeats=1, batches=1, memory=-1.0, scratch=tmp_path
    )
    assert [disk.growth for disk, _ in growth.measure_all(options, 10)] == [2.0, 2.0]
