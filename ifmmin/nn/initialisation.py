"""The initialisation of the published code."""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module) -> None:
    """Kaiming normal (fan in, a = 0) weights and zero biases for linear and convolution layers.

    LSTM layers keep PyTorch's initialisation. This is the published code's choice.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d)):
            nn.init.kaiming_normal_(layer.weight, a=0, mode="fan_in")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
