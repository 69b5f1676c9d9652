"""Reading checkpoints: ours and the released ones of the published code. Nothing in them is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datamodules.lazy import lazy

if TYPE_CHECKING:
    from ifmmin.checkpoints.loading import load_model

__all__ = ["load_model"]

__getattr__, __dir__ = lazy(__name__, {"load_model": "loading"})
