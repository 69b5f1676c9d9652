"""The leaderboard's tables: the right numbers, marked rightly, in every format."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.leaderboard.published import METRICS
from benchmarks.leaderboard.report.page import page_html
from benchmarks.leaderboard.report.rows import BoardRow, board_notes, board_table, probability, signed
from benchmarks.leaderboard.report.tables import csv_text, latex_text, markdown_text, terminal_tables, write_tables
from benchmarks.leaderboard.summary import Summary
from ifmmin.curves import CURVES
from ifmmin.tasks import SUMMARY_ROWS, Classification, Score
from tests.benchmarks.leaderboard.boards import board_records, summarise_board, with_calibration

SYNTHETIC = "built-in synthetic corpus (not a corpus result)"

ODD = r"A\B&C%$E#F_G{H}I~J^K<L>M|N[red]*`"
MODELS = ["IFMMIN", "MMIN", "MCTN", "ModalityDropout", ODD]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """On a real corpus, the last run of ``ODD`` missing."""
    return board_records(MODELS, [1, 2, 3, 4, 5], [0, 1, 2])[:-1]


@pytest.fixture(scope="module")
def board(records: list[dict[str, Any]]) -> Summary:
    return summarise_board(records)


@pytest.fixture(scope="module")
def synthetic() -> Summary:
    models = [*MODELS, "FusionPretraining"]
    return summarise_board(board_records(models, [1, 2, 3], [0, 1], "Synthetic", True, ["FusionPretraining"]))


def spread(records: list[dict[str, Any]], model: str, row: str, metric: str) -> str:
    runs = [100 * record["metrics"][row][metric] for record in records if record["model"] == model]
    return f"{mean(runs):.2f} ± {stdev(runs):.2f}"


def printed(board: Summary, width: int = 180, **options: Any) -> list[str]:
    texts = []
    for table in terminal_tables(board):
        console = Console(width=width, file=io.StringIO(), **options)
        console.print(table)
        texts.append(console.file.getvalue())  # type: ignore[attr-defined]
    return texts


def test_terminal_shows_every_value_uncut(board: Summary, records: list[dict[str, Any]]) -> None:
    for metric, text in zip(METRICS, printed(board)[:3], strict=True):
        assert all(len(line) <= 180 for line in text.splitlines())
        assert f"{metric} in %" in text
        for model in MODELS[:4]:
            row = next(line for line in text.splitlines() if f" {model} " in line)
            expected = [spread(records, model, name, metric) for name in SUMMARY_ROWS]
            assert re.findall(r"\d+\.\d+ ± \d+\.\d+", row) == expected
    assert ODD not in printed(board)[0]  # a name too long is folded, never cut
    assert "…" not in printed(board)[0]
    assert ODD in printed(board, width=220)[0]  # nothing in it is taken for markup
    assert "14 of 15" in printed(board)[0]
    assert "Wilcoxon" in printed(board)[2]


def test_what_is_remarked_on_a_model_is_in_its_row_of_every_table() -> None:
    records = board_records(["EmotionShift", "MMIN"], [1], [0])
    for record in records:
        record["remarks"] = ["around TFN", "reads earlier turns"] if record["model"] == "EmotionShift" else []
    board = summarise_board(records)
    assert [entry.remarks for entry in sorted(board.entries, key=lambda entry: entry.model)] == [
        ("around TFN", "reads earlier turns"),
        (),
    ]
    name = "EmotionShift, around TFN, reads earlier turns"
    assert f"| {name} |" in markdown_text(board)
    assert name in latex_text(board)
    assert name in printed(board, width=260)[0]
    noted = {row["model"] for row in csv.DictReader(io.StringIO(csv_text(board))) if "earlier turns" in row["note"]}
    assert noted == {"EmotionShift"}
    assert "<small>around TFN, reads earlier turns</small>" in page_html(board)


def test_a_model_that_reads_earlier_turns_has_a_limit_of_its_own() -> None:
    records = board_records(["EmotionShift", "MMIN"], [1, 2], [0], is_synthetic=True)
    with_memory = [record for record in records if record["model"] == "EmotionShift"]
    for record in with_memory:
        record["remarks"] = ["reads earlier turns"]
    assert markdown_text(summarise_board(records)).count("Bayes limit |") == 1  # both rules are equal
    assert "Bayes limit, reads" not in markdown_text(summarise_board(records))
    for record in with_memory:
        for row in SUMMARY_ROWS:
            record["metrics"][row]["bayes_WA"] += 0.05
    board = summarise_board(records)
    limits = {}
    for title in ("Bayes limit", "Bayes limit, reads earlier turns"):
        line = next(line for line in markdown_text(board).splitlines() if f"| {title} |" in line)
        limits[title] = [float(cell) for cell in re.findall(r"\d+\.\d+", line)]
    for alone, memory in zip(*limits.values(), strict=True):
        assert memory - alone == pytest.approx(5, abs=0.011)
    entry = next(entry for entry in board.entries if entry.model == "EmotionShift")
    own = [row["metrics"]["mean"]["bayes_WA"] - row["metrics"]["mean"]["WA"] for row in with_memory]
    assert entry.gap["mean"] == pytest.approx(sum(own) / len(own))


def test_terminal_marks_best_and_second(board: Summary) -> None:
    for metric, text in zip(METRICS, printed(board, force_terminal=True)[:3], strict=True):
        for row in SUMMARY_ROWS:
            cells = [cell for entry in board.entries if (cell := entry.cells[metric][row]) and cell.std]
            order = sorted(cells, key=lambda cell: -cell.mean)
            shown = [f"{100 * cell.mean:.2f} ± {100 * (cell.std or 0):.2f}" for cell in order]
            assert f"\x1b[1m{shown[0]}" in text
            assert f"\x1b[4m{shown[1]}" in text
            assert not re.search(rf"\x1b\[[14]m{re.escape(shown[2])}", text)


WA = Score("WA")


def row_of(summary: Summary, metric: str, model: str) -> BoardRow:
    """The measured row of a model."""
    rows = board_table(summary, summary.task.score(metric)).rows
    return next(row for row in rows if row.kind == "measured" and row.model == model)


def test_difference_and_p_stand_in_the_row(board: Summary) -> None:
    text = printed(board)[1]
    for entry in board.entries:
        cells = row_of(board, "UA", entry.model).cells
        test = entry.test["UA"]
        if test is None:
            assert (cells["difference"].text, cells["p"].text) == ("reference", "")
            continue
        expected = f"{100 * test.difference:+.2f}", f"{test.p_holm:.4f}"
        assert (cells["difference"].text, cells["p"].text) == expected
        assert " ".join(expected) in re.sub(" +", " ", text)
    assert (signed(WA, 0.0), signed(WA, -1e-9), probability(1e-6)) == ("0.00", "0.00", "<0.0001")


def test_bayes_limit_stands_below_wa_only(synthetic: Summary) -> None:
    assert synthetic.bayes is not None
    wa, ua, f1, _ = printed(synthetic)
    limit = next(line for line in wa.splitlines() if "Bayes limit  " in line)
    assert re.findall(r"\d+\.\d+", limit) == [f"{100 * synthetic.bayes[row]:.2f}" for row in SUMMARY_ROWS]
    for entry in synthetic.entries:
        cells = row_of(synthetic, "WA", entry.model).cells
        gap = entry.gap["mean"]
        assert cells["gap"].text == ("–" if gap is None else f"{100 * gap:.2f}")
        assert (cells["rank"].text, cells["a"].text) == ("–", "–") or entry.model != "FusionPretraining"
    assert "Bayes" not in ua + f1


def test_published_rows_stand_apart(board: Summary) -> None:
    table = board_table(board, board.task.score("UA"))
    assert [row.kind for row in table.rows] == ["measured"] * 5 + ["published"] * 16
    published = table.rows[5:]
    assert [(row.cells["model"].text, row.cells["model"].note) for row in published[:4]] == [
        ("MCTN", "published [1]"),
        ("MMIN", "published [2], selected on test"),
        ("MMIN", "published [3]"),
        ("CIF-MMIN", "published [4], selected on test"),
    ]
    ours = row_of(board, "UA", "MMIN").cells["a"]
    # Each of the two differences is rounded once, their sum twice.
    assert float(published[1].differences["a"].text) == pytest.approx(float(ours.text) - 59.00, abs=0.0051)
    assert published[1].cells["a"].text == "59.00"
    assert [bool(row.differences) for row in published] == [True, True, True] + [False] * 13
    # A pooled value is in its own column, and nowhere else.
    rerun = published[2]
    assert {name: cell.text for name, cell in rerun.cells.items() if name != "model"} == {
        **dict.fromkeys(SUMMARY_ROWS, "–"),
        "pooled": "63.46",
    }
    pooled = row_of(board, "UA", "MMIN").cells["pooled"]
    assert float(rerun.differences["pooled"].text) == pytest.approx(float(pooled.text) - 63.46, abs=0.0051)
    assert rerun.differences["mean"].text == "–"
    assert all(cell.place == 0 for row in published for cell in row.cells.values())
    text = printed(board)[1]
    assert "[4] authors' plotting script" in text
    assert "not our runs" in text


def test_every_format_says_what_was_selected_on_test(board: Summary) -> None:
    of_score = {"WA": 10, "UA": 11, "F1": 0}
    for score in board.scores:
        rows = board_table(board, score).rows
        assert sum("selected on test" in row.cells["model"].note for row in rows) == of_score[score.name]
    for text in (markdown_text(board), latex_text(board), page_html(board)):
        flat = re.sub(r"\s+|\\(?=[_#\[\]])", " ", text).replace(" [", "[").replace(" ]", "]")
        assert len(re.findall(r"published ?\[\d+\], selected on test", flat)) == 21
        assert text.count("selected on test: the model's public code") + text.count("on test: the model&#39;s") == 2
    assert "MMIN, published [2], " in printed(board)[1]
    lines = csv.DictReader(io.StringIO(csv_text(board)))
    noted = {row["model"].split(" V")[0] for row in lines if row["note"].startswith("selected on test")}
    assert noted == {"MMIN", "CIF-MMIN", "GCNet", "MoMKE"}


def test_every_format_says_what_the_built_in_corpus_is(synthetic: Summary) -> None:
    texts = [*printed(synthetic), csv_text(synthetic), markdown_text(synthetic), latex_text(synthetic)]
    assert all(SYNTHETIC in text for text in texts)
    assert all("published" not in text.lower() for text in texts)


def test_csv(board: Summary, records: list[dict[str, Any]]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(board))))
    measured = [row for row in rows if row["kind"] == "measured"]
    curves = sum(len(curve.rates) + 1 for curve in CURVES.values())  # and the area
    assert len(measured) == len(MODELS) * len(METRICS) * (9 + curves)
    found = {(row["model"], row["metric"], row["condition"]): row for row in measured}
    for model in MODELS:
        for metric in METRICS:
            for name in SUMMARY_ROWS:
                row = found[model, metric, name]
                assert f"{row['mean']} ± {row['std']}" == spread(records, model, name, metric)
                assert (row["n"], row["of"]) == ("14" if model == ODD else "15", "15")
                assert bool(row["rank"]) == (name == "mean")
                assert bool(row["p"]) == bool(row["p_holm"]) == (name == "mean" and model != "IFMMIN")
                assert row["bayes"] == row["gap"] == row["source"] == ""
    entry = next(entry for entry in board.entries if entry.model == "MCTN")
    test = entry.test["F1"]
    assert test is not None
    assert float(found["MCTN", "F1", "mean"]["p_holm"]) == pytest.approx(test.p_holm, rel=1e-5)
    assert float(found["MCTN", "F1", "mean"]["difference"]) == pytest.approx(100 * test.difference, abs=0.0051)
    assert found["MCTN", "UA", "rate 0.3"]["mean"] == f"{100 * entry.sweep['UA']['0.3'].mean:.2f}"

    area = entry.curves["frames"].areas["UA"]
    row = found["MCTN", "UA", "area frames"]
    assert area.low is not None and area.high is not None
    assert (row["mean"], row["low"], row["high"]) == tuple(
        f"{100 * value:.2f}" for value in (area.cell.mean, area.low, area.high)
    )
    assert found["MCTN", "UA", "noise 0.5"]["mean"] == f"{100 * entry.curves['noise'].cells['UA']['0.5'].mean:.2f}"

    published = [row for row in rows if row["kind"] == "published" and ", rate" not in row["condition"]]
    known = [value for row in board.published for value in row.values.values() if value is not None]
    assert [float(row["mean"]) for row in published] == pytest.approx([100 * value for value in known])
    assert all(row["source"] and not row["n"] for row in published)
    assert {row["model"] for row in published if row["difference"]} == {"MMIN", "MCTN"}


def test_csv_gives_limit_and_gap_of_every_row(synthetic: Summary) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(synthetic))))
    assert synthetic.bayes is not None
    for row in rows:
        whole = row["condition"] in SUMMARY_ROWS and row["condition"] != "avt"
        answered = row["model"] != "FusionPretraining" or not whole
        if row["metric"] == "WA" and row["condition"] in SUMMARY_ROWS and answered:
            assert row["bayes"] == f"{100 * synthetic.bayes[row['condition']]:.2f}"
            assert float(row["gap"]) == pytest.approx(float(row["bayes"]) - float(row["mean"]), abs=0.011)
        else:
            assert row["bayes"] == row["gap"] == ""
        assert bool(row["mean"]) == answered


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown(board: Summary, records: list[dict[str, Any]]) -> None:
    sections = re.split(r"^## ", markdown_text(board), flags=re.MULTILINE)
    assert sections[0].startswith("# Leaderboard on IEMOCAP\n")
    for metric, section in zip(METRICS, sections[1:4], strict=True):
        table = [cells_of(line) for line in section.splitlines() if line.startswith("|")]
        assert {len(row) for row in table} == {14}
        assert set(table[1]) == {"---:", ":---"}
        best = {
            name: max(entry.cells[metric][name].mean for entry in board.entries)  # type: ignore[union-attr]
            for name in SUMMARY_ROWS
        }
        for row in table[2:7]:
            model = re.sub(r"\\(.)", r"\1", row[1])
            for name, cell in zip(SUMMARY_ROWS, row[2:11], strict=True):
                value = spread(records, model, name, metric)
                is_best = value.startswith(f"{100 * best[name]:.2f} ")
                assert cell == (f"**{value}**" if is_best else value)
    assert "<L>" not in re.sub(r"\\.", "", markdown_text(board))
    assert "With 5 folds no p can fall below 0.0625" in sections[4]


def test_latex_is_sound(board: Summary, synthetic: Summary) -> None:
    for summary in (board, synthetic):
        text = latex_text(summary)
        code = re.sub(r"(?<!\\)%.*", "", text)
        bare = re.sub(r"\\[\\&%$#_{}]", "", code)  # without what is escaped, or ends a row
        depth = 0
        for character in bare:
            depth += {"{": 1, "}": -1}.get(character, 0)
            assert depth >= 0
        assert depth == 0
        assert bare.count("$") % 2 == 0
        assert not re.search(r"[#~^|<>_&]", re.sub(r"\$[^$]*\$| & ", "", bare))
        assert code.isascii()
        commands = set(re.findall(r"\\[a-zA-Z]+", code))
        assert commands <= {rf"\{name}" for name in (
            *("begin", "end", "centering", "caption", "label", "resizebox", "textwidth", "toprule", "midrule"),
            *("bottomrule", "smallskip", "parbox", "scriptsize", "par", "pm", "cdot", "mathbf", "underline"),
            *("textbackslash", "textasciitilde", "textasciicircum", "textasciigrave"),
        )}  # fmt: skip
        open_environments: list[str] = []
        for kind, name in re.findall(r"\\(begin|end)\{([^}]*)\}", code):
            assert kind == "begin" or open_environments.pop() == name
            open_environments += [name] * (kind == "begin")
        assert not open_environments
        for tabular in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", code, flags=re.DOTALL):
            columns = re.match(r"\{@\{\}([lr]+)@\{\}\}", tabular)
            assert columns
            rows = [line for line in tabular.splitlines() if line.endswith(r" \\")]
            assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns[1]) - 1}


def test_latex_marks_best_and_second(board: Summary) -> None:
    for metric, tabular in zip(METRICS, latex_text(board).split(r"\toprule")[1:4], strict=True):
        rows = [line.split(" & ") for line in tabular.split(r"\midrule")[1].splitlines() if " & " in line]
        assert len(rows) == len(MODELS)
        for column, name in enumerate(SUMMARY_ROWS, start=2):
            cells = {entry.model: entry.cells[metric][name] for entry in board.entries}
            shown = sorted((f"{100 * cell.mean:.2f}" for cell in cells.values() if cell), key=float, reverse=True)
            marked = [row[column] for row in rows]
            assert next(cell for cell in marked if "mathbf" in cell).startswith(rf"$\mathbf{{{shown[0]}}}_{{\pm ")
            second = [cell for cell in marked if "underline" in cell]
            assert shown[0] == shown[1] or second[0].startswith(rf"$\underline{{{shown[1]}}}_{{\pm ")
    assert r"A\textbackslash{}B\&C\%\$E\#F\_G\{H\}I\textasciitilde{}J" in latex_text(board)
    assert "14 of 15" in latex_text(board)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex on this machine")
def test_latex_compiles(board: Summary, tmp_path: Path) -> None:
    write_tables(board, tmp_path)
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{leaderboard}\end{document}"
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_files(board: Summary, tmp_path: Path) -> None:
    paths = write_tables(board, tmp_path / "new", name="table")
    assert [path.name for path in paths] == ["table.csv", "table.md", "table.tex"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    texts = [path.read_text(encoding="utf-8") for path in paths]
    assert texts == [csv_text(board), markdown_text(board), latex_text(board)]


def test_a_board_of_a_corpus_with_gaps_says_how_many_each_condition_counts() -> None:
    records = board_records(["MMIN", "IFMMIN"], [1, 2], [0])
    assert not any("lack a modality" in note for note in board_notes(summarise_board(records)))
    for record in records:
        record["confusion"]["v"] = [[5, 0, 0, 0], [0, 5, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]
        counts = {name: torch.tensor(matrix) for name, matrix in record["confusion"].items()}
        scores = Classification(record["class_names"]).summarise(torch.stack(list(counts.values())))
        record["metrics"] = {row: {**record["metrics"][row], **values} for row, values in scores.items()}
        record["metrics"]["v"]["n"] = 20
        record["metrics"]["pooled"]["n"] = 5 * 553 + 20
    (note,) = [note for note in board_notes(summarise_board(records)) if "lack a modality" in note]
    assert "{a} 553, {v} 20, {t} 553" in note


def test_csv_and_page_show_calibration_over_runs_before_and_after() -> None:
    records = with_calibration(board_records(["IFMMIN", "MMIN"], [1, 2], [0]))
    records[-1]["calibration"]["a"]["calibrated_Brier"] = None  # of one run of MMIN
    board = summarise_board(records)
    rows = {
        (row["model"], row["metric"], row["condition"]): row for row in csv.DictReader(io.StringIO(csv_text(board)))
    }
    for model, column, condition in [("IFMMIN", "ECE", "av"), ("MMIN", "calibrated_NLL", "pooled")]:
        values = [record["calibration"][condition][column] for record in records if record["model"] == model]
        row, factor, digits = rows[model, column, condition], *((100, 2) if column == "ECE" else (1, 3))
        assert row["mean"] == f"{factor * mean(values):.{digits}f}"
        assert row["std"] == f"{factor * stdev(values):.{digits}f}"
        assert (row["n"], row["kind"]) == ("2", "measured")
    assert ("MMIN", "calibrated_Brier", "a") not in rows
    assert ("IFMMIN", "temperature", "avt") in rows
    page = page_html(board)
    section = page[page.index('id="calibration-title"') :]
    assert re.findall("<caption>(.*?), mean", section)[:4] == ["ECE in %", "Brier", "NLL", "AURC"]
    values = [record["calibration"]["av"]["Brier"] for record in records[:2]]
    assert f"<td>{mean(values):.3f} ± {stdev(values):.3f}<br><small>→ " in section


def test_boards_without_calibration_say_nothing_of_it(board: Summary) -> None:
    assert "calibration" not in page_html(board)
    assert "ECE" not in csv_text(board)
