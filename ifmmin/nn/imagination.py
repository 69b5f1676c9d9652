"""Cascaded autoencoders that imagine the missing modality.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def _layers(widths: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Linear layers through ``widths``, with an activation after each but the last."""
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), activation()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(nn.Module):
    """One block φ: encoder with LeakyReLU between its layers, decoder with ReLU between its layers.

    Args:
        dim: width of input and output.
        hidden_dims: widths of the encoder's layers; the last is the width of the code.
    """

    def __init__(self, dim: int, hidden_dims: Sequence[int] = (256, 128, 64)) -> None:
        super().__init__()
        widths = [dim, *hidden_dims]
        self.encoder = _layers(widths, nn.LeakyReLU)
        self.decoder = _layers(widths[::-1], nn.ReLU)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map [..., dim] to (reconstruction [..., dim], code [..., hidden_dims[-1]])."""
        code = self.encoder(features)
        return self.decoder(code), code


class Cascade(nn.Module):
    """M autoencoders and a head W₂ ReLU(W₁ · + b₁) + b₂; subclasses chain the blocks.

    Args:
        dim: width of the embeddings h and of the imagined h'.
        hidden_dims: of each autoencoder.
        blocks: M.
    """

    def __init__(self, dim: int, hidden_dims: Sequence[int] = (256, 128, 64), blocks: int = 5) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Autoencoder(dim, hidden_dims) for _ in range(blocks))
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.joint_dim = blocks * hidden_dims[-1]
        """Width of the joint representation C: the codes of all blocks, concatenated."""


class InvariantImagination(Cascade):
    r"""IF-IM, the imagination module of IF-MMIN, fed with the invariant features.

    .. math::
        Δz_1 = φ_1(h + H'), \quad Δz_i = φ_i(Δz_{i-1} + H'), \quad h' = W_2 ReLU(W_1 Δz_M + b_1) + b_2

    Args:
        dim: width of h and H'.
        hidden_dims: of each autoencoder.
        blocks: M.
        cascaded_input: add H' before every block; False is the ablation that adds it before φ₁ only.
    """

    def __init__(
        self,
        dim: int,
        hidden_dims: Sequence[int] = (256, 128, 64),
        blocks: int = 5,
        cascaded_input: bool = True,
    ) -> None:
        super().__init__(dim, hidden_dims, blocks)
        self.cascaded_input = cascaded_input

    def forward(self, embeddings: Tensor, invariant: Tensor) -> tuple[Tensor, Tensor]:
        """Imagine from h [B, dim] and H' [B, dim]: (h' [B, dim], C [B, joint_dim])."""
        z, codes = embeddings + invariant, []
        for position, block in enumerate(self.blocks):
            if position and self.cascaded_input:
                z = z + invariant
            z, code = block(z)
            codes.append(code)
        return self.head(z), torch.cat(codes, dim=-1)


class ResidualImagination(Cascade):
    """The cascaded residual autoencoder of MMIN: z_1 = h, z_{i+1} = z_i + φ_i(z_i).

    Tran et al., CVPR 2017; Zhao et al., "Missing modality imagination network for emotion
    recognition with uncertain missing modalities", ACL 2021.
    """

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Imagine from h [B, dim]: (imagined [B, dim], C [B, joint_dim])."""
        z, codes = embeddings, []
        for block in self.blocks:
            change, code = block(z)
            z = z + change
            codes.append(code)
        return self.head(z), torch.cat(codes, dim=-1)
