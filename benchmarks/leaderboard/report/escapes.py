"""Names and notes, written so that each format shows them and none obeys them. The page escapes by Jinja.

All make one line without control characters of what may be anybody's text.
"""

from __future__ import annotations

import re

from datamodules.text import csv_cell, printable

LONGEST = 1000
"""Letters of one text in a table."""

LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "–": "--",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "`": r"\textasciigrave{}",
}
"""LaTeX for characters that it reads as markup, or that its fonts lack."""


def plain(text: str) -> str:
    """One line, control characters as escapes; the terminal's table takes it as it is."""
    return printable(text, LONGEST)


def markdown(text: str) -> str:
    r"""Escape ``text`` for Markdown and the tables, formulas, mentions and links that GitHub adds to it.

    >>> print(markdown("a|b <i> $x$ www.example.org"))
    a\|b \<i\> \$x\$ www\.example.org
    """
    escaped = re.sub(r"([\\`*_\[\]<>|~&#$@])", r"\\\1", plain(text))
    # Bare addresses would become links.
    return re.sub(r"(?i)www\.", lambda found: found[0][:-1] + r"\.", escaped.replace("://", r"\://"))


def latex(text: str) -> str:
    r"""Escape ``text`` for LaTeX; letters that its default fonts lack are named by their number.

    >>> print(latex("A_B 50% 中"))
    A\_B 50\% U+4E2D
    """
    return "".join(LATEX_CHARACTERS.get(character) or _latin(character) for character in plain(text))


def csv(text: str) -> str:
    """Text of a CSV cell that no spreadsheet runs."""
    return csv_cell(plain(text))


def _latin(character: str) -> str:
    return character if character.isascii() or "À" <= character <= "ÿ" else f"U+{ord(character):04X}"
