"""Programs that measure and compare: they use everything else, and nothing uses them."""

import sys

from ifmmin.cli import starting

if sys.argv[:1] == ["-m"]:  # python -m benchmarks.NAME, and no program that imports a part of it
    starting.no_screen()
