"""The extractors of a checkpoint's features, made when they are needed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.extractor import FRAME_RATE, Extractor, FloatArray, Pictures
from datamodules.extraction.extractors.registry import build, build_detector
from datamodules.extraction.media.faces import recipe as recipe_of_faces
from datamodules.extraction.pipeline import Pipeline
from datamodules.extraction.provenance import difference
from datamodules.extraction.recipes import Choice, from_attributes
from datamodules.files import expanded
from datamodules.text import printable


class NoExtractorError(InputError):
    """An extractor of a checkpoint's features cannot be made here, whatever the recording."""


class RecordedExtractors:
    """Extractors as a checkpoint records them.

    Args:
        record: how the features of each modality were made, see :mod:`datamodules.extraction.provenance`.
        device: where those that are networks run.
        download: whether they may fetch weights that are not on this machine.
        weights: a file or folder of an extractor's weights, by modality or for ``detector``, where the record names one
            of another machine; they must be the same weights.

    Raises:
        InputError: weights of something else are given.
    """

    def __init__(
        self,
        record: Mapping[str, Mapping[str, Any]],
        device: str = "cpu",
        download: bool = False,
        weights: Mapping[str, str | Path] | None = None,
    ) -> None:
        self._record = dict(record)
        self._device, self._download = device, download
        self._weights = {name: str(expanded(path)) for name, path in (weights or {}).items()}
        if unknown := sorted(self._weights.keys() - {*MODALITIES, "detector"}):
            known = ", ".join((*MODALITIES, "detector"))
            raise InputError(f"weights of {printable(unknown[0], 60)}: give them for {known}.")
        self._made: dict[str, _Watched] = {}
        self._detector: Any = None

    @property
    def modalities(self) -> Collection[str]:
        """Those that an extractor is recorded for."""
        return self._record.keys()

    @property
    def fps(self) -> float:
        """How many pictures a second the visual extractor reads, once it is made."""
        return float(self._made["visual"].reads.fps if "visual" in self._made else FRAME_RATE)

    @property
    def removes_tags(self) -> bool:
        """Whether ``[LAUGHTER]`` and the like were removed from the words."""
        facts: Mapping[str, Any] = self._record.get("text", {}).get("facts", {})
        return facts.get("tags") == "removed"

    def pipeline(self, modalities: Collection[str]) -> Pipeline:
        """A pipeline of these modalities' extractors; each is made once.

        Raises:
            NoExtractorError: one is not installed, or its weights are not here.
        """
        for modality in MODALITIES:
            if modality in modalities and modality not in self._made:
                try:
                    self._made[modality] = self._make(modality)
                except InputError as error:
                    raise NoExtractorError(str(error)) from error
        return Pipeline({modality: self._made[modality] for modality in modalities}, self._detector)

    def faces(self, utterance: str) -> tuple[int, int] | None:
        """In how many pictures a face was found, of how many looked at; None where there was none. Asked once."""
        return self._made["visual"].faces.pop(utterance, None) if "visual" in self._made else None

    def _make(self, modality: str) -> _Watched:
        recorded = self._record[modality]
        recipe = from_attributes({modality: recorded})
        choice = self._placed(recipe.choices[modality], modality)
        extractor = build(choice, modality, self._device, download=self._download)
        found = {**recorded, "recipe": extractor.recipe(), "width": extractor.width}
        if extractor.reads.kind == "faces":
            self._detector = build_detector(self._placed(recipe.detector, "detector"), self._device)
            if (recorded["detector"] or {}).get("recipe") is not None:
                found["detector"] = {**recorded["detector"], "recipe": recipe_of_faces(self._detector)}
        if recipes := difference(recorded, found):
            logging.getLogger("ifmmin").warning(
                f"{modality} is extracted by {printable(recipes[1], 400)}, but the model was trained on features by "
                f"{printable(recipes[0], 400)}; answers may differ."
            )
        return _Watched(extractor)

    def _placed(self, choice: Choice, name: str) -> Choice:
        """The choice with its weights where they are on this machine."""
        if name not in self._weights:
            return choice
        return Choice(choice.extractor, {**choice.options, "model": self._weights[name]})


class _Watched:
    """An extractor that notes in how many pictures there was a face."""

    def __init__(self, extractor: Extractor) -> None:
        self.name, self.modality, self.width = extractor.name, extractor.modality, extractor.width
        self.reads = extractor.reads
        self.faces: dict[str, tuple[int, int]] = {}
        self._extractor = extractor

    def __call__(self, item: Any) -> FloatArray:
        if isinstance(item, Pictures) and self.reads.kind == "faces":
            self.faces[item.utterance] = len(item.pixels), item.looked_at
        return self._extractor(item)

    def recipe(self) -> dict[str, Any]:
        return self._extractor.recipe()
