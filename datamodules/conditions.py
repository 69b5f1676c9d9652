"""The fixed order of modalities, and the conditions: which of them are available."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

MODALITIES: tuple[str, str, str] = ("audio", "visual", "text")
"""The order of modalities everywhere: in tuples, columns and embeddings."""


CONDITIONS: tuple[str, ...] = ("a", "v", "t", "av", "at", "vt", "avt")
"""The conditions by what is *available*: the six missing conditions, then the complete one."""


MISSING_CONDITIONS: tuple[str, ...] = CONDITIONS[:-1]
"""The six conditions in which something is missing."""


COMPLETE = CONDITIONS[-1]
"""The condition in which nothing is missing."""


def present_under(condition: str) -> tuple[bool, bool, bool]:
    """Tell which of audio, visual and text are available under ``condition``.

    >>> present_under("at")
    (True, False, True)
    """
    return ("a" in condition, "v" in condition, "t" in condition)


CONDITION_TABLE: Tensor = torch.tensor([present_under(condition) for condition in CONDITIONS])
"""bool [7, 3]: row c tells which modalities are available under ``CONDITIONS[c]``."""


def per_modality(values: Iterable[T]) -> tuple[T, T, T]:
    """Make a tuple of three values in the order of :data:`MODALITIES`.

    >>> per_modality(name[0] for name in MODALITIES)
    ('a', 'v', 't')
    """
    audio, visual, text = values
    return audio, visual, text
