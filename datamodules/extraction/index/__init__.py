"""Index a corpus of recordings: what it holds and everything that is wrong with it, before anything is decoded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.extraction.index.clips import index_clips
from datamodules.extraction.index.iemocap import index_iemocap
from datamodules.extraction.index.iemocap import published_counts as _published_iemocap
from datamodules.extraction.index.msp_improv import index_msp_improv
from datamodules.extraction.index.msp_improv import published_counts as _published_msp_improv
from datamodules.extraction.index.targets import write_folds
from datamodules.extraction.recordings import INVENTED, Index
from datamodules.files import expanded
from datamodules.text import printable

INDEXES: Mapping[str, Callable[..., Index]] = {
    "IEMOCAP": index_iemocap,
    "MSPIMPROV": index_msp_improv,
    "clips": index_clips,
}
"""What indexes each kind of corpus, by the name that ``extract`` takes."""

__all__ = ["INDEXES", "index_clips", "index_iemocap", "index_msp_improv", "index_of", "published_counts", "write_folds"]


def index_of(corpus: str, raw: str | Path, **options: Any) -> Index:
    """Index the recordings at ``raw``.

    Args:
        corpus: one of :data:`INDEXES`.
        raw: the corpus's folder; for ``clips`` the manifest, or the folder that holds ``manifest.csv``.
        options: of the corpus's own function, such as ``scenarios`` of MSP-IMPROV.

    Returns:
        the index, with everything wrong in :attr:`Index.problems`; without recordings if the tree is unusable.

    Raises:
        InputError: there is no such corpus, it has no such option, or an option's value is none of its values.
    """
    if corpus not in INDEXES:
        close = next((name for name in INDEXES if name.casefold() == corpus.replace("-", "").casefold()), None)
        hint = f"did you mean {close}?" if close else f"there are {', '.join(INDEXES)}."
        raise InputError(f"{printable(corpus)}: no corpus of recordings that can be read; {hint}")
    takes = list(inspect.signature(INDEXES[corpus]).parameters)[1:]
    unknown = [name for name in options if name not in takes]
    if unknown:
        raise InputError(f"{corpus} has no option {unknown[0]}; it has {', '.join(takes)}.")
    place = expanded(raw)
    index = INDEXES[corpus](place, **options)
    if not ((place.parent if place.is_file() else place) / INVENTED).is_file():
        return index
    note = f"{INVENTED} is there, so the recordings are made up, and nothing on them is a corpus result"
    return replace(index, facts={**index.facts, "invented": True}, notes=(note, *index.notes))


def published_counts(index: Index) -> dict[str, int]:
    """Utterances of each class that papers count in the whole corpus; empty for a corpus of one's own."""
    if index.corpus == "IEMOCAP":
        return _published_iemocap()
    if index.corpus == "MSPIMPROV":
        return _published_msp_improv(index.facts["scenarios"])
    return {}
