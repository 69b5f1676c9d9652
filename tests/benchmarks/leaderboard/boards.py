"""Records of a leaderboard that nobody ran: confusion matrices are drawn, all metrics follow from them."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.leaderboard import summary
from benchmarks.leaderboard.records import Record
from benchmarks.leaderboard.summary import Summary
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from ifmmin.curves import CURVES
from ifmmin.results.calibration import COLUMNS
from ifmmin.tasks import SUMMARY_ROWS, Classification

CLASS_NAMES = ("angry", "happy", "neutral", "sad")
CLASS_COUNTS = (110, 164, 171, 108)
ACCURACY = {"a": 0.56, "v": 0.51, "t": 0.67, "av": 0.64, "at": 0.74, "vt": 0.72, "avt": 0.77}
BAYES_MARGIN = 0.04
RATES = tuple(f"{tenths / 10:.1f}" for tenths in range(8))


def board_records(
    models: Sequence[str],
    folds: Sequence[int],
    seeds: Sequence[int],
    corpus: str = "IEMOCAP",
    is_synthetic: bool = False,
    unanswered: Collection[str] = (),
) -> list[dict[str, Any]]:
    """One record per model, fold and seed, the same for the same arguments.

    Args:
        models: names; each next one is 0.4 points worse on average.
        folds: from 1; they differ in difficulty, for all models alike.
        seeds: of the runs.
        corpus: the name of the corpus.
        is_synthetic: whether it passes for the built-in corpus: the Bayes limit is known then.
        unanswered: the models that answer the complete condition only, and no missing-rate sweep.
    """
    return [
        _record(model, place, fold, seed, corpus, is_synthetic, complete_only=model in unanswered)
        for place, model in enumerate(models)
        for fold in folds
        for seed in seeds
    ]


def _record(
    model: str, place: int, fold: int, seed: int, corpus: str, is_synthetic: bool, complete_only: bool
) -> dict[str, Any]:
    """One finished run."""
    rng = np.random.default_rng([zlib.crc32(model.encode()), fold, seed])
    shift = 0.03 * np.sin(fold) - 0.004 * place
    empty = np.zeros((len(CLASS_NAMES),) * 2, dtype=np.int64)
    confusion = {
        condition: empty if complete_only and condition != "avt" else draw_confusion(rng, ACCURACY[condition] + shift)
        for condition in CONDITIONS
    }
    sweep = {} if complete_only else {rate: draw_confusion(rng, 0.77 - 0.25 * float(rate) + shift) for rate in RATES}
    apart = np.random.default_rng([zlib.crc32(model.encode()), fold, seed, 1])
    curves = {
        name: {f"{rate:.1f}": draw_confusion(apart, 0.77 - 0.2 * rate + shift).tolist() for rate in CURVES[name].rates}
        for name in CURVES
        if name != "modalities" and not (complete_only and CURVES[name].mask)
    }
    folder = f"fold{fold}/{model}-seed{seed}"
    pretrained = model in ("IFMMIN", "MMIN", "MMINWithoutCycle")
    return {
        "model": model,
        "corpus": corpus,
        "is_synthetic": is_synthetic,
        "fold": fold,
        "seed": seed,
        "split": "test",
        "class_names": list(CLASS_NAMES),
        "metrics": _metrics(confusion, fold if is_synthetic else None),
        "confusion": {condition: matrix.tolist() for condition, matrix in confusion.items()},
        "sweep": {rate: matrix.tolist() for rate, matrix in sweep.items()},
        "curves": curves,
        "monitor": "F1" if corpus.startswith("MSP") else "UA",
        "parameters": 2_000_000 + 100_000 * place,
        "wall_time_s": round(float(rng.uniform(60, 90)), 3),
        "identity": {
            "config": f"config-{model}",
            "code": "c0de",
            "data": f"{corpus}-fold{fold}",
            "threads": 1,
            "versions": {"torch": "2.13.0", "lightning": "2.6.5"},
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0", "lightning": "2.6.5", "numpy": "2.3.4"},
        "commit": "090bb2f2f0f4a4be4d2c62ec8b7a95f6e1d2a3b4",
        "dirty": False,
        "platform": "Linux-6.1-x86_64",
        "date": f"2026-11-22T{seed % 24:02d}:{fold % 60:02d}:00+00:00",
        "run": f"runs/{folder}",
        "stage1": f"stage1/fold{fold}/InvariantPretraining-seed{seed}" if pretrained else None,
        "checkpoint": f"runs/{folder}/checkpoints/epoch012.ckpt",
    }


def with_calibration(records: Sequence[Mapping[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """The same records with drawn measures of their probabilities."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            row: {
                column: None if column == "temperature" and row in ("mean", "pooled") else float(rng.uniform(0.05, 1))
                for column in COLUMNS
            }
            for row in SUMMARY_ROWS
        }
        for _ in records
    ]
    return [{**record, "calibration": measured} for record, measured in zip(records, rows, strict=True)]


def draw_confusion(rng: Generator, accuracy: float) -> NDArray[np.int64]:
    """Counts [C, C] of a classifier that is right with this probability in every class, errors spread evenly."""
    classes = len(CLASS_NAMES)
    shares = np.full((classes, classes), (1 - accuracy) / (classes - 1))
    np.fill_diagonal(shares, accuracy)
    return np.stack([rng.multinomial(count, share) for count, share in zip(CLASS_COUNTS, shares, strict=True)])


def _metrics(confusion: dict[str, NDArray[np.int64]], bayes_fold: int | None) -> dict[str, dict[str, Any]]:
    """The rows of ``metrics.json``; the Bayes limit of a fold where one is given."""
    rows: dict[str, dict[str, Any]] = {
        **Classification(CLASS_NAMES).summarise(torch.tensor(np.stack(list(confusion.values()))))
    }
    bayes: dict[str, float] = {}
    if bayes_fold is not None:
        bayes = {name: value + BAYES_MARGIN + 0.03 * float(np.sin(bayes_fold)) for name, value in ACCURACY.items()}
        bayes["mean"] = sum(bayes[name] for name in MISSING_CONDITIONS) / len(MISSING_CONDITIONS)
        if confusion["a"].any():
            bayes["pooled"] = bayes["mean"]  # all conditions count the same utterances
    counts: dict[str, int | None] = {name: int(matrix.sum()) for name, matrix in confusion.items()}
    counts |= {"mean": None, "pooled": sum(int(confusion[name].sum()) for name in MISSING_CONDITIONS)}
    return {name: {**row, "bayes_WA": bayes.get(name), "n": counts[name]} for name, row in rows.items()}


def summarise_board(records: Iterable[Mapping[str, Any]], reference: str | None = None) -> Summary:
    """Summarise records as plain values, as ``records.jsonl`` has them."""
    return summary.summarise_board([Record.from_json(record) for record in records], reference)
