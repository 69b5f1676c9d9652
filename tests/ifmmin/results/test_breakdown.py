"""Tables by class and by speaker, against scikit-learn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from ifmmin.results.breakdown import class_rows, class_table, speaker_rows, speaker_table
from ifmmin.results.results import Results
from ifmmin.results.uncertainty import utterance_counts
from ifmmin.tasks import Classification, Regression
from tests.ifmmin.results.test_uncertainty import CLASSES, predicted


def shown(table: object) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_classes_are_scored_as_scikit_learn_scores_them() -> None:
    predictions = predicted(CLASSES, 50)
    counts = utterance_counts(predictions)[1].sum(0)
    rows = class_rows(Results("IEMOCAP", False, "M", 1, 0, "test", CLASSES, counts))
    label = np.asarray(predictions.labels).reshape(-1, 7)
    guess = np.asarray(predictions.answers).argmax(-1).reshape(-1, 7)
    for condition, columns in {"a": [0], "avt": [6], "pooled": list(range(6))}.items():
        precision, recall, f1, support = precision_recall_fscore_support(
            label[:, columns].ravel(), guess[:, columns].ravel(), labels=range(4)
        )
        mine = [row for row in rows if row["condition"] == condition]
        assert [row["class"] for row in mine] == list(CLASSES.class_names)
        assert [row["recall"] for row in mine] == pytest.approx(list(recall))
        assert [row["precision"] for row in mine] == pytest.approx(list(precision))
        assert [row["F1"] for row in mine] == pytest.approx(list(f1))
        assert [row["n"] for row in mine] == list(support)
    assert f"{100 * rows[-1]['recall']:.2f}" in shown(class_table(rows))


def test_speakers_are_scored_as_scikit_learn_scores_them() -> None:
    predictions = predicted(CLASSES, 60)
    counts = utterance_counts(predictions)[1]
    who = [f"S{place % 15:02d}" for place in range(60)]
    rows = speaker_rows(CLASSES, counts, who)
    label = np.asarray(predictions.labels).reshape(-1, 7)[:, 6]
    guess = np.asarray(predictions.answers).argmax(-1).reshape(-1, 7)[:, 6]
    mine = np.array(who) == "S03"
    (row,) = [row for row in rows if row["speaker"] == "S03" and row["condition"] == "avt"]
    assert row["WA"] == pytest.approx(accuracy_score(label[mine], guess[mine]))
    assert row["utterances"] == 4
    text = shown(speaker_table(CLASSES, rows))
    assert "S11" in text
    assert "S12" not in text
    assert "and 3 more in per_speaker.csv" in text


def test_a_class_that_does_not_occur_has_no_recall() -> None:
    task = Classification(["[red]angry", "[/]"])
    counts = CLASSES.metric().counts.new_zeros(7, 2, 2)
    counts[:, 0, 0] = 3
    rows = class_rows(Results("IEMOCAP", False, "M", 1, 0, "test", task, counts))
    assert {row["recall"] for row in rows if row["class"] == "[/]"} == {None}
    text = shown(class_table(rows))
    assert "[red]angry" in text
    assert "[/]" in text


def test_a_regression_has_no_classes_but_speakers() -> None:
    task = Regression()
    counts = utterance_counts(predicted(task, 6))[1]
    assert class_rows(Results("V", False, "M", 1, 0, "test", task, counts.sum(0))) == []
    rows = speaker_rows(task, counts, ["a", "b"] * 3)
    assert "MAE" in shown(speaker_table(task, rows))
