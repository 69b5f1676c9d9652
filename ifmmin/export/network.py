"""The module that is written: frames as they are in a corpus go in, probabilities or values come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.batches.loading import Normalization, normalized
from datamodules.conditions import CONDITIONS, MODALITIES, per_modality, present_under
from datamodules.storage.statistics import Statistics
from ifmmin.base import MissingModalityModule

INPUTS = (*MODALITIES, "lengths", "present")
OUTPUT = "answers"

SHORTEST = 16
"""Frames that every sequence is padded to: what a model does to shorter ones depends on their padding in other ways."""

GUARD = (5, 6, 7)
"""Frames of audio, visual and text of the utterance that is added to every batch."""


class Network(nn.Module):
    """A model with its normalisation, from padded frames to answers.

    A traced network has one path, whatever it is asked. So that the path is right for each batch, one more utterance is
    appended and read under every condition that the model answers; a model's answer does not depend on the rest of a
    batch, which :func:`ifmmin.testing.check_model` checks. Then some row sees each modality and another does not, and
    there is always padding.

    Args:
        model: in eval mode, on the CPU.
        trained_on: its checkpoint's record of the training data.
    """

    answered: Tensor
    guard_present: Tensor

    def __init__(self, model: MissingModalityModule, trained_on: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.normalization: list[Normalization] = list(trained_on["normalization"])
        self.statistics = [
            Statistics(**found) if (found := trained_on["statistics"].get(name)) else None for name in MODALITIES
        ]
        shown = [present_under(condition) for condition in CONDITIONS if model.answers(condition)]
        answered = torch.zeros(2, 2, 2, dtype=torch.bool)
        for audio, visual, text in shown:
            answered[int(audio), int(visual), int(text)] = True
        self.register_buffer("answered", answered.flatten())
        self.register_buffer("guard_present", torch.tensor(shown))

    def forward(self, audio: Tensor, visual: Tensor, text: Tensor, lengths: Tensor, present: Tensor) -> Tensor:
        """Answer B utterances.

        Args:
            audio: float32 [B, T_a, D_a], not normalised; a frame with NaN is lost, and zero after normalisation. What
                is behind a sequence's length is not read.
            visual: float32 [B, T_v, D_v].
            text: float32 [B, T_t, D_t].
            lengths: int64 [B, 3], true frames; 0 of what is absent. What is lost whole is absent too.
            present: bool [B, 3], what may be read.

        Returns:
            float32 [B, C] probabilities, or [B, 1] values; NaN in a row that shows nothing, or what the model does not
            answer.
        """
        size = audio.shape[0]
        given = (audio, visual, text)
        longest = torch.stack([torch.as_tensor(frames.shape[1]) for frames in given])
        lengths = lengths.clamp(min=0).minimum(longest)
        padded = per_modality(_at_least(each, SHORTEST) for each in given)
        kept = per_modality(
            (torch.arange(each.shape[1]) < lengths[:, m, None]) & ~each.isnan().any(dim=2)
            for m, each in enumerate(padded)
        )
        there = present & torch.stack([each.any(dim=1) for each in kept], dim=1)
        audio_there, visual_there, text_there = there.to(torch.int64).unbind(dim=1)
        answered = self.answered[4 * audio_there + 2 * visual_there + text_there][:, None]
        # A row without an answer is read as a zero frame of each modality.
        shown = torch.where(answered, there, self.guard_present[:1])
        lengths = torch.where(answered, lengths * there, torch.ones_like(lengths))
        frames = per_modality(
            self._with_guard(m, each, kept[m] & (there[:, m, None] & answered)) for m, each in enumerate(padded)
        )
        outputs = self.model(self._batch(frames, lengths, shown))
        answers = self.model.task.answers(outputs)[:size]
        answers = answers if answers.ndim == 2 else answers[:, None]
        return torch.where(answered, answers, torch.full((), torch.nan))

    def _with_guard(self, modality: int, frames: Tensor, kept: Tensor) -> Tensor:
        """[B + 1, T, D], normalised, 0 but where frames are ``kept``, the guard last."""
        width = frames.shape[2]
        # Selected, not multiplied: lost frames and padding may hold NaN. An utterance is counted from its first frame,
        # so that the first one that is kept stands for those before it.
        first = kept.float().argmax(dim=1)[:, None, None].expand(-1, 1, width)
        shown = torch.where(kept[..., None], frames, frames.gather(1, first))
        shown = normalized(shown, kept, self.normalization[modality], self.statistics[modality])
        shown = torch.where(kept[..., None], shown, torch.zeros(()))
        guard = torch.arange(GUARD[modality] * width, dtype=torch.float32).sin().view(1, GUARD[modality], width)
        steps: Any = torch.as_tensor(frames.shape[1])
        return torch.cat([shown, F.pad(guard, (0, 0, 0, steps - GUARD[modality]))])

    def _batch(self, frames: tuple[Tensor, Tensor, Tensor], lengths: Tensor, shown: Tensor) -> Batch:
        """The given rows and those that read the guard."""
        size, guards = lengths.shape[0], len(self.guard_present)
        index = torch.arange(size + 1)
        first = torch.zeros_like(index)
        return Batch(
            frames=frames,
            lengths=torch.cat([lengths, torch.tensor([GUARD])]),
            index=index,
            labels=first - 1,
            utterances=[],
            row=torch.cat([index[:-1], torch.zeros(guards, dtype=torch.int64) + size]),
            present=torch.cat([shown, self.guard_present]),
            turn=torch.stack([index, first, first], dim=1) if self.model.needs.turns else None,
            reading=torch.cat([first[:-1], torch.arange(guards)]),
        )


def _at_least(frames: Tensor, steps: int) -> Tensor:
    """Pad frames [B, T, D] with zeros to ``steps`` of them."""
    longest: Any = torch.as_tensor(frames.shape[1])
    return F.pad(frames, (0, 0, 0, longest.clamp(min=steps) - longest))
