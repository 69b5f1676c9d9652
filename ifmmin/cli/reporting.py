"""What a command prints and writes: its header, and the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import EmotionDataModule
from datamodules.classes import ChosenClasses
from datamodules.errors import InputError
from datamodules.files import write_text
from datamodules.storage.layouts import speaker_of
from datamodules.text import printable
from ifmmin import runs
from ifmmin.base import MissingModalityModule
from ifmmin.cli.console import print_rank_zero, print_table
from ifmmin.curves import curve_counts
from ifmmin.pretraining.fitting import trainable_parameters
from ifmmin.results.breakdown import class_rows, class_table, speaker_rows, speaker_table
from ifmmin.results.calibration import calibration_columns, calibration_rows, calibration_table
from ifmmin.results.csv_files import csv_text
from ifmmin.results.curves import curve_rows, curve_table, score_curves
from ifmmin.results.files import write_json, write_results
from ifmmin.results.predictions import Predictions
from ifmmin.results.provenance import environment_record
from ifmmin.results.results import Results, synthetic_name
from ifmmin.results.tables import results_table
from ifmmin.results.tracking import log_to_wandb
from ifmmin.results.uncertainty import add_up, bootstrap_intervals, speakers, utterance_counts


def print_header(data: EmotionDataModule, run_dir: Path | None) -> None:
    """Say which data are used, and where the run's files are, if it has any."""
    name = synthetic_name(data.corpus_name, data.invented) if data.synthetic else data.corpus_name
    if data.synthetic and not data.invented:
        place = f"{data.root} (for your own: --data IEMOCAP --data.root DIR)"
        print_rank_zero(f"data: the {name} in {place}")
    else:
        print_rank_zero(f"data: {name}, fold {data.fold}, in {data.root}")
    if isinstance(data.corpus_layout.labels, ChosenClasses):
        print_rank_zero(f"classes: {printable(data.corpus_layout.labels, 400)}")
    if run_dir is not None:
        print_rank_zero(f"run folder: {run_dir}")


def check_units(data: EmotionDataModule, over: str, split: str) -> None:
    """Refuse ``--intervals speakers`` where ids do not name speakers, before anything is evaluated.

    Raises:
        InputError: naming such an id.
    """
    if over == "speakers":
        speakers([data.corpus.utterances[index] for index in data.indices(split)], data.corpus_layout)


@rank_zero_only
def report_results(
    model: MissingModalityModule,
    data: EmotionDataModule,
    trainer: L.Trainer,
    run_dir: Path,
    results: Results,
    *,
    predictions: Predictions | None = None,
    over: str = "none",
) -> None:
    """Write and log the files of finished results, and print their tables.

    Args:
        model: that was scored.
        data: it was scored on.
        trainer: of the test or validation.
        run_dir: where the files go.
        results: without intervals yet; a fit's have a ``monitor``.
        predictions: every answer of the split; None leaves out all that is made of them.
        over: what the intervals are over, ``"none"`` for none.
    """
    results.record = {
        "command": sys.argv,
        "recipe": model.settings.plain(),
        "parameters": trainable_parameters(model),
        "data_fingerprint": data.fingerprint,
        **_extraction(data),
        "temperatures": dict(model.temperatures),
        "devices": trainer.world_size,
        **environment_record(),
        **results.record,
    }
    tables: dict[str, list[dict[str, Any]]] = {"per_class.csv": class_rows(results)}
    if predictions is not None:
        results.calibration = calibration_rows(predictions, model.temperatures)
        if results.calibration is not None:
            tables["calibration.csv"] = calibration_columns(results.calibration)
        names, counts = utterance_counts(predictions)
        who = [speaker_of(name, data.corpus_layout) for name in names]
        named = [speaker for speaker in who if speaker is not None]
        if len(named) == len(who):
            tables["per_speaker.csv"] = speaker_rows(results.task, counts, named)
        if over == "utterances":
            results.intervals = bootstrap_intervals(results.task, counts)
        elif over == "speakers":
            results.intervals = bootstrap_intervals(results.task, add_up(counts, named)[1], "speakers")
        if over != "none" and results.intervals is None:
            print_rank_zero(f"no intervals: the split has fewer than two {over}")
    fitted = results.monitor is not None
    paths = write_results(
        results,
        run_dir,
        prefix="" if results.split == "test" else f"{results.split}_",
        predictions=predictions,
        tables=tables,
        metrics=runs.METRICS if fitted else None,
    )
    _print_tables(results, tables)
    print_rank_zero("written: " + ", ".join(map(str, paths)))
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            log_to_wandb(results, logger.experiment, paths)
            logger.experiment.finish()  # or the next run of this process would write into this one


@rank_zero_only
def report_curves(
    model: MissingModalityModule,
    data: EmotionDataModule,
    run_dir: Path,
    results: Results,
    names: Sequence[str],
    over: str,
) -> None:
    """Read a split at every rate of some curves, print the table and write ``curves.csv``.

    Args:
        model: that was scored.
        data: it was scored on.
        run_dir: where the file goes.
        results: of the same split.
        names: of the curves.
        over: what the intervals are over, ``"none"`` for none.
    """
    utterances, counts = curve_counts(model, data, results.split, names)
    if left := [name for name in names if name not in counts]:
        print_rank_zero(f"no curve of {', '.join(left)}: {results.model} does not answer the conditions that it takes")
    if not counts:
        return
    groups = speakers(utterances, data.corpus_layout) if over == "speakers" else None
    curves = score_curves(results.task, counts, groups, intervals=over != "none")
    title = replace(results, remarks=tuple(model.remarks)).title()  # curves have rates of their own
    print_table(curve_table(title, results.task.score(data.monitor), curves))
    prefix = "" if results.split == "test" else f"{results.split}_"
    path = write_text(run_dir / f"{prefix}curves.csv", csv_text(curve_rows(results.task, curves)))
    print_rank_zero(f"written: {path}")


@rank_zero_only
def report_predictions(
    model: MissingModalityModule,
    data: EmotionDataModule,
    output: Path,
    predictions: Predictions | None,
    trained_on: Mapping[str, Any],
    record: Mapping[str, Any],
) -> None:
    """Write predictions to ``output``, and beside it, under the same name in .json, what was predicted by what.

    Raises:
        InputError: there are none, or one is not finite.
        OSError: the file cannot be written.
    """
    rows = 0 if predictions is None else len(predictions.utterances)
    if predictions is None or not rows:
        name = type(model).__name__
        raise InputError(
            f"{output}: nothing was predicted; see that the split {data.predict_split} has utterances, that {name} "
            "answers one of --data.conditions, and that --trainer.limit_predict_batches is not 0."
        )
    predictions.write(output)
    description = {
        "model": type(model).__name__,
        "corpus": data.corpus_name,
        "is_synthetic": data.synthetic,
        "invented": data.invented,
        "fold": data.fold,
        "split": data.predict_split,
        "utterances": len(set(predictions.utterances)),
        "rows": rows,
        "trained_on": trained_on,
        "record": {
            "command": sys.argv,
            "data_fingerprint": data.fingerprint,
            **_extraction(data),
            **environment_record(),
            **record,
        },
    }
    beside = write_json(record_path(output), description)
    print_rank_zero(f"predictions: {rows} rows in {output}, their record in {beside}")


def _extraction(data: EmotionDataModule) -> dict[str, Any]:
    """How the features were made, nothing where their files do not say so."""
    return {"extraction": data.extraction} if data.extraction else {}


def record_path(output: Path) -> Path:
    """Where the record of a predictions file goes."""
    return output.with_suffix(".json")


def _print_tables(results: Results, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    print_table(results_table(results))
    if results.calibration is not None:
        print_table(calibration_table(results.calibration))
    if rows := tables.get("per_class.csv"):
        print_table(class_table(rows))
    rows = tables.get("per_speaker.csv", [])
    if len({row["speaker"] for row in rows}) > 1:  # one speaker's is the table above
        print_table(speaker_table(results.task, rows))
