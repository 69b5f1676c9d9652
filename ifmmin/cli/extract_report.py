"""What a corpus of recordings holds, for ``extract --dry-run``: counts, folds, missing sources, everything wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from datamodules.conditions import MODALITIES
from datamodules.extraction.index import published_counts
from datamodules.extraction.index.lengths import seconds_of
from datamodules.extraction.recordings import Index, Recording
from datamodules.storage.targets import SPLITS
from datamodules.text import printable

MOST_SPEAKERS = 24
MOST_FOLDS = 24

_UNLABELLED = "unlabelled"


def render_index(index: Index, raw: Path) -> RenderableType:
    """Render an index as tables for a terminal, the problems last, one line each."""
    parts: list[RenderableType] = [Text(f"{index.corpus} at {printable(raw)}", style="bold")]
    if index.recordings:
        parts += [_speaker_table(index), _source_table(index.recordings)]
    if index.folds:
        parts.append(_fold_table(index))
    parts += [_line(f"note: {note}") for note in index.notes]
    if not index.problems:
        return Group(*parts, Text("No problems.", style="green"))
    count = len(index.problems)
    parts.append(Text(f"{count} problem{'s' if count > 1 else ''}:", style="bold red"))
    return Group(*parts, *(_line(f"- {problem}") for problem in index.problems))


def _line(text: str) -> Text:
    # However long, a line stays one: they are searched and counted.
    return Text(text, no_wrap=True, overflow="ignore")


def _speaker_table(index: Index) -> Table:
    """Utterances by speaker and class, with the published counts of the whole corpus below."""
    classes = [*index.class_names]
    if any(recording.label is None for recording in index.recordings):
        classes.append(_UNLABELLED)
    groups: dict[str, list[Recording]] = {}
    for recording in index.recordings:
        groups.setdefault(recording.speaker or "-", []).append(recording)
    table = Table("speaker", title="Utterances", title_justify="left")
    for name in (*classes, "all", "hours"):
        table.add_column(Text(printable(name, 40)), justify="right")
    for speaker in sorted(groups)[:MOST_SPEAKERS]:
        table.add_row(Text(printable(speaker, 40)), *_counts(groups[speaker], classes))
    if len(groups) > MOST_SPEAKERS:
        rest = [recording for name in sorted(groups)[MOST_SPEAKERS:] for recording in groups[name]]
        table.add_row(f"{len(groups) - MOST_SPEAKERS} more speakers", *_counts(rest, classes))
    table.add_section()
    table.add_row(f"{len(groups)} speaker{'s' if len(groups) > 1 else ''}", *_counts(index.recordings, classes))
    published = published_counts(index)
    if published:
        numbers = [str(published[name]) if name in published else "" for name in classes]
        table.add_row("published", *numbers, str(sum(published.values())), "")
    return table


def _counts(recordings: Sequence[Recording], classes: Sequence[str]) -> list[str]:
    labels = Counter(recording.label or _UNLABELLED for recording in recordings)
    return [*(str(labels[name]) for name in classes), str(len(recordings)), _hours(recordings)]


def _hours(recordings: Sequence[Recording]) -> str:
    """Hours of speech; "at least" where only decoding tells how long some are."""
    known = [seconds for recording in recordings if (seconds := seconds_of(recording)) is not None]
    if not known:
        return "?"
    return f"{'' if len(known) == len(recordings) else '>= '}{sum(known) / 3600:.2f}"


def _source_table(recordings: Sequence[Recording]) -> Table:
    """How many utterances have a source of each modality, and why others have none."""
    table = Table("modality", title="Sources", title_justify="left")
    for name in ("there", "missing"):
        table.add_column(name, justify="right")
    table.add_column("why")
    for modality in MODALITIES:
        reasons = Counter(recording.absent[modality] for recording in recordings if modality in recording.absent)
        missing = sum(reasons.values())
        why = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        table.add_row(modality, str(len(recordings) - missing), str(missing), Text(printable(why)))
    return table


def _fold_table(index: Index) -> Table:
    """Utterances of each split by class, before any is found to lack a modality."""
    labels = {recording.utterance: recording.label for recording in index.recordings}
    title = Text(printable(f"Utterances per split: {' '.join(index.class_names)}"))
    table = Table("fold", title=title, title_justify="left")
    for split in SPLITS:
        table.add_column(split)
    for fold in sorted(index.folds)[:MOST_FOLDS]:
        cells = []
        for split in SPLITS:
            counts = Counter(labels[name] for name in index.folds[fold][split])
            by_class = " ".join(str(counts[name]) for name in index.class_names)
            cells.append(f"{counts.total()}: {by_class}" if counts else "none")
        table.add_row(str(fold), *cells)
    if len(index.folds) > MOST_FOLDS:
        table.add_row(f"{len(index.folds) - MOST_FOLDS} more folds", "", "", "")
    return table
