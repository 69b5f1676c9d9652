"""Make a feature corpus of recordings: IEMOCAP, MSP-IMPROV, or clips of one's own.

    ifmmin extract IEMOCAP RAW OUT                    sound, faces and words of a release, and its folds
    ifmmin extract clips manifest.csv OUT             columns id, media, text, label, speaker
    ifmmin extract IEMOCAP RAW OUT --dry-run          what would be read, in seconds
    ifmmin extract IEMOCAP RAW OUT --only visual --visual hf-vision --visual.model FOLDER

What is done is kept: the same command goes on after any kill, to the same bytes.
"""

from __future__ import annotations

import re
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction import running
from datamodules.extraction.assembling import assemble, feature_path, read_parts
from datamodules.extraction.extractors import registry
from datamodules.extraction.finishing import (
    InTargets,
    check_out,
    default_names,
    finish,
    is_there,
    provenance_of,
    remove_parts,
    write_log,
)
from datamodules.extraction.groups import Group, Sizes, groups_of, shard_of
from datamodules.extraction.index import INDEXES, index_of
from datamodules.extraction.parts import FOLDER
from datamodules.extraction.recipes import RECIPES, ExtractionRecipe, from_words
from datamodules.extraction.recordings import Index
from datamodules.extraction.worker import Feature, FromRecipe, Make, Note, Seen, Task
from datamodules.files import expanded, locked, sweep
from datamodules.storage.layouts import FOLDERS
from datamodules.storage.problems import Problem
from datamodules.text import printable
from ifmmin.cli import stopping
from ifmmin.cli.arguments import Parser
from ifmmin.cli.devices import available_device
from ifmmin.cli.extract_progress import ExtractionProgress
from ifmmin.cli.extract_report import render_index
from ifmmin.cli.extract_summary import Finished, next_steps, summary
from ifmmin.cli.words import checked

_MOST_JOBS = 1024
_MOST_SHARDS = 10_000
_SLOTS = (*MODALITIES, "detector")


@dataclass(frozen=True)
class Options:
    """The words of a command line, checked.

    Attributes:
        corpus: name of an index.
        raw: the recordings.
        out: the feature corpus.
        recipe: what is extracted.
        only: modalities of it.
        index: options of the index.
        jobs: processes.
        shard: which of how many machines this is; None: all.
        refresh: ignore parts that are there.
        keep_parts: leave parts behind.
        dry_run: decode nothing.
        incomplete: whether utterances that lack a modality are in the targets.
        device: where networks run.
        batch: how many pieces a network takes at once.
        download: fetch weights of a hub.
    """

    corpus: str
    raw: Path
    out: Path
    recipe: ExtractionRecipe
    only: tuple[str, ...]
    index: dict[str, Any]
    jobs: int
    shard: tuple[int, int] | None
    refresh: bool
    keep_parts: bool
    dry_run: bool
    incomplete: InTargets
    device: str
    batch: int
    download: bool

    @property
    def make(self) -> Make:
        """What a worker makes its pipeline by."""
        return FromRecipe(self.recipe, self.device, self.batch, self.download, self.only)


def extract_command(argv: Sequence[str]) -> int:
    """Extract a feature corpus.

    Args:
        argv: the words after ``extract``.

    Returns:
        exit code: 0, or 1 if the recordings cannot be used or nothing could be extracted.

    Raises:
        InputError: an option is wrong, the folder is in use or holds something else, or an extractor failed.
        OSError: a file cannot be written or the disk is full.
    """
    options = parse(argv)
    index = index_of(options.corpus, options.raw, **options.index)
    console = Console(soft_wrap=not sys.stdout.isatty(), markup=False, highlight=False)
    if options.dry_run:
        console.print(render_index(index, options.raw), crop=False)
        return 0 if index.recordings else 1
    for line in (*(f"note: {note}" for note in index.notes), *(f"- {problem}" for problem in index.problems)):
        console.print(line, soft_wrap=True)
    if not index.recordings:
        raise InputError(f"{printable(options.raw)}: there is nothing to extract; the lines above say why.")
    check_out(options.out, options.raw, index)
    options.out.mkdir(parents=True, exist_ok=True)
    stopping.say_next(lambda: "what is done is kept; the same command goes on")
    if options.shard is None:
        with locked(options.out, "corpus"):
            patterns = (*FOLDERS, "target/*", f"{FOLDER}/*")
            for folder in [options.out, *(found for pattern in patterns for found in options.out.glob(pattern))]:
                sweep(folder)
            return extract(options, index, console)
    with locked(options.out, "corpus", shared=True):
        own = options.out / FOLDER / "shard-{}-of-{}".format(*options.shard)
        own.mkdir(parents=True, exist_ok=True)
        with locked(own, "shard"):
            return extract(options, index, console)


def extract(options: Options, index: Index, console: Console) -> int:
    """Make the parts that are missing, and the corpus of them; the exit code."""
    sizes = Sizes()
    groups = groups_of(index.recordings, sizes)
    mine = groups if options.shard is None else shard_of(groups, *options.shard)
    features, progress = make_parts(options, index, mine, sizes, console)
    if progress is None:
        files = ", ".join(f"{feature_path(options.out, name, each.name).name}" for name, each in features.items())
        console.print(f"{files}: made of these recordings by this recipe already; --refresh makes them again")
        problems = targets(options, index, features)
        console.print(next_steps(options.out, index, features, problems), soft_wrap=True)
        if not options.keep_parts:
            remove_parts(options.out)
        return 0
    if options.shard is not None:
        left = "once all are made, the same command without --shard assembles them"
        console.print("shard {} of {} is made; ".format(*options.shard) + left)
        return 0
    parts = read_parts(options.out, groups, features, sizes)
    present = {name: [key for key, each in parts.findings(name).items() if each.length] for name in features}
    if not any(present.values()):
        why = parts.findings(next(iter(features)))
        example = next((f"{printable(name, 80)}: {each.why}" for name, each in why.items()), "")
        raise InputError(f"{printable(options.out)}: nothing could be extracted ({example}).")
    assembled = assemble(options.out, parts, provenance_of(index, options.recipe, features, present))
    write_log(options.out, options.raw, index, features, assembled)
    problems = targets(options, index, features)
    if not options.keep_parts:
        remove_parts(options.out)
    elapsed = progress.elapsed
    for line in summary(Finished(options.out, index, features, assembled, progress.seconds, elapsed)):
        console.print(line)
    console.print(next_steps(options.out, index, features, problems), soft_wrap=True)
    return 0


def targets(options: Options, index: Index, features: dict[str, Feature]) -> tuple[Problem, ...] | None:
    """Write corpus.json and the target files; what is wrong with them, None where nothing is left to learn from."""
    names = {modality: feature.name for modality, feature in features.items()}
    chosen = default_names(options.out, names, len(options.only) == len(MODALITIES))
    if not any(chosen[modality] == name for modality, name in names.items()):
        return ()  # files beside the usual ones: nothing about the corpus changes
    return finish(options.out, index, chosen, options.incomplete)


def make_parts(
    options: Options, index: Index, groups: Sequence[Group], sizes: Sizes, console: Console
) -> tuple[dict[str, Feature], ExtractionProgress | None]:
    """Extract what is missing of the groups; None instead of counts where the corpus is there already."""
    with running.Workers(options.make, min(options.jobs, max(1, len(groups))), options.out) as workers:
        stopping.at_stop.append(workers.stop)
        try:
            features = workers.features()
            for note in workers.notes:
                console.print(f"note: {note}", soft_wrap=True)
            expected = provenance_of(index, options.recipe, features, dict.fromkeys(features, ()))
            if not (options.refresh or options.shard) and is_there(options.out, features, expected, index.recordings):
                return features, None
            work = running.tasks_of(groups, features, options.out, sizes, options.refresh)
            _check_room(options, groups, work.tasks, features)
            waiting = {task.group.name for task in work.tasks}
            done = sum(len(group.recordings) for group in groups if group.name not in waiting)
            total = sum(len(group.recordings) for group in groups)
            with ExtractionProgress(total, done, _absent(work), console) as progress:
                stopping.at_stop.append(progress.stop)
                try:
                    for _, message in workers.run(work.tasks):
                        if isinstance(message, Seen):
                            progress.seen(message.seconds, message.absent)
                        elif isinstance(message, Note):
                            progress.console.print(f"note: {message.line}", soft_wrap=True)
                finally:
                    stopping.at_stop.remove(progress.stop)
        finally:
            stopping.at_stop.remove(workers.stop)
    return features, progress


def _check_room(options: Options, groups: Iterable[Group], tasks: Iterable[Task], features: dict[str, Feature]) -> None:
    parts = [recording for task in tasks for recording in task.group.recordings]
    whole = [recording for group in groups for recording in group.recordings] if options.shard is None else []
    needed = running.estimated_bytes(parts, features) + running.estimated_bytes(whole, features)
    running.check_room(options.out, needed, "the features and their parts")


def _absent(work: running.Progress) -> dict[str, int]:
    counts: dict[str, int] = {}
    for by_modality in work.found.values():
        for modality, findings in by_modality.items():
            counts[modality] = counts.get(modality, 0) + sum(finding.why is not None for finding in findings)
    return {modality: count for modality, count in counts.items() if count}


def make_parser() -> Parser:
    """The parser of all options but those of extractors, such as ``--visual.model``."""
    described = f"{__doc__}\nExtractors: {', '.join(registry.names())}."
    parser = Parser(prog="extract", description=described, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("corpus", type=str, help=f"{', '.join(INDEXES)}.")
    add("raw", type=str, help="Folder of the release; of clips the manifest.")
    add("out", type=str, help="Folder of the feature corpus. Feature files of other names in it are kept.")
    add("--recipe", type=str, default="portable", help=f"Extractors of all modalities: {', '.join(RECIPES)}.")
    for modality in MODALITIES:
        what = f"Another extractor, NAME or NAME:MODEL, or none; --{modality}.OPTION VALUE sets its options."
        add(f"--{modality}", type=str | None, default=None, help=what)
    add("--detector", type=str | None, default=None, help=f"Of faces: {', '.join(_detectors())}; options likewise.")
    add("--only", type=str | None, default=None, help="Modalities to extract, with commas: audio,visual.")
    add("--scenarios", type=str | None, default=None, help="MSPIMPROV: letters of S, T, R, P; S unless given.")
    add("--keep-tags", action="store_true", help="IEMOCAP: keep [LAUGHTER] and the like in the words.")
    add("--folds", type=str | None, default=None, help="clips: speaker, column, or a number of folds.")
    add("--unlabelled", action="store_true", help="Also utterances of no class; they are in no fold.")
    what = "Utterances that lack a modality: drop them from the folds, or keep them. Features are kept either way."
    add("--incomplete", choices=("drop", "keep"), default="drop", help=what)
    add("--jobs", type=int | None, default=None, help="Processes, of one thread and 0.5 GB each; usually one a core.")
    add("--shard", type=str | None, default=None, help="K/N: the K-th of N machines; then once without it.")
    add("--refresh", action="store_true", help="Extract again what is there.")
    add("--keep-parts", action="store_true", help="Leave OUT/.extract, from which the corpus was assembled.")
    add("--dry-run", action="store_true", help="Say what would be read and what is wrong; decode nothing.")
    add("--device", type=str, default="cpu", help="Where networks run, as PyTorch names it.")
    add("--batch", type=int, default=16, help="Pieces that a network takes at once; changes no value.")
    add("--download", action="store_true", help="Fetch weights that are not on this machine from their hub.")
    return parser


def _detectors() -> list[str]:
    return registry.names(registry.DETECTOR_GROUP)


def parse(argv: Sequence[str]) -> Options:
    """Check the words of a command line.

    Raises:
        InputError: one of them is wrong.
    """
    words, parser = checked(argv), make_parser()
    asks_help = {"-h", "--help"} & {*words}
    recipe, rest = (RECIPES["portable"], words) if asks_help else from_words(words)
    given = parser.parse_args(rest)
    if given.corpus not in INDEXES:
        index_of(given.corpus, given.raw)  # which says what there is
    only = _only(given.only, recipe)
    return Options(
        corpus=given.corpus,
        raw=expanded(given.raw),
        out=expanded(given.out),
        recipe=recipe,
        only=only,
        index=_index_options(given),
        jobs=_number("--jobs", given.jobs, _MOST_JOBS) if given.jobs is not None else running.usual_jobs(),
        shard=None if given.shard is None else _shard(given.shard),
        refresh=given.refresh,
        keep_parts=given.keep_parts,
        dry_run=given.dry_run,
        incomplete=given.incomplete,
        device=given.device if given.dry_run else available_device(given.device),
        batch=_number("--batch", given.batch, 100_000),
        download=given.download,
    )


def _only(word: str | None, recipe: ExtractionRecipe) -> tuple[str, ...]:
    names = [*recipe.choices] if word is None else [name.strip() for name in word.split(",")]
    if wrong := [name for name in names if name not in MODALITIES]:
        raise InputError(f"--only {printable(wrong[0], 60)}: no modality; there are {', '.join(MODALITIES)}.")
    if left_out := [name for name in names if name not in recipe.choices]:
        raise InputError(f"--only {left_out[0]}: --{left_out[0]} none leaves it out.")
    if not names:
        raise InputError("all modalities are left out; leave out one --audio, --visual or --text none.")
    return tuple(name for name in MODALITIES if name in names)


def _index_options(given: Any) -> dict[str, Any]:
    """Options of the corpus's index that were given; those of another corpus are refused there."""
    options = {"scenarios": given.scenarios, "folds": given.folds}
    if given.folds is not None and re.fullmatch(r"\d{1,6}", given.folds):
        options["folds"] = int(given.folds)
    options |= {"keep_tags": given.keep_tags or None, "unlabelled": given.unlabelled or None}
    return {name: value for name, value in options.items() if value is not None}


def _number(option: str, value: int, most: int) -> int:
    if not 1 <= value <= most:
        raise InputError(f"{option} {value}: it must be at least 1 and at most {most}.")
    return value


def _shard(word: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", word)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= _MOST_SHARDS:
        raise InputError(f"--shard {printable(word, 60)}: give K/N, the K-th of N machines, such as 3/8.")
    return int(match[1]), int(match[2])
