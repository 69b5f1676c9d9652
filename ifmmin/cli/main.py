"""Entry point: prints help and errors, rejects unknown commands, imports a command only when it runs."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence

from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.cli import ranks, starting
from ifmmin.cli.failures import reported
from ifmmin.cli.media_words import is_media_form

__all__ = ["COMMANDS", "main", "reported"]

COMMANDS = {
    "fit": "train a model, stage 1 first where it has one, and test its best epoch",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "write what a checkpoint predicts of each utterance under each condition; or of media: predict FILE",
    "extract": "make a feature corpus of recordings",
    "import": "make a feature corpus of a published pack, or of folders of .npy files",
    "check": "list everything that is wrong with a corpus, or with a model",
    "compare": "compare two runs of one fold, utterance by utterance",
    "save": "save a checkpoint's model as a folder of safetensors, and share it",
    "export": "write a checkpoint as an ONNX network, for programs without PyTorch",
    "demo": "open a page in the browser on which sensors can be switched off",
    "models": "list the models, with their papers",
    "completion": "print a script by which a shell completes commands, names and options",
}
"""Commands and what they do."""

_EPILOG = (
    "COMMAND --help lists the options of a command, fit --model.help IFMMIN those of a model, "
    "fit --data.help IEMOCAP those of a corpus."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: the words after the program's name; by default those it was started with.

    Returns:
        exit code: 0, or 1 after one line on standard error that says what is wrong.
    """
    if args is None:
        return ranks.program(lambda: reported(lambda: _command(None)))
    return reported(lambda: _command(args))


def _command(args: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if args is None else args)
    if argv in (["-h"], ["--help"]):
        print(_help(), end="")
        return 0
    if "--version" in argv[:2]:
        from ifmmin import __version__

        print(f"ifmmin {__version__}")
        return 0
    _check_first(argv)
    ranks.check_environment()  # before Lightning, whose import reads it
    if args is not None:
        # Called with explicit args we may run inside another program: leave its allocator and GC alone.
        return _imported(argv)(argv)
    starting.large_pages()
    starting.no_screen()
    with starting.imports():
        command = _imported(argv)
    return command(argv)


def _imported(argv: Sequence[str]) -> Callable[[list[str]], int]:
    """Import what runs these words; that takes seconds."""
    name = argv[0]
    if name == "predict" and is_media_form(argv[1:]):
        from ifmmin.cli.predict_media import predict_media_command as command
    elif name == "check":
        from ifmmin.cli.check import check_command as command
    elif name == "compare":
        from ifmmin.cli.compare import compare_command as command
    elif name == "completion":
        from ifmmin.cli.completion import completion_command as command
    elif name == "export":
        from ifmmin.cli.export import export_command as command
    elif name == "extract":
        from ifmmin.cli.extract import extract_command as command
    elif name == "import":
        from ifmmin.cli.import_corpus import import_command as command
    elif name == "save":
        from ifmmin.cli.save import save_command as command
    elif name == "demo":
        from ifmmin.cli.demo import demo_command as command
    elif name == "models":
        from ifmmin.cli.models import models_command as command
    else:
        from ifmmin.cli.commands import run

        return run
    from ifmmin.cli.console import clean_process

    def run_clean(argv: list[str]) -> int:
        with clean_process(argv):
            return command(argv[1:])

    return run_clean


def _help() -> str:
    """Text of ``--help`` alone."""
    parser = argparse.ArgumentParser(description="Emotion recognition with missing modalities.", epilog=_EPILOG)
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, what in COMMANDS.items():
        commands.add_parser(name, help=what)
    return parser.format_help()


def _check_first(argv: Sequence[str]) -> None:
    """Refuse words that do not begin with a command, or with options of all commands.

    Raises:
        InputError: naming the commands.
    """
    first = argv[0] if argv else ""
    if first in COMMANDS or first.startswith("-"):
        return
    near = difflib.get_close_matches(first, COMMANDS, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    what = f"command {printable(first)!r} is not known." if first else "a command is needed."
    raise InputError(f"{what}{hint} There are: {', '.join(COMMANDS)}; --help says what each does.")
