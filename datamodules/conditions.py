"""The fixed order of modalities, and the conditions: which of them are available."""

from __future__ import annotations

import torch
from torch import Tensor

MODALITIES: tuple[str, str, str] = ("audio", "visual", "text")
"""The one order in which modalities stand everywhere: in tuples, in columns, in embeddings."""


CONDITIONS: tuple[str, ...] = ("a", "v", "t", "av", "at", "vt", "avt")
"""The conditions by what is *available*: the six missing conditions, then the complete one."""


MISSING_CONDITIONS: tuple[str, ...] = CONDITIONS[:-1]
"""The six conditions in which something is missing."""


COMPLETE = CONDITIONS[-1]
"""The condition in which nothing is missing."""


def present_under(condition: str) -> tuple[bool, bool, bool]:
    """Which of audio, visual and text are available under ``condition`` (``"at"``: audio and text)."""
    return ("a" in condition, "v" in condition, "t" in condition)


CONDITION_TABLE: Tensor = torch.tensor([present_under(condition) for condition in CONDITIONS])
"""bool [7, 3]: row c says which modalities are available under ``CONDITIONS[c]``."""
