"""Folders of ``.npy`` files, one an utterance, and a table of labels and splits in; a ``Folder`` corpus out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from datamodules.conditions import MODALITIES
from datamodules.errors import CorpusError, InputError
from datamodules.extraction.extractors.ready_made import file_stem
from datamodules.extraction.provenance import library_version
from datamodules.folder import write_folder
from datamodules.importing.finishing import FACT, is_there, made_whole, sha256_of
from datamodules.importing.mmsa import Said, not_finite
from datamodules.importing.sequences import CHUNK, FloatArray
from datamodules.importing.tables import Row, class_numbers, read_table, scale_values
from datamodules.storage.layouts import FOLDERS
from datamodules.storage.problems import Problem, Strict
from datamodules.storage.targets import SPLITS
from datamodules.storage.writing import write_frames
from datamodules.text import printable


@dataclass(frozen=True)
class Labels:
    """What the labels of a table are.

    Attributes:
        classes: in label order; empty with a scale, or where those that occur are taken in the order of their names.
        scale: the least and the greatest value, where labels are values.
    """

    classes: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None


@dataclass
class FromFolders:
    """What came of an import of folders.

    Attributes:
        rows: of the table.
        lengths: frames by modality and id, of those that have a file.
        written: whether the corpus was written; False: it was only to be looked at.
    """

    rows: list[Row]
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    written: bool = False


def import_folders(
    table: Path,
    folders: Mapping[str, Path],
    out: Path | None,
    *,
    name: str,
    labels: Labels,
    incomplete: Literal["refuse", "keep"] = "refuse",
    said: Said = lambda what, count: None,
) -> FromFolders:
    """Make a corpus of ``.npy`` files, as MERBench keeps features.

    The file of an utterance is ``<id>.npy``, [T, D] or [D]; or ``<id>`` is a folder of files [D], one a frame, taken in
    the order of their names.

    Args:
        table: labels and splits, see :func:`~datamodules.importing.tables.read_table`.
        folders: of the modalities that there are.
        out: folder of the corpus; None: only read everything and say what is wrong.
        name: of the corpus.
        labels: what labels are.
        incomplete: ``keep``: an utterance may lack the file of a modality.
        said: told of the progress: of what, and how many more utterances.

    Raises:
        InputError: ``out`` holds something else, or no folder is given.
        CorpusError: a file is no array of finite numbers or of another width, an utterance lacks one, a label is
            unknown; one line.
        OSError: a file cannot be read or written; nothing is left behind.
    """
    if not folders:
        raise InputError("import npy: no folder of features; give --audio, --visual or --text.")
    for modality, folder in folders.items():
        if not folder.is_dir():
            raise InputError(f"--{modality} {printable(folder)}: is no folder; give the one that holds ID.npy files.")
    rows = read_table(table, labels.scale is not None)
    chosen: dict[str, Any] = {}
    if labels.scale is not None:
        chosen = {"scale": labels.scale, "labels": scale_values(table, rows, *labels.scale)}
    else:
        classes, by_id = class_numbers(table, rows, labels.classes)
        chosen = {"classes": classes, "labels": by_id}
    found = FromFolders(rows)
    if out is not None:
        is_there(out, None)
    files = {modality: _Files(modality, folder) for modality, folder in folders.items()}
    for modality, each in files.items():
        found.lengths[modality] = each.lengths(rows, said)
    _refuse_gaps(table, folders, found, incomplete)
    if out is None:
        for each in files.values():
            for _ in each.frames(said):
                pass
        return found
    with made_whole(out) as new:
        for modality, each in files.items():
            place = new / FOLDERS[MODALITIES.index(modality)] / f"{each.name}.h5"
            in_order = {name: each.found[name] for name in sorted(each.found)}
            write_frames(place, in_order, each.width, each.frames(said))
        made: dict[str, Any] = {"table": table.name, "sha256": sha256_of(table), "ifmmin": library_version()}
        made["folders"] = {modality: folder.resolve().name for modality, folder in folders.items()}
        facts: dict[str, Any] = {FACT: made}
        write_folder(
            new,
            name=name,
            folds=[{split: [row.utterance for row in rows if row.split == split] for split in SPLITS}],
            speakers=_speakers(rows),
            features={modality: each.name for modality, each in files.items()},
            facts=facts | ({"incomplete": "keep"} if incomplete == "keep" else {}),
            **chosen,
        )
    found.written = True
    return found


def _speakers(rows: Sequence[Row]) -> dict[str, str | None]:
    """Who speaks, of all utterances or of none."""
    return {row.utterance: row.speaker for row in rows} if any(row.speaker for row in rows) else {}


def _refuse_gaps(table: Path, folders: Mapping[str, Path], found: FromFolders, incomplete: str) -> None:
    """Refuse utterances without a file, unless they are to be kept; those without any always."""
    problems = Strict()
    for modality, lengths in found.lengths.items():
        lacking = [row.utterance for row in found.rows if row.utterance not in lengths]
        if incomplete == "refuse" or len(lacking) == len(found.rows):
            remedy = "add the file, or give --incomplete keep for utterances that lack a modality"
            problems.add_if_any(folders[modality], lacking, "has no .npy file", remedy)
    nothing = [row.utterance for row in found.rows if not any(row.utterance in each for each in found.lengths.values())]
    problems.add_if_any(table, nothing, "has no .npy file of any modality", "add one, or leave the utterance out")


class _Files:
    """The files of one modality."""

    def __init__(self, modality: str, folder: Path) -> None:
        self.modality, self.folder = modality, folder
        self.name = file_stem(folder.resolve().name)
        self.width = 0
        self.found: dict[str, int] = {}

    def lengths(self, rows: Sequence[Row], said: Said) -> dict[str, int]:
        """Frames of each utterance that has a file.

        Raises:
            CorpusError: a file is no array of numbers, or of another width than the first.
        """
        for row in rows:
            frames = self._read(row.utterance)
            if frames is None:
                continue
            self.width = self.width or frames.shape[1]
            if frames.shape[1] != self.width or not frames.size:
                what = f"is {list(frames.shape)}, not [T, {self.width}] with T at least 1"
                raise self._error(self._path(row.utterance), what)
            self.found[row.utterance] = len(frames)
        said(f"lengths of {self.modality}", len(rows))
        return self.found

    def frames(self, said: Said) -> Iterator[tuple[str, FloatArray]]:
        """Ids and frames.

        Raises:
            CorpusError: a value is not finite.
        """
        for number, name in enumerate(self.found, start=1):
            frames = self._read(name)
            assert frames is not None
            with np.errstate(over="ignore"):
                values = np.array(frames, dtype=np.float32)
            if (value := not_finite(values)) is not None:
                raise self._error(self._path(name), f"has the value {value}")
            yield name, values
            if number % CHUNK == 0 or number == len(self.found):
                said(self.modality, (number - 1) % CHUNK + 1)

    def _path(self, utterance: str) -> Path:
        return self.folder / f"{utterance}.npy"

    def _read(self, utterance: str) -> npt.NDArray[Any] | None:
        """The array [T, D] of an utterance, None without a file."""
        path = self._path(utterance)
        if path.is_file():
            return np.atleast_2d(self._array(path))
        folder = self.folder / utterance
        if not folder.is_dir():
            return None
        each = [self._array(file) for file in sorted(folder.glob("*.npy"))]
        if any(frame.ndim != 1 for frame in each) or len({frame.shape for frame in each}) > 1:
            raise self._error(folder, "its files are not one frame [D] each, all of one width")
        return np.stack(each) if each else None

    def _array(self, path: Path) -> npt.NDArray[Any]:
        """An array of numbers [T, D] or [D]; leading dimensions of one are dropped, as in [1, T, D]."""
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise self._error(path, f"cannot be read ({printable(error, 100)})") from error
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
            raise self._error(path, "is no array of numbers")
        while found.ndim > 2 and len(found) == 1:
            found = np.asarray(found[0])
        if found.ndim not in (1, 2):
            raise self._error(path, f"is {list(found.shape)}, not [T, D] or [D]")
        return np.asarray(found)

    @staticmethod
    def _error(path: Path, what: str) -> CorpusError:
        return CorpusError(str(Problem(path, what, "write it again, or leave the utterance out")))
