"""Invented packs in the form of the public ones, to try an import without a download: ``python -m`` this module.

    python -m datamodules.importing.invented CMUMOSI pack.pkl
    python -m datamodules.importing.invented CMUMOSEI pack.pkl --form unaligned --sizes 16326 1871 4659

Frames are noise and follow from the seed; a pack says itself that it is invented, and so does the corpus made of it.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from datamodules.files import atomic_path
from datamodules.importing.published import PUBLISHED
from datamodules.labels import Scale

Form = Literal["aligned", "unaligned"]

STEPS = {"aligned": (50, 50, 50), "unaligned": (500, 375, 50)}
"""Steps of audio, visual and text, with padding."""

_SPLITS = ("train", "valid", "test")
_CLIPS = 4  # of a video


def invented_pack(
    corpus: str = "CMUMOSI",
    form: Form = "aligned",
    sizes: tuple[int, int, int] = (8, 4, 4),
    widths: tuple[int, int, int] | None = None,
    steps: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Invent a pack.

    Minus infinity is in the audio of every eighth utterance; BERT's vectors of padding are not zero.

    Args:
        corpus: a name of :data:`~datamodules.importing.published.PUBLISHED`, for its scale and widths.
        form: ``aligned``: padded after the words of the mask; ``unaligned``: with lengths of its own.
        sizes: utterances of train, valid and test.
        widths: of audio, visual and text frames; None: those of the corpus.
        steps: of audio, visual and text; None: :data:`STEPS`.
        seed: of all numbers.

    Returns:
        the pack, as it is pickled.
    """
    random = np.random.default_rng(seed)
    published = PUBLISHED[corpus]
    scale = published.layout.labels
    assert isinstance(scale, Scale)
    pack: dict[str, Any] = {"invented": True}
    first_video = 0
    for split, count in zip(_SPLITS, sizes, strict=True):
        part = _split(random, count, form, widths or published.widths, steps or STEPS[form])
        videos = range(first_video, first_video + (count + _CLIPS - 1) // _CLIPS)
        first_video = videos.stop
        part["id"] = [f"video{video:04d}$_${clip}" for video in videos for clip in range(_CLIPS)][:count]
        part["regression_labels"] = (random.integers(-6, 7, count) / 6 * scale.high).astype(np.float32)
        part["classification_labels"] = np.sign(part["regression_labels"]) + 1.0
        part["annotations"] = np.array(["Negative", "Neutral", "Positive"])[part["classification_labels"].astype(int)]
        pack[split] = part
    return pack


def _split(
    random: np.random.Generator, count: int, form: Form, widths: tuple[int, ...], steps: tuple[int, ...]
) -> dict[str, Any]:
    longest = max(steps[2] * 3 // 5, 4)
    words = random.integers(3, longest + 1, count)
    text_bert = np.zeros((count, 3, steps[2]))
    text_bert[:, 0] = random.integers(1000, 30_000, (count, steps[2]))
    text_bert[:, 1] = np.arange(steps[2]) < words[:, None]
    text_bert[:, 0] *= text_bert[:, 1]
    lengths = [words if form == "aligned" else random.integers(2, most + 1, count) for most in steps[:2]]
    audio, vision = (
        _padded(random, length, most, width) for length, most, width in zip(lengths, steps[:2], widths[:2], strict=True)
    )
    audio[::8, 1, 0] = -np.inf
    part = {
        "raw_text": np.array([f"an invented sentence of {number} words" for number in words]),
        "audio": audio,
        "vision": vision,
        "text": random.standard_normal((count, steps[2], widths[2]), dtype=np.float32),
        "text_bert": text_bert,
    }
    if form == "unaligned":
        part |= {"audio_lengths": lengths[0].tolist(), "vision_lengths": lengths[1].tolist()}
    return part


def _padded(
    random: np.random.Generator, lengths: npt.NDArray[np.int64], steps: int, width: int
) -> npt.NDArray[np.float64]:
    """Noise [n, steps, width] with zeros past each length."""
    frames = random.standard_normal((len(lengths), steps, width))
    frames[np.arange(steps) >= lengths[:, None]] = 0
    return frames


def write_pack(path: Path, pack: dict[str, Any], protocol: int = 4) -> Path:
    """Pickle a pack, whole or not at all; the path."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        pickle.dump(pack, file, protocol=protocol)
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Write an invented pack."""
    summary, _, examples = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", choices=[*PUBLISHED])
    parser.add_argument("path", type=Path, help="file to write")
    parser.add_argument("--form", choices=["aligned", "unaligned"], default="aligned")
    parser.add_argument("--sizes", type=int, nargs=3, default=(80, 20, 40), help="utterances of train, valid and test")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    write_pack(given.path, invented_pack(given.corpus, given.form, tuple(given.sizes), seed=given.seed))


if __name__ == "__main__":
    main()
