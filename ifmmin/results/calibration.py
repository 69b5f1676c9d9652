"""Calibration of a result: how honest its probabilities are under each condition, before and after temperatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text
from torch import Tensor

from datamodules.conditions import COMPLETE, CONDITIONS, MISSING_CONDITIONS
from ifmmin.calibration import MEASURES, calibrated, measures
from ifmmin.calibration.temperatures import HIGHEST, LOWEST, answered, by_row
from ifmmin.results.predictions import Predictions
from ifmmin.results.results import readable
from ifmmin.tasks import SUMMARY_ROWS, Score

AFTER = "calibrated_"
"""Before the name of a measure: after the temperatures."""

COLUMNS = ("temperature", *(f"{prefix}{score.name}" for prefix in ("", AFTER) for score in MEASURES))
"""Of a row, beside its condition."""

_TEMPERATURE = Score("temperature", False, False)


def measure_of(column: str) -> Score:
    """How the values of a column are read.

    >>> measure_of("calibrated_ECE").format(0.0512), measure_of("temperature").format(1.5)
    ('5.12', '1.500')
    """
    name = column.removeprefix(AFTER)
    return next((score for score in MEASURES if score.name == name), _TEMPERATURE)


Calibration = Mapping[str, Mapping[str, float | None]]
"""For every row of :data:`~ifmmin.tasks.base.SUMMARY_ROWS`, a value for each of :data:`COLUMNS`, or None."""


def calibration_rows(predictions: Predictions, temperatures: Mapping[str, float]) -> Calibration | None:
    """Measure the probabilities of every condition; ``mean`` and ``pooled`` are over the six missing conditions.

    Args:
        predictions: every answer of a split.
        temperatures: by condition, fitted on validation; a condition without one has nothing after them.

    Returns:
        None of a regression, whose answers are no probabilities.
    """
    if not predictions.task.class_names:
        return None
    probability, label, condition = answered(predictions)
    temperature = by_row(condition, temperatures)
    places = {name: condition == place for place, name in enumerate(CONDITIONS)}
    places["pooled"] = condition != CONDITIONS.index(COMPLETE)
    rows: dict[str, dict[str, float | None]] = {
        name: _measured(probability[chosen], label[chosen], temperature[chosen]) for name, chosen in places.items()
    }
    for name in CONDITIONS:
        rows[name]["temperature"] = temperatures.get(name)
    missing = [rows[name] for name in MISSING_CONDITIONS]
    rows["mean"] = {column: _mean([row.get(column) for row in missing]) for column in COLUMNS[1:]}
    return {row: {column: rows[row].get(column) for column in COLUMNS} for row in SUMMARY_ROWS}


def _measured(probability: Tensor, label: Tensor, temperature: Tensor) -> dict[str, float | None]:
    if not len(label):
        return {}
    found: dict[str, float | None] = {**measures(probability, label)}
    if not bool(temperature.isnan().any()):
        after = measures(calibrated(probability, temperature), label)
        found |= {f"{AFTER}{name}": value for name, value in after.items()}
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def check_calibration(written: Any) -> Calibration | None:
    """Read what a file has of it; None where it has none, as files up to 0.2 and of regressions.

    Raises:
        ValueError: a row or a value is missing, of another kind or outside its range.
    """
    if written is None:
        return None
    if not isinstance(written, Mapping) or written.keys() != set(SUMMARY_ROWS):
        raise ValueError(f"calibration has not the rows {', '.join(SUMMARY_ROWS)}")
    highest = {"temperature": HIGHEST, "ECE": 1.0, "Brier": 2.0, "NLL": 100.0, "AURC": 1.0}
    found: dict[str, dict[str, float | None]] = {}
    for row, values in written.items():
        if not isinstance(values, Mapping) or values.keys() != set(COLUMNS):
            raise ValueError(f"calibration of {readable(row)} has not the values {', '.join(COLUMNS)}")
        for column, value in values.items():
            if value is None:
                continue
            low = LOWEST if column == "temperature" else 0.0
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            # Sums of rounded numbers may be 1e-16 beyond their range.
            if not number or not low - 1e-9 <= value <= highest[column.removeprefix(AFTER)] + 1e-9:
                raise ValueError(f"{column} of {readable(row)} in calibration is no number in its range")
        found[row] = {column: values[column] for column in COLUMNS}
    return found


def calibration_columns(rows: Calibration) -> list[dict[str, Any]]:
    """Rows of ``calibration.csv``; a condition that is not answered has none."""
    return [
        {"condition": name, **values}
        for name, values in rows.items()
        if any(value is not None for column, value in values.items() if column != "temperature")
    ]


def calibration_table(rows: Calibration) -> Table:
    """Make the table to print; each measure is followed by what it is after the temperatures, if there are any."""
    after = any(values[f"{AFTER}{score.name}"] is not None for values in rows.values() for score in MEASURES)
    caption = "lower is better; AURC: area under the risk-coverage curve"
    if after:
        caption += "\nT: temperature fitted on validation; beside each value the one after it"
    table = Table("calibration", caption=Text(caption), caption_justify="left")
    if after:
        table.add_column("T", justify="right")
    for score in MEASURES:
        table.add_column(f"{score.name} %" if score.percent else score.name, justify="right", no_wrap=True)
    for row in calibration_columns(rows):
        name = row["condition"]
        temperature = row["temperature"]
        cells = [] if not after else ["" if temperature is None else f"{temperature:.2f}"]
        for score in MEASURES:
            text = score.format(row[score.name])
            cells.append(f"{text} → {score.format(row[f'{AFTER}{score.name}'])}" if after else text)
        table.add_row(readable(name), *cells, end_section=name in (MISSING_CONDITIONS[-1], "pooled"))
    return table
