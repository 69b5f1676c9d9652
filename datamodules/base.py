"""The LightningDataModule that every corpus shares."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.batches.batch import Batch
from datamodules.batches.loading import IntArray, Normalization, RequestSampler, UtteranceDataset
from datamodules.batches.masks import DEFAULT_MASK, mask_sampler
from datamodules.batches.orders import batch_order
from datamodules.batches.patterns import EVALUATED_WITH, FramePattern, frame_pattern
from datamodules.classes import ChosenClasses
from datamodules.conditions import CONDITIONS
from datamodules.errors import CorpusError, InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import AT_LEAST_1, NOT_EMPTY, Range, check_options
from datamodules.records import other_recipes, read_extraction, recorded_statistics, statistics_of, with_widths
from datamodules.storage.corpus import Corpus, feature_dims, fingerprint, read_corpus, train_moments, train_statistics
from datamodules.storage.description import Description, description_path, read_description
from datamodules.storage.folds import check_speakers, copied_fold, labels_of, positions_of, with_features
from datamodules.storage.ids import EXACT, MatchRule
from datamodules.storage.layouts import Incomplete, Layout
from datamodules.storage.problems import Strict
from datamodules.storage.statistics import Statistics, unlike_shipped
from datamodules.storage.targets import SPLITS, Targets, left_out_by_choice, read_targets
from datamodules.storage.turns import corpus_turns, turns_bytes
from datamodules.text import printable

DEFAULT_BUDGET_GB = 0.5

MOST_WORKERS = 1_000
"""Processes that may prepare batches."""


warn_rank_zero = rank_zero_only(logging.getLogger("ifmmin").warning)
"""Log a warning, on the first device only."""


def expanded(root: str) -> Path:
    """Path of a corpus's folder, with ``~`` written out.

    Raises:
        InputError: there is no such user, or no file system takes such a path.
    """
    try:
        path = Path(root).expanduser()
        path.exists()
        return path
    except OSError as error:
        raise InputError(f"--data.root {printable(root)}: {error.strerror}.") from error
    except RuntimeError as error:
        raise InputError(f"--data.root {root}: there is no such home folder.") from error


class EmotionDataModule(L.LightningDataModule):
    """A feature corpus with masks: reading, checking, normalising, batching.

    A subclass sets ``layout``, or reads it in :meth:`layout_of`; ``monitor`` (the metric that selects models) and
    ``schedule`` (whether the papers' epochs apply to a corpus of this size).

    Args:
        root: folder of the features and targets.
        fold: 1 to the number of folds.
        audio_features: name of the audio features: the file ``A/<name>.h5``; None: as ``corpus.json`` says, or the
            public pack's.
        visual_features: name of the visual features: the file ``V/<name>.h5``.
        text_features: name of the text features: the file ``L/<name>.h5``.
        audio_normalization: ``train`` (statistics of the fold's training frames), ``utterance``
            (each utterance's own) or ``none``.
        visual_normalization: the same for visual frames.
        text_normalization: the same for text.
        batch_size: utterances per optimiser step over all devices together; None: the model's own.
        eval_batch_size: utterances per evaluation batch.
        workers: processes that prepare batches; 0 prepares them in the training process.
        memory_budget_gb: memory for features, in GB (10^9 bytes) per process; the default keeps a run below 1.5 GB.
            Larger corpora are streamed from disk, with identical results, and about as fast unless compressed.
        train_mask: what an utterance shows in training, drawn anew each epoch: ``uniform`` (one of the six missing
            conditions, uniformly), a missing rate such as ``0.3``, those of audio, visual and text such as
            ``0.2,0.5,0.8``, a missing share such as ``share:0.3``, or one of the seven conditions for all.
        permanent_mask: draw ``train_mask`` and ``train_pattern`` once for all epochs, so that an utterance always shows
            the same.
        train_pattern: what becomes in training of the frames that an utterance shows, drawn anew each epoch:
            ``frames:0.3`` (each lost with this probability), ``bursts:0.3`` or ``bursts:0.3:5`` (as many, in bursts of
            a mean length, by default 10), ``noise:0.5`` (of this standard deviation, in units of that of the training
            frames), with one rate or those of audio, visual and text. None: nothing.
        eval_pattern: the same for validation, test and prediction, the same in every epoch.
        conditions: the conditions that validation and test evaluate.
        predict_split: what ``predict`` reads: ``train``, ``val`` or ``test`` of the fold, or ``all``
            utterances in the feature files, which needs no targets. None: ``test``, or ``all`` where
            the corpus has no targets.
        allow_shared_speakers: do not refuse a fold whose training speakers are also evaluated.
        match_ids: how ids of target files are those of feature files: ``exact``, or overlooking a ``suffix`` such as
            .wav, ``blanks`` around them, a leading ./ or ``folder``, upper and lower ``case``, ``accents`` in one
            character or two, or ``all`` of these.
        classes: which classes are told apart, in label order: a list, or text with commas, of names such as ``angry``,
            of classes to merge such as ``happy+excited``, and of those with a name of their own such as
            ``joy=happy+excited``. Utterances of other classes are left out and counted. None: those of the corpus.
        label_names: what the columns or numbers of the label files are called, in their order. None: as the corpus
            calls them; ``classes`` that has all of those and more, and merges none, names them too.
        drop_unknown_labels: leave out utterances of no class (-1) or of one that the corpus does not have.
        zero_frames_absent: take a modality as missing where an utterance has only zero frames of it, as in the public
            IEMOCAP pack where no face was found.
        incomplete: what becomes of utterances of train, val and test that lack a modality, as where no face was found.
            ``refuse``: an error, unless it is one that ``zero_frames_absent`` found: published protocols have complete
            utterances only, and a missing entry is mostly a mistake, so that neither another protocol nor fewer
            utterances come about unnoticed. ``drop``: they are left out. ``keep``: all that have at least one
            modality are used; a training mask hides some of what is there, and a condition is evaluated on the
            utterances that have all its modalities, so that conditions count different numbers of utterances. None:
            ``keep`` where ``corpus.json`` says that such utterances are there on purpose, otherwise ``refuse``.
        withhold_test: leave the test split unread: neither its files of labels and ids nor its utterances' frames are,
            and whoever asks for it is refused. For searches, whose choices it must not reach; training and validation
            are the same bit for bit.
        seed: of masks and order.

    Raises:
        CorpusError: the corpus is missing or not in the layout.
        InputError: there is no such fold, or an option is out of range.
    """

    layout: ClassVar[Layout]
    monitor: str = "UA"
    """The metric that selects the best epoch on validation."""
    schedule: ClassVar[Literal["epochs", "steps"]] = "epochs"
    """Train for the papers' number of epochs, or for the number of optimiser steps that they took."""
    synthetic: bool = False
    """Whether the data are generated; such results are never shown as those of a real corpus."""

    def __init__(
        self,
        root: str,
        fold: int = 1,
        audio_features: str | None = None,
        visual_features: str | None = None,
        text_features: str | None = None,
        audio_normalization: Normalization = "train",
        visual_normalization: Normalization = "none",
        text_normalization: Normalization = "none",
        batch_size: Annotated[int, AT_LEAST_1] | None = None,
        eval_batch_size: Annotated[int, AT_LEAST_1] = 256,
        workers: Annotated[int, Range(0, MOST_WORKERS)] = 0,
        memory_budget_gb: float = DEFAULT_BUDGET_GB,
        train_mask: str = DEFAULT_MASK,
        permanent_mask: bool = False,
        train_pattern: str | None = None,
        eval_pattern: str | None = None,
        conditions: Annotated[Sequence[str], NOT_EMPTY] = CONDITIONS,
        predict_split: Literal["train", "val", "test", "all"] | None = None,
        allow_shared_speakers: bool = False,
        match_ids: MatchRule = EXACT,
        classes: Annotated[Sequence[str] | str, NOT_EMPTY] | None = None,
        label_names: Annotated[Sequence[str] | str, NOT_EMPTY] | None = None,
        drop_unknown_labels: bool = False,
        zero_frames_absent: bool = False,
        incomplete: Incomplete | None = None,
        withhold_test: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        options = {name: value for name, value in locals().items() if name != "self"}
        check_options(EmotionDataModule, options, "--data.")
        self.root = expanded(root)
        self.corpus_layout = self.layout_of(options)
        self.synthetic = self.synthetic or self.corpus_layout.invented
        self.fold = fold
        self.normalization = (audio_normalization, visual_normalization, text_normalization)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.workers = workers
        self.memory_budget_gb = memory_budget_gb
        self.train_mask, self.permanent_mask = train_mask, permanent_mask
        self.mask = mask_sampler(train_mask)
        self.train_pattern = frame_pattern(train_pattern, "--data.train_pattern")
        self.eval_pattern = frame_pattern(eval_pattern, "--data.eval_pattern")
        self.conditions = tuple(conditions)
        has_folds = self.corpus_layout.folds > 0 and (self.root / "target").is_dir()
        self.predict_split = predict_split or ("test" if has_folds else "all")
        self.allow_shared_speakers = allow_shared_speakers
        self.incomplete = self.corpus_layout.incomplete
        self.withhold_test = withhold_test
        self.seed = seed
        if not memory_budget_gb >= 0:
            raise InputError(f"memory_budget_gb {memory_budget_gb}: it must be at least 0.")
        if unknown := [condition for condition in self.conditions if condition not in CONDITIONS]:
            raise InputError(f"condition {unknown[0]!r}: choose among {', '.join(CONDITIONS)}.")
        if len(set(self.conditions)) < len(self.conditions):
            raise InputError(f"--data.conditions {', '.join(self.conditions)}: give each condition once.")
        if self.corpus_layout.folds:
            self.corpus_layout.target_folder(self.root, fold)  # refuses a fold that does not exist
        self.feature_dims = self.read_feature_dims()
        self.class_names = list(self.corpus_layout.class_names)
        self.task = self.corpus_layout.labels.task
        """What is predicted, in plain values."""
        self.corpus_name = self.corpus_layout.name
        if self.corpus_layout.monitor is not None:
            self.monitor = self.corpus_layout.monitor
        self._needs, self._model_batch_size = DataNeeds(), 128
        self.targets: dict[str, Targets] | None = None
        self._corpus: Corpus | None = None
        self._labels = torch.empty(0, dtype=self.corpus_layout.labels.dtype)
        self._soft_labels: Tensor | None = None
        self._turns: IntArray | None = None
        self._widths = list(self.feature_dims)
        self._position: dict[str, int] = {}
        self._statistics: tuple[Statistics | None, ...] | None = None
        self._spreads: list[Tensor] | None = None
        self._fingerprint: str | None = None
        self._extraction: dict[str, dict[str, Any]] | None = None
        self.after_batch: Callable[[], None] | None = None
        """Called after each batch that this process gathers; a program that caps its memory sets it."""

    def serve(self, needs: DataNeeds, batch_size: int) -> None:
        """Load what a model reads, and no more.

        Args:
            needs: what it reads.
            batch_size: its own, used unless the datamodule was given one.
        """
        self._needs, self._model_batch_size = needs, batch_size

    @property
    def invented(self) -> bool:
        """Whether the recordings are made up, in the form of a corpus; the corpus itself says so."""
        return self.corpus_layout.invented

    # Reading.

    @classmethod
    def locate(cls, options: Mapping[str, Any]) -> Path:
        """Folder of the corpus that these options mean.

        Args:
            options: of this class, by name, all of them.

        Raises:
            InputError: there is no such place.
        """
        return expanded(options.get("root") or "")

    @classmethod
    def layout_of(cls, options: Mapping[str, Any]) -> Layout:
        """What the corpus that these options mean looks like: its name, files, classes and folds.

        Whoever needs to know it before, or without, a datamodule asks here, for a class alone need not know.

        Args:
            options: of this class, by name, or some of them; ``root`` is the folder that :meth:`locate` gives.

        Raises:
            CorpusError: the corpus's ``corpus.json`` is damaged, or describes a corpus of another class.
            InputError: there is no such place.
        """
        described = cls.described(options)
        layout: Layout | None = getattr(cls, "layout", None)
        if layout is None:
            raise InputError(f"{cls.__name__}: has no layout, so its files are unknown; see docs/add_a_corpus.md.")
        if described is not None:
            layout = replace(
                layout.with_features(**described.feature_names),
                invented=described.invented,
                incomplete=described.incomplete or layout.incomplete,
            )
        return layout.with_options(options)

    @classmethod
    def layout_meant(cls, options: Mapping[str, Any]) -> Layout:
        """:meth:`layout_of`, also where the class sets its folder itself and has no option ``root``."""
        return cls.layout_of(options) if "root" in options else cls(**options).corpus_layout

    @classmethod
    def described(cls, options: Mapping[str, Any]) -> Description | None:
        """What the corpus that these options mean says of itself; None if it says nothing. Errors as above."""
        if not options.get("root"):
            return None
        root = expanded(options["root"])
        found = read_description(root)
        if found is not None and found.corpus not in [owner.__name__ for owner in cls.__mro__]:
            what = f"describes a corpus of {found.corpus}, not of {cls.__name__}"
            Strict().add(description_path(root), what, f"give --data {found.corpus}, or move the file away")
        return found

    def read_feature_dims(self) -> list[int]:
        """Find the widths of audio, visual and text frames; 0 without a file."""
        try:
            return feature_dims(self.root, self.corpus_layout)
        except OSError as error:
            raise CorpusError(f"{printable(error.filename)}: {error.strerror}; check the feature names.") from error

    def setup(self, stage: str) -> None:
        """Read and check targets and features, once."""
        if self.withhold_test and (stage == "test" or (stage == "predict" and self.predict_split in ("test", "all"))):
            raise self._withheld()
        if stage == "predict" and self.predict_split == "all":
            self._set_corpus(self._read(None, require_all=False), None)
            return
        if self.targets is None:
            splits = tuple(split for split in SPLITS if split != "test" or not self.withhold_test)
            targets = read_targets(self.root, self.corpus_layout, self.fold, splits=splits)
            if not self.withhold_test:  # it compares with the test split
                if copied := copied_fold(self.root, self.corpus_layout, self.fold):
                    warn_rank_zero(copied)
                if not (self.allow_shared_speakers or self.corpus_layout.speakers_shared):
                    check_speakers(self.root, self.corpus_layout, self.fold, targets)
            utterances = [name for split in targets.values() for name in split.utterances]
            # Prediction may do without a modality, training and scores where the user says so.
            corpus = self._read(utterances, require_all=stage != "predict")
            kept = with_features(self.root, self.corpus_layout, self.fold, targets, corpus.utterances)
            self._set_corpus(corpus, kept)
            if dropped := sum(split.dropped for split in targets.values()):
                folder = self.corpus_layout.target_folder(self.root, self.fold)
                warn_rank_zero(f"{folder}: {dropped} utterances have no known label; they are left out.")
            if chosen := left_out_by_choice(targets):
                warn_rank_zero(f"{self.corpus_layout.target_folder(self.root, self.fold)}: {chosen}.")

    def _read(self, utterances: Sequence[str] | None, require_all: bool) -> Corpus:
        budget = self.memory_budget_gb * 1e9
        return read_corpus(self.root, self.corpus_layout, utterances, require_all=require_all, memory_budget=budget)

    def _set_corpus(self, corpus: Corpus, targets: dict[str, Targets] | None) -> None:
        self._corpus, self.targets, self._turns = with_widths(corpus, self._widths), targets, None
        self._position = {name: position for position, name in enumerate(corpus.utterances)}
        self._labels, self._soft_labels = labels_of(targets or {}, self._position, self.corpus_layout.labels)
        for note in corpus.notes:
            warn_rank_zero(note)

    @property
    def corpus(self) -> Corpus:
        """The corpus in use.

        Raises:
            RuntimeError: before ``setup``.
        """
        if self._corpus is None:
            raise RuntimeError("the datamodule is used before setup()")
        return self._corpus

    @property
    def corpus_size(self) -> int:
        """The number of utterances in use, above every ``Batch.index``."""
        return len(self.corpus.utterances)

    def indices(self, split: str) -> IntArray:
        """int64 [n]: the positions of a split (``train``, ``val``, ``test`` or ``all``) in the corpus.

        Raises:
            InputError: it is the test split, which is withheld.
        """
        if split == "all" or self.targets is None:
            return np.arange(self.corpus_size)
        if split == "test" and self.withhold_test:
            raise self._withheld()
        return positions_of(self.targets[split], self._position)

    def _withheld(self) -> InputError:
        return InputError(
            f"{self.corpus_layout.target_folder(self.root, self.fold)}: --data.withhold_test keeps the test split from "
            "being read; leave it out, or give fit --test false."
        )

    @property
    def turns(self) -> IntArray:
        """int64 [N, 3]: chain, position and step of each utterance in use, as in a batch.

        Raises:
            CorpusError: neither ids nor ``turns.csv`` say them, or that file is damaged.
        """
        if self._turns is None:
            splits = ["all"] if self.targets is None else [*self.targets]
            self._turns = corpus_turns(self.corpus, self.corpus_layout, [self.indices(split) for split in splits])
        return self._turns

    # Statistics and the checkpoint record.

    @property
    def statistics(self) -> tuple[Statistics | None, ...]:
        """Training statistics of each modality whose normalisation needs them, otherwise None.

        Raises:
            CorpusError: they are needed, but without targets the training utterances are unknown.
        """
        if self._statistics is None:
            needed = [
                how == "train" and dim > 0 for how, dim in zip(self.normalization, self.feature_dims, strict=True)
            ]
            if any(needed) and self.targets is None:
                raise CorpusError(
                    f"{self.root}: no targets, so no training statistics to normalise by; "
                    "predict with a checkpoint, which stores them."
                )
            train = self.indices("train")
            self._statistics = tuple(
                train_statistics(frames, train) if wanted else None
                for frames, wanted in zip(self.corpus.frames, needed, strict=True)
            )
            path, all_used = self.corpus_layout.statistics_path(self.root), not left_out_by_choice(self.targets or {})
            for note in unlike_shipped(self._statistics[0], path, self.fold, all_used):
                warn_rank_zero(note)
        return self._statistics

    @property
    def spreads(self) -> list[Tensor]:
        """float32 [D] of each modality: the standard deviation of each value over the training frames, 0 if constant.

        Raises:
            CorpusError: without targets the training utterances are unknown.
        """
        if self._spreads is None:
            if self.targets is None:
                raise CorpusError(
                    f"{self.root}: no targets, so no training frames to measure noise by; leave "
                    "--data.eval_pattern out."
                )
            train = self.indices("train")
            self._spreads = [train_moments(frames, train).spread() for frames in self.corpus.frames]
        return self._spreads

    @property
    def fingerprint(self) -> str:
        """Hash of all ids, labels, splits and frames in use, and of what no class says of their meaning."""
        if self._fingerprint is None:
            layout = self.corpus_layout
            stated = layout.description is not None or isinstance(layout.labels, ChosenClasses)
            meaning = [self.corpus_name, self.class_names, self.task, self.monitor] if stated else None
            self._fingerprint = fingerprint(self.corpus, self.targets, meaning, turns_bytes(self.root))
        return self._fingerprint

    @property
    def extraction(self) -> dict[str, dict[str, Any]]:
        """How the features were made, by modality, as far as their files say so."""
        if self._extraction is None:
            self._extraction = read_extraction(self.root, self.corpus_layout)
        return self._extraction

    def checkpoint_record(self) -> dict[str, Any]:
        """Describe the training data for a checkpoint, in plain values and tensors."""
        return {
            "name": self.corpus_name,
            "fold": self.fold,
            "seed": self.seed,
            "feature_names": list(self.corpus_layout.feature_names),
            "feature_dims": list(self.feature_dims),
            "class_names": list(self.class_names),
            "task": dict(self.task),
            "normalization": list(self.normalization),
            "statistics": recorded_statistics(self.statistics),
            "incomplete": self.incomplete,
            "fingerprint": self.fingerprint,
            "synthetic": self.synthetic,
            "invented": self.invented,
            "masking": {
                "train_mask": self.train_mask,
                "permanent_mask": self.permanent_mask,
                "train_pattern": None if self.train_pattern is None else str(self.train_pattern),
            },
            **({"extraction": self.extraction} if self.extraction else {}),
        }

    def adopt_preprocessing(self, record: Mapping[str, Any]) -> None:
        """Normalise with a checkpoint's statistics instead of this corpus's own.

        Args:
            record: from :meth:`checkpoint_record` of the datamodule that was trained on.
        """
        audio, visual, text = record["normalization"]
        self.normalization = (audio, visual, text)
        self._widths = list(record["feature_dims"])
        if self._corpus is not None:
            self._corpus = with_widths(self._corpus, self._widths)
        self._statistics = statistics_of(record)
        trained = record.get("extraction") or {}
        for note in other_recipes(self.root, self.corpus_layout, trained, self.extraction, self.feature_dims):
            warn_rank_zero(note)

    # Batches.

    def _dataset(self, training: bool, pattern: FramePattern | None) -> UtteranceDataset:
        return UtteranceDataset(
            self.corpus,
            self._labels,
            self.normalization,
            self.statistics,
            mask=self.mask if training else None,
            seed=self.seed,
            hidden_frames=self._needs.hidden_frames or not training,
            steps=self._needs.steps,
            soft_labels=self._soft_labels,
            # Evaluation is the same after every epoch.
            permanent=self.permanent_mask or not training,
            turns=torch.from_numpy(self.turns) if self._needs.turns else None,
            pattern=pattern,
            spreads=self.spreads if pattern is not None and pattern.before_normalisation else None,
        )

    def _batches(self, split: str, training: bool, batch_size: int, rank: int = 0, devices: int = 1) -> RequestSampler:
        """The order of a split's utterances, see :func:`~datamodules.batches.orders.batch_order`."""
        indices = self.indices(split)
        turns, where = self.turns[indices] if self._needs.turns else None, f"{self.root}: {split}"
        lengths = self.corpus.lengths
        return batch_order(indices, lengths, turns, batch_size, training, self.seed, rank, devices, where)

    def count_batches(self, split: str, batch_size: int | None = None, devices: int = 1) -> int:
        """Count the batches of an epoch, on the device that has fewest.

        Args:
            split: ``train``, ``val``, ``test`` or ``all``.
            batch_size: of the model, unless the datamodule was given one; None counts those of an evaluation.
            devices: that share them.
        """
        size = (self.batch_size or batch_size) if batch_size is not None else self.eval_batch_size
        return len(self._batches(split, batch_size is not None, size, rank=devices - 1, devices=devices))

    def _loader(self, split: str, training: bool) -> DataLoader[Batch]:
        size = (self.batch_size or self._model_batch_size) if training else self.eval_batch_size
        if not len(self.indices(split)):
            raise CorpusError(f"{self.root}/target/{self.fold}: the {split} split is empty.")
        rank, devices = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            self._dataset(training, self.train_pattern if training else self.eval_pattern),
            sampler=self._batches(split, training, size, rank, devices),
            batch_size=None,  # the sampler requests whole batches; nothing is collated
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches with masks."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Unmasked validation batches; the model evaluates them under every condition."""
        return self._loader("val", training=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Unmasked test batches; the model evaluates them under every condition."""
        return self._loader("test", training=False)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of ``predict_split``, with the modalities that each utterance has."""
        return self._loader(self.predict_split, training=False)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Call ``after_batch``."""
        if self.after_batch:
            self.after_batch()
        return batch

    def in_order(self, split: str, pattern: FramePattern | None = None) -> Iterator[Batch]:
        """Yield every utterance of a split once, unmasked, in a fixed order.

        Args:
            split: ``train``, ``val``, ``test`` or ``all``.
            pattern: what becomes of its frames; None, whatever ``eval_pattern`` is: nothing.
        """
        dataset = self._dataset(training=False, pattern=pattern)
        for request in self._batches(split, False, self.eval_batch_size):
            yield dataset[request]
            if self.after_batch:
                self.after_batch()

    @property
    def remarks(self) -> list[str]:
        """What a table of scores on these data says beside the model's name, so that its row is read as what it is."""
        return [] if self.eval_pattern is None else [f"{EVALUATED_WITH} {self.eval_pattern}"]

    def bayes_accuracy(self, split: str, memory: bool = False) -> dict[str, float] | None:
        """WA of the Bayes-optimal rule on a split by condition, None if unknown; ``memory``: from earlier turns too."""
        return None

    def bayes_limit(self, split: str, memory: bool = False) -> dict[str, float] | None:
        """Best possible score on a split by condition, None if unknown: WA of a classification, MAE of values.

        Args:
            split: ``train``, ``val`` or ``test``.
            memory: whether earlier turns are read too.
        """
        return self.bayes_accuracy(split, memory)

    @property
    def labels(self) -> Tensor:
        """[N]: int64 class numbers, -1 where unknown, or float32 values, NaN where unknown."""
        return self._labels
