"""Model cards: what a model is and where it comes from, as class data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelCard:
    """Facts of a model that README's table, the documentation and ``ifmmin models`` show.

    Attributes:
        title: the model's name as its paper writes it.
        summary: what it does, in one line.
        paper: authors and venue, short; "" for a baseline without a paper of its own.
        year: of publication; None without a paper.
        url: of the paper.
        code: of the authors' public code, None if there is none.
        family: ``imagination``, ``translation``, ``alignment``, ``fusion`` or ``pretraining``.
        faithful: True if it follows public code or a full paper; otherwise what it follows, such as
            ``"after the abstract of the paper"``.
        seed: whether the library grew from it: IF-MMIN, the systems that its paper and code compare it with, CM-ARR.
            ``--models seeds`` of the leaderboard runs them.

    >>> ModelCard("MMIN", "imagines what is missing", "Zhao et al., ACL", 2021).source
    'Zhao et al., ACL 2021'
    """

    title: str
    summary: str
    paper: str = ""
    year: int | None = None
    url: str = ""
    code: str | None = None
    family: str = "fusion"
    faithful: bool | str = True
    seed: bool = False

    @property
    def source(self) -> str:
        """Paper and year, "ours" without a paper."""
        return f"{self.paper} {self.year}" if self.paper else "ours"
