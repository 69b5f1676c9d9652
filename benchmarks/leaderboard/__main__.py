"""The leaderboard: every model on every fold with every seed, resumable, on one machine or a cluster.

    python -m benchmarks.leaderboard --data IEMOCAP --data.root DIR --models all --folds all --seeds 3 --jobs 2

--data..., --trainer.X, --model.X (every model) and --MODEL.X (one model) go to each `fit`.
Each finished run adds a line to BOARD/records.jsonl; the same command again does only what is missing.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

from ifmmin.cli import starting, stopping

if __name__ == "__main__":
    stopping.install(lambda: "what is done is kept; the same command goes on")
    starting.settle()
with starting.imports() if __name__ == "__main__" else nullcontext():  # seconds
    from rich.console import Console

    from benchmarks.leaderboard.fanout import Local, RayCluster
    from benchmarks.leaderboard.groups import MEASURE, untimed
    from benchmarks.leaderboard.identity import differences
    from benchmarks.leaderboard.plan import (
        Job,
        chosen_models,
        corpus_class,
        corpus_layout,
        make_data,
        make_jobs,
        rehearse_models,
        sort_settings,
    )
    from benchmarks.leaderboard.progress import Progress
    from benchmarks.leaderboard.records import RECORDS, Key, Record, append, read_lines
    from benchmarks.leaderboard.report.writing import report_board
    from benchmarks.leaderboard.running import RECORD, best_checkpoint, read_record
    from benchmarks.leaderboard.summary import summarise_board
    from benchmarks.leaderboard.tracking import Tracking, check_project
    from datamodules.errors import InputError
    from datamodules.files import locked, sweep
    from datamodules.text import printable
    from ifmmin.cli.main import reported
    from ifmmin.discovery import discover_models
    from ifmmin.runs import corpus_folder


class Parser(argparse.ArgumentParser):
    """Complains in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        """Refuse the words.

        Raises:
            InputError: always.
        """
        raise InputError(f"{printable(message)}; --help lists the options.")


MOST = {"seeds": 10_000, "jobs": 1024, "threads": 1024}
"""The largest number that an option takes: beyond it is a slip of the keyboard."""


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The board's own options, and the words for ``fit``."""
    parser = Parser(
        prog="python -m benchmarks.leaderboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        default=["all"],
        metavar="MODEL",
        help="names; groups: all (default); a family of the models' cards, such as imagination; seeds: the systems "
        "that the library grew from, IF-MMIN, what it is compared with, CM-ARR; fast: no run takes longer than "
        "ModalityDropout's",
    )
    add("--folds", nargs="+", default=["all"], metavar="FOLD", help="numbers from 1, or all (default)")
    add("--seeds", type=int, default=3, metavar="N", help="seeds 0..N-1 (default 3)")
    add("--jobs", type=int, default=1, metavar="N", help="runs at once (default 1)")
    add(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of each run, on which its last bits depend (default 1)",
    )
    add("--board", type=Path, help="the board's folder (default runs/leaderboard/CORPUS)")
    add("--reference", metavar="MODEL", help="the model that the others are tested against (default IFMMIN)")
    add(
        "--cluster",
        choices=("local", "ray"),
        default="local",
        help="processes here (default), or tasks of a Ray cluster",
    )
    add(
        "--gpus",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="with Ray: share of a GPU a run takes, 0.25 for four on one",
    )
    add("--wandb", metavar="PROJECT", help="log every run and the board to this Weights & Biases project")
    add("--report", action="store_true", help="run nothing: only write the tables of what this code has recorded")
    options, words = parser.parse_known_args(argv)
    for name, most in MOST.items():
        if not 1 <= getattr(options, name) <= most:
            raise InputError(f"--{name} {getattr(options, name)}: it must be at least 1 and at most {most}.")
    if not 0 <= options.gpus < math.inf:
        raise InputError(f"--gpus {options.gpus}: it must be at least 0.")
    if options.wandb is not None:
        check_project(options.wandb)
    return options, words


def choose_folds(given: Sequence[str], count: int, corpus: str) -> list[int]:
    """The folds that ``--folds`` names.

    Raises:
        InputError: one does not exist.
    """
    if list(given) == ["all"]:
        return list(range(1, count + 1))
    if wrong := [fold for fold in given if not _is_fold(fold, count)]:
        raise InputError(f"--folds {printable(wrong[0])}: {corpus} has folds 1..{count}; give some of them, or all.")
    return sorted({int(fold) for fold in given})


def _is_fold(word: str, count: int) -> bool:
    return word.isdecimal() and len(word) < 7 and 1 <= int(word) <= count


def matching(records: Sequence[Record], jobs: Sequence[Job], console: Console) -> dict[Key, Record]:
    """The records of exactly these jobs; those of another code, configuration or corpus are named and left alone."""
    found: dict[Key, Record] = {}
    wanted = {job.key: job for job in jobs}
    other: Counter[str] = Counter()
    for record in records:
        key = record.key
        if key not in wanted:
            continue
        if record.origin:
            other[f"{key[0]}: {record.origin}"] += 1
        elif different := differences(record.identity, wanted[key].identity):
            other[f"{key[0]}: {', '.join(different)}"] += 1
        else:
            found[key] = record
    for what, count in other.items():
        console.print(f"not used: {count} record(s) of {what}", soft_wrap=True)
    return found


def work(
    jobs: Sequence[Job], done: dict[Key, Record], board: Path, where: Local | RayCluster, console: Console
) -> list[str]:
    """Do the jobs that are not done; ``done`` grows with the board's file.

    Returns:
        for each run that failed, its name and last lines.
    """
    missing = []
    for job in jobs:
        kept = board / job.folder / RECORD
        if job.key in done:
            continue
        if kept.is_file():  # killed between the run's last step and the board's line
            try:
                done[job.key] = read_record(kept, job)
                append(board / RECORDS, done[job.key])
                continue
            except InputError as error:
                console.print(f"{printable(error)}; it is made again", soft_wrap=True)
                kept.unlink()
        missing.append(job)
    failures: list[str] = []
    everything = with_stage1(missing, board)
    with Progress(board, everything, (key[0] for key in done), where.jobs, console) as progress:
        for outcome in where.run(everything, board, progress.started):
            if outcome.record is not None:
                append(board / RECORDS, outcome.record)
                done[outcome.job.key] = outcome.record
            if outcome.error:
                failures.append(f"{outcome.job}: {outcome.error}")
            progress.finished(outcome)
    return failures


def with_stage1(jobs: Sequence[Job], board: Path) -> list[Job]:
    """The jobs with the stages 1 that they need and that are not done.

    The stages 1 of a fold and seed precede the runs of the fold and seed before it: when a run's turn
    comes its stage 1 is there, and yet a board cut short has finished runs.
    """
    cells: defaultdict[tuple[int, int], list[Job]] = defaultdict(list)
    for job in jobs:
        cells[job.fold, job.seed].append(job)
    ordered: list[Job] = []
    before: list[Job] = []
    for cell in cells.values():
        needed = dict.fromkeys(job.stage1 for job in cell if job.stage1)
        ordered += [job for job in needed if best_checkpoint(board / job.folder) is None]
        ordered += before
        before = sorted(cell, key=lambda job: job.stage1 is not None)
    return ordered + before


def run(argv: Sequence[str]) -> int:
    """Run what is missing and write the tables; 1 where a run failed.

    Raises:
        InputError: an option is wrong, the corpus is not there, or the board is in use.
    """
    options, words = parse(argv)
    # Names and paths are text, not markup.
    console = Console(soft_wrap=not sys.stdout.isatty(), markup=False, highlight=False)
    known = discover_models()
    models = chosen_models(options.models, known)
    if "fast" in options.models and (missing := untimed(known)):
        names = " ".join(map(printable, missing))
        console.print(f"fast leaves out what was not timed; to time it: {MEASURE} {names}", soft_wrap=True)
    settings = sort_settings(words, {**known, **models})
    corpus = corpus_class(settings)
    layout = corpus_layout(settings)
    folds = choose_folds(options.folds, layout.folds, layout.name)
    if options.reference and options.reference not in models:
        raise InputError(f"--reference {printable(options.reference)}: not among the models, {', '.join(models)}.")
    fingerprints = {}
    for fold in folds:
        words = [word for option in settings.data for word in option]
        data = make_data(words, fold, seed=0)
        data.setup("fit")
        fingerprints[fold] = data.fingerprint
        if fold == folds[0]:
            rehearse_models(models, settings, data)
    jobs = make_jobs(models, settings, fingerprints, range(options.seeds), options.threads)
    board: Path = options.board or Path("runs/leaderboard") / corpus_folder(corpus, layout)
    tracking = Tracking(options.wandb, board.resolve().name) if options.wandb else None
    if tracking:
        jobs = [tracking.follow(job) for job in jobs]
    board.mkdir(parents=True, exist_ok=True)
    with locked(board, "board"):
        sweep(board)
        records, torn = read_lines(board / RECORDS)
        then = "it is left out" if options.report else "its run is done again"
        for number, why in torn.items():
            console.print(f"{printable(board / RECORDS)} line {number}: {why}; {then}", soft_wrap=True)
        done = matching(records, jobs, console)
        failures: list[str] = []
        if not options.report:
            console.print(f"{printable(board)}: {len(jobs)} runs, {len(done)} of them done already")
            where = Local(options.jobs, {}) if options.cluster == "local" else None
            failures = work(
                jobs, done, board, where or RayCluster(options.jobs, {}, options.threads, options.gpus), console
            )
        report(list(done.values()), board, options.reference, console, tracking)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    if failures:
        print(
            f"error: {len(failures)} run{'s' * (len(failures) > 1)} failed; the same command tries them again.",
            file=sys.stderr,
        )
    return 1 if failures else 0


def report(
    records: Sequence[Record], board: Path, reference: str | None, console: Console, tracking: Tracking | None
) -> None:
    """Print the tables and write them, and the page, into the board's folder."""
    if not records:
        console.print("no run is recorded, so there is no table")
        return
    order = sorted(records, key=lambda record: record.key)
    present = {record.model for record in order}
    summary = summarise_board(order, reference if reference in present else None)
    paths = report_board(summary, board, console)
    if tracking:
        tracking.log_board(summary, paths, board)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return reported(lambda: run(list(sys.argv[1:] if argv is None else argv)))


if __name__ == "__main__":
    raise SystemExit(main())
