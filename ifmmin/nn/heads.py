"""The invariance encoder, the classifier and MulT's head: what reads utterance embeddings.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

InvarianceActivation = Literal["leaky_relu", "sigmoid"]


class InvarianceEncoder(nn.Module):
    """The shared encoder of modality-invariant features, one for all modalities.

    IF-MMIN, section 2.1: (Linear + LeakyReLU(0.01)) twice.

    The public code has other forms, chosen by the name of a run, for which the arguments are: ``V0200``: 4 layers,
    sigmoid, dropout; ``V0500``: 1 layer, dropout; ``V0501`` to ``V0503``: 1 layer; ``V0600``: 2 layers, dropout; any
    other name: 2 layers. The dropout is the run's, 0.3 in the script of stage 1 and 0.5 in that of stage 2.

    Args:
        embedding_dim: width of input and output.
        dropout: after each activation.
        layers: number of linear layers.
        activation: LeakyReLU after each layer, or a sigmoid after each but the last, as in ``V0200``.

    Example:
        >>> import torch
        >>> InvarianceEncoder(8)(torch.zeros(5, 3, 8)).shape
        torch.Size([5, 3, 8])
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        dropout: float = 0.0,
        layers: int = 2,
        activation: InvarianceActivation = "leaky_relu",
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            nonlinear = nn.Sigmoid() if activation == "sigmoid" else nn.LeakyReLU(0.01)
            parts += [nn.Linear(embedding_dim, embedding_dim), nonlinear, nn.Dropout(dropout)]
        self.layers = nn.Sequential(*(parts[:-2] if activation == "sigmoid" else parts))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map [..., E] to [..., E]."""
        invariant: Tensor = self.layers(embeddings)
        return invariant


class Classifier(nn.Module):
    """(Linear + ReLU + dropout) for each hidden width, then linear to the classes.

    Args:
        input_dim: width of the input.
        num_classes: C.
        hidden_dims: widths of the hidden layers.
        dropout: after each activation.

    Example:
        >>> import torch
        >>> Classifier(input_dim=8, num_classes=4)(torch.zeros(5, 8)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self, input_dim: int, num_classes: int, hidden_dims: Sequence[int] = (128, 128), dropout: float = 0.3
    ) -> None:
        super().__init__()
        widths = [input_dim, *hidden_dims]
        hidden: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            hidden += [nn.Linear(narrow, wide), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*hidden)
        self.output = nn.Linear(widths[-1], num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map [..., input_dim] to logits [..., C]."""
        logits: Tensor = self.output(self.hidden(features))
        return logits


class ResidualHead(nn.Module):
    """MulT's head z + W₂ ReLU(W₁ z), before a last linear layer.

    Args:
        width: of z.
        dropout: after the ReLU.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.hidden, self.back = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor) -> Tensor:
        """Map [B, width] to [B, width]."""
        mapped: Tensor = z + self.back(self.dropout(self.hidden(z).relu()))
        return mapped
