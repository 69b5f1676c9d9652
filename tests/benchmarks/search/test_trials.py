"""Trials without training: what is drawn, recorded, repeated and gone on with."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from optuna.trial import TrialState

from benchmarks.leaderboard.fanout import side_by_side
from benchmarks.leaderboard.plan import Job
from benchmarks.search.objective import place_of
from benchmarks.search.space import Parameter, Space
from benchmarks.search.trials import COPY, JOURNAL, REASON, claim, mend_journal
from datamodules.errors import InputError
from tests.benchmarks.search.searches import do_all, objective, outcome, smooth


def test_the_score_is_that_of_the_formula_and_it_is_found(tmp_path: Path) -> None:
    search, fake = objective(tmp_path, 40)
    assert search.default() == pytest.approx(0.9 - 0.125 - 0.06)
    assert do_all(search) == 40
    for trial in search.trials.all():
        rate, dropout = trial.params["model.learning_rate"], trial.params["model.dropout"]
        options = {"--model.learning_rate": repr(rate), "--model.dropout": repr(dropout)}
        assert trial.value == smooth(options, Job("", "", 1, 0, (), (), {}))
    best = search.trials.ranked()[0]
    assert best.value == max(trial.value for trial in search.trials.all() if trial.value is not None)
    # Random draws alone would come within 0.1 of the best in one of some hundred.
    assert best.value > 0.85
    assert len(fake.done) == len(set(fake.done))


def test_the_score_is_the_mean_over_folds_and_seeds(tmp_path: Path) -> None:
    search, fake = objective(tmp_path, 1, lambda options, job: job.fold + 10.0 * job.seed, folds=2, seeds=3)
    do_all(search)
    (trial,) = search.trials.all()
    assert trial.value == pytest.approx(11.5)
    assert sorted(fake.done) == [f"trials/0000/fold{fold}-seed{seed}" for fold in (1, 2) for seed in (0, 1, 2)]


def test_the_same_command_gives_the_same_trials_also_in_parts(tmp_path: Path) -> None:
    for name in ("whole", "parts", "other"):
        (tmp_path / name).mkdir()
    whole, _ = objective(tmp_path / "whole", 25)
    do_all(whole)
    for most in (3, 9, 100):  # a new process each time
        part, _ = objective(tmp_path / "parts", 25)
        do_all(part, most)
    assert outcome(part) == outcome(whole)
    assert len({str(trial[2]) for trial in outcome(whole)}) > 20
    other, _ = objective(tmp_path / "other", 25)
    other.trials.seed = 1
    do_all(other)
    assert outcome(other) != outcome(whole)


def test_a_trial_that_was_left_half_done_goes_on_under_its_number(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, _ = objective(tmp_path / "whole", 14, folds=2)
    do_all(whole)
    killed, _ = objective(tmp_path / "killed", 14, folds=2)
    do_all(killed, 11)
    taken = killed.trials.take()  # and the process is gone
    assert taken is not None and taken[0].number == 11
    first_run = killed.plan.jobs(taken[1], place_of(11))[0]
    killed.do(first_run)
    again, fake = objective(tmp_path / "killed", 14, folds=2)
    assert again.trials.missing() == 3
    assert do_all(again) == 3
    assert outcome(again) == outcome(whole)
    assert first_run.folder not in fake.done and len(fake.done) == 5


def test_killed_before_all_values_were_drawn(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, _ = objective(tmp_path / "whole", 3)
    do_all(whole)
    killed, _ = objective(tmp_path / "killed", 3)
    do_all(killed, 1)
    lines = (tmp_path / "killed" / JOURNAL).read_bytes()
    killed.trials.take()
    after = (tmp_path / "killed" / JOURNAL).read_bytes()
    second = after.index(b"\n", after.index(b"param_name", len(lines))) + 1  # one of two values is drawn
    (tmp_path / "killed" / JOURNAL).write_bytes(after[:second])
    again, _ = objective(tmp_path / "killed", 3)
    do_all(again)
    assert outcome(again) == outcome(whole)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_line_of_the_journal_is_cut_off(cut: int, tmp_path: Path) -> None:
    search, _ = objective(tmp_path, 3)
    do_all(search)
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])
    (tmp_path / f"{JOURNAL}.lock").symlink_to(path)  # of a writer that was killed
    mend_journal(tmp_path)
    assert path.read_bytes() == whole
    again, _ = objective(tmp_path, 5)
    assert do_all(again) == 2


def test_trials_are_in_all(tmp_path: Path) -> None:
    search, _ = objective(tmp_path, 4)
    do_all(search)
    again, fake = objective(tmp_path, 4)
    assert do_all(again) == 0 and fake.done == []
    more, fake = objective(tmp_path, 6)
    assert do_all(more) == 2 and len(fake.done) == 2
    fewer, _ = objective(tmp_path, 2)
    assert fewer.trials.missing() == 0 and fewer.next(lambda number: None) is None


def test_the_same_values_are_not_tried_twice(tmp_path: Path) -> None:
    space = Space(Path("x"), (Parameter("model.dropout", choices=(0.1, 0.3)),))
    search, fake = objective(tmp_path, 8, space=space)
    do_all(search)
    assert len(fake.done) == 2 and len(search.trials.all()) == 8
    copies = [trial for trial in search.trials.all() if COPY in trial.user_attrs]
    assert len(copies) == 6
    for trial in copies:
        assert trial.value == search.trials.all()[trial.user_attrs[COPY]].value
    assert len(search.trials.ranked()) == 2


def test_a_failed_trial_counts_and_is_not_repeated(tmp_path: Path) -> None:
    def fails(options: dict[str, str], job: Job) -> float:
        if float(options.get("--model.learning_rate", "0")) > 1e-3:
            raise ValueError("the training loss is nan")
        return smooth(options, job)

    search, _ = objective(tmp_path, 12, fails)
    do_all(search)
    states = [trial.state for trial in search.trials.all()]
    assert TrialState.FAIL in states and TrialState.COMPLETE in states
    for trial in search.trials.all():
        assert (trial.state == TrialState.FAIL) == (trial.params["model.learning_rate"] > 1e-3)
        assert ("the training loss is nan" in trial.user_attrs.get(REASON, "")) == (trial.state == TrialState.FAIL)
    again, fake = objective(tmp_path, 12, fails)
    assert do_all(again) == 0 and fake.done == []


def test_what_the_machine_failed_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole, _ = objective(tmp_path / "whole", 6)
    do_all(whole)
    full = True

    def no_space(options: dict[str, str], job: Job) -> float:
        if full and "0002" in job.folder:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return smooth(options, job)

    (tmp_path / "full").mkdir()
    search, _ = objective(tmp_path / "full", 6, no_space)
    assert do_all(search) == 2
    assert search.stopped is not None and os.strerror(errno.ENOSPC) in search.stopped
    full = False
    again, _ = objective(tmp_path / "full", 6, no_space)
    assert do_all(again) == 4
    assert outcome(again) == outcome(whole)


def test_stage_1_is_trained_once_for_all_trials_that_share_it(tmp_path: Path) -> None:
    search, fake = objective(tmp_path, 4, model="IFMMIN")
    search.default()
    do_all(search)
    assert len(fake.done) == 6 and sum(folder.startswith("stage1/") for folder in fake.done) == 1
    space = Space(Path("x"), (Parameter("model.pretraining.learning_rate", 1e-4, 1e-3),))
    (tmp_path / "other").mkdir()
    search, fake = objective(tmp_path / "other", 3, lambda options, job: 0.5, model="IFMMIN", space=space)
    do_all(search)
    assert sum(folder.startswith("stage1/") for folder in fake.done) == 3


def test_only_the_best_trial_s_checkpoints_are_kept(tmp_path: Path) -> None:
    search, _ = objective(tmp_path, 10)
    search.keep = frozenset([4])
    search.default()
    do_all(search)
    kept = {path.parents[2].name for path in (tmp_path / "trials").rglob("*.ckpt")}
    assert kept == {"0004", f"{search.trials.ranked()[0].number:04d}"}
    assert list((tmp_path / "default").rglob("*.ckpt"))


def test_several_at_once_make_each_trial_once(tmp_path: Path) -> None:
    search, fake = objective(tmp_path, 20, parallel=True)
    done = list(side_by_side(4, lambda _: search.next(lambda number: None), range(search.trials.missing())))
    assert sorted(trial.number for trial in done if trial is not None) == list(range(20))
    assert len(fake.done) == len(set(fake.done)) == 20 - sum(COPY in t.user_attrs for t in search.trials.all())


def test_a_folder_is_of_one_search(tmp_path: Path) -> None:
    identity = {"model": "A", "space": {"model.a": {"low": 0.1}}, "data": {"1": "x"}}
    claim(tmp_path, identity)
    claim(tmp_path, identity)
    with pytest.raises(InputError, match="holds a search with another space, data; name another --folder"):
        claim(tmp_path, identity | {"space": {"model.a": {"low": 0.2}}, "data": {"1": "y"}})
    (tmp_path / "search.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        claim(tmp_path, identity)


def test_a_damaged_journal_is_one_line(tmp_path: Path) -> None:
    search, _ = objective(tmp_path, 2)
    do_all(search)
    path = tmp_path / JOURNAL
    path.write_bytes(b"{\n" + path.read_bytes())
    with pytest.raises(InputError, match="damaged"):
        objective(tmp_path, 2)
