"""Rules by which the ids of target files are those of feature files, where the two are not written alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

MatchRule = Literal["exact", "suffix", "blanks", "case", "folder", "accents", "all"]

EXACT: MatchRule = "exact"

_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}$")


@dataclass(frozen=True)
class Rule:
    """A rule other than ``exact``.

    Attributes:
        name: as ``--data.match_ids`` takes it.
        what: what it overlooks, in words.
    """

    name: MatchRule
    what: str


RULES: tuple[Rule, ...] = (
    Rule("suffix", "a suffix such as .wav"),
    Rule("blanks", "blanks around them"),
    Rule("folder", "a leading ./ or folder"),
    Rule("case", "upper and lower case"),
    Rule("accents", "how accents are stored (in one character or two, as on a Mac)"),
    Rule("all", "suffix, blanks, folder, case and accents"),
)
"""In the order in which they are tried."""


def tidy(utterance: str, rule: MatchRule) -> str:
    """Id without what ``rule`` overlooks, in its own case.

    >>> tidy("./wav/Ses01F_impro01_F000.wav ", "all"), tidy("./a.wav", "suffix"), tidy(" a", "exact")
    ('Ses01F_impro01_F000', './a', ' a')
    """
    if rule in ("blanks", "all"):
        utterance = utterance.strip()
    if rule in ("folder", "all"):
        utterance = utterance.rpartition("/")[2]
    if rule in ("suffix", "all"):
        utterance = _SUFFIX.sub("", utterance)
    return unicodedata.normalize("NFC", utterance) if rule in ("accents", "all") else utterance


def key_of(utterance: str, rule: MatchRule) -> str:
    """What two ids have in common if ``rule`` takes them for one.

    >>> key_of("Ses01.WAV", "case"), key_of("Ses01.WAV", "all")
    ('ses01.wav', 'ses01')
    """
    if rule == EXACT:
        return utterance
    tidied = tidy(utterance, rule)
    return tidied.casefold() if rule in ("case", "all") else tidied


def rule_that_matches(utterances: Sequence[str], stored: Collection[str]) -> Rule | None:
    """The first rule by which every one of ``utterances`` is exactly one of ``stored``, None if there is none.

    >>> rule_that_matches(["a.wav", "b"], ["a", "b"]).name
    'suffix'
    """
    for rule in RULES:
        theirs, ours = _keys(stored, rule), _keys(utterances, rule)
        if len(theirs) == len(stored) and len(ours) == len(utterances) and ours <= theirs:
            return rule
    return None


def _keys(names: Iterable[str], rule: Rule) -> set[str]:
    return {key_of(name, rule.name) for name in names}
