"""EMT-DLFR: an efficient multimodal transformer, with two levels at which what is absent is restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.emt.networks import (
    Attraction,
    FrameEncoder,
    MutualPromotion,
    ProjectedFrames,
    RecurrentFrames,
    sinusoids,
)
from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import Visible, visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.heads import Classifier
from ifmmin.optimization import Recipe


class Reader(nn.Module):
    """What a modality is read by, and what is read where it is absent.

    Args:
        encoder: gives frames and utterance vectors of width E.
        embedding_dim: E.
        dim: d, to which both are projected.
    """

    def __init__(self, encoder: FrameEncoder, embedding_dim: int, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = nn.Linear(embedding_dim, dim, bias=False)
        self.absent_frame = nn.Parameter(0.02 * torch.randn(embedding_dim))
        self.absent_utterance = nn.Parameter(0.02 * torch.randn(embedding_dim))


class Encoded(NamedTuple):
    """What the encoders make of the rows of a batch; zeros where a modality is absent.

    Attributes:
        frames: [B, 3, S, E].
        utterances: u, [B, 3, E].
    """

    frames: Tensor
    utterances: Tensor


class View(NamedTuple):
    """Everything EMT computes of what some rows show.

    Attributes:
        utterances: u [B, 3, E], learnt vectors where a modality is absent.
        tokens: G [B, 3, d] after the last layer.
        restored: X_m [n_m, S, d] of each modality after the last layer, of the rows that were asked for.
        outputs: [B, O].
    """

    utterances: Tensor
    tokens: Tensor
    restored: list[Tensor]
    outputs: Tensor


class EMT(MissingModalityModule):
    r"""EMT-DLFR: an efficient multimodal transformer with dual-level feature restoration.

    Sun, Lian, Liu, Tao: "Efficient multimodal transformer with dual-level feature restoration for robust multimodal
    sentiment analysis", IEEE Transactions on Affective Computing, 2023.

    Three global tokens, the projected utterance vectors of the modalities, exchange with the frames of each modality
    by cross-attention, in both directions (:class:`~baselines.emt.networks.MutualPromotion`); a classifier reads the
    utterance vectors u and the global tokens G. In training every utterance is seen twice, as the mask shows it (inc)
    and whole (cmp), and the incomplete view is drawn to the whole one at two levels: of the representation, by SimSiam
    (:class:`~baselines.emt.networks.Attraction`), and of the frames, by reconstruction.

    .. math::
        L = L_{cls} + λ_1 \Bigl( L_{complete} - \sum_{k ∈ G,a,v,t} \tfrac12 \bigl( \cos(p_k^{inc}, sg\,z_k^{cmp})
            + \cos(p_k^{cmp}, sg\,z_k^{inc}) \bigr) \Bigr) + λ_2 \sum_m \mathrm{SmoothL1}(R_m X_m^{inc}, x_m)

    λ₁ = λ₂ = 1. L_cls and L_complete: the task's loss of either view. The last sum is over the absent modalities, a
    mean over their frames' values. ``attraction`` and ``reconstruction`` switch the two levels off: without either,
    the complete view is not computed, and the model is plain EMT under random masks. 3 layers, d = 128, 4 heads, a
    gated feed-forward part of 4 d, dropout 0.3 in attention, 0.1 in feed-forward parts, 0.3 before the classifier of
    two layers of 256; Adam, learning rate 1e-3, weight decay 1e-3, a step for every 128 utterances.

    What to expect of the attraction of modalities: by default modalities are dropped, not frames, so that u of an
    absent modality is one learnt vector, which can only come to the mean of what it stands for. What depends on the
    rest of the utterance is restored through G and X.

    What it costs: both views pass all layers of a transformer over 3 S frames, so that a training step takes some ten
    times as long as plain fusion's, and half of that without the two levels; fewer ``steps`` take less.

    Our choices: in a corpus with gaps a lost modality is read as an absent one in both views, and is neither attracted
    nor reconstructed; every sequence is pooled to S = 16 steps; an absent modality shows S times one learnt frame, and
    a learnt utterance vector, as if both were there, so that neither content nor length of the hidden one enters; text
    is read by a linear layer from frozen frames, its u is tanh of a linear function of their mean; u has 128 values for
    every modality; what is reconstructed is the pooled frames; modalities are attracted where they are absent, since
    elsewhere both views of u are the same; one learning rate; 5+5 epochs of a linear schedule, some 350 steps, instead
    of early stopping; gradients clipped to 1.

    Differs from the published code (MIT): by default whole modalities are masked, anew in each epoch. Theirs drops
    frames, drawn once for all epochs, a model for each rate: ``--data.train_mask avt --data.train_pattern frames:0.3
    --data.eval_pattern frames:0.3 --data.permanent_mask true`` with ``--model.attract_all true``; reconstruction is of
    absent modalities alone, so of none then. Gradients of four batches are averaged, being one batch, not
    summed, and none is thrown away at the end of an epoch; a batch of one works; batch statistics are used in the
    losses alone, so that an answer does not depend on the rest of the batch.

    Published figures: areas under curves over rates of dropped frames, on MOSI, MOSEI and SIMS with trained BERT;
    another protocol, and not to be compared with tables of missing modalities.

    Args:
        steps: S.
        embedding_dim: E, the width of u and of what is projected.
        dim: d.
        heads: of each attention; divides d.
        layers: of the fusion, which share their weights.
        expansion: of the feed-forward parts.
        attention_dropout: of attention weights.
        feedforward_dropout: of the feed-forward parts.
        hidden_dims: of the classifier.
        dropout: before the classifier.
        attraction: whether there is a complete view, and attraction to it.
        attract_all: attract u of every modality of each row, not of absent ones alone.
        reconstruction: whether absent frames are reconstructed.
        lambda_attraction: λ₁.
        lambda_reconstruction: λ₂.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    card = ModelCard(
        "EMT-DLFR",
        "global tokens and frames attend to each other; the incomplete view is drawn to the complete one",
        "Sun et al., TAC",
        2023,
        "https://arxiv.org/abs/2208.07589",
        "https://github.com/sunlicai/EMT-DLFR",
        "fusion",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, weight_decay=1e-3, constant_epochs=5, decay_epochs=5)

    positions: Tensor

    def __init__(
        self,
        *,
        steps: Annotated[int, WIDTH] = 16,
        embedding_dim: Annotated[int, WIDTH] = 128,
        dim: Annotated[int, WIDTH] = 128,
        heads: Annotated[int, WIDTH] = 4,
        layers: Annotated[int, COUNT] = 3,
        expansion: Annotated[int, COUNT] = 4,
        attention_dropout: Annotated[float, BELOW_ONE] = 0.3,
        feedforward_dropout: Annotated[float, BELOW_ONE] = 0.1,
        hidden_dims: Annotated[list[int], WIDTH] = [256, 256],
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        attraction: bool = True,
        attract_all: bool = False,
        reconstruction: bool = True,
        lambda_attraction: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_reconstruction: Annotated[float, NOT_NEGATIVE] = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise InputError(f"heads {heads}: it must divide dim {dim}.")
        audio, visual, text = self.feature_dims
        encoders: list[FrameEncoder] = [
            RecurrentFrames(audio, embedding_dim, embedding_dim),
            RecurrentFrames(visual, embedding_dim, embedding_dim),
            ProjectedFrames(text, embedding_dim),
        ]
        names_and_encoders = zip(MODALITIES, encoders, strict=True)
        self.readers = nn.ModuleDict({name: Reader(each, embedding_dim, dim) for name, each in names_and_encoders})
        self.fusion = MutualPromotion(dim, heads, layers, expansion, attention_dropout, feedforward_dropout)
        self.dropout = nn.Dropout(dropout)
        width = len(MODALITIES) * (embedding_dim + dim)
        self.classifier = Classifier(width, self.task.outputs, hidden_dims, 0.0)
        if attraction:
            self.attractions = nn.ModuleDict(
                {name: Attraction(embedding_dim, embedding_dim // 2 or 1) for name in MODALITIES}
            )
            self.attractions["tokens"] = Attraction(len(MODALITIES) * dim, dim)
        if reconstruction:
            dims = zip(MODALITIES, self.feature_dims, strict=True)
            self.reconstructors = nn.ModuleDict({name: nn.Linear(dim, frame_dim) for name, frame_dim in dims})
        self.register_buffer("positions", sinusoids(steps, dim).float(), persistent=False)
        self.needs = DataNeeds(hidden_frames=attraction or reconstruction, steps=steps)
        self.steps, self.attract_all = steps, attract_all
        self.attraction, self.reconstruction = attraction, reconstruction
        self.loss_weights = {
            "complete": lambda_attraction,
            "attraction": lambda_attraction,
            "reconstruction": lambda_reconstruction,
        }

    def reader(self, modality: int) -> Reader:
        """The reader of audio (0), visual (1) or text (2)."""
        reader = self.readers[MODALITIES[modality]]
        assert isinstance(reader, Reader)
        return reader

    def pooled(self, seen: Visible) -> Tensor:
        """Frames [K, S, D], pooled here unless the datamodule has done it."""
        return pool_steps(seen.frames, seen.lengths, self.steps)

    def encode(self, batch: Batch) -> Encoded:
        """Encode what is present in each row; each stored utterance once per modality."""
        columns = []
        for modality, width in enumerate(self.feature_dims):
            seen = visible(batch, modality)
            # In training a modality that nobody shows is run on zeros, so that its parameters have a gradient.
            read = self.pooled(seen) if len(seen.lengths) else seen.frames.new_zeros(1, self.steps, width)
            columns.append([seen.spread(part) for part in self.reader(modality).encoder(read)])
        frames, utterances = (torch.stack(parts, dim=1) for parts in zip(*columns, strict=True))
        return Encoded(frames, utterances)

    def fuse(self, encoded: Encoded, present: Tensor, wanted: Sequence[Tensor] | None = None) -> View:
        """Fuse what was encoded of B rows, of which bool ``present`` [B, 3] is shown.

        Args:
            encoded: of the rows.
            present: what is shown.
            wanted: int64 [n_m], the rows of each modality whose X_m are ``restored``; None: none.
        """
        readers = [self.reader(modality) for modality in range(len(MODALITIES))]
        absent_frame = torch.stack([reader.absent_frame for reader in readers])[:, None]
        absent_utterance = torch.stack([reader.absent_utterance for reader in readers])
        u = encoded.utterances.where(present[..., None], absent_utterance.to(encoded.utterances.dtype))
        shown = encoded.frames.where(present[..., None, None], absent_frame.to(encoded.frames.dtype))
        tokens = torch.stack([reader.project(u[:, m]) for m, reader in enumerate(readers)], dim=1)
        frames = [reader.project(shown[:, m]) + self.positions for m, reader in enumerate(readers)]
        tokens, restored = self.fusion(tokens, frames, wanted)
        read = torch.cat([u.flatten(1), tokens.flatten(1)], dim=1)
        return View(u, tokens, restored, self.classifier(self.dropout(read)))

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Utterance vectors u [B, 3, E], a learnt one where a modality is absent."""
        return self.fuse(self.encode(batch), batch.present).utterances

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.fuse(self.encode(batch), batch.present).outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, and the terms of the levels of restoration that are switched on."""
        if not self.needs.hidden_frames:
            return {"cls": self.task.loss(self(batch), batch.target)}
        whole, row = batch.unmasked(), batch.row
        encoded = Encoded(*(part[row] for part in self.encode(whole)))
        known = whole.present[row]
        taken = known & ~batch.present
        rows = [column.nonzero(as_tuple=True)[0] for column in taken.unbind(dim=1)]
        incomplete = self.fuse(encoded, batch.present, rows if self.reconstruction else None)
        losses = {"cls": self.task.loss(incomplete.outputs, batch.target)}
        if self.attraction:
            complete = self.fuse(encoded, known)
            losses["complete"] = self.task.loss(complete.outputs, batch.target)
            losses["attraction"] = self._attract(incomplete, complete, known if self.attract_all else taken)
        if self.reconstruction:
            losses["reconstruction"] = self._reconstruct(incomplete.restored, whole, [row[each] for each in rows])
        return losses

    def _attract(self, incomplete: View, complete: View, wanted: Tensor) -> Tensor:
        """Minus the similarity of G, and that of u over what is ``wanted``, bool [B, 3]."""
        tokens = self.attractions["tokens"](incomplete.tokens.flatten(1), complete.tokens.flatten(1))
        terms = [tokens.mean()]
        for m, name in enumerate(MODALITIES):
            similarity = self.attractions[name](incomplete.utterances[:, m], complete.utterances[:, m])
            terms.append((similarity * wanted[:, m]).sum() / wanted[:, m].sum().clamp(min=1))
        return -torch.stack(terms).sum()

    def _reconstruct(self, restored: list[Tensor], whole: Batch, stored: list[Tensor]) -> Tensor:
        """Σ_m of the mean error of frames made of X_m [n_m, S, d], those of the utterances ``stored`` int64 [n_m]."""
        terms = []
        for m, reconstructor in enumerate(self.reconstructors.values()):
            seen = visible(whole, m)
            true, made = seen.spread(self.pooled(seen))[stored[m]], reconstructor(restored[m])
            errors = F.smooth_l1_loss(made, true.to(made.dtype), reduction="none")
            terms.append(errors.sum() / max(1, errors.numel()))
        return torch.stack(terms).sum()
