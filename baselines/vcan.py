"""VCAN's selection modules on features: heads that read the visual frames at which the audio varies most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.batches.visible import Visible, visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, NOT_EMPTY, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.encoders import LSTMEncoder, SequenceEncoder, TextCNN
from ifmmin.nn.heads import Classifier
from ifmmin.nn.padding import frame_mask, kept_frames, mean_frame
from ifmmin.nn.precision import full_precision, in_autocast
from ifmmin.nn.rows import distinct
from ifmmin.optimization import Recipe

AUDIO, VISUAL, TEXT = range(len(MODALITIES))

Score = Literal["variance", "published"]


def smoothed(frames: Tensor, lengths: Tensor, width: int) -> Tensor:
    """Mean of the true frames among the ``width`` around each frame; fewer at both ends of a sequence.

    Args:
        frames: [K, T, D]; values behind a sequence's last frame are not read.
        lengths: int64 [K] in 1..T.
        width: odd.

    Returns:
        [K, T, D]; behind a sequence's last frame it means nothing.

    >>> frames, lengths = torch.tensor([[[1.0], [3.0], [8.0], [9.0]]]), torch.tensor([3])
    >>> smoothed(frames, lengths, 3)[0, :3, 0].tolist()
    [2.0, 4.0, 5.5]
    """
    shown = frames.where(frame_mask(lengths, frames.shape[1])[..., None], 0.0)
    # Sums, in the same order for every window, so that equal windows have equal scores.
    sums = F.avg_pool2d(shown[:, None], (width, 1), 1, (width // 2, 0), divisor_override=1)[:, 0]
    place, half = torch.arange(frames.shape[1], device=lengths.device), width // 2
    inside = (place + half + 1).minimum(lengths[:, None]) - (place - half).clamp(min=0)
    return sums / inside.clamp(min=1)[..., None]


def frame_scores(frames: Tensor, score: Score = "variance") -> Tensor:
    r"""Score each frame x by how unlike its D values are.

    .. math:: \mathrm{var}(x) \quad \text{or} \quad \mathrm{var}(x)^{mean|x| / sum|x| + max|x| / sum|x|}

    The published exponent is of mel energies, which are not negative. Magnitudes give the same of them, and a number of
    any features. mean / sum is always 1 / D. A frame of zeros has the score 0.

    Args:
        frames: [..., D].
        score: ``variance`` or ``published``.

    Returns:
        [...], not negative.

    >>> frame_scores(torch.tensor([[1.0, 3.0], [2.0, 2.0]])).tolist()
    [1.0, 0.0]
    """
    variance = frames.var(dim=-1, correction=0)
    if score == "variance":
        return variance
    size = frames.abs()
    total = size.sum(dim=-1)
    exponent = 1 / frames.shape[-1] + size.amax(dim=-1) / total.where(total > 0, 1.0)
    return variance**exponent


def best_frames(scores: Tensor, lengths: Tensor, top: int) -> Tensor:
    """Find the frames of the highest scores, the best first, the earlier one of equals.

    Args:
        scores: [K, T].
        lengths: int64 [K] in 1..T; what is behind is no frame.
        top: of a sequence.

    Returns:
        int64 [K, min(top, T)], -1 where a sequence has fewer frames.

    >>> best_frames(torch.tensor([[1.0, 5.0, 5.0, 9.0]]), torch.tensor([3]), 2).tolist()
    [[1, 2]]
    """
    hidden = ~frame_mask(lengths, scores.shape[1])
    order = scores.masked_fill(hidden, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :top]
    return order.where(frame_mask(lengths, order.shape[1]), -1)


def frames_at(chosen: Tensor, lengths: Tensor, other: Tensor, longest: int) -> Tensor:
    """Mark frame ⌊i n / T⌋ of another sequence of n frames for each frame i chosen of one of T.

    Args:
        chosen: int64 [K, k] in 0..T-1, in any order, or -1.
        lengths: T, int64 [K].
        other: n, int64 [K], at most ``longest``.
        longest: N.

    Returns:
        bool [K, N].

    >>> frames_at(torch.tensor([[3, 0, -1]]), torch.tensor([4]), torch.tensor([6]), 6).int().tolist()
    [[1, 0, 0, 0, 1, 0]]
    """
    place = (chosen * other[:, None] // lengths[:, None]).where(chosen >= 0, longest)
    marks = torch.zeros(len(chosen), longest + 1, dtype=torch.bool, device=chosen.device)
    return marks.scatter(1, place, torch.ones_like(place, dtype=torch.bool))[:, :longest]


class MeanEncoder(SequenceEncoder):
    """ReLU of a linear function of the mean frame.

    Args:
        input_dim: D.
        embedding_dim: E.
    """

    def __init__(self, input_dim: int, embedding_dim: int) -> None:
        super().__init__(input_dim, embedding_dim, absent_frames=1)
        self.output = nn.Linear(input_dim, embedding_dim)

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        return mean_frame(frames, lengths)

    def head(self, pooled: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        embedding: Tensor = self.output(in_autocast(pooled)).relu()
        return embedding


class Head(nn.Module):
    """An encoder per modality, and a classifier that reads their embeddings, 0 where a modality is absent.

    Args:
        encoders: of the modalities that it reads.
        outputs: O.
        hidden_dims: of the classifier.
        dropout: of the classifier.
    """

    def __init__(
        self, encoders: Sequence[SequenceEncoder], outputs: int, hidden_dims: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.classifier = Classifier(sum(each.embedding_dim for each in encoders), outputs, hidden_dims, dropout)

    def forward(self, shown: Sequence[Visible]) -> Tensor:
        """Outputs [B, O] of what rows show of each modality that the head reads."""
        columns = []
        for encoder, seen in zip(self.encoders, shown, strict=True):
            assert isinstance(encoder, SequenceEncoder)
            # A modality that nobody shows is run on zeros, so that its parameters have a gradient.
            known = (seen.frames, seen.lengths) if len(seen.lengths) else encoder.zero_frames()
            columns.append(seen.spread(encoder(*known)))
        outputs: Tensor = self.classifier(torch.cat(columns, dim=1))
        return outputs


class VCAN(MissingModalityModule):
    r"""The selection modules of VCAN, a video-based cross-modal auxiliary network, on features.

    Chen, Zhou, Li, Zhou: "Video-based cross-modal auxiliary network for multimodal sentiment analysis", IEEE TCSVT
    32(12), 8703-8716, 2022.

    Most video frames of an utterance tell the same. VCAN looks at those at which the sound tells most: it scores the
    frames of several signals made of the audio, takes the best of each, and reads the video at these times only, by a
    group of classifiers whose answers are averaged. **This is that selection on feature sequences, not the end-to-end
    VCAN**, which decomposes the waveform, scores mel spectra and classifies pixels.

    With a_i the audio frames, i < n_a, smoothed over w = 1, 3 and 9 frames, and n_v visual frames,

    .. math::
        s_{w,i} = \mathrm{var}(\bar a^w_i), \quad A = \bigcup_w \mathrm{top}_{10}\, s_w, \quad
            V = \{⌊i\, n_v / n_a⌋ : i ∈ A\}, \quad
            ŷ_{av} = \frac13 \sum_{j=1}^3 \mathrm{head}_j(a_A, v_V)

    The heads are LSTMs, convolutions over time, and means, one of each for audio and for visual frames. They read what
    is present: 30 frames of audio at most, and as many visual ones; without audio nothing selects, and every visual
    frame is read. L_cls, the task's loss of the answer, is the only loss. Selection has no parameters and no gradient.

    **Text** is not in the paper, but in this library's conditions: {t} alone needs an answer that reads it. So a fourth
    head reads text, and is averaged with the group's answer, ŷ = (1 - ω) ŷ_av + ω ŷ_t, with ω = 1/2: beside three
    heads of one evidence, text counts as much as they do together. What is absent has no share. ``text_share`` 0 is the
    paper's two modalities: no head reads text, and {t} is not answered ("–" in tables) rather than guessed.

    Stated by the abstract: a module for diverse audio features, one that selects visual frames by audio, and a group of
    image classifiers. Known from the published code of both modules: 3 signals, the score, 10 frames of each, their
    union, and a fixed rate between audio and visual frames.

    Our choices: smoothing makes the signals, where theirs are clusters of empirical modes of the waveform; the score is
    the variance, since z-scored features have no sum to divide by (``score`` has the published exponent, over
    magnitudes); ⌊i n_v / n_a⌋ instead of ⌊i / 2.5⌋, for any frame rates (with n_v > n_a some visual frames are between
    two marks, and are read only without audio); the earlier one of frames of equal score; heads, which read the chosen
    audio frames as well, of E = 128, each with a classifier of one hidden layer of 128 and dropout 0.3, trained by
    their mean answer; the optimiser settings of :class:`~baselines.plain_fusion.ModalityDropout`, to compare with.

    Differs from the published code (core modules only, no licence file): scores are compared as numbers, where theirs
    are sorted as text, which from scores of 10 on chooses other frames.

    Published figures: on RAVDESS, MOSI and MOSEI, of complete audio and video; nothing to compare with.

    What it costs: at IEMOCAP's sizes a training epoch takes some 1.2 times plain fusion's
    (``python -m benchmarks.speed.epochs``).

    In predictions: ``audio_kept`` and ``visual_kept``, the share of frames that were read.

    Args:
        smoothing: the widths w, odd.
        top: frames chosen of each width; None: every frame is read, which shows what selection does.
        score: of an audio frame, ``variance`` or ``published`` (:func:`frame_scores`).
        text_share: ω, in [0, 1); 0 leaves text out.
        embedding_dim: E, of each encoder.
        cnn_channels: output channels of each width of the convolutions.
        cnn_dropout: on these channels.
        hidden_dims: of each head's classifier.
        dropout: of each head's classifier.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: a width is even, or an option is out of range.
    """

    card = ModelCard(
        "VCAN's selection modules on features",
        "reads the visual frames at which audio varies most; end to end, VCAN reads pixels and waveform",
        "after Chen et al., TCSVT",
        2022,
        "https://arxiv.org/abs/2208.13954",
        "https://github.com/rongfei-chen/VCAN",
        "fusion",
        "after the abstract of the paper and the code of its selection modules",
    )
    recipe: ClassVar[Recipe] = Recipe(constant_epochs=30, decay_epochs=30, clip_norm=0.5)
    needs = DataNeeds(hidden_frames=False)

    def __init__(
        self,
        *,
        smoothing: Annotated[list[int], WIDTH, NOT_EMPTY] = [1, 3, 9],
        top: Annotated[int, WIDTH] | None = 10,
        score: Score = "variance",
        text_share: Annotated[float, BELOW_ONE] = 0.5,
        embedding_dim: Annotated[int, WIDTH] = 128,
        cnn_channels: Annotated[int, WIDTH] = 128,
        cnn_dropout: Annotated[float, BELOW_ONE] = 0.5,
        hidden_dims: Annotated[list[int], WIDTH] = [128],
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if even := [width for width in smoothing if width % 2 == 0]:
            raise InputError(
                f"smoothing {list(smoothing)}: widths are odd, so that a frame is their middle; not {even[0]}."
            )
        self.smoothing, self.top, self.score, self.text_share = list(smoothing), top, score, text_share

        def convolutions(dim: int) -> TextCNN:
            return TextCNN(dim, embedding_dim, cnn_channels, dropout=cnn_dropout, absent_frames=1)

        def head(*encoders: SequenceEncoder) -> Head:
            return Head(encoders, self.task.outputs, hidden_dims, dropout)

        audio, visual, text = self.feature_dims
        self.group = nn.ModuleDict(
            {
                "lstm": head(*(LSTMEncoder(dim, embedding_dim, absent_frames=1) for dim in (audio, visual))),
                "cnn": head(convolutions(audio), convolutions(visual)),
                "mean": head(MeanEncoder(audio, embedding_dim), MeanEncoder(visual, embedding_dim)),
            }
        )
        self.text = head(convolutions(text)) if text_share else None

    def answers(self, condition: str) -> bool:
        """Every condition, or without text all but text alone."""
        return self.text is not None or condition != "t"

    @torch.no_grad()
    def choose(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Choose frames of audio [K, T, D] with lengths int64 [K]: int64 [K, k] with repetitions, -1 where fewer."""
        if self.top is None or not len(lengths):
            every = torch.arange(frames.shape[1], device=lengths.device).expand(len(lengths), -1)
            return every.where(every < lengths[:, None], -1)
        with full_precision(frames):
            frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
            each = (frame_scores(smoothed(frames, lengths, width), self.score) for width in self.smoothing)
            return torch.cat([best_frames(scores, lengths, self.top) for scores in each], dim=1)

    def select(self, batch: Batch) -> tuple[Visible, Visible]:
        """What heads read of audio and of visual frames.

        A visual sequence counts twice if rows with and rows without its audio see it.
        """
        audio, visual = visible(batch, AUDIO), visible(batch, VISUAL)
        chosen = self.choose(audio.frames, audio.lengths)
        kept = frames_at(chosen, audio.lengths, audio.lengths, audio.frames.shape[1])
        frames, counts = kept_frames(audio.frames, kept)
        heard = batch.present[visual.rows, AUDIO]
        first, which = distinct(2 * visual.slots + heard)
        sequence, heard = visual.slots[first], heard[first]
        lengths, longest = visual.lengths[sequence], visual.frames.shape[1]
        kept = frame_mask(lengths, longest)
        if self.top is not None and len(audio.lengths):
            # Of rows without audio any sequence, whose marks are not read.
            slots = audio.slots.new_zeros(len(batch)).index_copy(0, audio.rows, audio.slots)[visual.rows[first]]
            marks = frames_at(chosen[slots], audio.lengths[slots], lengths, longest)
            kept = marks.where(heard[:, None], kept)
        looked, looks = kept_frames(visual.frames, kept, sequence)
        return (
            replace(audio, frames=frames, lengths=counts),
            replace(visual, frames=looked, lengths=looks, slots=which),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]; of a row that shows only text, without a head for it, they mean nothing."""
        selected = self.select(batch)
        group = torch.stack([head(selected) for head in self.group.values()]).mean(dim=0)
        if self.text is None:
            return group
        read, looked = batch.present[:, TEXT], batch.present[:, [AUDIO, VISUAL]].any(dim=1)
        share = (self.text_share * read).where(looked, 1.0).to(group.dtype)
        text: Tensor = self.text([visible(batch, TEXT)])
        return group.lerp(text, share[:, None])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, without a head for text over the rows that show more than text."""
        outputs = self(batch)
        answered = batch.present[:, [AUDIO, VISUAL]].any(dim=1)
        rows = answered if self.text is None else torch.ones_like(answered)
        return {"cls": self.loss_over(rows, outputs, batch.target)}

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        """Share of the frames of each row's audio and visual sequence that was read; NaN where it is absent."""
        found = {}
        for m, seen in enumerate(self.select(batch)):
            kept, lengths = seen.spread(seen.lengths), batch.lengths[batch.row, m]
            share = kept / lengths.clamp(min=1)
            found[f"{MODALITIES[m]}_kept"] = share.where(batch.present[:, m], torch.nan)
        return found
