"""MoMKE: experts of one modality each, of which every modality reads all, weighted by a router."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES, present_under
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.attention import attend
from ifmmin.optimization import Recipe
from ifmmin.pretraining.stage1 import Stage1Module
from ifmmin.pretraining.stage2 import Stage2Module

Specialist = Literal["a", "v", "t", "av", "at", "vt"]
"""The conditions that MoMKE can be trained for alone."""


def feed_forward(dim: int, outputs: int) -> nn.Sequential:
    """Linear, GELU, linear: [..., dim] to [..., outputs]."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, outputs))


class ExpertLayer(nn.Module):
    """x + y + MLP(y), with y the self-attention of x, without an output projection.

    Args:
        dim: D.
        heads: of the attention; divides D.
        norm_first: normalise what the attention reads; the published layer normalises nothing.
    """

    def __init__(self, dim: int, heads: int, norm_first: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim) if norm_first else nn.Identity()
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.mlp = feed_forward(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [K, S, D] to [K, S, D]."""
        normed = self.norm(x)
        y = attend(self.query(normed), self.key(normed), self.value(normed), self.heads)
        mapped: Tensor = x + y + self.mlp(y)
        return mapped


class ExpertsModule(MissingModalityModule):
    """Base of both stages: tokens of each modality, and an expert for each.

    Args:
        steps: S, to which every sequence is pooled.
        dim: D, the width of a token.
        heads: of each attention; divides D.
        layers: of each expert.
        norm_first: normalise what each attention reads.
        dropout: of the tokens, and before the heads.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    def __init__(
        self,
        *,
        steps: Annotated[int, WIDTH] = 8,
        dim: Annotated[int, WIDTH] = 128,
        heads: Annotated[int, WIDTH] = 2,
        layers: Annotated[int, COUNT] = 4,
        norm_first: bool = False,
        dropout: Annotated[float, BELOW_ONE] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise InputError(f"heads {heads}: it must divide dim {dim}.")
        widths = zip(MODALITIES, self.feature_dims, strict=True)
        self.projections = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in widths})
        self.experts = nn.ModuleDict(
            {name: nn.Sequential(*(ExpertLayer(dim, heads, norm_first) for _ in range(layers))) for name in MODALITIES}
        )
        self.dropout = nn.Dropout(dropout)
        self.steps, self.dim = steps, dim
        self.needs = DataNeeds(steps=steps)

    def tokens(self, batch: Batch, modality: int) -> Tensor:
        """Project the steps of each visible sequence: [K, S, D]; of one sequence of zeros if there is none."""
        seen, projection = visible(batch, modality), self.projections[MODALITIES[modality]]
        if not len(seen.lengths):  # its parameters have a gradient all the same: several devices would wait for it
            steps = seen.frames.new_zeros(1, self.steps, self.feature_dims[modality])
        else:
            steps = pool_steps(seen.frames, seen.lengths, self.steps)
        tokens: Tensor = self.dropout(projection(steps))
        return tokens


class ExpertPretraining(Stage1Module, ExpertsModule):
    """Stage 1 of MoMKE: each expert answers from its own modality.

    Xu, Jiang, Liang: "Leveraging knowledge of modality experts for incomplete multimodal learning", ACM MM 2024.

    L = Σ_m L_m, the task's loss of each modality's answer, on complete data: a linear head reads the mean of an
    expert's tokens. 10+10 epochs; the rest as :class:`MoMKE`.

    Our choices: those of :class:`~ifmmin.pretraining.stage1.Stage1Module`; the mean of the three answers selects the
    epoch of all experts together.

    Args:
        **kwargs: of :class:`ExpertsModule`.
    """

    card = ModelCard(
        "MoMKE, stage 1",
        "an expert for each modality on complete data, from which MoMKE starts",
        "Xu et al., ACM MM",
        2024,
        "https://openreview.net/forum?id=Gt3a8A1wLg",
        "https://github.com/wxxv/MoMKE",
        "pretraining",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=5e-4, weight_decay=1e-5, constant_epochs=10, decay_epochs=10)
    architecture: ClassVar[tuple[str, ...]] = ("steps", "dim", "heads", "layers", "norm_first")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = nn.ModuleDict({name: nn.Linear(self.dim, self.task.outputs) for name in MODALITIES})

    def answers_alone(self, batch: Batch) -> Tensor:
        """Outputs [B, 3, O] of each modality by its own expert; 0 where absent."""
        columns = []
        for m, name in enumerate(MODALITIES):
            known = self.experts[name](self.tokens(batch, m)).mean(dim=1)
            columns.append(visible(batch, m).spread(self.heads[name](self.dropout(known))))
        return torch.stack(columns, dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]: the mean of the answers of what is present."""
        return self.answers_alone(batch).sum(dim=1) / batch.present.sum(dim=1, keepdim=True)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_m of audio, visual and text, each over the utterances that have it."""
        answers, available = self.answers_alone(batch.unmasked()), batch.available
        return {
            name: self.loss_over(available[:, m], answers[:, m], batch.targets) for m, name in enumerate(MODALITIES)
        }


class MoMKE(Stage2Module, ExpertsModule):
    r"""MoMKE, a mixture of modality knowledge experts, as one model for all conditions.

    Xu, Jiang, Liang: "Leveraging knowledge of modality experts for incomplete multimodal learning", ACM MM 2024.

    Each modality has an expert, 4 layers of self-attention, that has learnt to answer from it alone (stage 1,
    :class:`ExpertPretraining`). In stage 2 the tokens x_m of every modality pass all three experts f_n, and a router of
    that modality weights what they give, token by token:

    .. math::
        z_m = \sum_n w_{mn} f_n(x_m), \quad w_m = \mathrm{softmax}(\mathrm{MLP}_m(x_m)), \quad
        u = [z_a; z_v; z_t] + ReLU(W [z_a; z_v; z_t] + b)

    with z_m = 0 where m is absent; a linear head reads the mean of u over the tokens. L = L_cls, the task's loss.

    Our choices: one model of all conditions, where the paper trains one for each; ``condition`` trains such a
    specialist, which answers nothing else, to see what it gains. The tokens are S = 8 pooled steps of one utterance,
    where the paper's are the utterances of a dialogue, so that no other turn is read. D = 128, where the paper has 256,
    which takes three times as long. Dropout 0.5 is of the tokens and before the heads; learning rate 5e-4, where the
    paper has 1e-4 and ten times the epochs, weight decay 1e-5, batch 128, 10+10 epochs of a linear schedule; gradients
    clipped to 1 per sub-network. In a corpus with gaps a lost modality is read as a masked one, and a specialist trains
    on the utterances that have what its condition shows.

    Differs from the published code (no licence): the best epoch is chosen on validation, not on test; an absent
    modality is not computed, where there a softmax over no key at all gives NaN, which is overwritten.

    Published figures: IEMOCAP under six conditions, one model for each, best test epoch, features of wav2vec, DeBERTa
    and MANet with dialogue context, reprinted by PriMD: 71.13 WA in the mean. Not to be compared with ours.

    Args:
        condition: train for this condition alone, and answer nothing else; None trains for all.
        **kwargs: of :class:`ExpertsModule` and :class:`~ifmmin.pretraining.stage2.Stage2Module`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    card = ModelCard(
        "MoMKE",
        "mixes experts of single modalities by a router for each",
        "Xu et al., ACM MM",
        2024,
        "https://openreview.net/forum?id=Gt3a8A1wLg",
        "https://github.com/wxxv/MoMKE",
        "fusion",
    )
    recipe: ClassVar[Recipe] = ExpertPretraining.recipe
    stage1 = ExpertPretraining
    stage1_parts = ("projections", "experts")

    def __init__(self, *, condition: Specialist | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.routers = nn.ModuleDict({name: feed_forward(self.dim, len(MODALITIES)) for name in MODALITIES})
        self.joint = nn.Linear(3 * self.dim, 3 * self.dim)
        self.head = nn.Linear(3 * self.dim, self.task.outputs)
        self.condition = condition
        self.needs = DataNeeds(hidden_frames=condition is not None, steps=self.steps)

    def answers(self, condition: str) -> bool:
        """Every condition, or the one that it is a specialist for."""
        return self.condition in (None, condition)

    def route(self, tokens: Tensor, modality: int) -> Tensor:
        """Weights w_m [K, S, 3] of the experts of audio, visual and text for tokens [K, S, D] of a modality."""
        weights: Tensor = self.routers[MODALITIES[modality]](tokens).softmax(dim=2)
        return weights

    def embed(self, batch: Batch) -> Tensor:
        """Compute z [B, 3, S, D]; 0 where a modality is absent."""
        tokens = [self.tokens(batch, m) for m in range(len(MODALITIES))]
        # Every expert once, on the tokens of all modalities together.
        known = torch.stack([expert(torch.cat(tokens)) for expert in self.experts.values()], dim=3)
        columns = []
        for m, part in enumerate(known.split([len(each) for each in tokens])):
            mixed = (part @ self.route(tokens[m], m)[..., None]).squeeze(3)
            columns.append(visible(batch, m).spread(mixed))
        return torch.stack(columns, dim=1)

    def mix(self, z: Tensor) -> Tensor:
        """U [B, S, 3D] of z [B, 3, S, D]."""
        together = z.transpose(1, 2).flatten(2)
        mixed: Tensor = together + self.joint(together).relu()
        return mixed

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Mean of z over the tokens, [B, 3, D]; 0 where a modality is absent."""
        return self.embed(batch).mean(dim=2)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        outputs: Tensor = self.head(self.dropout(self.mix(self.embed(batch)).mean(dim=1)))
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls under the training mask, or of a specialist under its condition."""
        if self.condition is None:
            return {"cls": self.task.loss(self(batch), batch.target)}
        shown = torch.tensor(present_under(self.condition), device=batch.lengths.device)
        able = (batch.available | ~shown).all(dim=1)
        outputs = self(replace(batch.unmasked(), present=batch.available & shown))
        return {"cls": self.loss_over(able, outputs, batch.targets)}
