"""Operators that PyTorch's tracing exporter lacks, or writes wrongly.

Each is tried against PyTorch by the comparison that ends every export. A network's shapes and values are torch's at
any size; the exporter's own versions are not, for the reasons given with each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

OPSET = 18
"""Version of the ONNX operators that are written."""

_BOOL, _INT64 = "Bool", 7


def _number(value: Any) -> int:
    """A constant whole number."""
    from torch.onnx import symbolic_helper

    found: int = symbolic_helper._maybe_get_const(value, "i")
    return found


def _constant(g: Any, *values: int) -> Any:
    return g.op("Constant", value_t=torch.tensor(values))


def _kind(value: Any) -> str:
    return str(value.type().scalarType())


def _size(g: Any, tensor: Any, dim: Any = None) -> Any:
    """Behind Abs the exporter cannot work a size out: it takes that of the example where sizes follow from values."""
    sizes = g.op("Abs", g.op("Shape", tensor))
    return sizes if dim is None else g.op("Gather", sizes, g.op("Constant", value_t=torch.tensor(_number(dim))))


def _sort(g: Any, tensor: Any, *rest: Any) -> Any:
    """``stable=True`` is refused; TopK keeps equal values in their order."""
    dim, descending = (_number(value) for value in rest[-2:])
    count = g.op("Gather", g.op("Shape", tensor), _constant(g, dim))
    return g.op("TopK", tensor, count, axis_i=dim, largest_i=descending, sorted_i=1, outputs=2)


def _argsort(g: Any, tensor: Any, *rest: Any) -> Any:
    return _sort(g, tensor, *rest)[1]


def _cumsum(g: Any, tensor: Any, dim: Any, dtype: Any = None) -> Any:
    """CumSum takes no booleans."""
    return g.op("CumSum", g.op("Cast", tensor, to_i=_INT64) if _kind(tensor) == _BOOL else tensor, dim)


def _where(g: Any, condition: Any, left: Any = None, right: Any = None, *rest: Any) -> Any:
    """Where takes no booleans in onnxruntime."""
    if left is not None and right is not None and _kind(left) == _BOOL:
        other = g.op("And", g.op("Not", condition), right)
        return g.op("Or", g.op("And", condition, left), other)
    from torch.onnx import symbolic_opset9

    return symbolic_opset9.where(g, condition, left, right, *rest)


def _index_add(g: Any, tensor: Any, dim: Any, index: Any, values: Any, alpha: Any = None) -> Any:
    """Of an index that occurs twice only the last value is added."""
    from torch.onnx import symbolic_helper

    rank, axis = symbolic_helper._get_tensor_rank(values), _number(dim)
    others = [place for place in range(rank or 1) if place != axis % (rank or 1)]
    if others:
        index = g.op("Unsqueeze", index, _constant(g, *others))
    index = g.op("Expand", index, g.op("Shape", values))
    return g.op("ScatterElements", tensor, index, values, axis_i=axis, reduction_s="add")


def _floor_divide(g: Any, left: Any, right: Any) -> Any:
    """Whole numbers below 0 are rounded towards it."""
    if {_kind(left), _kind(right)} & {"Float", "Double"}:
        return g.op("Floor", g.op("Div", left, right))
    return g.op("Div", g.op("Sub", left, g.op("Mod", left, right)), right)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "argsort": _argsort,
    "cumsum": _cumsum,
    "floor_divide": _floor_divide,
    "index_add": _index_add,
    "size": _size,
    "sort": _sort,
    "where": _where,
}


@contextmanager
def operators() -> Iterator[None]:
    """Have the exporter write these operators our way."""
    from torch.onnx import register_custom_op_symbolic, unregister_custom_op_symbolic  # type: ignore[attr-defined]

    for name, write in _OPERATORS.items():
        register_custom_op_symbolic(f"aten::{name}", write, OPSET)
    try:
        yield
    finally:
        for name in _OPERATORS:
            unregister_custom_op_symbolic(f"aten::{name}", OPSET)
