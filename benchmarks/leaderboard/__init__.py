"""The leaderboard: every model, fold and seed of a corpus, measured alike and compared."""
