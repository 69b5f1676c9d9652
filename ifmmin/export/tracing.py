"""What a model runs on while it is traced: sizes that stay free, and functions without a loop over lengths.

A trace records tensor operations. ``len`` and ``int`` would turn a size into a number of the example, so modules of
models have others for as long as a trace takes; and functions whose work is laid out by numbers have twins here that do
the same on padded tensors. No model knows of this.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches import pooling
from datamodules.batches import visible as seeing
from datamodules.batches.batch import Batch
from datamodules.batches.visible import Visible
from ifmmin.base import MissingModalityModule
from ifmmin.nn import attention, padding
from ifmmin.nn.kernels import plain

_PACKAGES = ("ifmmin", "baselines", "datamodules")


def length_of(value: Any) -> Any:
    """``len``, a traced size of a tensor, and of what has a tensor's size."""
    return value.shape[0] if isinstance(value, Tensor) else type(value).__len__(value)


def whole(value: Any = 0, *base: Any) -> Any:
    """``int``, but a tensor stays one."""
    return value if isinstance(value, Tensor) else builtins.int(value, *base)


def visible(batch: Batch, modality: int) -> Visible:
    """Twin of :func:`datamodules.batches.visible.visible`, where some but not all rows see the modality."""
    rows = batch.present[:, modality].nonzero(as_tuple=True)[0]
    read = batch.row[rows]
    needed = torch.zeros_like(batch.lengths[:, 0]).index_fill(0, read, 1)
    slots = (needed.cumsum(0) - 1)[read]
    sequences = needed.nonzero(as_tuple=True)[0]
    lengths = batch.lengths[:, modality][sequences]
    frames = batch.frames[modality].index_select(0, sequences)[:, : lengths.max()]
    return Visible(frames, lengths, rows, slots, batch.row.shape[0])


def pool_steps(frames: Tensor, lengths: Tensor, steps: int) -> Tensor:
    """Twin of :func:`datamodules.batches.pooling.pool_steps`: a step is a weighted sum of all frames."""
    edge, place = torch.arange(steps + 1) * lengths[:, None], torch.arange(frames.shape[1])
    start, end = edge[:, :-1] // steps, (edge[:, 1:] + steps - 1) // steps
    inside = (place >= start[..., None]) & (place < end[..., None])
    count = (end - start).clamp(min=1)[..., None]
    return torch.bmm(inside.to(frames.dtype) / count.to(frames.dtype), frames)


def kept_frames(frames: Tensor, kept: Tensor, sequence: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Twin of :func:`ifmmin.nn.padding.kept_frames`."""
    lengths = kept.sum(dim=1)
    row, step = kept.nonzero(as_tuple=True)
    longest: Any = lengths.max().clamp(min=1)
    true = torch.arange(longest) < lengths[:, None]
    found = frames.new_zeros(true.shape[0], true.shape[1], frames.shape[2])
    return found.index_put((true,), frames[row if sequence is None else sequence[row], step]), lengths


def by_time(frames: Tensor, sequences: int) -> Tensor:
    """Twin of :func:`ifmmin.nn.padding.by_time`, without zeros up to full multiples."""
    return F.pad(frames.transpose(0, 1), (0, 0, 0, sequences - frames.shape[0]))


def packed_layer(layer: nn.TransformerEncoderLayer, frames: Tensor, lengths: Tensor, together: int = 32) -> Tensor:
    """Twin of :func:`ifmmin.nn.attention.packed_layer`: all sequences are padded to the longest."""
    longest: Any = lengths.max()
    true = torch.arange(longest) < lengths[:, None]
    padded = frames.new_zeros(true.shape[0], true.shape[1], frames.shape[1]).index_put((true,), frames)
    own = layer.self_attn
    query, key, value = F.linear(padded, own.in_proj_weight, own.in_proj_bias).chunk(3, dim=2)
    mixed = own.out_proj(attention.attend(query, key, value, own.num_heads, true[:, None, None]))[true]
    states = layer.norm1(frames + mixed)
    result: Tensor = layer.norm2(states + layer.linear2(layer.linear1(states).relu()))
    return result


def merge(self: Any, constant: Tensor, transformed: Tensor, shape: Any) -> Tensor:
    """Twin of zuko's ``CouplingTransform.merge``, which writes into an empty tensor."""
    places = torch.cat([self.idx_a, self.idx_b]).argsort()
    return torch.cat([constant, transformed], dim=-1).index_select(-1, places)


_TWINS: dict[Callable[..., Any], Callable[..., Any]] = {
    attention.packed_layer: packed_layer,
    padding.by_time: by_time,
    padding.kept_frames: kept_frames,
    pooling.pool_steps: pool_steps,
    seeing.visible: visible,
}

_ABSENT = object()


@contextmanager
def traceable(model: MissingModalityModule) -> Iterator[None]:
    """Give the modules of models names that can be traced; nothing else may run in this process meanwhile."""
    import zuko.transforms

    before: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        before.append((owner, name, vars(owner).get(name, _ABSENT)))
        setattr(owner, name, value)

    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        put(zuko.transforms.CouplingTransform, "merge", merge)
        for module in _modules(model):
            for name, value in [*vars(module).items()]:
                if isinstance(value, Callable) and (twin := _twin(value)) is not None:  # type: ignore[arg-type]
                    put(module, name, twin)
            for name, value in (("len", length_of), ("int", whole)):
                if name not in vars(module):
                    put(module, name, value)
        with plain():
            yield
    finally:
        for owner, name, value in reversed(before):
            if value is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        torch.backends.mha.set_fastpath_enabled(fast)


def _twin(value: Any) -> Callable[..., Any] | None:
    try:
        return _TWINS.get(value)
    except TypeError:  # a callable without a hash
        return None


def _modules(model: MissingModalityModule) -> list[ModuleType]:
    """Modules whose code a model may run: ours, and those of its own package."""
    owners = [owner for owner in type(model).__mro__ if issubclass(owner, MissingModalityModule)]
    packages = {*_PACKAGES, *(owner.__module__.partition(".")[0] for owner in owners)}
    found = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}
    return [module for name, module in found.items() if module is not None and not name.startswith("ifmmin.export")]
