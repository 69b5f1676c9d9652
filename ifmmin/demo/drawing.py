"""A report as HTML: bars of our own, with a text beside each. Every name in it is data, and escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from datamodules.conditions import MODALITIES, present_under
from datamodules.text import printable
from ifmmin.demo.answers import SPOKEN, Report, Row
from ifmmin.inference import Answer, Predictor

MOST_CLASSES = 8
"""Bars under one condition; further classes are counted."""

CSS = """
.gradio-container { max-width: 1200px !important; }
.demo { --demo-bar: #3f51b5; --demo-best: #9c3d06; --demo-quiet: #4b5563; --demo-track: #d9dce3; --demo-minus: #8a2c5f;
  color: var(--body-text-color); font-size: 1rem; line-height: 1.45; overflow-wrap: anywhere; }
.dark .demo { --demo-bar: #93a4ff; --demo-best: #ffb066; --demo-quiet: #c3c8d1; --demo-track: #3a3f4b;
  --demo-minus: #f29bc6; }
.demo h1 { font-size: 1.5rem; font-weight: 700; margin: 0; }
.demo h2 { font-size: 1.1rem; font-weight: 600; margin: 1.2rem 0 .4rem; }
.demo > h2:first-child { margin-top: 0; }
.demo h3 { font-size: .95rem; font-weight: 600; margin: 0 0 .3rem; }
.demo p { margin: .15rem 0; }
.demo .quiet { color: var(--demo-quiet); }
.demo .note { border-left: 4px solid var(--demo-best); padding-left: .6rem; margin-top: .4rem; }
.demo .said { font-size: 2.6rem; font-weight: 700; line-height: 1.15; color: var(--demo-best); }
.demo .problem { border: 2px solid var(--demo-best); border-radius: 6px; padding: .6rem .8rem; font-weight: 600; }
.demo ul { list-style: none; margin: 0; padding: 0; }
.demo .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 210px), 1fr)); gap: .7rem; }
.demo .card { border: 1px solid var(--demo-track); border-radius: 8px; padding: .6rem .7rem; }
.demo .card.now { border: 2px solid var(--demo-best); }
.demo .card.gone { border-style: dashed; background: repeating-linear-gradient(-45deg, transparent 0 7px,
  color-mix(in srgb, var(--demo-track) 45%, transparent) 7px 8px); }
.demo .card.gone h3 { color: var(--demo-quiet); }
.demo .bar { display: grid; grid-template-columns: minmax(4.2rem, 30%) 1fr 3.6rem; align-items: center; gap: .5rem;
  font-size: .9rem; padding: .08rem 0; }
.demo .bar .number { text-align: right; font-variant-numeric: tabular-nums; }
.demo .bar .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.demo .track { position: relative; display: block; height: .75rem; border-radius: 3px; background: var(--demo-track); }
.demo .fill { position: absolute; top: 0; bottom: 0; border-radius: 3px; background: var(--demo-bar); }
.demo .best .fill { background: var(--demo-best); }
.demo .best .name, .demo .best .number { font-weight: 700; }
.demo .minus .fill { background: var(--demo-minus); }
.demo .middle { position: absolute; top: -.15rem; bottom: -.15rem; left: 50%; width: 1px;
  background: var(--demo-quiet); }
.demo .shares { max-width: 34rem; }
footer { display: none !important; }
"""
"""Of the page, in colours that have a contrast of 4.5 at least in both themes."""


def heading(predictor: Predictor) -> str:
    """What model this is, what it was trained on, and whether that was a corpus."""
    data = predictor.trained_on
    facts = [f"{name} {data[name]}" for name in ("fold", "seed") if data.get(name) is not None]
    corpus = ", ".join([str(data.get("name", "unknown data")), *facts])
    note = ""
    if data.get("synthetic"):
        note = '<p class="note">Synthetic data: what is seen here is no result on a corpus.</p>'
    return (
        '<div class="demo"><h1>What if a sensor breaks?</h1>'
        f'<p class="quiet">{_text(type(predictor.model).__name__)}, trained on {_text(corpus)}. Switch sensors off, '
        f"and see the answer from what is left.</p>{note}</div>"
    )


def headline(report: Report) -> str:
    """The answer, large, and what it rests on."""
    answer = report.answer
    if answer is None:
        return problem(f"No answer: {report.problem}.")
    return f'<div class="demo"><p class="said">{_said(answer, report)}</p>{"".join(_under(answer, report))}</div>'


def problem(line: str) -> str:
    """What is wrong, in one line."""
    return f'<div class="demo"><p class="problem">{_text(line, 500)}</p></div>'


def details(report: Report) -> str:
    """What each sensor gave, and the answers under all seven conditions."""
    now = "" if report.answer is None else report.answer.condition
    cards = "".join(_card(row, report, row.condition == now) for row in report.rows)
    return (
        f'<div class="demo">{_shares(report)}<h2>{_conditions_title(report)}</h2><div class="cards">{cards}</div></div>'
    )


# The answer.


def _said(answer: Answer, report: Report) -> str:
    if answer.abstained:
        return "abstains"
    prediction = answer.prediction
    return f"{prediction:+.2f}" if isinstance(prediction, float) else _text(prediction)


def _under(answer: Answer, report: Report) -> Iterator[str]:
    """Lines below the answer."""
    names = [SPOKEN[name] for name in answer.present]
    seen = " and ".join(names) if len(names) < len(SPOKEN) else "all three"
    if report.scale is not None:
        low, high = report.scale
        yield f"<p>on a scale from {low:g} to {high:g}, from {seen}</p>"
    else:
        best = max(answer, key=lambda name: answer[name])
        how = "calibrated" if report.calibrated else "not calibrated: the checkpoint has no temperatures"
        which = f" for {_text(best)}, below the least that is asked for" if answer.abstained else ""
        yield f"<p>{_percent(answer[best])}{which} ({how}), from {seen}</p>"
    missing = "; ".join(f"{SPOKEN[name]} ({_text(why)})" for name, why in report.absent.items()) or "nothing"
    yield f'<p class="quiet">Missing: {missing}.</p>'
    lost = ", ".join(f"{count} of {total} of {SPOKEN[name]}" for name, (count, total) in report.lost.items()) or "none"
    yield f'<p class="quiet">Frames lost: {lost}.</p>'


# Bars.


def _conditions_title(report: Report) -> str:
    if report.scale is not None:
        return "Value under each condition"
    kind = "Calibrated probability" if report.calibrated else "Probability (not calibrated)"
    return f"{kind} under each condition"


def _card(row: Row, report: Report, now: bool) -> str:
    there = [SPOKEN[name] for name, seen in zip(MODALITIES, present_under(row.condition), strict=True) if seen]
    name = " + ".join(there) if len(there) < len(SPOKEN) else "all three"
    if row.answer is None:
        return f'<section class="card gone"><h3>{name}</h3><p class="quiet">{_text(row.reason)}</p></section>'
    shown = f'{name} <span class="quiet">(now)</span>' if now else name
    abstains = '<p class="quiet">abstains</p>' if row.answer.abstained else ""
    bars = _value_bar(row.answer, report.scale) if report.scale is not None else _class_bars(row.answer)
    return f'<section class="card{" now" if now else ""}"><h3>{shown}</h3><ul>{bars}</ul>{abstains}</section>'


def _class_bars(answer: Mapping[str, float]) -> str:
    """A bar for each class, in label order; of many, the most probable ones."""
    most = sorted(answer, key=lambda name: -answer[name])[:MOST_CLASSES]
    best = most[0]
    bars = [
        _bar(name, value, _percent(value), 0, value, "best" if name == best else "")
        for name, value in answer.items()
        if name in most
    ]
    more = len(answer) - len(most)
    return "".join(bars) + (f'<li class="quiet">and {more} more</li>' if more > 0 else "")


def _value_bar(answer: Mapping[str, float], scale: tuple[float, float]) -> str:
    """A bar from the middle of the scale to the value."""
    value, (low, high) = answer["value"], scale
    place = min(max((value - low) / (high - low), 0.0), 1.0)
    return _bar("value", value, f"{value:+.2f}", min(place, 0.5), abs(place - 0.5), "best", middle=True)


def _shares(report: Report) -> str:
    """What each sensor gave to the answer, as bars to the right (for it) and to the left (against it)."""
    if report.answer is None:
        return ""
    title = "<h2>What each sensor gave (Shapley values)</h2>"
    if not report.shares:
        return f'{title}<p class="quiet">Not known: {_text(report.unshared)}.</p>'
    answer = report.answer
    best = max(answer, key=lambda name: answer[name])
    whole = max(max(map(abs, report.shares.values())), 1e-9)
    bars: list[str] = []
    for name in MODALITIES:
        if name not in report.shares:
            empty = '<span></span><span class="number">–</span>'
            bars.append(f'<li class="bar quiet"><span>{SPOKEN[name]}</span>{empty}</li>')
            continue
        share = report.shares[name]
        length = abs(share) / whole / 2
        start = 0.5 if share >= 0 else 0.5 - length
        written = f"{share:+.2f}" if report.scale is not None else f"{100 * share:+.1f}"
        bars.append(_bar(SPOKEN[name], share, written, start, length, "" if share >= 0 else "minus", middle=True))
    if report.scale is not None:
        ends = f"{report.uninformed:g}, to {answer['value']:+.2f}"
        adds = f"From the middle of the scale, {ends}; the shares add up to the difference."
    else:
        adds = (
            f"From {_percent(report.uninformed)}, when nothing is seen, to {_percent(answer[best])} for {_text(best)}: "
            "shares in percentage points, which add up to the difference."
        )
    return f'{title}<ul class="shares">{"".join(bars)}</ul><p class="quiet">{adds}</p>'


def _bar(name: str, value: float, written: str, start: float, length: float, kind: str, middle: bool = False) -> str:
    """A name, a track with a bar from ``start`` of ``length`` (shares of the track), and the number in words."""
    line = '<span class="middle"></span>' if middle else ""
    return (
        f'<li class="bar {kind}"><span class="name" title="{_text(name)}">{_text(name, 40)}</span>'
        f'<span class="track" aria-hidden="true">{line}<span class="fill" '
        f'style="left:{100 * start:.1f}%;width:{100 * length:.1f}%"></span></span>'
        f'<span class="number">{written}</span></li>'
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _text(value: Any, longest: int = 200) -> str:
    """Text from a file, for HTML."""
    return escape(printable(value, longest))
