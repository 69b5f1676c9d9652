"""Search of a model's options with Optuna, on validation alone."""

from benchmarks.extras import require

require("benchmarks.search", "optuna", "joblib", "scipy", "jinja2", "sklearn", extra="search")
