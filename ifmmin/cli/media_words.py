"""Words of ``predict`` for media files: which they are, and how they tell it from ``predict`` for a corpus."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

WEIGHTS = ("audio", "visual", "text", "detector")
"""Whose weights may be elsewhere on this machine."""

OPTIONS: dict[str, tuple[type, str]] = {
    "ckpt_path": (str, "Checkpoint of a fit on extracted features; needed."),
    "text": (str, "What is said; it may be given without a file."),
    "subtitles": (str, "A .srt or .vtt file: an answer to each of its lines, whose words are the text."),
    "window": (float, "Answer for windows of this many seconds, at most 30."),
    "hop": (float, "Seconds from a window's start to the next one's; by default those of --window."),
    "without": (str, "Modalities to leave out: audio, visual, text, or two of them with a comma."),
    "half": (str, "The part of the picture that shows the speaker."),
    "camera": (str, "Answer for what a camera sees until Ctrl-C: its number, or FORMAT:NAME of FFmpeg, or a file."),
    "microphone": (str, "Beside --camera: FORMAT:NAME of FFmpeg, or none; by default the system's."),
    "seconds": (float, "Beside --camera: end after so many."),
    "calibrated": (str, "Give probabilities at the temperatures that fit found on validation: true or false."),
    "abstain_below": (float, "Predict no class where none is this probable."),
    "json": (bool, "Print one JSON object a line."),
    "output": (str, "Also write the answers to this .csv file."),
    "device": (str, "Where the model and extractors that are networks run, cpu by default."),
    "model": (str, "Class path of a model of your own that is not installed."),
    "download": (bool, "Let extractors fetch weights that are not on this machine."),
    **{f"{name}.model": (str, f"Where the weights of --{name} are on this machine.") for name in WEIGHTS},
    "help": (bool, "Show this message and exit."),
}
"""Options of ``predict`` for media files: type and help."""

CORPUS_GROUPS = ("--model.", "--data", "--trainer", "--config", "--run_dir", "--seed_everything")
"""How options of ``predict`` for a corpus begin."""

_ONLY_MEDIA = ("text", "subtitles", "window", "hop", "without", "half", "camera", "microphone", "seconds", "download")


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """The options that every answer takes, by name."""
    return {name: getattr(options, name) for name in ("without", "half", "calibrated", "abstain_below")}


def is_media_form(words: Sequence[str]) -> bool:
    """Whether the words after ``predict`` are about media files: one is no option, or an option is only theirs.

    >>> is_media_form(["clip.mp4", "--ckpt_path", "x.ckpt"]), is_media_form(["--model", "MMIN", "--data", "IEMOCAP"])
    (True, False)
    >>> is_media_form(["--json", "clip.mp4"]), is_media_form(["--text=Hello."])
    (True, True)
    """
    takes_value = False
    for word in words:
        option, equals, _ = word.partition("=")
        name = option.removeprefix("--")
        if takes_value and not word.startswith("--"):
            takes_value = False
        elif not word.startswith("-") or (option.startswith("--") and name in _ONLY_MEDIA):
            return True
        else:
            is_flag = word in ("-h", "--help", "--") or OPTIONS.get(name, (str, ""))[0] is bool
            takes_value = not equals and not is_flag
    return False
