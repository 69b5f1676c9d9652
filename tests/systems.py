"""Reference values of other systems (float64): of published code in tests/data/systems/NAME.npz.

What is known by papers only is in tests/data/papers/NAME.npz, computed by loops from our definitions.

Keys: ``in`` inputs, ``param`` parameters under their published names, ``out`` and ``loss`` what the published code
computes, ``corrected`` what an independent loop computes where that code has a defect, ``const`` constants.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

State = dict[str, Tensor]


def load_system(name: str, folder: str = "systems") -> State:
    """Every array of ``name``, by its key; ``folder`` is ``systems`` or ``papers``."""
    with np.load(Path(__file__).parent / "data" / folder / f"{name}.npz", allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def below(state: State, prefix: str) -> State:
    """What is below ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def close(ours: Tensor, reference: Tensor) -> None:
    """Equal within 1e-9, absolutely."""
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-9)
