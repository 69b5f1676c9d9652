"""Invented recordings that tests share: each is made once a session, by whichever worker asks first."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from datamodules.extraction.invented import CORPORA, Options, make

SMALL = Options(syllables=2, defects=True, sessions=2)
WHOLE = Options(syllables=2, defects=True)


def made_once(factory: pytest.TempPathFactory, corpus: str, options: Options) -> Path:
    """Root of an invented corpus; workers of one session share it and must not change it."""
    pytest.importorskip("av")
    base = factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base  # the workers of pytest-xdist are subprocesses
    out = shared / f"raw-{'small' if options.sessions else 'whole'}"
    out.mkdir(exist_ok=True)
    done = out / f"{corpus}.done"
    with (out / f"{corpus}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(out, corpus, options, overwrite=True)
            done.touch()
    return out / CORPORA[corpus][0]
