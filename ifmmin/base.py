"""The base of every model: optimisation, evaluation under each condition, and prediction."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from datamodules.base import EmotionDataModule
from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MISSING_CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.needs import EARLIER_TURNS, DataNeeds
from datamodules.ranges import AT_LEAST_1, BELOW_ONE, NOT_NEGATIVE, POSITIVE, check_options
from ifmmin.cards import ModelCard
from ifmmin.finite import FiniteLoss
from ifmmin.optimization import (
    PAPER_UTTERANCES,
    Decay,
    Recipe,
    clip_gradients,
    make_optimizer,
    make_scheduler,
    subnetworks,
)
from ifmmin.sharing.methods import Shared
from ifmmin.tasks import task_of

if TYPE_CHECKING:
    from typing_extensions import Self


class MissingModalityModule(Shared, L.LightningModule, ABC):
    """Base of all models: a subclass writes its networks, ``forward`` and ``losses``.

    A subclass takes its own options by keyword and passes the others on with ``super().__init__(**kwargs)``; after
    that ``self.feature_dims``, ``self.class_names`` and ``self.task`` are there. Options are plain data (str, int,
    float, bool, list, dict), so that checkpoints load without executing anything. An option with a range declares it,
    ``dropout: Annotated[float, BELOW_ONE] = 0.3`` (:mod:`datamodules.ranges`); values outside are refused before any
    network is made.

    The optimiser's options are None by default: the value of the model's :class:`~ifmmin.optimization.Recipe` for
    this corpus.

    Args:
        feature_dims: frame widths of audio, visual, text; follow the corpus.
        class_names: in label order, empty if labels are not classes; follow the corpus.
        task: what is predicted, in plain values (:func:`~ifmmin.tasks.task_of`); follows the corpus. None means
            classification.
        corpus: name of the corpus; some papers give other settings for another corpus.
        monitor: the score that selects the best epoch on validation; follows the corpus (UA for IEMOCAP, F1 for
            MSP-IMPROV).
        learning_rate: full rate.
        beta1: of Adam.
        weight_decay: L2 penalty (Adam) or decoupled decay (AdamW).
        batch_size: utterances per optimiser step, over all devices together.
        constant_epochs: epochs at the full learning rate.
        decay_epochs: epochs of its decay to zero.
        clip_norm: largest gradient norm of each sub-network (not of the whole model).
        optimizer: Adam or AdamW.
        warmup_epochs: epochs of linear increase of the learning rate.
        decay: how the learning rate falls: linear or cosine over ``decay_epochs``, or on a plateau of the monitor.

    Raises:
        InputError: an option is out of range, or the model does not do this task.
    """

    card: ClassVar[ModelCard]
    """Paper, code and family, for tables of models."""

    recipe: ClassVar[Recipe] = Recipe()
    """Optimiser settings."""

    recipes: ClassVar[Mapping[str, Recipe]] = {}
    """Optimiser settings of corpora that the paper treats differently, by corpus name."""

    needs: DataNeeds = DataNeeds()
    """What the model reads of a batch."""

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")
    """Names of the tasks that the model does."""

    loss_weights: dict[str, float]
    """Weight of each term that ``losses`` returns; a term that is not named has weight 1."""

    monitored_row: ClassVar[str] = "pooled"
    """Row of the table that selects the best epoch."""

    validation_conditions: ClassVar[Sequence[str]] = CONDITIONS
    """Conditions under which validation evaluates every utterance."""

    log_prefix: str = ""
    """Prefix of every logged name, for stages that share a logger."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Translate the class attributes of 0.1.0, with a warning."""
        super().__init_subclass__(**kwargs)
        former = {name: vars(cls)[name] for name in ("reads_complete", "reads_steps") if name in vars(cls)}
        if former:
            warnings.warn(
                f"{cls.__name__}: {', '.join(former)} is now needs = DataNeeds(hidden_frames=..., steps=...); "
                "the old attributes go in 0.3",
                FutureWarning,
                stacklevel=2,
            )
            cls.needs = DataNeeds(former.get("reads_complete", cls.needs.hidden_frames), former.get("reads_steps"))

    def __init__(
        self,
        *,
        feature_dims: Annotated[list[int], AT_LEAST_1],
        class_names: list[str] = [],
        task: dict[str, Any] | None = None,
        corpus: str = "IEMOCAP",
        monitor: str | None = None,
        learning_rate: Annotated[float, POSITIVE] | None = None,
        beta1: Annotated[float, BELOW_ONE] | None = None,
        weight_decay: Annotated[float, NOT_NEGATIVE] | None = None,
        batch_size: Annotated[int, AT_LEAST_1] | None = None,
        constant_epochs: Annotated[int, NOT_NEGATIVE] | None = None,
        decay_epochs: Annotated[int, NOT_NEGATIVE] | None = None,
        clip_norm: Annotated[float, POSITIVE] | None = None,
        optimizer: Literal["Adam", "AdamW"] | None = None,
        warmup_epochs: Annotated[int, NOT_NEGATIVE] | None = None,
        decay: Decay | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        # Of subclasses too, before they make networks of them.
        check_options(type(self), self.hparams, f"{type(self).__name__}: ")
        if len(feature_dims) != len(MODALITIES):
            raise InputError(f"feature_dims {list(feature_dims)}: give the widths of {', '.join(MODALITIES)}.")
        self.feature_dims = list(feature_dims)
        self.class_names = list(class_names)
        self.task = task_of(task, class_names)
        if self.task.name not in self.tasks:
            raise InputError(
                f"{type(self).__name__}: does {' and '.join(self.tasks)}, not {self.task.name}; choose another model."
            )
        self.corpus = corpus
        self.monitor = monitor or ("UA" if self.task.name == "classification" else self.task.scores[0].name)
        if self.monitor not in {score.name for score in self.task.scores}:
            known = ", ".join(score.name for score in self.task.scores)
            raise InputError(f"monitor {self.monitor}: the scores of a {self.task.name} are {known}.")
        self.settings = self.recipe_for(corpus).with_options(
            learning_rate=learning_rate,
            beta1=beta1,
            weight_decay=weight_decay,
            batch_size=batch_size,
            constant_epochs=constant_epochs,
            decay_epochs=decay_epochs,
            clip_norm=clip_norm,
            optimizer=optimizer,
            warmup_epochs=warmup_epochs,
            decay=decay,
        )
        """The recipe for this corpus with the options that were given."""
        self.loss_weights = {}
        self.counts = self.task.metric()
        self.mean_loss = MeanMetric()
        self._finite = FiniteLoss(type(self).__name__)
        self._loss_sums: dict[str, Tensor | float] = {}
        self._losses_of = 0
        self.evaluated: Tensor | None = None
        """Counts of the task [7, ...] after validation or test, over all devices."""
        self._validated: Tensor | None = None
        self.temperatures: dict[str, float] = {}
        """Temperature of each condition, fitted on validation after training; none before, nor of a regression."""
        self.trained_on: Mapping[str, Any] | None = None
        """The record of the training data: what was loaded with the weights, or what the last checkpoint says."""
        self.loaded_from: Path | None = None
        """The checkpoint or folder that the weights were loaded from."""

    # What a model writes.

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Compute outputs [B, O] (logits of a classification) of the rows of ``batch`` from what is present in each."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms of the training loss, unweighted scalars.

        ``batch`` has one row per utterance; ``batch.present`` is the training mask, and ``batch.unmasked()`` shows
        the whole utterances as targets (with ``needs.hidden_frames``). Of a corpus with gaps that is not everything:
        where ``batch.available`` is False there is no target, and a loss is the mean over the rows that have one.
        """

    def answers(self, condition: str) -> bool:
        """Whether the model answers under ``condition``; if not, it is reported as "–"."""
        return True

    # What a model may show of its inside, for ``benchmarks.imagination``; None where it has nothing of the kind.

    def modality_embeddings(self, batch: Batch) -> Tensor | None:
        """Compute h [B, 3, E], the embedding of each modality in each row; of what is absent, what the model reads."""
        return None

    def invariant_features(self, batch: Batch) -> Tensor | None:
        """Compute H [B, 3, E], what the model makes of h to tell as little as possible of the modality."""
        return None

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Imagine the embeddings of what is absent in each row.

        Returns:
            what is imagined and what it should have been, each [B, 3, E]. Of the first only the absent modalities
            are read. The second is of the whole utterance, whatever the row may see, and has no gradient.
        """
        return None

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        """Compute further numbers of each row: [B] by the name of their column in files of predictions.

        Called in a test and a prediction, not while fitting. NaN where a number does not apply; such a cell is empty.
        """
        return {}

    # What every model has.

    @classmethod
    def recipe_for(cls, corpus: str) -> Recipe:
        """Optimiser settings for a corpus: its own in ``recipes``, otherwise ``recipe``."""
        return cls.recipes.get(corpus, cls.recipe)

    def option(self, name: str, given: Any) -> Any:
        """Value of an option that differs between corpora: ``given``, or if that is None the recipe's."""
        return self.settings.options[name] if given is None else given

    def loss_over(self, rows: Tensor, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute the task's loss over some rows: bool [B] of outputs [B, O]; 0 with a zero gradient over none."""
        if bool(rows.all()):
            return self.task.loss(outputs, target)
        return self.task.loss(outputs[rows], target[rows]) if bool(rows.any()) else 0.0 * outputs.sum()

    def total_loss(self, losses: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the terms of ``losses``."""
        weighted = [self.loss_weights.get(name, 1.0) * value for name, value in losses.items()]
        return torch.stack(weighted).sum()

    def subnetworks(self) -> Iterator[tuple[str, nn.Module]]:
        """Trainable parts whose gradients are clipped separately, by name; a model may choose others."""
        return subnetworks(self)

    @property
    def remarks(self) -> list[str]:
        """What a table says beside the model's name, so that its row is read as what it is; most models: nothing."""
        return [EARLIER_TURNS] if self.needs.turns else []

    @property
    def monitor_key(self) -> str:
        """Logged name of the score that selects the best epoch."""
        return f"{self.log_prefix}val/{self.monitored_row}/{self.monitor}"

    @property
    def monitor_mode(self) -> Literal["min", "max"]:
        """Direction of "best" of that score."""
        return self.task.mode(self.monitor)

    @property
    def datamodule(self) -> EmotionDataModule | None:
        """The datamodule in use, None if the trainer was given plain loaders."""
        datamodule = getattr(self._trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, EmotionDataModule) else None

    def wanted_conditions(self) -> list[str]:
        """Conditions that the datamodule asks for and the model answers."""
        wanted = CONDITIONS if self.datamodule is None else self.datamodule.conditions
        return [condition for condition in wanted if self.answers(condition)]

    def validated_conditions(self) -> list[str]:
        """Those that validation evaluates, and in any case the one that selects the best epoch."""
        wanted = [condition for condition in self.wanted_conditions() if condition in self.validation_conditions]
        if self.monitored_row in CONDITIONS and self.monitored_row not in wanted:
            wanted.append(self.monitored_row)
        return wanted

    def scheduled(self, datamodule: EmotionDataModule | None, devices: int = 1) -> Recipe:
        """The settings with the number of epochs on a corpus that was set up."""
        if datamodule is None or datamodule.schedule != "steps":
            return self.settings
        # On a small corpus the papers' epochs are too few steps to learn anything: keep their steps.
        batches = datamodule.count_batches("train", self.settings.batch_size, devices)
        return self.settings.scaled((PAPER_UTTERANCES // self.settings.batch_size) / batches)

    # Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Tell the datamodule what this model reads, and the trainer the schedule's length."""
        datamodule = self.datamodule
        if datamodule is not None:
            datamodule.serve(self.needs, self.settings.batch_size)
        if stage != "fit":
            return
        self.temperatures = {}  # of weights that change now
        self.trained_on = self.loaded_from = None  # of what it was loaded from
        if self.monitored_row == "pooled" and not set(self.validated_conditions()) & set(MISSING_CONDITIONS):
            raise InputError(
                f"conditions {', '.join(self.wanted_conditions()) or 'none'}: {type(self).__name__} selects its best "
                "epoch by pooled missing conditions; give at least one of them that it answers."
            )
        if datamodule is not None:
            self._check_validation(datamodule)
        self._scheduled = self.scheduled(datamodule, self.trainer.world_size)
        limit, wanted = self.trainer.max_epochs, self._scheduled.epochs
        # Past the schedule's end the learning rate is zero.
        self.trainer.fit_loop.max_epochs = wanted if limit is None or limit < 0 else min(limit, wanted)

    def _check_validation(self, datamodule: EmotionDataModule) -> None:
        """Refuse a corpus with gaps in which no validation utterance can select the best epoch.

        Raises:
            InputError: it is such a corpus.
        """
        selecting = [self.monitored_row]
        if self.monitored_row not in CONDITIONS:
            selecting = [condition for condition in self.validated_conditions() if condition in MISSING_CONDITIONS]
        needed = CONDITION_TABLE[[CONDITIONS.index(condition) for condition in selecting]]
        available = datamodule.corpus.lengths[datamodule.indices("val")] > 0
        if not bool((available[:, None] | ~needed).all(dim=2).any()):
            raise InputError(
                f"{type(self).__name__} selects its best epoch under {' '.join(selecting)}, but no validation "
                "utterance has all modalities of that; extract what is missing, or choose another model."
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser and schedule of the recipe, stepped once an epoch."""
        optimizer = make_optimizer(self, self.settings, fused=self.trainer.precision != "16-mixed")
        scheduler = make_scheduler(optimizer, self._scheduled, self.monitor_mode)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "epoch", "monitor": self.monitor_key},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each sub-network to the recipe's ``clip_norm``, or to the trainer's value if one is given."""
        norm = self.settings.clip_norm if gradient_clip_val is None else gradient_clip_val
        clip_gradients((part for _, part in self.subnetworks()), norm)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by (seed, step, rank), so that a resumed run draws the same numbers."""
        seed = 0 if self.datamodule is None else self.datamodule.seed
        torch.manual_seed(hash((seed, self.trainer.global_step, self.trainer.global_rank)) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Weighted loss of one mini-batch.

        Raises:
            InputError: it is NaN or infinite, on a CPU; on a GPU :meth:`on_train_epoch_end` says so.
        """
        losses = self.losses(batch)
        total = self.total_loss(losses)
        self._finite.look(total, batch.utterances, self.current_epoch)
        for name, value in {**losses, "loss": total}.items():
            self._loss_sums[name] = self._loss_sums.get(name, 0.0) + len(batch) * value.detach()
        self._losses_of += len(batch)
        if self.trainer.is_last_batch:
            self._log_losses()
        return total

    def _log_losses(self) -> None:
        """Log the mean of each loss over the utterances since the last time; logging every step would be slow."""
        if self._losses_of:
            means = {name: value / self._losses_of for name, value in self._loss_sums.items()}
            named = {f"{self.log_prefix}train/{name}": mean for name, mean in means.items()}
            self.log_dict(named, on_step=False, on_epoch=True, batch_size=self._losses_of, sync_dist=True)
        self._loss_sums, self._losses_of = {}, 0

    def on_train_epoch_end(self) -> None:
        """Abort if the training loss is NaN or infinite.

        Raises:
            InputError: it is, naming the epoch, counted from 1, the batch and its utterances.
        """
        self._log_losses()  # of an epoch that was cut short
        self._finite.conclude(self.current_epoch)
        loss = self.trainer.callback_metrics.get(f"{self.log_prefix}train/loss")
        if loss is not None and not torch.isfinite(loss):
            raise InputError(
                f"{type(self).__name__}: the training loss is {float(loss)} in epoch {self.current_epoch + 1}, on "
                "another device; "
                "lower --model.learning_rate, or look at the corpus with `check`."
            )

    def evaluate(self, batch: Batch, conditions: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Answer every stored utterance under every one of ``conditions`` that its modalities allow.

        Returns:
            outputs [R, O], the stored utterance [R] and the position in CONDITIONS [R] of each answer.
        """
        rows, condition = under_conditions(batch, conditions)
        # Where an utterance has none of the modalities that are asked for, a batch may have no row.
        outputs = self(rows) if len(condition) else condition.new_zeros(0, self.task.outputs, dtype=torch.float32)
        return outputs, rows.row, condition

    def _score(self, batch: Batch, conditions: Sequence[str]) -> dict[str, Tensor]:
        outputs, row, condition = self.evaluate(batch, conditions)
        label = batch.labels[row]
        self.counts.update(outputs, label, condition)
        if len(label):  # the mean over no rows is NaN
            self.mean_loss.update(self.task.loss(outputs.float(), label), weight=len(label))
        return self._answered(batch, outputs, row, condition)

    def _answered(self, batch: Batch, outputs: Tensor, row: Tensor, condition: Tensor) -> dict[str, Tensor]:
        return {
            "index": batch.index[row],
            "condition": condition,
            "label": batch.labels[row],
            "answer": self.task.answers(outputs),
        }

    def _row_columns(self, batch: Batch, conditions: Sequence[str]) -> dict[str, Tensor]:
        """What :meth:`row_values` gives of the rows of :meth:`evaluate`: ``value/NAME`` float32 [R]."""
        rows, condition = under_conditions(batch, conditions)
        found = self.row_values(rows) if len(condition) else {}
        return {f"value/{name}": values.float() for name, values in found.items()}

    def _log_metrics(self, split: str) -> None:
        self.evaluated = self.counts.compute().cpu()
        self.counts.reset()
        loss = self.mean_loss.compute()
        self.mean_loss.reset()
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking and not loss.isfinite():
            # Before a checkpoint of these weights is kept as the best: scores of NaN are numbers too.
            raise InputError(
                f"{type(self).__name__}: the {split} loss is {float(loss)} after epoch {self.current_epoch + 1}; "
                "lower --model.learning_rate, or look at the corpus with `check`."
            )
        self.log(f"{self.log_prefix}{split}/loss", loss)
        for row, scores in self.task.summarise(self.evaluated).items():
            for name, value in scores.items():
                if value is not None:
                    self.log(f"{self.log_prefix}{split}/{row}/{name}", value)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Evaluate under ``validation_conditions``; the answers, as of :meth:`predict_step`."""
        conditions = self.validated_conditions()
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        return self._score(batch, conditions) | ({} if fitting else self._row_columns(batch, conditions))

    def on_validation_epoch_end(self) -> None:
        """Log the task's scores per condition, their mean and pooled."""
        self._log_metrics("val")
        self._validated = self.evaluated

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Evaluate under all conditions; the answers, as of :meth:`predict_step`."""
        conditions = self.wanted_conditions()
        return self._score(batch, conditions) | self._row_columns(batch, conditions)

    def on_test_epoch_end(self) -> None:
        """Log the task's scores per condition, their mean and pooled."""
        self._log_metrics("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Answer under every condition that an utterance allows.

        Returns:
            ``index`` int64 [R] (position in the corpus), ``condition`` int64 [R] (position in CONDITIONS), ``label``
            [R] (-1 or NaN where unknown), ``answer`` float32 [R, P] (probabilities, or a value), and ``value/NAME``
            float32 [R] for each of :meth:`row_values`.
        """
        conditions = self.wanted_conditions()
        return self._answered(batch, *self.evaluate(batch, conditions)) | self._row_columns(batch, conditions)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record which model this is, its recipe, and which data it was trained on, normalisation included."""
        # The registry name: a module path would make checkpoints unreadable when a file moves.
        record: dict[str, Any] = {"model": type(self).__name__, "recipe": self.settings.plain()}
        if self.datamodule is not None:
            record["data"] = self.trained_on = self.datamodule.checkpoint_record()
        if self._validated is not None:
            record["validation"] = self._validated  # the best epoch's scores, without a second evaluation
        if self.temperatures:
            record["temperatures"] = dict(self.temperatures)
        checkpoint["ifmmin"] = record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Have evaluation and prediction normalise as the training data was; take the temperatures."""
        record = checkpoint.get("ifmmin", {})
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            return
        self.temperatures = dict(record.get("temperatures", {}))
        if self._trainer is not None and self.datamodule and record.get("data"):
            self.datamodule.adopt_preprocessing(record["data"])

    # Saving and loading.

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a model that :meth:`save_pretrained` wrote, in eval mode on the CPU; nothing in it is executed.

        Args:
            source: its folder, ``org/name`` on the Hugging Face Hub (needs the extra ``hub``), or ``"synthetic"`` or
                ``"privileged"``, which come with the library.
            revision: branch, tag or commit on the Hub.
            token: of the Hub, for private models.
            local_files_only: ask no network.

        Returns:
            a model of this class; of any installed class if this is the base of all models.

        Raises:
            InputError: it is not there or damaged, or its model is another, or is not installed.
        """
        from ifmmin.checkpoints.loading import load_saved
        from ifmmin.sharing.hub import located

        folder = located(source, revision=revision, token=token, local_files_only=local_files_only)
        made = load_saved(folder, None if cls is MissingModalityModule else cls)
        assert isinstance(made, cls)
        return made

    def _saved(self) -> tuple[MissingModalityModule, None]:
        return self, None
