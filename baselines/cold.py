"""COLD: fuses by how uncertain each modality is, with uncertainties that are trained to tell the error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.gaussians import Gaussian, GaussianHead, kl_to_standard_normal
from ifmmin.nn.padding import by_time, frame_mask
from ifmmin.nn.precision import full_precision, in_autocast, lstm_states
from ifmmin.optimization import Recipe

STD_RANGE = (1e-3, 1e2)
"""Of σ: variances are from 1e-6 to 1e4."""


class Latent(NamedTuple):
    """What is read of sequences, or of rows: means over true frames.

    Attributes:
        mean: μ, [..., D].
        uncertainty: s, the L2 norm of the variances, [...].
        divergence: KL(N(μ, σ²) ‖ N(0, I)), the sum over D, [...].
    """

    mean: Tensor
    uncertainty: Tensor
    divergence: Tensor


class LatentEncoder(nn.Module):
    """An LSTM, and a Gaussian of its state at every frame.

    Args:
        input_dim: width of a frame.
        hidden_dim: of the states.
        dim: D, of the Gaussians.
        dropout: of the states.
        scaled: divide the norm of the variances by √D.
    """

    def __init__(self, input_dim: int, hidden_dim: int, dim: int, dropout: float, scaled: bool) -> None:
        super().__init__()
        self.rnn, self.dropout = nn.LSTM(input_dim, hidden_dim), nn.Dropout(dropout)
        self.head = GaussianHead(hidden_dim, dim, spread="log_variance")
        self.scale = math.sqrt(dim) if scaled else 1.0

    def forward(self, frames: Tensor, lengths: Tensor) -> Latent:
        """Read frames [K, T, input_dim] with lengths int64 [K] in 1..T."""
        states = lstm_states(self.rnn, by_time(in_autocast(frames), len(frames)))
        found = self.head(self.dropout(states[: frames.shape[1], : len(frames)]))
        # Of a variance outside the range the gradient is 0.
        latent = Gaussian(found.mean, found.std.clamp(*STD_RANGE))
        true = frame_mask(lengths, frames.shape[1]).T

        def mean(values: Tensor) -> Tensor:
            """Over the true frames of [T, K, ...]."""
            shape = (*true.shape, *(1 for _ in values.shape[2:]))
            return values.where(true.view(shape), 0.0).sum(dim=0) / lengths.view(shape[1:])

        norms = torch.linalg.vector_norm(latent.std.square(), dim=2) / self.scale
        return Latent(mean(latent.mean), mean(norms), mean(kl_to_standard_normal(latent).sum(dim=2)))


def fusion_weights(uncertainty: Tensor, present: Tensor) -> Tensor:
    r"""Weigh what is present by the inverse of its uncertainty.

    .. math:: w_m = \frac{1/s_m}{\sum_n 1/s_n}

    Args:
        uncertainty: s, [B, M], positive; read where ``present``.
        present: bool [B, M], at least one True in a row.

    Returns:
        [B, M], 0 where absent; the sum of a row is 1.

    >>> import torch
    >>> fusion_weights(torch.tensor([[1.0, 3.0, 1.0]]), torch.tensor([[True, True, False]])).tolist()
    [[0.75, 0.25, 0.0]]
    """
    inverse = uncertainty.where(present, 1.0).reciprocal() * present
    return inverse / inverse.sum(dim=1, keepdim=True)


def distribution_matching(distance: Tensor, uncertainty: Tensor) -> Tensor:
    r"""Tell how much a softmax over the uncertainties differs from one over the distances of the answers.

    .. math::
        p = \mathrm{softmax}(-d), \quad q = \mathrm{softmax}(-s), \quad KL(p \,\|\, q) + KL(q \,\|\, p)

    Args:
        distance: d [n], of an answer from its target.
        uncertainty: s [n].

    Returns:
        a scalar, not negative; a constant added to either changes nothing. 0 with a zero gradient for less than two.

    >>> import torch
    >>> float(distribution_matching(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0])))
    0.0
    """
    p, q = (-distance).log_softmax(dim=0), (-uncertainty).log_softmax(dim=0)
    return ((p.exp() - q.exp()) * (p - q)).sum()


class COLD(MissingModalityModule):
    r"""COLD fusion: calibrated and ordinal latent distributions.

    Tellamekala, Amiriparian, Schuller, André, Giesbrecht, Valstar: "COLD fusion: calibrated and ordinal latent
    distribution fusion for uncertainty-aware multimodal emotion recognition", IEEE TPAMI 46(2), 2024.

    A recurrent network of each modality gives a Gaussian at every frame. Their variances say how uncertain the modality
    is, and the fusion gives it the less weight. So that they do, a loss over the batch has uncertainties distributed as
    the distances of the modality's own answers from the targets: within a modality (calibrated), and over all
    modalities (ordinal). Missing modalities need nothing more: what is absent has the weight 0. With means over true
    frames t, and modality m's own answer f_m a linear function of μ_m,

    .. math::
        μ_m = \mathrm{mean}_t\, μ_{mt}, \quad s_m = \mathrm{mean}_t\, \lVert σ_{mt}^2 \rVert_2 / \sqrt D, \quad
            w_m = \frac{1/s_m}{\sum_n 1/s_n}, \quad ŷ = W \sum_m w_m μ_m + b

    .. math::
        L = L_{cls} + λ_{alone} \sum_m L_{cls}(f_m) + λ_{co} \left( \sum_m J(d_m, s_m) + J(d, s) \right)
            + λ_{reg} KL(N(μ_{mt}, σ_{mt}^2) \,\|\, N(0, I))

    d_m is -log p(y) by f_m, of a value the squared error; J is :func:`distribution_matching` over the rows of the
    batch that show m, and J(d, s) over the modalities together. KL is the sum over D, the mean over frames, rows and
    what is present. λ_alone = λ_co = 1, λ_reg = 1e-4.

    Files of predictions have a column ``uncertainty_audio``, ``uncertainty_visual``, ``uncertainty_text``: s_m of each
    row, empty where m is absent. They rank answers, by how far off they are; they are no probabilities.

    Stated by the paper's abstract: latent distributions of each modality over its frames, variances that are calibrated
    and ordinal by a softmax that matches distributions, audio and video. Of a third party's code, with which another
    description agrees: Gaussians by linear layers, variances from 1e-6 to 1e4, weights by inverse norms, the losses,
    λ_co = λ_reg = 1, learning rate 1e-3.

    Our choices: three modalities; an LSTM with 128 states, D = 128; an utterance is fused, not each frame, since the
    modalities' frames are of different lengths; λ_alone, without which nothing but J trains f_m; d has no gradient, so
    that J trains uncertainties and not answers; the norm is divided by √D, without which all norms are near √D, and so
    weights nearly equal (``scaled_norm`` false does without); λ_reg; dropout; batch 128 and a linear schedule.

    Softmaxes run over the rows of a device's batch, in training alone. Frames of text are frozen features.

    Published figures: of audio and video, complete; nothing to compare with.

    Args:
        dim: D.
        hidden_dim: width of the LSTM's states.
        dropout: of the states.
        scaled_norm: whether s is divided by √D.
        lambda_alone: weight of the sum of the losses of each modality's own answers.
        lambda_co: weight of ``calibration`` and ``ordinal``.
        lambda_reg: weight of ``prior``, KL.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    card = ModelCard(
        "COLD",
        "fuses by how uncertain each modality is, with uncertainties trained to tell the error",
        "Tellamekala et al., TPAMI",
        2024,
        "https://arxiv.org/abs/2206.05833",
        None,
        "fusion",
        "after the abstract of the paper",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=10, decay_epochs=10)
    needs = DataNeeds(hidden_frames=False)

    def __init__(
        self,
        *,
        dim: Annotated[int, WIDTH] = 128,
        hidden_dim: Annotated[int, WIDTH] = 128,
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        scaled_norm: bool = True,
        lambda_alone: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_co: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_reg: Annotated[float, NOT_NEGATIVE] = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        widths = zip(MODALITIES, self.feature_dims, strict=True)
        self.encoders = nn.ModuleDict(
            {name: LatentEncoder(width, hidden_dim, dim, dropout, scaled_norm) for name, width in widths}
        )
        self.alone = nn.ModuleDict({name: nn.Linear(dim, self.task.outputs) for name in MODALITIES})
        self.output = nn.Linear(dim, self.task.outputs)
        self.loss_weights = {"alone": lambda_alone, "calibration": lambda_co, "ordinal": lambda_co, "prior": lambda_reg}

    def readers(self) -> Iterator[LatentEncoder]:
        """The encoders of audio, visual and text."""
        for encoder in self.encoders.values():
            assert isinstance(encoder, LatentEncoder)
            yield encoder

    def read(self, batch: Batch) -> Latent:
        """Read each modality of each row: :class:`Latent` of [B, 3, ...]; those of absent ones mean nothing."""
        found = []
        for m, encoder in enumerate(self.readers()):
            seen = visible(batch, m)
            frames, lengths = seen.frames, seen.lengths
            if not len(lengths):
                # A modality that nobody shows is run on a zero frame, so that its parameters have a gradient.
                frames, lengths = frames.new_zeros(1, 1, frames.shape[2]), lengths.new_ones(1)
            latent = encoder(frames, lengths)
            found.append(Latent(*(seen.spread(part) for part in latent)))
        mean, uncertainty, divergence = (torch.stack(part, dim=1) for part in zip(*found, strict=True))
        return Latent(mean, uncertainty, divergence)

    def fuse(self, latent: Latent, present: Tensor) -> Tensor:
        """Σ_m w_m μ_m [B, D] of what was :meth:`read`, of which bool ``present`` [B, 3] is there."""
        weights = fusion_weights(latent.uncertainty, present)
        return (weights[..., None] * latent.mean.where(present[..., None], 0.0)).sum(dim=1)

    def answer(self, layer: nn.Module, latent: Tensor) -> Tensor:
        """Outputs [B, O] of latents [B, D]."""
        outputs: Tensor = layer(latent.to(self.output.weight.dtype))
        return outputs

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.answer(self.output, self.fuse(self.read(batch), batch.present))

    def distance(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Distance d [B] of outputs [B, O] from their targets: -log p(y), or the squared error of a value."""
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if self.task.name == "classification":
            known = target.to(outputs.dtype) if target.is_floating_point() else target
            return F.cross_entropy(outputs, known, reduction="none")
        return (outputs[:, 0] - target.to(outputs.dtype)).square()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, the sum of those of each modality alone, both parts of the matching, and KL."""
        latent, present, target = self.read(batch), batch.present, batch.target
        own = [self.answer(layer, latent.mean[:, m]) for m, layer in enumerate(self.alone.values())]
        with full_precision(latent.mean):
            distance = torch.stack([self.distance(outputs.detach(), target) for outputs in own], dim=1)
            within = [
                distribution_matching(distance[shown, m], latent.uncertainty[shown, m])
                for m, shown in enumerate(present.unbind(dim=1))
            ]
            divergence = latent.divergence[present]
        alone = [self.loss_over(present[:, m], outputs, target) for m, outputs in enumerate(own)]
        return {
            "cls": self.task.loss(self.answer(self.output, self.fuse(latent, present)), target),
            "alone": torch.stack(alone).sum(),
            "calibration": torch.stack(within).sum(),
            "ordinal": distribution_matching(distance[present], latent.uncertainty[present]),
            "prior": divergence.sum() / max(1, len(divergence)),
        }

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute μ [B, 3, D], zeros where a modality is absent."""
        return self.read(batch).mean

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        """``uncertainty_audio``, ``uncertainty_visual``, ``uncertainty_text``: s of what is present."""
        shown = self.read(batch).uncertainty.where(batch.present, torch.nan)
        return {f"uncertainty_{name}": shown[:, m] for m, name in enumerate(MODALITIES)}
