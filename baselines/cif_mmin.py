"""CIF-MMIN: modality-invariant features by contrast, from encoders of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.ranges import BELOW_ONE, COUNT, NOT_EMPTY, NOT_NEGATIVE, POSITIVE, WIDTH
from ifmmin.cards import ModelCard
from ifmmin.fusion import EmbeddingModule
from ifmmin.nn.encoders import LSTMEncoder, ModalityEncoders, SequenceEncoder
from ifmmin.nn.heads import Classifier
from ifmmin.nn.imagination import InvariantImagination
from ifmmin.nn.initialisation import CascadeInit, initialise
from ifmmin.nn.losses import decoupled_contrast, known_mse
from ifmmin.optimization import Recipe
from ifmmin.pretraining.stage1 import Pretraining
from ifmmin.pretraining.stage2 import PretrainedModule

CONTRAST_SCALE = math.e
"""s of the contrast. The published code starts its logarithm at 1, and has it in no optimiser."""

PAIRS: dict[str, tuple[int, int, float]] = {"at": (0, 2, 0.25), "vt": (1, 2, 0.25), "av": (0, 1, 0.5)}
"""Modalities of each contrast, and its weight."""


class TwoEncoders(SequenceEncoder):
    """A modality's own embedding h_m and its invariant features H_m, of two encoders of the same frames.

    Args:
        specific: gives h_m [E].
        invariant: gives H_m [E].
    """

    def __init__(self, specific: SequenceEncoder, invariant: LSTMEncoder) -> None:
        width = specific.embedding_dim
        super().__init__(specific.input_dim, width + invariant.embedding_dim, specific.absent_frames)
        self.specific, self.invariant, self.width = specific, invariant, width

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`; H_m comes first."""
        return torch.cat([self.invariant.pool(frames, lengths), self.specific.pool(frames, lengths)], dim=1)

    def pool_with_absent(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        parts = (self.invariant, self.specific)
        return torch.cat([part.pool_with_absent(frames, lengths) for part in parts], dim=1)

    def pool_absent(self) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        return torch.cat([self.invariant.pool_absent(), self.specific.pool_absent()], dim=1)

    def head(self, pooled: Tensor) -> Tensor:
        """[h_m; H_m] of what was pooled."""
        invariant, specific = pooled.tensor_split([self.invariant.embedding_dim], dim=1)
        return torch.cat([self.specific.head(specific), self.invariant.head(invariant)], dim=1)


class TwoEncodersModule(EmbeddingModule):
    """Base of both stages: encoders of h and of H.

    Args:
        **kwargs: of :class:`~ifmmin.fusion.EmbeddingModule`.
    """

    def new_encoders(self) -> ModalityEncoders:
        """Make encoders of this model's sizes, with weights of their own."""
        specific = super().new_encoders()
        return ModalityEncoders(
            [
                TwoEncoders(each, LSTMEncoder(each.input_dim, each.embedding_dim, absent_frames=each.absent_frames))
                for each in specific.encoders()
            ]
        )

    def subnetworks(self) -> Iterator[tuple[str, nn.Module]]:
        """Both encoders of each modality are clipped separately, as in the published code."""
        for name, part in super().subnetworks():
            if isinstance(part, TwoEncoders):
                yield f"{name}.specific", part.specific
                yield f"{name}.invariant", part.invariant
            else:
                yield name, part

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute h and H, each [B, 3, E], of what is present in each row."""
        h, H = self.encoders(batch).chunk(2, dim=2)
        return h, H

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute h [B, 3, E]; of an absent modality the embedding of zero frames."""
        return self.embed(batch)[0]

    def invariant_features(self, batch: Batch) -> Tensor:
        """Compute H [B, 3, E]; of an absent modality the features of zero frames."""
        return self.embed(batch)[1]


class ContrastivePretraining(TwoEncodersModule, Pretraining):
    r"""Stage 1 of CIF-MMIN: cross entropy on classifier(h), and a contrast between the modalities of H.

    Liu, Zuo, Lian, Schuller, Li: "Contrastive learning based modality-invariant feature acquisition for robust
    multimodal emotion recognition with missing modalities", IEEE Transactions on Affective Computing, 2024.

    The encoders of MMIN give h; three LSTMs of their own, max over time, give H. With g_m a head for each modality,

    .. math::
        L = L_{cls}(\mathrm{classifier}(h)) + \tfrac14 N(g_t(H_t), g_a(H_a)) + \tfrac14 N(g_t(H_t), g_v(H_v))
            + \tfrac12 N(g_v(H_v), g_a(H_a))

    with N the :func:`~ifmmin.nn.losses.decoupled_contrast` over the utterances of a batch, and g linear, LeakyReLU,
    LayerNorm, linear, LeakyReLU. No classifier reads H: the contrast trains the LSTMs of H alone, cross entropy the
    encoders of h alone. Batch 64, learning rate 2e-4 (MSP-IMPROV 5e-4), 30+10 epochs, dropout 0.3, β₁ 0.9, gradients
    clipped to 0.5 per sub-network.

    Our choices: N is taken over the utterances that have both modalities.

    Differs from the published code: the scale s = e of the contrast is a constant with a name, where theirs is a
    parameter that no optimiser has; padding is never read; the best epoch is chosen on validation, not on test.

    Args:
        contrast_scale: s.
        learn_scale: train the logarithm of s, which starts at that of ``contrast_scale``.
        hidden_dims: of the classifier.
        dropout: of the classifier.
        **kwargs: of :class:`~ifmmin.fusion.EmbeddingModule`.
    """

    card = ModelCard(
        "CIF-MMIN, stage 1",
        "modality-invariant features by contrast on complete data, from which CIF-MMIN starts",
        "Liu et al., TAC",
        2024,
        "https://ieeexplore.ieee.org/document/10474146",
        "https://github.com/ZhuoYulang/CIF-MMIN",
        "pretraining",
    )
    recipe: ClassVar[Recipe] = replace(Pretraining.recipe, batch_size=64, constant_epochs=30)
    recipes: ClassVar[Mapping[str, Recipe]] = {"MSP-IMPROV": replace(recipe, learning_rate=5e-4)}

    def __init__(
        self,
        *,
        contrast_scale: Annotated[float, POSITIVE] = CONTRAST_SCALE,
        learn_scale: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        width = self.encoders.embedding_dim // 2
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(width, width),
                    nn.LeakyReLU(0.01),
                    nn.LayerNorm(width),
                    nn.Linear(width, width),
                    nn.LeakyReLU(0.01),
                )
                for name in MODALITIES
            }
        )
        self.scale = nn.ParameterDict(
            {"log": nn.Parameter(torch.tensor(math.log(contrast_scale)), requires_grad=learn_scale)}
        )
        self.loss_weights = {name: weight for name, (_, _, weight) in PAIRS.items()}
        initialise(self)

    @staticmethod
    def fused_dim(embedding_dim: int) -> int:
        """Width of h, which is half of what the encoders give."""
        return 3 * embedding_dim // 2

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O] = classifier(h)."""
        outputs: Tensor = self.classifier(self.embed(batch)[0].flatten(1))
        return outputs

    def contrasts(self, H: Tensor, known: Tensor) -> dict[str, Tensor]:
        """N of each pair of modalities, of H [B, 3, E], over the rows that have both by ``known``, bool [B, 3]."""
        shared = [head(H[:, m]) for m, head in enumerate(self.heads.values())]
        scale = self.scale["log"].exp()
        both = {name: known[:, m] & known[:, n] for name, (m, n, _) in PAIRS.items()}
        return {
            name: decoupled_contrast(shared[m][both[name]], shared[n][both[name]], scale)
            for name, (m, n, _) in PAIRS.items()
        }

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the task's loss, and the contrast of each pair, on complete utterances."""
        whole = batch.unmasked()
        h, H = self.embed(whole)
        return {
            "cls": self.task.loss(self.classifier(h.flatten(1)), batch.targets),
            **self.contrasts(H, whole.present),
        }


class Imagined(NamedTuple):
    """Everything CIF-MMIN computes of a batch.

    Attributes:
        embeddings: h [B, 3E], of what is present.
        invariant: H' [B, 3E], the invariant features of what is present.
        imagined: h' [B, 3E], the imagined embeddings of the absent modalities.
        outputs: [B, O].
    """

    embeddings: Tensor
    invariant: Tensor
    imagined: Tensor
    outputs: Tensor


class CIFMMIN(TwoEncodersModule, PretrainedModule):
    """CIF-MMIN, stage 2.

    Liu, Zuo, Lian, Schuller, Li: "Contrastive learning based modality-invariant feature acquisition for robust
    multimodal emotion recognition with missing modalities", IEEE Transactions on Affective Computing, 2024.

    IF-MMIN with three differences. Invariant features H' come from encoders of their own, which read the frames of what
    is present, and stage 1 (:class:`ContrastivePretraining`) trains them by contrast between modalities. The head of
    the cascade reads what the last autoencoder reads and what it gives, added. What is classified is h + h', the
    embeddings and what was imagined, and not the codes of the cascade. Stage 1 initialises both kinds of encoders and,
    frozen, teaches.

    L = L_cls + λ₁ L_img + λ₂ L_inv, λ₁ = 8, λ₂ = 100; L_cls: cross entropy; L_img: mean squared error between h' and
    the teacher's h of the absent part; L_inv: between H' and the teacher's H of the complete utterance. Batch 64,
    learning rate 2e-4 (MSP-IMPROV 5e-4), 20+20 epochs, dropout 0.5, β₁ 0.5, gradients clipped to 1 per sub-network.

    Our choices: both errors are averaged over the modalities that the corpus has of each utterance.

    Differs from the published code (MIT): H' of text is the maximum over time, as its teacher's is, where theirs is
    the last state, so that its term compares unlike things; an absent modality is read as a fixed number of zero
    frames, not of the hidden sequence's length; padding is never read; weight decay has an effect; MSP-IMPROV is
    normalised by the training utterances; stages and teacher are selected on validation, where the scripts'
    ``--has_test --verbose`` select on test.

    Published figures: the board has rows of the authors' plotting script on IEMOCAP, six conditions, our features and
    folds; selected on test. No table of the paper could be read.

    Args:
        lambda_img: λ₁, weight of L_img.
        lambda_inv: λ₂, weight of L_inv.
        blocks: M, the number of autoencoders.
        block_dims: widths of their encoder layers.
        cascade_init: ``published``; ``scaled`` keeps the scale through the blocks.
        hidden_dims: of the classifier.
        dropout: of the classifier.
        **kwargs: of :class:`~ifmmin.pretraining.stage2.PretrainedModule`; the contrast's options go into
            ``pretraining``.
    """

    card = ModelCard(
        "CIF-MMIN",
        "imagines what is missing from invariant features that a contrast has taught",
        "Liu et al., TAC",
        2024,
        "https://ieeexplore.ieee.org/document/10474146",
        "https://github.com/ZhuoYulang/CIF-MMIN",
        "imagination",
    )
    recipe: ClassVar[Recipe] = Recipe(beta1=0.5, batch_size=64)
    recipes: ClassVar[Mapping[str, Recipe]] = {"MSP-IMPROV": replace(recipe, learning_rate=5e-4)}
    stage1 = ContrastivePretraining

    def __init__(
        self,
        *,
        lambda_img: Annotated[float, NOT_NEGATIVE] = 8.0,
        lambda_inv: Annotated[float, NOT_NEGATIVE] = 100.0,
        blocks: Annotated[int, COUNT] = 5,
        block_dims: Annotated[list[int], WIDTH, NOT_EMPTY] = [256, 128, 64],
        cascade_init: CascadeInit = "published",
        hidden_dims: Annotated[list[int], WIDTH] = [128, 128],
        dropout: Annotated[float, BELOW_ONE] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        width = 3 * self.encoders.embedding_dim // 2
        self.imagination = InvariantImagination(width, block_dims, blocks, form="summed")
        self.classifier = Classifier(width, self.task.outputs, hidden_dims, dropout)
        self.loss_weights = {"img": lambda_img, "inv": lambda_inv}
        initialise(self, cascade_init)

    def imagine(self, batch: Batch) -> Imagined:
        """Run the student on what is present in each row."""
        h, H = (part.flatten(1) for part in self.embed(batch))
        imagined, _ = self.imagination(h, H)
        return Imagined(h, H, imagined, self.classifier(h + imagined))

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Imagined h' and the teacher's h of the complete utterances, each [B, 3, E]."""
        true = self.teacher.targets(batch).chunk(2, dim=2)[0]
        return self.imagine(batch).imagined.view_as(true), true

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.imagine(batch).outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, L_img and L_inv."""
        out = self.imagine(batch)
        h_absent, _ = self.teacher.absent_part(batch).chunk(2, dim=2)
        _, H_complete = self.teacher.targets(batch).chunk(2, dim=2)
        known = batch.available[batch.row]
        return {
            "cls": self.task.loss(out.outputs, batch.target),
            "img": known_mse(out.imagined.view_as(h_absent), h_absent, known),
            "inv": known_mse(out.invariant.view_as(H_complete), H_complete, known),
        }
