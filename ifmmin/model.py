"""IF-MMIN: the invariant-feature missing modality imagination network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.ranges import BELOW_ONE, COUNT, NOT_EMPTY, NOT_NEGATIVE, WIDTH
from ifmmin.cards import ModelCard
from ifmmin.checkpoints.parts import load_part
from ifmmin.nn.heads import Classifier, InvarianceActivation, InvarianceEncoder
from ifmmin.nn.imagination import CascadeForm, InvariantImagination
from ifmmin.nn.initialisation import CascadeInit, initialise
from ifmmin.nn.losses import known_mse
from ifmmin.optimization import Recipe
from ifmmin.pretraining.stage1 import InvariantPretraining
from ifmmin.pretraining.stage2 import PretrainedModule


class Imagined(NamedTuple):
    """Everything IF-MMIN computes of a batch.

    Attributes:
        invariant: H' [B, 3E], the predicted invariant features.
        imagined: h' [B, 3E], the imagined embeddings of the absent modalities.
        joint: C [B, M * code], the joint representation.
        outputs: [B, O].
    """

    invariant: Tensor
    imagined: Tensor
    joint: Tensor
    outputs: Tensor


class IFMMIN(PretrainedModule):
    """IF-MMIN, stage 2.

    Zuo, Liu, Zhao, Gao, Li: "Exploiting modality-invariant feature for robust multimodal emotion
    recognition with missing modalities", ICASSP 2023.

    The student embeds what is present (h), predicts modality-invariant features from it (H') and
    imagines what the absent modalities would have shown (h') with a cascade of autoencoders that is
    given H' at every step. The codes of the cascade are the joint representation that is classified.
    The frozen stage-1 model teaches both: L = L_cls + λ₁ L_img + λ₂ L_inv (equations 2 to 5).

    Our choices: in a corpus with gaps both stages read a modality that the corpus lacks as one that is masked; L_img
    and L_inv are the means over the modalities that the corpus has of an utterance.

    Differs from the published code: an absent modality is read as a fixed number of zero frames, not
    of the hidden sequence's length; padding is never read; weight decay has an effect; the best epoch is chosen on
    validation. Theirs was chosen on the test split, as in MMIN, CIF-MMIN and RedCore: the scripts' ``--has_test
    --verbose`` write test scores over those of validation before the best epoch is recorded.

    Unknown: what the paper's numbers were made with. λ₂ = 100 is the paper's; the public script of stage 2 passes it by
    a flag that its model does not define, and stops, and the model's own flag defaults to 1. The shared encoder has a
    form for each name of a run (:class:`~ifmmin.nn.heads.InvarianceEncoder`). The cascade was rewritten after the first
    release (``cascade_form``). The defaults here are the paper's λ₂, the form without a name, and today's cascade.

    What to expect of the mechanisms: H shrinks in scale in stage 1 unless its discrepancy is bounded
    (:class:`~ifmmin.pretraining.stage1.InvariantPretraining`). L_inv cannot teach what is absent, even with a live H:
    H' of an absent modality is the encoding of zero frames, one constant, and half of the slots are absent, so that
    L_inv never falls below half the variance of the teacher's H. Each block multiplies the variance of what it reads by
    4 with the published initialisation (:func:`~ifmmin.nn.initialisation.initialise`). ``pretraining={"discrepancy":
    "bounded"}`` and ``cascade_init="scaled"`` undo the first and the last; neither is known to raise accuracy.

    Args:
        lambda_img: λ₁, weight of L_img.
        lambda_inv: λ₂, weight of L_inv; 0 is the ablation without invariance loss.
        blocks: M, the number of autoencoders.
        block_dims: widths of their encoder layers; the last is the width of a code.
        cascaded_input: give H' to every autoencoder; False is the ablation that gives it to the first only.
        cascade_form: ``chained``, where each block reads the last one's output; ``accumulated``, as first released:
            block i reads h + i H', and the head the last block's input and output, added; ``summed``, CIF-MMIN's:
            chained, with that head.
        cascade_init: ``published``; ``scaled`` keeps the scale through the blocks.
        hidden_dims: of the classifier.
        dropout: of the classifier.
        invariance_dropout: of the invariance encoder, after each activation; stage 1 has the same unless
            ``pretraining`` gives another.
        invariance_layers: its number of linear layers, in both stages; the public code has 1, 2 or 4.
        invariance_activation: LeakyReLU after each of them, or a sigmoid after each but the last.
        **kwargs: of :class:`~ifmmin.pretraining.stage2.PretrainedModule`; stage 1's own options, such as its
            discrepancy, go into ``pretraining``.
    """

    card = ModelCard(
        "IF-MMIN",
        "imagines what is missing from modality-invariant features",
        "Zuo et al., ICASSP",
        2023,
        "https://arxiv.org/abs/2210.15359",
        "https://github.com/ZhuoYulang/IF-MMIN",
        "imagination",
        seed=True,
    )
    recipe: ClassVar[Recipe] = Recipe(beta1=0.5)
    stage1 = InvariantPretraining
    stage1_parts: ClassVar[tuple[str, ...]] = ("encoders", "invariance")
    published_networks: ClassVar[Mapping[str, str]] = {
        "encoders": "A, V, L",
        "invariance": "Shared",
        "imagination": "IFIM",
        "classifier": "C",
    }

    def __init__(
        self,
        *,
        lambda_img: Annotated[float, NOT_NEGATIVE] = 1.0,
        lambda_inv: Annotated[float, NOT_NEGATIVE] = 100.0,
        blocks: Annotated[int, COUNT] = 5,
        block_dims: Annotated[list[int], WIDTH, NOT_EMPTY] = [256, 128, 64],
        cascaded_input: bool = True,
        cascade_form: CascadeForm = "chained",
        cascade_init: CascadeInit = "published",
        hidden_dims: Annotated[list[int], WIDTH] = [128, 128],
        dropout: Annotated[float, BELOW_ONE] = 0.5,
        invariance_dropout: Annotated[float, BELOW_ONE] = 0.0,
        invariance_layers: Annotated[int, COUNT] = 2,
        invariance_activation: InvarianceActivation = "leaky_relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        width = self.encoders.embedding_dim
        self.invariance = InvarianceEncoder(width, invariance_dropout, invariance_layers, invariance_activation)
        self.imagination = InvariantImagination(3 * width, block_dims, blocks, cascaded_input, cascade_form)
        self.classifier = Classifier(self.imagination.joint_dim, self.task.outputs, hidden_dims, dropout)
        # Without dropout: a teacher answers alike every time.
        frozen = InvarianceEncoder(width, 0.0, invariance_layers, invariance_activation)
        self.teacher_invariance = frozen.requires_grad_(False)
        self.loss_weights = {"img": lambda_img, "inv": lambda_inv}
        initialise(self, cascade_init)

    def imagine(self, batch: Batch) -> Imagined:
        """Run the student on what is present in each row."""
        h = self.encoders(batch)
        H = self.invariance(h).flatten(1)
        imagined, joint = self.imagination(h.flatten(1), H)
        return Imagined(H, imagined, joint, self.classifier(joint))

    def invariant_features(self, batch: Batch) -> Tensor:
        """Predict H' [B, 3, E] from what is present in each row."""
        H: Tensor = self.invariance(self.encoders(batch))
        return H

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Imagined h' and the teacher's h of the complete utterances, each [B, 3, E]."""
        true = self.teacher.targets(batch)
        return self.imagine(batch).imagined.view_as(true), true

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.imagine(batch).outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, L_img (equation 4) and L_inv (equation 5)."""
        out = self.imagine(batch)
        h_absent, known = self.teacher.absent_part(batch), batch.available[batch.row]
        with torch.no_grad():
            H_complete = self.teacher_invariance(self.teacher.targets(batch))
        return {
            "cls": self.task.loss(out.outputs, batch.target),
            "img": known_mse(out.imagined.view_as(h_absent), h_absent, known),
            "inv": known_mse(out.invariant.view_as(H_complete), H_complete, known),
        }

    def load_stage1(self, parts: Mapping[str, Mapping[str, Tensor]], source: str = "stage 1") -> None:
        """See :meth:`~ifmmin.pretraining.stage2.PretrainedModule.load_stage1`."""
        super().load_stage1(parts, source)
        load_part(self.teacher_invariance, parts["invariance"], f"{source}: invariance")
