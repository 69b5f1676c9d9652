"""Pickles of arrays, text and numbers, read by a machine that calls nothing.

A pickle is a program. Python's unpickler runs it, and whatever functions it names; the machine below carries out the
same operations on containers, text, numbers and NumPy arrays only. The few names that a pickle of arrays has are in a
table, each answered by a function of this module; any other is refused by name. Values of arrays stay in the file: an
array is a view of its memory map, so that a pack larger than memory can be read piece by piece.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from datamodules.storage.hdf5 import kind_of
from datamodules.storage.objects import UnsafePickleError

MOST_OPERATIONS = 20_000_000
"""Of a pickle: a pack has some for each utterance; numbers that are no arrays would take memory without end."""

_LARGE = 1 << 16
"""Bytes from which a block of bytes is not copied."""

_LONGEST_LINE = 1 << 20

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_BLOCKS: dict[str, Callable[[Any], int]] = {
    "SHORT_BINBYTES": pickletools.read_uint1,
    "BINBYTES": pickletools.read_uint4,
    "BINBYTES8": pickletools.read_uint8,
    "BYTEARRAY8": pickletools.read_uint8,
    "SHORT_BINSTRING": pickletools.read_uint1,
    "BINSTRING": pickletools.read_int4,
}
"""Operations whose argument is a block of bytes, and what reads its length; the last two are text of Python 2."""

_PUSHED = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    )
)
"""Operations that put their argument on the stack."""

_DTYPE = re.compile(r"[iuf][1248]|b1|[SU]\d{1,9}")
_OBJECTS = ("O8", "O4", "O")


class _Source:
    """The bytes of a pickle, as :mod:`pickletools` reads arguments of operations."""

    def __init__(self, content: mmap.mmap | bytes) -> None:
        self._content, self._view, self._at = content, memoryview(content), 0

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, or those that are left."""
        return bytes(self.block(size))

    def block(self, size: int) -> memoryview:
        """The same without a copy."""
        start = self._at
        self._at = min(start + max(size, 0), len(self._view))
        return self._view[start : self._at]

    def readline(self) -> bytes:
        """The rest of the line, unless it is absurdly long."""
        end = self._content.find(b"\n", self._at, self._at + _LONGEST_LINE)
        return self.read(end + 1 - self._at if end >= 0 else 0)


@dataclass(frozen=True)
class _Named:
    """A name of the pickle that is known, and what answers a call of it."""

    name: str
    answer: Callable[..., Any]


class _Dtype:
    """In place of ``numpy.dtype``: what describes it, and the order of its bytes."""

    def __init__(self, text: str) -> None:
        self.text, self.order = text, "="

    def exact(self) -> np.dtype[Any]:
        """The dtype of numbers or text."""
        if not _DTYPE.fullmatch(self.text):
            raise UnsafePickleError(f"holds an array of {self.text[:40]}, neither numbers nor text")
        return np.dtype(self.text).newbyteorder(">" if self.order == ">" else "<")


class _Array:
    """In place of ``numpy.ndarray``: the array, or for one of objects the list of them, once its state is known."""

    def __init__(self) -> None:
        self.value: Any = None


def _not_called(*_: Any) -> Any:
    raise UnsafePickleError("calls numpy.ndarray, which is refused")


def _reconstruct(kind: _Named, *_: Any) -> _Array:
    if kind.name != "numpy.ndarray":
        raise UnsafePickleError(f"holds a {kind.name}, not a plain array")
    return _Array()


def _dtype(text: Any, *_: Any) -> _Dtype:
    return _Dtype(_text(text))


def _scalar(dtype: _Dtype, data: Any) -> Any:
    exact, content = dtype.exact(), _bytes(data)
    if len(content) != exact.itemsize:
        raise UnsafePickleError(f"has {len(content)} bytes where one {exact} is declared")
    return np.frombuffer(content, exact)[0].item()


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    return _built(_Array(), (1, shape, dtype, order == "F", data))


def _encode(text: str, encoding: str) -> bytes:
    """In place of ``_codecs.encode``, by which protocol 2 pickles bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"encodes in {encoding[:40]}, which is refused")
    return text.encode("latin-1")


def _plain_bytes(*given: Any) -> bytes:
    """In place of ``bytes`` and ``bytearray``."""
    return _encode(*given) if len(given) == 2 else _bytes(given[0]) if given else b""


def _ordered() -> dict[Any, Any]:
    """In place of ``collections.OrderedDict``, whose items are set one by one."""
    return {}


_KNOWN: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _not_called,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    **{f"{module}.{name}": _plain_bytes for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    "_codecs.encode": _encode,
    "collections.OrderedDict": _ordered,
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UnsafePickleError(f"has {type(value).__name__} where text is expected")
    return value


def _bytes(value: Any) -> Any:
    """Bytes of an array; those that Python 2 wrote come as text."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if not isinstance(value, (bytes, memoryview)):
        raise UnsafePickleError(f"has {type(value).__name__} where bytes are expected")
    return value


def _built(array: _Array, state: Any) -> _Array:
    """Give an array its state: version, shape, dtype, whether in Fortran's order, and bytes or objects."""
    _, shape, dtype, fortran, data = state
    count = math.prod(shape)
    if len(shape) > 8 or any(type(size) is not int or size < 0 for size in shape):
        raise UnsafePickleError(f"has an array of the shape {list(shape)[:9]}")
    if dtype.text in _OBJECTS:
        if len(shape) > 1 or not isinstance(data, list) or len(data) != count:
            raise UnsafePickleError("has an array of objects of another form than a list")
        array.value = data if shape else data[0]
        return array
    exact, content = dtype.exact(), _bytes(data)
    if len(content) != count * exact.itemsize:
        raise UnsafePickleError(f"has {len(content)} bytes where an array {list(shape)} of {exact} is declared")
    values = np.frombuffer(content, exact) if count else np.empty(0, exact)
    array.value = values.reshape(shape, order="F" if fortran else "C")
    return array


class _Machine:
    """Carries out the operations of a pickle.

    Args:
        size: bytes of the file, and the most that are decoded from text: one text, again and again, would fill memory.
    """

    def __init__(self, size: int) -> None:
        self._left = size
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, source: _Source) -> Any:
        """What the pickle holds.

        Raises:
            UnsafePickleError: it has an operation or names a function that is not known.
        """
        for _ in range(MOST_OPERATIONS):
            code = source.read(1)
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise UnsafePickleError(f"is not a whole pickle{'' if code else ' (it ends early)'}")
            name = opcode.name
            if name == "STOP":
                return plain(self._stack.pop())
            if name in _BLOCKS:
                self._stack.append(self._block(name, source))
                continue
            argument = opcode.arg.reader(cast(IO[bytes], source)) if opcode.arg is not None else None
            if name in _PUSHED:
                self._stack.append(argument)
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            else:
                raise UnsafePickleError(f"has the operation {name.lower()}, which is refused")
        raise UnsafePickleError(f"has more than {MOST_OPERATIONS} values outside arrays")

    @staticmethod
    def _block(name: str, source: _Source) -> Any:
        size = _BLOCKS[name](source)
        content = source.block(size)
        if len(content) != size:
            raise UnsafePickleError("is not a whole pickle (it ends early)")
        if size >= _LARGE:
            return content
        return bytes(content).decode("latin-1") if name.endswith("STRING") else bytes(content)

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _take(self, count: int) -> tuple[Any, ...]:
        items = tuple(self._stack[-count:])
        if len(items) < count:
            raise UnsafePickleError("is not a whole pickle")
        del self._stack[-count:]
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise UnsafePickleError(f"appends to {type(target).__name__}, which is refused")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise UnsafePickleError(f"sets items of {type(target).__name__}, which is refused")
        target.update(_pairs(items))

    def _name(self, module: Any, name: Any) -> None:
        full = f"{_text(module)}.{_text(name)}"
        if full not in _KNOWN:
            raise UnsafePickleError(f"calls {full[:200]}, which is refused")
        self._push(_Named(full, _KNOWN[full]))

    def _reduce(self) -> None:
        called, arguments = self._take(2)
        if not isinstance(called, _Named) or not isinstance(arguments, tuple):
            raise UnsafePickleError(f"calls {type(called).__name__}, which is refused")
        answer = called.answer(*arguments)
        self._count(answer if isinstance(answer, bytes) else b"")
        self._push(answer)

    def _build(self) -> None:
        (state,) = self._take(1)
        target = self._stack[-1]
        if isinstance(target, _Array):
            self._count(state[4] if isinstance(state[4], str) else "")
            _built(target, state)
        elif isinstance(target, _Dtype):
            target.order = _text(state[1])
        else:
            raise UnsafePickleError(f"sets the state of {type(target).__name__}, which is refused")

    def _count(self, decoded: str | bytes) -> None:
        self._left -= len(decoded)
        if self._left < 0:
            raise UnsafePickleError("decodes more bytes than it has")

    def _remember(self, number: int) -> None:
        self._memo[number] = self._stack[-1]


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine._marks.append(len(machine._stack)),
    "POP": lambda machine, _: machine._take(1),
    "POP_MARK": lambda machine, _: machine._since_mark(),
    "DUP": lambda machine, _: machine._push(machine._stack[-1]),
    "NONE": lambda machine, _: machine._push(None),
    "NEWTRUE": lambda machine, _: machine._push(True),
    "NEWFALSE": lambda machine, _: machine._push(False),
    "EMPTY_LIST": lambda machine, _: machine._push([]),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "EMPTY_TUPLE": lambda machine, _: machine._push(()),
    "LIST": lambda machine, _: machine._push(machine._since_mark()),
    "TUPLE": lambda machine, _: machine._push(tuple(machine._since_mark())),
    "DICT": lambda machine, _: machine._push(_pairs(machine._since_mark())),
    "TUPLE1": lambda machine, _: machine._push(machine._take(1)),
    "TUPLE2": lambda machine, _: machine._push(machine._take(2)),
    "TUPLE3": lambda machine, _: machine._push(machine._take(3)),
    "APPEND": lambda machine, _: machine._extend([*machine._take(1)]),
    "APPENDS": lambda machine, _: machine._extend(machine._since_mark()),
    "SETITEM": lambda machine, _: machine._set([*machine._take(2)]),
    "SETITEMS": lambda machine, _: machine._set(machine._since_mark()),
    "GLOBAL": lambda machine, names: machine._name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine._name(*machine._take(2)),
    "REDUCE": lambda machine, _: machine._reduce(),
    "BUILD": lambda machine, _: machine._build(),
    "MEMOIZE": lambda machine, _: machine._remember(len(machine._memo)),
    "BINPUT": lambda machine, number: machine._remember(number),
    "LONG_BINPUT": lambda machine, number: machine._remember(number),
    "BINGET": lambda machine, number: machine._push(machine._memo[number]),
    "LONG_BINGET": lambda machine, number: machine._push(machine._memo[number]),
}


def plain(value: Any) -> Any:
    """A value of a pickle: an array of numbers or text, a list in place of one of objects, or ``value`` itself."""
    return value.value if isinstance(value, _Array) else value


@dataclass(frozen=True)
class Unpickled:
    """What a pickle holds; arrays within it are given by :func:`plain`.

    Attributes:
        value: containers, text, numbers, and arrays that are views of the file.
    """

    value: Any
    _map: mmap.mmap

    def release(self) -> None:
        """Give back the memory of what was read of the file; it is read again where it is needed."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)


def read_pickle(path: Path) -> Unpickled:
    """Read a pickle of protocol 2 or later, without executing anything of it.

    Args:
        path: of the file, which must stay as it is while its arrays are used.

    Raises:
        UnsafePickleError: it is damaged, or holds anything but containers, text, numbers and plain arrays; the message
            goes on after the file's name.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():  # to open a pipe would wait for its writer, for ever
        raise UnsafePickleError(f"is {kind_of(path)}, not a file")
    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            raise UnsafePickleError("is not a pickle of protocol 2 or later")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return Unpickled(read_pickled(content), content)


def read_pickled(content: mmap.mmap | bytes) -> Any:
    """What a pickle holds; errors as of :func:`read_pickle`."""
    try:
        return _Machine(len(content)).run(_Source(content))
    except UnsafePickleError:
        raise
    except Exception as error:  # a pickle can make any operation fail in any way
        raise UnsafePickleError(f"is not a whole pickle ({type(error).__name__})") from error
