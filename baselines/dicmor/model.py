"""DiCMoR: distribution-consistent recovery of missing modalities by flows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.dicmor.networks import ChannelFlow, ClassPrior, bits_per_dimension
from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.ranges import COUNT, NOT_NEGATIVE, WIDTH
from ifmmin.cards import ModelCard
from ifmmin.nn.precision import full_precision
from ifmmin.optimization import Recipe
from ifmmin.recovery import RecoveryModule


class DiCMoR(RecoveryModule):
    r"""DiCMoR: distribution-consistent modal recovering.

    Wang, Cui, Li: "Distribution-consistent modal recovering for incomplete multimodal learning", ICCV 2023.

    Each modality has a flow f_m from its sequence x_m to a common space, in which every class has a Gaussian, the same
    for all modalities, so that what one modality is there can be read by the inverse flow of another:

    .. math:: \hat x_m = f_m^{-1}(f_n(x_n)), \quad \tilde x_m = R_m(\hat x_m)

    for an absent m and an available n, with R_m a residual network with channel attention. If two modalities are
    available, R_m reads a linear function of both guesses. Crossmodal transformers fuse the real and the recovered
    sequences for the classifier (:class:`~ifmmin.recovery.RecoveryModule`).

    .. math:: L = L_{cls} + λ_{nll} \sum_m \mathrm{bits}_m + λ_{recovery} \lVert \tilde x_m - sg\,x_m \rVert^2

    λ = 0.1 each. bits_m: the negative log likelihood of x_m under its flow and the Gaussian of its class, in bits per
    dimension. The squared error is a mean over what the mask took away. No gradient passes from what was recovered
    into the flows. Labels are read in training alone.

    Our choices: sequences are pooled to S = 8 steps of C = 32 channels; 8 couplings; crossmodal transformers of 2
    layers with one of memory, and 4 blocks of channel attention, where theirs have 4, 4 and 20; a learning rate of
    1e-3 and 10+10 epochs, some 700 steps, instead of early stopping; gradients clipped to 1 per sub-network. The
    likelihood trains the flows and the Gaussians alone: x_m that collapse would lower it for ever. In a corpus with
    gaps a lost modality is recovered for the classifier, and is no target. Classes of a regression are the whole
    numbers of its scale, as in the paper.

    Differs from the published code (Apache-2.0): channels are reversed after every coupling, where theirs have no
    permutation, so that half of what is recovered is the available modality itself, unchanged; bits per dimension are
    not clamped at 0, where their gradient ends; the Gaussians are a table, not a convolution of zeros; what is
    available is drawn for each utterance, not for each batch; padding is never read.

    What it costs: a training step takes 1.5 times as long as plain fusion's.

    Published figures: on CMU-MOSI and CMU-MOSEI with trained BERT, by the rate at which modalities are dropped at
    random, a model for each rate; another protocol, and not to be compared with tables of missing conditions.

    Args:
        couplings: of each flow.
        flow_hidden_dim: width of both hidden layers of a coupling's network.
        lambda_nll: weight of ``nll``.
        **kwargs: of :class:`~ifmmin.recovery.RecoveryModule`.
    """

    card = ModelCard(
        "DiCMoR",
        "recovers a missing modality by flows whose common space has a Gaussian for each class",
        "Wang, Cui, Li, ICCV",
        2023,
        "https://openaccess.thecvf.com/content/ICCV2023/html/Wang_Distribution-Consistent_Modal_Recovering_for_Incomplete_"
        "Multimodal_Learning_ICCV_2023_paper.html",
        "https://github.com/mdswyz/DiCMoR",
        "imagination",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=10, decay_epochs=10)

    def __init__(
        self,
        *,
        couplings: Annotated[int, COUNT] = 8,
        flow_hidden_dim: Annotated[int, WIDTH] = 64,
        lambda_nll: Annotated[float, NOT_NEGATIVE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.flows = nn.ModuleDict({name: ChannelFlow(self.width, couplings, flow_hidden_dim) for name in MODALITIES})
        self.joining = nn.ModuleDict({name: nn.Linear(2 * self.width, self.width) for name in MODALITIES})
        self.prior = ClassPrior(len(self.task.levels), self.width)
        self.loss_weights["nll"] = lambda_nll

    def flow(self, modality: int) -> ChannelFlow:
        """The flow of audio (0), visual (1) or text (2)."""
        flow = self.flows[MODALITIES[modality]]
        assert isinstance(flow, ChannelFlow)
        return flow

    def guess(self, x: Tensor, batch: Batch, wanted: list[Tensor]) -> list[Tensor]:
        """The inverse flow at what the available modalities are in the common space, two of them joined."""
        guesses = []
        for modality, (name, rows) in enumerate(zip(MODALITIES, wanted, strict=True)):
            sources = [source for source in range(len(MODALITIES)) if source != modality]
            shown = batch.present[rows][:, sources, None, None]
            found = [self.transfer(x, batch.row[rows[batch.present[rows, n]]], n, modality) for n in sources]
            each = [found[n][batch.row[rows]] for n in range(2)]
            one = torch.where(shown[:, 0], each[0], each[1])
            both = shown.all(dim=1).flatten().nonzero(as_tuple=True)[0]
            joined = self.joining[name](torch.cat([part[both] for part in each], dim=2))
            guesses.append(one.index_copy(0, both, joined.to(one.dtype)))
        return guesses

    @torch.no_grad()
    def transfer(self, x: Tensor, needed: Tensor, source: int, target: int) -> Tensor:
        """What ``target``'s inverse flow makes of ``source``: [N, S, C] of x [N, 3, S, C], 0 where not ``needed``.

        Args:
            x: of the stored utterances.
            needed: int64 [n], utterances in any number of rows; each is computed once.
            source: an available modality.
            target: an absent one.
        """
        if not len(needed):
            return x.new_zeros(len(x), self.steps, self.width)
        utterances = needed.unique()
        recovered = self.flow(target).inverse(self.flow(source)(x[utterances, source]))
        return x.new_zeros(len(x), self.steps, self.width).index_copy(0, utterances, recovered.to(x.dtype))

    def classes(self, batch: Batch) -> Tensor:
        """Class [N] of each stored utterance; a value is rounded to a whole number of the scale."""
        if self.task.class_names:
            return batch.labels
        first, last = int(self.task.levels[0]), int(self.task.levels[-1])
        return batch.labels.round().clamp(first, last).long() - first

    def guessing_losses(self, x: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Bits per dimension of each modality under its flow and its class, summed over the modalities."""
        classes, terms = self.classes(batch), []
        for modality, there in enumerate(batch.available.unbind(dim=1)):
            # Of a modality that nobody has one utterance's zeros, at weight 0: each parameter has a gradient.
            rows = torch.arange(len(there), device=there.device)[there] if bool(there.any()) else batch.row[:1]
            with full_precision(x):
                z, volume = self.flow(modality).with_volume(x[rows, modality])
                density = self.prior(z, classes[rows]) + volume.sum(dim=1)
            bits = bits_per_dimension(density, self.steps * self.width)
            terms.append((bits * there[rows]).sum() / there.sum().clamp(min=1))
        return {"nll": torch.stack(terms).sum()}
