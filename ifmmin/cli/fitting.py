"""Fit a model: stage 1 if it has one, the model itself, its temperatures, and the test of its best epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from datamodules.errors import InputError
from datamodules.files import write_text
from ifmmin import runs
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.contents import check_settings
from ifmmin.checkpoints.training_state import check_training_state, usable_checkpoint
from ifmmin.cli import resuming
from ifmmin.cli.calibrating import fit_on_validation
from ifmmin.cli.console import print_rank_zero
from ifmmin.cli.reporting import report_results
from ifmmin.cli.scoring import results_of, score, selection
from ifmmin.cli.session import Session
from ifmmin.pretraining.fitting import fit_two_stages, load_pretrained


def fit(
    session: Session,
    checkpoint: str | None,
    stage_trainer: Callable[[MissingModalityModule, Path], L.Trainer],
    config_text: Callable[[], str],
    goes_on: bool,
) -> None:
    """Train stage 1 if the model has one, then the model itself, then test its best epoch.

    Args:
        session: of ``fit``.
        checkpoint: to start from, with its optimiser.
        stage_trainer: makes the trainer of a stage, whose files go into a folder.
        config_text: gives the run's configuration.
        goes_on: whether the run's folder is of an earlier start.

    Raises:
        InputError: model, data or checkpoint do not fit, or the run's folder was deleted.
        OSError: a file cannot be written.
    """
    model, data, run_dir = session.model, session.data, session.run_dir
    check_settings(type(model).__name__, model.hparams)
    if checkpoint is not None:
        check_training_state(session.checkpoint or {}, model, checkpoint)
    elif not goes_on:
        load_pretrained(model, data)
    session.start()
    if goes_on:
        resuming.check_data(run_dir, data, model)
        # Its own checkpoints come before the one that it once started from.
        checkpoint = usable_checkpoint(run_dir, model) or checkpoint
    _save_config(run_dir, config_text)

    def trainer_of(stage: MissingModalityModule, folder: Path) -> L.Trainer:
        return session.trainer if stage is model else stage_trainer(stage, folder)

    try:
        fitted = fit_two_stages(
            model,
            data,
            trainer_of,
            run_dir,
            seed=session.options.seed_everything,
            ckpt_path=checkpoint,
            report=print_rank_zero,
        )
    except SystemExit as end:
        if not end.code:
            raise InputError(
                "code of the model, the corpus or a callback ended the program (sys.exit) before the run was "
                "finished; mend it, and go on or start again."
            ) from end
        # Lightning's answer to Ctrl-C.
        print_rank_zero(f"interrupted; go on with: fit --resume {run_dir}")
        raise
    except OSError as error:
        if run_dir.is_dir():
            raise
        raise InputError(f"{run_dir}: this run's folder was deleted while it ran; start it again.") from error
    selected = selection(session, fitted)
    fit_on_validation(session.trainer, model, data, fitted.checkpoint)
    if session.options.test:
        score(session, "test", fitted.checkpoint, **selected)
    else:
        assert model.evaluated is not None
        results = results_of(session, "val", model.evaluated, session.record(fitted.checkpoint), **selected)
        report_results(model, data, session.trainer, run_dir, results)


@rank_zero_only
def _save_config(run_dir: Path, config_text: Callable[[], str]) -> None:
    """Write the configuration; that of a resumed run is of what it goes on with."""
    write_text(run_dir / runs.CONFIG, config_text())
