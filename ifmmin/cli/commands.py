"""Commands that train, score and predict: one LightningCLI for every model and corpus."""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from datamodules.base import EmotionDataModule
from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from datamodules.files import check_writable, expanded, write_text
from ifmmin import runs
from ifmmin.base import MissingModalityModule
from ifmmin.calibration.temperatures import check_asked
from ifmmin.checkpoints.compatibility import (
    FOLLOWS_THE_DATA,
    check_same_fold,
    check_same_kind,
    check_same_model,
    model_arguments,
)
from ifmmin.checkpoints.contents import check_settings
from ifmmin.checkpoints.keeping import OwnCheckpoints, resumed_after
from ifmmin.checkpoints.reading import read_checkpoint
from ifmmin.checkpoints.shapes import check_fits
from ifmmin.checkpoints.training_state import check_training_state, usable_checkpoint
from ifmmin.checkpoints.writing import with_atomic_checkpoints
from ifmmin.cli import ranks, resuming
from ifmmin.cli.arguments import Parser, bad_seed, class_at, defaults_of, prepare
from ifmmin.cli.calibrating import as_asked, check_calibrates, fit_on_validation
from ifmmin.cli.callbacks import SameStart, ScheduleNote, Stopping, checkpoint_callbacks, progress_callback
from ifmmin.cli.collecting import AnswerCollector
from ifmmin.cli.console import clean_process, print_rank_zero
from ifmmin.cli.counts import check_counts
from ifmmin.cli.help import shorten_help
from ifmmin.cli.loggers import check_loggers
from ifmmin.cli.main import COMMANDS
from ifmmin.cli.memory import MemoryCap
from ifmmin.cli.reporting import (
    check_units,
    print_header,
    record_path,
    report_curves,
    report_predictions,
    report_results,
)
from ifmmin.cli.resuming import name_devices
from ifmmin.cli.trainer_options import check_monitors, check_trainer_options
from ifmmin.curves import CURVES, chosen_curves
from ifmmin.pretraining.fitting import Fitted, fit_two_stages, load_pretrained
from ifmmin.results.files import table_json
from ifmmin.results.predictions import Predictions, check_predictions_path
from ifmmin.results.results import Results
from ifmmin.results.shares import with_shares


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
        """Add nothing: :meth:`_add_own_options` comes first."""

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
        self._add_own_options(parser, subcommand)
        self._add_arguments(parser)
        parser.description = COMMANDS[subcommand]
        shorten_help(parser)
        self._subcommand_method_arguments[subcommand] = ["ckpt_path"]
        return parser

    @staticmethod
    def _add_own_options(parser: LightningArgumentParser, subcommand: str) -> None:
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of weights, order, masks and dropout.")
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of this run; by default the next free runs/CORPUS/foldN/MODEL-seedS/run-K.",
        )
        what = "to start from, with its optimiser" if subcommand == "fit" else "that is scored; needed"
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=f"Checkpoint {what}.")
        if subcommand == "fit":
            # Without an effect: configurations of earlier runs hold it.
            parser.add_argument("--weights_only", type=bool | None, default=None, help=argparse.SUPPRESS)
            # Expanded before this parser sees it; here for --help.
            parser.add_argument("--resume", type=str | None, default=None, help="Folder of a killed run to go on with.")
            parser.add_argument(
                "--test",
                type=bool,
                default=True,
                help="Test the best epoch; false leaves the test split alone, and the result is validation's.",
            )
        if subcommand != "predict":
            parser.add_argument(
                "--curves",
                type=str | None,
                default=None,
                help=f"Rate curves with the area below them: all, or some of {','.join(CURVES)}.",
            )
            parser.add_argument(
                "--intervals",
                type=Literal["utterances", "speakers", "none"],
                default="utterances",
                help="What the 95-percent bootstrap intervals of the table are over.",
            )
        if subcommand == "validate":
            parser.add_argument(
                "--calibrate",
                type=bool,
                default=False,
                help="Fit a temperature per condition, and write them into the checkpoint, as fit does.",
            )
        if subcommand != "fit":
            parser.add_argument(
                "--why", type=bool, default=False, help="Add to predictions what each modality gave: Shapley values."
            )
        if subcommand == "predict":
            parser.add_argument(
                "--calibrated",
                type=bool,
                default=False,
                help="Write probabilities at the temperatures that fit found on validation.",
            )
            parser.add_argument(
                "--abstain_below",
                type=float | None,
                default=None,
                help="Predict no class where none is this probable.",
            )
            parser.add_argument(
                "--output",
                type=str | None,
                default=None,
                help="File of the predictions, .csv or .parquet; by default predictions.csv in the run's folder.",
            )

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
        self._options.ckpt_path = self._ckpt_path
        self.checkpoint = read_checkpoint(self._ckpt_path)
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
            trained_on = self._trained_on(self.checkpoint)
            name = f"{model}-seed{trained_on['seed']}"
            if trained_on["corpus"] != layout.name:
                name += f"-from-{runs.folder_name(trained_on['corpus'])}-fold{trained_on['fold']}"
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
        configured = options.trainer.get("logger")
        for logger in configured if isinstance(configured, list) else [configured]:
            if isinstance(logger, Namespace):
                self._place_logger(logger, f"{name}-{data}-fold{fold}")

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

    def _place_logger(self, logger: Namespace, name: str) -> None:
        settings = logger.init_args
        if "save_dir" in settings and settings.save_dir in (None, ".", "./"):
            settings.save_dir = str(self.run_dir)
        if logger.class_path.endswith("WandbLogger"):
            settings.name = settings.name or name
            settings.project = settings.project if settings.project not in (None, "lightning_logs") else "ifmmin"

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer of the subcommand; stage 1 gets one of its own, made the same way."""
        # Predicting every utterance of a corpus compares with no label, so it leaks nothing.
        unlabelled = self.config.subcommand == "predict" and self.datamodule.predict_split == "all"
        if self.checkpoint is not None and not unlabelled:
            check_same_fold(self.datamodule, self.checkpoint["ifmmin"]["data"], self._ckpt_path)
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
        own = own if isinstance(own, list) else [own]
        check_monitors(own, self.model)
        trainer = self._make_trainer(self.model, self.run_dir, logger, own)
        ranks.check_alone(trainer)
        for one in trainer.loggers:
            self._log_config(one)
        return trainer

    def _make_trainer(
        self, model: MissingModalityModule, folder: Path, logger: Any, callbacks: Sequence[L.Callback]
    ) -> L.Trainer:
        config = copy.deepcopy(self._trainer_config)
        fits = self.config.subcommand == "fit"
        if not fits:  # a fit's configuration may be given to another command
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
        plugins = with_atomic_checkpoints(config.get("plugins"), config.get("strategy"), self.run_dir, fits)
        config["plugins"] = ranks.without_requeue(plugins)
        placed = OwnCheckpoints(self.run_dir / "logs" / "checkpoints", callbacks)
        extra: list[L.Callback] = [placed, *callbacks, MemoryCap(), Stopping()]
        if fits:
            extra += [SameStart(), ScheduleNote(self._options.trainer.max_epochs, self._options.trainer.min_epochs)]
        if any(isinstance(callback, ProgressBar) for callback in callbacks):
            config["enable_progress_bar"] = True
        elif config.get("enable_progress_bar") is not False:
            extra.append(bar := progress_callback())
            config["enable_progress_bar"] = hasattr(bar, "refresh_rate")
        if fits and config.get("enable_checkpointing") is not False:
            extra += checkpoint_callbacks(folder, model.monitor_key, model.monitor_mode)
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
        """Train stage 1 if the model has one, then the model itself, then test its best epoch."""
        check_settings(type(model).__name__, model.hparams)
        if ckpt_path is not None:
            check_training_state(self.checkpoint or {}, model, ckpt_path)
        elif not self._goes_on:
            load_pretrained(model, self.datamodule)
        self._start()
        if self._goes_on:
            resuming.check_data(self.run_dir, self.datamodule, model)
            # Its own checkpoints come before the one that it once started from.
            ckpt_path = usable_checkpoint(self.run_dir, model) or ckpt_path
        self._save_config()

        def trainer_of(stage: MissingModalityModule, folder: Path) -> L.Trainer:
            if stage is model:
                return self.trainer
            return self._make_trainer(stage, folder, self.trainer.loggers or False, [])

        try:
            fitted = fit_two_stages(
                model,
                self.datamodule,
                trainer_of,
                self.run_dir,
                seed=self._options.seed_everything,
                ckpt_path=ckpt_path,
                report=print_rank_zero,
            )
        except SystemExit as end:
            if not end.code:
                raise InputError(
                    "code of the model, the corpus or a callback ended the program (sys.exit) before the run was "
                    "finished; mend it, and go on or start again."
                ) from end
            # Lightning's answer to Ctrl-C.
            print_rank_zero(f"interrupted; go on with: fit --resume {self.run_dir}")
            raise
        except OSError as error:
            if self.run_dir.is_dir():
                raise
            raise InputError(f"{self.run_dir}: this run's folder was deleted while it ran; start it again.") from error
        selected = self._selected(fitted)
        fit_on_validation(self.trainer, model, self.datamodule, fitted.checkpoint)
        if self._options.test:
            self._score("test", fitted.checkpoint, **selected)
        else:
            assert model.evaluated is not None
            results = self._results("val", model.evaluated, self._record(fitted.checkpoint), **selected)
            report_results(model, self.datamodule, self.trainer, self.run_dir, results)

    def test(self, model: MissingModalityModule, ckpt_path: str, **_: Any) -> None:
        """Score a checkpoint on the test split."""
        self._start()
        self._score("test", ckpt_path)

    def validate(self, model: MissingModalityModule, ckpt_path: str, **_: Any) -> None:
        """Score a checkpoint on the validation split."""
        if self._options.calibrate:
            check_calibrates(model, self.datamodule, self.checkpoint or {}, ckpt_path)
        self._start()
        if self._options.calibrate:
            fit_on_validation(self.trainer, model, self.datamodule, ckpt_path)
        self._score("val", ckpt_path)

    def predict(self, model: MissingModalityModule, ckpt_path: str, **_: Any) -> None:
        """Write what a checkpoint predicts of each utterance under each condition it allows."""
        output = expanded(self._options.output or self.run_dir / "predictions.csv")
        check_predictions_path(output)
        assert self.checkpoint is not None
        temperatures = self.checkpoint["ifmmin"].get("temperatures") or {}
        check_asked(model.task, temperatures, ckpt_path, self._options.calibrated, self._options.abstain_below)
        for path in (output, record_path(output)):
            if path.exists() and self.trainer.is_global_zero:
                raise InputError(f"{path}: exists already; give another --output, or move it away.")
        self._start()
        check_writable(output)
        self.trainer.callbacks.append(collector := AnswerCollector())  # type: ignore[attr-defined]
        self.trainer.predict(
            model, datamodule=self.datamodule, ckpt_path=ckpt_path, return_predictions=False, weights_only=True
        )
        report_predictions(
            model,
            self.datamodule,
            output,
            as_asked(collector.predictions, model, ckpt_path, self._options),
            self._trained_on(self.checkpoint),
            self._record(ckpt_path),
        )

    def _start(self) -> None:
        self.datamodule.setup(self.config.subcommand)  # anything wrong with the corpus is said before files are written
        if self.config.subcommand != "predict":
            check_units(
                self.datamodule, self._options.intervals, "val" if self.config.subcommand == "validate" else "test"
            )
        check_counts(self._options, self.config.subcommand, self.model, self.datamodule, self.trainer.world_size)
        print_header(self.datamodule, self.run_dir)

    @staticmethod
    def _trained_on(checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Corpus, fold and seed of a checkpoint's training."""
        data = checkpoint["ifmmin"]["data"]
        return {"corpus": data["name"], "fold": data["fold"], "seed": data["seed"]}

    def _record(self, checkpoint: str | None) -> dict[str, Any]:
        """What this command was asked and how long it took."""
        return {
            "config": self._plain_config(),
            "checkpoint": checkpoint,
            "resumed_after_epochs": resumed_after(self.trainer),
            "wall_time_s": round(time.monotonic() - self._clock, 3),
        }

    def _selected(self, fitted: Fitted) -> dict[str, Any]:
        """The score that selected a fit's epoch, and its validation table; ``model.evaluated`` has its counts then."""
        model, data = self.model, self.datamodule
        stored = None if fitted.checkpoint is None else read_checkpoint(fitted.checkpoint)
        if stored is not None:
            found = stored["ifmmin"].get("validation")
            usable = isinstance(found, Tensor) and found.shape == (len(CONDITIONS), *model.task.shape)
            model.evaluated = found if usable else None
        if model.evaluated is None:  # trained by 0.1.0, or before the interruption
            self.trainer.validate(model, data, ckpt_path=fitted.checkpoint, verbose=False, weights_only=True)
        assert model.evaluated is not None
        table = table_json(self._results("val", model.evaluated, {}))
        value = table[model.monitored_row][model.monitor]
        epoch = None if stored is None else int(stored["epoch"]) + 1  # counted from 1
        return {"validation": table, "monitor": {"name": model.monitor_key, "value": value, "epoch": epoch}}

    def _results(self, split: str, counts: Tensor, record: dict[str, Any], **selected: Any) -> Results:
        data, fit = self.datamodule, self.config.subcommand == "fit"
        own: dict[str, Any] = {
            "corpus": data.corpus_name,
            "fold": data.fold,
            "seed": int(self._options.seed_everything),
        }
        trained_on = own if fit or self.checkpoint is None else self._trained_on(self.checkpoint)
        return Results(
            corpus=data.corpus_name,
            is_synthetic=data.synthetic,
            invented=data.invented,
            model=type(self.model).__name__,
            remarks=(*self.model.remarks, *data.remarks),
            fold=data.fold,
            seed=trained_on["seed"],
            split=split,
            task=self.model.task,
            counts=counts,
            # The rule reads whole frames.
            bayes=None if data.eval_pattern else data.bayes_limit(split, memory=self.model.needs.turns),
            record=record,
            trained_on=trained_on,
            **selected,
        )

    def _score(self, split: str, checkpoint: str | None, **selected: Any) -> None:
        predictions = self._evaluate(split, checkpoint)
        if self.model.evaluated is None:
            raise InputError(f"--trainer.limit_{split}_batches 0: nothing was evaluated; leave it out.")
        if predictions is not None and self._options.get("why"):
            predictions = with_shares(predictions)
        results = self._results(split, self.model.evaluated, self._record(checkpoint), **selected)
        over = self._options.intervals
        report_results(
            self.model, self.datamodule, self.trainer, self.run_dir, results, predictions=predictions, over=over
        )
        if self._options.curves is not None:
            report_curves(self.model, self.datamodule, self.run_dir, results, chosen_curves(self._options.curves), over)

    def _evaluate(self, split: str, checkpoint: str | None) -> Predictions | None:
        """Count a split into ``model.evaluated``; its answers on the first device."""
        self.model.evaluated = None  # of the last validation
        self.trainer.callbacks.append(collector := AnswerCollector())  # type: ignore[attr-defined]
        run = self.trainer.test if split == "test" else self.trainer.validate
        run(self.model, datamodule=self.datamodule, ckpt_path=checkpoint, verbose=False, weights_only=True)
        return collector.predictions

    @rank_zero_only
    def _save_config(self) -> None:
        """Write the configuration; that of a resumed run is of what it goes on with."""
        write_text(self.run_dir / runs.CONFIG, self._config_text())

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
