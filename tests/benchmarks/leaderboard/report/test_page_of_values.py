"""The HTML page of a board of values, in a real browser: less is better in one of its scores, more in the others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.figures.confusion import confusion_figure, pooled_confusion_figure
from benchmarks.leaderboard.records import Record
from benchmarks.leaderboard.report.page import write_page
from benchmarks.leaderboard.summary import summarise_board
from datamodules.conditions import CONDITIONS
from ifmmin.tasks import SUMMARY_ROWS, Regression
from tests.benchmarks.leaderboard.boards import board_records
from tests.benchmarks.leaderboard.report.test_page import needs_browser
from tests.chromium import Page, chromium

TASK = Regression()
LIMIT = 0.2
MODELS = {"Sharp": (1.0, 0.5), "Meek": (0.4, 0.6), "Bold": (2.6, 0.8)}
"""Slope and noise of answers: Bold's are right but for their size, Meek's are neither near nor far."""
BY_MAE, BY_CORR = ["Sharp", "Meek", "Bold"], ["Bold", "Sharp", "Meek"]
SEEDS = range(3)


def answered(model: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers [7, 80] by condition, and values [80]."""
    slope, noise = MODELS[model]
    values = np.random.default_rng(seed).uniform(-3, 3, 80)
    return slope * values + noise * np.random.default_rng([seed, 1]).standard_normal((7, 80)), values


def records() -> list[Record]:
    made = []
    for model in MODELS:
        for seed in SEEDS:
            answers, values = answered(model, seed)
            label = torch.from_numpy(values)
            counts = torch.stack([TASK.count(torch.from_numpy(row)[:, None], label).sum(0) for row in answers])
            metrics: dict[str, Any] = TASK.summarise(counts)
            sums = dict(zip(CONDITIONS, counts.tolist(), strict=True))
            (plain,) = board_records([model], [1], [seed], "Values", is_synthetic=True)
            plain = {
                name: value for name, value in plain.items() if name not in ("confusion", "validation", "calibration")
            }
            plain |= {"metrics": {row: {**scores, "bayes_MAE": LIMIT} for row, scores in metrics.items()}}
            plain |= {"task": TASK.spec(), "class_names": [], "sums": sums, "monitor": "MAE", "selected": None}
            plain |= {"sweep": dict.fromkeys(("0.0", "0.1"), sums["avt"]), "curves": {}}
            made.append(Record.from_json(plain))
    return made


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = write_page(summarise_board(records()), tmp_path_factory.mktemp("board") / "leaderboard.html")
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        page.open(path)
        yield page
        assert page.errors == [] and page.requests == []


def shown(page: Page) -> list[str]:
    return page.texts(".measured th")


@needs_browser
def test_the_best_is_first_and_every_score_is_sorted_from_its_best(opened: Page) -> None:
    mae, corr = ({} for _ in range(2))
    for model in MODELS:
        found = [answered(model, seed) for seed in SEEDS]
        mae[model] = fmean(float(np.abs(answers[0] - values).mean()) for answers, values in found)
        corr[model] = fmean(float(np.corrcoef(answers[0], values)[0, 1]) for answers, values in found)
    assert sorted(mae, key=mae.__getitem__) == BY_MAE and sorted(corr, key=corr.__getitem__)[::-1] == BY_CORR
    assert shown(opened) == BY_MAE
    assert opened.texts(".best")[0].startswith(f"{mae['Sharp']:.3f}")
    head = "[data-metric=MAE] th:nth-child(3) button"  # {a}
    opened.click(head)
    assert shown(opened) == BY_MAE
    assert opened.evaluate("document.querySelector('[data-metric=MAE] th:nth-child(3)').ariaSort") == "ascending"
    opened.click("#metrics input", 1)
    assert shown(opened) == BY_CORR  # the same column, from its best too
    assert opened.evaluate("document.querySelector('[data-metric=Corr] th:nth-child(3)').ariaSort") == "descending"
    opened.click("[data-metric=Corr] th:nth-child(3) button")
    assert shown(opened) == BY_CORR[::-1]
    opened.click("#metrics input", 0)
    assert shown(opened) == BY_MAE[::-1]


@needs_browser
def test_the_limit_is_a_floor_in_the_charts_of_the_error_alone(opened: Page) -> None:
    rows = [row for row in SUMMARY_ROWS if row != "pooled"]
    opened.click("#metrics input", 0)
    for chart, number in (("#bars", len(rows)), ("#curve", 1)):
        assert opened.evaluate(f"document.querySelectorAll('{chart} > svg .limit').length") == number
        assert opened.texts(f"{chart} .legend li")[-1] == "Bayes limit"
    titles = opened.evaluate("[...document.querySelectorAll('#bars > svg .limit')].map(mark => mark.textContent)")
    assert titles[0] == "Bayes limit, {a}: MAE 0.200"
    tops, floor = (
        opened.evaluate(f"[...document.querySelectorAll('{what}')].map(mark => mark.getBoundingClientRect().top)")
        for what in ("#bars > svg rect.bar", "#bars > svg .limit")
    )
    assert len(tops) == len(MODELS) * len(rows) and max(tops) < min(floor)
    opened.click("#metrics input", 1)
    assert opened.evaluate("document.querySelectorAll('#bars > svg .limit, #curve > svg .limit').length") == 0


@needs_browser
def test_confusion_is_of_rounded_values(opened: Page) -> None:
    assert opened.texts("#confusion caption") == ["true rounded value in rows, predicted rounded value in columns"] * 2


def test_pictures_of_confusion_are_of_rounded_values_and_cut_no_label() -> None:
    summary = summarise_board(records())
    for figure in (pooled_confusion_figure(summary), confusion_figure(summary, summary.entries[0])):
        figure.draw_without_rendering()
        labels = [axes.xaxis.label for axes in figure.axes if axes.get_xlabel()]
        assert {label.get_text() for label in labels} == {"predicted value, rounded"}
        assert min(label.get_window_extent().y0 for label in labels) >= 0


@needs_browser
def test_scores_matrices_and_labels_fit_a_telephone(opened: Page) -> None:
    opened.resize(400, 800)
    opened.settle()
    try:
        assert opened.evaluate("document.documentElement.scrollWidth") == 400
        labels = opened.evaluate(
            "[...document.querySelectorAll('#bars > svg text[text-anchor=middle]:not([transform])')]"
            ".map(text => text.getBoundingClientRect()).map(box => [box.left, box.right, box.top, box.bottom])"
        )
        assert len(labels) == len(CONDITIONS) + 2  # mean, and the second line of "full {a,v,t}"
        rows = [sorted(box[:2] for box in labels if box[2] == top) for top in {box[2] for box in labels}]
        assert all(one[1] <= other[0] for row in rows for one, other in pairwise(row))
        bottom = opened.evaluate("document.querySelector('#bars > svg').getBoundingClientRect().bottom")
        assert max(box[3] for box in labels) <= bottom
    finally:
        opened.resize(1280, 900)


@needs_browser
def test_single_runs_are_sorted_from_the_least_error(opened: Page) -> None:
    mean = f"#runs thead th:nth-child({4 + SUMMARY_ROWS.index('mean')}) button"
    for number, best in enumerate((BY_MAE[0], BY_CORR[0])):
        opened.click("#metrics input", number)
        opened.click("#runs thead th:nth-child(2) button")
        opened.click(mean)
        assert opened.texts("#runs tbody tr:first-child th") == [best]
