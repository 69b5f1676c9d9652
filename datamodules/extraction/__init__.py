"""Recordings in, a feature corpus out. Its dependencies are the extras ``media`` and ``media-text``."""
