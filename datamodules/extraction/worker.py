"""A process that extracts: it is given groups, writes their parts, and says what it is doing."""

from __future__ import annotations

import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from datamodules.errors import InputError
from datamodules.extraction.extractor import Extracted, Extractor, FloatArray
from datamodules.extraction.groups import Group
from datamodules.extraction.media.faces import recipe as recipe_of_faces
from datamodules.extraction.parts import write_part
from datamodules.extraction.recordings import Recording
from datamodules.text import printable

if TYPE_CHECKING:
    from datamodules.extraction.recipes import ExtractionRecipe


class Pipeline(Protocol):
    """What a worker runs.

    Attributes:
        extractors: by modality.
        detector: of faces; None where no extractor reads them.
    """

    extractors: dict[str, Extractor]
    detector: Any

    def extract(self, recordings: Sequence[Recording]) -> Iterator[Extracted]:
        """Extract the recordings of one group."""

    def only(self, modalities: Sequence[str]) -> Pipeline:
        """The same for some of the modalities."""


Make = Callable[[], Pipeline]
"""Makes a pipeline, in the worker; it is pickled."""


@dataclass(frozen=True)
class FromRecipe:
    """Makes the pipeline of a recipe; see :meth:`datamodules.extraction.pipeline.Pipeline.from_recipe`."""

    recipe: ExtractionRecipe
    device: str
    batch: int
    download: bool
    only: tuple[str, ...]

    def __call__(self) -> Pipeline:
        """Import what extracts, and load its weights."""
        from datamodules.extraction import pipeline

        return pipeline.Pipeline.from_recipe(self.recipe, self.device, self.batch, self.download, self.only)


@dataclass(frozen=True)
class Feature:
    """What a worker makes of one modality.

    Attributes:
        name: of the feature file.
        width: values of a frame.
        rate: frames a second, 0 where frames have no rate.
        recipe: what the extractor says of itself.
        detector: what the face detector says of itself; None where none is used.
    """

    name: str
    width: int
    rate: int
    recipe: dict[str, Any]
    detector: dict[str, Any] | None


@dataclass(frozen=True)
class Task:
    """A group and the parts to be made of it.

    Attributes:
        group: the recordings.
        parts: file and digest of the sources, by modality.
    """

    group: Group
    parts: Mapping[str, tuple[Path, str]]


@dataclass(frozen=True)
class Ready:
    """The pipeline is made; what it makes, by modality."""

    features: dict[str, Feature]


@dataclass(frozen=True)
class At:
    """An extractor is given this utterance."""

    utterance: str


@dataclass(frozen=True)
class Seen:
    """An utterance is extracted: how long it is, and why which modalities are absent."""

    utterance: str
    seconds: float
    absent: dict[str, str]


@dataclass(frozen=True)
class Done:
    """The parts of the task are written."""


@dataclass(frozen=True)
class Note:
    """A line for the user."""

    line: str


@dataclass(frozen=True)
class Failed:
    """The worker cannot go on.

    Attributes:
        line: of the error.
        known: whether the user can fix it; the line then says everything.
        os_error: number, text and file of an error of the system.
        trace: where it was raised.
    """

    line: str
    known: bool
    os_error: tuple[int, str, str | None] | None
    trace: str


Message = Ready | At | Seen | Done | Note | Failed


def work(connection: Connection[Message, Task], make: Make, log: Path) -> None:
    """Run in the worker until the other end is closed.

    Args:
        connection: gives tasks, takes messages.
        make: makes the pipeline.
        log: what libraries print goes there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to answer
    _end_with_parent()
    _print_into(log)
    _forward_notes(connection)
    try:
        pipeline = make()
        connection.send(Ready({name: _feature(pipeline, name) for name in pipeline.extractors}))
        for name, extractor in pipeline.extractors.items():
            pipeline.extractors[name] = _Watched(extractor, connection)
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            _extract(task, pipeline, connection)
            connection.send(Done())
    except Exception as error:
        connection.send(failure(error))


class _Watched:
    """An extractor that says before which utterance it may crash."""

    def __init__(self, extractor: Extractor, connection: Connection[Message, Task]) -> None:
        self._extractor, self._connection = extractor, connection
        self.name, self.modality = extractor.name, extractor.modality
        self.width, self.reads = extractor.width, extractor.reads

    def __call__(self, item: Any) -> FloatArray:
        self._connection.send(At(item.utterance))
        return self._extractor(item)

    def recipe(self) -> dict[str, Any]:
        return self._extractor.recipe()


def _extract(task: Task, pipeline: Pipeline, connection: Connection[Message, Task]) -> None:
    extracted: list[Extracted] = []
    for found in pipeline.only([*task.parts]).extract(task.group.recordings):
        extracted.append(found)
        connection.send(Seen(found.utterance, found.seconds, found.absent))
    if left := {*task.group.utterances}.symmetric_difference(each.utterance for each in extracted):
        raise RuntimeError(f"{min(left)}: extracted, but not asked for, or the other way round")
    for modality, (path, sources) in task.parts.items():
        write_part(path, sources, modality, extracted)


def failure(error: Exception) -> Failed:
    """An error as a message."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, InputError):
        return Failed(str(error), True, None, trace)
    if isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else str(error.filename)
        return Failed("", True, (error.errno, error.strerror or str(error), name), trace)
    if isinstance(error, MemoryError):
        return Failed("not enough memory; give fewer --jobs.", False, None, trace)
    what = f"{type(error).__name__}: {printable(error, 400)}".rstrip(": ")
    return Failed(f"{what}; IFMMIN_DEBUG=1 shows where.", False, None, trace)


def _feature(pipeline: Pipeline, modality: str) -> Feature:
    extractor = pipeline.extractors[modality]
    faces = extractor.reads.kind == "faces"
    rate = extractor.reads.fps if modality != "text" else 0
    detector = recipe_of_faces(pipeline.detector) if faces and pipeline.detector is not None else None
    return Feature(extractor.name, extractor.width, rate, extractor.recipe(), detector)


def _end_with_parent() -> None:
    """End when the parent does, even if it is killed: nobody would read what is extracted."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _print_into(log: Path) -> None:
    """Have standard output and error go to a file: decoders and model libraries talk while a bar is drawn."""
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.close(number)


def _forward_notes(connection: Connection[Message, Task]) -> None:
    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            connection.send(Note(printable(record.getMessage(), 1000)))

    logger = logging.getLogger("ifmmin")
    logger.addHandler(Forward())
    logger.propagate = False
