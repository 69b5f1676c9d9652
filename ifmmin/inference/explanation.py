"""Why a predictor says what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.inference.answer import Answer


@dataclass(frozen=True)
class Explanation:
    """How much each modality gave to an answer, by exact Shapley values.

    Attributes:
        answer: what is explained, from all modalities that are there.
        uninformed: what is said of nothing: every class alike, or the middle of a regression's scale.
        shares: float64 [3, C], of audio, visual and text in the probability of each class (or in the value, C = 1).
            The shares of a class add up to ``answer`` minus ``uninformed``; an absent modality has 0.
    """

    answer: Answer
    uninformed: Mapping[str, float]
    shares: npt.NDArray[np.float64]

    def of(self, name: str) -> dict[str, float]:
        """Share of each present modality in the probability of a class, or in ``"value"``.

        Raises:
            InputError: there is no such class.
        """
        names = list(self.answer)
        if name not in names:
            raise InputError(f"{printable(repr(name), 60)} was not answered: give one of {', '.join(names)}.")
        place = names.index(name)
        by_name = dict(zip(MODALITIES, self.shares[:, place].tolist(), strict=True))
        return {modality: by_name[modality] for modality in self.answer.present}

    @property
    def why(self) -> dict[str, float]:
        """Share of each present modality in what is predicted: the most probable class, or the value."""
        return self.of(max(self.answer, key=lambda name: self.answer[name]))
