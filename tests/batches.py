"""Utterances as plain arrays, and batches made of them, for tests.

A test changes the arrays (other neighbours, more padding, another content where it should not matter)
and builds the batch anew, so that nothing under test prepares its own input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITION_TABLE

FloatArray = npt.NDArray[np.float64]
Utterance = tuple[FloatArray, FloatArray, FloatArray]

DIMS = (5, 6, 7)
CLASSES = ["angry", "happy", "neutral", "sad"]


def random_utterances(
    size: int, dims: Sequence[int] = DIMS, seed: int = 0, longest: int = 9, partial: bool = False
) -> list[Utterance]:
    """Frames [T, D] of audio, visual and text with random lengths in 1..longest.

    Args:
        size: how many utterances.
        dims: frame widths.
        seed: of lengths and values.
        longest: the greatest length.
        partial: have the corpus hold only some modalities of an utterance; the others get length 0.
    """
    rng = np.random.default_rng(seed)
    kept = CONDITION_TABLE.numpy()[rng.integers(7, size=size)] if partial else np.ones((size, 3), dtype=bool)
    lengths = rng.integers(1, longest + 1, size=(size, 3)) * kept
    audio, visual, text = ([rng.standard_normal((T, D)) for T in lengths[:, m]] for m, D in enumerate(dims))
    return list(zip(audio, visual, text, strict=True))


def random_present(size: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Bool [size, 3]: missing conditions, each of the six in turn before any is repeated, in random order."""
    order = np.arange(size) % 6
    np.random.default_rng(seed).shuffle(order)
    return CONDITION_TABLE.numpy()[order]


def batch_of(
    utterances: Sequence[Utterance],
    present: npt.ArrayLike | None = None,
    padding: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Batch:
    """One row per utterance, labels in turn.

    Args:
        utterances: at least one.
        present: bool [N, 3]; None shows all there is.
        padding: zero frames behind the longest sequence.
        dtype: of the frames.
    """
    size = len(utterances)
    lengths = np.array([[len(frames) for frames in utterance] for utterance in utterances])
    audio, visual, text = (np.zeros((size, lengths[:, m].max() + padding, utterances[0][m].shape[1])) for m in range(3))
    for position, utterance in enumerate(utterances):
        for stack, frames in zip((audio, visual, text), utterance, strict=True):
            stack[position, : len(frames)] = frames
    shown = (lengths > 0) if present is None else np.asarray(present) & (lengths > 0)
    return Batch(
        frames=(torch.tensor(audio, dtype=dtype), torch.tensor(visual, dtype=dtype), torch.tensor(text, dtype=dtype)),
        lengths=torch.from_numpy(lengths),
        index=torch.arange(size),
        labels=torch.arange(size) % len(CLASSES),
        utterances=[f"Ses01F_impro01_F{position:03d}" for position in range(size)],
        row=torch.arange(size),
        present=torch.from_numpy(shown),
    )


def random_batch(
    size: int,
    dims: Sequence[int] = DIMS,
    seed: int = 0,
    longest: int = 9,
    padding: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Batch:
    """A training batch: random lengths and values, one row per utterance, the six conditions in turn."""
    utterances = random_utterances(size, dims, seed, longest)
    return batch_of(utterances, random_present(size, seed), padding, dtype)


def holding(batch: Batch, wanted: torch.Tensor) -> Batch:
    """``batch`` with the frames of what is ``wanted``, bool [N, 3], and no others, no longer than they are."""
    audio, visual, text = (column.nonzero()[:, 0] for column in wanted.unbind(dim=1))
    stored = (audio, visual, text)
    audio, visual, text = (
        frames[rows, : max([0, *batch.lengths[rows, m].tolist()])]
        for m, (frames, rows) in enumerate(zip(batch.frames, stored, strict=True))
    )
    return replace(batch, frames=(audio, visual, text), stored=stored)


def learnable_utterances(size: int, seed: int, dims: Sequence[int] = (12, 14, 10)) -> list[Utterance]:
    """Utterances of three frames that show the class of ``batch_of`` (position % 4) in each modality, blurred.

    All seeds share one world: z is a class mean plus noise, and a frame is linear in z plus noise.
    """
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    means = 1.2 * world.standard_normal((len(CLASSES), 6))
    views = [world.standard_normal((6, D)) / 6**0.5 for D in dims]
    z = means[np.arange(size) % len(CLASSES)] + rng.standard_normal((size, 6))
    audio, visual, text = ((z @ view)[:, None] + 0.7 * rng.standard_normal((size, 3, view.shape[1])) for view in views)
    return list(zip(audio, visual, text, strict=True))
