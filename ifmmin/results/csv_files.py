"""CSV that reads back as it was written: whatever a name holds, its row stays one row and is no formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import IO, Any

from datamodules.text import csv_cell


class _UnixLines:
    """Ends each row in LF; the writer itself quotes a CR only where its own lines end in one."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


def write_rows(file: IO[str], rows: Iterable[Iterable[Any]]) -> None:
    r"""Write rows whose texts :func:`safe` has gone over; None is an empty cell.

    >>> import io
    >>> file = io.StringIO()
    >>> write_rows(file, [["a\rb", -0.5, None]])
    >>> file.getvalue()
    '"a\rb",-0.5,\n'
    """
    csv.writer(_UnixLines(file), lineterminator="\r\n").writerows(rows)


def safe(cells: Iterable[Any]) -> list[Any]:
    """Cells that no spreadsheet runs, see :func:`~datamodules.text.csv_cell`; what is no text stays.

    >>> safe(["=1+1", -0.5, None])
    ["'=1+1", -0.5, None]
    """
    return [csv_cell(cell) if isinstance(cell, str) else cell for cell in cells]


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Text of a CSV file with a heading, of rows that have the same columns; "" of no rows."""
    rows = list(rows)
    text = io.StringIO()
    if rows:
        write_rows(text, [safe(rows[0].keys()), *(safe(row.values()) for row in rows)])
    return text.getvalue()
