"""Pictures of a finished run or of a whole leaderboard: ``python -m benchmarks.figures RUN_OR_BOARD``."""
