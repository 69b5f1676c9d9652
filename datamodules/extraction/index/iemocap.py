"""Index IEMOCAP_full_release: sessions, dialogues, labels, words, and whose half of the picture is whose.

Facts come from readers of the corpus that others published, which agree: AIM3-RUC/MMIN and AIM3-RUC/MEmoBert (files,
folds, label order), Strong-AI-Lab/emotion (label lines), zeroQiaoba/MERTools (half of the picture, counts).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.extraction.index.reading import (
    compared,
    files_in,
    folders_in,
    one_line,
    read_text,
    report_empty_splits,
    span,
    splits_of,
    without_tags,
)
from datamodules.extraction.recordings import Index, Recording, Source
from datamodules.storage.layouts import EMOTIONS
from datamodules.storage.problems import Problems

SESSIONS = range(1, 6)

CLASSES = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"}
"""Class of each category that is used; excitement counts as happiness."""

_CATEGORIES = {*CLASSES, "fru", "fea", "sur", "dis", "oth", "xxx"}

_PUBLISHED = {"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084}
_LABELLED = 10039
_DIALOGUES = 151

_LABEL_LINE = re.compile(r"\[\s*(\S+)\s*-\s*(\S+?)\s*\]\s+(\S+)\s+(\S+)")
_WORDS_LINE = re.compile(r"(Ses\S+)\s*\[[^\]]*\]\s*:?(.*)")
_UTTERANCE = re.compile(r"(?P<dialogue>Ses0(?P<session>[1-5])(?P<wearer>[FM])_\S+)_(?P<speaker>[FM])\d+")
_NOT_LABELLED = re.compile(r"_[FM]XX\d*$")


def published_counts() -> dict[str, int]:
    """Utterances of each class that papers count: 5531 of 10039."""
    return dict(_PUBLISHED)


@dataclass(frozen=True)
class _Label:
    """One label line."""

    times: tuple[float, float] | None
    category: str


@dataclass
class _Session:
    """Contents of the files of one session, by utterance, videos by dialogue."""

    folder: Path
    labels: dict[str, _Label] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    sounds: dict[str, Path] = field(default_factory=dict)
    videos: dict[str, Path] = field(default_factory=dict)
    dialogues: int = 0

    @property
    def number(self) -> str:
        return self.folder.name[-1]


def index_iemocap(raw: Path, keep_tags: bool = False, unlabelled: bool = False) -> Index:
    """Index ``IEMOCAP_full_release``; ten folds that each test one speaker and validate on the partner.

    Args:
        raw: the folder of ``Session1`` to ``Session5``.
        keep_tags: keep ``[LAUGHTER]`` and the like in the words; by default they are removed.
        unlabelled: also take the utterances of other categories, without a label and in no fold.
    """
    raw = Path(raw)
    problems = Problems()
    sessions = [_read_session(folder, problems) for folder in _session_folders(raw, problems)]
    recordings = []
    for session in sessions:
        recordings += _recordings(session, keep_tags, unlabelled, problems)
    recordings.sort(key=lambda recording: recording.utterance)
    labelled = [recording for recording in recordings if recording.label is not None]
    counts = Counter(recording.label for recording in labelled if recording.label)
    lines = sum(len(session.labels) for session in sessions)
    note = f"{compared(counts, _PUBLISHED)}; of {lines} labelled utterances (published: {_LABELLED})"
    dialogues = sum(session.dialogues for session in sessions)
    # A tree of more than half of the dialogues is meant to be the release, a smaller one a part of it.
    if dialogues > _DIALOGUES // 2 and (dict(counts), lines) != (_PUBLISHED, _LABELLED):
        problems.add(
            raw, f"counts differ from the published ones ({note})", "copy the label files of the release again"
        )
    if not recordings and not problems.found:
        problems.add(raw, "holds no utterance of a known class", "give the folder IEMOCAP_full_release")
    folds = _folds(labelled) if labelled else {}
    report_empty_splits(raw, folds, problems)
    return Index(
        corpus="IEMOCAP",
        class_names=EMOTIONS.names,
        recordings=tuple(recordings),
        folds=folds,
        problems=tuple(problems.found),
        notes=(note, f"{dialogues} dialogues of {_DIALOGUES}") if sessions else (),
        facts={"tags": "kept" if keep_tags else "removed", "unlabelled": unlabelled},
    )


def _session_folders(raw: Path, problems: Problems) -> list[Path]:
    folders = [raw / f"Session{number}" for number in SESSIONS]
    there = [folder for folder in folders if folder.is_dir()]
    if not there:
        what = "has no folder Session1..5" if raw.is_dir() else "is not a folder"
        below = raw / "IEMOCAP_full_release"
        remedy = f"give {below}" if below.is_dir() else "give the folder IEMOCAP_full_release"
        problems.add(raw, what if raw.exists() else "does not exist", remedy)
        return []
    for folder in folders:
        if folder not in there:
            problems.add(folder, "does not exist", "copy this session; without it, its two folds have nothing to test")
    return there


def _read_session(folder: Path, problems: Problems) -> _Session:
    session = _Session(folder)
    labels, words = folder / "dialog" / "EmoEvaluation", folder / "dialog" / "transcriptions"
    videos, sounds = folder / "dialog" / "avi" / "DivX", folder / "sentences" / "wav"
    for place, content in ((labels, "labels"), (words, "transcripts"), (videos, "videos"), (sounds, "sound files")):
        if not place.is_dir():
            problems.add(place, f"does not exist, so this session has no {content}", "copy this folder of the release")
    for path in files_in(labels, ".txt", "Ses").values():
        session.dialogues += 1
        _read_labels(path, session, problems)
    if labels.is_dir() and not session.labels:
        problems.add(labels, "holds no label", "copy the files Ses*.txt of the release")
    for path in files_in(words, ".txt", "Ses").values():
        for line in read_text(path, problems).splitlines():
            match = _WORDS_LINE.match(line.strip())
            if match is not None:
                session.words.setdefault(match[1], one_line(match[2]))
    session.videos = files_in(videos, ".avi", "Ses")
    for dialogue in folders_in(sounds):
        session.sounds |= files_in(dialogue, ".wav", "Ses")
    return session


def _read_labels(path: Path, session: _Session, problems: Problems) -> None:
    """Read the lines that begin with ``[``; ratings and comments are not needed."""
    twice, elsewhere, bad_times = [], [], []
    for line in read_text(path, problems).splitlines():
        if not line.startswith("["):
            continue
        match = _LABEL_LINE.match(line)
        name = match and _UTTERANCE.fullmatch(match[3])
        if match is None or name is None:
            what = f"a label line that is not [start - end], utterance, category: {line!r}"
            problems.add(path, what, "copy this file of the release again")
        elif match[3] in session.labels:
            twice.append(match[3])
        elif name["session"] != session.number:
            elsewhere.append(match[3])
        else:
            times = span(match[1], match[2])
            if times is None:
                bad_times.append(match[3])
            session.labels[match[3]] = _Label(times, match[4].lower())
    problems.add_if_any(path, twice, "labelled more than once; the first counts", "keep one label line")
    problems.add_if_any(path, elsewhere, "of another session", "move this file to its session's folder")
    problems.add_if_any(path, bad_times, "its times are none, so it cannot be cut from the video", "correct the times")


def _recordings(session: _Session, keep_tags: bool, unlabelled: bool, problems: Problems) -> list[Recording]:
    """Utterances of a session, those of the four classes or all; problems of what does not fit together."""
    labels = session.labels
    unknown: dict[str, list[str]] = {}
    for name, label in labels.items():
        if label.category not in _CATEGORIES:
            unknown.setdefault(label.category, []).append(name)
    for category, names in unknown.items():
        where = session.folder / "dialog" / "EmoEvaluation"
        remedy = f"correct it to one of {' '.join(sorted(_CATEGORIES))}; it counts as unlabelled"
        problems.add(where, f"label {category!r} is unknown", remedy, names)
    taken = [name for name, label in labels.items() if unlabelled or label.category in CLASSES]
    recordings = [_recording(name, session, keep_tags) for name in taken]
    if labels:
        _report_unmatched(session, recordings, problems)
    return recordings


def _recording(name: str, session: _Session, keep_tags: bool) -> Recording:
    match = _UTTERANCE.fullmatch(name)
    assert match is not None  # _read_labels takes no other name
    label, absent = session.labels[name], {}
    sound = session.sounds.get(name)
    if sound is None:
        absent["audio"] = "no sound file"
    video, times = session.videos.get(match["dialogue"]), label.times
    if video is None or times is None:
        absent["visual"] = "no video" if video is None else "no times"
    words = session.words.get(name)
    text = words if keep_tags or words is None else without_tags(words)
    if not text:
        absent["text"] = "only tags" if words else "no transcript"
    return Recording(
        utterance=name,
        sound=None if sound is None else Source(sound),
        picture=None if video is None or times is None else Source(video, *times),
        text=text or None,
        # Who wears the markers sits on the left.
        half="left" if match["speaker"] == match["wearer"] else "right",
        label=CLASSES.get(label.category),
        speaker=f"Ses0{match['session']}{match['speaker']}",
        absent=absent,
    )


def _report_unmatched(session: _Session, recordings: Iterable[Recording], problems: Problems) -> None:
    """Report labels without files, and files without labels."""
    sounds, videos = session.folder / "sentences" / "wav", session.folder / "dialog" / "avi" / "DivX"
    words = session.folder / "dialog" / "transcriptions"
    lacks = {
        reason: [recording.utterance for recording in recordings if reason in recording.absent.values()]
        for reason in ("no sound file", "no video")
    }
    if sounds.is_dir():
        problems.add_if_any(sounds, lacks["no sound file"], "labelled, but has no wav", "copy its wav of the release")
    if videos.is_dir():
        problems.add_if_any(videos, lacks["no video"], "its dialogue has no avi", "copy the avi of the release")
    unlabelled = sorted(session.sounds.keys() - session.labels.keys())
    problems.add_if_any(sounds, unlabelled, "has a wav, but no label", "copy its dialogue's label file of the release")
    unlabelled = sorted(
        name for name in session.words.keys() - session.labels.keys() if _NOT_LABELLED.search(name) is None
    )
    problems.add_if_any(words, unlabelled, "has words, but no label", "copy its dialogue's label file of the release")


def _folds(labelled: Iterable[Recording]) -> dict[int, dict[str, tuple[str, ...]]]:
    """Folds 2k-1 and 2k of session k: the man validates and the woman tests, then the other way round."""
    by_speaker: dict[str, list[str]] = {}
    for recording in labelled:
        by_speaker.setdefault(str(recording.speaker), []).append(recording.utterance)
    pairs = [(f"Ses0{number}M", f"Ses0{number}F") for number in SESSIONS]
    held_out = [order for man, woman in pairs for order in ((man, woman), (woman, man))]
    return {fold: splits_of(by_speaker, val, test) for fold, (val, test) in enumerate(held_out, start=1)}
