"""Arguments of the command line: a first look at them, and errors in one line."""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from datamodules.errors import InputError
from ifmmin import runs
from ifmmin.checkpoints.compatibility import FOLLOWS_THE_DATA
from ifmmin.discovery import check_name, corpus_names, discover_models, find_corpus, find_model, model_names

_NAMES = ("--model", "--data", "--resume", "--seed_everything", "--model.help", "--data.help")
_SETTINGS = (".yaml", ".yml", ".json")  # a file that names the class, instead of its name


class Parser(LightningArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise jsonargparse's message, in one line.

        Raises:
            InputError: always.
        """
        raise InputError(concise(message, sys.argv[1:]))


def first_look(argv: Sequence[str]) -> argparse.Namespace:
    """Read what must be known before the parser of a command can be built: the class names, and ``--resume``.

    jsonargparse finds a class by its short name only once it is imported, and ignores values of options that are
    derived from others.

    Returns:
        the values of ``model``, ``data``, ``resume``, ``seed_everything``, ``model.help`` and ``data.help``, None
        without one; ``config``, whether settings come from a file; ``follows``, the options given that are derived
        from others; and ``rest``, the other words.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in _NAMES:
        parser.add_argument(option, nargs="?")
    parser.add_argument("-c", "--config", action="append")
    derived = [f"--model.{prefix}{name}" for name in FOLLOWS_THE_DATA for prefix in ("", "init_args.")]
    derived += ["--data.seed", "--data.init_args.seed"]
    for option in derived:
        parser.add_argument(option, dest=option)
    found, rest = parser.parse_known_args(list(argv))
    given = vars(found)
    found.follows = [option for option in derived if given[option] is not None]
    found.rest = rest
    return found


def prepare(argv: list[str]) -> list[str]:
    """Check the words of a command, import the classes they name, and expand ``--resume``.

    Raises:
        InputError: no model or an unknown one, an unknown corpus, a value for an option that is derived from another,
            or no run to resume.
    """
    seen = first_look(argv)
    if seen.resume is not None:
        folder = Path(seen.resume)
        config = runs.resumable(folder)
        runs.share_run_dir(folder)
        # The run may have been moved since its configuration was written.
        argv = ["fit", "--config", str(config), *seen.rest[1:], "--run_dir", str(folder)]
        seen = first_look(argv)
    for option in seen.follows:
        source = "--seed_everything" if option.startswith("--data") else "the data"
        raise InputError(f"{option}: follows {source} and cannot be set.")
    named = vars(seen)
    model, data = seen.model or named["model.help"], seen.data or named["data.help"]
    asks_help = {"-h", "--help", "--model.help", "--data.help"} & {word.partition("=")[0] for word in argv}
    command = argv[0] if argv and not argv[0].startswith("-") else None
    if command and seen.model is None and not (seen.config or asks_help):
        known = ", ".join(model_names())
        raise InputError(f"{command}: --model is needed. There are: {known}; or give a class path.")
    # Settings from a file, or in place, name their classes inside.
    if seen.config or _holds_settings(model) or _holds_settings(data):
        discover_models()
    if data and not _holds_settings(data):
        find_corpus(data)
    if model and not _holds_settings(model):
        check_name(model, model_names(), "model")
        if "." not in model:
            find_model(model)
    return argv


def _holds_settings(value: str | None) -> bool:
    return value is not None and (value.endswith(_SETTINGS) or "{" in value)


def class_at(path: str) -> Any:
    """Import the class of a class path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def bad_seed(given: object) -> str:
    """Explain what a seed is."""
    return f"--seed_everything {given}: give a whole number from 0 to {2**32 - 1}, so that the run repeats."


def defaults_of(owner: type) -> dict[str, Any]:
    """Options of a class with their defaults; those that it passes on are named by the classes above it."""
    found: dict[str, Any] = {}
    for parent in owner.__mro__:
        if "__init__" in vars(parent):
            for name, parameter in inspect.signature(parent).parameters.items():
                found.setdefault(name, parameter.default)
    return found


def concise(message: str, argv: Sequence[str]) -> str:
    """Shorten an error of jsonargparse to the line that matters, with the nearest name of a mistyped option."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    key = re.fullmatch(r'Parser key "([\w.]+)":', lines[0])
    # Lightning types every class option as Optional; drop jsonargparse's "not None" complaints.
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
        near = difflib.get_close_matches(mistyped[1], [*_options(argv, key[1])], n=1)
        reason = f"--{key[1]}.{mistyped[1]} is not known."
        if near:
            reason += f" Did you mean --{key[1]}.{near[0]}?"
        return f"{reason} See --{key[1]}.help."
    if key[1] == "seed_everything":
        return bad_seed(given[0] if given else first_look(argv).seed_everything)
    return reason if reason.startswith("--") else f"--{key[1]}: {reason}"


def _options(argv: Sequence[str], key: str) -> Iterator[str]:
    """Names of all options of the model or corpus that the words name."""
    seen = first_look(argv)
    name = (seen.data or "Synthetic") if key.endswith("data") else seen.model
    known = corpus_names() if key.endswith("data") else model_names()
    if name in known:
        yield from defaults_of(find_corpus(name) if key.endswith("data") else find_model(name))
