"""The initialisation of the published code, and one that keeps the scale of a cascade."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from ifmmin.nn.imagination import Cascade

CascadeInit = Literal["published", "scaled"]


def initialise(module: nn.Module, cascade_init: CascadeInit = "published") -> None:
    """Kaiming normal (fan in, a = 0) weights and zero biases for linear and convolution layers.

    LSTM layers keep PyTorch's initialisation. This is the published code's choice.

    The 2 in Kaiming's variance 2 / fan in makes up for an activation that follows. In each block of a cascade two
    layers have none, that of the code and the last one, so that a block multiplies the variance of what it reads by 4.

    Args:
        module: with all its parts.
        cascade_init: of the cascades among them. ``scaled`` (ours) has the variance 1 / fan in where no activation
            follows, and zeros in the last layer of every residual block, which so begins as the identity. Both forms
            draw the same random numbers.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d)):
            nn.init.kaiming_normal_(layer.weight, a=0, mode="fan_in")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if cascade_init == "scaled":
        for part in module.modules():
            if isinstance(part, Cascade):
                _rescale(part)


@torch.no_grad()
def _rescale(cascade: Cascade) -> None:
    """Turn Kaiming's weights into those of ``scaled``."""
    last = [layers[-1] for block in cascade.autoencoders() for layers in (block.encoder, block.decoder)]
    for layer in (*last, cascade.head[-1]):
        layer.get_parameter("weight").mul_(0.5**0.5)
    for block in cascade.residual_blocks():
        block.decoder[-1].get_parameter("weight").zero_()
