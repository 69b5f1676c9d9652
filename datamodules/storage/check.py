"""Check a feature corpus before use: everything that is wrong, and its contents."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.classes import ChosenClasses
from datamodules.conditions import COMPLETE, CONDITIONS, MODALITIES
from datamodules.storage.features import FeatureFile, open_features, report_bad_frames
from datamodules.storage.ids import key_of
from datamodules.storage.layouts import Layout, speaker_of
from datamodules.storage.odd import OddFrames
from datamodules.storage.problems import Problems, root_exists
from datamodules.storage.statistics import STATISTICS_TOLERANCE, Moments, difference, shipped_statistics
from datamodules.storage.targets import Targets, left_out_by_choice, read_targets, shared_speakers, target_files
from datamodules.storage.turns import read_turns, turns_path


@dataclass(frozen=True)
class ModalitySummary:
    """Contents of one feature file; lengths in frames, of the utterances that can be read.

    Attributes:
        file: its path.
        utterances: their number.
        dim: the width of a frame.
        shortest: the least number of frames of an utterance.
        median: the median of that number.
        longest: the greatest.
    """

    file: str
    utterances: int
    dim: int
    shortest: int
    median: float
    longest: int


@dataclass
class FoldSummary:
    """One fold.

    Attributes:
        counts: by split, utterances by class; of values their number, mean, min and max.
        statistics_difference: how far the shipped audio statistics are from those of the train
            utterances, in units of our std; None if none are shipped, or some of these are left out.
    """

    counts: dict[str, dict[str, float]] = field(default_factory=dict)
    statistics_difference: float | None = None

    @property
    def statistics_agree(self) -> bool | None:
        """Whether the difference is within :data:`STATISTICS_TOLERANCE`; None if nothing is shipped."""
        return None if self.statistics_difference is None else self.statistics_difference <= STATISTICS_TOLERANCE


@dataclass(frozen=True)
class TurnSummary:
    """What is known of speakers' turns; lengths in turns, of the labelled utterances, or of all if none is.

    Attributes:
        source: ``ids`` or ``turns.csv``.
        chains: how often somebody speaks in a dialogue.
        median: the median number of that person's turns in it.
        longest: the greatest.
    """

    source: str
    chains: int
    median: float
    longest: int


@dataclass
class CorpusSummary:
    """Contents of a corpus.

    Attributes:
        utterances: number of different ids in the feature files.
        modalities: contents of each file, by modality, without those that cannot be opened.
        folds: each fold, by its number.
        statistics_file: the file of shipped audio statistics, or None.
        available: labelled utterances by what they have, as conditions: ``{"avt": 412, "at": 60}``; ``""`` counts those
            that have nothing. Without those that have everything if there are no others.
        unused: ids with features that are in no fold.
        speakers: how many different speakers the ids name.
        unknown_speakers: ids that do not name their speaker.
        turns: whose turn is when in which dialogue, None if nothing says it.
    """

    utterances: int = 0
    modalities: dict[str, ModalitySummary] = field(default_factory=dict)
    folds: dict[int, FoldSummary] = field(default_factory=dict)
    statistics_file: str | None = None
    available: dict[str, int] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    speakers: int = 0
    unknown_speakers: list[str] = field(default_factory=list)
    turns: TurnSummary | None = None


@dataclass
class CheckReport:
    """Result of :func:`check_corpus`.

    Attributes:
        root: the corpus's folder.
        corpus: the layout's name.
        class_names: in label order.
        problems: everything that is wrong, with all the utterances it concerns.
        notes: what is odd, though the corpus can be used.
        summary: contents of the corpus.
    """

    root: Path
    corpus: str
    class_names: tuple[str, ...]
    problems: Problems = field(default_factory=Problems)
    notes: Problems = field(default_factory=Problems)
    summary: CorpusSummary = field(default_factory=CorpusSummary)

    @property
    def lines(self) -> list[str]:
        """One line for each thing that is wrong; empty for a corpus that can be used."""
        return [str(problem) for problem in self.problems.found]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        facts = asdict(self.summary)
        for number, fold in self.summary.folds.items():
            facts["folds"][number]["statistics_agree"] = fold.statistics_agree
        return {
            "root": str(self.root),
            "corpus": self.corpus,
            "problems": _plain(self.problems),
            "notes": _plain(self.notes),
            "facts": facts,
        }


def _plain(problems: Problems) -> list[dict[str, Any]]:
    return [{"message": str(problem), "utterances": list(problem.utterances)} for problem in problems.found]


def check_corpus(root: Path, layout: Layout, folds: Sequence[int] | None = None) -> CheckReport:
    """Check a whole corpus without stopping at the first problem.

    Frames are read one utterance at a time, so that memory does not grow with the corpus.

    Args:
        root: the folder of A, V, L and target; it need not exist.
        layout: what the corpus should look like.
        folds: those to check; None: all of the layout.
    """
    root = Path(root)
    report = CheckReport(root, layout.name, layout.class_names)
    if not root_exists(root, report.problems):
        return report
    targets = _check_folds(report, layout, folds or range(1, layout.folds + 1)) if layout.folds else {}
    labelled = {
        key_of(name, layout.match_ids): name
        for splits in targets.values()
        for split in splits.values()
        for name in split.utterances
    }
    stored: dict[str, str] = {}
    has: dict[str, str] = dict.fromkeys(labelled, "")
    for modality, name in enumerate(MODALITIES):
        file = open_features(
            layout.feature_path(root, modality),
            report.problems,
            layout.match_ids,
            layout.zero_frames_absent,
            layout.ids_have_folders,
        )
        if file is None:
            continue
        with file:
            # Shipped statistics are of all utterances of a fold.
            whole = [fold for fold, splits in targets.items() if not left_out_by_choice(splits)]
            moments = {fold: Moments.none(0) for fold in whole} if name == "audio" else {}
            report.summary.modalities[name], there = _check_features(report, file, layout, targets, moments)
            absent = sorted(name for name in labelled.values() if not file.holds(name))
            if layout.incomplete == "refuse":
                remedy = file.remedy_for(sorted(labelled.values()), absent)
            elif len(absent) < len(labelled):
                absent, remedy = [], ""  # gaps, which are counted below
            else:
                remedy = file.remedy_for_strangers(absent)
        stored |= {key_of(name, layout.match_ids): name for name in file.names}
        for utterance in there:
            if (key := key_of(utterance, layout.match_ids)) in has:
                has[key] += name[0]
        report.problems.add_if_any(file.path, absent, "in the target files, but not in this file", remedy)
        if moments:
            _check_statistics(report, layout, moments)
    _count_available(report, layout, targets, has)
    _note_lacking_classes(report, layout)
    speakers = {name: speaker_of(name, layout) for name in sorted((stored | labelled).values())}
    report.summary.utterances = len(stored)
    report.summary.unused = sorted(name for key, name in stored.items() if key not in labelled)
    report.summary.speakers = len(set(speakers.values()) - {None})
    report.summary.unknown_speakers = [name for name, speaker in speakers.items() if speaker is None]
    _find_turns(report, layout, sorted((labelled or stored).values()), sorted(stored.values()))
    return report


def _find_turns(report: CheckReport, layout: Layout, utterances: Sequence[str], stored: Sequence[str]) -> None:
    """Count chains; what is wrong with a table of turns is a problem, what ids leave open a note."""
    by_file = os.path.lexists(turns_path(report.root))
    turns = read_turns(report.root, layout, utterances, stored, report.problems if by_file else report.notes)
    if turns is not None and turns.known:
        lengths = list(Counter(turn.chain for turn in turns.known.values()).values())
        report.summary.turns = TurnSummary(turns.source, len(lengths), float(np.median(lengths)), max(lengths))


def _check_folds(report: CheckReport, layout: Layout, wanted: Sequence[int]) -> dict[int, dict[str, Targets]]:
    """Read the targets of the folds that are wanted; the splits that can be used."""
    problems = report.problems
    if not (report.root / "target").is_dir():
        what = f"does not exist, so there are no labels for folds {wanted[0]}..{wanted[-1]}"
        problems.add(report.root / "target", what, "copy the corpus's target folder")
        return {}
    folds: dict[int, dict[str, Targets]] = {}
    first_with: dict[tuple[bytes, ...], int] = {}
    for fold in wanted:
        folder = layout.target_folder(report.root, fold)
        targets = folds[fold] = read_targets(report.root, layout, fold, problems)
        dropped = sum(split.dropped for split in targets.values())
        if dropped:
            report.notes.add(folder, f"{dropped} utterances have no known label", "they are left out")
        if chosen := left_out_by_choice(targets):
            report.notes.add(folder, chosen, "--data.classes chooses")
        report.summary.folds[fold] = FoldSummary({split: _label_summary(targets[split], layout) for split in targets})
        _compare_counts(report, layout, fold)
        _check_speakers(report, folder, layout, targets)
        contents = target_files(folder)
        if contents is not None and first_with.setdefault(contents, fold) != fold:
            what = f"its target files are a copy of fold {first_with[contents]}'s"
            problems.add(folder, what, "take these files from another copy, or leave this fold out")
    return folds


def _check_speakers(report: CheckReport, folder: Path, layout: Layout, targets: Mapping[str, Targets]) -> None:
    """Report speakers who are tested and in another split too, and note those who train and validate."""
    for first, second in combinations(targets, 2):
        shared = sorted(shared_speakers(targets, layout, first, second))
        if not shared:
            continue
        what = f"speaker {', '.join(shared)} is in both {first} and {second}"
        if second != "test":
            report.notes.add(folder, what, "the epoch is selected on known speakers")
        elif layout.speakers_shared:
            report.notes.add(
                folder, what, "that is how this corpus was split; the score tells little about new speakers"
            )
        else:
            report.problems.add(folder, what, "split by speaker, or the score tells little about new speakers")


def _count_available(
    report: CheckReport, layout: Layout, folds: Mapping[int, Mapping[str, Targets]], has: Mapping[str, str]
) -> None:
    """Count labelled utterances by what they have; with ``incomplete`` take those that are left out off the folds.

    Args:
        report: gets the numbers.
        layout: what becomes of incomplete utterances.
        folds: targets by fold and split.
        has: the modalities of each labelled utterance, by key, as a condition.
    """
    counts = Counter(has.values())
    if not counts.keys() - {COMPLETE}:
        return
    report.summary.available = {name: counts[name] for name in ("", *CONDITIONS) if counts[name]}
    if layout.incomplete == "refuse":
        return
    kept = {key for key, name in has.items() if (name == COMPLETE if layout.incomplete == "drop" else name)}
    left = len(has) - len(kept)
    what = f"{len(has) - counts[COMPLETE]} of {len(has)} labelled utterances lack a modality"
    report.notes.add(report.root, what, f"{left} are left out, the others kept" if left else "they are kept")
    for number, splits in folds.items():
        for split, targets in splits.items():
            names = {name for name in targets.utterances if key_of(name, layout.match_ids) in kept}
            remaining = targets.only(names)
            if not names:
                remedy = "extract what is missing, or split otherwise"
                report.problems.add(layout.target_folder(report.root, number), f"nothing is left of {split}", remedy)
            report.summary.folds[number].counts[split] = _label_summary(remaining, layout) if names else {}
        if left:  # they were among those that were measured
            report.summary.folds[number].statistics_difference = None


def _note_lacking_classes(report: CheckReport, layout: Layout) -> None:
    """Note the classes that a split of a fold has no utterance of."""
    for fold, facts in report.summary.folds.items():
        for split, counts in facts.counts.items():
            lacking = [name for name in layout.class_names if counts and not counts[name]]
            if lacking:
                what = f"no utterance of {split} is {' or '.join(lacking)}"
                remedy = "no model can learn it" if split == "train" else "this split says nothing about it"
                report.notes.add(layout.target_folder(report.root, fold), what, remedy)


def _label_summary(targets: Targets, layout: Layout) -> dict[str, float]:
    """Utterances by class; for values their number, mean and range."""
    labels = targets.labels
    if layout.class_names:
        counts = np.bincount(labels.astype(np.int64), minlength=len(layout.class_names)).tolist()
        return dict(zip(layout.class_names, counts, strict=True))
    mean, low, high = float(labels.mean()), float(labels.min()), float(labels.max())
    return {"utterances": len(labels), "mean": mean, "min": low, "max": high}


def _compare_counts(report: CheckReport, layout: Layout, fold: int) -> None:
    """Note where target files are not those that the corpus's description counted."""
    if layout.description is None:
        return
    for split, said in layout.description.counts.get(fold, {}).items():
        if isinstance(layout.labels, ChosenClasses):
            said = layout.labels.merged(said)
        found = report.summary.folds[fold].counts.get(split, {})
        if different := [name for name, number in said.items() if found.get(name, 0) != number]:
            what = f"{found.get(different[0], 0):g} {split} utterances of {different[0]}, where corpus.json counted "
            what += f"{said[different[0]]}"
            remedy = "they were changed since; extract or write them again, or leave counts out"
            report.notes.add(layout.target_folder(report.root, fold), what, remedy)


def _check_features(
    report: CheckReport,
    file: FeatureFile,
    layout: Layout,
    folds: Mapping[int, Mapping[str, Targets]],
    moments: dict[int, Moments],
) -> tuple[ModalitySummary, list[str]]:
    """Read a file utterance by utterance; fill ``moments`` with each fold's train frames.

    Returns:
        its contents, and the ids that have frames.
    """
    entries = file.entries(file.names, layout.incomplete == "refuse", report.problems)
    if layout.zero_frames_absent:
        entries = file.without_zero_frames(file.names, entries)
    if not file.names:
        report.problems.add(file.path, "holds no utterance", "extract these features")
    train_folds: dict[str, list[int]] = {}
    for fold in moments:
        moments[fold] = Moments.none(entries.width)
        for utterance in folds[fold]["train"].utterances if "train" in folds[fold] else []:
            train_folds.setdefault(key_of(utterance, layout.match_ids), []).append(fold)
    odd = OddFrames()
    unreadable, not_finite = [], []
    for utterance, length in zip(file.names, entries.lengths.tolist(), strict=True):
        frames = np.empty((length, entries.width), dtype=np.float32)
        if not length:
            continue
        if not file.read_into(utterance, frames):
            unreadable.append(utterance)
        elif not np.isfinite(frames).all():
            not_finite.append(utterance)
        else:
            odd.add(utterance, frames)
            among = train_folds.get(key_of(utterance, layout.match_ids), [])
            added = Moments.of(frames) if among else Moments.none(entries.width)
            for fold in among:
                moments[fold] = moments[fold].with_more(added)
    odd.report(file.path, report.notes)
    report_bad_frames(file.path, unreadable, not_finite, report.problems)
    lengths = entries.lengths[entries.lengths > 0]
    shortest, median, longest = np.quantile(lengths, (0, 0.5, 1)).tolist() if len(lengths) else (0, 0, 0)
    summary = ModalitySummary(str(file.path), len(file.names), entries.width, int(shortest), median, int(longest))
    return summary, [name for name, length in zip(file.names, entries.lengths.tolist(), strict=True) if length]


def _check_statistics(report: CheckReport, layout: Layout, moments: Mapping[int, Moments]) -> None:
    """Compare shipped audio statistics with those of the train utterances of each fold."""
    path = layout.statistics_path(report.root)
    if not path.exists():
        return
    report.summary.statistics_file = str(path)
    for fold, moment in moments.items():
        shipped = shipped_statistics(path, fold, report.problems)
        if shipped is not None and moment.frames:
            report.summary.folds[fold].statistics_difference = difference(moment.statistics(), shipped)
