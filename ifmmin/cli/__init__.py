"""The command line."""

from __future__ import annotations

from ifmmin.cli.main import main, reported

__all__ = ["main", "reported"]
