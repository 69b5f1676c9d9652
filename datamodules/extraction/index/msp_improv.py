"""Index MSP-IMPROV in either of the two trees in use: files are found by their names, in whatever folder.

Facts come from readers of the corpus that others published: AIM3-RUC/MEmoBert (``msp/arrange_data.py``: scenario, label
order, folds), Strong-AI-Lab/emotion (label lines), and the corpus paper's Tables 3 and 4 (counts).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.errors import InputError
from datamodules.extraction.index.reading import compared, one_line, read_text, report_empty_splits, splits_of
from datamodules.extraction.recordings import Index, Recording, Source
from datamodules.storage.layouts import EMOTIONS
from datamodules.storage.problems import Problems
from datamodules.text import printable

PAIRS = range(1, 7)

CLASSES = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
"""Class of each label letter, in the label order of the published protocol."""

_OTHER_LABELS = "OX"

SCENARIOS = {
    "S": "other improvised turns",
    "T": "target sentence, improvised",
    "R": "target sentence, read",
    "P": "natural interaction between takes",
}

# By scenario: utterances that raters found angry, happy, neutral and sad.
_PUBLISHED = {
    "S": (470, 1048, 1789, 633),
    "T": (115, 136, 283, 106),
    "R": (169, 88, 241, 80),
    "P": (38, 1372, 1164, 66),
}
_LABELLED = 8438
_WITH_A_FACE = 3819

_NAME = re.compile(r"(?:MSP|UTD)-IMPROV-(S\d+[A-Z]-(?P<speaker>[FM]0(?P<pair>[1-6]))-(?P<scenario>[PRST])-[FM]{2}\d+)")
_LABEL_FILES = ("Evaluation.txt", "Evalution.txt")  # the second is how most copies spell it


def published_counts(scenarios: Iterable[str]) -> dict[str, int]:
    """Utterances of each class in ``scenarios``, by the corpus paper.

    >>> published_counts("S")
    {'angry': 470, 'happy': 1048, 'neutral': 1789, 'sad': 633}
    """
    rows = [_PUBLISHED[scenario] for scenario in scenarios]
    return {name: sum(row[number] for row in rows) for number, name in enumerate(CLASSES.values())}


@dataclass
class _Files:
    """Files below the root, by utterance."""

    sounds: dict[str, list[Path]] = field(default_factory=dict)
    videos: dict[str, list[Path]] = field(default_factory=dict)
    words: dict[str, list[Path]] = field(default_factory=dict)
    labels: list[Path] = field(default_factory=list)


def index_msp_improv(raw: Path, scenarios: str | Collection[str] = "S", unlabelled: bool = False) -> Index:
    """Index MSP-IMPROV; twelve folds that each test one speaker and validate on the partner.

    Args:
        raw: the folder that holds the label file, ``Evaluation.txt`` or ``Evalution.txt``.
        scenarios: letters of :data:`SCENARIOS`; the published protocol takes S.
        unlabelled: also take the utterances of no class of the four, without a label and in no fold.

    Raises:
        InputError: ``scenarios`` has none or another letter.
    """
    wanted = {letter.upper() for letter in scenarios if letter not in ", "}
    if not wanted or not wanted <= SCENARIOS.keys():
        meanings = ", ".join(f"{letter} ({meaning})" for letter, meaning in SCENARIOS.items())
        raise InputError(f"scenarios {printable(scenarios)}: give letters among {meanings}.")
    raw = Path(raw)
    problems = Problems()
    if not raw.is_dir():
        what = "is not a folder" if raw.exists() else "does not exist"
        problems.add(raw, what, "give the folder that holds Evaluation.txt")
        return Index("MSPIMPROV", EMOTIONS.names, (), {}, tuple(problems.found), facts={"scenarios": sorted(wanted)})
    files = _find(raw)
    labels = _read_labels(files.labels, problems) if files.labels else {}
    if not files.labels:
        problems.add(raw, f"has no {' or '.join(_LABEL_FILES)}", "copy the corpus's label file")
    taken = {
        name: letter
        for name, letter in labels.items()
        if _scenario(name) in wanted and (unlabelled or letter in CLASSES)
    }
    recordings = [_recording(name, taken[name], files, problems) for name in sorted(taken)]
    if labels:
        _report_unmatched(raw, recordings, labels, files, problems)
        if not recordings:
            what = f"no utterance of scenario {', '.join(sorted(wanted))} has a known class"
            problems.add(files.labels[0], what, "give other --scenarios")
    labelled = [recording for recording in recordings if recording.label is not None]
    folds = _folds(labelled) if labelled else {}
    report_empty_splits(raw, folds, problems)
    notes = _notes(raw, labelled, labels, wanted, problems)
    return Index(
        corpus="MSPIMPROV",
        class_names=EMOTIONS.names,
        recordings=tuple(recordings),
        folds=folds,
        notes=notes,
        problems=tuple(problems.found),
        facts={"scenarios": sorted(wanted), "unlabelled": unlabelled},
    )


def _scenario(name: str) -> str:
    match = _NAME.fullmatch(name)
    assert match is not None  # names come from _NAME
    return match["scenario"]


def _find(raw: Path) -> _Files:
    """Walk the tree once; links to folders are followed, each folder is entered once."""
    files, entered = _Files(), set()
    kinds = {".wav": files.sounds, ".avi": files.videos, ".txt": files.words}
    for place, folders, names in os.walk(raw, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path for each of 25,000 files is slow
            match = _NAME.fullmatch(stem)
            if match is not None and suffix.lower() in kinds:
                kinds[suffix.lower()].setdefault(f"MSP-IMPROV-{match[1]}", []).append(Path(place, name))
            elif name in _LABEL_FILES:
                files.labels.append(Path(place, name))
    files.labels.sort(key=lambda path: (len(path.parts), path))
    return files


def _read_labels(paths: list[Path], problems: Problems) -> dict[str, str]:
    """Label letter of each utterance: of the first label file, the heads of its blocks."""
    path = paths[0]
    text = read_text(path, problems)
    for other in paths[1:]:
        if read_text(other, problems) != text:
            problems.add(other, f"differs from {path}, which is read", "remove one of the two")
    labels: dict[str, str] = {}
    bad_names, twice, unknown = [], [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(";")]
        if len(cells) < 2 or not cells[0].lower().endswith(".avi"):
            continue
        match = _NAME.fullmatch(cells[0][: -len(".avi")])
        name, letter = f"MSP-IMPROV-{match[1]}" if match else "", cells[1].upper()
        if not match:
            bad_names.append(cells[0])
        elif name in labels:
            twice.append(name)
        else:
            labels[name] = letter
            if letter not in (*CLASSES, *_OTHER_LABELS):
                unknown.append(name)
    remedy = "correct it to UTD-IMPROV-S01A-F01-S-FM01.avi and the like"
    problems.add_if_any(path, bad_names, "a name that is none of an utterance", remedy)
    problems.add_if_any(path, twice, "labelled more than once; the first counts", "keep one block")
    known = " ".join((*CLASSES, *_OTHER_LABELS))
    remedy = f"correct it to one of {known}; it counts as unlabelled"
    shown = ", ".join(sorted({repr(labels[name]) for name in unknown})[:5])
    problems.add_if_any(path, unknown, f"label {shown} is unknown", remedy)
    if not labels:
        problems.add(path, "holds no label", "copy the corpus's label file again")
    return labels


def _recording(name: str, letter: str, files: _Files, problems: Problems) -> Recording:
    match = _NAME.fullmatch(name)
    assert match is not None  # names come from _NAME
    absent: dict[str, str] = {}
    sound, video = (found[name][0] if name in found else None for found in (files.sounds, files.videos))
    words = _transcripts(files.words.get(name, []))
    text = one_line(read_text(words[0], problems)) if words else ""
    for modality, there, reason in (
        ("audio", sound, "no sound file"),
        ("visual", video, "no video"),
        ("text", text, "no words in its transcript" if words else "no transcript"),
    ):
        if not there:
            absent[modality] = reason
    return Recording(
        utterance=name,
        sound=None if sound is None else Source(sound),
        picture=None if video is None else Source(video),
        text=text or None,
        # The emotion in the name is the one to be acted, not the one perceived.
        label=CLASSES.get(letter),
        speaker=match["speaker"],
        absent=absent,
    )


def _transcripts(paths: list[Path]) -> list[Path]:
    """Transcripts of an utterance, those by people first: a copy may also hold a recogniser's."""
    return sorted(paths, key=lambda path: "human" not in str(path).lower())


def _report_unmatched(
    raw: Path, recordings: Iterable[Recording], labels: Mapping[str, str], files: _Files, problems: Problems
) -> None:
    """Report labels without files, files without labels, and names that several files have."""
    for kind, found, reason in (("wav", files.sounds, "no sound file"), ("avi", files.videos, "no video")):
        lacking = [recording.utterance for recording in recordings if reason in recording.absent.values()]
        problems.add_if_any(raw, lacking, f"labelled, but has no {kind}", f"copy its {kind} of the corpus")
        twice = sorted(name for name, paths in found.items() if len(paths) > 1)
        where = found[twice[0]][1] if twice else raw
        problems.add_if_any(where, twice, f"has more than one {kind}; the first is taken", "remove the other")
    for what, found in (("a wav", files.sounds), ("an avi", files.videos), ("a transcript", files.words)):
        unlabelled = sorted(found.keys() - labels.keys())
        problems.add_if_any(raw, unlabelled, f"has {what}, but no label", "copy the corpus's label file again")


def _notes(
    raw: Path,
    labelled: Iterable[Recording],
    labels: Mapping[str, str],
    wanted: Iterable[str],
    problems: Problems,
) -> tuple[str, ...]:
    """Counts beside the published ones; of a whole corpus also a problem where they differ."""
    if not labels:
        return ()
    published = published_counts(sorted(wanted))
    counts = Counter(recording.label for recording in labelled if recording.label)
    note = (
        f"scenario {', '.join(sorted(wanted))}: {compared(counts, published)}; "
        f"{len(labels)} labelled utterances (published: {_LABELLED})"
    )
    # A tree of more than half of the labels is meant to be the corpus, a smaller one a part of it.
    if len(labels) > _LABELLED // 2 and (dict(counts), len(labels)) != (published, _LABELLED):
        problems.add(raw, f"counts differ from the published ones ({note})", "copy the label file and the media again")
    if set(wanted) != {"S"}:
        return (note, "published results are those of scenario S alone")
    without = sum(published.values()) - _WITH_A_FACE
    return (note, f"published results leave out the {without} utterances without a face: {_WITH_A_FACE} remain")


def _folds(labelled: Iterable[Recording]) -> dict[int, dict[str, tuple[str, ...]]]:
    """Folds 2k-1 and 2k of pair k: the man validates and the woman tests, then the other way round."""
    by_speaker: dict[str, list[str]] = {}
    for recording in labelled:
        by_speaker.setdefault(str(recording.speaker), []).append(recording.utterance)
    pairs = [(f"M0{number}", f"F0{number}") for number in PAIRS]
    held_out = [order for man, woman in pairs for order in ((man, woman), (woman, man))]
    return {fold: splits_of(by_speaker, val, test) for fold, (val, test) in enumerate(held_out, start=1)}
