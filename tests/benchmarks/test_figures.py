"""The figures of a run, against numbers computed another way; the same bytes every time; clear refusals."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.container import BarContainer
from matplotlib.image import imread
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.figures.__main__ import best_run_with_invariant_features, drawings, main
from benchmarks.figures.curves import loss_figure, weights_figure
from benchmarks.figures.invariance import (
    Points,
    chosen_utterances,
    draw_features,
    embed,
    features_figure,
    predicted_invariant_points,
)
from benchmarks.figures.shares import shares_figure
from benchmarks.leaderboard.published import METRICS
from benchmarks.leaderboard.records import latest_records
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS, present_under
from datamodules.errors import InputError
from ifmmin.finished import FinishedRun, read_run
from ifmmin.model import IFMMIN
from tests.benchmarks.figure_titles import SYNTHETIC, title
from tests.benchmarks.leaderboard.boards import board_records, summarise_board
from tests.cli.running import CHECKOUT, SMALL, best, fit, metrics

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
    names = (*OF_A_RUN, "shares")
    assert written.keys() == files(names)
    assert set(capsys.readouterr().out.split()) == set(map(str, written.values()))
    for name in names:
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
    of_metrics = tuple(
        f"{kind}_{metric}" for kind in ("conditions", "missing_rate", "rate_curves") for metric in METRICS
    )
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


def test_bars_are_the_mean_shares_of_each_class(run: Path, copied: Path) -> None:
    result = metrics(run)
    names = result["class_names"]
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    said = {(row["utterance"], row["condition"]): row for row in rows}
    complete = [row for row in rows if row["condition"] == "avt"]

    def share(row: dict[str, str], letter: str) -> float:
        """What a modality adds on arrival to the probability of the true class, averaged over six orders."""
        total = 0.0
        for order in permutations("avt"):
            before = "".join(sorted(order[: order.index(letter)], key="avt".index))
            after = "".join(sorted(before + letter, key="avt".index))
            values = [
                float(said[row["utterance"], parts][f"p_{row['label']}"]) if parts else 1 / len(names)
                for parts in (before, after)
            ]
            total += (values[1] - values[0]) / 6
        return total

    (axes,) = shares_figure(read_run(run)).axes
    groups = [[row for row in complete if row["label"] == name] for name in names] + [complete]
    groups = [group for group in groups if group]
    assert [text.get_text().split("\n")[1] for text in axes.get_xticklabels()] == [f"n = {len(g)}" for g in groups]
    for letter, bars in zip("avt", axes.containers, strict=True):
        expected = [np.mean([share(row, letter) for row in group]) for group in groups]
        assert [bar.get_height() for bar in cast(BarContainer, bars)] == pytest.approx(expected, abs=1e-6)
    (copied / "predictions.csv").unlink()
    with pytest.raises(InputError, match=r"predictions.csv: there is no such file"):
        shares_figure(read_run(copied))


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
    condition, label = np.repeat(np.arange(6), 5), np.arange(30) % 4
    features = np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32)
    places = np.arange(60.0).reshape(30, 2)
    figure = draw_features(read_run(run), Points(features, condition, label, tuple("abcde")), places)
    by_condition, by_class = (
        {str(marks.get_label()): np.asarray(marks.get_offsets()) for marks in axes.collections} for axes in figure.axes
    )
    assert list(by_condition) == ["{a}", "{v}", "{t}", "{a,v}", "{a,t}", "{v,t}"]
    for number, found in enumerate(by_condition.values()):
        np.testing.assert_array_equal(found, places[5 * number : 5 * number + 5])
    assert list(by_class) == ["angry", "happy", "neutral", "sad"]
    for number, found in enumerate(by_class.values()):
        np.testing.assert_array_equal(found, places[label == number])
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
