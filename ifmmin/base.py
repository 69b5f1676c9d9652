"""What every model shares: optimiser, schedule, clipping, per-condition evaluation and prediction."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from datamodules.base import EmotionDataModule
from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from datamodules.memory import keep_free_memory
from ifmmin.tasks import Classification

PAPER_UTTERANCES = 4500
"""About as many training utterances as a fold of IEMOCAP has; the papers' epoch counts assume it."""


def constant_then_linear(constant_epochs: int, decay_epochs: int) -> Callable[[int], float]:
    """The public schedule: the full learning rate for some epochs, then a straight line to zero.

    Args:
        constant_epochs: n, epochs at the full rate.
        decay_epochs: m; epoch n + i (i = 0..m-1) has the factor 1 - (i + 1) / (m + 1), so that zero
            is reached just after the last epoch and none is wasted on it.

    Returns:
        the factor as a function of the epoch, counted from 0.

    >>> [round(constant_then_linear(2, 3)(epoch), 2) for epoch in range(5)]
    [1.0, 1.0, 0.75, 0.5, 0.25]
    """
    return lambda epoch: max(0.0, 1.0 - max(0, epoch + 1 - constant_epochs) / (decay_epochs + 1))


def _total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all their gradients together."""
    return nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])


class MissingModalityModule(L.LightningModule, ABC):
    """Base of all models: a subclass writes its networks, ``forward`` and ``losses``.

    The subclass passes what it does not use itself on to ``super().__init__(**kwargs)``. Everything
    it is given must be plain data (str, int, float, bool, list, dict), so that checkpoints load
    without executing anything.

    Args:
        feature_dims: frame widths of audio, visual, text; follow the corpus.
        class_names: in label order; follow the corpus.
        corpus: name of the corpus; some papers give other settings for another corpus.
        monitor: the metric that selects the best epoch on validation: ``UA``, ``WA`` or ``F1``;
            follows the corpus (UA for IEMOCAP, F1 for MSP-IMPROV).
        batch_size: utterances per optimiser step, over all devices together.
        learning_rate: of Adam.
        beta1: of Adam.
        weight_decay: of Adam (L2).
        constant_epochs: epochs at the full learning rate.
        decay_epochs: epochs of its linear decay to zero.
        clip_norm: largest gradient norm of each sub-network (not of the whole model).

    Raises:
        InputError: ``batch_size`` is below 1.
    """

    loss_weights: dict[str, float]
    """Weight of each term that ``losses`` returns; a term not named has weight 1."""

    monitored_row: ClassVar[str] = "pooled"
    """Which row of the table selects the best epoch."""

    validation_conditions: ClassVar[Sequence[str]] = CONDITIONS
    """Conditions under which validation evaluates every utterance."""

    reads_complete: ClassVar[bool] = True
    """Whether ``losses`` reads ``batch.complete()``; where it does not, what is masked is not even loaded."""

    reads_steps: int | None = None
    """S, where nothing but :func:`~datamodules.batches.pooling.pool_steps` of each sequence to S steps is read:
    the batches of a datamodule then hold these steps as frames, pooled while they are gathered."""

    log_prefix: ClassVar[str] = ""
    """Stands before every logged name, to keep apart stages that share a logger."""

    def __init__(
        self,
        feature_dims: list[int],
        class_names: list[str],
        corpus: str = "IEMOCAP",
        monitor: str = "UA",
        batch_size: int = 128,
        learning_rate: float = 2e-4,
        beta1: float = 0.9,
        weight_decay: float = 0.0,
        constant_epochs: int = 20,
        decay_epochs: int = 20,
        clip_norm: float = 1.0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: it must be at least 1.")
        self.save_hyperparameters()
        self.feature_dims = list(feature_dims)
        self.class_names = list(class_names)
        self.num_classes = len(class_names)
        self.corpus = corpus
        self.monitor = monitor
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.weight_decay = weight_decay
        self.constant_epochs = constant_epochs
        self.decay_epochs = decay_epochs
        self.clip_norm = clip_norm
        self.loss_weights = {}
        self.task = Classification(class_names)
        self.counts = self.task.metric()
        self.mean_loss = MeanMetric()
        self._loss_sums: dict[str, Tensor | float] = {}
        self._losses_of = 0
        self.evaluated: Tensor | None = None
        """int64 [7, C, C] after validation or test: the confusion matrices over all devices."""

    # What a model writes.

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C] of the rows of ``batch``, from nothing but what is present in each."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the training loss, unweighted scalars.

        ``batch`` has one row per utterance; the complete utterances are there as targets
        (``batch.complete()``, with ``reads_complete``), and ``batch.present`` is the training mask.
        """

    def _wanted_conditions(self) -> list[str]:
        """The conditions that the datamodule asks for and the model answers."""
        wanted = CONDITIONS if self.datamodule is None else self.datamodule.conditions
        return [condition for condition in wanted if self.answers(condition)]

    def _validated_conditions(self) -> list[str]:
        """Those of them that validation evaluates, and in any case the one that selects the best epoch."""
        wanted = [condition for condition in self._wanted_conditions() if condition in self.validation_conditions]
        if self.monitored_row in CONDITIONS and self.monitored_row not in wanted:
            wanted.append(self.monitored_row)
        return wanted

    def answers(self, condition: str) -> bool:
        """Whether the model can say anything under ``condition``; otherwise it is reported as "–"."""
        return True

    # What every model has.

    def total_loss(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the terms of ``losses``."""
        weighted = [self.loss_weights.get(name, 1.0) * value for name, value in losses.items()]
        return torch.stack(weighted).sum()

    def subnetworks(self) -> Iterator[tuple[str, nn.Module]]:
        """The trainable parts whose gradients are clipped separately, as in the published code."""
        for name, child in self.named_children():
            parts = child.items() if isinstance(child, nn.ModuleDict) else [("", child)]
            for key, part in parts:
                if any(parameter.requires_grad for parameter in part.parameters()):
                    yield f"{name}.{key}".rstrip("."), part

    @cached_property
    def _clipped_together(self) -> list[list[nn.Parameter]]:
        # Looked up once: to walk through the modules at every step would take as long as to clip.
        return [list(part.parameters()) for _, part in self.subnetworks()]

    @property
    def monitor_key(self) -> str:
        """The logged name of the metric that selects the best epoch."""
        return f"{self.log_prefix}val/{self.monitored_row}/{self.monitor}"

    @property
    def total_epochs(self) -> int:
        """Epochs of the schedule."""
        return self.constant_epochs + self.decay_epochs

    @property
    def datamodule(self) -> EmotionDataModule | None:
        """The datamodule in use, or None where plain loaders were given to the trainer."""
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, EmotionDataModule) else None

    def setup(self, stage: str) -> None:
        """Tell the datamodule what this model reads and the trainer the schedule's length; keep freed memory."""
        keep_free_memory()
        datamodule = self.datamodule
        if datamodule is not None:
            datamodule.recipe_batch_size = self.batch_size
            datamodule.recipe_complete = self.reads_complete
            datamodule.recipe_steps = self.reads_steps
        if stage != "fit":
            return
        if self.monitored_row == "pooled" and not set(self._validated_conditions()) & set(MISSING_CONDITIONS):
            raise InputError(
                f"conditions {', '.join(self._wanted_conditions()) or 'none'}: {type(self).__name__} selects its best "
                "epoch by pooled missing conditions; give at least one of them that it answers."
            )
        scale = 1.0
        if datamodule is not None and datamodule.schedule == "steps":
            # On a small corpus the papers' epochs are too few steps to learn anything: keep their steps.
            scale = (PAPER_UTTERANCES // self.batch_size) / datamodule.train_batches()
        constant, decay = (math.ceil(n * scale) for n in (self.constant_epochs, self.decay_epochs))
        self._factor = constant_then_linear(constant, decay)
        limit = self.trainer.max_epochs
        wanted = constant + decay
        # Past its end the schedule's learning rate is zero, so there is nothing to train for.
        self.trainer.fit_loop.max_epochs = wanted if limit is None or limit < 0 else min(limit, wanted)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with the schedule of :func:`constant_then_linear`, stepped once an epoch."""
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # Under float16 a fused step would take the loss scale out only after our clipping.
        fused = self.trainer.precision != "16-mixed"
        optimizer = torch.optim.Adam(
            trainable, lr=self.learning_rate, betas=(self.beta1, 0.999), weight_decay=self.weight_decay, fused=fused
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        vars(self).pop("_clipped_together", None)  # other parts may be trained than in an earlier fit
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each sub-network to ``clip_norm``, or to the trainer's value where one is given."""
        norm = self.clip_norm if gradient_clip_val is None else gradient_clip_val
        # PyTorch multiplies by min(1, norm / (total + 1e-6)): where that is 1, it is left out, but a GPU is not
        # asked, since its answer takes long. No part's gradient is longer than that of all.
        asked = self.device.type == "cpu"
        if asked and _total_norm(chain.from_iterable(self._clipped_together)) + 1e-6 <= norm:
            return
        for parameters in self._clipped_together:
            total = _total_norm(parameters)
            if not (asked and total + 1e-6 <= norm):
                nn.utils.clip_grads_with_norm_(parameters, norm, total)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by (seed, step, rank), so that a resumed run draws what it would have drawn."""
        seed = 0 if self.datamodule is None else self.datamodule.seed
        seed = hash((seed, self.trainer.global_step, self.trainer.global_rank)) % 2**63
        # torch.manual_seed also prepares every other kind of device, a millisecond each time.
        (torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed)(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted loss of one mini-batch."""
        losses = self.losses(batch)
        total = self.total_loss(losses)
        for name, value in {**losses, "loss": total}.items():
            self._loss_sums[name] = self._loss_sums.get(name, 0.0) + len(batch) * value.detach()
        self._losses_of += len(batch)
        if self.trainer.is_last_batch:
            self._log_losses()
        return total

    def _log_losses(self) -> None:
        """Log the mean of each loss over the utterances since the last time; at every step it would take too long."""
        if self._losses_of:
            means = {name: value / self._losses_of for name, value in self._loss_sums.items()}
            named = {f"{self.log_prefix}train/{name}": mean for name, mean in means.items()}
            self.log_dict(named, on_step=False, on_epoch=True, batch_size=self._losses_of, sync_dist=True)
        self._loss_sums, self._losses_of = {}, 0

    def on_train_epoch_end(self) -> None:
        """Stop where the loss is no number any more, instead of training on it."""
        self._log_losses()  # of an epoch that was cut short
        loss = self.trainer.callback_metrics.get(f"{self.log_prefix}train/loss")
        if loss is not None and not torch.isfinite(loss):
            raise InputError(
                f"{type(self).__name__}: the training loss is {float(loss)} in epoch {self.current_epoch}; "
                "lower --model.learning_rate, or look at the corpus with `check`."
            )

    def evaluate(self, batch: Batch, conditions: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Answer every stored utterance under every one of ``conditions`` that its modalities allow.

        Returns:
            logits [R, C], the stored utterance [R] and the position in CONDITIONS [R] of each answer.
        """
        rows, condition = under_conditions(batch, conditions)
        return self(rows), rows.row, condition

    def _score(self, batch: Batch, conditions: Sequence[str], split: str) -> None:
        logits, row, condition = self.evaluate(batch, conditions)
        label = batch.labels[row]
        self.counts.update(logits, label, condition)
        self.mean_loss.update(F.cross_entropy(logits.float(), label), weight=len(label))

    def _conclude(self, split: str) -> None:
        self.evaluated = self.counts.compute().cpu()
        self.counts.reset()
        self.log(f"{self.log_prefix}{split}/loss", self.mean_loss.compute())
        self.mean_loss.reset()
        for row, scores in self.task.summarise(self.evaluated).items():
            for metric, value in scores.items():
                if isinstance(value, float) and metric in ("WA", "UA", "F1"):
                    self.log(f"{self.log_prefix}{split}/{row}/{metric}", value)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate under ``validation_conditions``."""
        self._score(batch, self._validated_conditions(), "val")

    def on_validation_epoch_end(self) -> None:
        """Log WA, UA and F1 per condition, their mean and pooled."""
        self._conclude("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate under all seven conditions."""
        self._score(batch, self._wanted_conditions(), "test")

    def on_test_epoch_end(self) -> None:
        """Log WA, UA and F1 per condition, their mean and pooled."""
        self._conclude("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Probabilities under every condition that an utterance allows.

        Returns:
            ``index`` int64 [R] (position in the corpus), ``condition`` int64 [R] (position in
            CONDITIONS), ``label`` int64 [R] (-1 where unknown) and ``probability`` float32 [R, C].
        """
        logits, row, condition = self.evaluate(batch, self._wanted_conditions())
        return {
            "index": batch.index[row],
            "condition": condition,
            "label": batch.labels[row],
            "probability": logits.float().softmax(dim=1),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record which model this is and which data it was trained on, normalisation included."""
        # The registry name: a module path would make checkpoints unreadable when a file moves.
        record: dict[str, Any] = {"model": type(self).__name__}
        if self.datamodule is not None:
            record["data"] = self.datamodule.facts()
        checkpoint["ifmmin"] = record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Have evaluation and prediction normalise as the training data was."""
        data = checkpoint.get("ifmmin", {}).get("data")
        if data and self._trainer is not None and self.trainer.state.fn != TrainerFn.FITTING and self.datamodule:
            self.datamodule.adopt_preprocessing(data)
