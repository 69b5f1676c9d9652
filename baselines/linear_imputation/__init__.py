"""LinearImputation: what linear regression alone imputes and answers."""

from __future__ import annotations

from baselines.linear_imputation.model import LinearImputation

__all__ = ["LinearImputation"]
