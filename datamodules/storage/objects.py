"""Text and numbers out of pickled NumPy arrays of objects, by an unpickler that runs nothing.

NumPy pickles arrays of objects, such as ids or labels out of a data frame. The names that such a pickle calls are
answered by the stand-ins below, which only note what they are given: neither NumPy's nor any other code runs on a
stranger's bytes. Any other name or operation is refused before the pickle is loaded.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_ITEMS = 10**7
"""Values that an array may hold, rows times columns."""

# No dictionaries, sets or persistent ids: arrays of text and numbers have none.
_OPCODES = frozenset(
    re.findall(
        r"\w+",
        """
        PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT
        BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE
        BINUNICODE8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GET BINGET LONG_BINGET PUT
        BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD
        """,
    )
)

_NUMBERS_OR_TEXT = re.compile(r"[biufSU]\d{1,9}")

_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")


class UnsafePickleError(Exception):
    """A pickle of something other than an array of text or numbers; the message goes on after "is pickled, and"."""


class _Type:
    """In place of ``numpy.dtype`` and ``numpy.ndarray``: the arguments and the state, as they are given."""

    def __init__(self, *given: Any) -> None:
        self.given = given
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Scalar:
    """In place of a NumPy scalar."""

    def __init__(self, *given: Any) -> None:
        self.given = given


def _reconstruct(*given: Any) -> _Type:
    return _Type()


def _encode(*given: Any) -> bytes:
    """In place of ``_codecs.encode``, by which older protocols pickle bytes."""
    if len(given) == 2 and isinstance(given[0], str) and given[1] == "latin1":
        return given[0].encode("latin1", errors="replace")
    raise UnsafePickleError("not of text or numbers")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Type,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    **{(module, "_reconstruct"): _reconstruct for module in _CORES},
    **{(module, "scalar"): _Scalar for module in _CORES},
}


class _Reader(pickle.Unpickler):
    """Finds the stand-ins and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name.

        Raises:
            UnsafePickleError: there is none.
        """
        found = _KNOWN.get((module, name))
        if found is None:
            raise UnsafePickleError(f"calls {module}.{name}")
        return found


def plain_array(pickled: bytes, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Read the pickled part of a NumPy file of objects.

    Args:
        pickled: what follows the header.
        shape: that the header declares.

    Returns:
        an array of text, of bytes, or of numbers, of this shape; [n, C] for n rows of C numbers.

    Raises:
        UnsafePickleError: it is damaged, or of anything but text or numbers.
    """
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name not in _OPCODES:
                raise UnsafePickleError(f"holds {opcode.name.lower()}")
            # The unpickler would take memory for every place up to this one.
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(pickled):
                raise UnsafePickleError("is damaged")
        loaded = _Reader(io.BytesIO(pickled)).load()
        items = _items(loaded, shape)
        return _array(items, shape)
    except UnsafePickleError:
        raise
    except Exception as error:  # a pickle can make the unpickler raise anything
        raise UnsafePickleError(f"is damaged ({type(error).__name__})") from error


def _items(loaded: Any, shape: tuple[int, ...]) -> list[Any]:
    """The objects of the array, as plain values, in C order."""
    if not isinstance(loaded, _Type) or not isinstance(loaded.state, tuple) or len(loaded.state) != 5:
        raise UnsafePickleError("not an array")
    _, stored_shape, dtype, _, items = loaded.state
    if not isinstance(items, list) or tuple(stored_shape) != tuple(shape) or math.prod(shape) != len(items):
        raise UnsafePickleError("not an array of the shape in its header")
    if not isinstance(dtype, _Type) or dtype.given[:1] not in (("O8",), ("O4",), ("O",)):
        raise UnsafePickleError("not an array of objects")
    if len(items) > MOST_ITEMS:
        raise UnsafePickleError(f"holds more than {MOST_ITEMS} values")
    return [_plain(item) for item in items]


def _plain(item: Any) -> Any:
    """A text, bytes, a number, or a list of numbers."""
    if isinstance(item, (str, bytes, bool, int, float)):
        return item
    if isinstance(item, (list, tuple)) and all(isinstance(each, (bool, int, float)) for each in item):
        return list(item)
    if isinstance(item, _Scalar) and len(item.given) == 2:
        (value,) = _from_bytes(item.given[0], item.given[1], 1)
        return value
    if isinstance(item, _Type) and isinstance(item.state, tuple) and len(item.state) == 5:
        _, shape, dtype, _, data = item.state
        if isinstance(shape, tuple) and len(shape) == 1 and isinstance(shape[0], int):
            return _from_bytes(dtype, data, shape[0])
    raise UnsafePickleError("holds something other than text and numbers")


def _from_bytes(dtype: Any, data: Any, count: int) -> list[Any]:
    """Numbers or text out of their bytes."""
    described = dtype.given[0] if isinstance(dtype, _Type) and dtype.given else None
    if not isinstance(described, str) or not _NUMBERS_OR_TEXT.fullmatch(described) or not isinstance(data, bytes):
        raise UnsafePickleError("holds something other than text and numbers")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    exact = np.dtype(described).newbyteorder(">" if order == ">" else "<")
    if not 0 < exact.itemsize <= len(data) or len(data) != count * exact.itemsize:
        raise UnsafePickleError("is damaged")
    values: list[Any] = np.frombuffer(data, exact).tolist()
    return values


def _array(items: list[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """An array of one kind."""
    if all(isinstance(item, str) for item in items) or all(isinstance(item, bytes) for item in items):
        longest = max(map(len, items), default=0)
        if longest * len(items) > MOST_ITEMS * 10:
            raise UnsafePickleError("holds text that is too long")
        return np.array(items).reshape(shape)
    if all(isinstance(item, (bool, int, float)) for item in items):
        return _numbers(items).reshape(shape)
    lengths = {len(item) if isinstance(item, list) else -1 for item in items}
    if len(lengths) == 1 and min(lengths) > 0 and len(shape) == 1 and min(lengths) * len(items) <= MOST_ITEMS:
        return np.stack([_numbers(item) for item in items])
    raise UnsafePickleError("holds a mixture of text and numbers, or rows of different lengths")


def _numbers(values: list[Any]) -> npt.NDArray[np.float64]:
    if any(isinstance(value, (str, bytes, list)) for value in values):
        raise UnsafePickleError("holds a mixture of text and numbers")
    return np.array([float(value) for value in values])
