"""Moved to :mod:`benchmarks.speed.growth`."""

raise SystemExit("error: benchmarks.growth is now: python -m benchmarks.speed.growth")
