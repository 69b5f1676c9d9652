"""EffMulti and InterMulti: a full, a shared and three specific representations, fused level by level."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.encoders import ModalityEncoders
from ifmmin.nn.fusion import PolynomialPooling
from ifmmin.nn.subspaces import ModalityLinear, Subspaces, present_mean, subspace_losses

NAMES = ("full", "shared", *MODALITIES)
"""Of the five representations."""


def usable(present: Tensor) -> Tensor:
    """Bool [B, 5], which representations there are, of bool ``present`` [B, 3]: full and shared always."""
    return F.pad(present, (2, 0), value=True)


class FullRepresentation(nn.Module):
    """F = ReLU(W [h_a; h_v; h_t] + b), with a learnt vector in place of what is absent.

    Args:
        dim: E, width of h_m and of F.

    Example:
        >>> FullRepresentation(4)(torch.zeros(5, 3, 4), torch.ones(5, 3, dtype=torch.bool)).shape
        torch.Size([5, 4])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.absent = nn.Parameter(torch.zeros(len(MODALITIES), dim))
        self.linear = nn.Linear(len(MODALITIES) * dim, dim)

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Integrate h [B, 3, E], of which bool ``present`` [B, 3] is read: [B, E]."""
        full: Tensor = self.linear(h.where(present[..., None], self.absent).flatten(1)).relu()
        return full


class Representations(NamedTuple):
    """The three kinds of representation of B rows.

    Attributes:
        full: F [B, E].
        shared: S [B, E].
        specific: P [B, 3, E], zeros where a modality is absent.
    """

    full: Tensor
    shared: Tensor
    specific: Tensor


class HierarchicalFusion(MissingModalityModule):
    """Base of EffMulti and InterMulti: the representations and their losses; a subclass fuses them.

    Args:
        embedding_dim: E, of h_m and of the representations.
        text_channels: output channels of each convolution over text.
        text_dropout: of the text's encoder.
        lambda_sim: weight of L_sim.
        lambda_diff: weight of L_diff.
        lambda_recon: weight of L_recon.
        lambda_complete: weight of the loss on complete utterances.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    needs = DataNeeds(hidden_frames=True)

    def __init__(
        self,
        *,
        embedding_dim: Annotated[int, WIDTH] = 128,
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        lambda_sim: Annotated[float, NOT_NEGATIVE] = 0.5,
        lambda_diff: Annotated[float, NOT_NEGATIVE] = 0.3,
        lambda_recon: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_complete: Annotated[float, NOT_NEGATIVE] = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encoders = ModalityEncoders.of_present(self.feature_dims, embedding_dim, text_channels, text_dropout)
        self.private, self.reconstruct = ModalityLinear(embedding_dim), ModalityLinear(embedding_dim)
        self.shared = nn.Sequential(nn.Linear(embedding_dim, embedding_dim), nn.Sigmoid())
        self.full = FullRepresentation(embedding_dim)
        self.loss_weights = {
            "complete": lambda_complete,
            "sim": lambda_sim,
            "diff": lambda_diff,
            "recon": lambda_recon,
        }

    @abstractmethod
    def fuse(self, representations: Representations, present: Tensor) -> Tensor:
        """Outputs [B, O] of representations of rows that show bool ``present`` [B, 3]."""

    def split(self, batch: Batch) -> Subspaces:
        """Encode what is present in each row, and split it."""
        h: Tensor = self.encoders(batch)
        return Subspaces(h, self.private(h), self.shared(h))

    def represent(self, parts: Subspaces, present: Tensor) -> Representations:
        """Represent rows by what is ``present``, bool [B, 3]."""
        return Representations(
            self.full(parts.embeddings, present),
            present_mean(parts.shared, present),
            parts.private.where(present[..., None], 0.0),
        )

    def answer(self, parts: Subspaces, present: Tensor) -> Tensor:
        """Outputs [B, O] of rows, of which bool ``present`` [B, 3] is read."""
        return self.fuse(self.represent(parts, present), present)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.answer(self.split(batch), batch.present)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls under the training mask; L_complete, L_diff, L_sim and L_recon of the whole utterances."""
        available = batch.available
        whole = self.split(batch.unmasked())
        shown = Subspaces(*(part[batch.row] for part in whole))
        return {
            "cls": self.task.loss(self.answer(shown, batch.present), batch.target),
            "complete": self.loss_over(available.all(dim=1), self.answer(whole, available), batch.targets),
            **subspace_losses(whole, self.reconstruct, available, detached=False),
        }

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute h [B, 3, E]; zeros where a modality is absent."""
        return self.split(batch).embeddings * batch.present[..., None]

    def invariant_features(self, batch: Batch) -> Tensor:
        """Compute s_m [B, 3, E]; zeros where a modality is absent."""
        return self.split(batch).shared * batch.present[..., None]


class EffMulti(HierarchicalFusion):
    r"""EffMulti, modality-semantic hierarchical fusion.

    Qiu, Xie, Ding, Kong: "EffMulti: Efficiently modeling complex multimodal interactions for emotion analysis", arXiv
    2212.08661, 2022.

    An utterance is seen in three ways: all modalities integrated, what they share, and what each has for itself. With
    h_m of an encoder for each modality,

    .. math::
        F = \mathrm{ReLU}(W_F [h_a; h_v; h_t]), \quad s_m = σ(W_s h_m), \quad S = \mathrm{mean}_m s_m,
            \quad P_m = W_m h_m

    Level of modalities: each specific representation meets what is shared. Level of meaning: a gate weighs all five,
    and a linear layer answers from their sum.

    .. math::
        u_m = \tanh(W [P_m; S]), \quad x = (F, S, u_a, u_v, u_t), \quad g = \mathrm{softmax}_k \tanh(v_k^T x_k), \quad
        ŷ = W_o \sum_k g_k x_k

    W is one for all modalities, and no products of representations are formed. L = L_cls + L_complete + 0.5 L_sim +
    0.3 L_diff + L_recon: the task's loss under the training mask, and on the complete utterance; MISA's losses
    (:func:`~ifmmin.nn.subspaces.subspace_losses`): CMD_5 between s_m of the modalities, orthogonality of P_m to
    s_m and to P_n, reconstruction of h_m from P_m + s_m.

    An absent modality has no u_m, and so no weight; S is the mean over what is present, and F reads a learnt vector in
    its place. Files of predictions have a column ``gate_NAME`` for each of ``full``, ``shared`` and the modalities,
    empty where a modality is absent; the sum of a row is 1.

    Stated by the abstract: a representation of all three modalities integrated, one of what they share, and three of
    single ones; that a fusion by modality and by meaning makes one of them; few parameters and operations.

    Our choices: everything else, the formulas above among them; biases are not written. tanh keeps each weight above
    1 / 7.4 of any other: without it the gate ends on F alone. In L_diff the norms of rows have a gradient, and P_m no
    sigmoid, unlike MISA's: at these weights L_diff would otherwise shrink P_m and the text's embedding until they tell
    nothing. MISA's losses read whole utterances. L_complete has the weight 1, since no training mask shows three
    modalities, which F is to integrate. E = 128, dropout 0.3 of the sum; h_m of MMIN's encoders, of frozen features
    (text: no BERT is fine-tuned); learning rate 2e-4, batch 128, 20+20 epochs. In a corpus with gaps L_complete is over
    the complete utterances, and MISA's losses are over what there is.

    What it costs: at IEMOCAP's sizes a training epoch takes 2.0 times as long as plain fusion's
    (``python -m benchmarks.speed.epochs``), since utterances are encoded whole.

    Published figures: of complete modalities, with trained text encoders; nothing to compare with.

    Args:
        dropout: of the weighed sum.
        **kwargs: of :class:`HierarchicalFusion`.
    """

    card = ModelCard(
        "EffMulti",
        "a gate weighs all modalities integrated, what they share, and what each has for itself",
        "Qiu et al., arXiv",
        2022,
        "https://arxiv.org/abs/2212.08661",
        None,
        "fusion",
        "after the abstract of the paper",
    )

    def __init__(self, *, dropout: Annotated[float, BELOW_ONE] = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width = self.encoders.embedding_dim
        self.modality_level = nn.Linear(2 * width, width)
        self.gate = nn.ModuleList(nn.Linear(width, 1) for _ in NAMES)
        self.dropout, self.output = nn.Dropout(dropout), nn.Linear(width, self.task.outputs)

    def weigh(self, representations: Representations, present: Tensor) -> tuple[Tensor, Tensor]:
        """Give x [B, 5, E] and its weights g [B, 5], 0 for what is absent of bool ``present`` [B, 3]."""
        full, shared, specific = representations
        both = torch.cat([specific, shared[:, None].expand_as(specific)], dim=2)
        x = torch.cat([full[:, None], shared[:, None], self.modality_level(both).tanh()], dim=1)
        scores = torch.cat([score(x[:, place]) for place, score in enumerate(self.gate)], dim=1).tanh()
        return x, scores.masked_fill(~usable(present), -torch.inf).softmax(dim=1)

    def fuse(self, representations: Representations, present: Tensor) -> Tensor:
        """See :class:`HierarchicalFusion`."""
        x, weights = self.weigh(representations, present)
        outputs: Tensor = self.output(self.dropout((weights[..., None] * x).sum(dim=1)))
        return outputs

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        """``gate_NAME``: the weight of each representation; NaN of an absent modality."""
        _, weights = self.weigh(self.represent(self.split(batch), batch.present), batch.present)
        values = weights.where(usable(batch.present), torch.nan)
        return {f"gate_{name}": column for name, column in zip(NAMES, values.unbind(dim=1), strict=True)}


class InterMulti(HierarchicalFusion):
    r"""InterMulti, text-dominated hierarchical high-order fusion.

    Qiu, Kong, Ding: "InterMulti: Multi-view multimodal interactions with text-dominated hierarchical high-order fusion
    for emotion analysis", arXiv 2212.10030, 2022.

    The representations F, S and P_m and all losses are those of :class:`EffMulti`. Polynomials of degree 2 fuse them,
    text first with each other modality, then both results with what is shared:

    .. math::
        b_{ta} = \mathrm{pool}_{ta}([1; P_t; P_a]), \quad b_{tv} = \mathrm{pool}_{tv}([1; P_t; P_v]), \quad
            c = \mathrm{pool}([1; b_{ta}; b_{tv}; S]), \quad ŷ = W_o [c; F; P_t]

    pool: :class:`~ifmmin.nn.fusion.PolynomialPooling`, a linear function of all products of two coordinates, of rank 4.
    P_m of an absent modality is 0, so that of [1; P_t; P_m] exactly the terms with it are left out. Without text b_ta
    and b_tv are polynomials of audio and of visual alone, and text does not dominate.

    Stated by the abstract: a full, a shared and three specific representations, fused by a hierarchical high-order
    module in which text dominates. That "high-order" means polynomial pooling is our inference: an author of the paper
    is one of that method's.

    Our choices: everything else, the formulas above among them; 64 values of each pool; dropout 0.3 before the answer,
    and what :class:`EffMulti` names but for its gate.

    What it costs: 1.1 times as long a training epoch as EffMulti's; what fuses has some 12 times as many parameters.

    Published figures: of complete modalities, with trained text encoders; nothing to compare with.

    Args:
        pooled_dim: of b_ta, b_tv and c.
        rank: of the pools.
        dropout: of what answers.
        **kwargs: of :class:`HierarchicalFusion`.
    """

    card = ModelCard(
        "InterMulti",
        "products of what text and each other modality have for themselves, then with what all share",
        "Qiu et al., arXiv",
        2022,
        "https://arxiv.org/abs/2212.10030",
        None,
        "fusion",
        "after the abstract of the paper",
    )

    def __init__(
        self,
        *,
        pooled_dim: Annotated[int, WIDTH] = 64,
        rank: Annotated[int, COUNT] = 4,
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        width = self.encoders.embedding_dim
        self.pool_audio = PolynomialPooling(2 * width, pooled_dim, rank)
        self.pool_visual = PolynomialPooling(2 * width, pooled_dim, rank)
        self.pool_shared = PolynomialPooling(2 * pooled_dim + width, pooled_dim, rank)
        self.dropout, self.output = nn.Dropout(dropout), nn.Linear(pooled_dim + 2 * width, self.task.outputs)

    def fuse(self, representations: Representations, present: Tensor) -> Tensor:
        """See :class:`HierarchicalFusion`."""
        full, shared, specific = representations
        audio, visual, text = specific.unbind(dim=1)
        with_audio = self.pool_audio(torch.cat([text, audio], dim=1))
        with_visual = self.pool_visual(torch.cat([text, visual], dim=1))
        c = self.pool_shared(torch.cat([with_audio, with_visual, shared], dim=1))
        outputs: Tensor = self.output(self.dropout(torch.cat([c, full, text], dim=1)))
        return outputs
