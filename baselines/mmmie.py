"""MMMIE: embeddings tell much of each other and little of their own frames."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.encoders import ModalityEncoders
from ifmmin.nn.gaussians import ConditionalGaussian, Gaussian, log_density
from ifmmin.nn.heads import Classifier
from ifmmin.nn.losses import info_nce
from ifmmin.nn.padding import frame_mask
from ifmmin.nn.precision import full_precision
from ifmmin.optimization import Recipe

PAIRS = tuple(combinations(range(len(MODALITIES)), 2))
"""Audio and visual, audio and text, visual and text."""


def vclub(given: Gaussian, y: Tensor) -> Tensor:
    r"""Bound the information of x and y from above by how much better q(y | x) fits y's own x than any other.

    .. math:: \frac1N \sum_i \log q(y_i | x_i) - \frac{1}{N^2} \sum_{i,j} \log q(y_j | x_i)

    Cheng et al., "CLUB: a contrastive log-ratio upper bound of mutual information", ICML 2020. It is a bound if q is
    p(y | x); of another q it may be anything, below 0 too. Of Gaussians the mean over j needs no pairs: in each
    coordinate it is (μ_i - ȳ)² + Var y, over 2 σ_i².

    Args:
        given: q(· | x_i), [N, E].
        y: [N, E].

    Returns:
        a scalar, in nats, float32 for half precision; 0 with a zero gradient for fewer than two rows.

    >>> y = torch.tensor([[-1.0], [1.0]])
    >>> float(vclub(Gaussian(y, torch.ones(2, 1)), y))
    1.0
    """
    with full_precision(y):
        y = y.to(given.mean.dtype)
        if len(y) < 2:
            return 0.0 * y.sum()
        others = (given.mean - y.mean(dim=0)).square() + y.var(dim=0, correction=0)
        return ((others - (given.mean - y).square()) / (2 * given.std.square())).sum(dim=1).mean()


class Embedded(NamedTuple):
    """What is read of rows; what a row lacks is 0.

    Attributes:
        h: [B, 3, E], of audio, visual, text.
        means: x_m [B, D_m] of each modality, the mean of its frames.
    """

    h: Tensor
    means: list[Tensor]


class MMMIE(MissingModalityModule):
    r"""MMMIE, mutual information maximisation and minimisation with identity embedding.

    Zheng, Zhang, Wang, Zeng: "Multimodal representations learning based on mutual information maximization and
    minimization and identity embedding for multimodal sentiment analysis", arXiv 2201.03969, 2022.

    The embeddings h_m of an utterance are to tell of each other, and so of what the modalities share, and little of
    their own frames, and so nothing that the task does not need. InfoNCE raises a lower bound of I(h_m; h_n); vCLUB
    lowers an upper bound of I(x_m; h_m), x_m the mean frame, by a Gaussian q_m that is fitted meanwhile. An embedding
    says which modality a token is of, and one transformer layer fuses the tokens of what is present:

    .. math::
        ŷ = \mathrm{head}(\mathrm{mean}_m\, \mathrm{transformer}(h_m + e_m))

    .. math::
        L = L_{cls} + λ_{nce} \sum_{m<n} \frac{NCE(h_m, h_n) + NCE(h_n, h_m)}{2}
            + λ_{club} \sum_m vCLUB_{\bar q_m}(x_m; h_m) - \sum_m E \log q_m(sg\,h_m | x_m)

    λ_nce = 0.1, λ_club = 0.01. NCE (:func:`~ifmmin.nn.losses.info_nce`) is of cosines over a temperature of 0.1. The
    last term (``fit``) trains q alone, and all others everything but q: two problems in one step, whose gradients have
    no parameter in common.

    Stated by the paper's abstract: information between pairs of modalities is maximised, that between input data and
    the corresponding features is minimised, and an identity embedding prompts the network to perceive context.

    Our choices: both estimators; their weights; x_m; h_m of MMIN's encoders, 128 wide, of frozen features; q with
    networks of one hidden layer of 128 and log σ² within ±1 (:class:`~ifmmin.nn.gaussians.ConditionalGaussian`); that
    identity is the modality, since batches have no order of turns; 4 heads, 256 hidden units and dropout 0.1 in the
    layer; a head of one hidden layer of 128 with dropout 0.3; batch 128 and a linear schedule; 10 times the learning
    rate for q, since of a q that lags behind the embeddings vCLUB is no bound, and lowering it makes them tell more.
    Both bounds are over utterances that have what they relate, whatever the mask shows; InfoNCE and vCLUB compare the
    rows of a device's batch, in training alone. vCLUB is never clamped: it may be negative until q fits. q knows no
    variance below e⁻¹, so that shrinking h lowers vCLUB as well as telling less does, and the layer's norm makes up for
    it. InfoNCE can show no more than the logarithm of the batch.

    What it costs: at IEMOCAP's sizes a training epoch takes some 2.4 times plain fusion's
    (``python -m benchmarks.speed.epochs``), since whole utterances are read, and q is fitted.

    Published figures: of complete modalities, on sentiment, with turns of dialogue; nothing to compare with.

    Args:
        embedding_dim: E, width of h_m.
        heads: of the transformer layer; divides E.
        feedforward_dim: of the transformer layer.
        attention_dropout: of the transformer layer.
        hidden_dim: of the head.
        dropout: of the head.
        text_channels: output channels of each convolution over text.
        text_dropout: of the text's encoder.
        q_dim: hidden width of q.
        temperature: that cosines are divided by.
        lambda_nce: λ_nce; with 0 what a mask hides is not even loaded.
        lambda_club: λ_club; with 0 the bound is measured only.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``embedding_dim``, or an option is out of range.
    """

    card = ModelCard(
        "MMMIE",
        "makes embeddings tell much of each other and little of their own frames",
        "Zheng et al., arXiv",
        2022,
        "https://arxiv.org/abs/2201.03969",
        None,
        "alignment",
        "after the abstract of the paper",
    )
    recipe: ClassVar[Recipe] = Recipe(rates={f"q.{name}": 10.0 for name in MODALITIES})

    def __init__(
        self,
        *,
        embedding_dim: Annotated[int, WIDTH] = 128,
        heads: Annotated[int, WIDTH] = 4,
        feedforward_dim: Annotated[int, WIDTH] = 256,
        attention_dropout: Annotated[float, BELOW_ONE] = 0.1,
        hidden_dim: Annotated[int, WIDTH] = 128,
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        q_dim: Annotated[int, WIDTH] = 128,
        temperature: Annotated[float, POSITIVE] = 0.1,
        lambda_nce: Annotated[float, NOT_NEGATIVE] = 0.1,
        lambda_club: Annotated[float, NOT_NEGATIVE] = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if embedding_dim % heads:
            raise InputError(f"heads {heads}: it must divide embedding_dim {embedding_dim}.")
        self.encoders = ModalityEncoders.of_present(self.feature_dims, embedding_dim, text_channels, text_dropout)
        self.identity = nn.Embedding(len(MODALITIES), embedding_dim)
        nn.init.normal_(self.identity.weight, std=0.02)
        layout = (embedding_dim, heads, feedforward_dim, attention_dropout)
        self.fusion = nn.TransformerEncoderLayer(*layout, batch_first=True)
        self.head = Classifier(embedding_dim, self.task.outputs, [hidden_dim], dropout)
        dims = zip(MODALITIES, self.feature_dims, strict=True)
        self.q = nn.ModuleDict({name: ConditionalGaussian(dim, embedding_dim, q_dim) for name, dim in dims})
        self.temperature = temperature
        self.loss_weights = {"nce": lambda_nce, "club": lambda_club}
        self.needs = DataNeeds(hidden_frames=lambda_nce > 0)

    def embed(self, batch: Batch) -> Embedded:
        """Read what rows show; each stored utterance is read once."""
        h, means = [], []
        for m, encoder in enumerate(self.encoders.encoders()):
            seen = visible(batch, m)
            # A modality that nobody shows is run on zeros, so that its parameters have a gradient.
            found = encoder(seen.frames, seen.lengths) if len(seen.lengths) else encoder(*encoder.zero_frames())
            h.append(seen.spread(found))
            true = frame_mask(seen.lengths, seen.frames.shape[1])[..., None]
            means.append(seen.spread(seen.frames.where(true, 0.0).sum(dim=1) / seen.lengths[:, None]))
        return Embedded(torch.stack(h, dim=1), means)

    def fuse(self, h: Tensor, present: Tensor) -> Tensor:
        """Fuse h [B, 3, E] where bool ``present`` [B, 3], at least one of a row, to [B, E]."""
        states: Tensor = self.fusion(h + self.identity.weight, src_key_padding_mask=~present)
        return states.where(present[..., None], 0.0).sum(dim=1) / present.sum(dim=1, keepdim=True)

    def answer(self, h: Tensor, present: Tensor) -> Tensor:
        """Outputs [B, O] of h, as :meth:`fuse` reads it."""
        outputs: Tensor = self.head(self.fuse(h, present))
        return outputs

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.answer(self.embed(batch).h, batch.present)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, the contrast, vCLUB, and the negative log likelihood of q, each summed over pairs or modalities."""
        whole = batch.unmasked() if self.needs.hidden_frames else batch
        embedded = self.embed(whole)
        shown = embedded.h[batch.row] if self.needs.hidden_frames else embedded.h
        bounds = [self.bounds(m, embedded, whole.present[:, m]) for m in range(len(MODALITIES))]
        club, fit = (torch.stack(terms).sum() for terms in zip(*bounds, strict=True))
        return {
            "cls": self.task.loss(self.answer(shown, batch.present), batch.target),
            "nce": self.contrast(embedded.h, whole.present),
            "club": club,
            "fit": fit,
        }

    def contrast(self, h: Tensor, present: Tensor) -> Tensor:
        """Symmetric InfoNCE of h [B, 3, E], the sum over pairs, each over the rows with both by bool [B, 3]."""
        terms = []
        for m, n in PAIRS:
            both = present[:, m] & present[:, n]
            x, y = h[both, m], h[both, n]
            terms += [info_nce(x, y, 1 / self.temperature), info_nce(y, x, 1 / self.temperature)]
        return torch.stack(terms).sum() / 2

    def bounds(self, m: int, embedded: Embedded, rows: Tensor) -> tuple[Tensor, Tensor]:
        """VCLUB of modality ``m`` by a fixed q, and -E log q of fixed embeddings, over bool ``rows`` [B]."""
        q = self.q[MODALITIES[m]]
        assert isinstance(q, ConditionalGaussian)
        h, given = embedded.h[rows, m], q.given(embedded.means[m][rows])
        fit = -log_density(given, h.detach()).sum() / max(1, len(h))
        return vclub(Gaussian(given.mean.detach(), given.std.detach()), h), fit

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute h [B, 3, E], zeros where a modality is absent."""
        return self.embed(batch).h
