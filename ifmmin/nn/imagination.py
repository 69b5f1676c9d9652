"""Cascaded autoencoders that imagine the missing modality.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

CascadeForm = Literal["chained", "accumulated", "summed"]


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
        dim: width of the embeddings h.
        hidden_dims: of each autoencoder.
        blocks: M.
        output_dim: width of h'; None: ``dim``.
    """

    def __init__(
        self, dim: int, hidden_dims: Sequence[int] = (256, 128, 64), blocks: int = 5, output_dim: int | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Autoencoder(dim, hidden_dims) for _ in range(blocks))
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, output_dim or dim))
        self.joint_dim = blocks * hidden_dims[-1]
        """Width of the joint representation C: the codes of all blocks, concatenated."""

    def autoencoders(self) -> list[Autoencoder]:
        """The blocks, φ_1 to φ_M."""
        return [block for block in self.blocks if isinstance(block, Autoencoder)]

    def residual_blocks(self) -> list[Autoencoder]:
        """Blocks whose output is added to their input."""
        return []


class InvariantImagination(Cascade):
    r"""IF-IM, the imagination module of IF-MMIN, fed with the invariant features.

    ``chained``, the public code of today:

    .. math::
        Δz_1 = φ_1(h + H'), \quad Δz_i = φ_i(Δz_{i-1} + H'), \quad h' = W_2 ReLU(W_1 Δz_M + b_1) + b_2

    ``accumulated``, the public code as it was first released: no block reads what another decodes, and only the last
    block's decoder is used; the others are kept, so that released checkpoints load, and are not trained.

    .. math::
        u_0 = h, \quad u_i = u_{i-1} + H', \quad h' = W_2 ReLU(W_1 (u_M + φ_M(u_M)) + b_1) + b_2

    ``summed``, that of CIF-MMIN: chained, and the head reads what the last block reads and what it gives, added.

    .. math::
        h' = W_2 ReLU(W_1 (Δz_{M-1} + H' + Δz_M) + b_1) + b_2

    All: C has the codes of φ_1 to φ_M.

    Args:
        dim: width of h and H'.
        hidden_dims: of each autoencoder.
        blocks: M.
        cascaded_input: add H' before every block; False is the ablation that adds it before φ₁ only.
        form: of the cascade.
    """

    def __init__(
        self,
        dim: int,
        hidden_dims: Sequence[int] = (256, 128, 64),
        blocks: int = 5,
        cascaded_input: bool = True,
        form: CascadeForm = "chained",
    ) -> None:
        super().__init__(dim, hidden_dims, blocks)
        self.cascaded_input, self.form = cascaded_input, form
        if form == "accumulated":
            for block in self.autoencoders()[:-1]:
                block.decoder.requires_grad_(False)

    def residual_blocks(self) -> list[Autoencoder]:
        """The last block; none of the chained form."""
        return [] if self.form == "chained" else self.autoencoders()[-1:]

    def forward(self, embeddings: Tensor, invariant: Tensor) -> tuple[Tensor, Tensor]:
        """Imagine from h [B, dim] and H' [B, dim]: (h' [B, dim], C [B, joint_dim])."""
        z, read, change, codes = embeddings, embeddings, embeddings, []
        for position, block in enumerate(self.blocks):
            read = z + invariant if position == 0 or self.cascaded_input else z
            change, code = block(read)
            codes.append(code)
            z = read if self.form == "accumulated" else change
        return self.head(change if self.form == "chained" else read + change), torch.cat(codes, dim=-1)


class ResidualImagination(Cascade):
    """The cascaded residual autoencoder of MMIN: z_1 = h, z_{i+1} = z_i + φ_i(z_i).

    Tran et al., CVPR 2017; Zhao et al., "Missing modality imagination network for emotion
    recognition with uncertain missing modalities", ACL 2021.
    """

    def residual_blocks(self) -> list[Autoencoder]:
        """All."""
        return self.autoencoders()

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Imagine from h [B, dim]: (imagined [B, output_dim], C [B, joint_dim])."""
        z, codes = embeddings, []
        for block in self.blocks:
            change, code = block(z)
            z = z + change
            codes.append(code)
        return self.head(z), torch.cat(codes, dim=-1)
