"""List everything that is wrong with a corpus, or with a model, before it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from datamodules.base import EmotionDataModule
from datamodules.batches.masks import DEFAULT_MASK, MaskSampler, mask_sampler
from datamodules.batches.patterns import FramePattern, LostFrames, frame_pattern
from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.files import write_text
from datamodules.storage.check import CheckReport, CorpusSummary, check_corpus
from datamodules.storage.description import VALUES
from datamodules.storage.targets import SPLITS
from datamodules.text import printable
from ifmmin.cli.arguments import Parser, by_path, check_once, class_at, first_look
from ifmmin.cli.words import checked, in_order
from ifmmin.discovery import corpus_names, find_corpus
from ifmmin.results.results import readable


def check_command(argv: Sequence[str]) -> int:
    """Check a corpus, or with ``--model`` a model, and print what was found.

    Args:
        argv: the words after ``check``; the options of the data or the model are those of ``fit``.

    Returns:
        exit code: 0, or 1 if something is wrong.

    Raises:
        InputError: the corpus or model named is not known, an option is wrong, or the report would go over another
            kind of file.
    """
    argv = in_order(checked(argv))
    check_once(argv)
    named = first_look(argv)
    of_model = {"--model", "--model.help"} & {word.partition("=")[0] for word in argv}
    if of_model and (named.data is not None or vars(named)["data.help"] is not None):
        raise InputError("check: give --data or --model, not both.")
    if of_model:
        from ifmmin.cli.check_model import check_model_command

        return check_model_command(argv)
    name = vars(named)["data.help"] if named.data is None else named.data
    asks_help = {"-h", "--help"} & {*argv}
    if name is None and not asks_help:
        known = ", ".join(corpus_names())
        raise InputError(f"check: --data or --model is needed. Corpora: {known}; or give a class path.")
    if name is not None:
        argv = by_path(argv, name, find_corpus(name))
    parser = Parser(prog="check", description=__doc__)
    parser.add_subclass_arguments(EmotionDataModule, "data", required=True)
    parser.add_argument("--json", type=str | None, default=None, help="Also write the report to this file.")
    options = parser.parse_args(argv)
    if options.json is not None and Path(options.json).suffix != ".json":
        raise InputError(f"--json {printable(options.json)}: give a name that ends in .json.")
    corpus, given = class_at(options.data.class_path), options.data.init_args
    settings = given.as_dict()
    root = corpus.locate(settings) if "root" in settings else corpus(**settings).root
    hidden = list(_hidden(settings))
    layout = corpus.layout_meant(settings | ({"root": str(root)} if "root" in settings else {}))
    report = check_corpus(root, layout, [given.fold] if layout.independent_folds else None)
    Console().print(render_check(report), crop=False)
    for option, says in hidden:
        Console(soft_wrap=True, markup=False, highlight=False).print(f"{option}: {says(report.summary)}")
    if options.json:
        write_text(options.json, json.dumps(report.to_dict(), indent=2) + "\n")
    return 1 if report.lines else 0


def _hidden(settings: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[CorpusSummary], str]]]:
    """Options that take modalities or frames away, other than by default, and what says what they do.

    Raises:
        InputError: one is out of range.
    """
    mask = settings.get("train_mask", DEFAULT_MASK)
    sampler = mask_sampler(mask)
    if mask != DEFAULT_MASK:
        yield f"train_mask {mask}", lambda _: _shows(sampler)
    for option in ("train_pattern", "eval_pattern"):
        pattern = frame_pattern(settings.get(option), f"--data.{option}")
        if pattern is not None:
            yield f"{option} {pattern}", partial(_changes, pattern)


def _shows(sampler: MaskSampler) -> str:
    """What a mask shows of complete utterances, in percent of 100,000 of them."""
    drawn = sampler(np.arange(100_000, dtype=np.uint64), 0, 0) @ (4, 2, 1)
    names = {int(shown @ (4, 2, 1)): name for name, shown in zip(CONDITIONS, CONDITION_TABLE.numpy(), strict=True)}
    counted = {names[key]: count for key, count in zip(*np.unique(drawn, return_counts=True), strict=True)}
    each = (f"{readable(name)} {counted[name] / 1_000:.0f} %" for name in CONDITIONS if name in counted)
    return f"of complete utterances it shows {', '.join(each)}"


def _changes(pattern: FramePattern, summary: CorpusSummary) -> str:
    """What a pattern does to an utterance of median lengths."""
    if not isinstance(pattern, LostFrames):
        each = (f"{rate:g} of {name}" for name, rate in zip(MODALITIES, pattern.rates, strict=True))
        return f"adds noise, in standard deviations of the training frames {', '.join(each)}"
    shares = (
        f"{100 * pattern.share(number, max(1, round(summary.modalities[name].median))):.1f} % of {name}"
        for number, name in enumerate(MODALITIES)
        if name in summary.modalities
    )
    return f"loses {', '.join(shares)} frames in an utterance of median length; one always stays"


def render_check(report: CheckReport) -> RenderableType:
    """Render the report as tables for a terminal, the problems last."""
    parts: list[RenderableType] = [Text(f"{report.corpus} at {printable(report.root)}", style="bold")]
    summary = report.summary
    if summary.modalities:
        parts += [_modality_table(summary), Text(_summary(summary))]
    if summary.folds:
        parts.append(_fold_table(report))
    parts += [Text(f"note: {note}", no_wrap=True, overflow="ignore") for note in report.notes.found]
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
    known = (
        f"{summary.utterances} utterances with features, {len(summary.unused)} of them in no fold; "
        f"{summary.speakers} speakers, {len(summary.unknown_speakers)} ids that do not name theirs."
    )
    if (turns := summary.turns) is not None:
        known += (
            f"\nTurns by {turns.source}: {turns.chains} chains of one speaker in one dialogue, "
            f"median {turns.median:g}, longest {turns.longest}."
        )
    if not summary.available:
        return known
    each = (f"{number} {readable(name) if name else 'nothing'}" for name, number in summary.available.items())
    return f"{known}\nLabelled utterances have: {', '.join(each)}."


def _split_cell(counts: Mapping[str, float], class_names: Sequence[str]) -> str:
    """Utterances of a split and those of each class; of values their number, mean and range."""
    if not counts:
        return "-"
    if class_names:
        return f"{sum(counts.values())}: {' '.join(map(str, counts.values()))}"
    number, mean, low, high = (counts[name] for name in (VALUES, "mean", "min", "max"))
    return f"{number:g}: mean {mean:.2f}, {low:g} to {high:g}"


def _fold_table(report: CheckReport) -> Table:
    summary = report.summary
    table = Table("fold", title=Text(f"Utterances per split: {' '.join(report.class_names)}"))
    for split in SPLITS:
        table.add_column(split)
    if summary.statistics_file:
        table.add_column("shipped mean, std")
    for number, fold in summary.folds.items():
        cells = [str(number)]
        for split in SPLITS:
            cells.append(_split_cell(fold.counts.get(split, {}), report.class_names))
        if summary.statistics_file:
            verdict = {None: "none", True: "agree", False: "differ"}[fold.statistics_agree]
            off = "" if fold.statistics_difference is None else f" ({fold.statistics_difference:.0e})"
            cells.append(verdict + off)
        table.add_row(*cells)
    return table
