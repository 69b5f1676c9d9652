"""Answers for what a camera sees and a microphone hears, until Ctrl-C."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

from datamodules.errors import InputError
from datamodules.extraction.media.camera import Live, camera_named, microphone_named
from datamodules.extraction.media.windows import check_windows
from ifmmin.cli import stopping
from ifmmin.cli.media_words import asked
from ifmmin.media import MediaPredictor
from ifmmin.results.answers import Answer

WINDOW, HOP = 5.0, 2.5
"""Seconds, where the user names none."""


def camera_answers(predictor: MediaPredictor, options: argparse.Namespace) -> Iterator[tuple[str, Answer]]:
    """Answer for each window; where the machine is slower than the hop, windows are left out.

    Args:
        predictor: answers.
        options: of the command; ``camera``, ``microphone``, ``window``, ``hop``, ``seconds``, ``without``, ``half``.

    Yields:
        The time that a line begins with, and an answer, until Ctrl-C, ``seconds`` have passed, or the camera ends.

    Raises:
        InputError: the camera cannot be opened, windows are out of range, or an extractor is not installed.
    """
    window = WINDOW if options.window is None else options.window
    hop = options.hop
    if hop is None:
        hop = HOP if options.window is None else window
    check_windows(window, hop)
    if options.seconds is not None and not options.seconds >= window:
        raise InputError(f"--seconds {options.seconds:g}: give at least those of a window, {window:g}.")
    camera = camera_named(options.camera)
    wanted = {"audio", "visual"} & {*predictor.modalities} - {*options.without}  # nothing else is recorded
    fps = predictor.prepare(wanted)
    with ExitStack() as closing:
        picture = sound = None
        if "visual" in wanted:
            picture = Live(camera, "video", window, fps)
            closing.callback(picture.close)
        if "audio" in wanted:
            sound = _microphone(options, camera, window)
            if sound is not None:
                closing.callback(sound.close)
        inputs = [one for one in (picture, sound) if one is not None]
        if not inputs:
            raise InputError("--camera: there is neither picture nor sound; leave out less.")
        interrupted = closing.enter_context(stopping.noted())
        began, number = max(one.started for one in inputs), 0
        while options.seconds is None or number * hop + window <= options.seconds + 1e-6:
            start = began + number * hop
            while (left := start + window - time.monotonic()) > 0 and not interrupted.is_set():
                if any(one.ended.is_set() for one in inputs):
                    return
                interrupted.wait(min(left, 0.1))
            if interrupted.is_set():
                return
            answer = _answer(predictor, options, picture, sound, start, window, fps)
            first = number * hop
            yield f"{first:.1f}–{first + window:.1f} s", replace(answer, start=first, end=first + window)
            late = time.monotonic() - (start + window)
            number += max(1, math.ceil(late / hop))  # what is older than a window is no longer there


def _microphone(options: argparse.Namespace, camera: object, window: float) -> Live | None:
    """The microphone, if it can be had; one that the user names must be."""
    device = microphone_named(options.microphone)
    if device is None:
        return None
    try:
        return Live(device, "audio", window, 0)
    except InputError as error:
        if options.microphone is not None:
            raise
        print(f"note: {error} Audio is absent.", file=sys.stderr)
        return None


def _answer(
    predictor: MediaPredictor,
    options: argparse.Namespace,
    picture: Live | None,
    sound: Live | None,
    start: float,
    window: float,
    fps: float,
) -> Answer:
    frames = picture.pictures(start, window) if picture is not None else []
    samples = None if sound is None else (sound.sound(start, window), sound.rate)
    if samples is not None and not len(samples[0]):
        samples = None
    if not frames and samples is None:
        return Answer(options.camera, problem="nothing came from the device")
    try:
        answer = predictor.predict(frames=frames or None, fps=fps, samples=samples, **asked(options))
        return replace(answer, name=options.camera)
    except InputError as error:
        return Answer(options.camera, problem=str(error).removeprefix("memory: ").rstrip("."))
