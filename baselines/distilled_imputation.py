"""DistilledImputation: a teacher with complete data, and an imputation of what is absent."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, WIDTH, Range
from ifmmin.cards import ModelCard
from ifmmin.checkpoints.parts import load_part
from ifmmin.nn.heads import Classifier
from ifmmin.nn.initialisation import initialise
from ifmmin.optimization import Recipe
from ifmmin.pretraining.stage1 import FusionPretraining
from ifmmin.pretraining.stage2 import PretrainedModule


class Imputed(NamedTuple):
    """Everything DistilledImputation computes of a batch.

    Attributes:
        imputed: h' [B, 3, E], an embedding for each modality, absent or not.
        outputs: [B, O].
    """

    imputed: Tensor
    outputs: Tensor


class DistilledImputation(PretrainedModule):
    r"""Impute the embedding of what is absent, and follow a teacher that sees everything.

    A model of this library. Complete training data make the absent modality privileged information
    (Vapnik and Izmailov, JMLR 2015): a teacher that sees it answers better than the label alone tells, and its
    embedding is a target with less noise than the label. The student uses both.

    Stage 1 (:class:`~ifmmin.pretraining.stage1.FusionPretraining`) gives the student's encoders and, frozen, the
    teacher: encoders and classifier on complete utterances. With h the student's embeddings of what is present, p the
    mask, and μ, σ the mean and standard deviation of the teacher's embeddings over the training utterances, by
    modality and coordinate,

    .. math::
        h' &= μ + σ ⊙ g([h ⊙ p; p]) \\
        ŷ &= \mathrm{classifier}(h \text{ where present, } h' \text{ where absent}) \\
        L &= (1 - α) L_{cls} + α L_{distill} + λ L_{img}

    with L_cls the task's loss, L_distill the loss of following the teacher's complete answer (for classes
    T² KL(teacher ‖ student) at temperature T; Hinton, Vinyals, Dean, 2015), and L_img the mean of
    ((h' − teacher's h)/σ)² over the absent modalities: standardised, so that no coordinate counts for its scale.

    ``alpha`` 0 is imputation alone, ``lambda_img`` 0 distillation alone: the ablations.

    Our choices: all of it. In a corpus with gaps the teacher answers from all that the corpus has of an utterance, as
    its stage 1 learnt to, and L_img is over the modalities that the mask took away, never those that are lost. Batch
    128, learning rate 2e-4, β₁ 0.5, dropout 0.5, 20+20 epochs. α 1 gains most where
    the teacher is good and loses most where it is poor; choose on validation.

    Args:
        alpha: α in [0, 1], the share of the teacher's answer in the loss of the answer.
        lambda_img: λ, weight of L_img.
        temperature: T, at which the teacher is followed.
        imputation_dims: widths of the hidden layers of g; None: two of 3E.
        hidden_dims: of the classifier.
        dropout: of the classifier.
        **kwargs: of :class:`~ifmmin.pretraining.stage2.PretrainedModule`.
    """

    card = ModelCard(
        "Distilled imputation",
        "imputes the embedding of what is absent, and follows a teacher that sees everything",
        family="imagination",
    )
    recipe: ClassVar[Recipe] = Recipe(beta1=0.5)
    stage1 = FusionPretraining

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        alpha: Annotated[float, Range(0, 1)] = 0.5,
        lambda_img: Annotated[float, NOT_NEGATIVE] = 1.0,
        temperature: Annotated[float, POSITIVE] = 2.0,
        imputation_dims: Annotated[list[int], WIDTH] | None = None,
        hidden_dims: Annotated[list[int], WIDTH] = [128, 128],
        dropout: Annotated[float, BELOW_ONE] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        shape = (len(MODALITIES), self.encoders.embedding_dim)
        width = shape[0] * shape[1]
        widths = [width + len(MODALITIES), *([width, width] if imputation_dims is None else imputation_dims)]
        hidden = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), nn.ReLU())]
        last = nn.Linear(widths[-1], width)
        self.imputation = nn.Sequential(*hidden, last)
        self.classifier = Classifier(width, self.task.outputs, hidden_dims, dropout)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        self.temperature = temperature
        self.loss_weights = {"cls": 1 - alpha, "distill": alpha, "img": lambda_img}
        initialise(self)
        # No activation follows: Kaiming's factor of 2 would start h' far from the mean.
        nn.init.normal_(last.weight, std=widths[-1] ** -0.5)
        stage1 = self.stage1_for_a_look()
        assert isinstance(stage1, FusionPretraining)
        self.teacher_classifier = stage1.classifier.requires_grad_(False).eval()

    def impute(self, batch: Batch) -> Imputed:
        """Run the student on what is present in each row."""
        h, present = self.encoders(batch), batch.present[..., None]
        seen = torch.cat([h.where(present, 0.0).flatten(1), batch.present.to(h.dtype)], dim=1)
        imputed = self.mean + self.std * self.imputation(seen).view_as(h)
        return Imputed(imputed, self.classifier(h.where(present, imputed).flatten(1)))

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.impute(batch).outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, L_distill and L_img."""
        out = self.impute(batch)
        true = self.teacher.targets(batch)
        with torch.no_grad():
            answer = self.teacher_classifier(true.flatten(1))
        absent = batch.available[batch.row] & ~batch.present
        errors = ((out.imputed - true) / self.std).square().mean(dim=2)
        return {
            "cls": self.task.loss(out.outputs, batch.target),
            "distill": self.task.distillation(out.outputs, answer, self.temperature),
            "img": (errors * absent).sum() / absent.sum().clamp(min=1),
        }

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Imputed h' and the teacher's h of the complete utterances, each [B, 3, E]."""
        return self.impute(batch).imputed, self.teacher.targets(batch)

    def train(self, mode: bool = True) -> DistilledImputation:
        """Train the student; the teacher's classifier stays in eval mode."""
        super().train(mode)
        self.teacher_classifier.eval()
        return self

    def load_stage1(self, parts: Mapping[str, Mapping[str, Tensor]], source: str = "stage 1") -> None:
        """See :meth:`~ifmmin.pretraining.stage2.PretrainedModule.load_stage1`; the classifier is the teacher's."""
        super().load_stage1(parts, source)
        load_part(self.teacher_classifier, parts["classifier"], f"{source}: classifier")

    def on_train_start(self) -> None:
        """Measure μ and σ of the teacher's embeddings over the training utterances."""
        data = self.datamodule
        batches = self.trainer.train_dataloader if data is None else data.in_order("train")
        assert batches is not None
        mean, std = self.teacher.moments(batches)
        self.mean.copy_(mean)
        self.std.copy_(std)
