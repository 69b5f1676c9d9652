"""MMIM: maximises the mutual information between modalities, and of each modality with their fusion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.ranges import BELOW_ONE, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.encoders import LSTMEncoder, SequenceEncoder
from ifmmin.nn.gaussians import ConditionalGaussian, group_entropy
from ifmmin.nn.losses import info_nce
from ifmmin.optimization import Recipe

TEXT = MODALITIES.index("text")

PAIRS = {name: MODALITIES.index(name) for name in ("visual", "audio")}
"""The modalities y of which text x is to tell, as the paper pairs them."""


class ProjectedState(LSTMEncoder):
    """A linear function of an LSTM's last state (audio and visual).

    Args:
        input_dim: D.
        hidden_dim: width of the states.
        embedding_dim: E.
        dropout: of the last state.
    """

    def __init__(self, input_dim: int, hidden_dim: int, embedding_dim: int, dropout: float) -> None:
        super().__init__(input_dim, hidden_dim, pooling="last", absent_frames=1)
        self.embedding_dim = embedding_dim
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(hidden_dim, embedding_dim)

    def head(self, pooled: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        embedding: Tensor = self.linear(self.dropout(pooled))
        return embedding


class ProjectedMean(SequenceEncoder):
    """tanh of a linear function of the mean frame (text).

    Args:
        input_dim: D.
        embedding_dim: E.
    """

    def __init__(self, input_dim: int, embedding_dim: int) -> None:
        super().__init__(input_dim, embedding_dim, absent_frames=1)
        self.linear = nn.Linear(input_dim, embedding_dim)

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        return frames.sum(dim=1) / lengths[:, None]  # padding is zero

    def head(self, pooled: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        embedding: Tensor = self.linear(pooled).tanh()
        return embedding


class FusionNetwork(nn.Module):
    """Two layers of tanh, the second of which is Z, and a linear layer to the outputs.

    Args:
        input_dim: width of what is fused.
        hidden_dim: width of both layers.
        outputs: O.
        dropout: of the input.
    """

    def __init__(self, input_dim: int, hidden_dim: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first, self.second = nn.Linear(input_dim, hidden_dim), nn.Linear(hidden_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, outputs)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, input_dim] to Z [B, hidden_dim] and outputs [B, O]."""
        Z = self.second(self.first(self.dropout(h)).tanh()).tanh()
        return Z, self.output(Z)


class MMIM(MissingModalityModule):
    r"""MMIM, multimodal information maximisation.

    Han, Chen, Poria: "Improving multimodal fusion with hierarchical mutual information maximization for multimodal
    sentiment analysis", EMNLP 2021.

    Two layers of tanh fuse the embeddings h_m of the modalities to Z. Mutual information is maximised at two levels.
    Between text and visual, and text and audio, by a lower bound: I(h_t; h_m) ≥ H(h_m) + E log q_m(h_m | h_t), where
    q_m is a Gaussian whose mean and variance are networks (:class:`~ifmmin.nn.gaussians.ConditionalGaussian`), and H
    the entropy of a Gaussian per class (:func:`~ifmmin.nn.gaussians.group_entropy`), fitted to a projection of h_m.
    Between each modality and the fusion, by contrastive predictive coding (:func:`~ifmmin.nn.losses.info_nce`): a
    linear function of Z tells h_m from those of other utterances.

    .. math::
        L_0 &= - \sum_m E \log q_m(sg\,h_m | sg\,h_t) \\
        L_1 &= L_{cls} + α \sum_m \mathrm{NCE}(h_m, W_m Z) - β \sum_m \left( E \log \bar q_m(h_m | h_t) + H(h_m) \right)

    α = β = 0.1. L_cls is the task's loss. The stages train parameters of their own: L_0 (``bound``) the networks of q
    alone, L_1 everything else, with q fixed.

    Our choices: both stages are one loss of every step, with stopped gradients, where the paper alternates epochs; an
    absent modality is fused as 0; the bound of two modalities is over the utterances that have both, whatever the mask
    shows, and the contrast over the rows that show the modality; embeddings of 64 for every modality, projected to 16
    for H; text is tanh of a linear function of the mean frame, of frozen features, where theirs is trained BERT's; H is
    per class, or of a regression per sign of the label, as there, with covariance + 1e-4 I, over the classes that have
    two rows in the batch and the one before together; learning rate 1e-3, weight decay 1e-4, dropout 0.1, batch 128,
    10+10 epochs of a linear schedule, some 700 steps; gradients clipped to 1 per sub-network.

    Differs from the published code (MIT): its log likelihood lacks -½ log σ², so that σ grows without limit, and its
    log σ² is not squashed, though a tanh is declared; the projection for H is trained, which there no optimiser has;
    the log determinant of few rows is not minus infinity; the best epoch is chosen on validation, not on test.

    Published figures: on MOSI and MOSEI with trained BERT and complete modalities. MPLMM's Table 2 has its accuracy on
    MOSI under six conditions, trained on complete data: 68.6 in the mean. EMT-DLFR's Table 6 has areas under curves
    over rates of dropped frames, another protocol.

    Args:
        widths: of the states and embeddings of audio, visual, text.
        entropy_dim: width of the projections of which H is the entropy.
        hidden_dim: width of Z.
        dropout: of the embeddings of audio and visual, and before the fusion.
        lambda_cpc: α.
        lambda_mi: β.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``widths`` are not three, or an option is out of range.
    """

    card = ModelCard(
        "MMIM",
        "maximises mutual information between modalities, and of each modality with their fusion",
        "Han et al., EMNLP",
        2021,
        "https://aclanthology.org/2021.emnlp-main.723/",
        "https://github.com/declare-lab/Multimodal-Infomax",
        "fusion",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, weight_decay=1e-4, constant_epochs=10, decay_epochs=10)
    memory: Tensor
    memory_groups: Tensor

    def __init__(
        self,
        *,
        widths: Annotated[list[int], WIDTH] = [64, 64, 64],
        entropy_dim: Annotated[int, WIDTH] = 16,
        hidden_dim: Annotated[int, WIDTH] = 128,
        dropout: Annotated[float, BELOW_ONE] = 0.1,
        lambda_cpc: Annotated[float, NOT_NEGATIVE] = 0.1,
        lambda_mi: Annotated[float, NOT_NEGATIVE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(widths) != len(MODALITIES):
            raise InputError(f"widths {list(widths)}: give a number for {', '.join(MODALITIES)} each.")
        width = dict(zip(MODALITIES, widths, strict=True))
        dims = dict(zip(MODALITIES, self.feature_dims, strict=True))
        self.encoders = nn.ModuleDict(
            {name: ProjectedState(dims[name], width[name], width[name], dropout) for name in ("audio", "visual")}
        )
        self.encoders["text"] = ProjectedMean(dims["text"], width["text"])
        self.fusion = FusionNetwork(sum(widths), hidden_dim, self.task.outputs, dropout)
        self.predictors = nn.ModuleDict({name: nn.Linear(hidden_dim, width[name]) for name in MODALITIES})
        self.bounds = nn.ModuleDict({name: ConditionalGaussian(width["text"], width[name]) for name in PAIRS})
        self.projections = nn.ModuleDict({name: nn.Linear(width[name], entropy_dim) for name in PAIRS})
        self.groups = self.task.outputs if self.task.name == "classification" else 2
        shape = (len(PAIRS), self.settings.batch_size)
        # In checkpoints, so that a resumed run goes on as if it had not stopped.
        self.register_buffer("memory", torch.zeros(*shape, entropy_dim))
        self.register_buffer("memory_groups", torch.full(shape, -1))
        self._projected: list[tuple[Tensor, Tensor]] = []
        self.loss_weights = {"cpc": lambda_cpc, "likelihood": lambda_mi, "entropy": lambda_mi}

    def readers(self) -> Iterator[SequenceEncoder]:
        """The encoders of audio, visual and text."""
        for encoder in self.encoders.values():
            assert isinstance(encoder, SequenceEncoder)
            yield encoder

    def embed(self, batch: Batch) -> list[Tensor]:
        """Compute h_m [B, E_m] of audio, visual and text; those of absent ones mean nothing."""
        return [encoder.embed(visible(batch, m), len(batch)) for m, encoder in enumerate(self.readers())]

    def fuse(self, h: list[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse h_m [B, E_m] where bool ``present`` [B, 3] to Z [B, hidden_dim] and outputs [B, O]."""
        shown = [each.where(present[:, m, None], 0.0) for m, each in enumerate(h)]
        Z, outputs = self.fusion(torch.cat(shown, dim=1))
        return Z, outputs

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.fuse(self.embed(batch), batch.present)[1]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, the contrast, L_0, and both parts of the bound with their signs turned."""
        # Embeddings of whole utterances: a modality's embedding depends on that modality alone.
        h, available, groups = self.embed(batch.unmasked()), batch.available, self.entropy_groups(batch.labels)
        Z, outputs = self.fuse([each[batch.row] for each in h], batch.present)
        contrasts = []
        for m, predictor in enumerate(self.predictors.values()):
            shown = batch.present[:, m]
            contrasts.append(info_nce(h[m][batch.row[shown]], predictor(Z[shown])))
        bounds, likelihoods, entropies = [], [], []
        projected: list[tuple[Tensor, Tensor]] = []
        for pair, (name, m) in enumerate(PAIRS.items()):
            both = available[:, TEXT] & available[:, m]
            x, y = h[TEXT][both], h[m][both]
            bound, count = self.bounds[name], max(1, len(x))
            fixed = {key: parameter.detach() for key, parameter in bound.named_parameters()}
            bounds.append(bound(x.detach(), y.detach()).sum() / count)
            likelihoods.append(functional_call(bound, fixed, (x, y)).sum() / count)
            features = self.projections[name](y).tanh()
            projected.append((features.detach(), groups[both]))
            entropies.append(self.entropy(pair, features, groups[both]))
        if self.training:
            self._projected = projected
        return {
            "cls": self.task.loss(outputs, batch.target),
            "cpc": torch.stack(contrasts).sum(),
            "bound": -torch.stack(bounds).sum(),
            "likelihood": -torch.stack(likelihoods).sum(),
            "entropy": -torch.stack(entropies).sum(),
        }

    def entropy_groups(self, label: Tensor) -> Tensor:
        """Int64 [N]: the class of each label, or the sign of its value (0 negative, 1 positive); -1 for neither."""
        if self.task.name == "classification":
            return label
        return torch.where(label > 0, 1, torch.where(label < 0, 0, -1))

    def entropy(self, pair: int, features: Tensor, groups: Tensor) -> Tensor:
        """H of projected rows [n, D] of a pair and those of the batch before, by group [n]."""
        features = torch.cat([features, self.memory[pair].to(features.dtype)])
        return group_entropy(features, torch.cat([groups, self.memory_groups[pair]]), self.groups)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See :class:`~ifmmin.base.MissingModalityModule`; remembers the projected rows for the next step."""
        total = super().training_step(batch, batch_idx)
        self.remember()
        return total

    def remember(self) -> None:
        """Keep the projected rows of the last :meth:`losses` in training, and forget those before."""
        self.memory_groups.fill_(-1)
        for pair, (features, groups) in enumerate(self._projected):
            kept = min(len(features), self.memory.shape[1])
            self.memory[pair, :kept] = features[:kept].to(self.memory.dtype)
            self.memory_groups[pair, :kept] = groups[:kept]
