"""IMDer: score-based diffusion recovers missing modalities."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.imder.networks import EARLIEST, LATEST, ScoreNetwork
from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.ranges import COUNT, NOT_EMPTY, NOT_NEGATIVE, WIDTH, Range
from ifmmin.cards import ModelCard
from ifmmin.nn.precision import full_precision
from ifmmin.optimization import Recipe
from ifmmin.recovery import RecoveryModule

START = 2023
"""Seed of the noise that every recovery starts from."""

LEVELS = Range(2, 10_000)
"""Widths of levels and of the time's features: both are split."""


class IMDer(RecoveryModule):
    r"""IMDer: incomplete multimodality-diffused emotion recognition.

    Wang, Li, Cui: "Incomplete multimodality-diffused emotion recognition", NeurIPS 2023.

    Each modality has a score network, a U-Net over the steps of its sequence x_m that reads a condition c at every
    level by crossmodal attention, trained on x_m + σ_t z with σ_t = √((25^{2t} - 1) / (2 ln 25)). What is absent is
    recovered from noise by the reverse diffusion, given what is available, and refined by a residual network R_m with
    channel attention. Crossmodal transformers fuse the real and the recovered sequences for the classifier
    (:class:`~ifmmin.recovery.RecoveryModule`).

    .. math:: L = L_{cls} + λ_{score} \sum_m \lVert σ_t s_m(x_m + σ_t z, t, c) + z \rVert^2
        + λ_{recovery} \lVert \tilde x_m - sg\,x_m \rVert^2

    λ = 0.1 each; t uniform in [1e-5, 1], z normal; the first norm is a sum over steps and channels and a mean over the
    utterances from which the mask took m, as they are asked for, the second a mean over both.

    A recovery is deterministic: 10 steps of the probability-flow ODE from the same noise for every utterance, drawn
    once and saved with the weights. An answer may depend on nothing but frames: a noise drawn by an utterance's id, or
    its place in the corpus, would have a prediction for a file differ from the evaluation's.

    Our choices: sequences are pooled to S = 8 steps of C = 32 channels; c is the mean of the available ones; levels of
    32, 64, 64, 64 channels with one layer of attention, where theirs have 32, 64, 128, 256 and two; crossmodal
    transformers of 2 layers with one of memory, and 4 blocks of channel attention, where theirs have 4, 4 and 20; a
    learning rate of 1e-3 and 10+10 epochs, some 700 steps, without weights from complete data; gradients clipped to 1
    per sub-network. The score networks' loss trains them alone, and no gradient passes through a recovery. In a corpus
    with gaps a lost modality is recovered for the classifier, and is no target.

    Differs from the published code (MIT): the convolutions that make x_m are trained, where theirs run without
    gradient; the condition is clean, where theirs has the same noise as x_m in training and another in sampling; steps
    of the ODE, where theirs are 100 of the stochastic equation; what is available is drawn for each utterance, not for
    each batch; no label is read to answer; any number of steps; padding is never read.

    What it costs: on one CPU thread an answer takes 0.05 s where two modalities are recovered and 0.03 s where one is,
    plain fusion's 0.003 s (``python -m benchmarks.speed.latency --models IMDer --clock cpu``), in batches 0.01 s for
    all seven conditions of an utterance; a training step takes 3.5 times as long as plain fusion's. Cost is in
    proportion to ``ode_steps``.

    Published figures: on CMU-MOSI and CMU-MOSEI with trained BERT, by the rate at which modalities are dropped at
    random, a model for each rate; another protocol, and not to be compared with tables of missing conditions.

    Args:
        channels: widths of the score networks' levels below the first, whose width is that of a step.
        time_dim: of the features of the time.
        groups: of the score networks' normalisations, at most.
        score_layers: of each of their crossmodal transformers.
        ode_steps: how often a recovery asks the score network.
        lambda_score: weight of ``score``.
        **kwargs: of :class:`~ifmmin.recovery.RecoveryModule`.

    Raises:
        InputError: ``heads`` does not divide a width, or an option is out of range.
    """

    card = ModelCard(
        "IMDer",
        "recovers a missing modality from noise by score-based diffusion, given what is available",
        "Wang, Li, Cui, NeurIPS",
        2023,
        "https://openreview.net/forum?id=BuGFwUS9B3",
        "https://github.com/mdswyz/IMDer",
        "imagination",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=10, decay_epochs=10)

    start: Tensor

    def __init__(
        self,
        *,
        channels: Annotated[list[int], LEVELS, NOT_EMPTY] = [64, 64, 64],
        time_dim: Annotated[int, LEVELS] = 128,
        groups: Annotated[int, WIDTH] = 4,
        score_layers: Annotated[int, COUNT] = 1,
        ode_steps: Annotated[int, COUNT] = 10,
        lambda_score: Annotated[float, NOT_NEGATIVE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        widths = [self.width, *channels]
        if odd := [width for width in widths if width % self.heads]:
            raise InputError(f"heads {self.heads}: it must divide each of channels, but {odd[0]} is not its multiple.")
        self.scores = nn.ModuleDict(
            {name: ScoreNetwork(widths, self.steps, time_dim, groups, self.heads, score_layers) for name in MODALITIES}
        )
        drawn = torch.randn(len(MODALITIES), self.steps, self.width, generator=torch.Generator().manual_seed(START))
        self.register_buffer("start", drawn)
        self.ode_steps = ode_steps
        self.loss_weights["score"] = lambda_score

    def score(self, modality: int) -> ScoreNetwork:
        """The score network of audio (0), visual (1) or text (2)."""
        network = self.scores[MODALITIES[modality]]
        assert isinstance(network, ScoreNetwork)
        return network

    @staticmethod
    def condition(x: Tensor, batch: Batch) -> Tensor:
        """The mean [B, S, C] of the sequences that each row shows, of x [N, 3, S, C]."""
        shown = batch.present[..., None, None]
        return x[batch.row].masked_fill(~shown, 0.0).sum(dim=1) / shown.sum(dim=1)

    def guess(self, x: Tensor, batch: Batch, wanted: list[Tensor]) -> list[Tensor]:
        """Sequences at the end of the ODE."""
        condition = self.condition(x, batch)
        guesses = []
        for modality, rows in enumerate(wanted):
            guess = condition[rows]
            if len(rows):
                with full_precision(x):
                    guess = self.score(modality).recover(guess, self.start[modality], self.ode_steps)
            guesses.append(guess)
        return guesses

    def guessing_losses(self, x: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The error of each modality's score where the mask took it away, summed over the modalities."""
        condition, terms = self.condition(x, batch), []
        taken = batch.available[batch.row] & ~batch.present
        # Training draws anew in each step; evaluated, the loss is the same each time.
        generator = None if self.training else torch.Generator(x.device).manual_seed(START)
        for modality, wanted in enumerate(taken.unbind(dim=1)):
            # If nobody's was taken one row at weight 0: each parameter has a gradient.
            rows = wanted.nonzero(as_tuple=True)[0] if bool(wanted.any()) else batch.row[:1] * 0
            true = x[batch.row[rows], modality]
            t = torch.rand(len(rows), generator=generator, dtype=x.dtype, device=x.device)
            noise = torch.randn(true.shape, generator=generator, dtype=x.dtype, device=x.device)
            with full_precision(x):
                errors = self.score(modality).loss(true, condition[rows], EARLIEST + (LATEST - EARLIEST) * t, noise)
            terms.append((errors * wanted[rows]).sum() / wanted.sum().clamp(min=1))
        return {"score": torch.stack(terms).sum()}
