"""What ``fit`` refuses of its words, without a run: for programs that start many."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import lightning as L

from datamodules.base import EmotionDataModule
from ifmmin.cli.arguments import prepare
from ifmmin.cli.commands import IfmminCLI
from ifmmin.cli.console import clean_process
from ifmmin.cli.counts import check_counts
from ifmmin.pretraining.fitting import load_pretrained


class _Rehearsal(IfmminCLI):
    """Parses words and makes the model and its data; neither a folder nor a trainer."""

    def before_instantiate_classes(self) -> None:
        """Make no folder."""
        self._check_options()

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Make none."""
        return None  # type: ignore[return-value]

    def _run_subcommand(self, subcommand: str) -> None:
        """Train nothing."""

    def _set_seed(self) -> None:
        """Leave the random state of the program alone."""


def rehearse(words: Sequence[str], data: EmotionDataModule) -> None:
    """Refuse what ``fit`` on one device would refuse before it writes anything.

    Args:
        words: after ``fit``.
        data: of these words, set up.

    Raises:
        InputError: as ``fit`` says it.
    """
    with clean_process(["fit", *words]):
        sys.argv[1:] = prepare(sys.argv[1:])
        rehearsal = _Rehearsal()
        load_pretrained(rehearsal.model, data)
        check_counts(rehearsal._options, "fit", rehearsal.model, data, devices=1)
