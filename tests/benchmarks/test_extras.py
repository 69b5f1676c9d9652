from __future__ import annotations

import subprocess
import sys

from tests.cli.running import CHECKOUT


def test_a_missing_package_is_one_line_that_names_the_extra() -> None:
    program = (
        "import sys, importlib.util, runpy\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'scipy' else real(name, *rest)\n"
        "sys.argv = ['leaderboard', '--help']\n"
        "runpy.run_module('benchmarks.leaderboard', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == 'error: benchmarks.leaderboard needs scipy: pip install "ifmmin[benchmarks]"\n'


def test_without_optuna_a_search_names_its_extra() -> None:
    program = (
        "import sys, importlib.util, runpy\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'optuna' else real(name, *rest)\n"
        "sys.argv = ['search', '--help']\n"
        "runpy.run_module('benchmarks.search', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == 'error: benchmarks.search needs optuna: pip install "ifmmin[search]"\n'
