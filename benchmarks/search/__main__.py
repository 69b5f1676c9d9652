"""Search of a model's options on validation with Optuna, resumable; the best configuration is tested once, at the end.

    python -m benchmarks.search --model IFMMIN --space space.yaml --trials 50 --data IEMOCAP --data.root DIR --jobs 2

--data..., --trainer.X and --model.X go to each `fit`. space.yaml has a range or choices of each option that is
searched, such as model.lambda_inv: {low: 1e-3, high: 10, log: true}. The same command again does only what is missing.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ifmmin.cli import starting, stopping

if __name__ == "__main__":
    stopping.install(lambda: "what is done is kept; the same command goes on")
    starting.settle()
with starting.imports() if __name__ == "__main__" else nullcontext():  # seconds
    from optuna.trial import FrozenTrial
    from rich.console import Console

    from benchmarks.leaderboard.__main__ import Parser, choose_folds
    from benchmarks.leaderboard.fanout import Local, RayCluster, side_by_side
    from benchmarks.leaderboard.identity import VERSIONS, code_version
    from benchmarks.leaderboard.plan import Settings, corpus_class, corpus_layout, make_data, sort_settings
    from benchmarks.search.finishing import read_test, test_once, write_best
    from benchmarks.search.objective import UNTESTED, WITHHELD, LostError, Objective, Plan
    from benchmarks.search.progress import Progress, shown_score
    from benchmarks.search.report import test_table, trials_table, write_csv, write_picture
    from benchmarks.search.space import Space, options_of, read_space, shipped_space
    from benchmarks.search.trials import REASON, Trials, claim, frozen, mend_journal, open_study, writable
    from datamodules.base import EmotionDataModule
    from datamodules.errors import InputError
    from datamodules.files import check_writable, expanded, locked, sweep
    from datamodules.text import printable
    from ifmmin.cli.failures import input_error_in
    from ifmmin.cli.main import reported
    from ifmmin.cli.rehearsal import rehearse
    from ifmmin.discovery import find_model, path_of
    from ifmmin.pretraining.stage1 import Stage1Module
    from ifmmin.runs import corpus_folder
    from ifmmin.tasks import Score, task_of

MOST = {"trials": 100_000, "seeds": 1_000, "jobs": 1024, "threads": 1024}
"""The largest number that an option takes: beyond it is a slip of the keyboard."""


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The search's own options, and the words for ``fit``."""
    parser = Parser(
        prog="python -m benchmarks.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help="name or class path")
    add("--space", type=Path, metavar="FILE", help="what is searched (default: benchmarks/search/spaces/MODEL.yaml)")
    add("--trials", type=int, default=50, metavar="N", help="trials in all, those that are done included (default 50)")
    add("--folds", nargs="+", default=["1"], metavar="FOLD", help="numbers from 1, or all (default 1)")
    add("--seeds", type=int, default=1, metavar="N", help="seeds 0..N-1 of each trial's runs (default 1)")
    add("--seed", type=int, default=0, metavar="S", help="of the sampler (default 0)")
    add("--jobs", type=int, default=1, metavar="N", help="trials at once (default 1)")
    add("--threads", type=int, default=1, metavar="N", help="threads of each run (default 1)")
    add("--folder", type=Path, help="the search's folder (default runs/search/CORPUS/MODEL)")
    add("--no-pruning", action="store_true", help="let every trial run to its end")
    add("--no-test", action="store_true", help="leave the test split alone; the same command without it tests")
    add("--cluster", choices=("local", "ray"), default="local", help="processes here (default), or tasks of Ray")
    add("--gpus", type=float, default=0.0, metavar="SHARE", help="with Ray: share of a GPU a run takes")
    options, words = parser.parse_known_args(argv)
    for name, most in MOST.items():
        if not 1 <= getattr(options, name) <= most:
            raise InputError(f"--{name} {getattr(options, name)}: it must be at least 1 and at most {most}.")
    if not 0 <= options.seed < 2**32:
        raise InputError(f"--seed {options.seed}: it must be at least 0 and below 2^32.")
    if not 0 <= options.gpus < math.inf:
        raise InputError(f"--gpus {options.gpus}: it must be at least 0.")
    return options, words


def check_plan(plan: Plan, space: Space, data: EmotionDataModule) -> None:
    """Refuse settings and ends of the space that ``fit`` would refuse, before the first trial.

    Args:
        plan: of the search.
        space: what is searched.
        data: of the first fold, set up.

    Raises:
        InputError: as ``fit`` says it.
    """
    for values in ({}, *space.ends()):
        of_trial = [word for option in options_of(values) for word in option]
        fixed = [
            word for option in (*plan.settings.data, *plan.settings.trainer, *plan.settings.model) for word in option
        ]
        words = ["--model", path_of(plan.model) or plan.name, *fixed, *of_trial, *WITHHELD, *UNTESTED]
        try:
            rehearse([*words, "--data.fold", str(data.fold)], data)
        except Exception as error:  # jsonargparse wraps what a class refuses
            if (refused := input_error_in(error)) is None:
                raise
            where = f"{printable(space.source)}: " if values else ""
            raise InputError(f"{where}{refused}") from error


def identity_of(plan: Plan, space: Space, options: argparse.Namespace, corpus: type) -> dict[str, Any]:
    """What must be equal for two commands to be one search, by the names in which a refusal names it."""
    settings = plan.settings
    fixed = [option for option in (*settings.data, *settings.trainer, *settings.model) if option[0] != "--data.root"]
    return {
        "model": plan.model.__name__,
        "space": space.plain(),
        "options": [list(option) for option in fixed],
        "folds": sorted(plan.fingerprints),
        "seeds": len(plan.seeds),
        "sampler seed": options.seed,
        "pruning": plan.pruning,
        "threads": plan.threads,
        "data": {str(fold): mark for fold, mark in plan.fingerprints.items()},
        "code": code_version(plan.model, corpus),
        "versions": {name: version(name) for name in (*VERSIONS, "optuna")},
    }


def fold_data(settings: Settings, fold: int, withhold: bool) -> EmotionDataModule:
    """A fold's data, set up."""
    words = [word for option in settings.data for word in option]
    data = make_data([*words, *(WITHHELD if withhold else ())], fold, seed=0)
    data.setup("fit")
    return data


def run(argv: Sequence[str]) -> int:
    """Do the trials that are missing, write the tables, and test once; 1 where a trial is still to be done.

    Raises:
        InputError: an option or the space is wrong, the corpus is not there, or the folder is in use or another
            search's.
    """
    options, words = parse(argv)
    console = Console(soft_wrap=not sys.stdout.isatty(), markup=False, highlight=False)
    model = find_model(options.model)
    if issubclass(model, Stage1Module):
        raise InputError(
            f"--model {printable(options.model)}: a stage 1, which answers nothing by itself; name a model."
        )
    settings = sort_settings(words, (), who="search")
    corpus, layout = corpus_class(settings), corpus_layout(settings)
    fixed = [option[0] for option in (*settings.data, *settings.model)]
    if "--data.withhold_test" in fixed:
        raise InputError("--data.withhold_test: the search sets it itself: no trial reads the test split.")
    source = shipped_space(model.__name__) if options.space is None else expanded(options.space)
    space = read_space(source, model, corpus, fixed)
    folds = choose_folds(options.folds, layout.folds, layout.name)
    datas = {fold: fold_data(settings, fold, withhold=True) for fold in folds}
    folder = expanded(options.folder or Path("runs/search") / corpus_folder(corpus, layout) / model.__name__).resolve()
    plan = Plan(
        folder,
        options.model,
        model,
        settings,
        {fold: data.fingerprint for fold, data in datas.items()},
        range(options.seeds),
        options.threads,
        not options.no_pruning,
    )
    check_plan(plan, space, datas[folds[0]])
    if not options.no_test:  # what is wrong with the test split is said now, not after the last trial
        for fold in folds:
            fold_data(settings, fold, withhold=False)
    first = datas[folds[0]]
    task = task_of(first.task, first.class_names)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "search"):
        sweep(folder)
        mend_journal(folder)
        check_writable(folder / "trials.csv")
        claim(folder, identity_of(plan, space, options, corpus))
        study = open_study(folder, "maximize" if task.mode(first.monitor) == "max" else "minimize")
        trials = Trials(study, space, options.seed, options.trials, options.jobs > 1)
        return _search(plan, trials, options, task.score(first.monitor), console)


def _search(plan: Plan, trials: Trials, options: argparse.Namespace, score: Score, console: Console) -> int:
    tested = read_test(plan.folder)
    done, missing = len(trials.finished()), trials.missing()
    names = ", ".join(parameter.name for parameter in trials.space.parameters)
    console.print(f"{printable(plan.folder)}: {done} of {options.trials} trials done; searches {names}")
    where = Local(options.jobs, {}) if options.cluster == "local" else None
    do = (where or RayCluster(options.jobs, {}, options.threads, options.gpus)).worker(plan.folder)
    objective = Objective(plan, trials, do, frozenset([tested.trial] if tested else []))
    writable(plan.folder)
    try:
        default = objective.default()
    except LostError as error:
        raise InputError(f"default configuration: {error}; the same command goes on.") from error
    console.print(f"default configuration: {shown_score(default, score) if default is not None else 'failed'}")
    with Progress(trials, plan.folder, options.jobs, score, console) as progress:

        def one(_: int) -> FrozenTrial | None:
            return objective.next(progress.started)

        for trial in side_by_side(options.jobs, one, range(missing)):
            if trial is not None:
                progress.finished(trial)
    paths = [write_csv(trials, plan.folder / "trials.csv")]
    if objective.stopped:
        raise InputError(f"{objective.stopped}; the same command goes on.")
    if not trials.ranked():
        reasons = [each.user_attrs[REASON] for each in trials.finished() if REASON in each.user_attrs]
        what = (
            f"all {len(trials.finished())} trials failed; the first: {reasons[0]}"
            if reasons
            else "no trial is complete"
        )
        raise InputError(f"{what}; correct the space, and name another --folder.")
    return _finish(plan, trials, options, score, default, paths, console)


def _finish(
    plan: Plan,
    trials: Trials,
    options: argparse.Namespace,
    score: Score,
    default: float | None,
    paths: list[Path],
    console: Console,
) -> int:
    best, count = trials.ranked()[0], len(trials.finished())
    found = f"{score.name} {shown_score(best.value, score)} on validation"
    title = f"{plan.model.__name__}: trial {best.number} of {count}, {found}"
    console.print()
    wide = Console(width=max(180, console.width), markup=False)
    wide.print(trials_table(trials, score, title))
    paths.append(write_best(plan, best.number, best.params, title))
    paths += write_picture(trials, default, score, title, plan.folder / "search")
    if not options.no_test:
        tested = test_once(plan, best.number, best.params, count, default is not None)
        chosen = frozen(trials.all(), tested.trial)
        row = next(iter(tested.scores["best"]))
        wide.print(test_table(tested, float(chosen.values[0]), default, row, score))
        if tested.trial != best.number:
            console.print(
                f"trial {best.number} was found after the test of trial {tested.trial}; it is not tested, because the "
                "test split would then choose between them"
            )
    console.print("written: " + ", ".join(map(printable, paths)))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return reported(lambda: run(list(sys.argv[1:] if argv is None else argv)))


if __name__ == "__main__":
    raise SystemExit(main())
