"""The figures of a board, against numbers computed another way."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import f1_score, recall_score

from benchmarks.figures.conditions import conditions_figure
from benchmarks.figures.confusion import confusion_figure, pooled_confusion_figure
from benchmarks.figures.missing_rate import missing_rate_figure
from benchmarks.figures.rate_curves import rate_curves_figure
from benchmarks.figures.style import DASHES
from benchmarks.leaderboard.looks import COLOURS, MARKERS, NAMED, look_of
from benchmarks.leaderboard.published import METRICS, Metric
from benchmarks.leaderboard.published_rates import RATES_FILE
from benchmarks.leaderboard.report.areas import area_table
from benchmarks.leaderboard.report.page import page_html
from benchmarks.leaderboard.report.rows import board_table
from benchmarks.leaderboard.summary import Summary
from datamodules.batches.masks import MissingRate, utterance_keys
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from ifmmin.curves import CURVES
from tests.benchmarks.figure_titles import SYNTHETIC, title
from tests.benchmarks.leaderboard.boards import CLASS_NAMES, board_records, summarise_board
from tests.cli.running import CHECKOUT

ROWS = (*MISSING_CONDITIONS, "mean", "avt")


MODELS = ["CMARR", "IFMMIN", "MCTN"]
RECORDS = board_records(MODELS, folds=[1, 2], seeds=[0, 1, 2], corpus="Synthetic", is_synthetic=True)


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarise_board(RECORDS)


def best_first(records: list[dict[str, Any]], metric: str) -> list[str]:
    """Models by the mean over runs of the six conditions; without one, last."""
    means: dict[str, float] = {}
    for model in sorted({record["model"] for record in records}):
        runs = [record["metrics"] for record in records if record["model"] == model]
        answered = all(run.get(row) and run[row][metric] is not None for run in runs for row in MISSING_CONDITIONS)
        means[model] = np.mean([[run[row][metric] for row in MISSING_CONDITIONS] for run in runs]) if answered else -1.0
    return sorted(means, key=lambda model: -means[model])


def test_curves_and_areas_of_a_score_are_in_the_order_of_its_table() -> None:
    """Two models whose order by WA is not that by UA, which selects."""
    records = board_records(["CMARR", "MCTN"], folds=[1], seeds=[0])
    for record in records:
        for rows in record["metrics"].values():
            rows["WA"], rows["UA"] = (0.5, 0.6) if record["model"] == "MCTN" else (0.6, 0.5)
    summary = summarise_board(records)
    for metric, order in {"WA": ["CMARR", "MCTN"], "UA": ["MCTN", "CMARR"]}.items():
        score = summary.task.score(metric)
        areas = area_table(summary, score)
        assert areas is not None and [row.model for row in areas.rows] == order
        assert [row.model for row in board_table(summary, score).rows if row.kind == "measured"] == order
        for figure in (missing_rate_figure(summary, metric), rate_curves_figure(summary, metric)):
            legend = figure.axes[0].get_legend()
            assert legend is not None and [text.get_text().split()[0] for text in legend.get_texts()] == order


def test_bars_are_means_and_standard_deviations_over_runs(summary: Summary) -> None:
    for metric in METRICS:
        figure = conditions_figure(summary, metric)
        (axes,) = figure.axes
        bars = {str(one.get_label()): one for one in axes.containers if isinstance(one, BarContainer)}
        assert list(bars) == best_first(RECORDS, metric)
        for model, container in bars.items():
            runs = [record["metrics"] for record in RECORDS if record["model"] == model]
            values = 100 * np.array([[run[row][metric] for row in ROWS] for run in runs])
            heights = [bar.get_height() for bar in container.patches]
            np.testing.assert_allclose(heights, values.mean(axis=0))
            assert container.errorbar is not None
            low, high = ends_of(container.errorbar)
            np.testing.assert_allclose((low + high) / 2, heights)
            np.testing.assert_allclose((high - low) / 2, values.std(axis=0, ddof=1))
            assert [round(bar.get_x() + bar.get_width() / 2) for bar in container.patches] == list(range(8))
        limits = [one for one in axes.collections if one.get_label() == "Bayes limit"]
        assert len(limits) == (metric == "WA")
        assert SYNTHETIC in title(figure) and "n = 6" in title(figure)


def test_the_bayes_limit_is_its_mean_over_folds(summary: Summary) -> None:
    (axes,) = conditions_figure(summary, "WA").axes
    (limits,) = (one for one in axes.collections if one.get_label() == "Bayes limit")
    assert isinstance(limits, LineCollection)
    heights = [np.asarray(segment)[0, 1] for segment in limits.get_segments()]
    by_fold = [next(r["metrics"] for r in RECORDS if r["fold"] == fold) for fold in (1, 2)]
    expected = [100 * np.mean([rows[row]["bayes_WA"] for rows in by_fold]) for row in ROWS]
    np.testing.assert_allclose(heights, expected)
    (axes,) = conditions_figure(summarise_board(board_records(["MMIN"], [1, 2], [0])), "WA").axes
    assert "Bayes limit" not in axes.get_legend_handles_labels()[1]


def test_the_bayes_limit_over_the_missing_rate_weighs_conditions_by_how_often_masks_leave_them(
    summary: Summary,
) -> None:
    assert summary.bayes is not None
    keys = utterance_keys([f"utterance {number}" for number in range(20_000)])
    (axes,) = missing_rate_figure(summary, "WA").axes
    (line,) = (one for one in axes.lines if str(one.get_label()).startswith("Bayes limit"))
    rates, heights = np.asarray(line.get_xydata()).T
    assert rates.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    for rate, height in zip(rates.tolist(), heights.tolist(), strict=True):
        shown = ["".join(np.array(["a", "v", "t"])[row]) for row in MissingRate(rate)(keys, 0, 0)]
        assert height == pytest.approx(100 * np.mean([summary.bayes[name] for name in shown]), abs=0.3), rate
    assert line.get_label() == f"Bayes limit  {np.trapezoid(heights, rates) / 0.7:.1f}"
    found = re.search(r'id="data">(.*?)</script>', page_html(summary))
    assert found is not None
    on_page = json.loads(found.group(1))["bayes_over_rates"]
    np.testing.assert_allclose(np.array(on_page) * (1, 100), np.stack([rates, heights], axis=1))
    for metric in ("UA", "F1"):
        assert "Bayes limit" not in str(missing_rate_figure(summary, metric).axes[0].get_legend_handles_labels()[1])
    assert summarise_board(board_records(["MMIN"], [1, 2], [0])).bayes_over_rates() == {}


def test_no_limit_over_the_missing_rate_where_utterances_lack_a_modality(summary: Summary) -> None:
    first, *others = summary.records
    counts = {**first.counts, "a": [[2 * n for n in row] for row in first.counts["a"]]}
    gaps = replace(summary, records=(replace(first, counts=counts), *others))
    assert summary.bayes_over_rates() and gaps.bayes_over_rates() == {}


def test_what_is_not_answered_or_not_finished_shows() -> None:
    records = board_records(["IFMMIN", "MCTN"], folds=[1, 2], seeds=[0], unanswered=["MCTN"])[:-1]
    summary = summarise_board(records)
    (axes,) = conditions_figure(summary, "UA").axes
    bars = {str(one.get_label()): one for one in axes.containers if isinstance(one, BarContainer)}
    assert [len(one.patches) for one in bars.values()] == [8, 1] and list(bars)[1] == "MCTN (only 1 run)"
    assert [text.get_text() for text in axes.texts] == 7 * ["–"]
    # One run has no standard deviation: no error bar of length zero.
    errors = bars["MCTN (only 1 run)"].errorbar
    assert errors is not None and np.isnan(ends_of(errors)).all()
    axes = missing_rate_figure(summary, "UA").axes[0]
    assert [name_of(one) for one in axes.containers] == ["IFMMIN"]


def ends_of(errors: ErrorbarContainer) -> tuple[NDArray[Any], NDArray[Any]]:
    """The lower and upper ends of error bars; NaN where there is none."""
    (lines,) = errors.lines[2]
    ends = [np.asarray(segment)[:, 1] if len(segment) else (np.nan, np.nan) for segment in lines.get_segments()]
    low, high = np.array(ends).T
    return low, high


def test_missing_rate_curves_are_metrics_of_the_sweep(summary: Summary) -> None:
    functions = {
        "WA": lambda true, predicted: float(np.mean(np.array(true) == np.array(predicted))),
        "UA": lambda true, predicted: float(recall_score(true, predicted, average="macro")),
        "F1": lambda true, predicted: float(f1_score(true, predicted, average="macro")),
    }
    for metric in METRICS:
        (axes,) = missing_rate_figure(summary, metric).axes
        curves = {name_of(one): one for one in axes.containers if isinstance(one, ErrorbarContainer)}
        assert curves.keys() == set(MODELS)
        for model, container in curves.items():
            sweeps = [record["sweep"] for record in RECORDS if record["model"] == model]
            values = 100 * np.array([[functions[metric](*rows_of(sweep[rate])) for rate in sweep] for sweep in sweeps])
            line = container.lines[0]
            np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), values.mean(axis=0))
            np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), np.arange(8) / 10, atol=0.02)
            low, high = ends_of(container)
            np.testing.assert_allclose((high - low) / 2, values.std(axis=0, ddof=1))


def name_of(line: Any) -> str:
    """Model of a line, without the area that follows its name."""
    return re.sub(r"  \d+\.\d+$", "", str(line.get_label()))


def test_rate_curves_are_metrics_of_their_counts_with_the_area(summary: Summary) -> None:
    names = [name for name in CURVES if name != "modalities"]
    figure = rate_curves_figure(summary, "WA")
    for name, axes in zip(names, figure.axes, strict=True):
        assert CURVES[name].meaning in axes.get_xlabel()
        drawn = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
        assert [name_of(one) for one in drawn] == best_first(RECORDS, "WA")
        for container in drawn:
            runs = [record["curves"][name] for record in RECORDS if record["model"] == name_of(container)]
            matrices = np.array([[run[rate] for rate in run] for run in runs], dtype=float)
            values = 100 * np.trace(matrices, axis1=2, axis2=3) / matrices.sum(axis=(2, 3))
            line = container.lines[0]
            np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), values.mean(axis=0))
            rates = np.array(CURVES[name].rates)
            np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), rates, atol=0.06)
            trapezoid = ((values[:, 1:] + values[:, :-1]) / 2 * np.diff(rates)).sum(axis=1) / rates[-1]
            assert str(container.get_label()).endswith(f"  {trapezoid.mean():.1f}")
    with pytest.raises(InputError, match="no model of this board has a curve of lost or noisy frames"):
        rate_curves_figure(summarise_board([record | {"curves": {}} for record in RECORDS]), "WA")


def rows_of(confusion: list[list[int]]) -> tuple[list[int], list[int]]:
    """Labels and predictions that a confusion matrix counts."""
    cells = [(i, j) for i, row in enumerate(confusion) for j, count in enumerate(row) for _ in range(count)]
    return [i for i, _ in cells], [j for _, j in cells]


def test_confusion_matrices_are_sums_over_runs(summary: Summary) -> None:
    figure = pooled_confusion_figure(summary)
    drawn = {axes.get_title().split("\n")[0]: axes for axes in figure.axes if axes.get_visible()}
    assert drawn.keys() == set(MODELS)
    for entry in summary.entries:
        runs = [record for record in RECORDS if record["model"] == entry.model]
        total = {name: np.sum([run["confusion"][name] for run in runs], axis=0) for name in CONDITIONS}
        pooled = np.sum([total[name] for name in MISSING_CONDITIONS], axis=0)
        assert shown(drawn[entry.model]) == pooled.ravel().tolist()
        wa, ua = (100 * np.mean([run["metrics"]["pooled"][metric] for run in runs]) for metric in ("WA", "UA"))
        assert drawn[entry.model].get_title().endswith(f"WA {wa:.2f}   UA {ua:.2f}")

        grid = confusion_figure(summary, entry)
        panels = {axes.get_title().split("\n")[0]: axes for axes in grid.axes}
        assert shown(panels["{a,t}"]) == total["at"].ravel().tolist()
        assert shown(panels["full {a,v,t}"]) == total["avt"].ravel().tolist()
        assert shown(panels["pooled"]) == pooled.ravel().tolist()
        assert len(panels) == 8 and entry.model in title(grid) and SYNTHETIC in title(grid)


def shown(axes: Any) -> list[int]:
    """The counts written into a matrix, whose colours are checked to be shares of the row."""
    counts = np.array([int(text.get_text().split("\n")[1]) for text in axes.texts])
    matrix = counts.reshape(len(CLASS_NAMES), -1)
    np.testing.assert_allclose(axes.images[0].get_array(), matrix / matrix.sum(axis=1, keepdims=True))
    result: list[int] = counts.tolist()
    return result


@pytest.mark.parametrize("draw", [conditions_figure, missing_rate_figure])
def test_long_names_stay_inside_the_picture(draw: Callable[[Summary, Metric], Figure]) -> None:
    names = ["IFMMIN", "MMIN", "MMINWithoutCycle", "ModalityDropout", "CompleteFusion", "CMARR", "MCTN"]
    records = [r for r in board_records(names, [1, 2], [0]) if r["fold"] == 1 or r["model"] == "IFMMIN"]
    figure = draw(summarise_board(records), "WA")
    figure.canvas.draw()
    legend = figure.legends[0] if figure.legends else figure.axes[0].get_legend()
    assert legend is not None
    assert sum("only 1 run" in text.get_text() for text in legend.get_texts()) == 6
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1


MANY = [*NAMED[:20], "Mine", "Yours", *(f"Model{number}" for number in range(8))]


def test_more_than_eight_models_are_dots_with_the_limit_of_each_condition() -> None:
    eight = summarise_board(board_records(MANY[:8], [1], [0]))
    assert len(conditions_figure(eight, "WA").axes[0].patches) == 8 * len(ROWS)
    records = board_records(MANY, [1, 2], [0, 1], "Synthetic", is_synthetic=True, unanswered=[MANY[3]])
    summary = summarise_board(records)
    figure = conditions_figure(summary, "WA")
    (axes,) = figure.axes
    dots = {str(one.get_label()): one for one in axes.containers if isinstance(one, ErrorbarContainer)}
    assert list(dots) == best_first(records, "WA") and len(dots) == 30
    assert not [one for one in axes.containers if isinstance(one, BarContainer)]
    for place, (model, container) in enumerate(dots.items()):
        runs = [record["metrics"] for record in records if record["model"] == model]
        rows = ROWS if model != MANY[3] else ("avt",)
        values = 100 * np.array([[run[row]["WA"] for row in rows] for run in runs])
        line = container.lines[0]
        across, up = (np.asarray(data, dtype=float) for data in (line.get_xdata(), line.get_ydata()))
        np.testing.assert_allclose(up, values.mean(axis=0))
        low, high = ends_of(container)
        np.testing.assert_allclose((high - low) / 2, values.std(axis=0, ddof=1))
        assert [round(where) for where in across] == [ROWS.index(row) for row in rows]
        # From left to right by rank, the same in every condition.
        np.testing.assert_allclose(across - np.round(across), (place - 14.5) * 0.84 / 30)
        assert line.get_linestyle() == "None"
    (limits,) = (one for one in axes.collections if one.get_label() == "Bayes limit")
    assert isinstance(limits, LineCollection)
    by_fold = [next(r["metrics"] for r in records if r["fold"] == fold) for fold in (1, 2)]
    expected = [100 * np.mean([rows[row]["bayes_WA"] for rows in by_fold]) for row in ROWS]
    np.testing.assert_allclose([np.asarray(one)[0, 1] for one in limits.get_segments()], expected)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*dots, "Bayes limit"]
    box = legend.get_window_extent()
    assert axes.get_window_extent().x1 <= box.x0 and box.x1 <= figure.bbox.x1 and 0 <= box.y0 < box.y1 <= figure.bbox.y1
    assert axes.get_ylim()[0] > 30


@pytest.mark.parametrize("count", [12, 30, 48])
def test_the_legend_of_any_number_of_models_is_whole(count: int) -> None:
    names = [f"Model{number}" for number in range(count)]
    summary = summarise_board(board_records(names, [1], [0], "Synthetic", is_synthetic=True))
    for figure in (conditions_figure(summary, "WA"), missing_rate_figure(summary, "WA")):
        figure.canvas.draw()
        legend = figure.legends[0] if figure.legends else figure.axes[0].get_legend()
        assert legend is not None and len(legend.get_texts()) >= count
        box = legend.get_window_extent()
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1 and box.x1 <= figure.bbox.x1


def test_every_line_of_many_has_its_own_look() -> None:
    summary = summarise_board(board_records(MANY, [1, 2], [0]))
    figure = missing_rate_figure(summary, "WA")
    figure.canvas.draw()
    lines = [one.lines[0] for one in figure.axes[0].containers if isinstance(one, ErrorbarContainer)]
    looks = {
        (to_hex(one.get_color()), one.get_marker(), one.get_linestyle(), one.get_markerfacecolor()) for one in lines
    }
    assert len(lines) == len(looks) == 30
    legend = figure.axes[0].get_legend()
    assert legend is not None and len(legend.get_texts()) == 30
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


def test_published_curves_are_in_a_panel_of_their_own_protocol() -> None:
    with RATES_FILE.open(newline="", encoding="utf-8") as file:
        published = [line for line in csv.DictReader(file) if line["corpus"] == "IEMOCAP (4 classes)"]
    summary = summarise_board(board_records(["IFMMIN", "MMIN"], [1, 2], [0]))
    for metric, name in (("WA", "ACC"), ("UA", "UA")):
        ours, theirs = missing_rate_figure(summary, metric).axes
        assert [name_of(one) for one in ours.containers] == [entry.model for entry in summary.entries]
        lines = [line for line in published if line["metric"] == name and line["protocol"] == "modality dropping, rate"]
        expected = sorted((line["model"], float(line["rate_or_condition"]), float(line["value"])) for line in lines)
        drawn, beside = [], []
        for one in theirs.containers:
            assert isinstance(one, ErrorbarContainer)
            model, line = str(one.get_label()).split(" [")[0], one.lines[0]
            if model.endswith(", ours"):
                entry = next(entry for entry in summary.entries if entry.model == model.removesuffix(", ours"))
                cells = entry.curves["share"].cells[metric].values()
                np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), [100 * c.mean for c in cells])
                beside.append(entry.model)
                continue
            assert to_hex(line.get_color()) == COLOURS[look_of(model).colour]
            assert line.get_marker() == MARKERS[look_of(model).marker]
            points = zip(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist(), strict=True)
            drawn += [(model, rate, round(value, 6)) for rate, value in points]
        assert sorted(drawn) == expected
        assert ours.get_ylim() == theirs.get_ylim()
        below = " ".join(theirs.get_xlabel().split())
        assert below.startswith("modality dropping, rate: ")
        assert all(line["source"] in below for line in lines) and "other features" in below
        assert "ours in their protocol" in theirs.get_title()
        assert beside == [entry.model for entry in summary.entries]
    assert len(missing_rate_figure(summary, "F1").axes) == 1
    for records in (RECORDS, board_records(["MMIN"], [1], [0], "MSP-IMPROV")):
        assert len(missing_rate_figure(summarise_board(records), "WA").axes) == 1


def test_the_look_follows_from_the_name_alone() -> None:
    assert len({look_of(name) for name in NAMED}) == len(NAMED)
    assert len({(look.colour, look.marker) for look in map(look_of, NAMED)}) == len(NAMED)
    assert [look_of(name).hollow for name in ("MMIN", "CIF-MMIN", "Mine", "")] == [False, False, True, True]
    assert [look_of(name).colour for name in NAMED[:8]] == list(range(8))
    others = [look_of(f"Model{number}") for number in range(2000)]
    for part, count in (("colour", 8), ("marker", 9), ("line", 4)):
        shares = np.bincount([getattr(look, part) for look in others]) / len(others)
        assert len(shares) == count and abs(shares * count - 1).max() < 0.35
    assert len(set(others)) == 288


def test_a_model_looks_the_same_in_every_picture_and_on_every_page() -> None:
    css, script = (
        (CHECKOUT / "benchmarks/leaderboard/report" / name).read_text(encoding="utf-8")
        for name in ("page.css", "charts.js")
    )
    assert re.findall(r"--c[0-7]: (#\w+)", css)[: len(COLOURS)] == list(COLOURS)
    shapes = script[script.index("const SHAPES = {") : script.index("function marker(")]
    assert {"o", *re.findall(r'^  "?([^\s":]+)"?: ', shapes, re.MULTILINE)} == set(MARKERS)
    assert {f".line.s{number}" for number in range(1, len(DASHES))} <= set(re.findall(r"\.line\.s\d", css))
    for models in (["MMIN", "IFMMIN"], MANY):
        summary = summarise_board(board_records(models[::-1], [1], [0]))
        (axes,) = conditions_figure(summary, "UA").axes
        drawn = {}
        for one in axes.containers:
            if isinstance(one, BarContainer):
                drawn[str(one.get_label())] = to_hex(one.patches[0].get_facecolor())
            elif isinstance(one, ErrorbarContainer) and one.lines[0] is not None:
                drawn[str(one.get_label())] = to_hex(one.lines[0].get_color())
        embedded = re.search(r'id="data">(.*?)</script>', page_html(summary), re.DOTALL)
        assert embedded
        looks = {model["name"]: model["look"] for model in json.loads(embedded[1])["models"]}
        assert {name: COLOURS[look["colour"]] for name, look in looks.items()} == drawn
        for name, look in looks.items():
            own = look_of(name)
            assert look == {"colour": own.colour, "marker": MARKERS[own.marker], "line": own.line, "hollow": own.hollow}
