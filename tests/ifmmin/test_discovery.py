from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest

import baselines
from datamodules.errors import InputError
from ifmmin import discovery
from ifmmin.base import MissingModalityModule
from ifmmin.discovery import ENTRY_POINT_GROUP, check_name, discover_models
from ifmmin.model import IFMMIN
from ifmmin.pretraining.stage1 import FusionPretraining, InvariantPretraining
from tests.ifmmin.models import Small

CHECKOUT = Path(__file__).parents[2]

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Pretend that distributions with these entry points are installed."""

    def pretend(**values: str) -> None:
        points = EntryPoints(EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in values.items())
        monkeypatch.setattr(discovery, "entry_points", lambda group: points.select(group=group))

    return pretend


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An importable module ``plugin_for_tests``."""
    module = ModuleType("plugin_for_tests")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


class Other(Small):
    """A second model."""


# Which models there are.


def test_the_models_of_this_checkout(install: Install) -> None:
    install()
    models = discover_models()
    assert {IFMMIN, FusionPretraining, InvariantPretraining} <= set(models.values())
    assert set(baselines.__all__) <= set(models)
    for name, model in models.items():
        assert model.__name__ == name
        assert issubclass(model, MissingModalityModule)


def test_an_entry_point_may_name_a_class(install: Install) -> None:
    install(anything="tests.ifmmin.models:Small")
    assert discover_models()["Small"] is Small


def test_an_entry_point_may_name_a_module(install: Install, plugin: ModuleType) -> None:
    plugin.__all__ = ["Other"]  # type: ignore[attr-defined]
    plugin.Other = Other  # type: ignore[attr-defined]
    plugin.Small = Small  # type: ignore[attr-defined]
    install(anything="plugin_for_tests")
    models = discover_models()
    assert models["Other"] is Other
    assert "Small" not in models  # not exported
    del plugin.__all__
    models = discover_models()
    assert models["Other"] is Other
    assert models["Small"] is Small
    assert "MissingModalityModule" not in models


def test_a_plug_in_does_not_replace_what_is_built_in(install: Install, plugin: ModuleType) -> None:
    plugin.IFMMIN = type("IFMMIN", (Small,), {})  # type: ignore[attr-defined]
    install(IFMMIN="plugin_for_tests:IFMMIN")
    assert discover_models()["IFMMIN"] is IFMMIN


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module_anywhere:Model", "cannot be imported"),
        ("tests.ifmmin.models:NoSuchModel", "cannot be imported"),
        ("json:dumps", "is no model class"),
        ("ifmmin.base:MissingModalityModule", "is no model class"),  # abstract
    ],
)
def test_a_broken_plug_in_is_left_out_with_a_warning(
    install: Install, caplog: pytest.LogCaptureFixture, value: str, reason: str
) -> None:
    install(broken=value, sound="tests.ifmmin.models:Small")
    with caplog.at_level(logging.WARNING, "ifmmin"):
        models = discover_models()
    assert models["Small"] is Small
    assert "IFMMIN" in models
    (record,) = caplog.records
    assert value in record.getMessage()
    assert reason in record.getMessage()


def test_a_plug_in_that_fails_while_it_is_imported(
    install: Install, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_that_fails.py").write_text("raise ZeroDivisionError('at import')\n")
    monkeypatch.syspath_prepend(tmp_path)
    install(broken="plugin_that_fails")
    with caplog.at_level(logging.WARNING, "ifmmin"):
        assert "IFMMIN" in discover_models()
    assert "plugin_that_fails: left out, it cannot be imported (at import)" in caplog.text


# Names.

KNOWN = ["IFMMIN", "MMIN", "MMINWithoutCycle", "FusionPretraining"]


@pytest.mark.parametrize("given", [*KNOWN, "some.package.Model"])
def test_a_known_name_or_a_class_path_is_let_through(given: str) -> None:
    check_name(given, KNOWN, "model")


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("IFMMINN", "IFMMIN"),
        ("IF-MMIN", "IFMMIN"),
        ("MMINWithoutCicle", "MMINWithoutCycle"),
        ("FusionPreTraining", "FusionPretraining"),
        ("ifmmin", "IFMMIN"),
        ("mmin", "MMIN"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(given: str, nearest: str) -> None:
    with pytest.raises(InputError) as error:
        check_name(given, KNOWN, "model")
    assert str(error.value) == (
        f"model {given!r} is not known. Did you mean {nearest}? "
        "There are: FusionPretraining, IFMMIN, MMIN, MMINWithoutCycle; or give a class path."
    )


def test_a_name_like_no_other_is_answered_with_the_list() -> None:
    with pytest.raises(InputError, match=r"^model 'Xyz' is not known\. There are: FusionPretraining, IFMMIN"):
        check_name("Xyz", KNOWN, "model")


# A distribution of somebody else, installed for real.

PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "third-party-emotion"
version = "1.0"

[project.entry-points."ifmmin.baselines"]
third_party = "third_party_emotion:ThirdParty"

[tool.setuptools]
py-modules = ["third_party_emotion"]
"""

MODEL = '''\
"""A model of somebody else: networks, forward, losses."""

from typing import Any

import torch
from torch import Tensor, nn

from datamodules import Batch
from ifmmin.nn.encoders import ModalityEncoders
from ifmmin import MissingModalityModule


class ThirdParty(MissingModalityModule):
    """A linear layer on the embeddings.

    Args:
        width: of an embedding.
        **kwargs: of the base.
    """

    def __init__(self, *, width: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoders = ModalityEncoders.of_dims(self.feature_dims, width, channels=width)
        self.output = nn.Linear(3 * width, self.task.outputs)

    def forward(self, batch: Batch) -> Tensor:
        return self.output(self.encoders(batch).flatten(1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"cls": self.task.loss(self(batch), batch.label)}
'''


def succeed(command: list[str], **variables: str) -> str:
    """Run a program and give its output; what it says where it fails is the test's message."""
    done = subprocess.run(
        [sys.executable, *command], env=os.environ | variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_package_of_somebody_else_is_trained_by_name(tmp_path: Path) -> None:
    project, site, run = tmp_path / "project", tmp_path / "site", tmp_path / "run"
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "third_party_emotion.py").write_text(MODEL)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    succeed(["-m", "pip", "install", *offline, "--target", str(site), str(project)])
    words = ["--model", "ThirdParty", "--model.width", "6", "--trainer.max_epochs", "1", "--run_dir", str(run)]
    corpus = ["--data", "Synthetic", "--data.utterances_per_speaker", "20"]
    output = succeed([str(CHECKOUT / "cli.py"), "fit", *words, *corpus], PYTHONPATH=str(site))
    assert "ThirdParty on built-in synthetic corpus (not a corpus result)" in output
    results = json.loads((run / "metrics.json").read_text())
    assert results["model"] == "ThirdParty"
    config = (run / "config.yaml").read_text()
    assert "class_path: third_party_emotion.ThirdParty" in config
    assert "width: 6" in config
    assert list((run / "checkpoints").glob("epoch*.ckpt"))
