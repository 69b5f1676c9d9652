"""Score a checkpoint on a split: its answers, its results, and what selected its epoch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from ifmmin.checkpoints.reading import read_checkpoint
from ifmmin.cli.collecting import AnswerCollector
from ifmmin.cli.reporting import report_curves, report_results
from ifmmin.cli.session import Session, trained_on
from ifmmin.curves import chosen_curves
from ifmmin.pretraining.fitting import Fitted
from ifmmin.results.files import table_json
from ifmmin.results.predictions import Predictions
from ifmmin.results.results import Results
from ifmmin.results.shares import with_shares


def score(session: Session, split: str, checkpoint: str | None, **selected: Any) -> None:
    """Evaluate a split, print its tables and write their files.

    Args:
        session: set up.
        split: ``val`` or ``test``.
        checkpoint: whose weights answer; None: those of the model.
        selected: of a fit, see :func:`selection`.

    Raises:
        InputError: nothing was evaluated.
    """
    options, model, data = session.options, session.model, session.data
    predictions = _evaluate(session, split, checkpoint)
    if model.evaluated is None:
        raise InputError(f"--trainer.limit_{split}_batches 0: nothing was evaluated; leave it out.")
    if predictions is not None and options.get("why"):
        predictions = with_shares(predictions)
    results = results_of(session, split, model.evaluated, session.record(checkpoint), **selected)
    over = options.intervals
    report_results(model, data, session.trainer, session.run_dir, results, predictions=predictions, over=over)
    if options.curves is not None:
        # As the table was made: the trainer has moved the model away, and its precision is its own.
        model.to(session.trainer.strategy.root_device)
        with session.trainer.precision_plugin.forward_context():
            report_curves(model, data, session.run_dir, results, chosen_curves(options.curves), over)


def _evaluate(session: Session, split: str, checkpoint: str | None) -> Predictions | None:
    """Count a split into ``model.evaluated``; its answers on the first device."""
    session.model.evaluated = None  # of the last validation
    session.trainer.callbacks.append(collector := AnswerCollector())  # type: ignore[attr-defined]
    run = session.trainer.test if split == "test" else session.trainer.validate
    run(session.model, datamodule=session.data, ckpt_path=checkpoint, verbose=False, weights_only=True)
    return collector.predictions


def selection(session: Session, fitted: Fitted) -> dict[str, Any]:
    """The score that selected a fit's epoch, and its validation table; ``model.evaluated`` has its counts then."""
    model = session.model
    stored = None if fitted.checkpoint is None else read_checkpoint(fitted.checkpoint)
    if stored is not None:
        found = stored["ifmmin"].get("validation")
        usable = isinstance(found, Tensor) and found.shape == (len(CONDITIONS), *model.task.shape)
        model.evaluated = found if usable else None
    if model.evaluated is None:  # trained by 0.1.0, or before the interruption
        session.trainer.validate(model, session.data, ckpt_path=fitted.checkpoint, verbose=False, weights_only=True)
    assert model.evaluated is not None
    table = table_json(results_of(session, "val", model.evaluated, {}))
    value = table[model.monitored_row][model.monitor]
    epoch = None if stored is None else int(stored["epoch"]) + 1  # counted from 1
    return {"validation": table, "monitor": {"name": model.monitor_key, "value": value, "epoch": epoch}}


def results_of(session: Session, split: str, counts: Tensor, record: dict[str, Any], **selected: Any) -> Results:
    """Results of a split.

    Args:
        session: set up.
        split: ``val`` or ``test``.
        counts: as ``model.evaluated`` has them.
        record: of :meth:`~ifmmin.cli.session.Session.record`.
        selected: of a fit, see :func:`selection`.
    """
    data, model = session.data, session.model
    own: dict[str, Any] = {
        "corpus": data.corpus_name,
        "fold": data.fold,
        "seed": int(session.options.seed_everything),
    }
    trained = own if session.command == "fit" or session.checkpoint is None else trained_on(session.checkpoint)
    return Results(
        corpus=data.corpus_name,
        is_synthetic=data.synthetic,
        invented=data.invented,
        model=type(model).__name__,
        remarks=(*model.remarks, *data.remarks),
        fold=data.fold,
        seed=trained["seed"],
        split=split,
        task=model.task,
        counts=counts,
        # The rule reads whole frames.
        bayes=None if data.eval_pattern else data.bayes_limit(split, memory=model.needs.turns),
        record=record,
        trained_on=trained,
        **selected,
    )
