"""The commands that train, score and predict: one LightningCLI for every model and corpus."""

from __future__ import annotations

import copy
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from ifmmin import runs
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import LINKED, check_same_fold, check_same_kind, check_same_model, model_facts
from ifmmin.checkpoints.parts import read_stage1, split_parts
from ifmmin.checkpoints.reading import read_header
from ifmmin.cli.arguments import Parser, check_words, expand_resume
from ifmmin.cli.callbacks import PredictionWriter, checkpoint_callbacks, progress_callback
from ifmmin.cli.console import clean_process, say
from ifmmin.cli.memory import MemoryCap
from ifmmin.discovery import discover_models
from ifmmin.pretraining.stage2 import PretrainedModule
from ifmmin.results.files import write_results
from ifmmin.results.predictions import check_predictions_path
from ifmmin.results.provenance import environment_record
from ifmmin.results.results import Results
from ifmmin.results.tables import results_table
from ifmmin.results.tracking import log_to_wandb


class IfmminCLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` for every model on every corpus."""

    model: MissingModalityModule
    datamodule: EmotionDataModule
    run_dir: Path

    def __init__(self) -> None:
        self.header: dict[str, Any] | None = None
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
        """The subcommand asked for, and the arguments of the trainer that it does not offer; the parsers take long."""
        known = LightningCLI.subcommands()
        asked = sys.argv[1:2]
        # After options that stand before the subcommand, it may be any of them.
        return {name: known[name] for name in asked if name in known} or known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's folder, the built-in corpus as default, and links from the data to the model."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of this run; by default the next free runs/CORPUS/foldN/MODEL-seedS/run-K.",
        )
        parser.set_defaults({"data": {"class_path": "datamodules.Synthetic"}})
        parser.link_arguments("seed_everything", "data.init_args.seed")
        for name in LINKED:
            parser.link_arguments("data", f"model.init_args.{name}", self._fact(name), apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument(
                "--output",
                type=str | None,
                default=None,
                help="Where predictions go, .csv or .parquet; by default predictions.csv in the run's folder.",
            )
        return parser

    def _fact(self, name: str) -> Any:
        """What the model is told: by the checkpoint where there is one, by the corpus otherwise."""

        def fact(data: EmotionDataModule) -> Any:
            if self.header is None:
                return model_facts(data)[name]
            check_same_kind(data, self.header["ifmmin"]["data"], self._ckpt_path)
            return self.header["hyper_parameters"].get(name)

        return fact

    @property
    def _options(self) -> Namespace:
        options: Namespace = self.config[self.config.subcommand]
        return options

    @property
    def _ckpt_path(self) -> str:
        return str(self._options.get("ckpt_path"))

    def _parse_ckpt_path(self) -> None:
        """Read the checkpoint's record: which model it is, and its hyperparameters, which win."""
        if not self._options.get("ckpt_path"):
            if self.config.subcommand != "fit":
                raise InputError(
                    f"{self.config.subcommand}: --ckpt_path is needed; without it random weights would be scored. "
                    "A fit prints the path of its best checkpoint."
                )
            return
        self.header = read_header(self._ckpt_path)
        model = self._options.model
        module, _, name = model.class_path.rpartition(".")
        check_same_model(getattr(importlib.import_module(module), name), self.header, self._ckpt_path)
        given = model.init_args
        wins = {name: value for name, value in self.header["hyper_parameters"].items() if name not in LINKED}
        typed = {word.partition("=")[0].removeprefix("--model.") for word in sys.argv if word.startswith("--model.")}
        differing = [f"{name} {wins[name]}" for name in wins if name in typed and given.get(name) != wins[name]]
        if differing:
            say(f"hyperparameters are the checkpoint's and win over the command line: {', '.join(differing)}")
        for name, value in wins.items():
            given[name] = value

    # Building.

    def before_instantiate_classes(self) -> None:
        """Make the run's folder and point the loggers at it."""
        options = self._options
        self._finish_data_names(options)
        model, data = (options[key].class_path.rpartition(".")[2] for key in ("model", "data"))
        fold = options.data.init_args.get("fold", 1)
        name = f"{model}-seed{options.seed_everything}"
        if self.config.subcommand != "fit":
            name += f"-{self.config.subcommand}"
        if options.run_dir:
            self.run_dir = runs.claim_run_dir(Path(options.run_dir))
        else:
            base = Path(options.trainer.get("default_root_dir") or "runs")
            self.run_dir = runs.new_run_dir(base / data / f"fold{fold}" / name)
        runs.share_run_dir(self.run_dir)
        configured = options.trainer.get("logger")
        for logger in configured if isinstance(configured, list) else [configured]:
            if isinstance(logger, Namespace):
                self._place_logger(logger, f"{name}-{data}-fold{fold}")

    @staticmethod
    def _finish_data_names(options: Namespace) -> None:
        """The built-in corpus is a default that names a class only: give it its empty settings."""
        if options.data.get("init_args") is None:
            options.data.init_args = Namespace()

    def _place_logger(self, logger: Namespace, name: str) -> None:
        settings = logger.init_args
        if "save_dir" in settings and settings.save_dir in (None, ".", "./"):
            settings.save_dir = str(self.run_dir)
        if logger.class_path.endswith("WandbLogger"):
            settings.name = settings.name or name
            settings.project = settings.project if settings.project not in (None, "lightning_logs") else "ifmmin"

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer of the subcommand; stage 1 gets one of its own, made the same way."""
        if self.header is not None:
            check_same_fold(self.datamodule, self.header["ifmmin"]["data"], self._ckpt_path)
        self._trainer_config = copy.deepcopy({**self._get(self.config_init, "trainer"), "logger": None})
        logger = self._get(self.config_init, "trainer").get("logger")
        if self.config.subcommand != "fit" and logger in (None, True):
            logger = False
        elif logger in (None, True):
            logger = [
                CSVLogger(self.run_dir, name=runs.free_name(self.run_dir, "logs"), version=""),
                TensorBoardLogger(self.run_dir, name="tensorboard", version=""),
            ]
        own = self._get(self.config_init, "trainer").get("callbacks") or []
        trainer = self._make_trainer(self.model, self.run_dir, logger, own if isinstance(own, list) else [own])
        for one in trainer.loggers:
            self._log_config(one)
        return trainer

    def _make_trainer(
        self, model: MissingModalityModule, folder: Path, logger: Any, callbacks: Sequence[L.Callback]
    ) -> L.Trainer:
        config = copy.deepcopy(self._trainer_config)
        extra: list[L.Callback] = [*callbacks, MemoryCap()]
        if config.get("enable_progress_bar") is not False:
            extra.append(bar := progress_callback())
            config["enable_progress_bar"] = hasattr(bar, "refresh_rate")
        if self.config.subcommand == "fit" and config.get("enable_checkpointing") is not False:
            extra += checkpoint_callbacks(folder, model.monitor_key)
        else:
            config["enable_checkpointing"] = False
        config |= {"logger": logger, "callbacks": [], "default_root_dir": str(self.run_dir)}
        return self._instantiate_trainer(config, extra)

    @rank_zero_only
    def _log_config(self, logger: Logger) -> None:
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update({"run": self._plain_config()}, allow_val_change=True)

    def _plain_config(self) -> dict[str, Any]:
        self._dump_config()
        return dict(self.config_dump)

    # Subcommands; LightningCLI calls these in place of the trainer's.

    def fit(self, model: MissingModalityModule, ckpt_path: str | None = None, **_: Any) -> None:
        """Stage 1 where the model has one, then the model itself, then a test of its best epoch."""
        # What an interrupted run left, looked up before anything writes: every device sees the same.
        stage1 = runs.finished_stage1(self.run_dir)
        last = ckpt_path or runs.last_checkpoint(self.run_dir)
        if isinstance(model, PretrainedModule) and model.pretrained and last is None:
            model.load_stage1(read_stage1(model.pretrained, model.stage1), model.pretrained)
        self._introduce()
        self._save_config()
        try:
            if isinstance(model, PretrainedModule) and model.pretrained is None and last is None:
                self._pretrain(model, stage1)
            self._announce(f"training {type(model).__name__}" + (f", going on from {last}" if last else ""), model)
            self.trainer.fit(model, datamodule=self.datamodule, ckpt_path=last, weights_only=True)
        except SystemExit:  # what Lightning makes of Ctrl-C
            say(f"interrupted; go on with: fit --resume {self.run_dir}")
            raise
        best = best_checkpoint(self.trainer)
        if best is None:
            say("no checkpoint was kept, so the weights of the last step are tested")
        else:
            say(f"best epoch by {model.monitor_key}: {best}")
        self.trainer.test(model, datamodule=self.datamodule, ckpt_path=best, verbose=False, weights_only=True)
        self._report("test", best)

    def _pretrain(self, model: PretrainedModule, done: Path | None) -> None:
        if done is not None:
            say(f"stage 1: done already, {done}")
            model.load_stage1(read_stage1(done, model.stage1), str(done))
            return
        folder = self.run_dir / "stage1"
        L.seed_everything(self._options.seed_everything, verbose=False)
        stage1 = model.stage1_module()
        self._announce(f"stage 1: training {type(stage1).__name__} on complete data", stage1)
        trainer = self._make_trainer(stage1, folder, self.trainer.loggers or False, [])
        trainer.fit(stage1, datamodule=self.datamodule, ckpt_path=runs.last_checkpoint(folder), weights_only=True)
        best = best_checkpoint(trainer)
        if best is None:
            model.load_stage1(split_parts(stage1.state_dict()))
            return
        say(f"best epoch by {stage1.monitor_key}: {best}")
        model.load_stage1(read_stage1(best, model.stage1), best)
        rank_zero_only(runs.record_stage1)(self.run_dir, Path(best))

    def test(self, model: MissingModalityModule, ckpt_path: str, **_: Any) -> None:
        """Score a checkpoint on the test split."""
        self._introduce()
        self.trainer.test(model, datamodule=self.datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
        self._report("test", ckpt_path)

    def validate(self, model: MissingModalityModule, ckpt_path: str, **_: Any) -> None:
        """Score a checkpoint on the validation split."""
        self._introduce()
        self.trainer.validate(model, datamodule=self.datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
        self._report("val", ckpt_path)

    def predict(self, model: MissingModalityModule, ckpt_path: str, **_: Any) -> None:
        """Write what a checkpoint says of each utterance under each condition it allows."""
        self._introduce()
        output = Path(self._options.output or self.run_dir / "predictions.csv")
        check_predictions_path(output)
        if output.exists() and self.trainer.is_global_zero:
            raise InputError(f"{output}: exists already; give another --output, or move it away.")
        self.trainer.callbacks.append(PredictionWriter(output))  # type: ignore[attr-defined]
        self.trainer.predict(
            model, datamodule=self.datamodule, ckpt_path=ckpt_path, return_predictions=False, weights_only=True
        )

    # Saying and keeping.

    def _introduce(self) -> None:
        data = self.datamodule
        data.setup(self.config.subcommand)  # whatever is wrong with the corpus is said before anything is written
        if data.synthetic:
            say(f"data: the built-in synthetic corpus in {data.root} (for your own: --data IEMOCAP --data.root DIR)")
        else:
            say(f"data: {data.corpus_name}, fold {data.fold}, in {data.root}")
        say(f"run folder: {self.run_dir}")

    def _announce(self, what: str, model: MissingModalityModule) -> None:
        count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        say(f"{what} ({count:,} parameters)")

    @rank_zero_only
    def _save_config(self) -> None:
        path = self.run_dir / runs.CONFIG
        if not path.exists():
            self._parser(self.subcommand).save(self._options, path, skip_unset=False)

    @rank_zero_only
    def _report(self, split: str, checkpoint: str | None) -> None:
        data, model = self.datamodule, self.model
        assert model.evaluated is not None
        record = {
            "command": sys.argv,
            "config": self._plain_config(),
            "checkpoint": checkpoint,
            "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "data_fingerprint": data.fingerprint,
            "wall_time_s": round(time.monotonic() - self._clock, 3),
            "devices": self.trainer.world_size,
            **environment_record(),
        }
        results = Results(
            corpus=data.corpus_name,
            is_synthetic=data.synthetic,
            model=type(model).__name__,
            fold=data.fold,
            seed=int(self._options.seed_everything),
            split=split,
            task=model.task,
            counts=model.evaluated,
            bayes=data.bayes_accuracy(split),
            record=record,
        )
        Console().print(results_table(results))
        paths = write_results(results, self.run_dir, prefix="" if split == "test" else f"{split}_")
        say("written: " + ", ".join(map(str, paths)))
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                log_to_wandb(results, logger.experiment, paths)
                logger.experiment.finish()  # or the next run of this process would write into this one


def best_checkpoint(trainer: L.Trainer) -> str | None:
    """The path of the best epoch's checkpoint, None where none was kept."""
    callback = trainer.checkpoint_callback
    path = callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""
    return os.path.relpath(path) if path else None


def run(argv: list[str]) -> int:
    """Run one of the commands.

    Args:
        argv: the words after the program's name, ``check`` not among them.

    Returns:
        the exit code, 0.

    Raises:
        InputError: something is wrong with the words, the corpus or the checkpoint; jsonargparse may have
            wrapped it.
    """
    argv = expand_resume(argv)
    with clean_process(argv):
        check_words(argv, discover_models())
        IfmminCLI()
    return 0
