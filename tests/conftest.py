"""What all tests share: repeatable hypothesis runs, one thread, and a cache folder of their own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# Examples are the same in every run, and no clock decides over a busy machine's tests.
settings.register_profile(
    "ifmmin", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ifmmin")

# The tensors of tests are tiny: more threads only wait for each other, and for those of other workers.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the built-in corpus out of the user's cache; subprocesses inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def foreground() -> None:
    """Take SIGINT as a terminal's program does: a shell's background job ignores it, and so would all subprocesses."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def raw_corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of whole invented corpora with defects, ``<name>.truth.json`` beside each; 10 CPU seconds in all."""
    from tests.raw_corpora import WHOLE, made_once

    made = [made_once(tmp_path_factory, corpus, WHOLE) for corpus in ("iemocap", "msp", "clips")]
    return made[0].parent


@pytest.fixture(scope="session")
def raw_iemocap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An invented IEMOCAP_full_release of two sessions."""
    from tests.raw_corpora import SMALL, made_once

    return made_once(tmp_path_factory, "iemocap", SMALL)


@pytest.fixture(scope="session")
def raw_msp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An invented MSP-IMPROV of two sessions."""
    from tests.raw_corpora import SMALL, made_once

    return made_once(tmp_path_factory, "msp", SMALL)


@pytest.fixture(scope="session")
def raw_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of invented clips with ``manifest.csv``: with everything, sound, picture or words alone."""
    from tests.raw_corpora import SMALL, made_once

    return made_once(tmp_path_factory, "clips", SMALL)
