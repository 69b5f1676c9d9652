"""MMIN, the missing modality imagination network, with and without cycle consistency."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.ranges import BELOW_ONE, COUNT, NOT_EMPTY, NOT_NEGATIVE, WIDTH
from ifmmin.cards import ModelCard
from ifmmin.nn.heads import Classifier
from ifmmin.nn.imagination import ResidualImagination
from ifmmin.nn.initialisation import CascadeInit, initialise
from ifmmin.nn.losses import known_mse
from ifmmin.optimization import Recipe
from ifmmin.pretraining.stage1 import FusionPretraining
from ifmmin.pretraining.stage2 import PretrainedModule

IEMOCAP_RECIPE = Recipe(
    beta1=0.5,
    constant_epochs=30,
    decay_epochs=30,
    options={"lambda_img": 4.0, "lambda_cycle": 2.0, "share_cascades": False},
)
MSP_IMPROV_RECIPE = replace(
    IEMOCAP_RECIPE, learning_rate=5e-4, options={"lambda_img": 2.0, "lambda_cycle": 0.5, "share_cascades": True}
)


class Imagined(NamedTuple):
    """Everything MMIN computes of a batch.

    Attributes:
        embeddings: h [B, 3E], of what is present.
        imagined: h' [B, 3E], the imagined embeddings of the absent part.
        joint: C [B, M * code], the joint representation.
        outputs: [B, O].
    """

    embeddings: Tensor
    imagined: Tensor
    joint: Tensor
    outputs: Tensor


class MMINWithoutCycle(PretrainedModule):
    """MMIN with forward imagination only: the paper's ablation "without cycle".

    Zhao, Li, Jin: "Missing modality imagination network for emotion recognition with uncertain
    missing modalities", ACL 2021.

    The student embeds what is present (h = [h_a; h_v; h_t], an absent modality as zero frames). A
    cascade of residual autoencoders, z_1 = h and z_{i+1} = z_i + φ_i(z_i), imagines what the absent
    modalities would have shown: h' = W₂ ReLU(W₁ z_{M+1} + b₁) + b₂. The codes of the cascade are the
    joint representation C that is classified. Stage 1 (:class:`~ifmmin.pretraining.stage1.FusionPretraining`)
    initialises the encoders and, frozen, teaches what to imagine.

    L = L_cls + λ₁ L_img; L_cls: cross entropy; L_img: mean squared error between h' and the teacher's
    h of the absent part (true frames where a modality is absent, zero frames where it is present).

    Our choices: everything but λ₂ as in :class:`MMIN`, so that the cycle is the only difference; the
    published script for this ablation has other layers and weights than the one for MMIN. In a corpus with gaps a lost
    modality is read as a masked one, and L_img is the mean over the modalities that the corpus has of an utterance.

    Differs from the published code: an absent modality is read as a fixed number of zero frames, not
    of the hidden sequence's length; padding is never read; weight decay has an effect (the published 1e-5 was
    ignored); the best epoch is chosen on validation pooled over the six conditions. Theirs was chosen on the test split
    (AIM3-RUC/MMIN, issue 10), as in IF-MMIN, CIF-MMIN and RedCore, which descend from it: the scripts' ``--has_test
    --verbose`` write test scores over those of validation before the best epoch is recorded. The re-run in that issue
    has WA 62.39, UA 63.46, F1 61.75, pooled.

    What to expect of the cascade: with the published initialisation each φ multiplies the variance of what it reads by
    4, because two of its layers have no activation behind them (:func:`~ifmmin.nn.initialisation.initialise`), so that
    z grows to more than twenty times its scale over five blocks. ``cascade_init="scaled"`` keeps it; it is not known to
    raise accuracy.

    Args:
        lambda_img: λ₁, weight of L_img; None takes the paper's for this corpus (4; MSP-IMPROV 2).
        blocks: M, the number of autoencoders.
        block_dims: widths of their encoder layers; the last is the width of a code.
        cascade_init: ``published``; ``scaled`` has every block begin as the identity, in both cascades of
            :class:`MMIN`.
        hidden_dims: of the classifier.
        dropout: of the classifier.
        **kwargs: of :class:`~ifmmin.pretraining.stage2.PretrainedModule`.
    """

    card = ModelCard(
        "MMIN w/o cycle",
        "MMIN without backward imagination: the paper's ablation",
        "Zhao et al., ACL",
        2021,
        "https://aclanthology.org/2021.acl-long.203/",
        "https://github.com/AIM3-RUC/MMIN",
        "imagination",
        seed=True,
    )
    recipe: ClassVar[Recipe] = IEMOCAP_RECIPE
    recipes: ClassVar[Mapping[str, Recipe]] = {"MSP-IMPROV": MSP_IMPROV_RECIPE}
    stage1 = FusionPretraining
    published_networks: ClassVar[Mapping[str, str]] = {"encoders": "A, V, L", "imagination": "AE", "classifier": "C"}

    def __init__(
        self,
        *,
        lambda_img: Annotated[float, NOT_NEGATIVE] | None = None,
        blocks: Annotated[int, COUNT] = 5,
        block_dims: Annotated[list[int], WIDTH, NOT_EMPTY] = [256, 128, 64],
        cascade_init: CascadeInit = "published",
        hidden_dims: Annotated[list[int], WIDTH] = [128, 128],
        dropout: Annotated[float, BELOW_ONE] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.imagination = ResidualImagination(3 * self.encoders.embedding_dim, block_dims, blocks)
        self.classifier = Classifier(self.imagination.joint_dim, self.task.outputs, hidden_dims, dropout)
        self.loss_weights = {"img": self.option("lambda_img", lambda_img)}
        self.cascade_init = cascade_init
        initialise(self, cascade_init)

    def imagine(self, batch: Batch) -> Imagined:
        """Run the student on what is present in each row."""
        h = self.encoders(batch).flatten(1)
        imagined, joint = self.imagination(h)
        return Imagined(h, imagined, joint, self.classifier(joint))

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Imagined h' and the teacher's h of the complete utterances, each [B, 3, E]."""
        true = self.teacher.targets(batch)
        return self.imagine(batch).imagined.view_as(true), true

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.imagine(batch).outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls and L_img."""
        return self.forward_losses(batch, self.imagine(batch))

    def forward_losses(self, batch: Batch, out: Imagined) -> dict[str, Tensor]:
        """The losses of what was imagined of ``batch``: L_cls and L_img."""
        h_absent = self.teacher.absent_part(batch)
        img = known_mse(out.imagined.view_as(h_absent), h_absent, batch.available[batch.row])
        return {"cls": self.task.loss(out.outputs, batch.target), "img": img}


class MMIN(MMINWithoutCycle):
    """MMIN: forward imagination of the absent modalities, and backward imagination of the present.

    Zhao, Li, Jin: "Missing modality imagination network for emotion recognition with uncertain
    missing modalities", ACL 2021.

    The student embeds what is present (h) and a cascade of residual autoencoders imagines what is
    absent (h'), as in :class:`MMINWithoutCycle`. A second cascade of the same form, run on h', must
    lead back to h; it is used in training only. The codes of the first are what is classified.

    L = L_cls + λ₁ L_img + λ₂ L_cycle; L_cls: cross entropy; L_img: mean squared error between h' and
    the teacher's h of the absent part; L_cycle: between h and the second cascade's output, where h
    counts as given (no gradient). IEMOCAP: λ₁ = 4, λ₂ = 2, learning rate 2e-4. MSP-IMPROV: λ₁ = 2,
    λ₂ = 0.5, learning rate 5e-4, and the two cascades share their weights. Both: batch 128, 30+30
    epochs, dropout 0.5, β₁ 0.5, gradients clipped to 1 per sub-network.

    Our choices: another corpus than these two gets IEMOCAP's settings. Gaps are those of :class:`MMINWithoutCycle`;
    L_cycle is over all of h there too, since h is what the student read of a lost modality as of a masked one.

    Differs from the published code: see :class:`MMINWithoutCycle`.

    What to expect of the cycle: with the published initialisation z grows through two cascades, L_cycle starts in the
    millions, and the first steps push every ReLU of the second cascade's head below zero: from some 50 steps on it
    answers with a constant, and the gradient of L_cycle outside its own cascade is exactly 0. With
    ``cascade_init="scaled"`` L_cycle starts at about the variance of h, and the cycle teaches.

    Args:
        lambda_cycle: λ₂, weight of L_cycle; None takes the paper's for this corpus (2; MSP-IMPROV 0.5).
        share_cascades: one cascade for both directions; None takes the paper's for this corpus
            (False; MSP-IMPROV True).
        **kwargs: of :class:`MMINWithoutCycle`.
    """

    card = replace(MMINWithoutCycle.card, title="MMIN", summary="imagines what is missing, and back again")
    published_networks: ClassVar[Mapping[str, str]] = {**MMINWithoutCycle.published_networks, "cycle": "AE_cycle"}
    # Shared cascades are released as one network, and so is a model without cycle.
    optional_networks: ClassVar[tuple[str, ...]] = ("cycle",)

    def __init__(
        self,
        *,
        lambda_cycle: Annotated[float, NOT_NEGATIVE] | None = None,
        share_cascades: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.loss_weights["cycle"] = self.option("lambda_cycle", lambda_cycle)
        self.share_cascades = self.option("share_cascades", share_cascades)
        if not self.share_cascades:
            self.cycle = copy.deepcopy(self.imagination)
            initialise(self.cycle, self.cascade_init)

    def imagine_back(self, imagined: Tensor) -> Tensor:
        """Imagine h [B, 3E] of the present modalities from the imagined h' [B, 3E]."""
        cascade = self.imagination if self.share_cascades else self.cycle
        back: Tensor = cascade(imagined)[0]
        return back

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, L_img and L_cycle."""
        out = self.imagine(batch)
        cycle = F.mse_loss(self.imagine_back(out.imagined), out.embeddings.detach())
        return {**self.forward_losses(batch, out), "cycle": cycle}

    @classmethod
    def published_settings(cls, parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """As shapes tell, and whether there is a cascade for each direction."""
        return super().published_settings(parts) | {"share_cascades": "cycle" not in parts}
