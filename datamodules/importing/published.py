"""Packs that MMSA published, by their SHA-256, and what else is known of them.

The sums and the form of packs are those of https://github.com/thuiar/MMSA (README.md), sizes of splits and widths those
of its configuration and of the corpora's papers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datamodules.storage.layouts import CH_SIMS_LAYOUT, CMU_MOSEI_LAYOUT, CMU_MOSI_LAYOUT, Layout


@dataclass(frozen=True)
class PublishedCorpus:
    """What the published packs of a corpus have in common.

    Attributes:
        layout: of the corpus that is made of them.
        sizes: utterances of train, val and test.
        widths: of audio, visual and text frames.
    """

    layout: Layout
    sizes: tuple[int, int, int]
    widths: tuple[int, int, int]


PUBLISHED: Mapping[str, PublishedCorpus] = {
    "CMUMOSI": PublishedCorpus(CMU_MOSI_LAYOUT, (1284, 229, 686), (5, 20, 768)),
    "CMUMOSEI": PublishedCorpus(CMU_MOSEI_LAYOUT, (16326, 1871, 4659), (74, 35, 768)),
    "CHSIMS": PublishedCorpus(CH_SIMS_LAYOUT, (1368, 456, 457), (33, 709, 768)),
}
"""By the name that ``--data`` takes."""

SUMS: Mapping[str, tuple[str, str]] = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": ("CMUMOSI", "unaligned_50.pkl"),
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": ("CMUMOSI", "aligned_50.pkl"),
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": ("CMUMOSEI", "unaligned_50.pkl"),
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": ("CMUMOSEI", "aligned_50.pkl"),
    "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f": ("CHSIMS", "unaligned_39.pkl"),
}
"""SHA-256 of a pack, its corpus and its file's name."""


def corpus_of_sizes(sizes: tuple[int, ...]) -> str | None:
    """The corpus whose splits have these sizes, None if none has.

    >>> corpus_of_sizes((1284, 229, 686))
    'CMUMOSI'
    """
    return next((name for name, corpus in PUBLISHED.items() if corpus.sizes == sizes), None)
