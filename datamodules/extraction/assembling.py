"""Parts in, feature files out: the same bytes for the same parts, in whatever order they were made."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.extractor import FloatArray
from datamodules.extraction.groups import Group, Sizes, sources_of
from datamodules.extraction.parts import Finding, Part, merged, read_part
from datamodules.extraction.provenance import attach, encoded
from datamodules.extraction.running import path_of
from datamodules.extraction.worker import Feature
from datamodules.files import write_text
from datamodules.storage.layouts import FOLDERS
from datamodules.storage.writing import write_frames
from datamodules.text import csv_cell, from_csv_cell, printable

ABSENT = "absent.csv"
_COLUMNS = ("id", "modality", "features", "why")


@dataclass(frozen=True)
class Assembled:
    """What was found of all utterances.

    Attributes:
        findings: by modality and id.
        files: bytes of each feature file, by its path.
    """

    findings: Mapping[str, Mapping[str, Finding]]
    files: Mapping[Path, int]

    @property
    def utterances(self) -> dict[str, Finding]:
        """Seconds and remarks of each utterance, by id."""
        by_id: dict[str, list[Finding]] = {}
        for findings in self.findings.values():
            for name, finding in findings.items():
                by_id.setdefault(name, []).append(finding)
        return {name: merged(by_id[name]) for name in sorted(by_id)}

    def present(self, modality: str) -> list[str]:
        """Ids that have frames of a modality, sorted."""
        return sorted(name for name, finding in self.findings[modality].items() if finding.length)


def feature_path(out: Path, modality: str, name: str) -> Path:
    """File of features in a corpus's folder."""
    return out / FOLDERS[MODALITIES.index(modality)] / f"{name}.h5"


def read_parts(out: Path, groups: Sequence[Group], features: Mapping[str, Feature], sizes: Sizes) -> Parts:
    """Look up the parts of all groups.

    Raises:
        InputError: some are missing; it names how many.
    """
    parts = Parts(out, groups, features, sizes)
    missing = [group for group in groups if any(parts.read(group, name) is None for name in features)]
    if missing:
        raise InputError(
            f"{printable(out)}: parts of {len(missing)} of {len(groups)} groups are missing; run without --shard."
        )
    return parts


class Parts:
    """The parts of a corpus.

    Args:
        out: folder of the corpus.
        groups: all of it.
        features: what is made of each modality.
        sizes: of the sources.
    """

    def __init__(self, out: Path, groups: Sequence[Group], features: Mapping[str, Feature], sizes: Sizes) -> None:
        self.groups, self.features = groups, features
        self._out, self._sizes = out, sizes

    def read(self, group: Group, modality: str) -> Part | None:
        """One part; None if it is not there."""
        feature = self.features[modality]
        path = path_of(self._out, feature, group)
        return read_part(path, sources_of(group, modality, self._sizes), feature.width)

    def findings(self, modality: str) -> dict[str, Finding]:
        """Findings of a modality, by id.

        Raises:
            InputError: a part has been removed since it was looked up.
        """
        return {finding.utterance: finding for part in self._all(modality) for finding in part.findings}

    def frames(self, modality: str) -> Iterator[tuple[str, FloatArray]]:
        """Frames [T, width] of each utterance that has some, one part in memory at a time.

        Raises:
            InputError: a part has been removed since it was looked up.
        """
        for part in self._all(modality):
            first = 0
            for finding in part.findings:
                if finding.length:
                    yield finding.utterance, part.frames[first : first + finding.length]
                    first += finding.length

    def _all(self, modality: str) -> Iterator[Part]:
        for group in self.groups:
            part = self.read(group, modality)
            if part is None:
                raise InputError(f"{printable(self._out)}: part {group.name} is gone; the same command makes it again.")
            yield part


def assemble(out: Path, parts: Parts, provenance: Mapping[str, Mapping[str, Any]]) -> Assembled:
    """Write the feature files and ``absent.csv``; each is whole or as it was.

    Args:
        out: folder of the corpus.
        parts: of all utterances.
        provenance: of each modality's file.

    Raises:
        InputError: a part is gone.
        OSError: the folder cannot be written or the disk is full; parts are kept.
    """
    findings = {modality: parts.findings(modality) for modality in parts.features}
    files: dict[Path, int] = {}
    for modality, feature in parts.features.items():
        lengths = {name: findings[modality][name].length for name in sorted(findings[modality])}
        path = feature_path(out, modality, feature.name)
        shapes = {name: length for name, length in lengths.items() if length}
        if shapes:
            made = encoded(provenance[modality])
            write_frames(path, shapes, feature.width, parts.frames(modality), partial(attach, text=made))
            files[path] = path.stat().st_size
        else:
            path.unlink(missing_ok=True)  # of an earlier recipe: nothing is left of this one
    _write_absent(out, findings, parts.features)
    return Assembled(findings, files)


def _write_absent(out: Path, findings: Mapping[str, Mapping[str, Finding]], features: Mapping[str, Feature]) -> None:
    """Write ``absent.csv``; lines of other feature files that are there are kept."""
    made = {(modality, feature.name) for modality, feature in features.items()}
    rows = [row for row in _read_absent(out / ABSENT) if (row[1], row[2]) not in made and _is_there(out, *row[1:3])]
    for modality, found in findings.items():
        name = features[modality].name
        rows += [(each.utterance, modality, name, each.why) for each in found.values() if each.why is not None]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([csv_cell(cell) for cell in row] for row in sorted(rows))
    write_text(out / ABSENT, text.getvalue())


def _is_there(out: Path, modality: str, name: str) -> bool:
    return modality in MODALITIES and feature_path(out, modality, name).is_file()


def _read_absent(path: Path) -> list[tuple[str, str, str, str]]:
    """Rows of an earlier run; none of a file that is not there or that somebody has changed."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            heading, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error):
        return []
    if tuple(heading) != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        return []
    cells = [[from_csv_cell(cell) for cell in row] for row in rows]
    return [(row[0], row[1], row[2], row[3]) for row in cells]
