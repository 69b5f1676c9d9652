"""Normalising flows of zuko's transforms: what every flow of a model shares.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ifmmin.nn.precision import full_precision


class Flow(nn.Module, ABC):
    """An invertible map of vectors, always in full precision: an inverse in bfloat16 would be none."""

    @abstractmethod
    def transform(self) -> Any:
        """The map from the data to the common space with the weights as they are, as zuko makes it."""

    def forward(self, values: Tensor) -> Tensor:
        """Map values [..., E] to the common space."""
        with full_precision(values):
            common: Tensor = self.transform()(values)
            return common

    def inverse(self, common: Tensor) -> Tensor:
        """Map [..., E] of the common space to values."""
        with full_precision(common):
            values: Tensor = self.transform().inv(common)
            return values

    def with_volume(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Map values [..., E] to the common space [..., E]; and log abs det of the Jacobian [...] there."""
        with full_precision(values):
            common, volume = self.transform().call_and_ladj(values)
            return common, volume
