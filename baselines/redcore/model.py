"""RedCore: codes that are Gaussians, generated where a modality is absent, with weights that adapt to the modality."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from baselines.redcore.networks import AdaptiveWeights, GaussianEncoder
from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, FRACTION, NOT_EMPTY, NOT_NEGATIVE, POSITIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.gaussians import Gaussian, kl_to_standard_normal
from ifmmin.nn.heads import Classifier
from ifmmin.nn.imagination import ResidualImagination
from ifmmin.optimization import Recipe

LOGGED = "train/beta"
"""What the weights of each step are logged as, by modality."""


class Codes(NamedTuple):
    """What RedCore makes of the modalities of each row, each [B, 3, d].

    Attributes:
        codes: z, of what is present; zeros where absent.
        generated: what the other two modalities make of each.
        filled: z where present, generated where absent.
    """

    codes: Tensor
    generated: Tensor
    filled: Tensor


class RedCore(MissingModalityModule):
    r"""RedCore: cross-modal codes, and a supervision that adapts to how far each modality is behind the others.

    Sun, Zhang, Han, Ruan, Li: "RedCore: Relative advantage aware cross-modal representation learning for missing
    modalities with imbalanced missing rates", AAAI 2024.

    A transformer encodes each modality m as a Gaussian, of which a code z_m is drawn; three residual cascades generate
    each code from the other two. Where a modality is absent its generated code takes the place of z_m. A classifier
    reads all three codes, and another each of them.

    .. math::
        z_m = μ_m + σ_m ε, \quad ẑ_m = g_m(z_n, z_k), \quad
        L = L_{cls} + L_{alone} + λ L_{kl} + γ \sum_m β_m R_m

    L_cls: the task's loss of the answer; L_alone: the sum of those of the three classifiers of one code; L_kl: the sum
    of μ² + σ² − log σ² − 1 over modalities, present rows and coordinates, divided by all rows, λ = 8e-4; R_m: the mean
    over rows in which m is present of ‖ẑ_m − z_m‖², γ = 0.15. β adapts at every third step: modalities that are harder
    to generate than the mean get more weight (:class:`~baselines.redcore.networks.AdaptiveWeights`, ``adaptive`` false
    is the ablation). That is meant for modalities that training rarely shows: the paper's question is that of unequal
    missing rates, ``--data.train_mask 0.2,0.5,0.8 --data.permanent_mask true`` or ``0.5,0.8,0.2``. β is logged at every
    step as train/beta/audio and so on; ``python -m benchmarks.figures RUN`` draws it.

    What to expect of β: it adds up how far R is apart, and R stays apart, if only for the scales of codes. So one
    modality ends near 1 and the others at the floor: on the built-in corpus it is text, after some 330 steps, though
    all three are missing alike. With ``--data.train_mask 0.8,0.5,0.2 --data.permanent_mask true`` audio, which is then
    rare, leads with 0.85 at step 100, and text has 0.88 at step 400: missing rates show first, scales last.

    What it costs: at IEMOCAP's sizes a training step takes some 0.4 times as long as plain fusion's, since it reads S
    steps, and of them only what is present.

    3 layers of 8 heads, d = 128, a feed-forward part of 4 d, dropout 0.2 in attention, 0.1 in feed-forward parts;
    cascades of 5 blocks of 256, 128, 64; classifiers of two layers of 128, dropout 0.5; Adam, learning rate 2e-4,
    30+30 epochs, batch 128, gradients clipped to 1 per sub-network.

    Our choices: every sequence is pooled to S = 16 steps, a cost of at most as many frames; a generator reads a learnt
    vector in place of an absent modality's code; in evaluation z is its mean; the target of R_m has no gradient
    (``target_gradient``); η, from which β moves, ends at 0.5; a batch without a modality leaves its ℓ as it is, and R
    is averaged over devices, so that they keep the same β; in a corpus with gaps a lost modality is read as an absent
    one, and has no R_m; PyTorch's initialisation.

    Differs from the published code (MIT): there a training mask belongs to a position in the epoch, though utterances
    are shuffled, so that none is permanently missing, and may hide all three modalities; zero frames are encoded where
    a modality is absent, and feed the generators of the others; z is drawn in the test too; padding is attended to and
    averaged; η grows without bound; the best epoch is selected by F1 on the test split. γ is that of its training
    program; its script says 4.

    Published figures: none is reachable here; the paper's are of six conditions and the complete one, trained at its
    rates of missing modalities, and selected on test.

    Args:
        steps: S.
        dim: d.
        heads: of each attention; divides d.
        layers: of each encoder.
        expansion: of the feed-forward parts.
        attention_dropout: of attention weights.
        feedforward_dropout: of the feed-forward parts.
        block_dims: widths of each autoencoder of a cascade.
        blocks: of each cascade.
        hidden_dims: of each classifier.
        dropout: of each classifier.
        lambda_kl: λ.
        gamma: γ.
        adaptive: whether β adapts; otherwise each is 1/√3.
        momentum: ρ, the share of a step in the running ℓ.
        beta_rate: η before it grows.
        largest_beta_rate: where it ends.
        target_gradient: let the gradient of R_m reach z_m too, as in the published code.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    card = ModelCard(
        "RedCore",
        "generates the Gaussian code of what is absent, with weights that adapt to the modality",
        "Sun et al., AAAI",
        2024,
        "https://arxiv.org/abs/2312.10386",
        "https://github.com/sunjunaimer/RedCore",
        "imagination",
    )
    recipe: ClassVar[Recipe] = Recipe(constant_epochs=30, decay_epochs=30)

    def __init__(
        self,
        *,
        steps: Annotated[int, WIDTH] = 16,
        dim: Annotated[int, WIDTH] = 128,
        heads: Annotated[int, WIDTH] = 8,
        layers: Annotated[int, COUNT] = 3,
        expansion: Annotated[int, COUNT] = 4,
        attention_dropout: Annotated[float, BELOW_ONE] = 0.2,
        feedforward_dropout: Annotated[float, BELOW_ONE] = 0.1,
        block_dims: Annotated[list[int], WIDTH, NOT_EMPTY] = [256, 128, 64],
        blocks: Annotated[int, COUNT] = 5,
        hidden_dims: Annotated[list[int], WIDTH] = [128, 128],
        dropout: Annotated[float, BELOW_ONE] = 0.5,
        lambda_kl: Annotated[float, NOT_NEGATIVE] = 8e-4,
        gamma: Annotated[float, NOT_NEGATIVE] = 0.15,
        adaptive: bool = True,
        momentum: Annotated[float, FRACTION] = 0.7,
        beta_rate: Annotated[float, NOT_NEGATIVE] = 0.1,
        largest_beta_rate: Annotated[float, POSITIVE] = 0.5,
        target_gradient: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise InputError(f"heads {heads}: it must divide dim {dim}.")
        self.needs = DataNeeds(hidden_frames=False, steps=steps)
        self.steps, self.adaptive, self.target_gradient = steps, adaptive, target_gradient
        layout = (dim, heads, layers, expansion, attention_dropout, feedforward_dropout)
        self.encoders = nn.ModuleDict(
            {name: GaussianEncoder(width, *layout) for name, width in zip(MODALITIES, self.feature_dims, strict=True)}
        )
        self.generators = nn.ModuleDict(
            {name: ResidualImagination(2 * dim, block_dims, blocks, output_dim=dim) for name in MODALITIES}
        )
        self.heads = nn.ModuleDict(
            {name: Classifier(dim, self.task.outputs, hidden_dims, dropout) for name in MODALITIES}
        )
        self.classifier = Classifier(len(MODALITIES) * dim, self.task.outputs, hidden_dims, dropout)
        self.balance = AdaptiveWeights(len(MODALITIES), momentum, beta_rate, largest_beta_rate)
        if not adaptive:
            self.balance.weights.fill_(len(MODALITIES) ** -0.5)
        self.loss_weights = {"kl": lambda_kl, "generation": gamma}
        self._used: dict[int, Tensor] = {}

    def encoder(self, modality: int) -> GaussianEncoder:
        """The encoder of audio (0), visual (1) or text (2)."""
        encoder = self.encoders[MODALITIES[modality]]
        assert isinstance(encoder, GaussianEncoder)
        return encoder

    def encode(self, batch: Batch) -> Gaussian:
        """Gaussians [B, 3, d] of what is present in each row, zeros where absent; each utterance is encoded once."""
        means, stds = [], []
        for modality, width in enumerate(self.feature_dims):
            seen = visible(batch, modality)
            read = pool_steps(seen.frames, seen.lengths, self.steps)
            # In training a modality that nobody shows is run on zeros, so that its parameters have a gradient.
            read = read if len(seen.lengths) else seen.frames.new_zeros(1, self.steps, width)
            found: Gaussian = self.encoder(modality)(read)
            means.append(seen.spread(found.mean))
            stds.append(seen.spread(found.std))
        return Gaussian(torch.stack(means, dim=1), torch.stack(stds, dim=1))

    def generate(self, read: Tensor) -> Tensor:
        """Generate each code from the other two of ``read`` [B, 3, d]: [B, 3, d]."""
        made = []
        for modality, generator in enumerate(self.generators.values()):
            others = [read[:, other] for other in range(len(MODALITIES)) if other != modality]
            made.append(generator(torch.cat(others, dim=1))[0])
        return torch.stack(made, dim=1)

    def fill(self, codes: Tensor, present: Tensor) -> Codes:
        """Generate what is absent, by bool ``present`` [B, 3], in codes [B, 3, d]."""
        shown = present[..., None]
        absent = torch.stack([self.encoder(modality).absent for modality in range(len(MODALITIES))])
        read = codes.to(absent.dtype)  # Gaussians are never in half precision
        generated = self.generate(read.where(shown, absent))
        return Codes(codes, generated, read.where(shown, generated.to(read.dtype)))

    def answer(self, filled: Tensor) -> Tensor:
        """Outputs [B, O] of codes [B, 3, d]."""
        outputs: Tensor = self.classifier(filled.flatten(1))
        return outputs

    def answers_alone(self, filled: Tensor) -> list[Tensor]:
        """Outputs [B, O] of each modality's code by itself."""
        return [head(filled[:, modality]) for modality, head in enumerate(self.heads.values())]

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.answer(self.fill(self.encode(batch).mean, batch.present).filled)

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Codes [B, 3, d], generated where a modality is absent."""
        return self.fill(self.encode(batch).mean, batch.present).filled

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Generated codes, and the means of the whole utterances, each [B, 3, d]."""
        whole = batch.unmasked()
        with torch.no_grad():
            true = self.encode(whole).mean[batch.row]
        return self.fill(self.encode(batch).mean, batch.present).generated, true

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, L_alone, L_kl and Σ_m β_m R_m. In training β is first updated by R, as in the published code."""
        present = batch.present
        gaussian = self.encode(batch)
        out = self.fill(gaussian.sample() if self.training else gaussian.mean, present)
        shown = Gaussian(gaussian.mean[present], gaussian.std[present])
        errors = self.errors(out, present)
        if self.training and self.adaptive:
            self.balance.update(self._over_devices(errors.detach()))
        return {
            "cls": self.task.loss(self.answer(out.filled), batch.target),
            "alone": torch.stack(
                [self.task.loss(alone, batch.target) for alone in self.answers_alone(out.filled)]
            ).sum(),
            "kl": 2 * kl_to_standard_normal(shown).sum() / len(batch),
            # A copy: the next update, in place, may come before this step's backward pass.
            "generation": (self.balance.weights.clone() * errors).sum(),
        }

    def errors(self, out: Codes, present: Tensor) -> Tensor:
        """R [3]; 0 with a zero gradient of a modality that no row shows."""
        target = out.codes if self.target_gradient else out.codes.detach()
        distances = (out.generated - target).square().sum(dim=2)
        return (distances * present).sum(dim=0) / present.sum(dim=0).clamp(min=1)

    def _over_devices(self, errors: Tensor) -> Tensor:
        """Mean of R [3] over the devices that have one."""
        if self._trainer is None or self.trainer.world_size == 1:
            return errors
        both = torch.stack([errors, (errors > 0).to(errors.dtype)])
        summed = self.trainer.strategy.reduce(both, reduce_op="sum")
        assert isinstance(summed, Tensor)
        return summed[0] / summed[1].clamp(min=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See :class:`~ifmmin.base.MissingModalityModule`; keep the step's β, to be logged."""
        total = super().training_step(batch, batch_idx)
        if self.adaptive:
            self._used[self.trainer.global_step] = self.balance.weights.clone()
        if self.trainer.is_last_batch:
            self._log_weights()
        return total

    def on_train_epoch_end(self) -> None:
        """See :class:`~ifmmin.base.MissingModalityModule`."""
        super().on_train_epoch_end()
        self._log_weights()  # of an epoch that was cut short

    def _log_weights(self) -> None:
        """Log β of every step since the last time: one wait for a GPU, not one per step."""
        if not self._used:
            return
        rows = torch.stack([*self._used.values()]).tolist()
        for step, row in zip(self._used, rows, strict=True):
            named = {f"{LOGGED}/{name}": weight for name, weight in zip(MODALITIES, row, strict=True)}
            for logger in self.loggers:
                logger.log_metrics({"epoch": self.current_epoch, **named}, step)
        self._used = {}
