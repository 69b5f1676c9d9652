"""Rate curves: how a trained model does as more and more is missing, one for each pattern, and the area below.

The area is the trapezoidal rule over a curve's rates, divided by their width: the mean height of the curve, on the
scale of the score. Over rates from 0 to 1 it is the area itself, which TFR-Net and EMT-DLFR report of lost frames
(rates 0.0, 0.1, ..., 1.0 on CMU-MOSI and CMU-MOSEI, with a model for each rate).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.base import EmotionDataModule
from datamodules.batches.batch import Batch
from datamodules.batches.masks import (
    MaskSampler,
    MissingRate,
    MissingRates,
    MissingShare,
    restrict,
    utterance_keys,
)
from datamodules.batches.patterns import FramePattern, frame_pattern
from datamodules.conditions import COMPLETE, CONDITION_TABLE, CONDITIONS, MODALITIES, per_modality
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.base import MissingModalityModule

TENTHS = tuple(tenths / 10 for tenths in range(11))


@dataclass(frozen=True)
class Curve:
    """A pattern that something is missing by, and the rates at which it is looked at.

    Attributes:
        rates: ascending, the first one 0, where nothing is missing.
        title: of a chart's axis.
        meaning: what a rate is.
        mask: of a pattern that takes modalities away.
    """

    rates: tuple[float, ...]
    title: str
    meaning: str
    mask: Callable[[float], MaskSampler] | None = None

    @property
    def span(self) -> str:
        """``0.0–0.7``: from the first to the last rate."""
        return f"{self.rates[0]:.1f}–{self.rates[-1]:.1f}"


_UNEQUAL = "rates:"
"""What the name of a curve begins with whose modalities are absent at rates of their own."""


def _unequal(own: tuple[float, float, float]) -> tuple[str, Curve]:
    """The curve along which each modality is absent with a share of a rate of its own, and its name."""
    named = ",".join(repr(rate).removesuffix(".0") for rate in own)
    spoken = named.replace(",", ", ")
    audio, visual, text = own
    return f"{_UNEQUAL}{named}", Curve(
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        f"share of the missing rates {spoken}",
        f"audio, visual and text are absent at this share of the rates {spoken}, drawn until one is left",
        lambda share: MissingRates((share * audio, share * visual, share * text)),
    )


CURVES: Mapping[str, Curve] = {
    "modalities": Curve(
        TENTHS[:8],
        "missing rate of the modalities",
        "each is absent with this probability, and one is given back where none is left",
        MissingRate,
    ),
    "share": Curve(
        TENTHS[:8],
        "share of the modalities that is missing",
        "one modality at random stays, and of all modalities this share is absent, as GCNet drops them; 0.7 is 2/3",
        MissingShare,
    ),
    "frames": Curve(
        TENTHS,
        "rate of lost frames",
        "all modalities are there; each of their frames is zero with this probability, and one always stays",
    ),
    "bursts": Curve(
        TENTHS,
        "rate of frames lost in bursts",
        "all modalities are there; as many of their frames are zero, in bursts of 10 on average",
    ),
    "noise": Curve(
        (0.0, 0.5, 1.0, 1.5, 2.0),
        "standard deviation of noise on the frames",
        "all modalities are there; normal noise on each of their frames, in standard deviations of the training frames",
    ),
    # The two that RedCore was trained with.
    **dict(map(_unequal, ((0.2, 0.5, 0.8), (0.5, 0.8, 0.2)))),
}
"""Curves by name; those of frames have the names of :data:`~datamodules.batches.patterns.PATTERNS`."""


def curve_of(name: str) -> Curve:
    """The curve of a name: one of :data:`CURVES`, or of any three rates, such as ``rates:0.1,0.1,0.9``.

    Raises:
        InputError: it is none.
    """
    return CURVES[name] if name in CURVES else _of_rates(name)[1]


def _of_rates(name: str) -> tuple[str, Curve]:
    """The curve of three rates that are written in any way, and the name that says them in one."""
    try:
        rates = [float(part) for part in name.removeprefix(_UNEQUAL).split(",")] if name.startswith(_UNEQUAL) else []
    except ValueError:
        rates = []
    if len(rates) != len(MODALITIES):
        raise InputError(
            f"--curves {printable(name, 60) or 'nothing'}: give all, or some of {', '.join(CURVES)}, and others with "
            "the missing rates of audio, visual and text, such as rates:0.1,0.1,0.9."
        )
    try:
        return _unequal(MissingRates(per_modality(rates)).rates)
    except InputError as error:
        raise InputError(f"--curves {printable(name, 60)}: {error}") from None


def chosen_curves(text: str) -> tuple[str, ...]:
    """The curves that an option names, in our order: names with commas between them, or ``all``.

    >>> chosen_curves("noise,frames")
    ('frames', 'noise')
    >>> chosen_curves("rates:0.1,0.10,0.9,frames")
    ('frames', 'rates:0.1,0.1,0.9')

    Raises:
        InputError: there is no such curve.
    """
    parts, wanted = text.split(","), []
    while parts:
        name = parts.pop(0)
        if name == "all":
            wanted += [*CURVES]
            continue
        if name.startswith(_UNEQUAL):
            name, parts = ",".join([name, *parts[:2]]), parts[2:]
        wanted.append(name if name in CURVES else _of_rates(name)[0])
    return tuple(dict.fromkeys([*(name for name in CURVES if name in wanted), *wanted]))


def area(rates: Sequence[float], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean height of curves: the trapezoidal rule over their width.

    Args:
        rates: R of them, ascending.
        values: [..., R].

    >>> area([0.0, 0.5, 1.0], np.array([1.0, 0.5, 0.0])).item()
    0.5
    """
    at = np.asarray(rates)
    below: npt.NDArray[np.float64] = ((values[..., 1:] + values[..., :-1]) / 2 * np.diff(at)).sum(axis=-1)
    return below / float(at[-1] - at[0])


@torch.no_grad()
def curve_counts(
    model: MissingModalityModule,
    data: EmotionDataModule,
    split: str = "test",
    names: Sequence[str] = tuple(CURVES),
) -> tuple[list[str], dict[str, Tensor]]:
    """Count the task of each utterance at each rate of each curve.

    What is missing is fixed by (the datamodule's seed, utterance id), so that every model meets the same. Each rate of
    lost or noisy frames is read once, under the complete condition: of a corpus with gaps on the utterances that are
    complete. A mask is one of seven conditions, so that all rates of modalities are read once together, each utterance
    on what the corpus has of it.

    Args:
        model: trained, with its best weights.
        data: set up, and told what the model reads.
        split: ``val`` or ``test``.
        names: of curves, see :func:`curve_of`.

    Returns:
        ids of the N utterances, and by curve ``[N, R, *shape]`` of R rates, zero where an utterance is not counted.
        Without those curves that the model cannot answer: modalities taken away take all conditions, frames the
        complete one.
    """
    answered = {condition for condition in CONDITIONS if model.answers(condition)}
    curves = {name: curve_of(name) for name in names}
    needed = {name: {COMPLETE} if curve.mask is None else {*CONDITIONS} for name, curve in curves.items()}
    names = [name for name in curves if needed[name] <= answered]
    model.eval()
    utterances: list[str] = []
    whole: list[Tensor] = []
    masked: dict[str, list[Tensor]] = {name: [] for name in names if curves[name].mask is not None}
    # Whole frames are read once for all curves.
    for batch, each in _counted(model, data, split, None, CONDITIONS if masked else [COMPLETE]) if names else ():
        utterances += batch.utterances
        whole.append(each[:, -1])
        for name, parts in masked.items():
            parts.append(_under_masks(batch, each, curves[name], data.seed))
    found = {}
    for name in names:
        if name in masked:
            found[name] = torch.cat(masked[name])
            continue
        columns = [torch.cat(whole)]
        for rate in curves[name].rates[1:]:
            read = _counted(model, data, split, frame_pattern(f"{name}:{rate}"), [COMPLETE])
            columns.append(torch.cat([each[:, -1] for _, each in read]))
        found[name] = torch.stack(columns, dim=1)
    return utterances, found


def _counted(
    model: MissingModalityModule,
    data: EmotionDataModule,
    split: str,
    pattern: FramePattern | None,
    conditions: Sequence[str],
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of a split, and the counts ``[n, 7, *shape]`` of each utterance by condition."""
    like = next(model.parameters(), torch.empty(0))
    for batch in data.in_order(split, pattern):
        placed = batch.to(like.device, like.dtype)
        outputs, row, condition = model.evaluate(placed, conditions)
        each = torch.zeros(len(batch.utterances), len(CONDITIONS), *model.task.shape, dtype=model.task.counts_dtype)
        each[row.cpu(), condition.cpu()] = model.task.count(outputs.float(), placed.labels[row]).cpu()
        yield batch, each


def _under_masks(batch: Batch, each: Tensor, curve: Curve, seed: int) -> Tensor:
    """Counts ``[n, R, *shape]`` at each rate, of those ``[n, 7, *shape]`` under each condition."""
    assert curve.mask is not None
    # The position in CONDITIONS of each pattern of three bits.
    position = np.zeros(8, dtype=np.int64)
    position[CONDITION_TABLE.numpy() @ (4, 2, 1)] = np.arange(len(CONDITIONS))
    keys, available = utterance_keys(batch.utterances), batch.available.numpy()
    rows, columns = torch.arange(len(each)), []
    for rate in curve.rates:
        shown = restrict(curve.mask(rate)(keys, seed, 0), available, keys, seed, 0)
        columns.append(each[rows, torch.from_numpy(position[shown @ (4, 2, 1)])])
    return torch.stack(columns, dim=1)


def by_rate(name: str, counts: Tensor) -> dict[str, Tensor]:
    """Split counts ``[R, ...]`` of a curve by rate, ``"0.3"``."""
    return {f"{rate:.1f}": each for rate, each in zip(curve_of(name).rates, counts, strict=True)}
