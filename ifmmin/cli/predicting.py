"""Predict a corpus: what a checkpoint says of each utterance under each condition that it allows."""

from __future__ import annotations

from datamodules.errors import InputError
from datamodules.files import check_writable, expanded
from ifmmin.calibration.temperatures import check_asked
from ifmmin.cli.calibrating import as_asked
from ifmmin.cli.collecting import AnswerCollector
from ifmmin.cli.reporting import record_path, report_predictions
from ifmmin.cli.session import Session, trained_on
from ifmmin.results.predictions import check_predictions_path


def predict(session: Session, checkpoint: str) -> None:
    """Write the predictions of a checkpoint, and their record.

    Raises:
        InputError: the file exists or has another ending, or the checkpoint cannot answer as asked.
    """
    options, model = session.options, session.model
    output = expanded(options.output or session.run_dir / "predictions.csv")
    check_predictions_path(output)
    assert session.checkpoint is not None
    temperatures = session.checkpoint["ifmmin"].get("temperatures") or {}
    check_asked(model.task, temperatures, checkpoint, options.calibrated, options.abstain_below)
    for path in (output, record_path(output)):
        if path.exists() and session.trainer.is_global_zero:
            raise InputError(f"{path}: exists already; give another --output, or move it away.")
    session.start()
    check_writable(output)
    session.trainer.callbacks.append(collector := AnswerCollector())  # type: ignore[attr-defined]
    session.trainer.predict(
        model, datamodule=session.data, ckpt_path=checkpoint, return_predictions=False, weights_only=True
    )
    report_predictions(
        model,
        session.data,
        output,
        as_asked(collector.predictions, model, checkpoint, options),
        trained_on(session.checkpoint),
        session.record(checkpoint),
    )
