"""Plug-ins that fail: each is named in one printable line and costs itself alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from ifmmin import discovery
from ifmmin.cli.console import clean_process
from ifmmin.cli.main import main
from tests.cli.running import SMALL
from tests.faults.cases import Case, one_line, table

MODEL = "from baselines import MeanFusion\nclass {name}(MeanFusion):\n    'A model.'\n"
NAME = "plugin_for_faults"


def source(content: str) -> Callable[[Path], None]:
    """Makes the plug-in's module."""

    def make(folder: Path) -> None:
        (folder / f"{NAME}.py").write_text(content, encoding="utf-8")

    return make


IMPORTED = f"plug-in {NAME}: left out, it cannot be imported"
CASES = [
    Case("is not there", lambda folder: None, f"{IMPORTED} (No module named '{NAME}')"),
    Case("raises", source("raise ValueError('no')"), f"{IMPORTED} (no)"),
    Case("raises without a word", source("raise ValueError"), f"{IMPORTED} (ValueError)"),
    Case("asserts", source("assert False"), f"{IMPORTED} (AssertionError)"),
    Case("exits", source("import sys; sys.exit(3)"), f"{IMPORTED} (it ends the program, with code 3)"),
    Case("exits with a word", source(r"raise SystemExit('bye\nnow')"), r"ends the program, with code bye\nnow)"),
    Case("exits as if all were well", source("raise SystemExit"), "it ends the program, with code None)"),
    Case("is no Python", source("def\n"), f"{IMPORTED} (invalid syntax"),
    Case("holds NUL", source("x = '\0'"), IMPORTED),
    Case("says two lines", source(r"raise ValueError('one\ntwo')"), rf"{IMPORTED} (one\ntwo)"),
    Case("says escapes", source(r"raise ValueError('\x1b[2J\x1b]0;x\x07')"), r"(\x1b[2J\x1b]0;x\x07)"),
    Case("says a megabyte", source("raise ValueError('x' * 10**6)"), "xxx…)"),
    Case("cannot even say", source("class E(Exception):\n    __str__ = None\nraise E"), IMPORTED),
    Case("needs another library", source("import no_such_library"), "(No module named 'no_such_library')"),
    Case("imports itself in a circle", source(f"from {NAME} import x"), "cannot import name 'x'"),
    Case("calls itself for ever", source("def f(): f()\nf()"), "maximum recursion depth exceeded"),
    Case("has a list that lies", source("__all__ = ['Nothing']"), "its __all__ names Nothing, which it does not have"),
    Case("has a number for a list", source("__all__ = 3"), f"{IMPORTED} ('int' object is not iterable)"),
    Case("raises when looked at", source("def __getattr__(name): raise OSError('no')\n"), f"{IMPORTED} (no)"),
    Case(
        "prints",
        source("print('hello')\n" + MODEL.format(name="Third")),
        f"plug-in {NAME}: printed while it was imported: hello",
    ),
    Case(
        "prints escapes on both streams",
        source("import sys\nprint('\\x1b[2J', file=sys.stderr)\nprint('two')\n" + MODEL.format(name="Third")),
        r"printed while it was imported: \x1b[2J\ntwo",
    ),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules, of which one is named by an entry point."""
    points = EntryPoints([EntryPoint("x", NAME, discovery.ENTRY_POINT_GROUP)])
    monkeypatch.setattr(discovery, "entry_points", lambda group: points.select(group=group))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop(NAME, None)


@pytest.mark.parametrize("case", table(CASES))
def test_a_plug_in_costs_itself_alone(case: Case, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case.make(here)
    assert main(["models"]) == 0
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith(f"note: plug-in {NAME}: ")
    assert case.expected in line
    assert line.isprintable() and len(line) < 1200
    assert "IFMMIN" in shown.out and "CMARR" in shown.out
    assert ("Third" in shown.out) == ("printed" in case.expected)
    assert "\x1b[2J" not in shown.out


def test_a_twin_of_ours_does_not_win(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source(MODEL.format(name="IFMMIN"))(here)
    from ifmmin.cli.arguments import prepare

    assert prepare(["fit", "--model", "IFMMIN"]) == ["fit", "--model", "ifmmin.model.IFMMIN"]
    assert main(["models"]) == 0
    assert "imagines what is missing from" in capsys.readouterr().out


def test_a_name_that_only_a_broken_plug_in_could_have(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source("raise SystemExit(0)")(here)
    assert "model 'Third' is not known." in one_line(capsys, ["fit", "--model", "Third"])


def test_ctrl_c_in_a_plug_in_is_ctrl_c(here: Path) -> None:
    source("raise KeyboardInterrupt")(here)
    with pytest.raises(KeyboardInterrupt):
        main(["models"])


def test_a_card_is_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = r"    card = ModelCard('x', '[red]a\x1b[2J[/red]', family='\x07', url='\x1b]8;;x')"
    source("from ifmmin import ModelCard\n" + MODEL.format(name="Third") + card)(here)
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert r"[red]a\x1b[2J[/red]" in shown and r"\x07" in shown
    assert "\x1b" not in shown and "\x07" not in shown


def test_a_thread_that_fails_is_one_note(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise FileNotFoundError("events.out: gone\n\x1b[2J")

    before = threading.excepthook
    with clean_process([]):
        thread = threading.Thread(target=work, name="EventLogger")
        thread.start()
        thread.join()
    assert threading.excepthook is before
    assert capsys.readouterr().err == "note: EventLogger in the background failed: events.out: gone\n"


# Models of one's own that fail while they train.


def loses(line: str) -> Callable[[Path], None]:
    """Makes a model whose losses are this line of Python."""
    return source(f"    def losses(self, batch):\n        {line}")


OWN = [
    Case("exits as if all were well", loses("raise SystemExit(0)"), "ended the program (sys.exit)"),
    Case("exits without a code", loses("raise SystemExit"), "ended the program (sys.exit)"),
    Case("raises two lines", loses("raise KeyError('a\\n\\x1b[2J')"), r"KeyError: 'a\n\x1b[2J'; IFMMIN_DEBUG=1"),
    Case("cannot even say", loses("raise type('Odd', (Exception,), {'__str__': None})"), "Odd; IFMMIN_DEBUG=1"),
    Case("takes all memory", loses("import torch; return {'a': torch.empty(10**15)}"), "not enough memory;"),
    Case("calls itself for ever", loses("return self.losses(batch)"), "RecursionError: maximum"),
    Case("has no losses", loses("return {}"), "stack expects a non-empty TensorList"),
    Case(
        "has an option that is an object",
        source("    def __init__(self, *, thing: object = object(), **kwargs):\n        super().__init__(**kwargs)"),
        "Mine.thing is a object, no plain value; options of a model are text, numbers,",
    ),
    Case(
        "has an option of NaN",
        source("    def __init__(self, *, x: list = [float('nan')], **kwargs):\n        super().__init__(**kwargs)"),
        "Mine.x is NaN; options of a model are",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", table(OWN))
def test_a_model_that_fails_while_it_trains(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case.make(tmp_path)
    path = tmp_path / f"{NAME}.py"
    path.write_text(MODEL.format(name="Mine") + path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    words = ["fit", "--model", f"{NAME}.Mine", *SMALL, "--trainer.max_epochs", "1", "--run_dir", "run"]
    assert case.expected in one_line(capsys, words)
    assert not (tmp_path / "run" / "metrics.json").exists()
    sys.modules.pop(NAME, None)
