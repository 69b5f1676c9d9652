"""Text of strangers, made safe for where it is shown."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from datamodules.text import csv_cell, from_csv_cell, has_control, printable


@given(st.text())
def test_printable_is_one_line_of_bounded_length(text: str) -> None:
    shown = printable(text)
    assert not has_control(shown)
    assert len(shown.splitlines()) <= 1
    assert len(shown) <= 200


@given(st.text())
def test_a_cell_comes_back_and_is_no_formula(text: str) -> None:
    cell = csv_cell(text)
    assert not cell.startswith(("=", "+", "-", "@"))
    assert from_csv_cell(cell) == text
    file = io.StringIO()
    csv.writer(file).writerow([cell.replace("\r", "").replace("\n", "").replace("\0", "")])
    assert len(file.getvalue().splitlines()) >= 1


def test_plain_text_stays_as_it_is() -> None:
    assert printable("Ses01F_impro01 – äöü 语音") == "Ses01F_impro01 – äöü 语音"
