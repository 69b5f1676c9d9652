"""Extractors: each is imported when it is asked for, and what it needs when it is made."""
