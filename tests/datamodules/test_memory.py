from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc's allocator is told"
)

TAKE_AND_FREE = """
import resource, torch
from datamodules.memory import keep_free_memory, return_free_memory

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
    """What it prints, in a process of its own: the allocator's settings stay for good."""
    done = subprocess.run([sys.executable, "-c", TAKE_AND_FREE + program], check=True, capture_output=True, text=True)
    return [int(number) for number in done.stdout.split()]


def test_freed_memory_is_used_again_without_the_system() -> None:
    before, afterwards = printed("print(pages()); keep_free_memory(); print(pages())")
    assert before > 1000
    assert afterwards < before / 20


def test_what_is_kept_can_be_returned() -> None:
    kept, returned = printed("keep_free_memory(); pages(); print(resident()); return_free_memory(); print(resident())")
    assert kept - returned > 50
