"""The small corpus that fault tables spoil copies of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.tiny import write_tiny


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny") / "corpus"
    write_tiny(root)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "corpus"))
