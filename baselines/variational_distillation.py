"""VariationalDistillation: codes that tell what their observations tell, and a part that tells what the whole does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.ranges import BELOW_ONE, NOT_EMPTY, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.distillation import (
    cross_distillation,
    full_to_partial,
    jensen_shannon,
    mutual_learning,
    self_distillation,
    symmetric,
)
from ifmmin.nn.encoders import ModalityEncoders, SequenceEncoder
from ifmmin.nn.heads import Classifier
from ifmmin.nn.normalisation import BatchNorm
from ifmmin.optimization import Recipe
from ifmmin.tasks import Classification

Mutual = Literal["jensen_shannon", "symmetric"]
"""Distance of two answers."""


def bottleneck(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers through ``widths``, with batch normalisation and ReLU after each but the last."""
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), BatchNorm(wide), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


def code_head(code_dim: int, head_dim: int, outputs: int, dropout: float) -> nn.Sequential:
    """Linear, batch normalisation, LeakyReLU, dropout, linear."""
    return nn.Sequential(
        nn.Linear(code_dim, head_dim),
        BatchNorm(head_dim),
        nn.LeakyReLU(0.1),
        nn.Dropout(dropout),
        nn.Linear(head_dim, outputs),
    )


class Read(NamedTuple):
    """Everything that is computed of each modality; zeros where it is absent.

    Attributes:
        observations: v [B, 3, E].
        codes: z [B, 3, Z].
        observed: outputs [B, 3, O] from v.
        compressed: outputs [B, 3, O] from z.
    """

    observations: Tensor
    codes: Tensor
    observed: Tensor
    compressed: Tensor


class VariationalDistillation(MissingModalityModule):
    r"""Distil what an observation tells of the label into its code, into other modalities' codes, and into parts.

    Tian, Zhang, Lin, Qu, Xie, Ma: "Farewell to mutual information: variational distillation for cross-modal person
    re-identification", CVPR 2021.

    An encoder gives the observation v_m of modality m, a bottleneck its code z_m, and either has a head p(y|·). Three
    losses keep in a code what tells of the label and, between modalities, only what both tell
    (:mod:`ifmmin.nn.distillation`); a fourth, ours, does the same for missing modalities. The answer is that of a
    classifier that reads the codes of what is present, zeros where a modality is absent.

    .. math::
        L = L_{cls} + L_{complete} + L_{alone} + λ_{vsd} KL(sg\,p(y|v_m) \| p(y|z_m))
            + λ_{vcd} KL(sg\,p(y|v_i) \| p(y|z_j)) + λ_{vml} JS(p(y|z_i), p(y|z_j))
            + λ_{partial} KL(sg\,p(y|\mathrm{complete}) \| p(y|\mathrm{condition}))

    L_cls and L_complete: the task's loss of the answer under the mask, and to the whole utterance; L_alone: the sum of
    that of both heads, a mean over modalities. All λ = 1; VSD is a mean over modalities, VCD and VML over pairs of
    them. Of a regression, each divergence is the absolute difference of the values. Any model can add these losses:
    see "Distillation as a further loss" in the guide for authors.

    Our choices: person re-identification has two cameras, both there in training and one in the test; here there are
    three modalities, a classifier of all codes, and KL from complete to condition; v_m of MMIN's encoders, 128 wide;
    bottleneck 256-128-128 and heads of 128, where the paper has 1000-500-512 and heads as wide as its hundreds of
    classes; in a corpus with gaps each term is over the rows that have what it compares, and complete means all that
    there is; learning rate 2e-4, batch 128, 15+15 epochs, of which it needs the first few on a small corpus.

    Differs from the published code (FutabaSakuraXD/Farewell-to-Mutual-Information-…, no licence): KL is that of the
    paper, where theirs gives probabilities to a function that wants logarithms, in the wrong order, averaged over
    classes too; VML as in the paper, where theirs has a Sinkhorn distance between p(y|v) of both; no triplet loss and
    no label smoothing; weights of 1, where theirs are 2, 2 and 8.

    Published figures: of person re-identification; nothing to compare with.

    Args:
        embedding_dim: E, width of v.
        bottleneck_dims: hidden widths of the bottleneck.
        code_dim: Z, width of z.
        head_dim: hidden width of p(y|z).
        head_dropout: of p(y|z).
        lambda_vsd: λ_vsd.
        lambda_vcd: λ_vcd.
        lambda_vml: λ_vml.
        lambda_partial: λ_partial.
        mutual: distance of VML; ``symmetric`` is half of either KL.
        hidden_dims: of the classifier.
        dropout: of the classifier.
        text_channels: output channels of each convolution over text.
        text_dropout: of the text's encoder.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    card = ModelCard(
        "Variational distillation",
        "distils what modalities tell into codes of each other, and the complete answer into the partial one",
        "VSD, VCD and VML of Tian et al., CVPR",
        2021,
        "https://arxiv.org/abs/2104.02862",
        "https://github.com/FutabaSakuraXD/Farewell-to-Mutual-Information-Variational-Distiilation-for-Cross-Modal-"
        "Person-Re-identification",
        "alignment",
    )
    recipe: ClassVar[Recipe] = Recipe(constant_epochs=15, decay_epochs=15)

    def __init__(
        self,
        *,
        embedding_dim: Annotated[int, WIDTH] = 128,
        bottleneck_dims: Annotated[list[int], WIDTH, NOT_EMPTY] = [256, 128],
        code_dim: Annotated[int, WIDTH] = 128,
        head_dim: Annotated[int, WIDTH] = 128,
        head_dropout: Annotated[float, BELOW_ONE] = 0.5,
        lambda_vsd: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_vcd: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_vml: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_partial: Annotated[float, NOT_NEGATIVE] = 1.0,
        mutual: Mutual = "jensen_shannon",
        hidden_dims: Annotated[list[int], WIDTH] = [128, 128],
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        outputs = self.task.outputs
        self.encoders = ModalityEncoders.of_present(self.feature_dims, embedding_dim, text_channels, text_dropout)
        widths = [embedding_dim, *bottleneck_dims, code_dim]
        self.bottlenecks = nn.ModuleDict({name: bottleneck(widths) for name in MODALITIES})
        self.observation_heads = nn.ModuleDict({name: nn.Linear(embedding_dim, outputs) for name in MODALITIES})
        self.code_heads = nn.ModuleDict(
            {name: code_head(code_dim, head_dim, outputs, head_dropout) for name in MODALITIES}
        )
        self.classifier = Classifier(len(MODALITIES) * code_dim, outputs, hidden_dims, dropout)
        # Of values there is no Jensen-Shannon divergence.
        self.jensen_shannon = mutual == "jensen_shannon" and isinstance(self.task, Classification)
        self.loss_weights = {"vsd": lambda_vsd, "vcd": lambda_vcd, "vml": lambda_vml, "partial": lambda_partial}

    def readers(self) -> Iterator[tuple[SequenceEncoder, nn.Module, nn.Module, nn.Module]]:
        """Encoder, bottleneck and both heads of audio, visual and text."""
        for name, encoder in zip(MODALITIES, self.encoders.encoders(), strict=True):
            yield encoder, self.bottlenecks[name], self.observation_heads[name], self.code_heads[name]

    def read(self, batch: Batch) -> Read:
        """Read what is present in each row; each stored utterance once per modality."""
        columns = []
        for modality, (encoder, compress, observe, tell) in enumerate(self.readers()):
            seen = visible(batch, modality)
            # A modality that nobody shows is run on zeros, so that its parameters have a gradient.
            v = encoder(seen.frames, seen.lengths) if len(seen.lengths) else encoder(*encoder.zero_frames())
            z = compress(v)
            columns.append([seen.spread(values) for values in (v, z, observe(v), tell(z))])
        return Read(*(torch.stack(parts, dim=1) for parts in zip(*columns, strict=True)))

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        outputs: Tensor = self.classifier(self.read(batch).codes.flatten(1))
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, L_complete, L_alone, and the four terms of distillation."""
        whole, row, targets = batch.unmasked(), batch.row, batch.targets
        read, known, follow = self.read(whole), whole.present, self.task.distillation
        distance = jensen_shannon if self.jensen_shannon else symmetric(follow)
        partial = self.classifier(read.codes[row].where(batch.present[..., None], 0.0).flatten(1))
        complete = self.classifier(read.codes.flatten(1))
        alone = [
            self.loss_over(known[:, m], outputs[:, m], targets)
            for outputs in (read.observed, read.compressed)
            for m in range(len(MODALITIES))
        ]
        return {
            "cls": self.task.loss(partial, batch.target),
            "complete": self.task.loss(complete, targets),
            "alone": torch.stack(alone).sum() / len(MODALITIES),
            "vsd": self_distillation(follow, read.observed, read.compressed, known),
            "vcd": cross_distillation(follow, read.observed, read.compressed, known),
            "vml": mutual_learning(distance, read.compressed, known),
            "partial": full_to_partial(follow, partial, complete[row]),
        }

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Observations v [B, 3, E]; zeros where absent."""
        return self.read(batch).observations

    def invariant_features(self, batch: Batch) -> Tensor:
        """Codes z [B, 3, Z]; zeros where absent."""
        return self.read(batch).codes
