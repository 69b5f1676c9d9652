"""Save a trained model as a folder of safetensors with a model card, and share it on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.checkpoints import load_model
from ifmmin.cli.arguments import Parser
from ifmmin.discovery import find_model
from ifmmin.sharing.hub import stored_at


def make_parser() -> Parser:
    """The parser of ``save``."""
    parser = Parser(prog="save", description=__doc__)
    parser.add_argument("checkpoint", type=str, help="A .ckpt file that fit wrote, or a saved model.")
    parser.add_argument("folder", type=str, nargs="?", help="Folder to make; not needed with --push.")
    parser.add_argument("--push", type=str | None, default=None, metavar="ORG/NAME", help="Upload it to the Hub.")
    parser.add_argument("--public", action="store_true", help="A new model on the Hub is seen by everybody.")
    parser.add_argument("--overwrite", action="store_true", help="Replace a model that was saved in FOLDER before.")
    parser.add_argument(
        "--run",
        type=str | None,
        default=None,
        help="Folder of a fit or a test, whose scores the card shows; by default the checkpoint's own.",
    )
    parser.add_argument(
        "--licence", type=str | None, default=None, help="Of the weights, such as cc-by-4.0; by default the corpus's."
    )
    parser.add_argument("--model", type=str | None, default=None, help="Class path of a model of your own.")
    return parser


def save_command(argv: Sequence[str]) -> int:
    """Save a model and print where.

    Args:
        argv: the words after ``save``.

    Returns:
        exit code, 0.

    Raises:
        InputError: the checkpoint cannot be read, the folder is taken, or the Hub refuses.
        OSError: the folder cannot be written.
    """
    options = make_parser().parse_args(list(argv))
    if options.folder is None and options.push is None:
        raise InputError("save: give the folder to make, or --push ORG/NAME.")
    if options.public and options.push is None:
        raise InputError("--public belongs to --push ORG/NAME.")
    if options.overwrite and options.folder is None:
        raise InputError("--overwrite belongs to FOLDER.")
    model, _ = load_model(stored_at(options.checkpoint), options.model and find_model(options.model))
    if options.folder is not None:
        folder = model.save_pretrained(
            options.folder, run=options.run, licence=options.licence, overwrite=options.overwrite
        )
        print(f"saved: {printable(folder)}")
    if options.push is not None:
        private = not options.public
        print(f"pushed: {model.push_to_hub(options.push, run=options.run, licence=options.licence, private=private)}")
    return 0
