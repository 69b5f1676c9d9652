"""Commands that train, score and predict: one LightningCLI for every model and corpus."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.text import printable
from ifmmin import runs
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import (
    FOLLOWS_THE_DATA,
    check_same_fold,
    check_same_kind,
    check_same_model,
    model_arguments,
)
from ifmmin.checkpoints.loading import read_trained
from ifmmin.checkpoints.reading import read_checkpoint
from ifmmin.checkpoints.shapes import check_fits
from ifmmin.cli import ranks, resuming
from ifmmin.cli.arguments import Parser, bad_seed, class_at, defaults_of, prepare
from ifmmin.cli.calibrating import check_calibrates, fit_on_validation
from ifmmin.cli.command_options import add_command_options
from ifmmin.cli.console import clean_process, print_rank_zero
from ifmmin.cli.fitting import fit
from ifmmin.cli.help import shorten_help
from ifmmin.cli.loggers import check_loggers, place_loggers
from ifmmin.cli.main import COMMANDS
from ifmmin.cli.predicting import predict
from ifmmin.cli.resuming import name_devices
from ifmmin.cli.scoring import score
from ifmmin.cli.session import Session, trained_on
from ifmmin.cli.trainer_options import check_trainer_options
from ifmmin.cli.trainers import Trainers
from ifmmin.curves import chosen_curves
from ifmmin.sharing.hub import stored_at


class IfmminCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` for every model on every corpus."""

    model: MissingModalityModule
    datamodule: EmotionDataModule
    run_dir: Path

    def __init__(self) -> None:
        self.checkpoint: dict[str, Any] | None = None
        self._clock = time.monotonic()
        super().__init__(
            MissingModalityModule,
            EmotionDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # a run's configuration is saved in its own folder, before it starts
            trainer_defaults={"max_epochs": -1, "num_sanity_val_steps": 0, "enable_model_summary": False},
            seed_everything_default=0,
            parser_class=Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    # Arguments.

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Build only the requested subcommand's parser; building all is slow."""
        known = LightningCLI.subcommands()
        asked = sys.argv[1:2]
        # Options may precede the subcommand: then it may be any of them.
        return {name: known[name] for name in asked if name in known} or known

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add nothing: the options of the command come first."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the model and the data, then those of the trainer, which are many."""
        parser.add_lightning_class_args(MissingModalityModule, "model", subclass_mode=True)
        parser.add_lightning_class_args(EmotionDataModule, "data", subclass_mode=True)
        parser.add_lightning_class_args(L.Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the built-in corpus as default, and links from the data to the model."""
        parser.set_defaults({"data": {"class_path": "datamodules.Synthetic"}})
        parser.link_arguments("seed_everything", "data.init_args.seed")
        for name in FOLLOWS_THE_DATA:
            parser.link_arguments("data", f"model.init_args.{name}", self._argument(name), apply_on="instantiate")

    def _set_seed(self) -> None:
        """Refuse a seed that NumPy does not take, and set it."""
        if not 0 <= self._options.seed_everything < 2**32:
            raise InputError(bad_seed(self._options.seed_everything))
        super()._set_seed()

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = self.init_parser(**kwargs)
        add_command_options(parser, subcommand)
        self._add_arguments(parser)
        parser.description = COMMANDS[subcommand]
        shorten_help(parser)
        self._subcommand_method_arguments[subcommand] = ["ckpt_path"]
        return parser

    def _argument(self, name: str) -> Callable[[EmotionDataModule], Any]:
        """Value of a model argument that follows the data: the checkpoint's if there is one, else the corpus's."""

        def value(data: EmotionDataModule) -> Any:
            if self.checkpoint is None:
                return model_arguments(data)[name]
            check_same_kind(data, self.checkpoint["ifmmin"]["data"], self._ckpt_path)
            return self.checkpoint["hyper_parameters"].get(name)

        return value

    @property
    def _options(self) -> Namespace:
        options: Namespace = self.config[self.config.subcommand]
        return options

    @property
    def _ckpt_path(self) -> str:
        return str(expanded(self._options.ckpt_path))

    def _parse_ckpt_path(self) -> None:
        """Read the checkpoint's record: which model it is, and its hyperparameters, which win."""
        if not self._options.get("ckpt_path"):
            if self.config.subcommand != "fit":
                raise InputError(
                    f"{self.config.subcommand}: --ckpt_path is needed; without it random weights would be scored. "
                    "A fit prints the path of its best checkpoint."
                )
            return
        self._options.ckpt_path = str(stored_at(self._options.ckpt_path))
        read = read_checkpoint if self.config.subcommand == "fit" else read_trained
        self.checkpoint = read(Path(self._ckpt_path))
        model = self._options.model
        owner = class_at(model.class_path)
        check_same_model(owner, self.checkpoint, self._ckpt_path)
        check_fits(owner, self.checkpoint, self._ckpt_path)
        given, defaults = model.init_args, defaults_of(owner)
        wins = {
            name: value for name, value in self.checkpoint["hyper_parameters"].items() if name not in FOLLOWS_THE_DATA
        }
        differing = [f"{name} {wins[name]}" for name in wins if given.get(name) not in (wins[name], defaults.get(name))]
        if differing:
            print_rank_zero(
                f"hyperparameters are the checkpoint's and win over the command line: {', '.join(differing)}"
            )
        for name, value in wins.items():
            given[name] = value

    # Building.

    def before_instantiate_classes(self) -> None:
        """Make the run's folder and point the loggers at it."""
        options = self._options
        self._check_options()
        model, owner = options.model.class_path.rpartition(".")[2], class_at(options.data.class_path)
        layout = owner.layout_meant(vars(options.data.init_args))
        data = runs.corpus_folder(owner, layout)
        fold = options.data.init_args.get("fold", 1)
        name = f"{model}-seed{options.seed_everything}"
        if self.checkpoint is not None and self.config.subcommand != "fit":
            trained = trained_on(self.checkpoint)
            name = f"{model}-seed{trained['seed']}"
            if trained["corpus"] != layout.name:
                name += f"-from-{runs.folder_name(trained['corpus'])}-fold{trained['fold']}"
            name += f"-{self.config.subcommand}"
        if options.run_dir:
            command = self.config.subcommand
            prefix = "val_" if command == "validate" else ""
            self.run_dir = runs.claim_run_dir(expanded(options.run_dir), command == "fit", prefix)
        else:
            base = expanded(options.trainer.get("default_root_dir") or "runs")
            self.run_dir = runs.new_run_dir(base / data / f"fold{fold}" / name)
        runs.share_run_dir(self.run_dir)
        self._goes_on = (self.run_dir / runs.CONFIG).is_file()
        if self._goes_on:
            parser = self._parser(self.subcommand)
            started = parser.parse_path(self.run_dir / runs.CONFIG)
            plain = (json.loads(parser.dump(each, skip_unset=False, format="json")) for each in (started, options))
            resuming.check_options(self.run_dir, *plain)
        place_loggers(options.trainer.get("logger"), self.run_dir, f"{name}-{data}-fold{fold}")

    def _check_options(self) -> None:
        """Refuse options that cannot work; give the default corpus, a class only, its empty settings."""
        options = self._options
        if options.get("curves") is not None:
            chosen_curves(options.curves)
        name_devices(options.trainer.get("callbacks"))
        check_trainer_options(vars(options.trainer), self.config.subcommand)
        check_loggers(options.trainer.get("logger"))
        if options.data.get("init_args") is None:
            options.data.init_args = Namespace()

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer of the subcommand."""
        # Predicting every utterance of a corpus compares with no label, so it leaks nothing.
        unlabelled = self.config.subcommand == "predict" and self.datamodule.predict_split == "all"
        if self.checkpoint is not None and not unlabelled:
            check_same_fold(self.datamodule, self.checkpoint["ifmmin"]["data"], self._ckpt_path)
        settings = self._get(self.config_init, "trainer")
        self._trainers = Trainers(settings, self._options, self.config.subcommand, self.run_dir)
        trainer = self._trainers.own(self.model)
        for one in trainer.loggers:
            self._log_config(one)
        return trainer

    @rank_zero_only
    def _log_config(self, logger: Logger) -> None:
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update({"run": self._plain_config()}, allow_val_change=True)

    def _plain_config(self) -> dict[str, Any]:
        self._dump_config()
        return dict(self.config_dump)

    # Subcommands; LightningCLI calls these in place of the trainer's.

    def fit(self, ckpt_path: str | None = None, **_: Any) -> None:
        """Train stage 1 if the model has one, then the model itself, then test its best epoch."""

        def stage_trainer(stage: MissingModalityModule, folder: Path) -> L.Trainer:
            return self._trainers.of_stage(stage, folder, self.trainer)

        fit(self._session(), ckpt_path, stage_trainer, self._config_text, self._goes_on)

    def test(self, ckpt_path: str, **_: Any) -> None:
        """Score a checkpoint on the test split."""
        session = self._session()
        session.start()
        score(session, "test", ckpt_path)

    def validate(self, ckpt_path: str, **_: Any) -> None:
        """Score a checkpoint on the validation split."""
        session = self._session()
        if self._options.calibrate:
            check_calibrates(self.model, self.datamodule, self.checkpoint or {}, ckpt_path)
        session.start()
        if self._options.calibrate:
            if not fit_on_validation(self.trainer, self.model, self.datamodule, ckpt_path):
                raise InputError(
                    "--calibrate: no validation utterance was answered, so there is nothing to fit a temperature to; "
                    "leave --trainer.limit_predict_batches out."
                )
            print_rank_zero(f"temperatures: written into {printable(ckpt_path)}")
        score(session, "val", ckpt_path)

    def predict(self, ckpt_path: str, **_: Any) -> None:
        """Write what a checkpoint predicts of each utterance under each condition it allows."""
        predict(self._session(), ckpt_path)

    def _session(self) -> Session:
        return Session(
            command=self.config.subcommand,
            options=self._options,
            plain_options=self._plain_config,
            model=self.model,
            data=self.datamodule,
            trainer=self.trainer,
            run_dir=self.run_dir,
            checkpoint=self.checkpoint,
            began=self._clock,
        )

    def _config_text(self) -> str:
        text: str = self._parser(self.subcommand).dump(self._options, skip_unset=False)
        return text


def run(argv: list[str]) -> int:
    """Run one of these commands.

    Args:
        argv: the words after the program's name.

    Returns:
        the exit code, 0.

    Raises:
        InputError: something is wrong with the words, the corpus or the checkpoint; jsonargparse may have
            wrapped it.
    """
    with clean_process(argv):
        # Lightning starts the processes of further devices by sys.argv, and LightningCLI reads it.
        sys.argv[1:] = prepare(argv)
        ranks.observe()
        with ranks.settled():
            IfmminCLI()
    return 0
