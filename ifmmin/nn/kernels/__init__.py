"""Hand-written gradients, each beside its plain twin in the same file.

A kernel stays only if it makes an epoch of some model at least 1.3 times as fast
(``python -m benchmarks.speed.kernels``). The plain twins serve ``torch.func``, ``torch.compile`` and ``torch.export``
by themselves, and a second derivative.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_off: frozenset[str] = frozenset()


@contextmanager
def plain(*names: str) -> Iterator[None]:
    """Use the plain twins of the kernels of these names, by default of all.

    >>> with plain():
    ...     use_plain("winning_window")
    True
    """
    global _off
    before, _off = _off, _off | frozenset(names or ("all",))
    try:
        yield
    finally:
        _off = before


def use_plain(name: str) -> bool:
    """Whether a kernel must leave the work to its plain twin: asked for, or under a transform or tracer."""
    if _off and (name in _off or "all" in _off):
        return True
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
