"""``check --model``: every rule with its verdict, for models of ours and of somebody else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ifmmin.cli.main import main
from ifmmin.discovery import discover_models
from ifmmin.testing import RULES
from tests.ifmmin.models import narrow

NAME = "plugin_for_check"
MODEL = """
import torch
from baselines import MeanFusion

class Mine(MeanFusion):
    "A mean fusion with a fault, if one is asked for."

    def __init__(self, *, fault: str = "none", **kwargs):
        super().__init__(**kwargs)
        self.fault = fault

    def forward(self, batch):
        if self.fault == "raises":
            raise ValueError("two\\nlines \\x1b[2J")
        outputs = super().forward(batch)
        if self.fault == "company":
            return outputs - outputs.mean(dim=0)
        return outputs + batch.label[:, None] if self.fault == "labels" else outputs
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the module of a model."""
    (tmp_path / f"{NAME}.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "160")
    yield tmp_path
    sys.modules.pop(NAME, None)


def check(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[dict[str, str], list[str]]:
    """Check in this process: the verdicts of the table by rule, and the lines below it."""
    assert main(["check", *words]) == code
    shown = capsys.readouterr()
    assert not shown.err
    cells = [line.strip("│").split("│") for line in shown.out.splitlines() if line.startswith("│")]
    below = shown.out.splitlines()[shown.out.splitlines().index(next(x for x in shown.out.splitlines() if "└" in x)) :]
    return {rule.strip(): verdict.strip() for rule, _, verdict, _ in cells if rule.strip()}, below[1:]


NAMES = [rule.name for rule in RULES]


def test_a_right_model_passes_every_rule(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model", f"{NAME}.Mine", "--model.learning_rate", "1e-3", "--json", "out.json")
    found, below = check(capsys, *words)
    assert found == dict.fromkeys(NAMES, "passed")
    assert below == [f"All {len(RULES)} rules hold."]
    report = json.loads((here / "out.json").read_text())
    assert (report["model"], report["passed"]) == ("Mine", True)
    assert [(rule["rule"], rule["verdict"], rule["failures"]) for rule in report["rules"]] == [
        (name, "passed", []) for name in NAMES
    ]


def test_what_is_broken_is_one_line_with_its_remedy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model.fault", "labels", "--model", f"{NAME}.Mine", "--json", "out.json")
    found, below = check(capsys, *words, code=1)
    assert found == dict.fromkeys(NAMES, "passed") | {"labels": "failed"}
    assert below[0] == f"1 of {len(RULES)} rules is broken:"
    (line,) = below[1:]
    assert line.startswith("- labels: its answers change by ")
    assert line.endswith(" with the labels: read batch.label and batch.target in losses alone.")
    (failure,) = json.loads((here / "out.json").read_text())["rules"][NAMES.index("labels")]["failures"]
    assert failure["remedy"] == "read batch.label and batch.target in losses alone"
    assert not json.loads((here / "out.json").read_text())["passed"]


def test_several_lines_of_a_rule(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, below = check(capsys, "--model", f"{NAME}.Mine", "--model.fault", "company", code=1)
    assert {"company"} <= {name for name, verdict in found.items() if verdict == "failed"}
    assert any(line.startswith("- company: its answers in a batch and alone differ by ") for line in below)


def test_a_model_that_fails_is_tried_no_further(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, below = check(capsys, "--model", f"{NAME}.Mine", "--model.fault", "raises", code=1)
    assert found == dict.fromkeys(NAMES, "not tried") | dict.fromkeys(("made", "options"), "passed") | {
        "answers": "failed"
    }
    place = MODEL.splitlines().index('            raise ValueError("two\\nlines \\x1b[2J")') + 1
    assert below[1:] == [
        f"- answers: it fails with ValueError (two): see {NAME}.py, line {place}, in forward.",
        "IFMMIN_DEBUG=1 shows where it failed.",
    ]


def test_the_traceback_is_shown_to_who_asks(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFMMIN_DEBUG", "1")
    assert main(["check", "--model", f"{NAME}.Mine", "--model.fault", "raises"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_lists_the_options_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "--model.help", "MeanFusion"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--model.width" in shown
    assert "--model.feature_dims" not in shown


def options_of(name: str) -> list[str]:
    """Words that make a model cheap."""
    values: dict[str, Any] = narrow(name)
    return [word for option, value in values.items() for word in (f"--model.{option}", json.dumps(value).strip('"'))]


QUICK = ("EmotionShift", "LinearImputation", "MMINWithoutCycle", "MeanFusion", "ModalityDropout")
SHIPPED = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow, id=name) for name in sorted(discover_models())
]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_passes(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    found, below = check(capsys, "--model", name, *options_of(name), "--seed_everything", "1")
    assert found == dict.fromkeys(NAMES, "passed"), below
