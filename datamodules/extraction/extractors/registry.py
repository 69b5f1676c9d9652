"""Extractors and face detectors by name: found without an import, imported and made when they are asked for."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.dependencies import EXTRAS as EXTRAS
from datamodules.extraction.dependencies import how_to_get
from datamodules.extraction.extractor import ENTRY_POINT_GROUP, Absent, Extractor, Reads
from datamodules.extraction.extractors.options import near, options_of
from datamodules.text import printable, reason_of

if TYPE_CHECKING:
    from datamodules.extraction.recipes import Choice

DETECTOR_GROUP = "ifmmin.face_detectors"
"""Another distribution names a face detector's class under this group."""

_HERE, _MEDIA = "datamodules.extraction.extractors", "datamodules.extraction.media"

BUILT_IN = (
    EntryPoint("comparE", f"{_HERE}.compare:ComparE", ENTRY_POINT_GROUP),
    EntryPoint("denseface", f"{_HERE}.denseface:DenseFace", ENTRY_POINT_GROUP),
    EntryPoint("expression", f"{_HERE}.expression:Expression", ENTRY_POINT_GROUP),
    EntryPoint("face-hog", f"{_HERE}.face_hog:FaceHog", ENTRY_POINT_GROUP),
    EntryPoint("hf-speech", f"{_HERE}.hugging_face:Speech", ENTRY_POINT_GROUP),
    EntryPoint("hf-text", f"{_HERE}.hugging_face:Text", ENTRY_POINT_GROUP),
    EntryPoint("hf-vision", f"{_HERE}.hugging_face:Vision", ENTRY_POINT_GROUP),
    EntryPoint("logmel", f"{_HERE}.logmel:LogMel", ENTRY_POINT_GROUP),
    EntryPoint("minilm", f"{_HERE}.minilm:MiniLM", ENTRY_POINT_GROUP),
    EntryPoint("npy", f"{_HERE}.npy:Npy", ENTRY_POINT_GROUP),
    EntryPoint("onnx", f"{_HERE}.onnx:Onnx", ENTRY_POINT_GROUP),
    EntryPoint("openface", f"{_HERE}.openface:OpenFace", ENTRY_POINT_GROUP),
    EntryPoint("hog", f"{_MEDIA}.detectors:HogDetector", DETECTOR_GROUP),
    EntryPoint("yunet", f"{_HERE}.yunet:YuNet", DETECTOR_GROUP),
)
"""Ours, as those of other distributions are: to list one here is its whole registration."""

_WHAT = {ENTRY_POINT_GROUP: "extractor", DETECTOR_GROUP: "face detector"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_LOG = logging.getLogger("ifmmin")


def names(group: str = ENTRY_POINT_GROUP) -> list[str]:
    """Names of all extractors, or of all face detectors with :data:`DETECTOR_GROUP`; none is imported."""
    return sorted(_points(group))


def find(name: str, group: str = ENTRY_POINT_GROUP) -> type[Any]:
    """Import the class of this name, and no other.

    Raises:
        InputError: there is none, or it cannot be imported.
    """
    points, what = _points(group), _WHAT[group]
    if name not in points:
        listed = ", ".join(sorted(points))
        shown = repr(printable(name, 60))
        raise InputError(f"{what} {shown} is not known or not installed.{near(name, points)} There are: {listed}.")
    point = points[name]
    try:
        found = point.load()
    except ImportError as error:
        raise InputError(_not_importable(point, error)) from error
    except (Exception, SystemExit) as error:  # somebody else's code may fail in any way
        raise InputError(f"{what} {name} ({point.value}) cannot be imported ({reason_of(error)}).") from error
    if not inspect.isclass(found):
        raise InputError(f"{what} {name}: {printable(point.value)} is no class.")
    return cast("type[Any]", found)


def available(modality: str) -> list[str]:
    """Names of the extractors of a modality, each imported; one that cannot be is named in a warning and left out."""
    listed = []
    for name in names():
        try:
            found = find(name)
        except InputError as error:
            _warn(f"left out: {error}")
            continue
        if getattr(found, "modality", modality) == modality:
            listed.append(name)
    return listed


def check(name: str, modality: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check an extractor's name, its modality and its options, without making it.

    Returns:
        the options, converted to their types.

    Raises:
        InputError: one of them is wrong.
    """
    found = find(name)
    its = getattr(found, "modality", modality)
    if its != modality:
        raise InputError(
            f"extractor {name} is of {printable(its, 20)}, not {modality}; for {modality} there are: "
            f"{', '.join(available(modality))}."
        )
    return dict(options_of(found).converted(options, f"extractor {name}"))


def check_detector(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check a face detector's name and options, as :func:`check` does an extractor's.

    Raises:
        InputError: one of them is wrong.
    """
    return dict(options_of(find(name, DETECTOR_GROUP)).converted(options, f"face detector {name}"))


def build(choice: Choice, modality: str, device: str = "cpu", batch: int = 16, download: bool = False) -> Extractor:
    """Make an extractor.

    Args:
        choice: its name, as :func:`names` lists it, and its options.
        modality: audio, visual or text.
        device: where a network runs, as PyTorch names it.
        batch: how many pieces a network takes at once; changes no value.
        download: fetch weights of a hub that are not on this machine.

    Raises:
        InputError: unknown, not installed, an option or its weights are wrong. One line.
    """
    if modality not in MODALITIES:
        raise InputError(f"modality {printable(modality, 20)!r} is not known. There are: {', '.join(MODALITIES)}.")
    name = choice.extractor
    values = check(name, modality, choice.options)
    run = {"device": device, "batch": batch, "download": download, "modality": modality}
    made = _make(name, ENTRY_POINT_GROUP, values, run)
    broken = _broken(made, modality)
    if broken:
        raise InputError(f"extractor {name} breaks its contract: {broken}.")
    return cast(Extractor, made)


def build_detector(choice: Choice, device: str = "cpu", batch: int = 16) -> Any:
    """Make a face detector, as :func:`build` makes an extractor.

    Raises:
        InputError: unknown, not installed, or an option is wrong. One line.
    """
    name = choice.extractor
    values = check_detector(name, choice.options)
    return _make(name, DETECTOR_GROUP, values, {"device": device, "batch": batch})


def _make(name: str, group: str, values: Mapping[str, Any], run: Mapping[str, Any]) -> Any:
    found = find(name, group)
    taken = options_of(found).of_the_run
    try:
        return found(**values, **{key: value for key, value in run.items() if key in taken})
    except (InputError, Absent):
        raise
    except ImportError as error:
        raise InputError(_not_importable(_points(group)[name], error)) from error


def _broken(made: Any, modality: str) -> str:
    """What an extractor lacks, blank if nothing."""
    lacks = [part for part in ("name", "modality", "width", "reads", "__call__", "recipe") if not hasattr(made, part)]
    if lacks:
        return f"it has no {', '.join(lacks)}"
    if made.modality != modality:
        return f"its modality is {printable(made.modality, 20)}, not {modality}"
    if not isinstance(made.reads, Reads):
        return "its reads is no Reads"
    if isinstance(made.width, bool) or not isinstance(made.width, int) or made.width < 1:
        return "its width is no positive int"
    if not isinstance(made.name, str) or not _NAME.fullmatch(made.name):
        return "its name is no file name of letters, digits and . _ + -"
    return ""


def _points(group: str) -> dict[str, EntryPoint]:
    """Entry points by name; of two of one name ours, else the first, is taken."""
    ours = [point for point in BUILT_IN if point.group == group]
    points: dict[str, EntryPoint] = {}
    for point in (*ours, *entry_points(group=group)):
        # A checkout's own metadata may list ours once more.
        if points.setdefault(point.name, point).value != point.value:
            what = _WHAT[group]
            _warn(f"{what} {printable(point.name, 60)} of {printable(point.value)} left out: the name is taken")
    return points


@functools.cache
def _warn(line: str) -> None:
    """Warn, once a process."""
    _LOG.warning(line)


def _not_importable(point: EntryPoint, error: ImportError) -> str:
    """One line with the remedy."""
    who = f"{_WHAT[point.group]} {point.name}"
    module = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and module in EXTRAS:
        return f"{who} needs {module}: {how_to_get(module)}."
    return f"{who} ({point.value}) cannot be imported ({reason_of(error)})."
