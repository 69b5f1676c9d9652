"""Errors the user can fix. Each message is one line naming the file, the utterance and the fix."""

from __future__ import annotations


class InputError(Exception):
    """A file, a corpus, a checkpoint or an option is wrong.

    The command line prints the message as one line and exits with a non-zero status; as a library,
    it is an ordinary exception.
    """


class CorpusError(InputError):
    """A feature corpus, or a part of it, cannot be used as it is."""
