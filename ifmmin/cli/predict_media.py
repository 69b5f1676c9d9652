"""Predict emotions from media files, folders of them, or a camera, with a trained model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.recorded import NoExtractorError
from datamodules.extraction.recordings import Half
from datamodules.files import check_writable, expanded
from datamodules.text import printable
from ifmmin.calibration.temperatures import check_asked
from ifmmin.cli.devices import available_device
from ifmmin.cli.media_words import CORPUS_GROUPS, OPTIONS, WEIGHTS, asked
from ifmmin.cli.words import check_options
from ifmmin.discovery import find_model
from ifmmin.media import MediaPredictor
from ifmmin.results.answers import Answer, block, line, write_answers

_VIDEO = ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv"
_SOUND = ".aac .aif .aiff .flac .m4a .mp3 .oga .ogg .opus .wav .wma"

SUFFIXES = frozenset(f"{_VIDEO} {_SOUND}".split())
"""Endings of the files that are taken of a folder."""

_CHOICES: dict[str, Sequence[str]] = {"half": get_args(Half), "calibrated": ("true", "false")}
_DEFAULTS = {"half": "whole", "calibrated": "false", "device": "cpu"}

_REMEDY = {"text": " (give --text or --subtitles)"}


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"predict: {message}.")


def predict_media_command(argv: Sequence[str]) -> int:
    """Answer for media files and print what the model says.

    Args:
        argv: the words after ``predict``.

    Returns:
        exit code: 0, or 1 if nothing could be answered.

    Raises:
        InputError: an option, the checkpoint or the only file is wrong, or an extractor is not installed.
        OSError: the output cannot be written.
    """
    options = _options(argv)
    if options.output is not None:
        _check_output(options.output)
    predictor = MediaPredictor.load(
        options.ckpt_path,
        options.device,
        options.model and find_model(options.model),
        options.download,
        {name: path for name in WEIGHTS if (path := vars(options)[f"{name}.model"]) is not None},
    )
    model = predictor.predictor.model
    check_asked(model.task, model.temperatures, options.ckpt_path, options.calibrated, options.abstain_below)
    if options.camera is not None:
        from ifmmin.cli.predict_camera import camera_answers

        answers = camera_answers(predictor, options)
    else:
        answers = _answers(predictor, options)
    single = options.camera is None and options.window is None and options.subtitles is None
    single = single and (not options.media or (len(options.media) == 1 and not expanded(options.media[0]).is_dir()))
    found: list[Answer] = []
    try:
        for begins, answer in answers:
            found.append(answer)
            if options.json:
                print(json.dumps(answer.to_dict()), flush=True)
            else:
                print(block(answer, _REMEDY) if single else line(answer, begins), flush=True)
    except KeyboardInterrupt:  # called by another program, which handles signals itself
        if options.camera is None:
            raise
    if options.output is not None:
        write_answers(options.output, found, predictor.predictor.class_names)
        if not options.json:
            print(f"written: {printable(options.output)}")
    return 0 if any(answer.probability for answer in found) else 1


def _options(argv: Sequence[str]) -> argparse.Namespace:
    """Read the words, and refuse options that do not go together."""
    words = list(argv)
    for word in words:
        if word.startswith(CORPUS_GROUPS):
            option = printable(word.partition("=")[0], 60)
            raise InputError(f"{option} is for a corpus; with media files the checkpoint says it: leave it out.")
    check_options(words, OPTIONS)
    options = _parser().parse_args(words)
    options.media = [str(word) for word in options.media]
    options.without = _modalities(options.without)
    options.calibrated = options.calibrated == "true"
    options.device = available_device(options.device)
    if options.output is not None:
        options.output = expanded(options.output)
    several = len(options.media) > 1 or any(expanded(word).is_dir() for word in options.media)
    if options.ckpt_path is None:
        raise InputError("predict: --ckpt_path is needed. A fit prints the path of its best checkpoint.")
    if options.text is not None:
        for name in ("subtitles", "window", "camera"):
            if getattr(options, name) is not None:
                raise InputError(f"--text is for one utterance; leave out --text or --{name}.")
    if several and (options.text is not None or options.subtitles is not None):
        name = "text" if options.text is not None else "subtitles"
        raise InputError(f"--{name} is for one file; predict each with its own.")
    if options.camera is None:
        for name in ("seconds", "microphone"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} belongs to --camera.")
        if options.hop is not None and options.window is None:
            raise InputError("--hop belongs to --window, seconds of each window.")
    elif options.media or options.subtitles is not None:
        raise InputError("--camera takes neither files nor subtitles.")
    if options.camera is None and not options.media and options.text is None:
        raise InputError("predict: give a media file, a folder of them, --text or --camera.")
    return options


def _parser() -> _Parser:
    parser = _Parser(
        prog="predict",
        usage="%(prog)s FILE... --ckpt_path CHECKPOINT [options]",
        description=__doc__,
        allow_abbrev=False,
    )
    parser.add_argument("media", nargs="*", metavar="FILE", help="Video or sound files, or folders of them.")
    for name, (kind, text) in OPTIONS.items():
        if name in ("help", "h"):
            continue
        if kind is bool:
            parser.add_argument(f"--{name}", action="store_true", help=text)
        else:
            default, choices = _DEFAULTS.get(name), _CHOICES.get(name)
            parser.add_argument(f"--{name}", type=kind, default=default, choices=choices, help=text)
    return parser


def _modalities(given: str | None) -> list[str]:
    names = [] if given is None else [name.strip() for name in given.split(",")]
    if unknown := [name for name in names if name not in MODALITIES]:
        raise InputError(f"--without {printable(unknown[0], 60)}: give one or two of {', '.join(MODALITIES)}.")
    if len({*names}) == len(MODALITIES):
        raise InputError("--without: all modalities are left out, so nothing is seen.")
    return names


def _check_output(output: Path) -> None:
    if output.suffix.lower() != ".csv":
        raise InputError(f"{printable(output)}: answers are written as .csv; give a name that ends in it.")
    if output.exists():
        raise InputError(f"{printable(output)}: exists already; give another --output, or move it away.")
    check_writable(output)


def _answers(predictor: MediaPredictor, options: argparse.Namespace) -> Iterator[tuple[str, Answer]]:
    """Answers with what their line begins with; of several files, one that cannot be used is an answer too."""
    if not options.media:
        yield "", predictor.predict(text=options.text, **asked(options))
        return
    files = [file for word in options.media for file in _files(word)]
    if len(files) == 1 and not expanded(options.media[0]).is_dir():
        yield from _of_file(predictor, files[0], options, "")
        return
    for number, file in enumerate(files, start=1):
        begins = f"[{number}/{len(files)}] {printable(file.name, 60)}"
        try:
            yield from _of_file(predictor, file, options, begins)
        except NoExtractorError:
            raise
        except InputError as error:
            problem = str(error).removeprefix(f"{printable(file)}: ").removeprefix(f"{printable(file.name)}: ")
            yield begins, Answer(printable(file.name), problem=problem.rstrip("."))


def _files(word: str) -> list[Path]:
    path = expanded(word)
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    if not found:
        raise InputError(f"{printable(path)}: no media files in this folder; give another one, or files.")
    return found


def _of_file(
    predictor: MediaPredictor, file: Path, options: argparse.Namespace, begins: str
) -> Iterator[tuple[str, Answer]]:
    seen = asked(options)
    if options.window is None and options.subtitles is None:
        yield begins, predictor.predict(file, text=options.text, **seen)
        return
    answers = predictor.answers(file, subtitles=options.subtitles, window=options.window, hop=options.hop, **seen)
    for answer in answers:
        yield f"{begins}{' ' if begins else ''}{clock(answer.start)}–{clock(answer.end)}", answer


def clock(seconds: float) -> str:
    """A time in a file.

    >>> clock(2.5), clock(3725.04)
    ('0:02.5', '1:02:05.0')
    """
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    lead = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{lead}:{tenths // 10:02}.{tenths % 10}"
