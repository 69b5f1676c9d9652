"""MV2D: distillation between the views of an utterance, their codes, and every subset of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.ranges import BELOW_ONE, FINITE, FRACTION, NOT_NEGATIVE, POSITIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.distillation import cross_distillation, full_to_partial, mutual_learning
from ifmmin.nn.encoders import ModalityEncoders, SequenceEncoder
from ifmmin.nn.gaussians import SMALLEST_STD, Gaussian
from ifmmin.optimization import Recipe

DISTILLED = ("vsd", "vcd", "subset", "mutual")
"""Terms whose weights grow at the beginning."""

MOMENTUM = 0.01
"""Share of a step in the running means of the views' losses."""


class NoiseBottleneck(nn.Module):
    r"""Mix each coordinate with noise, by a share that is learnt.

    .. math:: z \sim N(λ h, (1 - λ)^2), \quad λ = \mathrm{sigmoid}(α)

    Args:
        dim: E, width of h and z.
        alpha: α of every coordinate at first; far below 0 nothing of h passes.

    Example:
        >>> import torch
        >>> code = NoiseBottleneck(2, alpha=0.0)(torch.tensor([[4.0, -2.0]]))
        >>> code.mean.tolist(), code.std.tolist()
        ([[2.0, -1.0]], [[0.5, 0.5]])
    """

    def __init__(self, dim: int, alpha: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((dim,), alpha))

    def forward(self, h: Tensor) -> Gaussian:
        """Codes [..., E] of h [..., E]."""
        mean = self.alpha.sigmoid() * h
        # Not 1 - sigmoid(α), which rounds to 0.
        return Gaussian(mean, (-self.alpha).sigmoid().clamp(min=SMALLEST_STD).expand_as(mean))


class Views(NamedTuple):
    """Everything that is computed of each modality; zeros where it is absent, and a spread of 1.

    Attributes:
        embeddings: h [B, 3, E].
        observed: outputs [B, 3, O] from h.
        code: the Gaussian of z [B, 3, E].
        drawn: z [B, 3, E], its mean in evaluation.
    """

    embeddings: Tensor
    observed: Tensor
    code: Gaussian
    drawn: Tensor


def mean_over(values: Tensor, shown: Tensor) -> Tensor:
    """Mean [B, D] of the values [B, M, D] of a subset of views, bool [B, M]; zeros of none.

    >>> import torch
    >>> mean_over(torch.tensor([[[2.0], [4.0], [torch.nan]]]), torch.tensor([[True, True, False]])).tolist()
    [[3.0]]
    """
    return values.where(shown[..., None], 0.0).sum(dim=1) / shown.sum(dim=1, keepdim=True).clamp(min=1)


def code_distance(left: Tensor, right: Tensor) -> Tensor:
    """Mean over rows of half of KL(p ‖ q) + KL(q ‖ p), summed over coordinates.

    Args:
        left: [n, 2 E], means and standard deviations of p side by side.
        right: [n, 2 E], of q.
    """
    (mean_p, std_p), (mean_q, std_q) = left.chunk(2, dim=1), right.chunk(2, dim=1)
    p, q = Normal(mean_p, std_p, validate_args=False), Normal(mean_q, std_q, validate_args=False)
    return (kl_divergence(p, q) + kl_divergence(q, p)).sum(dim=1).mean() / 2


class MV2D(MissingModalityModule):
    r"""Multi-view variational distillation: codes of views that keep what tells of the label, and what views share.

    Tian, Zhang, Wang, Zhang, Qu, Ma, Wu, Xie, Tao: "Variational distillation for multi-view learning", IEEE TPAMI
    46(7), 2024.

    h_m embeds modality m and tells the label by p(y|h_m). A bottleneck mixes h_m with noise to a code z_m; one linear
    classifier p(y|·) reads any code, and the mean z_S of those of a subset S of the modalities. A missing modality is
    a smaller subset, no more. Divergences between answers have a code tell what its view tells and what the other
    views tell, and a subset what all tell; no mutual information is estimated.

    .. math::
        z_m \sim N(λ_m h_m, (1 - λ_m)^2), \quad λ_m = \mathrm{sigmoid}(α_m), \quad z_S = \mathrm{mean}_{m \in S}\, z_m

    .. math::
        L = L_{cls} + L_{complete} + L_{alone} + λ_{vsd} KL(sg\,p(y|h_m) \| p(y|z_m))
            + λ_{vcd} \sum_{m \ne n} π_m KL(sg\,p(y|h_m) \| p(y|z_n))
            + λ_{subset} KL(sg\,p(y|z_{all}) \| p(y|z_S)), \quad π_m \propto e^{-CE_m}

    S is what the training mask shows, π_m sums to 1 over the pairs, CE_m is a running mean of the loss of p(y|h_m): the
    better a view tells the label, the more it teaches. L_cls and L_complete: the task's loss of p(y|z_S) and
    p(y|z_all); L_alone: the sum of that of p(y|h_m) and p(y|z_m), a mean over modalities. λ_vsd = λ_subset = 1,
    λ_vcd = 0.5, each from 0 to that over the first fifth of the epochs, evenly. Of a regression, KL is the absolute
    difference of the values. In evaluation z_m is λ_m h_m, without noise.

    Stated by the abstracts (arXiv 2022, TPAMI 2024): distillation for any number of views, without an estimate of
    mutual information; what views share is kept, what only one has is dropped; what is shared is prioritised by its
    ability to generalise. Of the code of VSD, by the same authors (:class:`~baselines.VariationalDistillation`): VSD
    and VCD between answers. Of a third party's code: the bottleneck, α = 5 at first, the loss of the task alone in a
    first step, and, as an option, the divergence of two codes as Gaussians.

    Our choices: divergences between answers, and not between Gaussians; e^-CE for the ability to generalise; the
    mean of codes; subsets by the training mask; the weights; L_complete and L_alone of both; h_m of MMIN's encoders,
    128 wide; dropout of h_m; learning rate 1e-3, batch 128, 15+15 epochs. VSD counts each code of the batch alike; a
    pair of VCD is averaged over the utterances that have both. In a corpus with gaps "all" means all that an utterance
    has.

    α hardly moves: on the built-in corpus the noise has a standard deviation of 0.0067 before training, and 0.0066
    after it, so that the bottleneck compresses little; a smaller ``alpha`` draws more noise. On several devices CE_m is
    that of the first device's rows. Frames of text are frozen features.

    What it costs: at IEMOCAP's sizes a training epoch takes two to three times plain fusion's, for utterances are
    read whole; a run takes fewer epochs, and as long.

    Published figures: of other tasks, with every view there; nothing to compare with.

    Args:
        embedding_dim: E, width of h_m and z_m.
        alpha: α at first.
        dropout: of h_m.
        lambda_vsd: λ_vsd.
        lambda_vcd: λ_vcd.
        lambda_subset: λ_subset.
        lambda_mutual: weight of the symmetric KL between the Gaussians of two codes; 0 leaves it out. It is of the
            order of 10⁴ to 10⁵ at first; the third party's weight, in proportion to its loss of the task, is 5e-5.
        prioritise: false for equal π_m.
        temperature: T of the divergences, which are times T².
        ramp: share of the epochs in which the weights of divergences grow.
        text_channels: output channels of each convolution over text.
        text_dropout: of the text's encoder.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    card = ModelCard(
        "MV²D",
        "any subset of modalities follows what all tell, and codes what the best views tell",
        "Tian et al., TPAMI",
        2024,
        "https://arxiv.org/abs/2206.09548",
        None,
        "alignment",
        "after the abstract of the paper",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=15, decay_epochs=15)

    view_losses: Tensor
    """CE_m [3], 0 at first."""

    def __init__(
        self,
        *,
        embedding_dim: Annotated[int, WIDTH] = 128,
        alpha: Annotated[float, FINITE] = 5.0,
        dropout: Annotated[float, BELOW_ONE] = 0.1,
        lambda_vsd: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_vcd: Annotated[float, NOT_NEGATIVE] = 0.5,
        lambda_subset: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_mutual: Annotated[float, NOT_NEGATIVE] = 0.0,
        prioritise: bool = True,
        temperature: Annotated[float, POSITIVE] = 1.0,
        ramp: Annotated[float, FRACTION] = 0.2,
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encoders = ModalityEncoders.of_present(self.feature_dims, embedding_dim, text_channels, text_dropout)
        self.dropout = nn.Dropout(dropout)
        self.observers = nn.ModuleDict({name: nn.Linear(embedding_dim, self.task.outputs) for name in MODALITIES})
        self.bottlenecks = nn.ModuleDict({name: NoiseBottleneck(embedding_dim, alpha) for name in MODALITIES})
        self.classifier = nn.Linear(embedding_dim, self.task.outputs)
        self.register_buffer("view_losses", torch.zeros(len(MODALITIES)))
        self.prioritise, self.ramp = prioritise, ramp
        self.follow = partial(self.task.distillation, temperature=temperature)
        self.loss_weights = {"vsd": lambda_vsd, "vcd": lambda_vcd, "subset": lambda_subset, "mutual": lambda_mutual}

    def readers(self) -> Iterator[tuple[SequenceEncoder, nn.Module, nn.Module]]:
        """Encoder, p(y|h_m) and bottleneck of audio, visual and text."""
        for name, encoder in zip(MODALITIES, self.encoders.encoders(), strict=True):
            yield encoder, self.observers[name], self.bottlenecks[name]

    def read(self, batch: Batch) -> Views:
        """Read what is present in each row; each stored utterance once per modality."""
        columns = []
        for modality, (encoder, observe, compress) in enumerate(self.readers()):
            seen = visible(batch, modality)
            # A modality that nobody shows is run on zeros, so that its parameters have a gradient.
            h = encoder(seen.frames, seen.lengths) if len(seen.lengths) else encoder(*encoder.zero_frames())
            h = self.dropout(h)
            code = compress(h)
            z = code.sample() if self.training else code.mean
            columns.append([*(seen.spread(part) for part in (h, observe(h), code.mean, z)), seen.spread(code.std, 1.0)])
        h, observed, mean, z, std = (torch.stack(parts, dim=1) for parts in zip(*columns, strict=True))
        return Views(h, observed, Gaussian(mean, std), z)

    def answer(self, drawn: Tensor, shown: Tensor) -> Tensor:
        """Outputs [B, O] of the codes z [B, 3, E] of a subset, bool [B, 3]."""
        outputs: Tensor = self.classifier(mean_over(drawn, shown))
        return outputs

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.answer(self.read(batch).drawn, batch.present)

    def priorities(self) -> Tensor:
        """π_m [3], up to a factor."""
        return (-self.view_losses).softmax(dim=0) if self.prioritise else torch.ones_like(self.view_losses)

    @torch.no_grad()
    def _look_at(self, losses: Tensor, known: Tensor) -> None:
        """Update CE_m by a step's [3], of the modalities that some row has, bool [3]."""
        moved = self.view_losses.lerp(losses.to(self.view_losses.dtype), MOMENTUM)
        self.view_losses.copy_(moved.where(known, self.view_losses))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, L_complete, L_alone, and the divergences; in training CE_m is updated behind them."""
        whole, row, targets = batch.unmasked(), batch.row, batch.targets
        views, known = self.read(whole), whole.present
        compressed = self.classifier(views.drawn)
        part, everything = self.answer(views.drawn[row], batch.present), self.answer(views.drawn, known)
        observed_loss, compressed_loss = (
            torch.stack([self.loss_over(known[:, m], outputs[:, m], targets) for m in range(len(MODALITIES))])
            for outputs in (views.observed, compressed)
        )
        losses = {
            "cls": self.task.loss(part, batch.target),
            "complete": self.task.loss(everything, targets),
            "alone": (observed_loss + compressed_loss).mean(),
            "vsd": full_to_partial(
                self.follow, compressed.flatten(0, 1), views.observed.flatten(0, 1), known.flatten()
            ),
            "vcd": cross_distillation(self.follow, views.observed, compressed, known, self.priorities()),
            "subset": full_to_partial(self.follow, part, everything[row]),
        }
        if self.loss_weights["mutual"] > 0:
            losses["mutual"] = mutual_learning(code_distance, torch.cat(views.code, dim=2), known)
        if self.training:
            self._look_at(observed_loss, known.any(dim=0))
        return losses

    def grown(self) -> float:
        """The share, 0 to 1, of their weights that divergences have in this epoch; 1 outside a trainer."""
        if self._trainer is None or not self.ramp:
            return 1.0
        return min(1.0, self.current_epoch / (self.ramp * self._scheduled.epochs))

    def total_loss(self, losses: dict[str, Tensor]) -> Tensor:
        """See :class:`~ifmmin.base.MissingModalityModule`; weights of divergences grow at the beginning."""
        grown = self.grown()
        return super().total_loss(
            {name: grown * value if name in DISTILLED else value for name, value in losses.items()}
        )

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute h [B, 3, E]; zeros where absent."""
        return self.read(batch).embeddings

    def invariant_features(self, batch: Batch) -> Tensor:
        """Codes z [B, 3, E]; zeros where absent."""
        return self.read(batch).drawn
