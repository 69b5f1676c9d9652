"""Which modalities of a model can be read as a stream, and a view of the model that reads them so.

A modality is incremental if the model reads its frames through encoders that have a
:meth:`~ifmmin.nn.encoders.SequenceEncoder.running` pool, and in no other way. That is tried, not declared: the view
gets NaN in place of the modality's frames, and must answer as the model does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from datamodules.conditions import CONDITIONS, present_under
from ifmmin.base import MissingModalityModule
from ifmmin.inference.batching import batch_of
from ifmmin.inference.features import ReadFrames
from ifmmin.nn.encoders import SequenceEncoder
from ifmmin.nn.running import RunningPool

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Pool = Callable[[Tensor, Tensor], Tensor]

_LENGTHS = (7, 8, 9)
_CLOSE = 1e-9


class StreamedModel:
    """A view of a model that keeps what its encoders pooled of one stream; the weights are shared.

    Args:
        model: it.
        reads: for each modality that is read incrementally, by its position, the names of its encoders in the model.
    """

    def __init__(self, model: MissingModalityModule, reads: Mapping[int, Sequence[str]]) -> None:
        found = dict(model.named_modules())
        self._pools: dict[int, list[RunningPool]] = {modality: [] for modality in reads}
        twins: dict[nn.Module, nn.Module] = {}
        for modality, names in reads.items():
            for name in names:
                encoder = found[name]
                assert isinstance(encoder, SequenceEncoder)
                pool = encoder.running()
                assert pool is not None
                self._pools[modality].append(pool)
                twins[encoder] = _with_pool(encoder, _so_far(encoder, pool))
        self.view = _replaced(model, twins)

    @property
    def modalities(self) -> tuple[int, ...]:
        """Positions of the modalities that are read incrementally."""
        return tuple(self._pools)

    def push(self, modality: int, frames: Tensor) -> None:
        """Read further normalised frames [T, D] of an incremental modality."""
        for pool in self._pools[modality]:
            pool.push(frames)


def stand_in(length: int, dim: int, device: torch.device) -> Tensor:
    """NaN [length, dim] in the memory of one number: what a view gets of a modality that it has read."""
    return torch.full((1, 1), torch.nan, device=device).expand(length, dim)


@torch.inference_mode()
def incremental_encoders(model: MissingModalityModule) -> dict[int, list[str]]:
    """Names of the encoders that read each incremental modality, by its position."""
    # In float64 rounding cannot be taken for another answer, nor hide one.
    model = copy.deepcopy(model).to("cpu", torch.float64).eval()
    trials = {modality: trial for modality in range(3) if (trial := _trial(model, modality)) is not None}
    found: dict[int, list[str]] = {}
    for modality, trial in trials.items():
        names = _readers(model, trial, modality)
        if names and _answers_alike(model, trial, modality, names):
            found[modality] = names
    # An encoder of two modalities would mix their frames.
    shared = {name for names in found.values() for name in names if sum(name in other for other in found.values()) > 1}
    return {modality: names for modality, names in found.items() if not shared & {*names}}


def _trial(model: MissingModalityModule, modality: int) -> ReadFrames | None:
    """Random frames under the fullest condition with ``modality`` that the model answers; None without one."""
    generator = torch.Generator().manual_seed(0)
    for condition in reversed(CONDITIONS):
        present = present_under(condition)
        if present[modality] and model.feature_dims[modality] and model.answers(condition):
            shapes = zip(_LENGTHS, model.feature_dims, present, strict=True)
            return ReadFrames(
                [torch.randn(T, dim, generator=generator) if there else None for T, dim, there in shapes], {}
            )
    return None


def _outputs(model: MissingModalityModule, view: MissingModalityModule, read: ReadFrames) -> Tensor:
    batch = batch_of([read], model.feature_dims, model.device, model.needs.turns)
    outputs: Tensor = view(batch.to("cpu", torch.float64))
    return outputs


def _readers(model: MissingModalityModule, trial: ReadFrames, modality: int) -> list[str]:
    """Names of the encoders with a running pool that pool the frames of ``modality``."""
    frames = trial.frames[modality]
    assert frames is not None
    frames = frames.double()
    readers: list[str] = []
    twins: dict[nn.Module, nn.Module] = {}
    for name, encoder in model.named_modules():
        if isinstance(encoder, SequenceEncoder) and encoder.running() is not None:

            def pool(given: Tensor, lengths: Tensor, name: str = name, pooled: Pool = encoder.pool) -> Tensor:
                if given.shape[1:] == frames.shape and bool((given[0] == frames).all()):
                    readers.append(name)
                return pooled(given, lengths)

            twins[encoder] = _with_pool(encoder, pool)
    _outputs(model, _replaced(model, twins), trial)
    return list(dict.fromkeys(readers))


def _answers_alike(model: MissingModalityModule, trial: ReadFrames, modality: int, names: list[str]) -> bool:
    """Whether a view that has only running pools in place of the frames of ``modality`` answers as the model."""
    frames = trial.frames[modality]
    assert frames is not None
    frames = frames.double()
    streamed = StreamedModel(model, {modality: names})
    streamed.push(modality, frames[:3])
    streamed.push(modality, frames[3:])
    hidden = list(trial.frames)
    hidden[modality] = stand_in(len(frames), frames.shape[1], model.device)
    try:
        ours = _outputs(model, streamed.view, ReadFrames(hidden, {}))
    except (RuntimeError, ValueError):  # what cannot be computed of NaN reads the frames
        return False
    return bool(torch.isclose(ours, _outputs(model, model, trial), rtol=_CLOSE, atol=_CLOSE).all())


def _so_far(encoder: SequenceEncoder, running: RunningPool) -> Pool:
    """A ``pool`` that gives what is pooled so far of frames that are a :func:`stand_in`; others it reads."""
    original = encoder.pool

    def pool(frames: Tensor, lengths: Tensor) -> Tensor:
        return running.pooled() if bool(frames[0, 0, 0].isnan()) else original(frames, lengths)

    return pool


def _with_pool(encoder: SequenceEncoder, pool: Pool) -> SequenceEncoder:
    """A shallow copy of an encoder that pools otherwise."""
    twin = copy.copy(encoder)
    vars(twin)["pool"] = pool
    return twin


def _replaced(module: ModuleT, twins: Mapping[nn.Module, nn.Module]) -> ModuleT:
    """``module`` with its parts replaced, in shallow copies, so that it stays as it is; the rest is shared."""
    children = {name: _part(child, twins) for name, child in module.named_children()}
    if all(children[name] is child for name, child in module.named_children()):
        return module
    view = copy.copy(module)
    vars(view)["_modules"] = {name: children.get(name) for name in module._modules}
    return view


def _part(module: nn.Module, twins: Mapping[nn.Module, nn.Module]) -> nn.Module:
    return twins[module] if module in twins else _replaced(module, twins)
