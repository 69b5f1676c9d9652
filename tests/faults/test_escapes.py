"""Hostile names in every place of a board: shown, and never obeyed. The references are parsers of each format."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib import cbook
from rich.console import Console

from benchmarks.figures.__main__ import file_name
from benchmarks.figures.conditions import conditions_figure
from benchmarks.figures.confusion import confusion_figure
from benchmarks.figures.style import plain
from benchmarks.leaderboard.progress import Progress
from benchmarks.leaderboard.report import escapes
from benchmarks.leaderboard.report.page import page_html
from benchmarks.leaderboard.report.tables import csv_text, latex_text, markdown_text, terminal_tables
from datamodules.text import from_csv_cell
from tests.benchmarks.leaderboard.boards import CLASS_NAMES, board_records, summarise_board

NAMES = {
    "pipes": "|a||b|",
    "code": "`rm -rf` ``x``",
    "an image with a handler": "<img src=x onerror=\"document.title='taken'\">",
    "the end of the script": "</script><script>alert(1)</script>",
    "a comment": "<!-- x --> ]]>",
    "a link that runs": "[x](javascript:alert(1))",
    "a picture of the network": "![i](http://127.0.0.1/x.png)",
    "bare addresses": "http://x.org www.x.org_www.x.org a@x.org",
    "emphasis": "**b** __u__ _i_ ~~s~~",
    "a heading": "# one",
    "a reference": "[1]: http://x.org",
    "a footnote": "[^1]",
    "a backslash": "\\",
    "two backslashes": "a\\\\b",
    "an escaped pipe": "a\\|b",
    "LaTeX that reads a file": "\\input{/etc/passwd}",
    "LaTeX's characters": "50% & #1 $x$ {y} a~b^c_d",
    "an open brace": "}{",
    "a formula of LaTeX": "$\\frac$",
    "one dollar": "a$b",
    "a formula of a spreadsheet": '=HYPERLINK("http://x","y")',
    "plus": "+1+1",
    "minus": "-1+1|cmd",
    "at": "@SUM(A1)",
    "a number with a sign": "-$1",
    "quotes and commas": "a,b;\"c\" 'd'",
    "markup of rich": "[red]x[/red] [/]",
    "entities": "&lt;b&gt; &amp; &#60;",
    "a template": "{{ 7 * 7 }}{% raw %}",
    "hidden from a legend": "_Mine",
    "a path": "../../../x/y",
    "letters that fonts lack": "中文 é ℝ",
}
CONTROL = {
    "clear the screen": "\x1b[2J\x1b]0;x\x07",
    "a line feed": "a\nb",
    "a carriage return": "a\r\nb",
    "NUL": "a\x00b",
    "right to left": "a\u202eb",
    "a line separator": "a\u2028b",
    "a C1 control": "a\x9b2Jb",
    "a tab": "a\tb",
    "a megabyte": "x" * 2**20,
}
RECORDS = board_records([*NAMES.values(), "IFMMIN"], [1], [0])
for record in RECORDS:
    record |= {"run": "runs/fold1", "checkpoint": "runs/fold1/x.ckpt"}
SUMMARY = summarise_board(RECORDS)


class Html(HTMLParser):
    """Tags of a page, and the text of its row heads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.heads: list[str] = []
        self._row_head = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self._row_head = (tag == "th" and ("scope", "row") in attrs) or (self._row_head and tag == "span")
        if self._row_head and tag == "span":
            self.heads.append("")

    def handle_endtag(self, tag: str) -> None:
        self._row_head = False

    def handle_data(self, data: str) -> None:
        if self._row_head and self.heads:
            self.heads[-1] += data


@pytest.fixture(scope="module")
def page() -> Html:
    return Html(page_html(SUMMARY))


@pytest.fixture(scope="module")
def markdown_cells() -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(markdown_text(SUMMARY))
    inner = [part for token in tokens if token.children for part in token.children]
    assert {part.type for part in inner} <= {"text", "text_special", "strong_open", "strong_close"}
    assert {token.type for token in tokens if token.type.startswith(("html", "fence", "code"))} == set()
    return ["".join(part.content for part in token.children or ()) for token in tokens if token.type == "inline"]


@pytest.fixture(scope="module")
def csv_models() -> set[str]:
    rows = list(csv.DictReader(io.StringIO(csv_text(SUMMARY))))
    assert not [
        cell
        for row in rows
        for cell in (row["model"], row["corpus"], row["source"])
        if cell.startswith(("=", "+", "-", "@"))
    ]
    assert {len(row) for row in rows} == {len(rows[0])}
    return {row["model"] for row in rows}


@pytest.fixture(scope="module")
def terminal() -> str:
    console = Console(width=400, file=io.StringIO())
    for table in terminal_tables(SUMMARY):
        console.print(table)
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(line.isprintable() for line in shown.split("\n"))
    return shown


@pytest.mark.parametrize("name", NAMES)
class TestNames:
    """Each name in each place."""

    def test_html(self, page: Html, name: str) -> None:
        assert NAMES[name] in page.heads
        assert not page.handlers and "img" not in page.tags
        assert page.tags.count("script") == 2

    def test_markdown(self, markdown_cells: list[str], name: str) -> None:
        assert NAMES[name] in markdown_cells

    def test_latex(self, name: str) -> None:
        assert sound(escapes.latex(NAMES[name]))
        tables = latex_text(SUMMARY).split(r"\toprule")[1:]
        assert len(tables) == 2 * len(SUMMARY.scores)  # of scores, and of areas below the rate curves
        for table in tables:
            heads, *lines = (len(re.findall(r"(?<!\\)&", line)) for line in table.splitlines() if line.endswith(r" \\"))
            rows = [line for line in table.splitlines() if escapes.latex(NAMES[name]) in line]
            assert rows and set(lines) == {heads}

    def test_csv(self, csv_models: set[str], name: str) -> None:
        (cell,) = [cell for cell in csv_models if from_csv_cell(cell) == NAMES[name]]
        assert not cell.startswith(("=", "+", "-", "@"))

    def test_terminal(self, terminal: str, name: str) -> None:
        assert f" {NAMES[name]} " in terminal

    def test_figure(self, name: str) -> None:
        shown = plain(NAMES[name])
        assert not cbook.is_math_text(shown)
        assert shown.replace(r"\$", "$").lstrip(" ") == NAMES[name] and not shown.startswith("_")

    def test_file(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / f"confusion_{file_name(NAMES[name])}.png"
        assert path.resolve().parent == tmp_path.resolve() and len(path.name.encode()) < 255


def sound(text: str) -> bool:
    """Whether LaTeX reads ``text`` as characters only."""
    bare = re.sub(r"\\text\w+\{\}|\\ldots\{\}|\\cdot|\\[&%$#_{}]|\$(?:[<>|]|\\pm|\\cdot)\$", "", text)
    return not re.search(r"[\\&%$#_{}~^\n]", bare)


@pytest.mark.parametrize("name", CONTROL)
@pytest.mark.parametrize("place", ["terminal", "markdown", "latex", "csv", "figure"])
def test_control_characters_and_length(place: str, name: str) -> None:
    write = {"terminal": escapes.plain, "markdown": escapes.markdown, "latex": escapes.latex}
    shown = (write | {"csv": escapes.csv, "figure": plain})[place](CONTROL[name])
    assert shown.isprintable() and len(shown) <= 2000


def test_file_names_differ_where_names_do() -> None:
    assert len({file_name(name) for name in NAMES.values()}) == len(NAMES)
    assert file_name("IFMMIN") == "IFMMIN"


def test_figures_with_hostile_names_are_drawn() -> None:
    records = board_records([NAMES["a formula of LaTeX"], NAMES["hidden from a legend"], "<b>"], [1, 2], [0])
    for record in records:
        record["class_names"] = ["$\\frac$", "$", "_x", "a&b"]
    summary = summarise_board(records)
    figure = conditions_figure(summary, "UA")
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(map(cbook.strip_math, texts)) == sorted(["\\$\\frac\\$", " _Mine", "<b>"])
    confusion_figure(summary, summary.entries[0]).canvas.draw()


def test_a_board_whose_folder_is_markup(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(Progress(tmp_path / "[/red]\x1b[2J", [], ["[/]"], 1, console).render())
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[/red]\\x1b[2J" in shown and "[/]" in shown


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(WORDS)
def test_any_word_is_text_in_every_format(word: str) -> None:
    shown = escapes.plain(word)
    assert shown.isprintable()
    assert sound(escapes.latex(word))
    assert list(csv.reader(io.StringIO(_csv(word)))) == [[escapes.csv(word)]]
    assert from_csv_cell(escapes.csv(word)) == shown
    cell = f"| a |\n| --- |\n| x{escapes.markdown(word)}x |\n"
    tokens = MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(cell)
    inline = [token for token in tokens if token.type == "inline"][1]
    assert {part.type for part in inline.children or ()} <= {"text", "text_special"}
    assert "".join(part.content for part in inline.children or ()) == f"x{shown}x"


def _csv(word: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([escapes.csv(word)])
    return text.getvalue()


def test_class_names_are_data_in_the_page() -> None:
    records = board_records(["M"], [1], [0])
    names = ["</script>", "<!--", "&amp;", CLASS_NAMES[0]]
    records[0]["class_names"] = names
    html = page_html(summarise_board(records))
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found and json.loads(found[1])["classes"] == names
