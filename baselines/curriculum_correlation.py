"""Correlation of pairs of modalities, learnt from easy to hard pairs; the hardest are taken for noise."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.plain_fusion import FusionBaseline
from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, WIDTH
from ifmmin.cards import ModelCard
from ifmmin.nn.correlation import draw_misaligned, largest_root, misalignment
from ifmmin.nn.encoders import ModalityEncoders
from ifmmin.optimization import Recipe
from ifmmin.tasks import Regression

PAIRS = tuple(combinations(range(len(MODALITIES)), 2))
"""Modalities of each kind of pair: av, at, vt."""


def buckets(difficulty: Tensor, count: int, discarded: float) -> Tensor:
    r"""Sort pairs into equal buckets by difficulty, without the hardest.

    Args:
        difficulty: [T].
        count: K.
        discarded: the fraction δ of pairs without a bucket, rounded down to ⌊δ T⌋ of them.

    Returns:
        int64 [T], from 0, the easiest, to K - 1, and -1 of those without; of equal ones the earlier is the easier.

    >>> buckets(torch.tensor([0.3, 0.9, 0.1, 0.2, 0.5]), 2, 0.2).tolist()
    [1, -1, 0, 0, 1]
    """
    # 0.29 * 100 is 28.999…
    kept = len(difficulty) - int(discarded * len(difficulty) + 1e-9)
    order = difficulty.argsort(stable=True)
    rank = torch.arange(len(difficulty), device=difficulty.device)
    return torch.empty_like(rank).index_copy(0, order, torch.where(rank < kept, rank * count // max(1, kept), -1))


class Curriculum(nn.Module):
    r"""Which pairs are fed: those in the buckets 0 to s, where the stage s follows the loss of what was fed.

    After an epoch ΔL is the mean loss of the buckets 0 to s in the epoch before less that in this one:

    .. math:: s' = \begin{cases} \min(s + 1, K - 1) & ΔL > ε \\ \max(s - 1, 0) & ΔL < -ε \\ s & \text{otherwise}
        \end{cases}

    and s' = s after the first. Both means are of the same buckets, fed or not in the epoch before: harder ones alone
    would raise the mean, and every step forward would be taken back. What an epoch leaves is in buffers, so in every
    checkpoint.

    Args:
        count: K, number of buckets.
        discarded: δ, fraction of pairs that is never fed.
        tolerance: ε.

    Example:
        >>> curriculum = Curriculum(count=2, discarded=0.0, tolerance=0.01)
        >>> for loss in (0.9, 0.7):
        ...     fed = curriculum.fed(torch.tensor([0.2, 0.1]), torch.full((2,), loss))
        ...     print(fed.tolist(), curriculum.step(curriculum.taken()))
        [False, True] 0
        [False, True] 1
    """

    stage: Tensor
    previous: Tensor

    def __init__(self, count: int = 5, discarded: float = 0.1, tolerance: float = 0.001) -> None:
        super().__init__()
        self.count, self.discarded, self.tolerance = count, discarded, tolerance
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))
        # Sum of losses and number of pairs of each bucket, in the epoch before.
        self.register_buffer("previous", torch.zeros(2, count))
        # Those of this epoch on this device: no buffer, or DDP would replace them by the first device's.
        self.total: Tensor | None = None

    def fed(self, difficulty: Tensor, losses: Tensor) -> Tensor:
        """Return whether each pair is fed, bool [T]; of at least one pair the easiest is.

        Args:
            difficulty: [T].
            losses: [T], counted for the next step in training mode.
        """
        bucket = buckets(difficulty, self.count, self.discarded)
        if self.training:
            # By a product: index_add is not deterministic on a GPU.
            each = torch.stack([losses.detach(), torch.ones_like(losses)]).to(self.previous)
            sums = each @ (bucket[:, None] == torch.arange(self.count, device=bucket.device)).to(each)
            self.total = sums if self.total is None else self.total + sums
        return (bucket >= 0) & (bucket <= self.stage)

    def taken(self) -> Tensor:
        """Return this epoch's sum of losses and number of pairs of each bucket [2, K], and forget them."""
        total = torch.zeros_like(self.previous) if self.total is None else self.total
        self.total = None
        return total

    def step(self, total: Tensor) -> int:
        """End an epoch by what :meth:`taken` gave, over all devices.

        Returns:
            1 steps forward, -1 back, 0 stays, also at either end.
        """
        shown = int(self.stage) + 1
        before, now = (sums[:, :shown].sum(dim=1) for sums in (self.previous, total))
        action = 0
        if before[1] > 0 and now[1] > 0:
            fallen = float(before[0] / before[1] - now[0] / now[1])
            action = int(fallen > self.tolerance) - int(fallen < -self.tolerance)
        self.stage.copy_((self.stage + action).clamp(0, self.count - 1))
        self.previous.copy_(total)
        return action


class PairPredictor(nn.Module):
    """Scores of how far from belonging together two embeddings are.

    Each modality is projected to d and normalised; a head for each kind of pair reads both projections and their
    product. Without product and hidden layer a score is a sum of what each member says alone, and tells nothing of the
    two together.

    Args:
        embedding_dim: E.
        dim: d, also the heads' hidden width.

    Example:
        >>> PairPredictor(8, 4)(0, torch.zeros(5, 8), torch.zeros(5, 8)).shape
        torch.Size([5])
    """

    def __init__(self, embedding_dim: int, dim: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            [nn.Sequential(nn.Linear(embedding_dim, dim), nn.LayerNorm(dim)) for _ in MODALITIES]
        )
        self.heads = nn.ModuleList(
            [nn.Sequential(nn.Linear(3 * dim, dim), nn.ReLU(), nn.Linear(dim, 1)) for _ in PAIRS]
        )

    def forward(self, pair: int, x: Tensor, y: Tensor) -> Tensor:
        """Score [T] of members [T, E] of the modalities ``PAIRS[pair]``."""
        m, n = PAIRS[pair]
        x, y = self.projections[m](x), self.projections[n](y)
        score: Tensor = self.heads[pair](torch.cat([x, y, x * y], dim=1))
        return score[:, 0]


class Pretrained(nn.Module):
    """Encoders and predictor as a warm-up leaves them: frozen, always in evaluation mode.

    Args:
        encoders: whose copy is kept.
        predictor: likewise.
    """

    def __init__(self, encoders: ModalityEncoders, predictor: PairPredictor) -> None:
        super().__init__()
        self.encoders, self.predictor = copy.deepcopy(encoders), copy.deepcopy(predictor)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Pretrained:
        """Stay in evaluation mode."""
        return super().train(False)

    def copy_from(self, encoders: ModalityEncoders, predictor: PairPredictor) -> None:
        """Take over the weights of both."""
        self.encoders.load_state_dict(encoders.state_dict())
        self.predictor.load_state_dict(predictor.state_dict())


class CurriculumCorrelation(FusionBaseline):
    r"""Curriculum learning of weakly supervised correlation, on plain fusion.

    Mai, Sun, Hu: "Curriculum learning meets weakly supervised multimodal correlation learning", EMNLP 2022.

    Embeddings of two modalities are put together, of one utterance (aligned) or of two different ones, and a predictor
    g says how far from belonging together they are. What it should say follows from the labels y: τ = 0 for aligned
    ones, otherwise

    .. math::
        τ = \frac{d(y_i, y_j) + α}{γ + α}, \quad \ell = \lvert g_{mn}(h_m^i, h_n^j) - τ \rvert, \quad
        L = L_{cls} + λ\, \mathrm{mean}_{fed}\, \ell

    which for classes is 0.09 or 1. A warm-up trains encoders and g on all pairs, and leaves a frozen copy of both. Then
    the difficulty of a pair is the mean of the copy's loss and the current one. The hardest ⌊δ T⌋ of the T pairs of a
    batch are discarded as noise, the others sorted into K equal buckets, and the easiest are fed, as many buckets as
    the stage says; it steps forward or back, or stays, by how the loss of what was fed changed over an epoch
    (:class:`Curriculum`). L_cls is the task's loss of a classifier of [h_a; h_v; h_t] under the training mask; during
    the warm-up it trains the classifier alone. In evaluation the model is plain fusion.

    Stated by the abstract: pairs of unimodal embeddings, scores of misaligned ones from labels; difficulty by the
    losses of a pretrained and the current predictor; the hardest discarded as noise; staying, stepping back and
    stepping forward by the difference of losses. Of the authors' MCL (:class:`~baselines.CorrelationLearning`): τ,
    α = 0.1 and an L1 loss.

    Our choices: everything else. δ = 0.1, K = 5, ε = 0.001, stages from 0; buckets of a batch, on several devices of
    each; a warm-up of 5 epochs, part of the schedule and scaled with it; λ = 0.1 in one optimiser; d of classes 0 or 1,
    γ the span of a scale, 1 for classes. g, since a linear one (MCL's, of triples) cannot tell who belongs together
    (:class:`PairPredictor`), at five times the rate of the rest. R = 2 misaligned ones for each aligned one: of four
    classes half of all τ are then near 0, half 1, while with MCL's R = 4 the best constant of an L1 loss is 1, which a
    short warm-up does not leave. Encoders, classifier and the other settings are ModalityDropout's, on frozen features.

    Missing modalities: members come from whole utterances; in a corpus with gaps from those that have the modality,
    and aligned ones from those that have both. An absent modality is read as in
    :class:`~baselines.plain_fusion.ModalityDropout`.

    What to expect: on the built-in corpus (fold 1, seed 0) the stage is 4 five epochs after the warm-up and steps back
    now and then; the predictor's error on validation ends at 0.39, where the best constant has 0.48. With 10 % of the
    labels flipped, embeddings that show class and utterance, and R = 4, the discarded tenth has every wrong pair.

    What it costs: every utterance is encoded whole, after the warm-up by the copy as well; at IEMOCAP's sizes an epoch
    takes 2.9 times as long as plain fusion's.

    Published figures: of complete modalities, on sentiment with trained text encoders; nothing to compare with.

    Args:
        lambda_correlation: λ.
        misaligned: R.
        margin: α.
        pair_dim: d of the predictor.
        pretraining_epochs: of the warm-up.
        discarded: δ.
        bucket_count: K.
        tolerance: ε.
        **kwargs: of :class:`~ifmmin.fusion.Fusion`.
    """

    card = ModelCard(
        "Curriculum correlation",
        "embeddings tell whether two belong together, learnt from easy to hard pairs without the hardest",
        "Mai et al., EMNLP",
        2022,
        "https://arxiv.org/abs/2212.07619",
        None,
        "alignment",
        "after the abstract of the paper",
    )

    recipe: ClassVar[Recipe] = replace(FusionBaseline.recipe, rates={"predictor": 5.0})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        corpus: replace(recipe, rates={"predictor": 5.0}) for corpus, recipe in FusionBaseline.recipes.items()
    }

    ready: Tensor

    def __init__(
        self,
        *,
        lambda_correlation: Annotated[float, NOT_NEGATIVE] = 0.1,
        misaligned: Annotated[int, COUNT] = 2,
        margin: Annotated[float, POSITIVE] = 0.1,
        pair_dim: Annotated[int, WIDTH] = 64,
        pretraining_epochs: Annotated[int, COUNT] = 5,
        discarded: Annotated[float, BELOW_ONE] = 0.1,
        bucket_count: Annotated[int, COUNT] = 5,
        tolerance: Annotated[float, NOT_NEGATIVE] = 0.001,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.loss_weights = {"correlation": lambda_correlation}
        self.misaligned, self.margin, self.pretraining_epochs = misaligned, margin, pretraining_epochs
        self.largest = largest_root(2, self.task.high - self.task.low if isinstance(self.task, Regression) else 1.0)
        self.predictor = PairPredictor(self.encoders.embedding_dim, pair_dim)
        self.pretrained = Pretrained(self.encoders, self.predictor)
        self.curriculum = Curriculum(bucket_count, discarded, tolerance)
        self.register_buffer("ready", torch.tensor(False))  # after the warm-up

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls under the training mask, and the mean loss of the pairs of whole utterances that are fed."""
        whole = batch.unmasked()
        h, ready = self.encoders(whole), bool(self.ready)
        shown = h[batch.row].where(batch.present[..., None], self.encoders.absent())
        shown = shown if ready else shown.detach()
        drawn = [self.draw(whole.present, batch.targets, pair) for pair in range(len(PAIRS))]
        losses = self.pair_losses(self.predictor, h, drawn)
        if ready:
            with torch.no_grad():
                before = self.pair_losses(self.pretrained.predictor, self.pretrained.encoders(whole), drawn)
                fed = self.curriculum.fed((before + losses) / 2, losses)
            losses = losses[fed]
        return {
            "cls": self.task.loss(self.classifier(shown.flatten(1)), batch.target),
            "correlation": losses.sum() / max(1, len(losses)),
        }

    def draw(self, known: Tensor, targets: Tensor, pair: int) -> tuple[Tensor, Tensor]:
        """Draw misaligned members of a kind of pair, and add the aligned ones.

        Args:
            known: bool [N, 3], the modalities that utterances have.
            targets: of the task, [N] or [N, C].
            pair: place in ``PAIRS``.

        Returns:
            int64 [T, 2], the utterance of each member, misaligned ones first, and τ [T].
        """
        columns = known[:, list(PAIRS[pair])]
        # In evaluation mode the same ones each time.
        generator = None if self.training else torch.Generator(known.device).manual_seed(pair)
        drawn = draw_misaligned(columns, self.misaligned * len(known), generator)
        aligned = columns.all(dim=1).nonzero()
        apart = misalignment([targets[rows] for rows in drawn.unbind(dim=1)], self.largest, self.margin)
        return torch.cat([drawn, aligned.expand(-1, 2)]), torch.cat([apart, apart.new_zeros(len(aligned))])

    def pair_losses(self, predictor: PairPredictor, h: Tensor, drawn: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Compute the loss of each pair, one kind after the other, from h [N, 3, E]."""
        found = []
        for pair, (rows, tau) in enumerate(drawn):
            x, y = (h[rows[:, place], m] for place, m in enumerate(PAIRS[pair]))
            found.append((predictor(pair, x, y) - tau).abs())
        return torch.cat(found)

    def on_train_epoch_end(self) -> None:
        """See :class:`~ifmmin.base.MissingModalityModule`; end the warm-up, or move the curriculum's stage."""
        super().on_train_epoch_end()
        if bool(self.ready):
            self._step()
            return
        warmup = math.ceil(self.pretraining_epochs * self._scheduled.epochs / self.settings.epochs)
        if self.current_epoch + 1 >= warmup:
            self.pretrained.copy_from(self.encoders, self.predictor)
            self.ready.fill_(True)

    def _step(self) -> None:
        """Move the stage by the losses of all devices; log the stage that the epoch had."""
        self.log(f"{self.log_prefix}train/stage", self.curriculum.stage.float())
        total: Any = self.curriculum.taken()
        if self.trainer.world_size > 1:
            total = self.trainer.strategy.reduce(total, reduce_op="sum")
        self.curriculum.step(total)
