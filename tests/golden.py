"""Reference values that the published implementation computed (tests/data/reference.npz, float64)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.parts import load_part

DIMS = [5, 6, 7]
CLASSES = ["0", "1", "2", "3"]
# An absent modality was read as zero frames of its own length.
ENCODERS: dict[str, Any] = {"embedding_dim": 4, "text_channels": 5, "absent_frames": [9, 7, 8]}
CASCADE: dict[str, Any] = {"blocks": 3, "block_dims": [10, 8, 6]}
CLASSIFIER: dict[str, Any] = {"hidden_dims": [8, 8]}

State = dict[str, Tensor]


def load_golden() -> State:
    with np.load(Path(__file__).parent / "data" / "reference.npz", allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


GOLDEN = load_golden()


def golden_batch() -> Batch:
    frames = (GOLDEN["in/acoustic"], GOLDEN["in/visual"], GOLDEN["in/lexical"])
    size = len(frames[0])
    return Batch(
        frames=frames,
        lengths=torch.tensor([[9, 7, 8]]).expand(size, -1),
        index=torch.arange(size),
        labels=GOLDEN["in/label"],
        utterances=[str(number) for number in range(size)],
        row=torch.arange(size),
        present=GOLDEN["in/present_avl"].bool(),
    )


def networks(who: str, *names: str, **renamed: str) -> dict[str, State]:
    """Published state dicts of ``student`` or ``teacher`` by published name; C="C_fusion" takes C_fusion as C."""
    wanted = {name: name for name in ("A", "V", "L", *names)} | renamed
    return {
        ours: {
            key.removeprefix(f"{who}/{theirs}/"): value
            for key, value in GOLDEN.items()
            if key.startswith(f"{who}/{theirs}/")
        }
        for ours, theirs in wanted.items()
    }


def load(model: MissingModalityModule, parts: dict[str, State]) -> None:
    for name, state in parts.items():
        load_part(getattr(model, name), state, name)


def close(ours: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-12)


def in_our_order(alv: Tensor) -> Tensor:
    audio, text, visual = alv.split(4, dim=1)
    return torch.cat([audio, visual, text], dim=1)


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Of all parameters together; none may lack a gradient."""
    squares = []
    for parameter in parameters:
        assert parameter.grad is not None
        squares.append(parameter.grad.square().sum())
    return torch.stack(squares).sum().sqrt()


def check_gradient_norms(model: MissingModalityModule, published: dict[str, str], prefix: str) -> None:
    """Compare the gradient norm of each sub-network, by our name and its published one."""
    parts = dict(model.subnetworks())
    assert set(parts) == set(published)
    for ours, theirs in published.items():
        close(gradient_norm(parts[ours].parameters()), GOLDEN[f"{prefix}/gradnorm_{theirs}"])


ENCODER_NETWORKS = {"encoders.audio": "A", "encoders.visual": "V", "encoders.text": "L"}
