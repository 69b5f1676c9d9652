"""``extract`` with recordings and extractors of the tests' own, so that it takes a second."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from datamodules.extraction.parts import FOLDER
from ifmmin.cli import extract
from tests.datamodules.extraction.fakes import MakeFake

COLUMNS = ("id", "media", "text", "label", "speaker")
LABELS = ("angry", "happy", "neutral", "sad")


def write_clips(raw: Path, speakers: int = 3, clips: int = 12) -> Path:
    """A manifest of clips of which some lack a modality; media are what the fake pipeline reads."""
    raw.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(speakers * clips):
        name = f"clip{number:02d}"
        (raw / f"{name}.mp4").write_text("no visual here" if number % 9 == 4 else f"clip {number}", encoding="utf-8")
        words = "" if number % 10 == 3 else f"{number} words"
        rows.append((name, f"{name}.mp4", words, LABELS[number % 4], f"speaker{number % speakers}"))
    return write_manifest(raw / "manifest.csv", rows)


def write_manifest(path: Path, rows: Sequence[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def use_fakes(patch: pytest.MonkeyPatch, **options: object) -> None:
    """Have ``extract`` make features by :class:`MakeFake`, of the modalities asked for."""

    def make(recipe: object, device: str, batch: int, download: bool, only: tuple[str, ...]) -> MakeFake:
        return MakeFake(only, **options)  # type: ignore[arg-type]

    patch.setattr(extract, "FromRecipe", make)


def hashes(out: Path) -> dict[str, str]:
    """What a corpus's files hold, without the parts."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and FOLDER not in path.parts]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def leftovers(out: Path) -> list[str]:
    """Files and folders that no finished extraction leaves."""
    names = (".ifmmin-", FOLDER, ".lock")
    return [str(path.relative_to(out)) for path in out.rglob("*") if path.name.startswith(names)]


PROGRAM = """
import sys

if __name__ == "__main__":
    from ifmmin.cli import extract, main
    from tests.datamodules.extraction.fakes import MakeFake

    extract.FromRecipe = lambda recipe, device, batch, download, only: MakeFake(only, delay={delay})
    raise SystemExit(main())
"""


def program(folder: Path, delay: float) -> Path:
    """A program that is ``extract`` with fakes that take their time."""
    path = folder / "program.py"
    path.write_text(PROGRAM.format(delay=delay), encoding="utf-8")
    return path


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for found in lists for child in found.read_text(encoding="ascii").split()]
    return [found for child in children for found in (int(child), *descendants(int(child)))]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
