"""What is shown while training: a bar on a terminal, lines elsewhere, with epochs counted from 1 everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import RichProgressBar

from ifmmin.cli import callbacks
from ifmmin.finished import read_run
from tests.cli.running import best, fit, metrics, sample

LINE = re.compile(r"epoch +(\d+)/3  loss (\d\.\d{4})  val/pooled/UA (\d+\.\d\d %)")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], list[str]]:
    """A run with a bar, the values that it showed after each epoch, and its descriptions."""
    shown: list[dict[str, Any]] = []
    described: list[str] = []

    class Watched(callbacks.ProgressBar):
        def on_train_epoch_end(self, trainer, pl_module):  # type: ignore[no-untyped-def]
            super().on_train_epoch_end(trainer, pl_module)
            shown.append(self.get_metrics(trainer, pl_module))
            described.append(self._get_train_description(trainer.current_epoch))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "ProgressBar", Watched)
        patch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        folder = fit(tmp_path_factory.mktemp("bar") / "run", *sample("IEMOCAP"), model="MeanFusion", epochs=3)
    return folder, shown, described


def test_the_bar_shows_what_the_lines_show(
    run: tuple[Path, list[dict[str, Any]], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, shown, described = run
    assert isinstance(callbacks.ProgressBar(), RichProgressBar)
    assert [text.strip() for text in described] == ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3"]
    fit(tmp_path / "lines", *sample("IEMOCAP"), model="MeanFusion", epochs=3)
    lines = LINE.findall(capsys.readouterr().out)
    assert [int(epoch) for epoch, *_ in lines] == [1, 2, 3]
    assert [{"loss": loss, "val/pooled/UA": score} for _, loss, score in lines] == shown


def test_epochs_are_counted_from_1_in_names_and_records(run: tuple[Path, list[dict[str, Any]], list[str]]) -> None:
    folder, shown, _ = run
    epoch = int(best(folder).stem.removeprefix("epoch"))
    assert metrics(folder)["monitor"]["epoch"] == epoch
    assert metrics(folder)["record"]["checkpoint"].endswith(f"epoch{epoch:03d}.ckpt")
    scores = read_run(folder).logged("val/pooled/UA")
    assert [*scores] == [1, 2, 3]
    assert max(scores, key=lambda each: scores[each]) == epoch  # the first of equals, as Lightning takes it
    assert shown[epoch - 1]["val/pooled/UA"] == f"{100 * scores[epoch]:.2f} %"
