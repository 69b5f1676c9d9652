"""The figures: what they draw, against numbers computed another way; the same bytes every time; clear refusals."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray
from sklearn.metrics import f1_score, recall_score
from threadpoolctl import threadpool_limits

from benchmarks.figures.__main__ import best_run_with_invariant_features, drawings, main
from benchmarks.figures.conditions import conditions_figure
from benchmarks.figures.confusion import confusion_figure, pooled_confusion_figure
from benchmarks.figures.curves import loss_figure, weights_figure
from benchmarks.figures.invariance import (
    Points,
    chosen_utterances,
    draw_features,
    embed,
    features_figure,
    predicted_invariant_points,
)
from benchmarks.figures.missing_rate import missing_rate_figure
from benchmarks.figures.style import DASHES
from benchmarks.leaderboard.looks import COLOURS, MARKERS, NAMED, look_of
from benchmarks.leaderboard.published import METRICS, Metric
from benchmarks.leaderboard.published_rates import RATES_FILE
from benchmarks.leaderboard.records import latest_records
from benchmarks.leaderboard.report.page import page_html
from benchmarks.leaderboard.summary import Summary
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS, present_under
from datamodules.errors import InputError
from ifmmin.finished import FinishedRun, read_run
from ifmmin.model import IFMMIN
from tests.benchmarks.leaderboard.boards import CLASS_NAMES, board_records, summarise_board
from tests.cli.running import CHECKOUT, SMALL, best, fit, metrics

SYNTHETIC = "built-in synthetic corpus (not a corpus result)"

OF_A_RUN = ("confusion", "invariant_features", "invariance_loss")
ROWS = (*MISSING_CONDITIONS, "mean", "avt")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("figures") / "run", *SMALL, epochs=2)


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A run that a test may damage."""
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("figures", "tensorboard", "stage1"))
    return tmp_path / "copy"


def change(run: Path, **values: Any) -> None:
    """Rewrite parts of a run's result; ``record`` is merged."""
    result = metrics(run)
    result["record"] |= values.pop("record", {})
    (run / "metrics.json").write_text(json.dumps(result | values), encoding="utf-8")


def write_board(folder: Path, records: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return folder


def files(names: tuple[str, ...]) -> set[str]:
    return {name + suffix for name in names for suffix in (".png", ".pdf")}


# The commands.


def test_figures_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run)]) == 0
    written = {path.name: path for path in (run / "figures").iterdir()}
    assert written.keys() == files(OF_A_RUN)
    assert set(capsys.readouterr().out.split()) == set(map(str, written.values()))
    for name in OF_A_RUN:
        pixels = imread(written[f"{name}.png"])
        assert min(pixels.shape[:2]) >= 800 and pixels[..., :3].std() > 0.05
        assert written[f"{name}.pdf"].read_bytes().startswith(b"%PDF")


def test_a_board_and_its_best_run_have_the_same_bytes_in_another_process(run: Path, tmp_path: Path) -> None:
    # The other folds and seeds have no folder: the first is drawn.
    records = board_records(["IFMMIN"], folds=[1, 2], seeds=[0, 1], is_synthetic=True)
    board = write_board(tmp_path / "board", records[::-1])
    shutil.copytree(run, board / "runs" / "fold1" / "IFMMIN-seed0")
    assert main([str(board), "--output", str(tmp_path / "1")]) == 0
    command = [sys.executable, "-m", "benchmarks.figures", str(board), "--output", str(tmp_path / "2")]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "1"}
    again = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "left out" not in again.stdout
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in "12")
    of_metrics = tuple(f"{kind}_{metric}" for kind in ("conditions", "missing_rate") for metric in METRICS)
    assert first.keys() == files((*OF_A_RUN, *of_metrics, "confusion_IFMMIN"))
    assert first == second


def test_figures_that_cannot_be_drawn_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = write_board(tmp_path, board_records(["IFMMIN"], [1], [0], unanswered=["IFMMIN"]))
    assert main([str(board)]) == 0
    lines = [line.split(": ", 2) for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    reasons = {name: reason for _, name, reason in lines}
    assert reasons.keys() == {"invariant_features", "invariance_loss", *(f"missing_rate_{m}" for m in METRICS)}
    assert "runs/fold1/IFMMIN-seed0" in reasons["invariance_loss"] and "missing rate" in reasons["missing_rate_UA"]
    assert (board / "figures" / "conditions_UA.png").is_file()
    with pytest.raises(InputError, match="no model of this board predicts invariant features"):
        best_run_with_invariant_features(board, summarise_board(board_records(["MMIN", "Unknown"], [1], [0])))


def test_the_last_record_of_a_run_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = board_records(["IFMMIN", "MMIN"], [1], [0, 1])
    old = [record | {"identity": record["identity"] | {"code": "before"}} for record in records[1:]]
    kept = latest_records(write_board(tmp_path, old + records))
    assert [record.identity for record in kept] == [record["identity"] for record in records]
    assert capsys.readouterr().out.startswith("not used: 3 record(s)")


def test_reasons_for_which_the_features_of_a_run_cannot_be_drawn(run: Path, copied: Path) -> None:
    best(copied).unlink()
    with pytest.raises(InputError, match=r"copy/checkpoints/epoch\d+\.ckpt: there is no such checkpoint"):
        features_figure(read_run(copied))
    shutil.copy(best(run), copied / "checkpoints")
    other_data = metrics(run)["record"]["config"]
    other_data["data"]["init_args"]["fold"] = 2
    changes: dict[str, dict[str, Any]] = {
        "the run kept no checkpoint": {"record": {"checkpoint": None}},
        "not the data that": {"record": {"config": other_data}},
        "a checkpoint of IFMMIN, not of ModalityDropout": {"model": "ModalityDropout"},
        "Did you mean IFMMIN": {"model": "IFMIN"},
    }
    for message, values in changes.items():
        shutil.copy(run / "metrics.json", copied)
        change(copied, **values)
        with pytest.raises(InputError, match=message):
            features_figure(read_run(copied))


def test_wrong_input_is_one_line(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").touch()
    write_board(tmp_path / "no records", [])
    other = board_records(["IFMMIN"], [1], [0]) + board_records(["MMIN"], [2], [0], corpus="MSP-IMPROV")
    write_board(tmp_path / "two corpora", other)
    expected = {
        "nowhere": "neither a board",
        "empty": "neither a board",
        "file": "neither a board",
        "unfinished": "fit --resume",
        "no records": "no record",
        "two corpora": "differ in corpus",
    }
    for name, message in expected.items():
        assert main([str(tmp_path / name)]) == 1
        out, error = capsys.readouterr()
        assert (out, error.count("\n")) == ("", 1) and message in error
        assert not (tmp_path / name / "figures").exists()
    for text in ("{", "{}", "[]", '{"confusion": {"a": 1}}'):
        (copied / "metrics.json").write_text(text, encoding="utf-8")
        assert main([str(copied)]) == 1
        assert "metrics.json" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([str(run), "--output", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "file") in error and error.count("\n") == 1


# Of a run.


def test_points_are_the_invariant_features_of_each_utterance_alone(run: Path) -> None:
    model, data = read_run(run).load()
    assert isinstance(model, IFMMIN)
    points = predicted_invariant_points(model, data, "test")
    utterances = len(data.indices("test"))
    assert points.features.shape == (6 * utterances, 384) and set(points.utterances) == {
        data.corpus.utterances[row] for row in data.indices("test")
    }
    expected: dict[str, list[NDArray[np.float32]]] = {condition: [] for condition in MISSING_CONDITIONS}
    with torch.no_grad():
        for batch in data.in_order("test"):
            for number in range(len(batch.utterances)):
                for condition in MISSING_CONDITIONS:
                    present = torch.tensor([present_under(condition)])
                    alone = replace(batch, row=torch.tensor([number]), present=present)
                    expected[condition].append(model.invariance(model.encoders(alone)).flatten().numpy())
    for condition in MISSING_CONDITIONS:
        own = points.features[points.condition == CONDITIONS.index(condition)]
        np.testing.assert_allclose(own, np.stack(expected[condition]), atol=1e-5)


def test_the_choice_of_utterances_depends_on_their_names_alone(run: Path) -> None:
    _, data = read_run(run).load()
    names = data.corpus.utterances
    chosen = chosen_utterances(data, "train", 20)
    first = {names[row] for row in chosen}
    assert len(first) == 20 and first <= {names[row] for row in data.indices("train")}
    assert set(chosen) != set(data.indices("train")[:20])
    rows = data.indices
    data.indices = lambda split: rows(split)[::-1]  # type: ignore[method-assign]
    assert {names[row] for row in chosen_utterances(data, "train", 20)} == first
    assert len(chosen_utterances(data, "test")) == len(rows("test")) < 100


def test_a_mark_for_every_point(run: Path) -> None:
    condition = np.repeat(np.arange(6), 5)
    features = np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32)
    places = np.arange(60.0).reshape(30, 2)
    figure = draw_features(read_run(run), Points(features, condition, tuple("abcde")), places)
    (axes,) = figure.axes
    marks = [marks for marks in axes.collections if isinstance(marks, PathCollection)]
    assert [str(one.get_label()) for one in marks] == ["{a}", "{v}", "{t}", "{a,v}", "{a,t}", "{v,t}"]
    for number, one in enumerate(marks):
        np.testing.assert_array_equal(np.asarray(one.get_offsets()), places[5 * number : 5 * number + 5])
    assert SYNTHETIC in title(figure) and "5 utterances under each" in title(figure)


def test_t_sne_keeps_clusters_apart_and_refuses_constant_features() -> None:
    rng = np.random.default_rng(0)
    cluster = np.arange(60) % 3
    features = (rng.normal(size=(60, 10)) + 20 * np.eye(10)[cluster]).astype(np.float32)
    places = embed(features)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.diag(np.full(60, np.inf))
    assert (cluster[distances.argmin(axis=1)] == cluster).all()
    with threadpool_limits(2):
        np.testing.assert_array_equal(places, embed(features))
    assert embed(features[:6]).shape == (6, 2)
    with pytest.raises(InputError, match="the same for all"):
        embed(np.ones((60, 10), dtype=np.float32))


def test_the_curve_is_what_was_logged_over_all_logs(copied: Path) -> None:
    with (copied / "logs" / "metrics.csv").open(newline="") as file:
        logged = [float(row["train/inv"]) for row in csv.DictReader(file) if row["train/inv"]]
    assert len(logged) == 2 and len(set(logged)) == 2
    assert curve(read_run(copied)) == pytest.approx({1: logged[0], 2: logged[1]})
    # It went on after its first epoch; "logs-10" is later than "logs-2", and a copy made by hand does not count.
    for name, rows in {"logs-2": "1,0.5\n2,0.4", "logs-10": "2,0.3\n3,", "logs-old": "0,9"}.items():
        (copied / name).mkdir()
        (copied / name / "metrics.csv").write_text(f"epoch,train/inv\n{rows}\n")
    assert curve(read_run(copied)) == pytest.approx({1: logged[0], 2: 0.5, 3: 0.3})
    (copied / "logs-2" / "metrics.csv").write_text("epoch,train/inv\n1,x\n")
    with pytest.raises(InputError, match=r"logs-2/metrics\.csv: damaged"):
        loss_figure(read_run(copied))
    for name in ("logs", "logs-2", "logs-10"):
        (copied / name / "metrics.csv").write_text("epoch,train/loss\n1,0.5\n")
    with pytest.raises(InputError, match="logs no train/inv"):
        loss_figure(read_run(copied))


def curve(run: FinishedRun) -> dict[int, float]:
    """What is drawn at each epoch."""
    (axes,) = loss_figure(run).axes
    (line,) = axes.lines
    return dict(zip(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist(), strict=True))


def test_the_weights_of_modalities_are_what_was_logged_at_each_step(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="logs no train/beta/audio"):
        weights_figure(read_run(copied))
    change(copied, model="RedCore")
    rows = {0: (1.0, 0.5, 0.25), 1: (0.9, 0.5, 0.3), 2: (0.8, 0.4, 0.4)}
    columns = ",".join(f"train/beta/{name}" for name in ("text", "audio", "visual"))
    for name, steps in {"logs": (0, 1), "logs-2": (1, 2)}.items():
        lines = [f"0,{step},{t},{a},{v},0.5" for step, (a, v, t) in rows.items() if step in steps]
        lines.append("0,1,,,,0.7")  # what is logged once an epoch
        (copied / name).mkdir(exist_ok=True)
        text = "\n".join([f"epoch,step,{columns},train/loss", *lines])
        # After its resume it took the second step again, to another value.
        (copied / name / "metrics.csv").write_text(text.replace("0.3,0.9", "7,7") if name == "logs" else text)
    (axes,) = weights_figure(read_run(copied)).axes
    drawn = {str(line.get_label()): line for line in axes.lines}
    assert list(drawn) == ["audio", "visual", "text"]
    for number, line in enumerate(drawn.values()):
        assert np.asarray(line.get_xdata()).tolist() == [1, 2, 3]
        assert np.asarray(line.get_ydata()).tolist() == [row[number] for row in rows.values()]
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn.values()}) == 3
    assert main([str(copied)]) == 0
    assert "adaptive_weights.pdf" in capsys.readouterr().out
    assert {path.name for path in (copied / "figures").iterdir()} >= files(("adaptive_weights",))
    # Of a board, from its first fold and seed; the other runs have no folder.
    board = write_board(copied / "board", board_records(["MMIN", "RedCore"], folds=[1, 2], seeds=[0, 1])[::-1])
    shutil.copytree(copied, board / "runs/fold1/RedCore-seed0", ignore=shutil.ignore_patterns("board", "figures"))
    drawn_of_board = dict(drawings(board))
    assert drawn_of_board["adaptive_weights"]().axes[0].lines
    assert "adaptive_weights" not in dict(drawings(write_board(copied / "other", board_records(["MMIN"], [1], [0]))))


# Of a board.

MODELS = ["CMARR", "IFMMIN", "MCTN"]
RECORDS = board_records(MODELS, folds=[1, 2], seeds=[0, 1, 2], corpus="Synthetic", is_synthetic=True)


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarise_board(RECORDS)


def title(figure: Figure) -> str:
    return str(figure.get_suptitle())


def test_bars_are_means_and_standard_deviations_over_runs(summary: Summary) -> None:
    for metric in METRICS:
        figure = conditions_figure(summary, metric)
        (axes,) = figure.axes
        bars = {str(one.get_label()): one for one in axes.containers if isinstance(one, BarContainer)}
        assert list(bars) == [entry.model for entry in summary.entries]
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
    assert [one.get_label() for one in axes.containers] == ["IFMMIN"]


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
        curves = {str(one.get_label()): one for one in axes.containers if isinstance(one, ErrorbarContainer)}
        assert curves.keys() == set(MODELS)
        for model, container in curves.items():
            sweeps = [record["sweep"] for record in RECORDS if record["model"] == model]
            values = 100 * np.array([[functions[metric](*rows_of(sweep[rate])) for rate in sweep] for sweep in sweeps])
            line = container.lines[0]
            np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), values.mean(axis=0))
            np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), np.arange(8) / 10, atol=0.02)
            low, high = ends_of(container)
            np.testing.assert_allclose((high - low) / 2, values.std(axis=0, ddof=1))


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
    assert list(dots) == [entry.model for entry in summary.entries] and len(dots) == 30
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
        assert [one.get_label() for one in ours.containers] == [entry.model for entry in summary.entries]
        lines = [line for line in published if line["metric"] == name and line["protocol"] == "modality dropping, rate"]
        expected = sorted((line["model"], float(line["rate_or_condition"]), float(line["value"])) for line in lines)
        drawn = []
        for one in theirs.containers:
            assert isinstance(one, ErrorbarContainer)
            model, line = str(one.get_label()).split(" [")[0], one.lines[0]
            assert to_hex(line.get_color()) == COLOURS[look_of(model).colour]
            assert line.get_marker() == MARKERS[look_of(model).marker]
            points = zip(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist(), strict=True)
            drawn += [(model, rate, round(value, 6)) for rate, value in points]
        assert sorted(drawn) == expected
        assert ours.get_ylim() == theirs.get_ylim()
        below = " ".join(theirs.get_xlabel().split())
        assert below.startswith("modality dropping, rate: ")
        assert all(line["source"] in below for line in lines) and "other features" in below
        assert "not our runs" in theirs.get_title()
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
