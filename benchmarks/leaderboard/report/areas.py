"""The table of areas below the rate curves, measured and published, laid out as the tables of scores are."""

from __future__ import annotations

from benchmarks.leaderboard.published import MARKS
from benchmarks.leaderboard.published_rates import Figures, published_areas, source_notes
from benchmarks.leaderboard.rate_curves import LEVEL, Area
from benchmarks.leaderboard.report.rows import NO_VALUE, BoardCell, BoardRow, BoardTable, Column, Place
from benchmarks.leaderboard.summary import Summary
from ifmmin.curves import CURVES
from ifmmin.tasks import Score

SUBJECT = "area below the rate curves, their mean height"


def area_table(summary: Summary, score: Score) -> BoardTable | None:
    """Lay out the areas in one score, models in the order of its table; None where there is none."""
    entries = summary.by_rank(score.name)
    areas = {
        name: {
            entry.model: entry.curves[name].areas[score.name]
            for entry in entries
            if name in entry.curves and score.name in entry.curves[name].areas
        }
        for name in CURVES
    }
    published = published_areas(summary.figures, score.name)
    names = [name for name in CURVES if areas[name] or (name == "frames" and published)]
    if not names:
        return None
    columns = (
        Column("model", "model", kind="text"),
        *(Column(name, f"{name} {CURVES[name].span}") for name in names),
    )
    rows = []
    for entry in entries:
        cells = {name: _cell(areas[name], entry.model, score) for name in names}
        if any(cell is not NO_VALUE for cell in cells.values()):
            named = BoardCell(entry.model, entry.model, note=", ".join(entry.remarks))
            rows.append(BoardRow("measured", entry.model, {"model": named, **cells}))
    sources = list(source_notes(published))
    for figures in published:
        note = "".join(f", {mark}" for mark in figures.marks)
        named = BoardCell(figures.model, figures.model, note=f"published [{sources.index(figures.source) + 1}]{note}")
        value = BoardCell(score.format(figures.area()), figures.area())
        rows.append(BoardRow("published", figures.model, {"model": named, "frames": value}))
    measured = [area for of_model in areas.values() for area in of_model.values()]
    return BoardTable(score, columns, tuple(rows), tuple(_notes(summary, names, measured, published)), SUBJECT)


def _cell(areas: dict[str, Area], model: str, score: Score) -> BoardCell:
    """Area with its interval, or ± over runs where there is none, and its place among the models."""
    if model not in areas:
        return NO_VALUE
    area = areas[model]
    text = score.format(area.cell.mean)
    shown = {score.format(each.cell.mean) for each in areas.values()}
    order = sorted(shown, key=float, reverse=score.higher_is_better)
    ties = sum(score.format(each.cell.mean) == order[0] for each in areas.values())
    place: Place = 1 if text == order[0] else 2 if ties == 1 and text == order[1] else 0
    if area.low is not None and area.high is not None:
        return BoardCell(f"{text} [{score.format(area.low)}, {score.format(area.high)}]", area.cell.mean, place=place)
    spread = "" if area.cell.std is None else score.format(area.cell.std)
    return BoardCell(text, area.cell.mean, spread, place=place)


def _notes(summary: Summary, names: list[str], measured: list[Area], published: list[Figures]) -> list[str]:
    """What the columns are, what the brackets are, and the sources of published areas."""
    texts = [
        "Area: the trapezoidal rule over the rates of a curve, divided by their width. "
        + " ".join(f"{name}: {CURVES[name].meaning}." for name in names)
    ]
    sets = {area.sets for area in measured if area.low is not None}
    if sets:
        over = f"[ ]: {LEVEL:.0%} t interval over the {max(sets)}"
        if summary.independent_folds:
            texts.append(f"{over} folds, which are independent draws, runs of the same one averaged.")
        else:
            texts.append(
                f"{over} training sets, runs of the same one averaged; training sets that overlap make it too narrow."
            )
    if published:
        texts.append(
            "Published areas are in the protocol of frames, over rates 0.0 to 1.0 as their public code sums, but not "
            "our runs: theirs are of a model trained at each rate, ours of one model; their text is BERT that trains "
            "along, whose lost tokens are unknown ones."
        )
        marks = [mark for mark in MARKS if any(mark in figures.marks for figures in published)]
        if marks:
            texts.append("; ".join(f"{mark}: {MARKS[mark]}" for mark in marks) + ".")
    for number, (source, note) in enumerate(source_notes(published).items(), start=1):
        texts.append(f"[{number}] {source} ({note})" if note else f"[{number}] {source}")
    return texts
