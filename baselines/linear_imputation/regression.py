"""Regression in principal components, in closed form from sums over utterances.

Plain PyTorch: nothing here knows a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Sums(NamedTuple):
    """What a regression needs of some rows of P values.

    Attributes:
        rows: their number.
        mean: [P].
        scatter: [P, P], Σ (x − mean)(x − mean)ᵀ.
    """

    rows: float
    mean: Tensor
    scatter: Tensor

    def of(self, columns: Tensor) -> Sums:
        """The sums of some of the values."""
        return Sums(self.rows, self.mean[columns], self.scatter[columns][:, columns])

    def with_more(self, other: Sums) -> Sums:
        """Combine with the sums of other rows (Chan, Golub and LeVeque, 1983)."""
        rows = self.rows + other.rows
        step, share = other.mean - self.mean, other.rows / max(rows, 1.0)
        scatter = self.scatter + other.scatter + torch.outer(step, step) * (self.rows * share)
        return Sums(rows, self.mean + step * share, scatter)


class Moments:
    """The sums that a regression needs, of rows that each belong to one of some parts.

    Args:
        parts: number of parts.
        width: P, values per row.
        device: of the sums, float64.
    """

    def __init__(self, parts: int, width: int, device: torch.device | str = "cpu") -> None:
        # A row of ones: its products with the others are their sums, and with itself the count.
        self.products = torch.zeros(parts, width + 1, width + 1, dtype=torch.float64, device=device)
        self.shift: Tensor | None = None

    def add(self, rows: Tensor, part: Tensor) -> None:
        """Add rows [N, P] of parts int64 [N]."""
        rows = rows.double()
        if not len(rows):
            return
        if self.shift is None:
            self.shift = rows.mean(dim=0)  # sums of squares keep their digits far from 0
        rows = torch.cat([torch.ones_like(rows[:, :1]), rows - self.shift], dim=1)
        for number in part.unique().tolist():
            chosen = rows[part == number]
            self.products[number] += chosen.T @ chosen

    def without(self, part: int | None) -> Sums:
        """Sums over all parts but ``part``."""
        products = self.products.sum(dim=0)
        if part is not None:
            products = products - self.products[part]
        count = float(products[0, 0])
        mean = products[0, 1:] / max(count, 1.0)
        scatter = products[1:, 1:] - count * torch.outer(mean, mean)
        return Sums(count, mean if self.shift is None else mean + self.shift, scatter)


class Regression:
    """Least squares on the first principal components of the predictors, shrunk.

    The number of components k and the shrinkage s of their coefficients, b / (1 + s), are those with the least
    generalised cross-validation error, RSS / (1 − (1 + k / (1 + s)) / n)²
    (Golub, Heath, Wahba, Technometrics 1979).

    Args:
        count: n, the number of rows.
        scatter: [P, P], of the predictors.
        components: numbers of components to choose from; at most half of the rows are used.
        shrinkages: to choose from.
    """

    def __init__(self, count: float, scatter: Tensor, components: Sequence[int], shrinkages: Sequence[float]) -> None:
        self.count, self.shrinkages = count, shrinkages
        values, vectors = torch.linalg.eigh(scatter)
        values, vectors = values.flip(0), vectors.flip(1)
        # Smaller eigenvalues are rounding.
        usable = min(int((values > 1e-10 * values[0].clamp(min=1e-300)).sum()), int(count // 2))
        self.components = sorted({min(number, usable) for number in components} - {0})
        self.whitened = vectors[:, :usable] / values[:usable].sqrt()

    def fit(self, cross: Tensor, spread: Tensor) -> Tensor:
        """Coefficients [P, Q] of Q centred targets.

        Args:
            cross: Σ (x − mean)(y − mean)ᵀ, [P, Q].
            spread: Σ (y − mean)², summed over the targets too, a scalar.
        """
        scores = self.whitened.T @ cross
        explained = scores.square().sum(dim=1).cumsum(dim=0)
        best, chosen = float("inf"), torch.zeros_like(cross)
        for number in self.components:
            for shrinkage in self.shrinkages:
                kept = 1 / (1 + shrinkage)
                residual = float(spread - explained[number - 1] * (2 * kept - kept**2))
                error = residual / (1 - (1 + number * kept) / self.count) ** 2 if self.count > 2 else float("inf")
                if error < best:
                    best, chosen = error, kept * self.whitened[:, :number] @ scores[:number]
        return chosen
