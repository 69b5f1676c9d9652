"""A leaderboard as tables for the terminal, CSV, Markdown, LaTeX and one HTML page."""
