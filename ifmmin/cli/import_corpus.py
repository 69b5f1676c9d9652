"""Make a corpus of features that others published: packs of MMSA's form, or folders of .npy files.

    ifmmin import CMUMOSI aligned_50.pkl OUT              likewise CMUMOSEI, CHSIMS
    ifmmin import CMUMOSI aligned_50.pkl OUT --dry-run    what it holds and what is wrong; nothing is written
    ifmmin import npy labels.csv OUT --audio hubert-FRA --visual clip-FRA --text bert-FRA

Packs and files are read as data: nothing in them is executed. OUT is written whole or not at all.
"""

from __future__ import annotations

import math
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.importing.mmsa import KEYS
from datamodules.importing.npy_folders import FromFolders, Labels, import_folders
from datamodules.importing.packs import Imported, import_pack
from datamodules.importing.published import PUBLISHED
from datamodules.storage.targets import SPLITS
from datamodules.text import printable
from ifmmin.cli import stopping
from ifmmin.cli.arguments import Parser
from ifmmin.cli.import_progress import ImportProgress
from ifmmin.cli.words import checked

NPY = "npy"

SOURCES = (*PUBLISHED, NPY)
"""What can be imported: packs of a corpus, or folders of ``.npy`` files."""

_OF_PACKS = ("zero_not_finite", "allow_shared_videos")
_OF_FOLDERS = (*MODALITIES, "name", "classes", "low", "high", "incomplete")

_CHANGES = {
    "padding_frames": "{} frames of padding cut",
    "padded_before": "{} utterances were padded in front",
    "past_stated_length": "{} utterances go on past the length that the pack states, and are kept so far",
    "only_zero_frames": "{} utterances are nothing but zeros",
    "replaced_values": "{} values that were not finite set to 0",
    "replaced_utterances": "such values in {} utterances",
}


def import_command(argv: Sequence[str]) -> int:
    """Import a corpus.

    Args:
        argv: the words after ``import``.

    Returns:
        exit code, 0.

    Raises:
        InputError: an option is wrong, the features cannot be used, or the folder holds something else.
        OSError: a file cannot be read or written, or the disk is full.
    """
    given = make_parser().parse_args(checked(argv))
    if given.source not in SOURCES:
        raise InputError(f"import {printable(given.source, 60)}: no such source; there are {', '.join(SOURCES)}.")
    others = _OF_PACKS if given.source == NPY else _OF_FOLDERS
    for option in others:
        if getattr(given, option) not in (None, False):
            of = "packs" if given.source == NPY else NPY
            raise InputError(f"--{option.replace('_', '-')} is an option of {of}, not of {given.source}; leave it out.")
    console = Console(soft_wrap=not sys.stdout.isatty(), markup=False, highlight=False)
    stopping.say_next(lambda: "nothing was written; the same command starts again")
    path, out = expanded(given.path), expanded(given.out)
    if given.source == NPY:
        return _folders(given, path, out, console)
    with ImportProgress(console) as progress:
        done = import_pack(
            given.source,
            path,
            None if given.dry_run else out,
            zero_not_finite=given.zero_not_finite,
            allow_shared_videos=given.allow_shared_videos,
            said=progress.said,
        )
    for line in pack_lines(given.source, path, out, done, given.dry_run):
        console.print(line, soft_wrap=True)
    return 0


def pack_lines(corpus: str, path: Path, out: Path, done: Imported, dry_run: bool) -> list[str]:
    """What was found and done, a line each."""
    if done.pack is None:
        return [f"{printable(out)}: made of this pack already", *_next(corpus, out)]
    facts, shown = done.facts, printable(path)
    published = facts["published"]
    known = f"{published} of {corpus} as MMSA published it, by its SHA-256" if published else "not known by its SHA-256"
    lines = [f"{shown}: {known} ({facts['sha256']})"]
    form = "aligned" if facts["aligned"] else "unaligned"
    sizes = ", ".join(f"{split} {size}" for split, size in zip(SPLITS, done.pack.sizes, strict=True))
    lines.append(f"{form}, {sizes}; widths {', '.join(f'{name} {done.pack.widths[name]}' for name in MODALITIES)}")
    for modality in KEYS:
        changed = [_CHANGES[name].format(count) for name, count in facts[modality].items()]
        lines.append(f"{modality}: {'; '.join(changed) or 'nothing changed'}")
    lines += [f"note: {note}" for note in done.notes]
    return [*lines, "nothing is written; leave out --dry-run"] if dry_run else [*lines, *_next(corpus, out)]


def _next(corpus: str, out: Path) -> list[str]:
    options = f"--data {corpus} --data.root {printable(out)}"
    return [f"next: check {options}", f"      fit --model IFMMIN {options}"]


def _folders(given: Any, table: Path, out: Path, console: Console) -> int:
    folders = {name: expanded(getattr(given, name)) for name in MODALITIES if getattr(given, name) is not None}
    with ImportProgress(console) as progress:
        done = import_folders(
            table,
            folders,
            None if given.dry_run else out,
            name=given.name or out.resolve().name,
            labels=_labels(given),
            incomplete=given.incomplete or "refuse",
            said=progress.said,
        )
    for line in folder_lines(folders, out, done):
        console.print(line, soft_wrap=True)
    return 0


def folder_lines(folders: dict[str, Path], out: Path, done: FromFolders) -> list[str]:
    """What was found and done, a line each."""
    counts = {split: sum(row.split == split for row in done.rows) for split in SPLITS}
    lines = [", ".join(f"{split} {count}" for split, count in counts.items())]
    for modality, lengths in done.lengths.items():
        lacking = len(done.rows) - len(lengths)
        gaps = f", {lacking} without a file" if lacking else ""
        lines.append(f"{modality}: {len(lengths)} utterances of {printable(folders[modality])}{gaps}")
    if not done.written:
        return [*lines, "nothing is written; leave out --dry-run"]
    if absent := [name for name in MODALITIES if name not in folders]:
        return [*lines, f"next: put features of {' and '.join(absent)} there too; training and check need all three"]
    return [*lines, *_next("Folder", out)]


def _labels(given: Any) -> Labels:
    if (given.low is None) != (given.high is None):
        raise InputError("--low and --high: give both ends of the scale, or neither.")
    classes = tuple(name.strip() for name in given.classes.split(",")) if given.classes else ()
    if given.low is None:
        return Labels(classes)
    if classes:
        raise InputError("--classes: labels on a scale have no classes; leave out --classes, or --low and --high.")
    if not (math.isfinite(given.low) and math.isfinite(given.high) and given.low < given.high):
        raise InputError(f"--low {given.low:g} --high {given.high:g}: the first must be below the second.")
    return Labels(scale=(given.low, given.high))


def make_parser() -> Parser:
    """The parser of the words after ``import``."""
    parser = Parser(prog="import", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("source", type=str, help=f"{', '.join(SOURCES)}.")
    what = "The pack; of npy the table of labels: columns id, label, split; or MERBench's label.npz."
    add("path", type=str, help=what)
    add("out", type=str, help="Folder of the corpus; it must not exist, or be empty.")
    add("--dry-run", action="store_true", help="Read everything and say what is wrong; write nothing.")
    what = "Packs: set NaN and infinity to 0 in all modalities and count them; minus infinity in audio always is."
    add("--zero-not-finite", action="store_true", help=what)
    what = "Packs: take a pack whose splits share videos, though the published ones do not."
    add("--allow-shared-videos", action="store_true", help=what)
    for modality in MODALITIES:
        add(f"--{modality}", type=str | None, default=None, help="npy: folder of ID.npy files, [T, D] or [D].")
    add("--name", type=str | None, default=None, help="npy: of the corpus, as tables show it; usually OUT's.")
    add("--classes", type=str | None, default=None, help="npy: in label order, with commas; usually sorted by name.")
    add("--low", type=float | None, default=None, help="npy: labels are values; the least.")
    add("--high", type=float | None, default=None, help="npy: the greatest value.")
    what = "npy: whether an utterance may lack the file of a modality; usually refuse."
    add("--incomplete", choices=("refuse", "keep"), default=None, help=what)
    return parser
