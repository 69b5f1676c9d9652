"""Reference values of other systems' published code (tests/data/systems/NAME.npz, float64).

Keys: ``in`` inputs, ``param`` parameters under their published names, ``out`` and ``loss`` what the published code
computes, ``corrected`` what an independent loop computes where that code has a defect, ``const`` constants.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

State = dict[str, Tensor]


def load_system(name: str) -> State:
    """Every array of ``name``, by its key."""
    with np.load(Path(__file__).parent / "data" / "systems" / f"{name}.npz", allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def below(state: State, prefix: str) -> State:
    """What is below ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def close(ours: Tensor, reference: Tensor) -> None:
    """Equal within 1e-9, absolutely."""
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-9)
