"""The leaderboard: every model, fold and seed of a corpus, measured alike and compared."""

from benchmarks.extras import require

require("benchmarks.leaderboard", "joblib", "scipy", "jinja2")
