"""MCL: embeddings that tell whether they belong together, and if not, how far apart their labels are."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from baselines.plain_fusion import FusionBaseline
from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.ranges import COUNT, NOT_NEGATIVE, POSITIVE
from ifmmin.cards import ModelCard
from ifmmin.nn.correlation import draw_misaligned, largest_root, misalignment
from ifmmin.tasks import Regression


class CorrelationLearning(FusionBaseline):
    r"""MCL: multimodal correlation learning, on plain fusion.

    Mai, Sun, Zeng, Hu: "Excavating multimodal correlation for representation learning", Information Fusion 91, 2023.

    The embeddings of a text, a video and a sound are put together, of one utterance (aligned) or of three different
    ones, and a linear predictor says how far from belonging together they are. What it learns for three utterances
    i, j, k follows from their labels y, so that the embeddings must tell both the utterance and the label:

    .. math::
        L = L_{cls} + λ\, \mathrm{mean} \lvert w^T [h_a^i; h_v^j; h_t^k] + b - τ \rvert, \quad
        τ = \frac{\sqrt{d(y_i, y_j)^2 + d(y_i, y_k)^2 + d(y_j, y_k)^2} + α}{γ + α}

    and τ = 0 for i = j = k, over all aligned and R times as many misaligned ones; R = 4, α = 0.1. L_cls is the task's
    loss of a classifier of [h_a; h_v; h_t] under the training mask. In evaluation it is plain fusion.

    Missing modalities: the paper says nothing about them. The members come from whole utterances, since no training
    mask shows all three modalities; in a corpus with gaps only from those that have the modality, and an utterance is
    aligned if it has all of them. An absent modality is read as in :class:`~baselines.plain_fusion.ModalityDropout`.

    What to expect: for classes τ is 0.05, 0.83 or 1, by how many of the three utterances share a class. A linear
    predictor has no products of its members: it can tell neither who belongs together nor who shares a class, but only
    how common the class of each is. On the built-in corpus (fold 1, seed 0) its error ends where that of the best
    constant is, near 0.27.

    What it costs: every utterance is encoded whole, so that at IEMOCAP's sizes a training step takes
    some three times as long as plain fusion's.

    Our choices: the encoders, classifier and optimiser settings of ModalityDropout instead of the paper's convolutions,
    transformers and BERT, so that the term is all the difference to plain fusion; d of classes is 0 or 1, of
    probabilities their total variation, and γ = √3, the largest root; λ = 0.1 in one sum and one optimiser, where the
    paper has three: the correlation's step comes first, for the encoders at a twentieth of the task's rate and for the
    predictor at a two-hundredth. In evaluation mode the same misaligned ones are drawn each time.

    Differs from the published code (MIT): padding is never read, where theirs takes the last padded step as the
    embedding; γ = √3 span of a scale, as on MOSI there, on every corpus, where it is 1 on MOSEI.

    Published figures: of complete modalities, on MOSI and MOSEI with trained BERT; nothing to compare with.

    Args:
        lambda_correlation: λ.
        misaligned: R, misaligned ones for each utterance.
        margin: α.
        **kwargs: of :class:`~ifmmin.fusion.Fusion`.
    """

    card = ModelCard(
        "MCL",
        "embeddings tell whether they belong together, and if not, how far apart their labels are",
        "Mai et al., Information Fusion",
        2023,
        code="https://github.com/TmacMai/Multimodal-Correlation-Learning",
        family="alignment",
    )

    def __init__(
        self,
        *,
        lambda_correlation: Annotated[float, NOT_NEGATIVE] = 0.1,
        misaligned: Annotated[int, COUNT] = 4,
        margin: Annotated[float, POSITIVE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.predictor = nn.Linear(len(MODALITIES) * self.encoders.embedding_dim, 1)
        self.loss_weights = {"correlation": lambda_correlation}
        self.misaligned, self.margin = misaligned, margin
        span = self.task.high - self.task.low if isinstance(self.task, Regression) else 1.0
        self.largest = largest_root(len(MODALITIES), span)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls under the training mask, and the correlation's L1 of whole utterances."""
        whole = batch.unmasked()
        h = self.encoders(whole)
        shown = h[batch.row].where(batch.present[..., None], self.encoders.absent())
        return {
            "cls": self.task.loss(self.classifier(shown.flatten(1)), batch.target),
            "correlation": self.correlation(h, whole.present, batch.targets),
        }

    def correlation(self, h: Tensor, known: Tensor, targets: Tensor) -> Tensor:
        """Mean error of the predictor over aligned and misaligned members.

        Args:
            h: embeddings [N, 3, E].
            known: bool [N, 3], those that are of something.
            targets: of the task, [N] or [N, C].

        Returns:
            a scalar; 0 with a zero gradient where nothing can be put together.
        """
        generator = None if self.training else torch.Generator(h.device).manual_seed(0)
        drawn = draw_misaligned(known, self.misaligned * len(h), generator)
        complete = known.all(dim=1).nonzero()
        together = torch.cat([drawn, complete.expand(-1, len(MODALITIES))])
        apart = misalignment([targets[rows] for rows in drawn.unbind(dim=1)], self.largest, self.margin)
        tau = torch.cat([apart, apart.new_zeros(len(complete))])
        members = [h[rows, m] for m, rows in enumerate(together.unbind(dim=1))]
        score: Tensor = self.predictor(torch.cat(members, dim=1))[:, 0]
        return (score - tau).abs().sum() / max(1, len(tau))
