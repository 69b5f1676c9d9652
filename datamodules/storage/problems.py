"""What is wrong with a corpus: raised one at a time by the reader, listed all at once by the check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import CorpusError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file, folder or set of utterances.

    Attributes:
        path: the file or folder.
        what: what is wrong.
        remedy: what the user can do about it.
        utterances: all utterances it concerns; empty where it concerns the whole file.
    """

    path: Path
    what: str
    remedy: str
    utterances: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line: the file, the first utterance, what is wrong, how many more, the remedy."""
        who = f"utterance {self.utterances[0]}: " if self.utterances else ""
        others = len(self.utterances) - 1
        more = f" (and {others} more utterance{'s' if others > 1 else ''})" if others > 0 else ""
        return " ".join(f"{self.path}: {who}{self.what}{more}; {self.remedy}.".split())


def about(path: Path, utterances: Sequence[str], what: str, remedy: str) -> list[Problem]:
    """One problem that concerns ``utterances``, or none where there are none."""
    return [Problem(path, what, remedy, tuple(utterances))] if utterances else []


def raise_first(problems: Sequence[Problem]) -> None:
    """Raise the first problem.

    Raises:
        CorpusError: there is one.
    """
    if problems:
        raise CorpusError(str(problems[0]))


def root_problems(root: Path) -> list[Problem]:
    """Whether the root folder is not there."""
    if root.is_dir():
        return []
    what = "is not a folder" if root.exists() else "does not exist"
    return [Problem(root, what, "give the folder that holds A, V, L and target")]
