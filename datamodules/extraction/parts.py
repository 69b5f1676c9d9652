"""Parts: what was extracted of one modality of one group, kept until the corpus is assembled.

A part is there whole or not at all. It is made again if its recipe or its sources have changed, or if it is damaged.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.extraction.extractor import Extracted, FloatArray
from datamodules.extraction.provenance import digest, library_version
from datamodules.files import atomic_path

FOLDER = ".extract"
"""Folder of the parts, in the folder of the corpus."""

_FORMAT = 1

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
"""What NumPy and zipfile raise for a file that is damaged or something else."""


@dataclass(frozen=True)
class Finding:
    """What was found of one modality of one utterance.

    Attributes:
        utterance: its id.
        length: frames; 0 if it is absent.
        why: it is absent; None if it is there.
        seconds: of speech.
        remarks: of the utterance.
    """

    utterance: str
    length: int
    why: str | None
    seconds: float
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One modality of one group.

    Attributes:
        findings: sorted by utterance.
        frames: float32 [sum of lengths, width], in the order of the findings.
    """

    findings: tuple[Finding, ...]
    frames: FloatArray


def recipe_digest(name: str, recipe: Any, detector: Any) -> str:
    """Digest of everything but the sources that features depend on, in sixteen letters.

    Args:
        name: of the feature file.
        recipe: what the extractor says of itself, plain data.
        detector: what faces depend on, its name included, plain data; None without one.
    """
    return digest([_FORMAT, library_version(), name, recipe, detector])[:16]


def part_path(out: Path, name: str, recipe: str, group: str) -> Path:
    """File of a part."""
    return out / FOLDER / f"{name}-{recipe}" / f"{group}.npz"


def write_part(path: Path, sources: str, modality: str, extracted: Sequence[Extracted]) -> None:
    """Write a part; it is never left half-written.

    Args:
        path: the file; its folder is made.
        sources: digest of what it depends on.
        modality: audio, visual or text.
        extracted: all utterances of the group.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    ordered = sorted(extracted, key=lambda each: each.utterance)
    findings = [_finding(each, modality) for each in ordered]
    present = [each.features[modality] for each in ordered if modality in each.features]
    frames = np.concatenate(present) if present else np.zeros((0, 0), np.float32)
    table = [[each.utterance, each.length, each.why, each.seconds, each.remarks] for each in findings]
    about = json.dumps({"sources": sources, "findings": table})
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, about=np.frombuffer(about.encode("ascii"), np.uint8), frames=frames.astype(np.float32))


def read_part(path: Path, sources: str, width: int) -> Part | None:
    """Read a part; zip's checksums are compared.

    Args:
        path: the file.
        sources: digest of what it must depend on.
        width: values of a frame.

    Returns:
        None if it is not there, of other sources, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes().decode("ascii"))
            if about["sources"] != sources:
                return None
            findings = tuple(_checked(*row) for row in about["findings"])
            frames = file["frames"]
    except (*_UNREADABLE, RecursionError):
        return None
    total = sum(finding.length for finding in findings)
    whole = frames.dtype == np.float32 and frames.ndim == 2 and len(frames) == total
    return Part(findings, frames) if whole and (total == 0 or frames.shape[1] == width) else None


def _finding(extracted: Extracted, modality: str) -> Finding:
    frames = extracted.features.get(modality)
    why = None if frames is not None else extracted.absent.get(modality, "nothing was found")
    length = 0 if frames is None else len(frames)
    return Finding(extracted.utterance, length, why, float(extracted.seconds), tuple(extracted.remarks))


def _checked(utterance: Any, length: Any, why: Any, seconds: Any, remarks: Any) -> Finding:
    if not (isinstance(utterance, str) and type(length) is int and isinstance(seconds, float)):
        raise ValueError("no finding")
    if (why is None) != (length > 0) or length < 0 or not all(isinstance(remark, str) for remark in remarks):
        raise ValueError("no finding")
    return Finding(utterance, length, why, seconds, tuple(remarks))


def merged(findings: Sequence[Finding]) -> Finding:
    """The findings of all modalities of one utterance: its longest time, and all remarks in order."""
    remarks = dict.fromkeys(remark for finding in findings for remark in finding.remarks)
    longest = max(finding.seconds for finding in findings)
    return replace(findings[0], seconds=longest, remarks=tuple(sorted(remarks)))
