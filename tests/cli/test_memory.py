from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from ifmmin.cli import memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc's allocator is told"
)

TAKE_AND_FREE = """
import ctypes, resource, torch
from ifmmin.cli.memory import keep_free_memory, trim

# PR_SET_THP_DISABLE: small pages also where the system gives every process large ones.
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)

def pages():
    # How many the system hands out, and clears, when 64 MiB that were taken and freed before are taken again.
    counts = []
    for _ in range(12):
        torch.ones(2**24).sum()
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return counts[-1] - counts[-2]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20
"""


def printed(program: str) -> list[int]:
    """Run in a fresh process, since mallopt lasts, with small pages, so that they can be counted."""
    command = [sys.executable, "-c", TAKE_AND_FREE + program]
    small_pages = os.environ | {"THP_MEM_ALLOC_ENABLE": "0"}
    done = subprocess.run(command, env=small_pages, check=True, capture_output=True, text=True)
    return [int(number) for number in done.stdout.split()]


def test_freed_memory_is_used_again_without_the_system() -> None:
    before, afterwards = printed("print(pages()); keep_free_memory(); print(pages())")
    assert before > 1000
    assert afterwards < before / 20


def test_what_is_kept_can_be_returned() -> None:
    kept, returned = printed("keep_free_memory(); pages(); print(resident()); trim(); print(resident())")
    assert kept - returned > 50


@pytest.mark.parametrize(("allowed", "returned_at"), [(0, [600, 1350, 1550, 1750]), (400, [600, 1750])])
def test_memory_is_returned_when_the_process_has_grown(
    allowed: int, returned_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first, and by 100 MB since the last time above 1300 MB and what is allowed beyond."""
    for name, megabytes in (("LARGEST_PROCESS", 1300), ("SURPLUS", 100)):
        monkeypatch.setattr(memory, name, megabytes)
    resident, returned = [0], []
    monkeypatch.setattr(memory, "trim", lambda: returned.append(resident[0]))
    monkeypatch.setattr(memory, "resident_memory", lambda: resident[0])
    cap = memory.MemoryCap()
    cap._limit = 1300.0 + allowed
    for resident[0] in (600, 1000, 1100, 1200, 1250, 1350, 1440, 1550, 1650, 1750):
        cap.after_batch()
    assert returned == returned_at
