"""The batch that every model reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(eq=False)  # not frozen: Lightning rebuilds a batch when it changes its precision
class Batch:
    """N utterances as stored, and B rows that each read one of them with some modalities present.

    In training there is one row per utterance. In evaluation each utterance is read by several
    rows, one per condition, so that a model can encode it once and answer them all.

    Padding is zero and lies behind the last frame. A length of 0 means that the corpus does not
    hold this modality for this utterance.

    Attributes:
        frames: three float tensors [N, T_m, D_m], padded, in the order audio, visual, text; [K_m, T_m, D_m]
            where ``held`` says so. To a model with ``reads_steps`` the steps they were pooled to are the frames.
        lengths: int64 [N, 3], the number of true frames.
        index: int64 [N], the utterance's position in its corpus.
        labels: int64 [N], the class, or -1 where it is not known.
        utterances: N utterance ids.
        row: int64 [B], the stored utterance each row reads.
        present: bool [B, 3], what each row may see.
        held: three int64 tensors [K_m], ascending, the utterances whose frames are here; None: all N. Training
            batches of a model that reads nothing else hold what their rows may see alone.
    """

    frames: tuple[Tensor, Tensor, Tensor]
    lengths: Tensor
    index: Tensor
    labels: Tensor
    utterances: list[str]
    row: Tensor
    present: Tensor
    held: tuple[Tensor, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """The number of rows B."""
        return len(self.row)

    @property
    def label(self) -> Tensor:
        """int64 [B]: the class of each row."""
        return self.labels[self.row]

    @property
    def available(self) -> Tensor:
        """Bool [N, 3]: what the corpus holds of each utterance."""
        return self.lengths > 0

    def complete(self) -> Batch:
        """The same utterances, one row each, with all that the corpus holds of them present."""
        row = torch.arange(len(self.lengths), device=self.lengths.device)
        return replace(self, row=row, present=self.available)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None, non_blocking: bool = True) -> Batch:
        """Move every tensor to ``device``, and the frames to ``dtype``; without waiting only towards a GPU."""
        # From a GPU the values might be read before they are there.
        non_blocking = non_blocking and torch.device(device).type == "cuda"
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        audio, visual, text = (frames.to(dtype) if dtype else frames for frames in moved.frames)
        return replace(moved, frames=(audio, visual, text))

    def pin_memory(self) -> Batch:
        """Copy every tensor to page-locked memory, for asynchronous copies to a GPU."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def each(three: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            audio, visual, text = three
            return change(audio), change(visual), change(text)

        return Batch(
            frames=each(self.frames),
            lengths=change(self.lengths),
            index=change(self.index),
            labels=change(self.labels),
            utterances=self.utterances,
            row=change(self.row),
            present=change(self.present),
            held=None if self.held is None else each(self.held),
        )
