"""What an extraction made, as tables."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from datamodules.extraction.assembling import Assembled, feature_path
from datamodules.extraction.recordings import Index
from datamodules.extraction.worker import Feature
from datamodules.storage.description import read_description
from datamodules.storage.problems import Problem
from datamodules.text import printable, readable_time


@dataclass(frozen=True)
class Finished:
    """A corpus that was assembled.

    Attributes:
        out: its folder.
        index: of the recordings.
        features: what was made, by modality.
        assembled: what was found.
        seconds: of speech that this run extracted.
        elapsed: seconds that it took.
    """

    out: Path
    index: Index
    features: Mapping[str, Feature]
    assembled: Assembled
    seconds: float
    elapsed: float


def summary(finished: Finished) -> Iterator[RenderableType]:
    """Render what was made, what is absent and why, and what was remarked."""
    yield _files(finished)
    if (absent := _absent(finished.assembled)).row_count:
        yield absent
    if remarks := _remarks(finished.assembled):
        yield Text(f"used, but: {remarks}")
    speed = f", {finished.seconds / finished.elapsed:.1f}x real time" if finished.seconds and finished.elapsed else ""
    spoken = sum(finding.seconds for finding in finished.assembled.utterances.values())
    speech = f", {readable_time(spoken)} of speech" if spoken else ""
    took = f"this run took {readable_time(finished.elapsed)}{speed}"
    yield Text(f"{len(finished.index.recordings)} utterances{speech}; {took}")


def _files(finished: Finished) -> Table:
    table = Table("modality", "file", title=Text(f"Features in {printable(finished.out)}"), title_justify="left")
    for heading in ("present", "absent", "dim", "size"):
        table.add_column(heading, justify="right")
    for modality, feature in finished.features.items():
        path = feature_path(finished.out, modality, feature.name)
        there, size = len(finished.assembled.present(modality)), finished.assembled.files.get(path)
        gone = len(finished.assembled.findings[modality]) - there
        shown = Text(f"{path.parent.name}/{printable(path.name)}" if size else "-")
        table.add_row(modality, shown, str(there), str(gone), str(feature.width), f"{(size or 0) / 1e6:.1f} MB")
    return table


def _absent(assembled: Assembled) -> Table:
    table = Table("modality", "absent because", title="Absent", title_justify="left")
    table.add_column("utterances", justify="right")
    for modality, findings in assembled.findings.items():
        # Numbers in a reason, as those of frames, would make a row of each utterance.
        reasons = Counter(re.sub(r"\d+", "N", each.why) for each in findings.values() if each.why is not None)
        for why, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            table.add_row(modality, Text(printable(why)), str(count))
    return table


def _remarks(assembled: Assembled) -> str:
    counts = Counter(remark for finding in assembled.utterances.values() for remark in finding.remarks)
    return ", ".join(f"{printable(remark)} {counts[remark]}" for remark in sorted(counts))


def next_steps(out: Path, index: Index, features: Mapping[str, Feature], problems: tuple[Problem, ...] | None) -> Text:
    """Say what is wrong with the target files, and what to do next.

    Args:
        out: folder of the corpus.
        index: of the recordings.
        features: that were made, by modality; those that are not the corpus's usual ones are named.
        problems: of the target files; None if none were written.
    """
    options = f"--data {index.corpus} --data.root {printable(shlex.quote(str(out)))}"
    described = read_description(out)
    usual = {} if described is None else described.feature_names
    for modality, feature in features.items():
        if usual.get(modality) != feature.name:
            options += f" --data.{modality}_features {printable(shlex.quote(feature.name))}"
    if not index.folds:
        return Text(f"note: nothing is labelled, so there are no folds; next: predict {options} with a checkpoint")
    if problems is None:
        what = "no labelled utterance has all three modalities, so no target files are written"
        return Text(f"note: {what}; extract the others, or give --incomplete keep")
    lines = [*(f"- {problem}" for problem in problems), f"next: check {options}, then fit --model IFMMIN {options}"]
    return Text("\n".join(lines))
