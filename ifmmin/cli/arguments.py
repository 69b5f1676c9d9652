"""The words of the command line: what is caught before, or said better than, jsonargparse would."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from ifmmin import runs
from ifmmin.checkpoints.compatibility import LINKED
from ifmmin.discovery import CORPORA, Models, check_name, discover_models


class Parser(LightningArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what jsonargparse has to say, in one line.

        Raises:
            InputError: always.
        """
        raise InputError(concise(message, sys.argv[1:]))


def concise(message: str, argv: Sequence[str]) -> str:
    """The one line that matters of an error of jsonargparse, and the nearest name of a mistyped option."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    key = re.fullmatch(r'Parser key "([\w.]+)":', lines[0])
    # A class is always "or None" to Lightning: that it is no None either says nothing.
    reasons = [line[2:] for line in lines if line.startswith("- ") and "NoneType" not in line]
    if key is None:
        return " ".join(lines)
    reason = "; ".join(reasons) or " ".join(lines[1:2])
    reason = re.sub(r'Parser key "([\w.]+)": ?', rf"--{key[1]}.\1: ", reason)
    reason = re.sub(r"<class '([\w.]+)'>", r"\1", reason)
    given = [line.removeprefix("Given value: ") for line in lines if line.startswith("Given value: ")]
    if given and len(given[0]) < 40 and "Got value" not in reason:
        reason += f". Got value: {given[0]}"
    reason = re.sub(r"the following arguments are required: (\w+)", rf"--{key[1]}.\1 is needed", reason)
    mistyped = re.search(r"Option '(\w+)' is not accepted", reason)
    if mistyped:
        near = difflib.get_close_matches(mistyped[1], _settings(argv, key[1]), n=1)
        reason = f"--{key[1]}.{mistyped[1]} is not known." + (f" Did you mean --{key[1]}.{near[0]}?" if near else "")
        return f"{reason} See --{key[1]}.help."
    return reason if reason.startswith("--") else f"--{key[1]}: {reason}"


def _settings(argv: Sequence[str], key: str) -> list[str]:
    """The names of all settings of the model or corpus that the command line names."""
    known: Models | dict[str, type[EmotionDataModule]] = CORPORA if key.endswith("data") else discover_models()
    named = known.get(value_of(argv, f"--{key}") or "Synthetic")
    if named is None:
        return []
    # Settings a class passes on are named by the classes above it.
    return [
        name for parent in named.__mro__ if "__init__" in vars(parent) for name in inspect.signature(parent).parameters
    ]


def value_of(argv: Sequence[str], option: str) -> str | None:
    """The value given for ``--option X`` or ``--option=X``, None where there is none."""
    for position, word in enumerate(argv):
        if word == option and position + 1 < len(argv):
            return argv[position + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def check_words(argv: Sequence[str], models: Iterable[str]) -> None:
    """Catch what jsonargparse would accept silently or explain badly.

    Raises:
        InputError: no model or an unknown one, an unknown corpus, a seed that is none, or a value for
            what follows something else.
    """
    models = list(models)
    asked = {word.partition("=")[0] for word in argv}
    elsewhere = {"-h", "--help", "-c", "--config", "--model", "--model.help", "--data.help"} & asked
    if argv[:1] and not argv[0].startswith("-") and not elsewhere:
        raise InputError(f"{argv[0]}: --model is needed. There are: {', '.join(sorted(models))}; or give a class path.")
    for option, known, what in (("--model", models, "model"), ("--data", list(CORPORA), "corpus")):
        given = value_of(argv, option)
        # A settings file or settings in place name the class inside.
        if given is not None and not given.endswith((".yaml", ".yml", ".json")) and "{" not in given:
            check_name(given, known, what)
    seed = value_of(argv, "--seed_everything")
    if seed is not None and not (seed.isdecimal() and int(seed) < 2**32):
        raise InputError(
            f"--seed_everything {seed}: give a whole number from 0 to {2**32 - 1}, so that the run repeats."
        )
    follows = {f"--model.{prefix}{fact}": "the data" for fact in LINKED for prefix in ("", "init_args.")}
    follows |= {"--data.seed": "--seed_everything", "--data.init_args.seed": "--seed_everything"}
    for name in (word.partition("=")[0] for word in argv):
        if name in follows:
            raise InputError(f"{name}: follows {follows[name]} and cannot be set.")


def expand_resume(argv: list[str]) -> list[str]:
    """Turn ``fit --resume RUN`` into the command that goes on with that run.

    Raises:
        InputError: there is no such run, or it is finished.
    """
    folder = value_of(argv, "--resume")
    if folder is None:
        return argv
    config = runs.resumable(Path(folder))
    runs.share_run_dir(Path(folder))
    rest = [word for word in argv[1:] if word not in ("--resume", folder, f"--resume={folder}")]
    # The run may have been moved since its configuration was written.
    return ["fit", "--config", str(config), *rest, "--run_dir", folder]
