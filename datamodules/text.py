"""Text from files, made safe for where it is shown: ids and names may hold anything."""

from __future__ import annotations

import unicodedata

LONGEST = 200
"""Letters that :func:`printable` shows of a text."""

_FORMULA = ("=", "+", "-", "@")


def has_control(text: str) -> bool:
    r"""Whether ``text`` holds control, format or separator characters other than a blank.

    They move the cursor, start a line, reverse the reading direction, or run commands of a terminal.

    >>> has_control("Ses01F_impro01"), has_control("a\x1b[2J"), has_control("a\u202eb")
    (False, True, True)
    """
    return not text.isprintable() and any(unicodedata.category(letter)[0] in "CZ" for letter in text if letter != " ")


def printable(text: object, longest: int = LONGEST) -> str:
    r"""``text`` in one line of at most ``longest`` letters, with control characters written as escapes.

    >>> printable("a\x1b[2J\nb")
    'a\\x1b[2J\\nb'
    >>> printable("x" * 30, longest=10)
    'xxxxxxxxx…'
    """
    shown = str(text)
    if has_control(shown):
        shown = "".join(_escaped(letter) if has_control(letter) else letter for letter in shown)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii") if ord(letter) > 127 else repr(letter)[1:-1]


def csv_cell(text: str) -> str:
    """Text of a CSV cell that no spreadsheet runs as a formula: an apostrophe before ``=``, ``+``, ``-`` and ``@``.

    An apostrophe of the text's own gets one more, so that :func:`from_csv_cell` gives back every text.

    >>> csv_cell("=1+1"), csv_cell("Ses01"), csv_cell("'a")
    ("'=1+1", 'Ses01', "''a")
    """
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def from_csv_cell(cell: str) -> str:
    """Text that :func:`csv_cell` wrote.

    >>> from_csv_cell("'=1+1"), from_csv_cell("Ses01")
    ('=1+1', 'Ses01')
    """
    return cell.removeprefix("'") if cell.startswith(tuple("'" + sign for sign in (*_FORMULA, "'"))) else cell


def reason_of(error: BaseException) -> str:
    """Why something failed, in one printable line: the text of ``error``, or its type where it has none."""
    if isinstance(error, SystemExit):
        return f"it ends the program, with code {printable(error.code, 60)}"
    try:
        return printable(error) if str(error).strip() else type(error).__name__
    except Exception:  # its __str__ fails too
        return type(error).__name__


def readable_time(seconds: float) -> str:
    """Write seconds for people.

    >>> readable_time(45), readable_time(130), readable_time(7300)
    ('45 s', '2 min', '2 h 02 min')
    """
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
