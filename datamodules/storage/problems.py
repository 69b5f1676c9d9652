"""Problems of a corpus: raised at the first by a reader, collected by the check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import CorpusError
from datamodules.text import printable

_LONGEST = 400
"""Letters shown of a path, of what is wrong and of a remedy."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file, folder or set of utterances.

    Attributes:
        path: the file or folder.
        what: what is wrong.
        remedy: what the user can do about it.
        utterances: all utterances it concerns; empty if it concerns the whole file.

    >>> str(Problem(Path("A/comparE.h5"), "has no frames", "extract its features", ("u1", "u2")))
    'A/comparE.h5: utterance u1: has no frames (and 1 more utterance); extract its features.'
    """

    path: Path
    what: str
    remedy: str
    utterances: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line: the file, the first utterance, what is wrong, how many more, the remedy."""
        who = f"utterance {printable(self.utterances[0], 80)}: " if self.utterances else ""
        others = len(self.utterances) - 1
        more = f" (and {others} more utterance{'s' if others > 1 else ''})" if others > 0 else ""
        what, remedy = (printable(" ".join(text.split()), _LONGEST) for text in (self.what, self.remedy))
        return f"{printable(self.path, _LONGEST)}: {who}{what}{more}; {remedy}."


class Problems:
    """Collects everything that is wrong.

    Attributes:
        found: the problems so far.
    """

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, path: Path, what: str, remedy: str, utterances: Sequence[str] = ()) -> None:
        """Report one problem."""
        self.found.append(Problem(path, what, remedy, tuple(utterances)))

    def add_if_any(self, path: Path, utterances: Sequence[str], what: str, remedy: str) -> None:
        """Report a problem of ``utterances`` if there are any."""
        if utterances:
            self.add(path, what, remedy, utterances)


class Strict(Problems):
    """Raises the first problem instead of collecting it."""

    def add(self, path: Path, what: str, remedy: str, utterances: Sequence[str] = ()) -> None:
        """Raise the problem.

        Raises:
            CorpusError: always.
        """
        raise CorpusError(str(Problem(path, what, remedy, tuple(utterances))))


def root_exists(root: Path, problems: Problems) -> bool:
    """Whether the corpus's root folder is there; a problem if not."""
    if root.is_dir():
        return True
    what = "is not a folder" if root.exists() else "does not exist"
    problems.add(root, what, "give the folder that holds A, V, L and target")
    return False
