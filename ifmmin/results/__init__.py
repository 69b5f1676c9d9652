"""Results of a run: the table, metrics.json, CSV, pictures and predictions."""
