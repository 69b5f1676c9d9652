"""The HTML page in a real browser: what it shows, against the records, and what clicks do to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

from benchmarks.leaderboard.looks import NAMED
from benchmarks.leaderboard.report.page import page_html, write_page
from datamodules.conditions import MISSING_CONDITIONS
from ifmmin.tasks import SUMMARY_ROWS, Score
from tests.benchmarks.leaderboard.boards import CLASS_NAMES, board_records, summarise_board
from tests.chromium import EXECUTABLE, Page, chromium

SYNTHETIC = "built-in synthetic corpus (not a corpus result)"

HOSTILE = "<img src=x onerror=\"document.title='taken'\"></script><!-- & 'x'"
MODELS = ["IFMMIN", "MMIN", "CMARR", HOSTILE, "CompleteFusion"]
SILENT = "CompleteFusion"  # answers complete data only
FOLDS, SEEDS = range(1, 6), range(4)
RECORDS = board_records(MODELS, FOLDS, SEEDS, unanswered=[SILENT])
for record in RECORDS:
    if record["model"] == "CMARR":  # best in F1 alone, so that ranks differ between metrics
        record["metrics"] = {row: {**values, "F1": values["F1"] + 0.1} for row, values in record["metrics"].items()}
needs_browser = pytest.mark.skipif(EXECUTABLE is None, reason="no chromium here (Debian: apt-get install chromium)")


def of(model: str, metric: str, row: str) -> list[float]:
    """The values of a model's runs."""
    return [record["metrics"][row][metric] for record in RECORDS if record["model"] == model]


def by_mean(metric: str, row: str) -> list[str]:
    """The models that answer a row, best first."""
    answering = [model for model in MODELS if None not in of(model, metric, row)]
    return sorted(answering, key=lambda model: -fmean(of(model, metric, row)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(summarise_board(RECORDS), tmp_path_factory.mktemp("board") / "leaderboard.html")


@pytest.fixture
def page(browser: Page, board: Path) -> Iterator[Page]:
    """The board, freshly opened; afterwards nothing has gone wrong in it and nothing was asked of a network."""
    browser.open(board)
    yield browser
    assert browser.errors == []
    assert browser.requests == []
    assert HOSTILE in browser.texts(".measured th")
    assert browser.evaluate("document.images.length") == 0
    assert browser.evaluate("document.title") == "Leaderboard: IEMOCAP"


def names(page: Page) -> list[str]:
    return page.texts(".measured th")


def test_same_summary_gives_same_bytes_and_any_name_is_data() -> None:
    html = page_html(summarise_board(RECORDS))
    assert html == page_html(summarise_board(RECORDS[::-1]))
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    embedded = json.loads(data[1])
    assert {model["name"] for model in embedded["models"]} == set(MODELS)
    assert len(embedded["runs"]) == len(RECORDS)
    assert "<img" not in html
    assert set(re.findall(r"\w+://[\w./]+", html)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_nothing_is_written_over_a_good_page_by_a_bad_summary(tmp_path: Path) -> None:
    summary = summarise_board(RECORDS[:1])
    path = write_page(summary, tmp_path / "leaderboard.html")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_page(replace(summary, bayes=dict.fromkeys(SUMMARY_ROWS, float("nan"))), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@needs_browser
def test_all_tables_can_be_read_without_javascript(browser: Page, board: Path) -> None:
    browser.open(board, script=False)
    assert browser.texts(".caption") == [
        f"{metric} in %, mean ± standard deviation over n runs; difference and p against IFMMIN"
        for metric in ("UA", "WA", "F1")
    ]
    assert not browser.texts("#controls, #scripted")
    for metric in ("WA", "UA", "F1"):
        ranked = by_mean(metric, "mean")
        assert browser.texts(f"[data-metric={metric}] .measured th") == [*ranked, SILENT]
        cells = browser.texts(f"[data-metric={metric}] .measured tr:nth-child(2) td")
        expected = [
            f"{100 * fmean(of(ranked[1], metric, row)):.2f} ± {100 * stdev(of(ranked[1], metric, row)):.2f}"
            for row in SUMMARY_ROWS
        ]
        assert cells[:11] == ["2", *expected, "20"]
        assert browser.texts(f"[data-metric={metric}] .best").count("–") == 0


@needs_browser
def test_heads_sort_by_mouse_and_keyboard(page: Page) -> None:
    # A column in whose order the models are not already.
    row = next(row for row in MISSING_CONDITIONS if by_mean("UA", row) != by_mean("UA", "mean"))
    expected = by_mean("UA", row)
    head = f"[data-metric=UA] th:nth-child({3 + SUMMARY_ROWS.index(row)})"
    page.click(f"{head} button")
    assert names(page) == [*expected, SILENT]
    assert page.evaluate(f"document.querySelector('{head}').ariaSort") == "descending"
    page.click(f"{head} button")
    assert names(page) == [*expected[::-1], SILENT]  # what has no value stays last
    assert page.evaluate(f"document.querySelector('{head}').ariaSort") == "ascending"
    page.evaluate("document.querySelector('[data-metric=UA] th:nth-child(2) button').focus()")
    page.press("Enter", 13)
    assert names(page) == sorted(MODELS, key=str.lower)
    assert page.evaluate("document.querySelectorAll('[data-metric=UA] [aria-sort]').length") == 1


@needs_browser
def test_metric_switch_changes_all_numbers_and_keeps_the_order_column(page: Page) -> None:
    page.click("[data-metric=UA] th:nth-child(5) button")  # {t}
    for number, metric in enumerate(("WA", "UA", "F1")):
        page.click("#metrics input", number)
        expected = by_mean(metric, "t")
        assert names(page) == [*expected, SILENT]
        assert page.texts(".measured tr:first-child td:nth-child(5) span") == [
            f"{100 * fmean(of(expected[0], metric, 't')):.2f}"
        ]
        page.choose("#run-model", "CMARR")
        assert page.evaluate("document.querySelector('#bars svg').ariaLabel") == f"{metric} in %"
        run = next(record for record in RECORDS if record["model"] == "CMARR")
        assert page.texts("#runs tbody td:nth-child(10)")[0] == f"{100 * run['metrics']['mean'][metric]:.2f}"


@needs_browser
def test_filters_hide_rows_and_bars(page: Page) -> None:
    def bars() -> int:
        return int(page.evaluate("document.querySelectorAll('#bars .bar').length"))

    everything = bars()
    page.click("#models input", 0)
    first = by_mean("UA", "mean")[0]
    assert first not in names(page)
    assert page.texts("#count") == ["4 of 5 shown"]
    assert bars() < everything
    page.click("#none")
    assert names(page) == []
    assert page.texts("#bars") == ["No model that is shown has these numbers."]
    page.click("#all")
    assert len(names(page)) == len(MODELS)
    page.click("#search")
    page.type("mmin")
    assert names(page) == [name for name in by_mean("UA", "mean") if "MMIN" in name]
    published = page.texts("[data-metric=UA] .published th")
    assert published[:2] == ["MMIN published [2], selected on test", "MMIN published [3]"]
    assert len(published) == 10 and all("MMIN" in name for name in published)
    page.click("#published")
    assert page.texts(".published th") == []
    page.evaluate("document.getElementById('search').value = ''")
    page.click("#published")
    assert len(names(page)) == len(MODELS)


@needs_browser
def test_bars_and_curves_have_the_lengths_of_their_values(page: Page) -> None:
    drawn = page.evaluate("""[...document.querySelectorAll("#bars > svg > g")].map(g =>
        [g.querySelector("title").textContent, +g.querySelector(".bar").getAttribute("height")])""")
    rows = [row for row in SUMMARY_ROWS if row != "pooled"]
    assert len(drawn) == (len(MODELS) - 1) * len(rows) + 1  # one model answers complete data only
    heights = {title: height for title, height in drawn if title.startswith("CMARR, ")}
    values = [fmean(of("CMARR", "UA", row)) for row in rows]
    scale = next(iter(heights.values())) / values[0]
    assert list(heights.values()) == pytest.approx([scale * value for value in values])
    assert f"{100 * values[0]:.2f} ± {100 * stdev(of('CMARR', 'UA', 'a')):.2f}" in next(iter(heights))
    assert page.evaluate("document.querySelectorAll('#curve .point').length") == (len(MODELS) - 1) * (8 + 1)
    assert SILENT in page.texts("#unswept")[0]


@needs_browser
def test_more_than_eight_shown_models_are_dots(browser: Page, tmp_path: Path) -> None:
    models = [*NAMED[:12], "Mine"]
    records = board_records(models, [1, 2], [0], corpus="Synthetic", is_synthetic=True)
    browser.open(write_page(summarise_board(records), tmp_path / "leaderboard.html"), width=1280)
    browser.click("#metrics input", 0)
    rows = [row for row in SUMMARY_ROWS if row != "pooled"]
    assert browser.texts("#bars .bar, label.option") == []
    assert browser.evaluate("document.querySelectorAll('#bars > svg .point').length") == 13 * len(rows)
    assert browser.evaluate("document.querySelectorAll('#bars > svg .limit').length") == len(rows)
    # The height of a dot is its value, on the same scale as the limit's.
    drawn = browser.evaluate("""[...document.querySelectorAll("#bars > svg > g")].map(g => {
        const {top, bottom} = g.querySelector(".point").getBoundingClientRect();
        return [g.querySelector("title").textContent, (top + bottom) / 2];
    })""")
    limits = browser.evaluate("""[...document.querySelectorAll("#bars > svg .limit")].map(mark => {
        const {top, bottom} = mark.getBoundingClientRect();
        return [mark.textContent, (top + bottom) / 2];
    })""")
    values = [float(text.rsplit("WA ", 1)[1].split(" ")[0]) for text, _ in (*drawn, *limits)]
    slope, _ = np.polyfit(values, [height for _, height in (*drawn, *limits)], 1)
    fitted = np.polyval(np.polyfit(values, [height for _, height in (*drawn, *limits)], 1), values)
    assert slope < 0
    np.testing.assert_allclose(fitted, [height for _, height in (*drawn, *limits)], atol=1.0)
    for text, _ in drawn[:3]:
        model, value = text.split(",")[0], text.rsplit("WA ", 1)[1].split(" ")[0]
        runs = [record["metrics"]["a"]["WA"] for record in records if record["model"] == model]
        assert value == Score("WA").format(fmean(runs))
    for number in range(5):
        browser.click("#models input", number)
    assert browser.evaluate("document.querySelectorAll('#bars > svg .bar').length") == 8 * len(rows)
    assert browser.texts("label.option") == ["axis from zero"]
    browser.resize(400, 800)
    browser.settle()
    assert browser.evaluate("document.documentElement.scrollWidth") == 400
    assert browser.errors == []


@needs_browser
def test_marks_of_published_rows_are_not_cut(page: Page) -> None:
    for width in (1280, 400):
        page.resize(width, 900)
        page.evaluate("window.right = (part) => part.getBoundingClientRect().right")
        cut = page.evaluate("""[...document.querySelectorAll(".metric:not([hidden]) .published th")]
            .filter(head => right(head.querySelector("small")) > right(head)).map(head => head.textContent)""")
        assert cut == []
    assert any("one model per condition, other features" in text for text in page.texts(".published th"))


@needs_browser
def test_published_curves_have_a_chart_of_their_own(page: Page) -> None:
    assert page.texts(".published-curves h3") == ["Published, beside ours: modality dropping, rate"]
    swept = [model for model in by_mean("UA", "mean") if model != SILENT]
    ours = [f"{model}, ours" for model in swept]
    assert page.texts(".published-curves .legend li") == ["MMIN [1]", "GCNet [1]", "MoMKE [1]", *ours]  # UA
    points = "document.querySelectorAll('.published-curves > .chart > svg .point').length"
    assert page.evaluate(points) == 3 * 7 + 8 * len(ours)
    page.click("#metrics input", 0)
    assert len(page.texts(".published-curves .legend li")) == 7 + len(ours)
    scales = page.evaluate("""["#curve", ".published-curves .chart"].map(chart =>
        [...document.querySelectorAll(`${chart} > svg text[text-anchor=end]`)].map(text => text.textContent))""")
    assert scales[0] == scales[1]
    tops = page.evaluate("""["#curve", ".published-curves .chart"].map(chart =>
        document.querySelector(`${chart} svg`).getBoundingClientRect().top)""")
    assert tops[0] < tops[1]
    notes = page.texts(".published-curves li")
    assert any(note.startswith("[1] ComP") and "other features" in note for note in notes)
    assert any("selected on test: MMIN, GCNet, CIF-MMIN" in note for note in notes)
    page.click("#metrics input", 2)
    assert page.texts(".published-curves") == []  # no published curve of F1
    page.click("#metrics input", 0)
    page.click("#published")
    assert page.texts(".published-curves") == []
    # A model has one colour in both charts.
    page.click("#published")
    colour = "getComputedStyle(document.querySelector(`${chart} > svg g[data-model='${key}'] .line`)).stroke"
    place = json.loads(page.evaluate("document.getElementById('data').textContent"))["models"]
    number = [model["name"] for model in place].index("MMIN")
    colours = [
        page.evaluate(f"((chart, key) => {colour})('{chart}', '{key}')")
        for chart, key in (("#curve", number), (".published-curves .chart", "published 0"))
    ]
    assert colours[0] == colours[1]


@needs_browser
def test_further_curves_and_areas(page: Page) -> None:
    assert page.texts(".further-curve h3") == [
        "Share of the modalities that is missing",
        "Rate of lost frames",
        "Rate of frames lost in bursts",
        "Standard deviation of noise on the frames",
        "Share of the missing rates 0.2, 0.5, 0.8",
        "Share of the missing rates 0.5, 0.8, 0.2",
    ]
    assert len(page.texts(".further-curve[data-curve=frames] .legend li")) == len(MODELS)  # complete data is enough
    assert len(page.texts(".further-curve[data-curve=share] .legend li")) == len(MODELS) - 1
    points = "document.querySelectorAll('.further-curve[data-curve=noise] > .chart > svg .point').length"
    assert page.evaluate(points) == 5 * len(MODELS)
    summary = summarise_board(RECORDS)
    for number, metric in enumerate(("WA", "UA", "F1")):
        page.click("#metrics input", number)
        assert page.texts(".areas:not([hidden]) p") == [f"{metric} in %: area below the rate curves, their mean height"]
        for entry in summary.entries[:2]:
            area = entry.curves["frames"].areas[metric]
            assert area.low is not None and area.high is not None
            expected = "{:.2f} [{:.2f}, {:.2f}]".format(
                *(100 * value for value in (area.cell.mean, area.low, area.high))
            )
            rows = page.texts(".areas:not([hidden]) .areas-measured tr")
            assert sum(entry.model in row and expected in row for row in rows) == 1


@needs_browser
def test_confusion_matrices_are_the_sums_of_the_runs(page: Page) -> None:
    for model, condition, label in (("IFMMIN", "av", "{a,v}"), (HOSTILE, "pooled", "pooled")):
        page.choose("#confusion select", model)
        page.choose("#condition", label)
        conditions = MISSING_CONDITIONS if condition == "pooled" else (condition,)
        counts = sum(
            np.array(record["confusion"][name]) for record in RECORDS for name in conditions if record["model"] == model
        )
        shares = counts / np.sum(counts, axis=1, keepdims=True)
        cells = page.texts("#confusion figure:first-child .confusion tbody td")
        expected = zip(np.ravel(shares), np.ravel(counts), strict=True)
        assert cells == [f"{100 * share:.1f} %{count}" for share, count in expected]
        assert page.texts("#confusion figure:first-child .confusion tbody th") == list(CLASS_NAMES)
    page.choose("#confusion select", SILENT, 1)
    assert page.texts("#confusion figure:last-child p") == ["This model does not answer this condition."]


@needs_browser
def test_single_runs_are_paged_sorted_filtered_and_linked(page: Page) -> None:
    def runs(column: int) -> list[str]:
        return page.texts(f"#runs tbody > tr > :nth-child({column})")

    assert page.texts("#range") == ["1–50 of 100"]
    assert len(runs(1)) == 50
    page.click("#runs thead th:nth-child(10) button")  # mean
    ordered = sorted((value for model in MODELS[:-1] for value in of(model, "UA", "mean")), reverse=True)
    assert runs(10) == [Score("WA").format(value) for value in ordered[:50]]
    page.click("#next")
    assert page.texts("#range") == ["51–100 of 100"]
    assert runs(10) == [Score("WA").format(value) for value in ordered[50:]] + ["–"] * 20
    page.choose("#run-fold", "2")
    assert page.texts("#range") == ["1–20 of 20"]
    assert set(runs(2)) == {"2"}
    page.click("#run-search")
    page.type("fold2/mmin-seed3")
    (run,) = [record for record in RECORDS if record["run"] == "runs/fold2/MMIN-seed3"]
    assert page.texts("#runs tbody tr:only-child > *") == run_row(run)
    page.evaluate("document.getElementById('run-search').value = ''")
    page.choose("#run-fold", "all")
    page.click(".measured tr:nth-child(3) td.runs button")
    assert set(runs(1)) == {by_mean("UA", "mean")[2]}
    assert page.texts("#range") == ["1–20 of 20"]


def run_row(run: dict[str, Any]) -> list[str]:
    """What traces a run, as its row says it."""
    identity = run["identity"]
    return [
        *(run["model"], str(run["fold"]), str(run["seed"])),
        *(Score("WA").format(run["metrics"][row]["UA"]) for row in SUMMARY_ROWS),
        *(f"{run['wall_time_s']:.0f} s", run["run"], run["commit"]),
        *(identity["config"], identity["code"], identity["data"]),
        *(run["date"], run["stage1"], run["checkpoint"]),
    ]


@needs_browser
def test_script_and_python_round_alike(page: Page) -> None:
    values = [number / 8000 for number in range(8001)] + np.random.default_rng(0).random(1000).tolist()
    assert page.evaluate(f"{json.dumps(values)}.map(percent)") == [Score("WA").format(value) for value in values]


@needs_browser
def test_page_fits_a_telephone_and_a_dark_room(page: Page) -> None:
    page.resize(400, 800)
    page.settle()
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    lines = page.evaluate(
        "[...document.querySelectorAll('.results:not([hidden]) tbody th')].filter(head => head.offsetParent)"
        ".map(head => { const text = document.createRange(); text.selectNodeContents(head);"
        " return [head.textContent, new Set([...text.getClientRects()].map(box => box.top)).size]; })"
    )
    short = [[name, count] for name, count in lines if " " not in name and len(name) <= 16]
    assert len(short) >= 2 and all(count == 1 for _, count in short), short
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


@needs_browser
def test_print_repeats_the_heads_of_tables_and_hides_what_is_for_the_mouse(page: Page) -> None:
    page.send("Emulation.setEmulatedMedia", media="print")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    for table in (".results", "#runs"):
        assert page.evaluate(style.format(f"{table} thead", "display")) == "table-header-group"
        # Chromium paints the cells of a repeated head, but no button's box in them.
        assert page.evaluate(style.format(f"{table} thead button", "display")) == "contents"
    assert page.evaluate(style.format("#confusion-title + p", "breakAfter")) == "avoid"
    assert page.evaluate(style.format("#controls", "display")) == "none"
    page.send("Emulation.setEmulatedMedia", media="")


@needs_browser
def test_built_in_corpus_is_named_and_shows_its_limit(browser: Page, tmp_path: Path) -> None:
    records = board_records(["IFMMIN", "MMIN"], [1, 2], [0], corpus="Synthetic", is_synthetic=True)
    records.pop()
    browser.open(write_page(summarise_board(records), tmp_path / "leaderboard.html"))
    assert browser.texts("h1") == [f"Leaderboard: {SYNTHETIC}"]
    assert browser.texts(".published, #published") == []
    assert browser.texts(".limit th, svg .limit") == []  # UA has none
    browser.click("#metrics input", 0)
    limit = fmean(record["metrics"]["mean"]["bayes_WA"] for record in records[:2])
    assert browser.texts("tr[data-model=''] td")[7:8] == [Score("WA").format(limit)]
    gap = limit - fmean(record["metrics"]["mean"]["WA"] for record in records[:2])
    assert browser.texts("tr[data-model=IFMMIN] td:last-child") == [Score("WA").format(gap)]
    assert browser.texts("tr[data-model=MMIN] td.runs") == ["1 of 2"]
    assert len(browser.texts("#bars > svg .limit")) == len(SUMMARY_ROWS) - 1
    assert browser.errors == []


@needs_browser
def test_a_request_would_be_noticed_and_refused(browser: Page, board: Path) -> None:
    browser.open(board)
    browser.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    browser.evaluate("fetch('http://127.0.0.1:9/').catch(() => null)")
    assert sum("Content Security Policy" in error for error in browser.errors) >= 2
    browser.errors.clear()
    browser.requests.clear()
