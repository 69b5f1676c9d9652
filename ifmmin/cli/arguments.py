"""Arguments of the command line: a first look at them, and errors in one line."""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.text import printable
from ifmmin import runs
from ifmmin.checkpoints.compatibility import FOLLOWS_THE_DATA
from ifmmin.cli import configurations
from ifmmin.cli.failures import input_error_in
from ifmmin.cli.loggers import LIBRARIES, library_needed
from ifmmin.cli.main import COMMANDS
from ifmmin.cli.words import check_options, checked, in_order
from ifmmin.discovery import discover_models, find_corpus, find_model, model_names, path_of

_ONCE = ("--model", "--data", "--resume")
_NAMES = ("--model", "--data", "--resume", "--seed_everything", "--model.help", "--data.help")
_CONFIG = ("--config", "-c")
_OF_A_FIT = {
    "run_dir",
    "ckpt_path",
}  # where it wrote and what it started from; other commands mean other things by them
_OF_OTHER_COMMANDS = {
    "resume",
    "test",
    "output",
    "intervals",
    "curves",
    "why",
    "calibrate",
    "calibrated",
    "abstain_below",
    "ckpt_path",
}


class _ParserError(InputError):
    """What a parser refused; the parser of the options around it says it anew, with the name of the option."""


class Parser(LightningArgumentParser):
    """A parser that takes no abbreviations, checks configuration files first, and whose errors are one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse words.

        Raises:
            InputError: an option or a configuration is wrong.
        """
        return super().parse_args(self._ready(list(sys.argv[1:] if args is None else args)), *rest, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise jsonargparse's message, in one line.

        Raises:
            InputError: always.
        """
        cause = input_error_in(ex)
        if cause is not None and not isinstance(cause, _ParserError):
            raise cause
        raise _ParserError(concise(message, sys.argv[1:])) from ex

    def _ready(self, words: list[str]) -> list[str]:
        """Words with known options and sound configurations only."""
        if not self.exit_on_error:  # a class's own parser, which says itself what the class does not know
            return words
        commands = self._subcommands_action.choices if self._subcommands_action else {}
        place = next((i for i, word in enumerate(words) if word in commands), -1)
        for i, path in _configs(words[: place + 1]):
            words[i] = _checked_config(words[i], path, set(COMMANDS), set())
        parser = commands[words[place]] if place >= 0 else self
        options = {name.removeprefix("--") for name in parser._option_string_actions}
        given = words[place + 1 :]
        check_options(given, options | _class_options(given))
        fits = place >= 0 and words[place] == "fit"
        for i, path in _configs(given):
            known = options - {"-h", "-c", "config"}
            given[i] = _checked_config(given[i], path, known, _OF_OTHER_COMMANDS, set() if fits else _OF_A_FIT)
        return words[: place + 1] + given


def _configs(words: Sequence[str]) -> list[tuple[int, str]]:
    """Where configurations are named, and their paths."""
    found = []
    for i, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in _CONFIG and equals:
            found.append((i, value))
        elif i and words[i - 1] in _CONFIG:
            found.append((i, word))
    return found


def _checked_config(word: str, path: str, known: set[str], elsewhere: set[str], of_a_fit: Collection[str] = ()) -> str:
    """The word that names a configuration; where it has options of other commands, one with the rest in place.

    What a finished ``fit`` recorded of itself (``of_a_fit``) is none of another command's.
    """
    if "{" in path:  # in place, checked as a word
        return word
    foreign, settings = configurations.check(path, known, elsewhere), configurations.read(path)
    for text in configurations.strings(settings):
        expanded(text)
    try:
        if name := configurations.class_named(settings, "model"):
            find_model(name)
        if name := configurations.class_named(settings, "data"):
            find_corpus(name)
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from None
    if {"resume", "weights_only"} & foreign:
        foreign |= settings.keys() & of_a_fit
    if not foreign:
        return word
    rest = {name: value for name, value in settings.items() if name not in foreign}
    return word.removesuffix(path) + json.dumps(rest)


def _class_options(words: Sequence[str]) -> set[str]:
    """Names of the options of the model and corpus that the words name."""
    return {f"{key}.{name}" for key in ("model", "data") for name in _options(words, key)}


def first_look(argv: Sequence[str]) -> argparse.Namespace:
    """Read what must be known before the parser of a command can be built: the class names, and ``--resume``.

    jsonargparse finds a class by its short name only once it is imported, and ignores values of options that are
    derived from others.

    Returns:
        the values of ``model``, ``data``, ``resume``, ``run_dir``, ``seed_everything`` and the two ``.help``, None
        without one; ``config``, whether settings come from a file; and ``follows``, the options given that are derived
        from others.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in _NAMES:
        parser.add_argument(option, nargs="?")
    parser.add_argument("-c", "--config", action="append")
    parser.add_argument("--run_dir", nargs="?")
    derived = [f"--model.{prefix}{name}" for name in FOLLOWS_THE_DATA for prefix in ("", "init_args.")]
    derived += ["--data.seed", "--data.init_args.seed"]
    for option in derived:
        parser.add_argument(option, dest=option)
    try:
        found, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise InputError(f"{(error.argument_name or '').rpartition('/')[2]}: {error.message}.") from error
    given = vars(found)
    within = {option for option in derived if any(word.startswith(f"{option}.") for word in argv)}
    found.follows = [option for option in derived if given[option] is not None or option in within]
    return found


def prepare(argv: list[str]) -> list[str]:
    """Check the words of a command, put them in order, import the classes they name, and expand ``--resume``.

    Raises:
        InputError: no model or an unknown one, an unknown corpus, a value for an option that is derived from another,
            no run to resume, two models, or words that no option takes.
    """
    argv = in_order(checked(argv))
    check_once(argv)
    seen = first_look(argv)
    if seen.resume is None and argv[:1] == ["fit"] and seen.run_dir and _started_again_by_slurm():
        # The job's script gives the words that began the run, and they go on with it.
        seen.resume = seen.run_dir if (expanded(seen.run_dir) / runs.CONFIG).is_file() else None
    if seen.resume in (None, "") and any(word.partition("=")[0] == "--resume" for word in argv):
        raise InputError("--resume: give the folder of the run to go on with.")
    if seen.resume is not None and argv[0] not in ("test", "validate", "predict"):
        folder = expanded(seen.resume)
        config = runs.resumable(folder)
        runs.share_run_dir(folder)
        # The run may have been moved since its configuration was written.
        argv = ["fit", "--config", str(config), *_without_resume(argv[1:]), "--run_dir", str(folder)]
        seen = first_look(argv)
    for option in seen.follows:
        source = "--seed_everything" if option.startswith("--data") else "the data"
        raise InputError(f"{option}: follows {source} and cannot be set.")
    named = vars(seen)
    model = named["model.help"] if seen.model is None else seen.model
    data = named["data.help"] if seen.data is None else seen.data
    asks_help = {"-h", "--help", "--model.help", "--data.help"} & {word.partition("=")[0] for word in argv}
    command = argv[0] if argv and not argv[0].startswith("-") else None
    if command and seen.model is None and not (seen.config or asks_help):
        known = ", ".join(model_names())
        raise InputError(f"{command}: --model is needed. There are: {known}; or give a class path.")
    # Settings from a file, or in place, name their classes inside.
    if seen.config or _holds_settings(model) or _holds_settings(data):
        discover_models()
    if data is not None and not _holds_settings(data):
        argv = by_path(argv, data, find_corpus(data))
    if model is not None and not _holds_settings(model):
        argv = by_path(argv, model, find_model(model))
    return argv


def check_once(argv: Sequence[str]) -> None:
    """Refuse two models, corpora or runs to resume.

    Raises:
        InputError: naming the option.
    """
    for option in _ONCE:
        if sum(word == option or word.startswith(f"{option}=") for word in argv) > 1:
            raise InputError(f"{option}: given more than once; give one.")


def _started_again_by_slurm() -> bool:
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def by_path(argv: list[str], name: str, owner: type) -> list[str]:
    """Words with a class named by its path: a plug-in may have another of its name."""
    path = path_of(owner)
    if path is None:
        return argv
    replaced = {f"{option}={name}": f"{option}={path}" for option in _NAMES}
    words = [replaced.get(word, word) for word in argv]
    return [path if word == name and i and words[i - 1] in _NAMES else word for i, word in enumerate(words)]


def _without_resume(words: Sequence[str]) -> list[str]:
    """The words without ``--resume RUN``; options before it and after it stay in their order."""
    return [
        word
        for before, word in zip(("", *words), words, strict=False)
        if before != "--resume" and word != "--resume" and not word.startswith("--resume=")
    ]


def _holds_settings(value: str | None) -> bool:
    return value is not None and (value.endswith(configurations.SETTINGS) or "{" in value)


def class_at(path: str) -> Any:
    """Import the class of a class path that a parser has accepted."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def bad_seed(given: object) -> str:
    """Explain what a seed is."""
    shown = "" if given is None else f" {printable(given)}"
    return f"--seed_everything{shown}: give a whole number from 0 to {2**32 - 1}, so that the run repeats."


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
    if needed := re.search(r"the following arguments are required: (?:\w+\.)?(model|data)\b", message):
        return f"--{needed[1]} is needed."
    key = re.fullmatch(r'Parser key "([\w.]+)":', lines[0])
    nested = re.search(r"^  Given value: NestedArg\(key='([\w.]+)'", message, re.M)
    unknown = re.search(r"Expected a dot import path string: ([^\s.]+)$", message, re.M)
    if key and nested and (unknown or "Expected an instantiatable class" in message):
        return f"--{key[1]}.{nested[1]}: no class is named that takes it; give --{key[1]} CLASS before it."
    if key and unknown:
        return _no_class(key[1], unknown[1])
    located = re.search(r"Problem with given class_path '[\w.]*?(\w+)'", message)
    if located and (package := LIBRARIES.get(located[1])):
        return library_needed(located[1], package)
    if key is None:
        return " ".join(lines)
    # Lightning types every class option as Optional; drop jsonargparse's "not None" complaints.
    reasons = [line[2:] for line in lines if line.startswith("- ") and "NoneType" not in line] or lines[1:2]
    # What an option of the class says tells more than that the class is none of the other types.
    inner = [each for each in reasons if re.match(r'--|Parser key "', each)]
    inner = inner or [each for each in reasons if re.match("Option |the following arguments", each)]
    if not inner and any(each.startswith("Not a valid subclass of ") for each in reasons):
        return f"--{key[1]}: what is given is no class; give its name, or class_path and init_args."
    reason = "; ".join(dict.fromkeys(inner or reasons))
    reason = re.sub(rf"(^|; )--(?!{re.escape(key[1])}\.)", rf"\1--{key[1]}.", reason)
    reason = re.sub(r'Parser key "([\w.]+)": ?', rf"--{key[1]}.\1: ", reason)
    reason = re.sub(r"<class '([\w.]+)'>", r"\1", reason)
    reason = re.sub(r"Expected a typing.Literal\[([^]]*)\]", r"Expected one of \1", reason)
    given = [line.removeprefix("Given value: ") for line in lines if line.startswith("Given value: ")]
    if given and len(given[0]) < 40 and "Got value" not in reason:
        reason += f". Got value: {given[0]}"
    reason = re.sub(r"the following arguments are required: (\w+)", rf"--{key[1]}.\1 is needed", reason)
    if mistyped := re.match(r"Option '(\w+)' is not accepted", reason):
        return _not_an_option(argv, key[1], mistyped[1])
    if within := re.match(r"--([\w.]+): .*NestedArg\(key='([\w.]+)'", reason):
        return f"--{within[1]}.{within[2]} is not known; --{within[1]} takes a value."
    if key[1] == "seed_everything":
        return bad_seed(given[0] if given else first_look(argv).seed_everything)
    return reason if reason.startswith("--") else f"--{key[1]}: {reason}"


def _no_class(key: str, name: str) -> str:
    """Say that an option of the trainer names no class, with the nearest of Lightning's."""
    if package := LIBRARIES.get(name):
        return library_needed(name, package)
    group = import_module("lightning.pytorch." + {"logger": "loggers"}.get(key.rpartition(".")[2], "callbacks"))
    near = difflib.get_close_matches(name, group.__all__, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"--{key}: there is no class {printable(name)}.{hint} Give the name of one of Lightning's, or a class path."


def _not_an_option(argv: Sequence[str], key: str, name: str) -> str:
    near = difflib.get_close_matches(name, [*_options(argv, key)], n=1)
    if name in near:
        return f"--{key}.{name}: its class does not take it; let its __init__ take **kwargs and pass them on."
    hint = f" Did you mean --{key}.{near[0]}?" if near else ""
    return f"--{key}.{name} is not known.{hint} See --{key}.help."


def _options(argv: Sequence[str], key: str) -> Iterator[str]:
    """Names of all options of the model or corpus that the words name."""
    seen = first_look(argv)
    of_data = key.endswith("data")
    name = (seen.data or "Synthetic") if of_data else seen.model
    if not name or _holds_settings(name):
        return
    try:
        owner: type = find_corpus(name) if of_data else find_model(name)
    except InputError:  # said by whoever needs the class
        return
    yield from defaults_of(owner).keys() - {"args", "kwargs", "self"}
