"""Moved to :mod:`benchmarks.speed.epochs`."""

raise SystemExit("error: benchmarks.epochs is now: python -m benchmarks.speed.epochs")
