"""All numbers that a leaderboard shows, from the records of its runs.

Values are fractions in [0, 1]; what a model does not answer is None, never a number. Runs are folds x seeds:
means and standard deviations are over all of them, the paired test is over folds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median

import torch

from benchmarks.leaderboard.cells import Cell as Cell
from benchmarks.leaderboard.cells import over_runs
from benchmarks.leaderboard.limits import bayes_limit, gap, over_rates
from benchmarks.leaderboard.paired import DECIMALS, Fold, paired_tests, smallest_p
from benchmarks.leaderboard.paired import PairedTest as PairedTest  # re-exported: fields of the dataclasses below
from benchmarks.leaderboard.published import Published as Published
from benchmarks.leaderboard.published import published_beside, published_classes
from benchmarks.leaderboard.published_rates import Figures, read_figures
from benchmarks.leaderboard.rate_curves import RateCurve, rate_curves
from benchmarks.leaderboard.records import Record
from datamodules.batches.patterns import EVALUATED_WITH
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from datamodules.needs import EARLIER_TURNS
from ifmmin.results.calibration import COLUMNS
from ifmmin.results.results import corpus_title
from ifmmin.tasks import SUMMARY_ROWS, Score, Task

DEFAULT_REFERENCE = "IFMMIN"
"""The model the others are tested against, where it is on the board and no other is chosen."""


@dataclass(frozen=True)
class Entry:
    """One measured model.

    Attributes:
        model: its name.
        remarks: on it, such as that it reads earlier turns.
        n: the number of its runs.
        folds: the folds it was run on.
        seeds: the seeds it was run with.
        complete: whether there is a run for every fold and seed of the summary.
        cells: by metric and :data:`~ifmmin.tasks.base.SUMMARY_ROWS`; None unless all its runs answer the row.
        rank: by metric, in the mean of the six missing conditions: 1 is best, ties share, None without a mean.
        test: by metric; None for the reference, or where fewer than two folds can be compared.
        gap: by row, how much worse than the Bayes rule its runs are in the mean, in the task's limited score; None
            where either is unknown.
        curves: by name of :data:`~ifmmin.curves.CURVES`; without those that not all its runs have.
        validation: by metric and row, of the selected epochs on validation; None unless all its runs have it.
        confusion: counts [C, C] summed over its runs, by condition, and ``"pooled"`` for the six missing ones.
        calibration: by column of :mod:`ifmmin.results.calibration` and row; None unless all its runs have the value.
        parameters: their number, the median over runs.
        wall_time_s: of one run in seconds, the median over runs.
    """

    model: str
    remarks: tuple[str, ...]
    n: int
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    complete: bool
    cells: dict[str, dict[str, Cell | None]]
    rank: dict[str, int | None]
    test: dict[str, PairedTest | None]
    gap: dict[str, float | None]
    curves: dict[str, RateCurve]
    validation: dict[str, dict[str, Cell | None]]
    confusion: dict[str, list[list[int]]]
    calibration: dict[str, dict[str, Cell | None]]
    parameters: int
    wall_time_s: float

    @property
    def sweep(self) -> dict[str, dict[str, Cell]]:
        """Cells by metric and missing rate ``"0.0"`` to ``"0.7"``; {} unless all its runs answer every rate."""
        return self.curves["modalities"].cells if "modalities" in self.curves else {}


@dataclass(frozen=True)
class Summary:
    """A leaderboard.

    Attributes:
        corpus: its name.
        is_synthetic: whether its data are generated: a built-in corpus, or invented recordings.
        invented: whether it is the latter; None where no record says.
        task: what was predicted; its scores are the tables.
        monitor: the metric that the corpus selects by, and the entries are ordered by.
        folds: all folds that occur.
        seeds: all seeds that occur.
        reference: the model that the others are tested against.
        entries: the measured models, best first.
        published: rows that others published on this corpus and its classes; none where the data are generated.
        figures: what they published by missing rate or under another protocol; likewise.
        bayes: the Bayes rule's score (WA of classes, MAE of values) by row, the mean over folds; None if unknown.
        bayes_turns: of the rule that reads earlier turns too; None if unknown, or where no model reads them.
        records: of the runs, by model, fold and seed.
        training_sets: the folds, those together that have the same training utterances.
        independent_folds: whether every fold is a draw of its own, which shares nothing with the others.
    """

    corpus: str
    is_synthetic: bool
    invented: bool | None
    task: Task
    monitor: str
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    reference: str | None
    entries: tuple[Entry, ...]
    published: tuple[Published, ...]
    figures: tuple[Figures, ...]
    bayes: dict[str, float] | None
    bayes_turns: dict[str, float] | None
    records: tuple[Record, ...]
    training_sets: tuple[tuple[int, ...], ...]
    independent_folds: bool

    @property
    def scores(self) -> tuple[Score, ...]:
        """Scores of the task."""
        return self.task.scores

    @property
    def limited(self) -> Score:
        """The score that the Bayes limit is of."""
        return self.task.score(self.task.limited)

    def bayes_over_rates(self) -> dict[str, float]:
        """The Bayes limit by missing rate of the sweep; {} where it is unknown, or utterances lack a modality."""
        rates = {rate for entry in self.entries for rate in entry.sweep.get(self.limited.name, {})}
        complete = all(len({*record.numbers().values()} - {0}) <= 1 for record in self.records)
        return over_rates(self.bayes, rates) if self.bayes is not None and complete else {}

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the scores, in order."""
        return tuple(score.name for score in self.scores)

    @property
    def runs_per_model(self) -> int:
        """The number of runs of a complete model: folds x seeds."""
        return len(self.folds) * len(self.seeds)

    @property
    def corpus_title(self) -> str:
        """The corpus as titles name it."""
        return corpus_title(self.corpus, self.is_synthetic, self.invented)

    def title(self) -> str:
        """Two lines: the corpus; folds, seeds and the number of runs of a model."""
        folds, seeds = _counted("fold", self.folds), _counted("seed", self.seeds)
        runs = _number(self.runs_per_model, "run")
        return f"Leaderboard on {self.corpus_title}\n{folds} · {seeds} · n = {runs} a model"

    def test_note(self) -> str:
        """One sentence or two: what the paired test compares, and the smallest p it can give."""
        tests = [test for entry in self.entries for test in entry.test.values() if test]
        if not tests:
            return "No paired test: it needs another model on at least two of the same folds."
        compared = max(sum(entry.test[name] is not None for entry in self.entries) for name in self.score_names)
        with_t = any(test.p_t is not None for test in tests)
        least, most = min(test.folds for test in tests), max(test.folds for test in tests)
        paired = f"{most} folds" if least == most else f"the {least} to {most} folds with equal seeds"
        return (
            f"Difference and p: mean of six against {self.reference}, averaged over seeds, paired over {paired}; "
            f"Wilcoxon signed-rank test, two-sided, with Holm's correction over {_number(compared, 'model')}. "
            f"With {most} folds no p can fall below {smallest_p(most):.4f} "
            f"({min(1.0, compared * smallest_p(most)):.4f} corrected)." + (self._t_test_note() if with_t else "")
        )

    def _t_test_note(self) -> str:
        if self.independent_folds:
            return " p t: paired t test over folds, which are independent draws, two-sided, Holm's correction."
        return (
            " p t: corrected resampled t test (Nadeau and Bengio 2003) over training sets, two-sided, Holm's "
            "correction; it allows for the overlap of training sets, which Wilcoxon's test does not."
        )

    def training_note(self) -> str:
        """One sentence on folds that rest on the same training set; empty where each has its own."""
        shared = [folds for folds in self.training_sets if len(folds) > 1]
        if not shared:
            return ""
        which = ", ".join("/".join(map(str, folds)) for folds in shared)
        return (
            f"The {len(self.folds)} folds rest on {_number(len(self.training_sets), 'training set')}: folds {which} "
            "have the same training utterances, so their runs are not independent, and standard deviations and "
            "Wilcoxon's p are too small."
        )

    def features_note(self) -> str:
        """One sentence where published rows rest on other features than the measured ones; otherwise empty."""
        names = dict.fromkeys(name for record in self.records for name in (record.extraction or {}).values())
        if not (names and (self.published or self.figures)):
            return ""
        return (
            f"Features were extracted by {', '.join(names)}; published figures rest on those of the public packs, so "
            "the two do not compare digit by digit."
        )

    def by_rank(self, metric: str) -> tuple[Entry, ...]:
        """Models from best to worst in the mean of the six conditions of one score; those without a mean are last."""
        last = len(self.entries) + 1
        return tuple(sorted(self.entries, key=lambda entry: (entry.rank[metric] or last, entry.model)))

    def leaders(self, metric: str, row: str) -> tuple[frozenset[str], frozenset[str]]:
        """The best and the second best measured models of a column.

        Values that look the same in the table are ties, and ties are all named; if several share the best value,
        there is no second.
        """
        score = self.task.score(metric)
        cells = {entry.model: entry.cells[metric][row] for entry in self.entries}
        shown = {model: float(score.format(cell.mean)) for model, cell in cells.items() if cell}
        values = sorted(shown.values(), reverse=score.higher_is_better)
        best = frozenset(model for model, value in shown.items() if value == values[0])
        if len(best) > 1 or len(values) < 2:
            return best, frozenset()
        return best, frozenset(model for model, value in shown.items() if value == values[1])


def summarise_board(records: Sequence[Record], reference: str | None = None) -> Summary:
    """Everything a leaderboard shows.

    Args:
        records: of finished runs, in any order: the order does not change the summary.
        reference: the model to test the others against; if None, ``IFMMIN`` where it is among them, else
            the best by the corpus's metric.

    Raises:
        InputError: there are no records; they cannot share a table (different corpora, class names or
            data of one fold; one model with different configurations, code or versions); a run is there
            twice; or ``reference`` is not among the models.
    """
    records = sorted(records, key=lambda record: record.key)
    _check_comparable(records)
    runs = {model: list(group) for model, group in groupby(records, key=lambda record: record.model)}
    if reference is not None and reference not in runs:
        raise InputError(f"no runs of the reference model {reference!r}; there are runs of {', '.join(runs)}.")
    first = records[0]
    task, names = first.task, [score.name for score in first.task.scores]
    folds, seeds = _distinct(r.fold for r in records), _distinct(r.seed for r in records)
    means = {metric: {model: _cell(group, metric, "mean") for model, group in runs.items()} for metric in names}
    ranks = {metric: _ranks(means[metric], task.score(metric).higher_is_better) for metric in names}
    monitor = first.monitor
    order = sorted(runs, key=lambda model: (ranks[monitor][model] or len(runs) + 1, model))
    reference = reference or (DEFAULT_REFERENCE if DEFAULT_REFERENCE in runs else order[0])
    splits = _splits(records)
    tests = {
        metric: paired_tests(
            {model: _by_fold_and_seed(group, metric) for model, group in runs.items()}, reference, splits
        )
        for metric in names
    }
    # Published figures are of whole frames.
    alone = first.is_synthetic or any(remark.startswith(EVALUATED_WITH) for remark in first.remarks)
    entries = tuple(
        Entry(
            model=model,
            remarks=runs[model][-1].remarks,
            n=len(runs[model]),
            folds=_distinct(r.fold for r in runs[model]),
            seeds=_distinct(r.seed for r in runs[model]),
            complete=len(runs[model]) == len(folds) * len(seeds),
            cells={metric: {row: _cell(runs[model], metric, row) for row in SUMMARY_ROWS} for metric in names},
            rank={metric: ranks[metric][model] for metric in names},
            test={metric: tests[metric].get(model) for metric in names},
            gap={row: gap(runs[model], row) for row in SUMMARY_ROWS},
            curves=rate_curves(runs[model], splits),
            validation={
                metric: {row: _validated(runs[model], metric, row) for row in SUMMARY_ROWS} for metric in names
            },
            confusion=_confusion(runs[model]),
            calibration={
                column: {row: _calibration(runs[model], column, row) for row in SUMMARY_ROWS} for column in COLUMNS
            },
            parameters=int(median(run.parameters for run in runs[model])),
            wall_time_s=float(median(run.wall_time_s for run in runs[model])),
        )
        for model in order
    )
    return Summary(
        corpus=first.corpus,
        is_synthetic=first.is_synthetic,
        invented=next((record.invented for record in records if record.invented is not None), None),
        task=task,
        monitor=monitor,
        folds=folds,
        seeds=seeds,
        reference=reference,
        entries=entries,
        published=() if alone else _published(first, entries),
        figures=() if alone else read_figures(first.corpus, _told_apart(first)),
        bayes=bayes_limit([record for record in records if EARLIER_TURNS not in record.remarks]),
        bayes_turns=bayes_limit([record for record in records if EARLIER_TURNS in record.remarks]),
        records=tuple(records),
        training_sets=tuple(
            tuple(fold for fold in folds if splits[fold].training == training)
            for training in dict.fromkeys(splits[fold].training for fold in folds)
        ),
        independent_folds=all(split.independent for split in splits.values()),
    )


SHARED_TRAINING: Mapping[str, Callable[[int], int]] = {"IEMOCAP": lambda fold: (fold + 1) // 2}
"""Training sets by fold of corpora whose folds share them, for records that do not say: two speakers a session."""


def _splits(records: Iterable[Record]) -> dict[int, Fold]:
    """Training set and sizes of each fold; a record that says them counts before one that does not."""
    splits: dict[int, Fold] = {}
    for record in records:
        known = None if record.is_synthetic else SHARED_TRAINING.get(record.corpus)
        training = record.training or f"set {known(record.fold) if known else record.fold}"
        if record.fold not in splits or record.training:
            splits[record.fold] = Fold(training, record.train_size, record.test_size, bool(record.independent_folds))
    return splits


def _check_comparable(records: Sequence[Record]) -> None:
    """Raise InputError unless all records can share a table."""
    if not records:
        raise InputError("no finished runs to make a table of; run the leaderboard first.")
    seen: dict[tuple[object, ...], tuple[Record, object]] = {}

    def agree(record: Record, what: str, value: object, within: object = None) -> None:
        other, expected = seen.setdefault((what, within), (record, value))
        if value != expected:
            raise InputError(f"{_name(record)} and {_name(other)} differ in {what}; make a table of each apart.")

    for record in records:
        agree(record, "corpus", [record.corpus, record.is_synthetic, record.monitor, record.split])
        if record.origin:
            raise InputError(
                f"{_name(record)} was {record.origin}; it shares no table with models trained on its fold."
            )
        agree(record, "class names", list(record.class_names))
        agree(record, "task", record.task.spec())
        identity = dict(record.identity)
        agree(record, "data", identity.pop("data"), within=record.fold)
        agree(record, "configuration, code or versions", identity, within=record.model)
    for record, following in pairwise(records):
        if record.key == following.key:
            raise InputError(f"{_name(record)} is recorded twice; keep one of the two records.")


def _name(record: Record) -> str:
    """A run as errors name it."""
    return f"{record.model}, fold {record.fold}, seed {record.seed} ({record.run})"


def _distinct(numbers: Iterable[int]) -> tuple[int, ...]:
    """Numbers that occur, in order."""
    return tuple(sorted(set(numbers)))


def _cell(runs: Sequence[Record], metric: str, row: str) -> Cell | None:
    """One metric of one row over the runs of a model."""
    return over_runs([run.metrics[row][metric] for run in runs])


def _validated(runs: Sequence[Record], metric: str, row: str) -> Cell | None:
    """One metric of one row on validation, over the runs of a model."""
    return over_runs([run.validation[row][metric] if run.validation else None for run in runs])


def _calibration(runs: Sequence[Record], column: str, row: str) -> Cell | None:
    """One measure of the probabilities of one row, over the runs of a model."""
    return over_runs([run.calibration[row][column] if run.calibration else None for run in runs])


def _ranks(cells: Mapping[str, Cell | None], higher_is_better: bool) -> dict[str, int | None]:
    """1 for the best mean; equal means share a rank, and the next one is counted on from all before it."""
    sign = 1 if higher_is_better else -1
    means = {model: sign * round(cell.mean, DECIMALS) for model, cell in cells.items() if cell}
    return {
        model: 1 + sum(other > means[model] for other in means.values()) if model in means else None for model in cells
    }


def _by_fold_and_seed(runs: Iterable[Record], metric: str) -> dict[int, dict[int, float]]:
    """The mean of the six conditions, of the runs that have one."""
    values: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for run in runs:
        value = run.metrics["mean"][metric]
        if value is not None:
            values[run.fold][run.seed] = value
    return values


def _confusion(runs: Sequence[Record]) -> dict[str, list[list[int]]]:
    """Confusion matrices summed over runs, by condition and pooled over the six missing ones."""
    task = runs[0].task
    counts = {name: sum(torch.tensor(run.counts[name], dtype=task.counts_dtype) for run in runs) for name in CONDITIONS}
    counts["pooled"] = sum(counts[name] for name in MISSING_CONDITIONS)
    return {name: task.matrix(torch.as_tensor(part)).tolist() for name, part in counts.items()}


def _published(first: Record, entries: Iterable[Entry]) -> tuple[Published, ...]:
    """The published rows, with our difference where the same model was measured."""
    means = {
        entry.model: {
            metric: {row: cell.mean for row, cell in cells.items() if cell} for metric, cells in entry.cells.items()
        }
        for entry in entries
    }
    return published_beside(first.corpus, _told_apart(first), means)


def _told_apart(record: Record) -> int:
    return published_classes(record.corpus, record.class_names, record.made_of)


def _counted(name: str, numbers: Sequence[int]) -> str:
    """``fold 3``, ``folds 1–10``, ``seeds 0, 2, 5``."""
    consecutive = len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    text = f"{numbers[0]}–{numbers[-1]}" if consecutive else ", ".join(map(str, numbers))
    return f"{name}{'s' * (len(numbers) > 1)} {text}"


def _number(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {noun}{'s' * (count != 1)}"
