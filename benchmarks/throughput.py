"""Moved to :mod:`benchmarks.speed.throughput`."""

raise SystemExit("error: benchmarks.throughput is now: python -m benchmarks.speed.throughput")
