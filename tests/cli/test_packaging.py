"""What a user installs is whole."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.cli.running import CHECKOUT


def test_the_wheel_holds_the_three_packages_and_the_command(tmp_path: Path) -> None:
    sources = tmp_path / "source"
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "ifmmin",
            "baselines",
            "datamodules",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in listed:
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_bytes((CHECKOUT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(sources)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("ifmmin-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = next(archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    for name in listed:
        if name.split("/")[0] in ("ifmmin", "baselines", "datamodules"):
            assert name in names
    assert {f"{package}/py.typed" for package in ("ifmmin", "baselines", "datamodules")} <= names
    assert "ifmmin = ifmmin.cli.main:main" in points
    # Tests and benchmarks stay in the repository.
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
