"""Published figures by missing rate and under other protocols: read whole, and never two protocols together."""

from __future__ import annotations

import csv
import html
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.leaderboard.published_rates import (
    COLUMNS,
    PROTOCOLS,
    RATES_FILE,
    columns_of,
    curves,
    other_tables,
    published_areas,
    read_figures,
)
from benchmarks.leaderboard.report.page import page_html
from benchmarks.leaderboard.report.tables import csv_text
from datamodules.errors import InputError
from tests.benchmarks.leaderboard.boards import board_records, summarise_board

BOARDS = [("IEMOCAP", 4), ("IEMOCAP", 6), ("CMU-MOSI", 0), ("CMUMOSEI", 0)]
CLASSES, VALUES = ("WA", "UA", "F1"), ("MAE", "Corr", "Acc7", "Acc2_has0", "F1_has0", "Acc2_non0", "F1_non0")
GOOD = 'IEMOCAP (4 classes),MMIN,ACC,"modality dropping, rate",0.1,72.3,,a paper,'


def lines() -> list[dict[str, str]]:
    with RATES_FILE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_line_of_the_file_is_of_one_board() -> None:
    found = sorted(
        (figures.model, figures.metric, figures.protocol, figures.source, at, value)
        for corpus, classes in BOARDS
        for figures in read_figures(corpus, classes)
        for at, value in figures.printed.items()
    )
    names = ("model", "metric", "protocol", "source", "rate_or_condition")
    expected = sorted((*(line[name] for name in names), line["value"]) for line in lines())
    assert found == expected and len(found) == 811
    notes = {note for corpus, classes in BOARDS for figures in read_figures(corpus, classes) for note in [figures.note]}
    assert all(any(line["note"] in note for note in notes) for line in lines())


def test_curves_and_tables_hold_everything_and_never_mix_protocols() -> None:
    for corpus, classes in BOARDS:
        scores = CLASSES if classes else VALUES
        figures = read_figures(corpus, classes)
        drawn, tables = curves(figures, scores), other_tables(figures, scores)
        shown = [each for by_score in drawn.values() for group in by_score.values() for each in group]
        shown += [each for group in tables.values() for each in group]
        shown += [each for score in scores for each in published_areas(figures, score)]
        assert sorted(map(repr, shown)) == sorted(map(repr, figures))
        for protocol, by_score in drawn.items():
            assert protocol in PROTOCOLS
            assert {each.protocol for group in by_score.values() for each in group} == {protocol}
        for (protocol, metric), group in tables.items():
            assert {(each.protocol, each.metric) for each in group} == {(protocol, metric)}
    four = curves(read_figures("IEMOCAP", 4), CLASSES)
    assert {score: len(group) for score, group in four["modality dropping, rate"].items()} == {"WA": 7, "UA": 3}
    assert not curves(read_figures("IEMOCAP", 4), VALUES)
    # What the tables of six conditions have already is not here again.
    assert "six conditions, pooled" not in {line["protocol"] for line in lines()}


def test_a_rate_of_batches_is_not_one_of_modalities() -> None:
    """The public code of IMDer drops modalities of whole batches."""
    for corpus in ("CMU-MOSI", "CMU-MOSEI"):
        of_model = defaultdict(set)
        for figures in read_figures(corpus, 0):
            if "reprinted there from its own paper" in figures.note:
                of_model[figures.model].add(figures.protocol)
        assert of_model["IMDer"] == {"batches losing modalities, rate"}
        assert of_model["DiCMoR"] == {"modality dropping, rate"}


def test_points_and_columns() -> None:
    (figures,) = (
        each
        for each in read_figures("IEMOCAP", 4)
        if (each.model, each.metric, each.source[:4]) == ("MoMKE", "UA", "ComP")
    )
    assert [figures.points()[place] for place in (0, -1)] == [
        pytest.approx((0.1, 0.7580)),
        pytest.approx((0.7, 0.6553)),
    ]
    assert "other features" in figures.reference and "wav2vec" in figures.reference
    weighted = other_tables(read_figures("IEMOCAP", 4), CLASSES)["six conditions (available)", "F1 (weighted)"]
    assert columns_of(weighted) == ["a", "v", "t", "av", "at", "vt", "mean"]
    (mean,) = (each for each in read_figures("IEMOCAP", 6) if each.model == "MCTN" and "mean" in each.printed)
    assert mean.note == "re-run by the source, BERT text, 10 seeds, single split; its average"


def test_the_board_shows_them_with_their_sources() -> None:
    board = summarise_board(board_records(["IFMMIN", "MMIN"], [1, 2], [0]))
    page = html.unescape(page_html(board))
    section = re.search(r'id="elsewhere-title">(.*?)</section>', page, re.DOTALL)
    assert section is not None
    assert re.findall("<caption>(.*?)</caption>", section[1]) == ["F1 (weighted) in %: six conditions (available)"]
    for figures in board.figures:
        assert figures.source in page and figures.note in page
        if figures.metric == "F1 (weighted)":
            assert figures.source in section[1]
            assert all(f"<td>{value}</td>" in section[1] for value in figures.printed.values())
    rows = [line for line in csv.DictReader(csv_text(board).splitlines()) if "modality dropping" in line["condition"]]
    expected = [line for line in lines() if line["corpus"] == "IEMOCAP (4 classes)" and "dropping" in line["protocol"]]
    assert sorted((r["model"], float(r["mean"]), r["source"]) for r in rows) == sorted(
        (line["model"], float(line["value"]), line["source"]) for line in expected
    )
    assert {row["kind"] for row in rows} == {"published"} and {row["metric"] for row in rows} == {"WA", "UA"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD, "MMIN has '0.1' twice"),
        (GOOD.replace("0.1", "t"), "'t' is no rate"),
        (GOOD.replace("0.1", "1.2"), "'1.2' is no rate"),
        (GOOD.replace("72.3", "172.3"), "'172.3' is not a percentage"),
        (GOOD.replace("ACC", "MAE").replace("72.3", "nan"), "'nan' is no number"),
        (GOOD.replace(",,a paper", ",none,a paper"), "the mark 'none'"),
        (GOOD.replace("a paper", ""), "source"),
    ],
)
def test_wrong_lines_are_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{GOOD}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_figures("IEMOCAP", 4, path)
    assert str(error.value).startswith(f"{path}, line 3")


def test_no_figure_is_beside_another_corpus() -> None:
    def figures(**changes: Any) -> tuple[object, ...]:
        return summarise_board([{**record, **changes} for record in board_records(["MMIN"], [1], [0])]).figures

    assert figures() != ()
    assert figures(is_synthetic=True) == figures(corpus="MSP-IMPROV") == figures(corpus="Folder-IEMOCAP") == ()
