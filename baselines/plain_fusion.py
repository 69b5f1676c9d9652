"""Plain fusion baselines: the reference that imagination has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.conditions import COMPLETE
from datamodules.needs import DataNeeds
from ifmmin.cards import ModelCard
from ifmmin.fusion import Fusion
from ifmmin.nn.initialisation import initialise
from ifmmin.optimization import Recipe


class FusionBaseline(Fusion):
    """Encoders and a classifier of h, with as many optimiser steps as MMIN's second stage.

    Args:
        **kwargs: of :class:`~ifmmin.fusion.Fusion`.
    """

    recipe: ClassVar[Recipe] = Recipe(constant_epochs=30, decay_epochs=30, clip_norm=0.5)
    recipes: ClassVar[Mapping[str, Recipe]] = {"MSP-IMPROV": replace(recipe, learning_rate=5e-4)}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        initialise(self)


class ModalityDropout(FusionBaseline):
    """Fusion trained under random masks, with no imagination: the papers' "augmented" baseline.

    Zhao, Li, Jin, ACL 2021, and Zuo et al., ICASSP 2023, compare with it; their code trains it on
    the same masks as MMIN.

    The encoders of MMIN and IF-MMIN embed what is present, an absent modality as zero frames, and a
    classifier reads h = [h_a; h_v; h_t]. There is no stage 1, no teacher and no imagination: what a
    model gains over this one, it gains by them.

    L = L_cls, cross entropy under the training mask. Learning rate 2e-4 (MSP-IMPROV 5e-4), dropout 0.3,
    β₁ 0.9, gradients clipped to 0.5 per sub-network, as in the published configuration.

    Our choices: batch 128 and 30+30 epochs on every corpus, the optimiser steps of MMIN's second stage,
    so that no difference comes from training time; the published 20+20 (MSP-IMPROV: 25+25 at batch 64)
    amount to other budgets than MMIN's. The best epoch is chosen on validation pooled over the six
    conditions, as for every model.

    Differs from the published code: Kaiming initialisation as in the other models, not normal; an
    absent modality is read as a fixed number of zero frames, and padding is never read.
    """

    card = ModelCard(
        "Modality dropout",
        "plain fusion trained under random masks: what is reached without imagining anything",
        'the "augmented" baseline of Zhao et al., ACL',
        2021,
        "https://aclanthology.org/2021.acl-long.203/",
        "https://github.com/AIM3-RUC/MMIN",
        "fusion",
    )
    needs = DataNeeds(hidden_frames=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy under the training mask."""
        return {"cls": self.task.loss(self(batch), batch.target)}


class CompleteFusion(FusionBaseline):
    """Fusion trained on complete data and tested with modalities missing: the papers' "full" baseline.

    Zhao, Li, Jin, ACL 2021, and Zuo et al., ICASSP 2023, compare with it.

    The same networks as :class:`ModalityDropout`; they never see an absent modality in training. In
    the condition avt it shows what the networks can do with everything there, in the other six what
    missing modalities cost a model that was not prepared for them.

    L = L_cls, cross entropy on the complete utterances, whatever the training mask. Settings as
    :class:`ModalityDropout`.

    Our choices: those of :class:`ModalityDropout`, where the papers test their stage-1 model (10+10
    epochs, :class:`~ifmmin.pretraining.stage1.FusionPretraining`). The best epoch is chosen on complete
    validation data: a model of complete data knows no other. Validation under the six conditions is
    logged, and not used. In a corpus with gaps it trains on the complete utterances alone.
    """

    card = ModelCard(
        "Complete fusion",
        "plain fusion trained on complete data and tested with modalities missing",
        'the "full" baseline of Zhao et al., ACL',
        2021,
        "https://aclanthology.org/2021.acl-long.203/",
        "https://github.com/AIM3-RUC/MMIN",
        "fusion",
    )
    monitored_row: ClassVar[str] = COMPLETE

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy on the complete utterances; 0 of a batch that has none."""
        complete = batch.available.all(dim=1)
        return {"cls": self.loss_over(complete, self(batch.unmasked()), batch.targets)}
