"""Encoders of one modality, their container, the invariance encoder and the classifier.

Plain ``torch.nn``: nothing here knows Lightning. Every encoder reads frames [K, T, D] with lengths
[K] and gives one embedding [K, E] per sequence that does not depend on the padding, and
``absent()``, the embedding [E] it gives to a modality that is not there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import Visible, visible
from datamodules.conditions import MODALITIES
from ifmmin.nn.kernels.winning_window import winning_responses
from ifmmin.nn.padding import by_time, checked_lengths, padding_mask
from ifmmin.nn.precision import in_autocast, lstm_states
from ifmmin.nn.running import RunningConvolutions, RunningLSTM, RunningPool

Pooling = Literal["max", "last", "attention"]


class SequenceEncoder(nn.Module, ABC):
    """Turns the frames of one modality into an utterance embedding.

    Args:
        input_dim: D, the width of a frame.
        embedding_dim: E.
        absent_frames: an absent modality is read as this many all-zero frames. The published code
            feeds zero frames of the absent sequence's own length, which tells the model that length.
    """

    def __init__(self, input_dim: int, embedding_dim: int, absent_frames: int) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.embedding_dim = embedding_dim
        self.absent_frames = absent_frames

    @abstractmethod
    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Reduce frames [K, T, D] with lengths int64 [K] in 1..T to [K, P]; nothing random happens here."""

    def head(self, pooled: Tensor) -> Tensor:
        """Turn what was pooled [K, P] into embeddings [K, E]; by default it is the embedding."""
        return pooled

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode frames [K, T, D] with lengths int64 [K] in 1..T to [K, E]; without lengths nothing is padding.

        Raises:
            InputError: shapes or lengths are others.
        """
        return self.head(self.pool(frames, checked_lengths(frames, lengths, self.input_dim)))

    def zero_frames(self) -> tuple[Tensor, Tensor]:
        """The one sequence [1, absent_frames, D], and its length [1], as which an absent modality is read."""
        weight = next(self.parameters())
        zeros = weight.new_zeros(1, self.absent_frames, self.input_dim)
        return zeros, torch.full((1,), self.absent_frames, device=weight.device)

    def pool_absent(self) -> Tensor:
        """[1, P]: what :meth:`pool` makes of :meth:`zero_frames`, a function of the parameters alone."""
        return self.pool(*self.zero_frames())

    def pool_with_absent(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """[K + 1, P]: :meth:`pool`, and :meth:`pool_absent` behind it."""
        return torch.cat([self.pool(frames, lengths), self.pool_absent()])

    def absent(self) -> Tensor:
        """[E]: the embedding of a modality that is not there."""
        return self.head(self.pool_absent())[0]

    def running(self) -> RunningPool | None:
        """Pool of a stream, whose frames come one after the other; None where a new frame changes what was before."""
        return None

    def embed(self, seen: Visible, rows: int) -> Tensor:
        """[rows, E]: each row's embedding; every sequence is pooled once, the zero frames only where a row needs them.

        Dropout is drawn anew for every row.
        """
        count = len(seen.lengths)
        if not count:
            # In training read in full, so that every parameter has a gradient: several devices would wait for it.
            pooled = self.pool(*self.zero_frames()) if torch.is_grad_enabled() else self.pool_absent()
        else:
            pool = self.pool_with_absent if len(seen.rows) < rows else self.pool
            pooled = pool(seen.frames, seen.lengths)
        slots = seen.rows.new_full((rows,), count).index_copy(0, seen.rows, seen.slots)
        if self.training:
            return self.head(pooled.index_select(0, slots))
        return self.head(pooled).index_select(0, slots)


class LSTMEncoder(SequenceEncoder):
    """One-layer, one-directional LSTM, pooled over time (audio and visual in IF-MMIN and MMIN).

    Args:
        input_dim: D.
        embedding_dim: hidden size and E.
        pooling: ``max`` over time; the ``last`` state; or ``attention``, a softmax over time of
            u · tanh(W o_t + b). Differs from the public code, whose softmax runs over a wrong axis.
        absent_frames: see :class:`SequenceEncoder`.
    """

    def __init__(
        self, input_dim: int, embedding_dim: int = 128, pooling: Pooling = "max", absent_frames: int = 50
    ) -> None:
        super().__init__(input_dim, embedding_dim, absent_frames)
        self.pooling = pooling
        self.rnn = nn.LSTM(input_dim, embedding_dim)
        if pooling == "attention":
            self.attention = nn.Linear(embedding_dim, embedding_dim)
            self.attention_vector = nn.Linear(embedding_dim, 1, bias=False)

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`SequenceEncoder`; lengths beyond the K are of sequences of zero frames."""
        # Padding follows the last frame and the LSTM runs forwards: it cannot reach a true state.
        all_states = lstm_states(self.rnn, by_time(in_autocast(frames), len(lengths)))
        states = all_states[: frames.shape[1], : len(lengths)]
        if self.pooling == "last":
            return states[lengths - 1, torch.arange(len(lengths), device=states.device)]
        padding = padding_mask(lengths, len(states))

        def masked(values: Tensor) -> Tensor:
            return values if padding is None else values.masked_fill(padding.t()[..., None], -torch.inf)

        if self.pooling == "max":
            if not torch.is_grad_enabled():
                return masked(states).amax(dim=0)
            # Gather the maxima: backward then touches one state per channel instead of writing zeros to all.
            place = masked(states.detach()).max(dim=0).indices
            return all_states.gather(0, place[None])[0]
        weights = masked(self.attention_vector(torch.tanh(self.attention(states)))).softmax(dim=0)
        return (weights * states).sum(dim=0)

    def pool_with_absent(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`SequenceEncoder`."""
        if not torch.is_grad_enabled() or frames.shape[1] < self.absent_frames:
            return super().pool_with_absent(frames, lengths)
        # In training one more sequence in the same run costs less than a run of its own.
        return self.pool(frames, F.pad(lengths, (0, 1), value=self.absent_frames))

    def running(self) -> RunningPool:
        """See :class:`SequenceEncoder`."""
        attention = (self.attention, self.attention_vector) if self.pooling == "attention" else None
        return RunningLSTM(self.rnn, attention, last=self.pooling == "last")


class TextCNN(SequenceEncoder):
    """Convolutions over words, max over time, dropout, linear, ReLU (text in IF-MMIN and MMIN).

    Kim, "Convolutional neural networks for sentence classification", EMNLP 2014.

    Args:
        input_dim: D.
        embedding_dim: E.
        channels: output channels per width.
        widths: the widths of the convolutions in frames. A shorter sequence is read as if zero
            frames followed it up to the largest width.
        dropout: on the pooled channels.
        absent_frames: see :class:`SequenceEncoder`.
    """

    def __init__(
        self,
        input_dim: int,
        embedding_dim: int = 128,
        channels: int = 128,
        widths: Sequence[int] = (3, 4, 5),
        dropout: float = 0.5,
        absent_frames: int = 22,
    ) -> None:
        super().__init__(input_dim, embedding_dim, absent_frames)
        self.convolutions = nn.ModuleList(nn.Conv1d(input_dim, channels, width) for width in widths)
        self.widths = tuple(widths)
        self.widest = max(widths)
        # Modules, so that ``benchmarks.imagination`` can count their dead units.
        self.channel_activation, self.activation = nn.ReLU(), nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels * len(widths), embedding_dim)

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`SequenceEncoder`."""
        frames = in_autocast(frames)
        if (short := self.widest - frames.shape[1]) > 0:
            frames = F.pad(frames, (0, 0, 0, short))
        # The last window is wholly inside the sequence, zero-extended to the largest width.
        inside, longest = lengths.clamp(min=self.widest), frames.shape[1]
        paddings = [padding_mask(inside - width + 1, longest - width + 1) for width in self.widths]
        # ReLU is monotone, so max over time may come first, on a single value per channel.
        responses: Tensor = self.channel_activation(winning_responses(frames, self.convolutions, paddings))
        return responses

    def pool_absent(self) -> Tensor:
        """See :class:`SequenceEncoder`; a window of zero frames leaves the bias."""
        biases: list[Tensor] = [
            parameter for name, parameter in self.convolutions.named_parameters() if name.endswith("bias")
        ]
        return torch.cat(biases).relu()[None]

    def running(self) -> RunningPool:
        """See :class:`SequenceEncoder`."""
        return RunningConvolutions(list(self.convolutions), self.widest)

    def head(self, pooled: Tensor) -> Tensor:
        """See :class:`SequenceEncoder`."""
        embedding: Tensor = self.activation(self.output(self.dropout(pooled)))
        return embedding


class ModalityEncoders(nn.ModuleDict):
    """One encoder per modality, giving h = [h_audio; h_visual; h_text] of every row of a batch.

    Each stored utterance that some row may see is encoded once per modality, whatever the number
    of rows that read it; where a modality is absent, its embedding is the encoder's ``absent()``.

    Args:
        encoders: the encoders of audio, visual and text, all with the same embedding width E.
    """

    def __init__(self, encoders: Sequence[SequenceEncoder]) -> None:
        super().__init__(dict(zip(MODALITIES, encoders, strict=True)))
        self.embedding_dim = encoders[0].embedding_dim

    @classmethod
    def of_dims(
        cls,
        feature_dims: Sequence[int],
        embedding_dim: int = 128,
        pooling: Pooling = "max",
        channels: int = 128,
        text_dropout: float = 0.5,
        absent_frames: Sequence[int] = (40, 50, 22),
    ) -> ModalityEncoders:
        """The encoders of MMIN and IF-MMIN: LSTM for audio and visual, TextCNN for text.

        Args:
            feature_dims: frame widths of audio, visual, text.
            embedding_dim: E.
            pooling: of the LSTM states over time.
            channels: of each TextCNN convolution.
            text_dropout: of the TextCNN.
            absent_frames: number of zero frames that stand in for absent audio, visual, text; by default
                the usual lengths in IEMOCAP.
        """
        audio, visual, text = feature_dims
        return cls(
            [
                LSTMEncoder(audio, embedding_dim, pooling, absent_frames[0]),
                LSTMEncoder(visual, embedding_dim, pooling, absent_frames[1]),
                TextCNN(text, embedding_dim, channels, dropout=text_dropout, absent_frames=absent_frames[2]),
            ]
        )

    @classmethod
    def of_present(
        cls, feature_dims: Sequence[int], embedding_dim: int, channels: int, text_dropout: float
    ) -> ModalityEncoders:
        """The same with maxima over time, where the embedding of what is absent is never read: it costs one frame."""
        return cls.of_dims(feature_dims, embedding_dim, "max", channels, text_dropout, [1, 1, 1])

    def forward(self, batch: Batch) -> Tensor:
        """Embed the B rows of ``batch``: [B, 3, E], modalities in the order audio, visual, text."""
        columns = [
            encoder.embed(visible(batch, modality), len(batch)) for modality, encoder in enumerate(self.encoders())
        ]
        return torch.stack(columns, dim=1)

    def absent(self) -> Tensor:
        """[3, E]: the embeddings of absent audio, visual and text."""
        return torch.stack([encoder.absent() for encoder in self.encoders()])

    def encoders(self) -> Iterator[SequenceEncoder]:
        """The encoders of audio, visual and text."""
        for encoder in self.values():
            assert isinstance(encoder, SequenceEncoder)
            yield encoder


def shown_frames(seen: Visible, steps: int | None) -> tuple[Tensor, Tensor]:
    """What a network reads of the frames of one modality: [K, T, D] and lengths int64 [K].

    Args:
        seen: the sequences that rows show. Without any, a zero frame is read, so that parameters have a gradient.
        steps: to which each sequence is pooled; None: it is read as it is.
    """
    frames, lengths = in_autocast(seen.frames), seen.lengths
    if not len(lengths):
        return frames.new_zeros(1, 1, frames.shape[2]), lengths.new_ones(1)
    if steps is None:
        return frames, lengths
    return pool_steps(frames, lengths, steps), torch.full_like(lengths, steps)
