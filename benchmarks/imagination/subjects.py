"""Which trained models a PATH names, and the data that each was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.plan import make_data
from benchmarks.leaderboard.records import RECORDS, latest_records
from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints import load_model
from ifmmin.checkpoints.compatibility import check_same_kind
from ifmmin.cli import configurations
from ifmmin.discovery import corpus_names, find_corpus
from ifmmin.finished import configured_data, logged, read_run, set_up_as_trained
from ifmmin.runs import CONFIG


@dataclass(frozen=True)
class Subject:
    """A trained model to measure.

    Attributes:
        checkpoint: its file.
        run: folder of the run that trained it, None if the checkpoint lies outside of one.
        board: name of the board that the run belongs to, ``""`` without one.
    """

    checkpoint: Path
    run: Path | None
    board: str = ""

    def load(self, words: Sequence[str] = ()) -> tuple[MissingModalityModule, EmotionDataModule]:
        """Load the model in eval mode, and the data that it was trained on.

        Args:
            words: ``--data...`` options that say where these are; otherwise the run's configuration does, or without
                a run the corpus's name.

        Raises:
            InputError: the checkpoint is not ours or unreadable, the data are not there or others.
        """
        path = str(self.checkpoint)
        model, trained_on = load_model(path)
        data = self._data(words, trained_on)
        check_same_kind(data, dict(trained_on), path)
        data.workers = 0
        set_up_as_trained(data, trained_on, path)
        # Whole utterances: outside of fit a teacher remembers none.
        data.serve(replace(model.needs, hidden_frames=True), model.settings.batch_size)
        return model, data

    def _data(self, words: Sequence[str], trained_on: Mapping[str, Any]) -> EmotionDataModule:
        if words:
            return make_data(words, trained_on["fold"], trained_on["seed"])
        if self.run is not None:
            path = self.run / CONFIG
            settings = configurations.read(str(path)).get("data")
            if not isinstance(settings, dict) or "class_path" not in settings:
                raise InputError(f"{path}: names no corpus under data, as no fit writes; take another copy.")
            return configured_data(settings)
        corpus = trained_on["name"]
        layouts = {name: getattr(find_corpus(name), "layout", None) for name in corpus_names()}
        found = next((name for name, layout in layouts.items() if layout and layout.name == corpus), None)
        if found is None:
            raise InputError(f"{self.checkpoint}: trained on {printable(corpus)}; say where it is: --data CORPUS.")
        return make_data(["--data", found], trained_on["fold"], trained_on["seed"])

    def logged(self, name: str) -> dict[int, float]:
        """Read a logged value by epoch, counted from 1; {} where the run has no such curve."""
        if self.run is None:
            return {}
        try:
            return logged(self.run, name)
        except InputError:
            return {}


def subjects_of(path: Path) -> list[Subject]:
    """Find the trained models that ``path`` names.

    Args:
        path: a board's folder, a run's folder or a checkpoint.

    Returns:
        the best checkpoint of every finished run of a board or of the run, or the one checkpoint.

    Raises:
        InputError: there is none.
    """
    if (path / RECORDS).is_file():
        records = sorted(latest_records(path), key=lambda record: record.key)
        return [Subject(path / record.checkpoint, path / record.run, str(path)) for record in records]
    if (path / CONFIG).is_file():
        kept = read_run(path).results.record.get("checkpoint")
        if kept is None:
            raise InputError(f"{path}: the run kept no checkpoint; fit again with checkpointing.")
        return [Subject(path / "checkpoints" / Path(kept).name, path)]
    if path.is_dir():
        raise InputError(
            f"{path}: neither a board ({RECORDS}) nor a run ({CONFIG}) there; name a folder that a leaderboard or a "
            "fit printed, or a checkpoint."
        )
    return [Subject(path, _run_of(path))]


def _run_of(checkpoint: Path) -> Path | None:
    """The run's folder of RUN/checkpoints/X.ckpt or RUN/stage1/checkpoints/X.ckpt."""
    above = checkpoint.resolve().parents[1:3]
    return next((folder for folder in above if (folder / CONFIG).is_file()), None)


def home(path: Path) -> Path:
    """Folder beside which results on ``path`` are written: the board's or the run's, or the checkpoint's own."""
    return path if path.is_dir() else _run_of(path) or path.parent
