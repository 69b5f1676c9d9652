"""The board's memory: one JSON object a line, only ever appended, readable after a kill at any byte."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import torch

from benchmarks.leaderboard import validation as valid
from benchmarks.leaderboard.identity import FIELDS
from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.tasks import Task, task_of

RECORDS = "records.jsonl"
"""Name of the file in a board's folder."""

Key = tuple[str, int, int]
"""Place on a board: model, fold and seed."""

LONGEST_LINE = 4 * 2**20
"""Bytes of a line that are read: a record of four classes has 3 kB, one of a hundred 1 MB."""


@dataclass(frozen=True)
class Record:
    """One finished run of a board.

    Attributes:
        model: the class name of the model.
        corpus: the name of the corpus.
        is_synthetic: whether its data are generated: a built-in corpus, or invented recordings.
        fold: from 1.
        seed: of the run.
        split: that was scored, ``"test"``.
        metrics: by row of the table, scores by name; None if not answered.
        class_names: in label order, empty for a regression.
        task: what was predicted.
        counts: the task's counts by condition.
        sweep: the task's counts by missing rate; empty if not every condition is answered.
        monitor: the score that selected the best epoch.
        identity: what the result depends on, see :mod:`benchmarks.leaderboard.identity`.
        parameters: number of trained parameters.
        wall_time_s: seconds of the run.
        date: of its end, ISO 8601.
        run: its folder, relative to the board's.
        checkpoint: of its best epoch, relative to the board's folder.
        stage1: folder of the stage 1 it started from, relative to the board's.
        versions: of Python and packages.
        commit: of the checkout.
        dirty: whether tracked files differed from it.
        platform: of the machine.
        devices: processes that trained.
        trained_on: ``corpus``, ``fold`` and ``seed`` of the training; None in records up to 0.1.0.
        validation: as ``metrics``, of the same epoch on the validation split; None in records up to 0.1.0.
        selected: ``name``, ``value`` and ``epoch`` of what chose the epoch, on validation; None likewise.
        training: hash of the ids of the training utterances; None likewise.
        train_size: number of them.
        independent_folds: whether the corpus's folds share no utterance; None in records up to 0.1.0.
        extraction: the extractor of each modality's features, as far as their files say; None in earlier records.
        invented: whether its recordings are made up, in the form of a corpus; None in earlier records.
        made_of: by class, the classes of the label files in it, where some were merged, renamed or left out.
        remarks: on the model, such as that it reads earlier turns; none in earlier records.
        calibration: of the probabilities, by row and column; None of a regression, and in earlier records.
        curves: the task's counts by pattern and rate, of those :data:`~ifmmin.curves.CURVES` that it answers, but for
            ``modalities``, which is ``sweep``; none in earlier records.

    Raises:
        InputError: a field is of another kind or outside its range; it names the field.
    """

    model: str
    corpus: str
    is_synthetic: bool
    fold: int
    seed: int
    split: str
    metrics: Mapping[str, Mapping[str, float | None]]
    class_names: tuple[str, ...]
    task: Task
    counts: Mapping[str, list[Any]]
    sweep: Mapping[str, list[Any]]
    monitor: str
    identity: Mapping[str, Any]
    parameters: int
    wall_time_s: float
    date: str
    run: str
    checkpoint: str
    stage1: str | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    platform: str | None = None
    devices: int | None = None
    trained_on: Mapping[str, Any] | None = None
    validation: Mapping[str, Mapping[str, float | None]] | None = None
    selected: Mapping[str, Any] | None = None
    training: str | None = None
    train_size: int | None = None
    independent_folds: bool | None = None
    extraction: Mapping[str, str] | None = None
    invented: bool | None = None
    made_of: Mapping[str, list[str]] | None = None
    remarks: tuple[str, ...] = ()
    calibration: Mapping[str, Mapping[str, float | None]] | None = None
    curves: Mapping[str, Mapping[str, list[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no run gives."""
        for name in ("model", "corpus", "split"):
            valid.check_text(name, getattr(self, name))
        valid.check_flag("is_synthetic", self.is_synthetic)
        valid.check_whole("fold", self.fold, low=1)
        valid.check_whole("seed", self.seed)
        valid.check_class_names(self.class_names)
        valid.check_metrics("metrics", self.metrics, self.task)
        valid.check_counts(self.task.counts_key, self.counts, self.task)
        valid.check_counts("sweep", self.sweep, self.task, conditions=False)
        valid.check_curves(self.curves, self.task)
        if self.monitor not in [score.name for score in self.task.scores]:
            raise InputError(f"monitor {printable(repr(self.monitor), 60)} is no score of its task")
        valid.check_identity(self.identity, FIELDS)
        valid.check_whole("parameters", self.parameters)
        valid.check_number("wall_time_s", self.wall_time_s, 0, valid.MOST)
        valid.check_date("date", self.date)
        for name in ("run", "checkpoint", "stage1"):
            valid.check_path(name, getattr(self, name), optional=name == "stage1")
        valid.check_names("versions", self.versions)
        for name in ("commit", "platform"):
            valid.check_text(name, getattr(self, name), optional=True)
        valid.check_flag("dirty", self.dirty, optional=True)
        valid.check_whole("devices", self.devices, low=1, optional=True)
        if self.validation is not None:
            valid.check_metrics("validation", self.validation, self.task)
        valid.check_selection(self.selected, self.validation, self.task)
        valid.check_origin(self.trained_on)
        valid.check_text("training", self.training, optional=True)
        valid.check_whole("train_size", self.train_size, low=1, optional=True)
        valid.check_flag("independent_folds", self.independent_folds, optional=True)
        valid.check_flag("invented", self.invented, optional=True)
        valid.check_made_of(self.made_of, self.class_names)
        for remark in self.remarks:
            valid.check_text("remarks", remark)
        valid.check_calibration(self.calibration)
        if self.extraction is not None:
            valid.check_extraction(self.extraction)

    @property
    def key(self) -> Key:
        """Place on the board."""
        return self.model, self.fold, self.seed

    @property
    def origin(self) -> str:
        """Where the model was trained, if not on this corpus and fold: ``"trained on IEMOCAP fold 1"``; else ``""``."""
        if self.trained_on is None:
            return ""
        corpus, fold = self.trained_on["corpus"], self.trained_on["fold"]
        return "" if (corpus, fold) == (self.corpus, self.fold) else f"trained on {corpus} fold {fold}"

    def numbers(self) -> dict[str, int]:
        """Number of utterances counted under each condition, 0 if not answered."""
        counted = torch.tensor([self.counts[name] for name in CONDITIONS], dtype=self.task.counts_dtype)
        return dict(zip(CONDITIONS, self.task.number(counted).tolist(), strict=True))

    @property
    def test_size(self) -> int:
        """Number of utterances tested."""
        return max(self.numbers().values())

    def to_json(self) -> dict[str, Any]:
        """Plain values of a line of ``records.jsonl``."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        task, counts = values.pop("task"), values.pop("counts")
        return {
            **values,
            "class_names": list(self.class_names),
            "remarks": list(self.remarks),
            "task": task.spec(),
            task.counts_key: counts,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Read what :meth:`to_json` gave; a line without ``"task"`` (up to 0.1.0) is a classification.

        Raises:
            InputError: a field is missing, of another kind or outside its range, or the task is unknown.
        """
        try:
            valid.check_task(values.get("task"))
            valid.check_class_names(values["class_names"])
            task = task_of(values.get("task"), values["class_names"])
            known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
            known |= {"task": task, "counts": values[task.counts_key], "class_names": tuple(values["class_names"])}
            if not isinstance(values.get("remarks", []), list):
                raise InputError("remarks is no list")
            known["remarks"] = tuple(values.get("remarks", []))
            return cls(**known)
        except KeyError as error:
            raise InputError(f"{printable(error.args[0], 60)} is missing") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise InputError(f"it is no record ({printable(error, 80)})") from error

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        """Read a line of a file: only a test's record whose scores follow from its counts is one.

        Raises:
            InputError: saying what is wrong, without the name of the file.
        """
        if len(line) > LONGEST_LINE:
            raise InputError(f"it is longer than {LONGEST_LINE} bytes, which no record is")
        try:
            values = json.loads(line.decode(), object_pairs_hook=_distinct, parse_constant=_no_number)
        except UnicodeDecodeError:
            raise InputError("it is not UTF-8") from None
        except RecursionError:
            raise InputError("it is nested too deeply") from None
        except ValueError:  # a prefix of a JSON object is never one itself
            raise InputError("it was cut short by a kill, or edited") from None
        if not isinstance(values, dict):
            raise InputError("it is no record")
        record = cls.from_json(values)
        if record.split != "test":
            raise InputError(f"split is {printable(record.split, 60)}, not test")
        valid.check_scores(record.metrics, record.counts, record.task)
        return record


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; refused where a key occurs twice, for readers disagree on which of them counts."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{printable(twice, 60)} occurs twice in it")
    return values


def _no_number(name: str) -> float:
    raise InputError(f"it holds {name}, which is no number")


def read_lines(path: str | Path) -> tuple[list[Record], dict[int, str]]:
    """Read all records, and why the other lines (numbered from 1) are none, most often because a kill cut them short.

    Args:
        path: of a ``records.jsonl``; without one, nothing has been recorded.

    Raises:
        InputError: something else than a file has this name.
        OSError: it cannot be read.
    """
    path = Path(path)
    records: list[Record] = []
    wrong: dict[int, str] = {}
    if not path.exists():
        return records, wrong
    if not path.is_file():  # a pipe would be waited for without end
        raise InputError(f"{path}: not a file; move it away, or name another board.")
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), start=1):
            try:
                if line.strip():
                    records.append(Record.from_line(line))
            except InputError as error:
                wrong[number] = str(error)
    return records, wrong


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines without their ends; of one above :data:`LONGEST_LINE` only the beginning is kept."""
    while line := file.readline(LONGEST_LINE + 2):
        end = line
        while not end.endswith(b"\n") and (end := file.readline(LONGEST_LINE)):
            pass
        yield line.removesuffix(b"\n")


def read_records(path: str | Path) -> list[Record]:
    """Read all records of a ``records.jsonl``, of whatever code, configuration or data."""
    return read_lines(path)[0]


def latest(records: Sequence[Record]) -> list[Record]:
    """Keep of each model the records like its last one: same code, configuration and versions, on the same data.

    Whoever reads a board without running it has no other way to know which of its records belong together.
    """
    data = {record.fold: record.identity["data"] for record in records}
    last = {record.model: record for record in records}
    kept: dict[Key, Record] = {}
    for record in records:
        newest = last[record.model].identity
        same = all(record.identity[name] == newest[name] for name in record.identity.keys() - {"data"})
        if same and record.identity["data"] == data[record.fold]:
            kept[record.key] = record
    return list(kept.values())


def latest_records(folder: Path) -> list[Record]:
    """Read the last record of each model, fold and seed, and print what is left out.

    A board keeps what earlier code or settings gave, too.

    Raises:
        InputError: there is none, or no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{printable(folder)}: no such folder; give the folder of a board.")
    records, wrong = read_lines(folder / RECORDS)
    for number, why in wrong.items():
        print(f"{printable(folder / RECORDS)} line {number}: {why}; it is left out")
    if foreign := [record for record in records if record.origin]:
        print(f"not used: {len(foreign)} record(s) of models trained elsewhere, such as {foreign[0].origin}")
        records = [record for record in records if not record.origin]
    if not records:
        raise InputError(f"{folder / RECORDS}: no record in it; let the leaderboard finish a run first.")
    kept = latest(records)
    if len(kept) < len(records):
        print(f"not used: {len(records) - len(kept)} record(s) of another code, configuration or data than the last")
    return kept


def append(path: str | Path, record: Record) -> None:
    """Add one record, on disk when this returns.

    Raises:
        OSError: the disk is full or the file cannot be written; it names ``path``, which is as before.
    """
    line = json.dumps(record.to_json(), allow_nan=False).encode() + b"\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # the last writer was killed: its line must not swallow this one
                line = b"\n" + line
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise OSError(error.errno, error.strerror, str(path)) from error
