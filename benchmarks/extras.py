"""Packages that only the benchmarks need: extras of the distribution."""

from __future__ import annotations

import importlib.util


def require(program: str, *packages: str, extra: str = "benchmarks") -> None:
    """End with one line if a package of an extra is not installed.

    Raises:
        SystemExit: naming the package and the extra.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise SystemExit(f'error: {program} needs {package}: pip install "ifmmin[{extra}]"')
