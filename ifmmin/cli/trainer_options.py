"""Options of Lightning's trainer that would give wrong numbers, hang, or end in a traceback: refused in one line.

One table says what is wrong with a value (:data:`RULES`); what it does not name is left to Lightning. The checks run
on the parsed options before a model is made, and once more before anything is written, when the batches are counted.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import StrategyRegistry

from datamodules.errors import InputError
from datamodules.ranges import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, Range
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.tasks import SUMMARY_ROWS

Options = Mapping[str, Any]

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")

_LAUNCHED = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "NODE_RANK", "GROUP_RANK", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE")
"""Variables that say that somebody starts the processes on the other machines."""

_FEW_PROCESSES = 8  # that a machine of any size may run, if slowly


@dataclass(frozen=True)
class Rule:
    """What is wrong with an option.

    Attributes:
        name: of the option, without ``--trainer.``.
        wrong: tells from its value, which is not None, and all options whether it is refused.
        line: what is said, after the option and its value; ``{name}`` stands for another option's value.
        commands: for which commands.
    """

    name: str
    wrong: Callable[[Any, Options], bool]
    line: str
    commands: tuple[str, ...] = ("fit", "validate", "test", "predict")


def _outside(allowed: Range) -> Callable[[Any, Options], bool]:
    return lambda value, _: isinstance(value, (int, float)) and not allowed.holds(value)


def _no_share(value: Any, _: Options) -> bool:
    """Whether a limit of batches is neither a share nor a count: 1.0 is all batches, 1 is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return not (Range(0, 1, above=True) if isinstance(value, float) else AT_LEAST_1).holds(value)


def _below_one_batch(split: str) -> Callable[[Any, Options], bool]:
    """Whether a share of the batches of a split, once they are counted, rounds down to none."""

    def wrong(value: Any, options: Options) -> bool:
        batches = options.get(f"{split}_batches", 0)
        return isinstance(value, float) and int(value * batches) == 0 < batches and not options.get("fast_dev_run")

    return wrong


def _beyond_batches(value: Any, options: Options) -> bool:
    """Whether validation comes after more batches than an epoch, once they are counted, has."""
    if type(value) is not int or options.get("check_val_every_n_epoch", 1) is None or options.get("fast_dev_run"):
        return False
    return bool(0 < options.get("epoch_batches", 0) < value)


def _no_duration(value: Any, _: Options) -> bool:
    """Whether text or a mapping is not a time."""
    if isinstance(value, Mapping):
        try:
            return timedelta(**value) <= timedelta(0)
        except (TypeError, OverflowError):
            return True
    return isinstance(value, str) and not re.fullmatch(r"\d+:\d{1,2}:\d{1,2}:\d{1,2}", value.strip())


def _is_cpu(options: Options) -> bool:
    accelerator = options.get("accelerator", "auto")
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())


def _bad_devices(value: Any, options: Options) -> bool:
    """Whether a number or list of devices means nothing on this accelerator."""
    words = value if isinstance(value, list) else str(value).split(",")
    if words == ["auto"]:
        return False
    numbers = [int(word) for word in words if re.fullmatch(r"\s*-?\d+\s*", str(word))]
    if len(numbers) != len(words) or not words:
        return True
    is_list = isinstance(value, list) or "," in str(value)
    if is_list and not _is_cpu(options):
        return min(numbers) < 0 or len(set(numbers)) < len(numbers)
    return is_list or (numbers[0] < 1 and (_is_cpu(options) or numbers[0] != -1))


def _too_many_devices(value: Any, options: Options) -> bool:
    if not isinstance(value, (int, str, list)) or _bad_devices(value, options) or value == "auto":
        return False
    if _is_cpu(options):
        return int(str(value)) > max(_FEW_PROCESSES, os.cpu_count() or 1)
    there = torch.cuda.device_count()
    listed = value if isinstance(value, list) else str(value).split(",")
    if isinstance(value, list) or "," in str(value):
        return max(map(int, listed)) >= there
    return int(str(value)) > there


def _class_of(value: Any) -> str:
    """Name of the class of an option that is given as one."""
    return str(value.class_path).rpartition(".")[2] if isinstance(value, Namespace) else type(value).__name__


def _unusable_strategy(value: Any, _: Options) -> bool:
    if isinstance(value, str):
        return value.lower() not in STRATEGIES
    name = _class_of(value)
    start = value.get("init_args", {}).get("start_method") if isinstance(value, Namespace) else None
    return name in ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy", "XLAStrategy", "XLAFSDPStrategy") or (
        name == "DDPStrategy" and start not in (None, "popen")
    )


def _beyond_epochs(value: Any, options: Options) -> bool:
    epochs = options.get("max_epochs")
    return isinstance(value, int) and isinstance(epochs, int) and 0 < epochs < value and not options.get("fast_dev_run")


_FIT = ("fit",)
_LIMIT = "give a share above 0 and at most 1.0, or a whole number of batches, at least 1"
_NO_BATCH = "less than one of the {%s_batches} batch(es) there are; give a larger share, or 1 for one batch."

RULES = (
    Rule(
        "accelerator",
        lambda value, _: isinstance(value, str) and value not in {"auto", "gpu", *AcceleratorRegistry},
        "not known; give cpu, gpu or auto.",
    ),
    Rule(
        "accelerator",
        lambda value, _: value in ("gpu", "cuda") and not torch.cuda.is_available(),
        "no GPU here; give --trainer.accelerator cpu.",
    ),
    Rule("accelerator", lambda value, _: value in ("tpu", "mps"), "not supported; give cpu, gpu or auto."),
    Rule("devices", _bad_devices, "give how many, at least 1, or auto; of GPUs also a list of their numbers, from 0."),
    Rule("devices", _too_many_devices, "more than there are here."),
    Rule("num_nodes", _outside(AT_LEAST_1), "it must be at least 1."),
    Rule(
        "num_nodes",
        lambda value, _: value > 1 and not any(name in os.environ for name in _LAUNCHED),
        "nobody starts the processes on the other machines, so this one would wait for ever; start it by srun or "
        "torchrun.",
    ),
    Rule(
        "strategy",
        lambda value, _: isinstance(value, str) and re.search("spawn|fork|notebook", value.lower()) is not None,
        "processes started that way cannot give their results back; give ddp.",
    ),
    Rule(
        "strategy",
        lambda value, _: isinstance(value, str) and value == "single_device",
        "one device needs no strategy; leave it out, and give --trainer.devices 1.",
    ),
    Rule(
        "strategy",
        lambda value, _: isinstance(value, str) and value.lower() not in {"auto", *StrategyRegistry},
        f"not known; there are {', '.join(STRATEGIES[:2])}.",
    ),
    Rule(
        "strategy",
        _unusable_strategy,
        "it splits the parameters or needs other packages, and gradients are clipped per whole sub-network; give ddp.",
    ),
    Rule(
        "precision",
        lambda value, _: "transformer-engine" in str(value),
        f"not supported; there are {', '.join(PRECISIONS)}.",
    ),
    Rule(
        "precision",
        lambda value, options: str(value) == "16-true" and _is_cpu(options),
        "not on a CPU; give bf16-mixed or 32-true.",
    ),
    Rule("fast_dev_run", lambda value, _: not isinstance(value, bool) and value < 0, "give true, or a count."),
    Rule("max_epochs", lambda value, _: value < -1, "give a whole number, at least 1, or -1 for the recipe's.", _FIT),
    Rule("max_epochs", lambda value, _: value == 0, "trains nothing; random weights would be tested.", _FIT),
    Rule("max_steps", lambda value, _: value < -1 or value == 0, "give a whole number, at least 1, or -1.", _FIT),
    Rule("min_epochs", _outside(NOT_NEGATIVE), "it must be at least 0.", _FIT),
    Rule("min_steps", _outside(NOT_NEGATIVE), "it must be at least 0.", _FIT),
    Rule("min_epochs", _beyond_epochs, "more than --trainer.max_epochs {max_epochs}.", _FIT),
    Rule(
        "min_steps",
        lambda value, options: 0 < (options.get("max_steps") or -1) < value,
        "more than --trainer.max_steps {max_steps}.",
        _FIT,
    ),
    Rule("max_time", _no_duration, "give DD:HH:MM:SS, such as 00:12:00:00 for twelve hours.", _FIT),
    Rule("limit_train_batches", _no_share, _LIMIT + ".", _FIT),
    Rule("limit_val_batches", _no_share, _LIMIT + "; without validation there is no best epoch.", ("fit", "validate")),
    Rule("limit_test_batches", _no_share, _LIMIT + "; without a test there is no result.", ("fit", "test")),
    Rule("limit_predict_batches", _no_share, _LIMIT + ".", ("predict",)),
    *(
        Rule(f"limit_{split}_batches", _below_one_batch(split), _NO_BATCH % split)
        for split in ("train", "val", "test", "predict")
    ),
    Rule(
        "overfit_batches",
        lambda value, _: value != 0,
        "not supported, since a batch is gathered whole; give --trainer.limit_train_batches.",
        _FIT,
    ),
    Rule("val_check_interval", _no_share, _LIMIT + ".", _FIT),
    Rule(
        "val_check_interval",
        _beyond_batches,
        "more than the {epoch_batches} batch(es) of an epoch; give a share, or --trainer.check_val_every_n_epoch null.",
        _FIT,
    ),
    Rule("val_check_interval", _no_duration, "give a share, a number of batches, or DD:HH:MM:SS.", _FIT),
    Rule("check_val_every_n_epoch", _outside(AT_LEAST_1), "it must be at least 1.", _FIT),
    Rule(
        "check_val_every_n_epoch",
        _beyond_epochs,
        "more than --trainer.max_epochs {max_epochs}, so no epoch would be validated and there is no best one.",
        _FIT,
    ),
    Rule(
        "check_val_every_n_epoch",
        lambda value, options: 0 < options.get("scheduled_epochs", 0) < value and not options.get("fast_dev_run"),
        "more than the {scheduled_epochs} epoch(s) of the model's schedule, so none would be validated and there is no "
        "best one.",
        _FIT,
    ),
    Rule("num_sanity_val_steps", _outside(Range(-1)), "give a whole number, at least 0, or -1 for all batches.", _FIT),
    Rule("log_every_n_steps", _outside(NOT_NEGATIVE), "it must be at least 0.", _FIT),
    Rule("accumulate_grad_batches", _outside(AT_LEAST_1), "it must be at least 1.", _FIT),
    Rule(
        "gradient_clip_val",
        _outside(POSITIVE),
        "it must be above 0; 0 would keep every weight as it is. Without it the recipe's norm is used.",
        _FIT,
    ),
    Rule(
        "gradient_clip_algorithm",
        lambda value, _: value != "norm",
        "gradients are clipped by the norm of each sub-network; leave it out.",
        _FIT,
    ),
    Rule("reload_dataloaders_every_n_epochs", _outside(NOT_NEGATIVE), "it must be at least 0.", _FIT),
    Rule(
        "profiler",
        lambda value, _: isinstance(value, str) and value not in ("simple", "advanced", "pytorch"),
        "not known here; there are simple, advanced and pytorch.",
    ),
    Rule(
        "barebones",
        lambda value, _: value is True,
        "leaves out what selects the best epoch: validation scores and checkpoints.",
    ),
    Rule(
        "use_distributed_sampler",
        lambda value, _: value is False,
        "every process would see every utterance; leave it out.",
    ),
    Rule("model_registry", lambda value, _: bool(value), "not supported; checkpoints are kept in the run folder."),
)


@dataclass(frozen=True)
class CallbackRule:
    """When a callback of Lightning is refused.

    Attributes:
        name: of its class.
        wrong: tells from the trainer's options.
        line: what is said.
    """

    name: str
    wrong: Callable[[Options], bool]
    line: str


def _without(option: str) -> Callable[[Options], bool]:
    return lambda options: options.get(option) is False


def _always(_: Options) -> bool:
    return True


_NO_LOGGER = "writes to a logger, and there is none with --trainer.logger false."

CALLBACK_RULES = (
    CallbackRule("LearningRateMonitor", _without("logger"), _NO_LOGGER),
    CallbackRule("DeviceStatsMonitor", _without("logger"), _NO_LOGGER),
    CallbackRule("ThroughputMonitor", _without("logger"), _NO_LOGGER),
    CallbackRule(
        "DeviceStatsMonitor",
        lambda _: importlib.util.find_spec("psutil") is None,
        "needs psutil, which is not installed: pip install psutil.",
    ),
    CallbackRule("BatchSizeFinder", _always, "the batch size is the model's; give --model.batch_size."),
    CallbackRule("LearningRateFinder", _always, "the learning rate is the model's; give --model.learning_rate."),
    CallbackRule("ModelCheckpoint", _without("enable_checkpointing"), "needs --trainer.enable_checkpointing true."),
    CallbackRule("RichProgressBar", _without("enable_progress_bar"), "needs --trainer.enable_progress_bar true."),
    CallbackRule("TQDMProgressBar", _without("enable_progress_bar"), "needs --trainer.enable_progress_bar true."),
    CallbackRule(
        "GradientAccumulationScheduler",
        lambda options: options.get("accumulate_grad_batches", 1) != 1,
        "contradicts --trainer.accumulate_grad_batches; give one of them.",
    ),
)


def check_trainer_options(options: Options, command: str) -> None:
    """Refuse values of the trainer's options that cannot work.

    Args:
        options: parsed, by name, without ``--trainer.``; classes are not made yet. Counts are among them once they
            are known: ``train_batches``, ``val_batches``, ``test_batches``, ``predict_batches``, ``epoch_batches``
            (the training batches up to the limit) and ``scheduled_epochs``.
        command: ``fit``, ``validate``, ``test`` or ``predict``.

    Raises:
        InputError: naming the option, its value and what to give.
    """
    for rule in RULES:
        value = options.get(rule.name)
        if value is None or command not in rule.commands:
            continue
        if rule.wrong(value, options):
            shown = _class_of(value) if isinstance(value, Namespace) else printable(value, 60)
            raise InputError(f"--trainer.{rule.name} {shown}: {rule.line.format_map(options)}")
    callbacks = options.get("callbacks") or []
    names = [_class_of(each) for each in (callbacks if isinstance(callbacks, list) else [callbacks])]
    for callback in CALLBACK_RULES:
        if callback.name in names and callback.wrong(options):
            raise InputError(f"--trainer.callbacks {callback.name}: {callback.line}")


def check_monitors(callbacks: Iterable[Callback], model: MissingModalityModule) -> None:
    """Refuse callbacks that watch a name which is not logged.

    Raises:
        InputError: naming those that are.
    """
    for callback in callbacks:
        monitor = callback.monitor if isinstance(callback, (EarlyStopping, ModelCheckpoint)) else None
        if monitor is None or monitor.startswith("train/"):  # a model's own losses are known after its first batch
            continue
        known = logged_names(model)
        if monitor not in known:
            shown = f"val/ROW/SCORE with a row of {', '.join(SUMMARY_ROWS)} and a score of "
            shown += ", ".join(score.name for score in model.task.scores)
            raise InputError(
                f"--trainer.callbacks {type(callback).__name__}: monitor {printable(monitor, 60)} is not logged. There "
                f"are: train/loss, val/loss, and {shown}."
            )


def logged_names(model: MissingModalityModule) -> Sequence[str]:
    """Names that validation logs."""
    return ["val/loss", *(f"val/{row}/{score.name}" for row in SUMMARY_ROWS for score in model.task.scores)]
