"""The ``check`` command: everything that is wrong with a corpus, before it is used."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from datamodules.base import EmotionDataModule
from datamodules.files import write_text
from datamodules.storage.check import CheckReport, CorpusSummary, check_corpus
from datamodules.storage.targets import SPLITS
from ifmmin.discovery import check_name


def check_command(argv: Sequence[str], corpora: Mapping[str, type[EmotionDataModule]]) -> int:
    """Check a corpus and print what was found.

    Args:
        argv: the words after ``check``.
        corpora: datamodules by name.

    Returns:
        the exit code: 0, or 1 where something is wrong.

    Raises:
        InputError: the corpus named is not known.
    """
    parser = argparse.ArgumentParser(prog="check", description=__doc__)
    parser.add_argument("--data", required=True, help=f"one of {', '.join(corpora)}")
    parser.add_argument("--data.root", dest="root", required=True, help="folder of the features and targets")
    for modality in ("audio", "visual", "text"):
        parser.add_argument(f"--data.{modality}_features", dest=modality, help=f"name of the {modality} features")
    parser.add_argument("--json", help="also write the report to this file")
    options = parser.parse_args(argv)
    check_name(options.data, corpora, "corpus")
    layout = corpora[options.data].layout
    given = (options.audio, options.visual, options.text)
    audio, visual, text = (name or usual for name, usual in zip(given, layout.feature_names, strict=True))
    report = check_corpus(Path(options.root), replace(layout, feature_names=(audio, visual, text)))
    Console().print(render_check(report), crop=False)
    if options.json:
        write_text(options.json, json.dumps(report.to_dict(), indent=2) + "\n")
    return 1 if report.lines else 0


def render_check(report: CheckReport) -> RenderableType:
    """The report as tables for a terminal, the problems last."""
    parts: list[RenderableType] = [Text(f"{report.corpus} at {report.root}", style="bold")]
    summary = report.summary
    if summary.modalities:
        parts += [_modality_table(summary), Text(_summary(summary))]
    if summary.folds:
        parts.append(_fold_table(report))
    if not report.problems.found:
        return Group(*parts, Text("No problems.", style="green"))
    parts.append(
        Text(f"{len(report.problems.found)} problem{'s' if len(report.problems.found) > 1 else ''}:", style="bold red")
    )
    # One line each, however long: they are searched and counted.
    return Group(*parts, *(Text(f"- {problem}", no_wrap=True, overflow="ignore") for problem in report.lines))


def _modality_table(summary: CorpusSummary) -> Table:
    table = Table("modality", "file", title="Features")
    for heading in ("utterances", "dim", "shortest", "median", "longest"):
        table.add_column(heading, justify="right")
    for name, modality in summary.modalities.items():
        numbers = (modality.utterances, modality.dim, modality.shortest, modality.median, modality.longest)
        table.add_row(name, Text(Path(modality.file).name), *(f"{number:g}" for number in numbers))
    return table


def _summary(summary: CorpusSummary) -> str:
    return (
        f"{summary.utterances} utterances with features, {len(summary.unused)} of them in no fold; "
        f"{summary.speakers} speakers, {len(summary.unknown_speakers)} ids that do not name theirs."
    )


def _fold_table(report: CheckReport) -> Table:
    summary = report.summary
    table = Table("fold", title=f"Utterances per split: {' '.join(report.class_names)}")
    for split in SPLITS:
        table.add_column(split)
    if summary.statistics_file:
        table.add_column("shipped mean, std")
    for number, fold in summary.folds.items():
        cells = [str(number)]
        for split in SPLITS:
            counts = list(fold.counts.get(split, {}).values())
            cells.append(f"{sum(counts)}: {' '.join(map(str, counts))}" if counts else "-")
        if summary.statistics_file:
            verdict = {None: "none", True: "agree", False: "differ"}[fold.statistics_agree]
            off = "" if fold.statistics_difference is None else f" ({fold.statistics_difference:.0e})"
            cells.append(verdict + off)
        table.add_row(*cells)
    return table
