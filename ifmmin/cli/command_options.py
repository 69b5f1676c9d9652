"""Options of the commands that train, score and predict, besides those of the model, the data and the trainer."""

from __future__ import annotations

import argparse
from typing import Literal

from lightning.pytorch.cli import LightningArgumentParser

from ifmmin.curves import CURVES
from ifmmin.sharing.hub import SHIPPED


def add_command_options(parser: LightningArgumentParser, command: str) -> None:
    """Add the options of a command.

    Args:
        parser: of the command.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
    """
    parser.add_argument("--seed_everything", type=int, default=0, help="Seed of weights, order, masks and dropout.")
    parser.add_argument(
        "--run_dir",
        type=str | None,
        default=None,
        help="Folder of this run; by default the next free runs/CORPUS/foldN/MODEL-seedS/run-K.",
    )
    what = "Checkpoint to start from, with its optimiser."
    if command != "fit":
        what = (
            f"What answers, needed: a .ckpt file that fit wrote, a folder that save wrote, or {' or '.join(SHIPPED)}."
        )
    parser.add_argument("--ckpt_path", type=str | None, default=None, help=what)
    if command == "fit":
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
    if command != "predict":
        parser.add_argument(
            "--curves",
            type=str | None,
            default=None,
            help=f"Rate curves with the area below them: all, or some of {', '.join(CURVES)}, or with other rates.",
        )
        parser.add_argument(
            "--intervals",
            type=Literal["utterances", "speakers", "none"],
            default="utterances",
            help="What the 95-percent bootstrap intervals of the table are over.",
        )
    if command == "validate":
        parser.add_argument(
            "--calibrate",
            type=bool,
            default=False,
            help="Fit a temperature per condition, and write them into the checkpoint, as fit does.",
        )
    if command != "fit":
        parser.add_argument(
            "--why", type=bool, default=False, help="Add to predictions what each modality gave: Shapley values."
        )
    if command == "predict":
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
