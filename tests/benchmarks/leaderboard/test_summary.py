"""What the leaderboard computes from records, against naive loops, scikit-learn and counted permutations."""

from __future__ import annotations

import csv
import io
import math
import random
from copy import deepcopy
from dataclasses import replace
from itertools import product
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata, ttest_1samp, ttest_rel
from scipy.stats import t as student
from sklearn.datasets import make_moons
from sklearn.metrics import accuracy_score, f1_score, recall_score
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.svm import SVC

from benchmarks.leaderboard.paired import corrected_t, holm, paired_tests, smallest_p
from benchmarks.leaderboard.published import METRICS
from benchmarks.leaderboard.report.page import page_html
from benchmarks.leaderboard.report.rows import board_notes, board_table
from benchmarks.leaderboard.report.tables import csv_text
from benchmarks.leaderboard.summary import Summary
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from ifmmin.tasks import SUMMARY_ROWS, Classification
from tests.benchmarks.leaderboard.boards import board_records, summarise_board

MODELS = ["IFMMIN", "MMIN", "MCTN", "FusionPretraining"]
FOLDS, SEEDS = [1, 2, 3, 4, 5], [0, 1, 2]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return board_records(MODELS, FOLDS, SEEDS, "Synthetic", is_synthetic=True, unanswered=["FusionPretraining"])


@pytest.fixture(scope="module")
def board(records: list[dict[str, Any]]) -> Summary:
    return summarise_board(records)


def values(records: list[dict[str, Any]], model: str, row: str, metric: str) -> list[float]:
    return [record["metrics"][row][metric] for record in records if record["model"] == model]


def test_every_cell_is_mean_and_deviation_over_runs(board: Summary, records: list[dict[str, Any]]) -> None:
    assert tuple(score.name for score in Classification.scores) == METRICS
    for entry, metric, row in product(board.entries, METRICS, SUMMARY_ROWS):
        cell, runs = entry.cells[metric][row], values(records, entry.model, row, metric)
        if entry.model == "FusionPretraining" and row != "avt":
            assert cell is None
            continue
        assert cell is not None
        assert [cell.mean, cell.std, cell.n] == pytest.approx([mean(runs), stdev(runs), 15])


def test_a_row_that_one_run_does_not_answer_has_no_value() -> None:
    records = board_records(["MMIN"], [1, 2], [0])
    for row in ("a", "mean"):
        records[1]["metrics"][row]["UA"] = None
    cells = summarise_board(records).entries[0].cells["UA"]
    assert [row for row, cell in cells.items() if cell is None] == ["a", "mean"]
    assert summarise_board(records).entries[0].rank["UA"] is None


def test_one_run_has_no_deviation() -> None:
    board = summarise_board(board_records(["MMIN"], [3], [7]))
    cell = board.entries[0].cells["UA"]["mean"]
    assert cell is not None
    assert (cell.std, cell.n) == (None, 1)
    assert board.reference == "MMIN"
    assert board.title() == "Leaderboard on IEMOCAP\nfold 3 · seed 7 · n = 1 run a model"
    assert board.test_note().startswith("No paired test")
    assert board.leaders("UA", "mean") == (frozenset({"MMIN"}), frozenset())


def test_the_order_of_records_does_not_matter(board: Summary, records: list[dict[str, Any]]) -> None:
    shuffled = list(records)
    random.Random(0).shuffle(shuffled)
    assert summarise_board(shuffled) == board


def test_entries_stand_in_order_of_the_corpus_metric() -> None:
    for corpus, monitor in (("IEMOCAP", "UA"), ("MSPIMPROV", "F1")):
        records = board_records(MODELS, FOLDS, SEEDS, corpus, unanswered=["FusionPretraining"])
        board = summarise_board(records)
        naive = sorted(MODELS[:3], key=lambda model: -mean(values(records, model, "mean", monitor)))
        assert board.monitor == monitor
        assert [entry.model for entry in board.entries] == [*naive, "FusionPretraining"]
        assert [entry.rank[board.monitor] for entry in board.entries] == [1, 2, 3, None]


def test_equal_models_share_rank_and_mark() -> None:
    records = board_records(["A", "B", "C", "D"], FOLDS, [0])
    for record in records:
        record["metrics"]["mean"]["UA"] = {"A": 0.6, "B": 0.5, "C": 0.6, "D": 0.4}[record["model"]]
    board = summarise_board(records)
    assert {entry.model: entry.rank["UA"] for entry in board.entries} == {"A": 1, "C": 1, "B": 3, "D": 4}
    assert board.leaders("UA", "mean") == (frozenset("AC"), frozenset())
    test = {entry.model: entry.test["UA"] for entry in board.entries}["C"]
    assert board.reference == "A"
    assert test is not None
    assert (test.difference, test.p, test.p_holm) == (0, 1, 1)


def test_leaders_are_told_apart_as_they_are_shown() -> None:
    records = board_records(["A", "B", "C", "D"], [1], [0])
    for record, value in zip(records, (0.50004, 0.50001, 0.4, 0.3), strict=True):
        record["metrics"]["a"]["WA"] = value
    board = summarise_board(records)
    assert board.leaders("WA", "a") == (frozenset("AB"), frozenset())
    records[1]["metrics"]["a"]["WA"] = 0.40001
    assert summarise_board(records).leaders("WA", "a") == (frozenset("A"), frozenset("BC"))


def exact_p(differences: list[float]) -> float:
    """The two-sided p by counting all signs, zeros dropped and ties sharing their mean rank."""
    ranks = rankdata(np.abs([value for value in differences if value]))
    signs = np.array([value > 0 for value in differences if value])
    statistic = ranks[signs].sum()
    sums = np.array([ranks[list(positive)].sum() for positive in product([False, True], repeat=len(ranks))])
    return float(min(1, 2 * min((sums <= statistic + 1e-9).mean(), (sums >= statistic - 1e-9).mean())))


def test_paired_test_against_a_naive_loop(board: Summary, records: list[dict[str, Any]]) -> None:
    for metric in METRICS:
        naive, means = [], []
        for model in ("MMIN", "MCTN"):
            differences = []
            for fold in FOLDS:
                one, two = (
                    mean(r["metrics"]["mean"][metric] for r in records if (r["model"], r["fold"]) == (name, fold))
                    for name in (model, "IFMMIN")
                )
                differences.append(one - two)
            naive.append(exact_p(differences))
            means.append(mean(differences))
        tests = {entry.model: entry.test[metric] for entry in board.entries}
        assert tests["IFMMIN"] is None
        assert tests["FusionPretraining"] is None
        found = [tests["MMIN"], tests["MCTN"]]
        assert [test and test.p for test in found] == pytest.approx(naive)
        assert [test and test.difference for test in found] == pytest.approx(means)
        assert [test and test.folds for test in found] == [5, 5]
        low, high = min(naive), max(naive)
        corrected = sorted([min(1, 2 * low), max(min(1, 2 * low), high)])
        assert sorted(test.p_holm for test in found if test) == pytest.approx(corrected)


@pytest.mark.parametrize(
    "differences",
    [[0.1, 0.2, 0.3, 0.4, 0.5], [0.1, -0.1, 0.1, 0.1, -0.1, 0.2], [0.0, 0.1, 0.2, -0.3, 0.4, 0.0], [0.0] * 20],
    ids=["one sign", "ties", "zeros", "nothing but zeros"],
)
def test_few_folds_are_tested_exactly(differences: list[float]) -> None:
    reference = [0.72, 0.68, 0.51, 0.43, 0.56, 0.5] * 4  # sums with these are not exact: rounding must not break ties
    runs = {
        "reference": {fold: {0: value} for fold, value in enumerate(reference)},
        "other": {fold: {0: reference[fold] + value} for fold, value in enumerate(differences)},
    }
    test = paired_tests(runs, "reference")["other"]
    assert test.p == pytest.approx(exact_p(differences) if any(differences) else 1)
    assert test.folds == len(differences)


@pytest.mark.parametrize("folds", [2, 5, 10, 12])
def test_the_smallest_p_is_reached(folds: int) -> None:
    runs = {"reference": {fold: {0: 0.0} for fold in range(folds)}}
    runs["other"] = {fold: {0: (1 + fold) / 100} for fold in range(folds)}
    assert paired_tests(runs, "reference")["other"].p == pytest.approx(smallest_p(folds))


def test_a_fold_counts_only_with_equal_seeds() -> None:
    records = board_records(["IFMMIN", "MMIN"], FOLDS, SEEDS)
    lost = [record for record in records if (record["model"], record["fold"], record["seed"]) != ("MMIN", 4, 1)]
    board = summarise_board(lost)
    entry = next(entry for entry in board.entries if entry.model == "MMIN")
    without = [record for record in records if record["fold"] != 4]
    expected = next(entry for entry in summarise_board(without).entries if entry.model == "MMIN").test
    assert (entry.n, entry.complete) == (14, False)
    assert entry.test == expected
    assert "over 4 folds" in board.test_note()
    assert summarise_board(lost[:16]).entries[-1].test["UA"] is None  # one fold in common


def test_holm_by_hand() -> None:
    # Sorted: 0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, 0.04 x 1 = 0.04 -> 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1, 1]
    assert holm([]) == []


def test_the_note_says_what_was_tested(board: Summary) -> None:
    note = board.test_note()
    assert "against IFMMIN" in note
    assert "over 5 folds" in note
    assert "Holm's correction over 2 models" in note
    assert "0.0625 (0.1250 corrected)" in note


def test_any_model_can_be_the_reference(records: list[dict[str, Any]]) -> None:
    board = summarise_board(records, "MCTN")
    assert board.reference == "MCTN"
    tests = {entry.model: entry.test["WA"] for entry in board.entries}
    others = {entry.model: entry.test["WA"] for entry in summarise_board(records).entries}
    assert tests["IFMMIN"] is not None
    assert others["MCTN"] is not None
    assert tests["IFMMIN"].difference == pytest.approx(-others["MCTN"].difference)
    without = [record for record in records if record["model"] != "IFMMIN"]
    assert summarise_board(without).reference == summarise_board(without).entries[0].model
    with pytest.raises(InputError, match="'CMARR'; there are runs of FusionPretraining, IFMMIN, MCTN, MMIN"):
        summarise_board(records, "CMARR")


def test_bayes_limit_and_gap(board: Summary, records: list[dict[str, Any]]) -> None:
    assert board.bayes is not None
    for row in SUMMARY_ROWS:
        limits = {r["fold"]: r["metrics"][row]["bayes_WA"] for r in records if r["model"] == "MMIN"}
        assert board.bayes[row] == pytest.approx(mean(limits.values()))
        gaps = {entry.model: entry.gap[row] for entry in board.entries}
        own = values(records, "MMIN", row, "WA")
        assert gaps["MMIN"] == pytest.approx(mean(limits[fold] for fold in FOLDS) - mean(own))
        assert (gaps["FusionPretraining"] is None) == (row != "avt")
    assert board.published == ()
    assert "not a corpus result" in board.title()
    real = summarise_board(board_records(MODELS, [1, 2], [0]))
    assert real.bayes is None
    assert set(real.entries[0].gap.values()) == {None}


def test_the_built_in_corpus_has_no_published_rows_whatever_its_name() -> None:
    assert summarise_board(board_records(MODELS, [1], [0], "IEMOCAP", is_synthetic=True)).published == ()


def test_the_corpus_says_whether_its_recordings_are_invented() -> None:
    plain = board_records(MODELS[:2], [1], [0], "Mine", is_synthetic=True)
    for records in (plain, [{**record, "invented": False} for record in plain]):
        assert summarise_board(records).corpus_title == "built-in synthetic corpus Mine (not a corpus result)"
    # Records of earlier versions do not say: those that do count.
    mixed = [{**plain[0], "invented": True}, plain[1]]
    for records in (mixed, mixed[::-1]):
        board = summarise_board(records)
        assert board.corpus_title == "Mine made of invented recordings (not a corpus result)"
        assert f"<h1>Leaderboard: {board.corpus_title}</h1>" in page_html(board)
        assert board.corpus_title in csv_text(board)
    assert "made of invented recordings" in summarise_board([{**plain[0], "corpus": "IEMOCAP"}]).title()


def test_sweep_against_scikit_learn(board: Summary, records: list[dict[str, Any]]) -> None:
    entry = next(entry for entry in board.entries if entry.model == "MMIN")
    for rate in ("0.0", "0.3", "0.7"):
        runs: dict[str, list[float]] = {"WA": [], "UA": [], "F1": []}
        for record in records:
            if record["model"] == "MMIN":
                counts = np.array(record["sweep"][rate])
                true, predicted = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
                runs["WA"].append(accuracy_score(true, predicted))
                runs["UA"].append(recall_score(true, predicted, average="macro"))
                runs["F1"].append(f1_score(true, predicted, average="macro"))
        for metric in METRICS:
            cell = entry.sweep[metric][rate]
            assert [cell.mean, cell.std] == pytest.approx([mean(runs[metric]), stdev(runs[metric])])
    assert list(entry.sweep["WA"]) == [f"{tenths / 10:.1f}" for tenths in range(8)]
    assert next(entry for entry in board.entries if entry.model == "FusionPretraining").sweep == {}


def test_confusion_matrices_are_sums(board: Summary, records: list[dict[str, Any]]) -> None:
    entry = next(entry for entry in board.entries if entry.model == "MCTN")
    mine = [record["confusion"] for record in records if record["model"] == "MCTN"]
    for i, j in product(range(4), repeat=2):
        for name in CONDITIONS:
            assert entry.confusion[name][i][j] == sum(matrices[name][i][j] for matrices in mine)
        pooled = sum(matrices[name][i][j] for matrices in mine for name in MISSING_CONDITIONS)
        assert entry.confusion["pooled"][i][j] == pooled


def test_what_else_an_entry_says(board: Summary, records: list[dict[str, Any]]) -> None:
    entry = next(entry for entry in board.entries if entry.model == "MMIN")
    times = sorted(record["wall_time_s"] for record in records if record["model"] == "MMIN")
    assert (entry.wall_time_s, entry.parameters) == (times[7], 2_100_000)
    assert (entry.folds, entry.seeds, entry.complete) == ((1, 2, 3, 4, 5), (0, 1, 2), True)
    assert board.runs_per_model == 15
    assert len(board.records) == len(records)
    assert replace(board, seeds=(0, 2)).title().splitlines()[1] == "folds 1–5 · seeds 0, 2 · n = 10 runs a model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": "MSPIMPROV"}, "differ in corpus"),
        ({"is_synthetic": True}, "differ in corpus"),
        ({"split": "val"}, "differ in corpus"),
        ({"class_names": ["sad", "neutral", "happy", "angry"]}, "differ in class names"),
        ({"identity": {"data": "other"}}, "differ in data"),
        ({"identity": {"config": "other"}}, "differ in configuration"),
        ({"identity": {"code": "other"}}, "differ in configuration"),
        ({"seed": 0}, "recorded twice"),
    ],
)
def test_records_that_cannot_stand_in_one_table(change: dict[str, Any], message: str) -> None:
    records = deepcopy(board_records(["IFMMIN", "MMIN"], [1, 2], [0, 1]))
    identity = records[1]["identity"] | change.pop("identity", {})
    records[1] |= {**change, "identity": identity}
    with pytest.raises(InputError, match=message) as error:
        summarise_board(records)
    assert "IFMMIN, fold 1, seed" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_data_of_another_fold_is_as_it_should_be() -> None:
    records = board_records(["IFMMIN"], [1, 2], [0])
    assert records[0]["identity"]["data"] != records[1]["identity"]["data"]
    summarise_board(records)


def test_nothing_to_summarise() -> None:
    with pytest.raises(InputError, match="no finished runs"):
        summarise_board([])


def with_splits(records: list[dict[str, Any]], sets: dict[int, str], train_size: int = 4000) -> list[dict[str, Any]]:
    """The same records, made by a version that writes down training sets."""
    return [record | {"training": sets[record["fold"]], "train_size": train_size} for record in records]


def test_corrected_t_by_hand() -> None:
    # Mean 0.02, s^2 = 0.001 / 4, (1/5 + 1/4) s^2 = 0.0001125, t = 0.02 / 0.0106066 = 1.88562, 4 degrees of freedom:
    # F(t) = 1/2 + 3/8 (sin a)(1 + cos^2 a / 3) x 4/3 with tan a = t / 2 (Abramowitz and Stegun 26.7.4).
    angle = math.atan(1.88562 / 2)
    two_sided = math.sin(angle) * (1 + math.cos(angle) ** 2 / 2)
    assert corrected_t([0.01, 0.03, 0.02, 0.00, 0.04], 1 / 4) == pytest.approx(1 - two_sided, abs=1e-5)
    assert corrected_t([-0.01, -0.03, -0.02, 0.00, -0.04], 1 / 4) == pytest.approx(1 - two_sided, abs=1e-5)
    assert (corrected_t([0.0, 0.0], 0.1), corrected_t([0.1, 0.1], 0.1)) == (1.0, 0.0)
    # Without a correction for overlap it is the paired t test.
    assert corrected_t([0.3, 0.1, 0.2], 0.0) == pytest.approx(ttest_1samp([0.3, 0.1, 0.2], 0).pvalue)


@pytest.mark.slow
def test_corrected_t_gives_the_published_example() -> None:
    # scikit-learn's user guide, "Statistical comparison of models using grid search": corrected p 0.227, one-sided.
    x, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    scores = [
        cross_val_score(SVC(kernel=kernel, random_state=0), x, y, scoring="roc_auc", cv=folds)
        for kernel in ("rbf", "linear")
    ]
    assert corrected_t((scores[0] - scores[1]).tolist(), 10 / 90) / 2 == pytest.approx(0.227, abs=5e-4)


def test_folds_of_one_training_set_are_one_larger_test_set() -> None:
    sets = {fold: f"session {(fold + 1) // 2}" for fold in range(1, 11)}
    records = with_splits(board_records(["IFMMIN", "MMIN"], range(1, 11), [0, 1], "MSP-IMPROV"), sets)
    board = summarise_board(records)
    test = next(entry for entry in board.entries if entry.model == "MMIN").test["UA"]
    assert test is not None
    assert (test.folds, test.training_sets) == (10, 5)
    pairs = [(values_of(records, "MMIN", fold), values_of(records, "IFMMIN", fold)) for fold in range(1, 11)]
    by_fold = [mean(one) - mean(two) for one, two in pairs]
    by_set = [mean(by_fold[place : place + 2]) for place in range(0, 10, 2)]
    t = mean(by_set) / math.sqrt((1 / 5 + 10 * 553 / (5 * 4000)) * stdev(by_set) ** 2)
    assert test.p_t == pytest.approx(2 * student.sf(abs(t), 4))
    assert test.p_t_holm == test.p_t
    assert board.training_note().startswith("The 10 folds rest on 5 training sets: folds 1/2, 3/4, 5/6, 7/8, 9/10 ")
    assert "Nadeau and Bengio 2003" in board.test_note()


def test_features_that_were_extracted_are_named_beside_published_figures() -> None:
    records = board_records(["IFMMIN", "MMIN"], [1, 2], [0])
    assert summarise_board(records).features_note() == ""
    made = {"audio": "comparE", "visual": "face-hog", "text": "minilm"}
    extracted = summarise_board([{**record, "extraction": made} for record in records])
    note = extracted.features_note()
    assert note.startswith("Features were extracted by comparE, face-hog, minilm; published figures rest on those of")
    assert note in board_notes(extracted)
    own = [{**record, "corpus": "Folder-clips", "extraction": made} for record in records]
    assert summarise_board(own).features_note() == ""  # nothing is published beside it


def test_independent_folds_need_no_correction() -> None:
    records = with_splits(board_records(["IFMMIN", "MMIN"], [1, 2, 3, 4], [0]), {fold: str(fold) for fold in range(9)})
    corrected = summarise_board(records)
    board = summarise_board([{**record, "independent_folds": True} for record in records])
    test = board.entries[-1].test["UA"] or board.entries[0].test["UA"]
    assert test is not None
    one, two = ([values_of(records, model, fold)[0] for fold in (1, 2, 3, 4)] for model in ("MMIN", "IFMMIN"))
    assert test.p_t == pytest.approx(ttest_rel(one, two).pvalue)
    assert board.training_note() == ""
    assert "independent draws" in board.test_note() and "Nadeau" not in board.test_note()
    assert "Nadeau" in corrected.test_note()


def values_of(records: list[dict[str, Any]], model: str, fold: int) -> list[float]:
    return [r["metrics"]["mean"]["UA"] for r in records if (r["model"], r["fold"]) == (model, fold)]


def test_iemocap_is_known_to_share_and_no_other_corpus_is() -> None:
    note = summarise_board(board_records(["MMIN"], range(1, 11), [0])).training_note()
    assert "rest on 5 training sets: folds 1/2," in note
    assert summarise_board(board_records(["MMIN"], [1, 3, 5], [0])).training_note() == ""
    for corpus, synthetic in (("MSP-IMPROV", False), ("IEMOCAP", True)):
        assert summarise_board(board_records(["MMIN"], range(1, 11), [0], corpus, synthetic)).training_note() == ""
    # What the records say comes first.
    own = with_splits(board_records(["MMIN"], [1, 2], [0]), {1: "x", 2: "y"})
    assert summarise_board(own).training_note() == ""


def test_without_sizes_there_is_no_t_test(board: Summary) -> None:
    assert {test.p_t for entry in board.entries for test in entry.test.values() if test} == {None}
    assert "Nadeau" not in board.test_note()


def test_validation_stands_apart(records: list[dict[str, Any]]) -> None:
    validated = deepcopy(records)
    for record in validated:
        record["validation"] = deepcopy(record["metrics"])
        for row in record["validation"].values():
            row["UA"] = None if row["UA"] is None else row["UA"] / 2
    board = summarise_board(validated)
    for entry, plain in zip(board.entries, summarise_board(records).entries, strict=True):
        assert replace(entry, validation=plain.validation) == plain
    entry = next(entry for entry in board.entries if entry.model == "MMIN")
    cell, tested = entry.validation["UA"]["a"], entry.cells["UA"]["a"]
    assert cell and tested and cell.mean == pytest.approx(tested.mean / 2)
    lines = [line for line in csv.DictReader(io.StringIO(csv_text(board))) if line["kind"] == "validation"]
    found = [line for line in lines if (line["model"], line["metric"], line["condition"]) == ("MMIN", "UA", "a")]
    assert [line["mean"] for line in found] == [f"{100 * cell.mean:.2f}"]
    assert not any(line["rank"] or line["p"] for line in lines)
    (column,) = [c for c in board_table(board, board.task.score("UA")).columns if c.key == "validation"]
    assert column.page_only


def test_what_was_trained_elsewhere_shares_no_table() -> None:
    records = board_records(["IFMMIN", "MMIN"], [1, 2], [0])
    for origin in ({"corpus": "MSP-IMPROV", "fold": 1, "seed": 0}, {"corpus": "IEMOCAP", "fold": 2, "seed": 0}):
        with pytest.raises(InputError, match=f"{origin['corpus']} fold {origin['fold']}; it shares no table"):
            summarise_board([records[0] | {"trained_on": origin}, *records[1:]])
    summarise_board([records[0] | {"trained_on": {"corpus": "IEMOCAP", "fold": 1, "seed": 0}}, *records[1:]])
