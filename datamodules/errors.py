"""Errors that a user can mend: one clear line, naming the file, the utterance and the remedy."""

from __future__ import annotations


class InputError(Exception):
    """Something outside this code is wrong: a file, a corpus, a checkpoint, an option.

    The command line prints the message as one line and exits with a non-zero status; as a library,
    it is an ordinary exception.
    """


class CorpusError(InputError):
    """A feature corpus, or a part of it, cannot be used as it is."""
