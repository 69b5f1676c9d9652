"""``demo`` that cannot start: one line each, and nothing is served."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifmmin.cli import demo
from ifmmin.demo.page import import_gradio
from tests.faults.cases import one_line
from tests.ifmmin.demo.saved import predictor


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predictor().save_pretrained(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture(autouse=True)
def nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_serve", lambda *_: pytest.fail("served"))
    monkeypatch.setattr(demo, "import_gradio", lambda: pytest.fail("imported"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "checkpoint"),
        ("nowhere.ckpt", "nowhere.ckpt: there is no such checkpoint file"),
        (".", "but a folder; name the .ckpt file in it"),
        ("SAVED --port 70000", "--port 70000: give a number from 0 to 65535"),
        ("SAVED --port -1", "--port -1: give a number"),
        ("SAVED --port x", "--port: Expected a int"),
        ("SAVED --host 192.0.2.1 --port 0", "--host 192.0.2.1: no address of this machine"),
        ("SAVED --device tpu", "--device tpu: there is none here"),
        ("SAVED --share true", "--share is not known"),
        ("SAVED --model Nonsense", "model 'Nonsense' is not known"),
    ],
)
def test_it_cannot_start(
    words: str,
    expected: str,
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in one_line(capsys, ["demo", *words.replace("SAVED", str(saved)).split()])


def test_a_port_that_is_taken(saved: Path, taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, ["demo", str(saved), "--port", str(taken)])
    assert line == f"--port {taken}: is taken; give another one, or 0 for a free one."


def test_without_gradio(saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "import_gradio", import_gradio)
    monkeypatch.setitem(sys.modules, "gradio", None)
    line = one_line(capsys, ["demo", str(saved), "--port", "0"])
    assert line == 'gradio is not installed: pip install "ifmmin[demo]".'
