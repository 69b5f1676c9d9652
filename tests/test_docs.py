"""The documentation builds without a warning, and every example in a docstring is true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import CHECKOUT

PACKAGES = ("ifmmin", "datamodules", "baselines", "benchmarks.leaderboard", "benchmarks.search")
MODULES = [
    found.name
    for package in PACKAGES
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    if "__main__" not in found.name
]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_enough_has_an_example() -> None:
    finder = doctest.DocTestFinder()
    examples = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(examples) > 40


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "cards.html").is_file()
    assert (tmp_path / "api" / "ifmmin.html").is_file()
    # The build runs the notebooks, and fails where one does.
    assert "All 13 rules hold" in (tmp_path / "notebooks" / "your_model.html").read_text(encoding="utf-8")
