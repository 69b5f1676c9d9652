"""Moved to :mod:`benchmarks.speed.gpu`."""

raise SystemExit("error: benchmarks.gpu is now: python -m benchmarks.speed.gpu")
