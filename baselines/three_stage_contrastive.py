"""Contrast in three stages: of each modality, of views of their interaction, of their fusion; then a classifier."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.attention import packed_layer
from ifmmin.nn.encoders import ModalityEncoders
from ifmmin.nn.heads import Classifier
from ifmmin.nn.precision import full_precision, in_autocast
from ifmmin.optimization import Recipe

STAGES = (("unimodal", "encoders"), ("interaction", "interaction"), ("fusion", "interaction"), ("cls", "classifier"))
"""Of each stage its loss, and the sub-network that it trains."""
PARTS = ("encoders", "interaction", "classifier")


def stage_of(epoch: int, epochs: int) -> int:
    """Place in ``STAGES`` of an epoch, counted from 0: equal quarters; the last epoch trains the classifier.

    >>> [stage_of(epoch, 8) for epoch in range(8)], [stage_of(epoch, 2) for epoch in range(2)]
    ([0, 0, 1, 1, 2, 2, 3, 3], [1, 3])
    """
    count = len(STAGES)
    return -(-count * (epoch + 1) // epochs) - 1


class Interaction(nn.Module):
    """A transformer layer over the modalities that a row shows, and the mean of what it makes of them.

    Args:
        dim: E.
        heads: divides E.
        feedforward_dim: hidden width of the layer's feed-forward part.
        dropout: of attention weights, hidden values and both outputs.

    Example:
        >>> Interaction(4, 2, 8, 0.1)(torch.zeros(5, 3, 4), torch.ones(5, 3, dtype=torch.bool)).shape
        torch.Size([5, 4])
    """

    def __init__(self, dim: int, heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.modality = nn.Parameter(torch.zeros(len(MODALITIES), dim))
        self.layer = nn.TransformerEncoderLayer(dim, heads, feedforward_dim, dropout, batch_first=True)

    def tokens(self, h: Tensor, present: Tensor) -> Tensor:
        """Compute tokens [B, 3, E] of h [B, 3, E], which is read where bool ``present`` [B, 3]; 0 elsewhere.

        Every row shows at least one modality.
        """
        lengths, order = present.sum(dim=1).sort(stable=True)
        shown = present[order]
        # What is absent is no key, and nothing is computed of it.
        states = packed_layer(self.layer, in_autocast((h + self.modality)[order][shown]), lengths, together=len(h))
        placed = states.new_zeros(h.shape).index_put((shown,), states)
        return torch.empty_like(placed).index_copy(0, order, placed)

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Compute the mean token [B, E] of what is present, see :meth:`tokens`."""
        return self.tokens(h, present).sum(dim=1) / present.sum(dim=1, keepdim=True)


class ThreeStageContrastive(MissingModalityModule):
    r"""Three-stage multi-view contrastive learning.

    Liu, Zheng, Li, Liu, Ren, Zhu, Sun: "Improving the modality representation with multi-view contrastive learning for
    multimodal sentiment analysis", arXiv 2210.15824, 2022.

    An encoder embeds each modality, a transformer layer lets the embeddings of an utterance attend to each other, the
    mean z of its tokens is the fusion. A fit has four stages, equal quarters of its epochs, and each trains one part
    by one loss; all others keep their weights to the bit, and run without dropout:

    1. ``unimodal`` trains the encoders: supervised contrast of h_m, the mean over the three modalities.
    2. ``interaction`` trains the interaction: self-supervised contrast of two views of an utterance, z of all that it
       has and z under the training mask. The views of an utterance attract each other, all others repel.
    3. ``fusion`` trains the interaction: supervised contrast of both views.
    4. ``cls`` trains the classifier of the frozen z by the task's loss under the training mask.

    .. math:: \ell(x, c) = -\mathrm{mean}_i \frac{1}{|P_i|} \sum_{p \in P_i}
        \log \frac{e^{\cos(x_i, x_p) / τ}}{\sum_{k \ne i} e^{\cos(x_i, x_k) / τ}}, \quad
        P_i = \{p \ne i : c_p = c_i\}

    is all three contrasts, over the i that have a positive: c is the class, or in stage 2 the utterance, which makes it
    NT-Xent. It is ``SupConLoss`` of pytorch-metric-learning, 0 of a batch without a positive or without a negative.

    With ``joint`` everything is trained at once by L = L_cls + λ₁ L_unimodal + λ₂ L_interaction + λ₃ L_fusion. Outside
    a fit, which tells the epoch, ``losses`` gives these four terms too.

    Stated by the abstract of versions 1 and 2: supervised contrast of each modality, then self-supervised contrast
    after cross-modal interaction, then supervised contrast of the fusion, and a classifier of frozen representations.
    That of the latest version: an interaction by a transformer; it no longer mentions freezing.

    Our choices: everything else. τ = 0.1; what the two views are, which makes it a method for missing modalities (in a
    row that shows all, they differ by dropout alone); equal stages; vectors that modalities add to their tokens; h_m of
    MMIN's encoders, 128 wide, of frozen features (text: no language model is fine-tuned); 4 heads, feed-forward part of
    256, dropout 0.1; a classifier of one hidden layer of 128 with dropout 0.3; λ = 0.1 each; batch 128 and a linear
    schedule over all stages. A batch is contrasted on each device for itself.

    The best epoch is chosen as for every model; before the last stage the classifier is untrained, so that these epochs
    score by chance. Of fewer than four epochs the last trains the classifier, and some stages are left out.

    Missing modalities: what is absent is no token, and has no part in any contrast. In a corpus with gaps the view of
    all that an utterance has is of what it has.

    What to expect: a contrast of classes is lowest where cosines are τ log p(c = c' | x, x') but for a constant, so
    they differ little where a modality tells little of the class: on the built-in corpus after stage 1 by 0.02 to 0.08
    between pairs of one class and of two. The classifier reads that all the same.

    What it costs: stage 1 encodes whole utterances with gradients, the others without. ``benchmarks.speed.epochs``
    times the others: stage 1 is its first epoch, which warms up.

    Published figures: of complete modalities on sentiment; nothing to compare with.

    Args:
        embedding_dim: E, width of h_m and of z.
        heads: of the interaction; divides E.
        feedforward_dim: hidden width of the interaction's feed-forward part.
        interaction_dropout: of the interaction.
        hidden_dims: of the classifier.
        dropout: of the classifier.
        text_channels: output channels of each convolution over text.
        text_dropout: of the text's encoder.
        temperature: τ.
        joint: train everything at once.
        lambda_unimodal: λ₁, read with ``joint`` alone, as the next two.
        lambda_interaction: λ₂.
        lambda_fusion: λ₃.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``embedding_dim``, or an option is out of range.
    """

    card = ModelCard(
        "Three-stage contrast",
        "contrasts each modality, then views of their interaction, then their fusion, which a classifier reads frozen",
        "Liu et al., arXiv",
        2022,
        "https://arxiv.org/abs/2210.15824",
        None,
        "alignment",
        "after the abstract of the paper",
    )
    recipe: ClassVar[Recipe] = Recipe(constant_epochs=30, decay_epochs=30)
    needs = DataNeeds(hidden_frames=True)
    tasks: ClassVar[tuple[str, ...]] = ("classification",)  # supervised contrast needs classes

    stage: int | None
    """Place in ``STAGES``; None: everything at once."""

    def __init__(
        self,
        *,
        embedding_dim: Annotated[int, WIDTH] = 128,
        heads: Annotated[int, WIDTH] = 4,
        feedforward_dim: Annotated[int, WIDTH] = 256,
        interaction_dropout: Annotated[float, BELOW_ONE] = 0.1,
        hidden_dims: Annotated[list[int], WIDTH] = [128],
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        temperature: Annotated[float, POSITIVE] = 0.1,
        joint: bool = False,
        lambda_unimodal: Annotated[float, NOT_NEGATIVE] = 0.1,
        lambda_interaction: Annotated[float, NOT_NEGATIVE] = 0.1,
        lambda_fusion: Annotated[float, NOT_NEGATIVE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if embedding_dim % heads:
            raise InputError(f"heads {heads}: it must divide embedding_dim {embedding_dim}.")
        from pytorch_metric_learning.losses import SupConLoss  # imported when used: it is slow to import

        self.encoders = ModalityEncoders.of_present(self.feature_dims, embedding_dim, text_channels, text_dropout)
        self.interaction = Interaction(embedding_dim, heads, feedforward_dim, interaction_dropout)
        self.classifier = Classifier(embedding_dim, self.task.outputs, hidden_dims, dropout)
        self.supcon = SupConLoss(temperature=temperature)
        self.joint = joint
        self._joint_weights = {"unimodal": lambda_unimodal, "interaction": lambda_interaction, "fusion": lambda_fusion}
        self.enter(None)

    def enter(self, stage: int | None) -> None:
        """Begin a stage, a place in ``STAGES``; None: everything at once."""
        self.stage = stage
        self.loss_weights = dict(self._joint_weights) if stage is None else {}
        self.train(self.training)

    def learns(self, part: str) -> bool:
        """Whether this stage trains a sub-network of ``PARTS``."""
        return self.stage is None or STAGES[self.stage][1] == part

    def frozen(self) -> list[nn.Module]:
        """Return the sub-networks that this stage does not train."""
        return [getattr(self, part) for part in PARTS if not self.learns(part)]

    def train(self, mode: bool = True) -> ThreeStageContrastive:
        """Set training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self.frozen():
            part.train(False)
        return self

    def contrast(self, x: Tensor, kinds: Tensor) -> Tensor:
        """Compute the contrast of x [N, E], which ``kinds`` int64 [N] attract: a scalar in full precision."""
        with full_precision(x):
            loss: Tensor = self.supcon(x.to(torch.promote_types(x.dtype, torch.float32)), kinds)
            return loss

    def fuse(self, h: Tensor, present: Tensor) -> Tensor:
        """Compute z [B, E] of h [B, 3, E], read where bool ``present`` [B, 3]."""
        z: Tensor = self.interaction(h, present)
        return z

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        outputs: Tensor = self.classifier(self.fuse(self.encoders(batch), batch.present))
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of this stage, or all four."""
        wanted = [name for name, _ in STAGES] if self.stage is None else [STAGES[self.stage][0]]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.learns("encoders")):
            whole = batch.unmasked()
            h = self.encoders(whole)
        losses = {}
        if "unimodal" in wanted:
            losses["unimodal"] = self.unimodal(h, whole.present, batch.labels)
        if wanted != ["unimodal"]:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.learns("interaction")):
                views = torch.cat([batch.available[batch.row], batch.present])
                z = self.fuse(h[batch.row].repeat(2, 1, 1), views)
            if "interaction" in wanted:
                losses["interaction"] = self.contrast(z, batch.row.repeat(2))
            if "fusion" in wanted:
                losses["fusion"] = self.contrast(z, batch.label.repeat(2))
            if "cls" in wanted:
                losses["cls"] = self.task.loss(self.classifier(z[len(batch) :]), batch.target)
        idle = [parameter.sum() for part in self.frozen() for parameter in part.parameters()]
        if idle:
            # Several devices would wait for a gradient of each parameter.
            losses[wanted[0]] = losses[wanted[0]] + 0.0 * torch.stack(idle).sum()
        return losses

    def unimodal(self, h: Tensor, known: Tensor, labels: Tensor) -> Tensor:
        """Mean over modalities of the contrast of h [N, 3, E], each over the utterances that have it."""
        terms = [self.contrast(h[known[:, m], m], labels[known[:, m]]) for m in range(len(MODALITIES))]
        return torch.stack(terms).mean() + 0.0 * h.sum()

    def on_train_epoch_start(self) -> None:
        """Begin the stage of this epoch."""
        assert self.trainer.max_epochs is not None
        self.enter(None if self.joint else stage_of(self.current_epoch, self.trainer.max_epochs))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradients of what is frozen: by one of 0 Adam would move it on."""
        for part in self.frozen():
            for parameter in part.parameters():
                parameter.grad = None

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute h [B, 3, E], zeros where a modality is absent."""
        h: Tensor = self.encoders(batch)
        return h.where(batch.present[..., None], 0.0)
