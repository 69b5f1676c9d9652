"""The ``check`` command: everything that is wrong with a corpus, before it is used."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from datamodules.base import EmotionDataModule
from datamodules.check import check_corpus, render_check
from datamodules.files import write_text
from ifmmin.discovery import check_name


def check_command(argv: Sequence[str], corpora: Mapping[str, type[EmotionDataModule]]) -> int:
    """Check a corpus and print what was found.

    Args:
        argv: the words after ``check``.
        corpora: datamodules by name.

    Returns:
        the exit code: 0, or 1 where something is wrong.

    Raises:
        InputError: the corpus named is not known.
    """
    parser = argparse.ArgumentParser(prog="check", description=__doc__)
    parser.add_argument("--data", required=True, help=f"one of {', '.join(corpora)}")
    parser.add_argument("--data.root", dest="root", required=True, help="folder of the features and targets")
    for modality in ("audio", "visual", "text"):
        parser.add_argument(f"--data.{modality}_features", dest=modality, help=f"name of the {modality} features")
    parser.add_argument("--json", help="also write the report to this file")
    options = parser.parse_args(argv)
    check_name(options.data, corpora, "corpus")
    layout = corpora[options.data].layout
    given = (options.audio, options.visual, options.text)
    audio, visual, text = (name or usual for name, usual in zip(given, layout.feature_names, strict=True))
    report = check_corpus(Path(options.root), replace(layout, feature_names=(audio, visual, text)))
    Console().print(render_check(report), crop=False)
    if options.json:
        write_text(options.json, json.dumps(report.to_dict(), indent=2) + "\n")
    return 1 if report.problems else 0
