"""What ``--help`` of a command shows: names that can be given, and what a default does here."""

from __future__ import annotations

from lightning.pytorch.cli import LightningArgumentParser

from ifmmin.discovery import corpus_names, model_names

_TITLES = {"model": "Model", "data": "Corpus", "trainer": "Trainer of Lightning"}
_MAX_EPOCHS = "Epochs at most, of each stage; -1: as many as the model's recipe has."


def shorten_help(parser: LightningArgumentParser) -> None:
    """Leave internals out of the help of a command's parser, whose options are all there."""
    parser.usage = "%(prog)s [options]"
    actions = parser._option_string_actions
    actions["--trainer.max_epochs"].help = _MAX_EPOCHS
    for option, names in (("--model", model_names()), ("--data", corpus_names())):
        action = actions[option]
        action.help = f"{', '.join(names)}, or a class path; {option}.help NAME lists its options."
        vars(action)["extra_help"] = str  # or jsonargparse lists abstract classes among the choices
    # What follows the data cannot be given, so its links help nobody.
    parser._action_groups = [group for group in parser._action_groups if group.title != "Linked arguments"]
    for group in parser._action_groups:
        for key, title in _TITLES.items():
            if any(key in (action.dest, action.dest.partition(".")[0]) for action in group._group_actions):
                group.title, group.description = title, None
