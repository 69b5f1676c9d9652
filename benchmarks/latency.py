"""Moved to :mod:`benchmarks.speed.latency`."""

raise SystemExit("error: benchmarks.latency is now: python -m benchmarks.speed.latency")
