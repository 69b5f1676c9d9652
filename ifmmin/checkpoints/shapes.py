"""Whether a checkpoint's weights are those of the model that its settings make, before memory is taken for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from datamodules.errors import InputError
from datamodules.ranges import check_options
from datamodules.text import printable
from ifmmin.base import MissingModalityModule


def check_fits(owner: type[MissingModalityModule], checkpoint: Mapping[str, Any], path: str) -> None:
    """Refuse settings that make no model, or another than the weights are of.

    The model is made on the meta device, where a tensor has a shape and no memory.

    Args:
        owner: the model's class.
        checkpoint: from :func:`~ifmmin.checkpoints.reading.read_checkpoint`.
        path: of it, for messages.

    Raises:
        InputError: in one line.
    """
    settings, weights = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    shown = printable(path)
    largest = 10_000 + 4 * sum(value.numel() for value in weights.values())
    try:
        check_options(owner, settings)
        with torch.random.fork_rng(devices=[]), _at_most(20 * len(weights) + 1000):
            wanted = _on_meta(owner, settings, largest).state_dict()
    except InputError as error:
        raise InputError(f"{shown}: its settings make no {owner.__name__}: {printable(error)}") from error
    except Exception as error:  # whatever a constructor raises for an argument of a wrong kind
        reason = printable(str(error).strip().split("\n")[0]) or type(error).__name__
        raise InputError(f"{shown}: its settings make no {owner.__name__} ({reason}); take another copy.") from error
    if problem := difference(wanted, weights):
        raise InputError(
            f"{shown}: its weights are not those of the {owner.__name__} that its settings make: {problem}; "
            "take another copy, or the version of the model that wrote it."
        )


def _on_meta(owner: type[MissingModalityModule], settings: Mapping[str, Any], largest: int) -> MissingModalityModule:
    try:
        with torch.device("meta"):
            return owner(**settings)
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
    with _NoLarger(largest):  # its constructor computes with values, which meta tensors have none of
        return owner(**settings)


class _NoLarger(TorchFunctionMode):
    """Refuses tensors of more than ``largest`` values as soon as they are asked for, before they are filled."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.numel() > self.largest:
            raise InputError("they make a model of much larger tensors than its weights.")
        return result


def difference(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """How ``given`` differs from ``wanted`` in names, shapes and kinds; None if it does not."""
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing:
        return f"{_first(missing)} missing"
    if unknown:
        return f"{_first(unknown)} unknown"
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape:
            return f"{name} is {list(given[name].shape)}, not {list(tensor.shape)}"
        if given[name].is_floating_point() != tensor.is_floating_point():
            return f"{name} is {given[name].dtype}, not {tensor.dtype}"
    return None


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{printable(names[0])}{more} {'are' if more else 'is'}"


@contextmanager
def _at_most(parts: int) -> Iterator[None]:
    """Stop a constructor that makes more modules and parameters than a checkpoint of this size can be of."""
    count = 0

    def counted(module: nn.Module, name: str, part: object) -> None:
        nonlocal count
        count += 1
        if count > parts:
            raise InputError("they make a model of many more parts than it has weights.")

    hooks = [register_module_module_registration_hook(counted), register_module_parameter_registration_hook(counted)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
