"""Invented corpora: the trees of IEMOCAP and MSP-IMPROV and a folder of clips, to try extraction without a licence.

Everything in them is made up: drawn faces, synthetic voices, sentences written for them. No recording, no text and no
annotation of either corpus is used. ``python -m datamodules.extraction.invented OUT`` makes them; it needs the extra
``media``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.extraction.invented.clips import make_clips
from datamodules.extraction.invented.iemocap import make_iemocap
from datamodules.extraction.invented.msp import make_msp
from datamodules.extraction.invented.turns import Options
from datamodules.extraction.recordings import INVENTED

__all__ = ["CORPORA", "Options", "make"]

CORPORA: Mapping[str, tuple[str, Callable[[Path, Options], dict[str, Any]]]] = {
    "iemocap": ("IEMOCAP_full_release", make_iemocap),
    "msp": ("MSP-IMPROV", make_msp),
    "clips": ("clips", make_clips),
}
"""Folder and maker of each corpus."""


def make(out: Path, corpus: str, options: Options | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Make a corpus below ``out``; the same bytes for the same options, numpy, PyAV and kind of machine.

    Args:
        out: gets the corpus's folder, and ``<folder>.truth.json`` beside it: of every utterance its speaker, class,
            words, half of the picture, and the modalities that must be found absent.
        corpus: one of :data:`CORPORA`.
        options: what is made; by default those of the command without options.
        overwrite: replace the folder if it is there.

    Returns:
        what ``<folder>.truth.json`` holds.

    Raises:
        InputError: the folder is there, or PyAV or espeak-ng is needed and not installed.
        OSError: the folder cannot be written.
    """
    options = options or Options()
    if options.voice == "espeak-ng" and shutil.which("espeak-ng") is None:
        raise InputError("--voice espeak-ng: the program espeak-ng is not installed.")
    folder, maker = CORPORA[corpus]
    root = Path(out) / folder
    if root.exists():
        if not overwrite:
            raise InputError(f"{root}: is there already; give --overwrite to replace it.")
        shutil.rmtree(root)
    truth = maker(root, options)
    (root / INVENTED).write_text("Made by python -m datamodules.extraction.invented; no recording of anybody.\n")
    (root.parent / f"{folder}.truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    return truth
