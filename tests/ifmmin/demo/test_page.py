"""The page in a real browser: a switch by keyboard, both widths, both themes, and no request to elsewhere."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ifmmin.cli.demo import _predictor
from ifmmin.demo.page import Inputs
from ifmmin.sharing.hub import SHIPPED
from tests.chromium import EXECUTABLE, Page, chromium
from tests.cli.running import CHECKOUT
from tests.ifmmin.demo.saved import DIMS, predictor

pytest.importorskip("gradio")
needs_browser = pytest.mark.skipif(EXECUTABLE is None, reason="no chromium here (Debian: apt-get install chromium)")
WAIT = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A process that serves the page, its address, and the folder of its temporary files."""
    folder = predictor().save_pretrained(tmp_path_factory.mktemp("saved") / "model")
    temporary = tmp_path_factory.mktemp("temporary")
    process = subprocess.Popen(
        [sys.executable, "cli.py", "demo", str(folder), "--port", "0"],
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(temporary), "http_proxy": "http://127.0.0.1:9", "no_proxy": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, (line, process.stderr.read() if process.stderr else "")
        yield process, found[0], temporary
    finally:
        process.kill()
        process.communicate()


def shown(page: Page, selector: str, wanted: str, is_there: bool = True) -> str:
    """Text of what is shown, once it has ``wanted``."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        text = " | ".join(page.texts(selector))
        if text and (wanted in text) == is_there:
            return text
        time.sleep(0.05)
    raise AssertionError((selector, wanted, page.texts(selector), page.texts("body"), page.errors))


@needs_browser
def test_a_switch_by_keyboard_changes_the_answer(
    server: tuple[subprocess.Popen[str], str, Path], tmp_path: Path
) -> None:
    process, address, temporary = server
    np.save(tmp_path / "audio.npy", np.full((4, DIMS[0]), [np.nan] + [0.1] * (DIMS[0] - 1)))
    np.save(tmp_path / "wrong.npy", np.zeros((4, 7)))
    with chromium(tmp_path / "profile") as page:
        page.open(address, 1280, 900)
        before = shown(page, "#answer", "from all three")
        assert "Missing: nothing." in before and "(calibrated)" in before
        assert len(page.texts("#details .card")) == 7 and not page.texts("#details .card.gone")
        assert page.evaluate("document.querySelector('#answer [aria-live], #answer[aria-live]') !== null")
        policy = page.evaluate("fetch(location).then(answer => answer.headers.get('content-security-policy'))")
        assert policy.startswith("default-src 'self';")
        # By keyboard: to the second switch, off, and back on.
        focused = "document.activeElement.closest('[id^=works]')?.id"
        tab_until(page, f"{focused} === 'works-visual'")
        page.press(" ", 32)
        after = shown(page, "#answer", "Missing: video (switched off).")
        assert "from audio and text" in after and after != before
        shown(page, "#details .card.gone", "video is switched off")
        assert len(page.texts("#details .card.gone")) == 4
        page.press(" ", 32)
        assert shown(page, "#answer", "Missing: nothing.") == before
        # By keyboard: to the second utterance.
        first = shown(page, "#details", "all three (now)")
        tab_until(page, "document.activeElement.value?.startsWith('2: ')")
        page.press(" ", 32)
        shown(page, "#details", first, is_there=False)
        # Narrow and dark: as wide as the window, and in other colours.
        colour = "getComputedStyle(document.querySelector('#answer .said')).color"
        width = "document.documentElement.scrollWidth"
        light = page.evaluate(colour)
        assert page.evaluate(width) == 1280
        page.open(f"{address}?__theme=dark", 400, 900)
        shown(page, "#answer", "from all three")
        assert page.evaluate(width) == 400
        assert page.evaluate(colour) != light
        # Files of one's own: one is wrong, one is lost.
        page.click("button:has(> span)", 0)  # opens the part for them
        for name, selector, said in (
            ("wrong", "#answer", "audio: shape [4, 7]"),
            ("audio", "#answer", "Missing: audio (lost: every frame is NaN)."),
        ):
            upload(page, tmp_path / f"{name}.npy")
            shown(page, selector, said)
            if name == "wrong":
                page.evaluate("document.querySelector('#file-audio button[aria-label=Clear]').click()")
                shown(page, "#answer", "Missing: nothing.")
        assert "Frames lost: 4 of 4 of audio." in shown(page, "#answer", "Frames lost")
        # What Gradio's client warns of whenever it closes its stream of answers.
        assert [error for error in page.errors if error != "['Method not implemented.']"] == []
        elsewhere = [url for url in page.requests if not url.startswith((address, "data:", "blob:"))]
        assert elsewhere == [] and page.requests
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert err.strip() == "interrupted; the page is closed, and what was uploaded is deleted"
    assert not list(temporary.glob("ifmmin-demo-*"))


def tab_until(page: Page, wanted: str) -> None:
    """Press Tab until a JavaScript expression of what has the focus is true."""
    for _ in range(20):
        page.press("Tab", 9)
        if page.evaluate(wanted):
            return
    raise AssertionError((wanted, page.evaluate("document.activeElement.outerHTML")))


def upload(page: Page, file: Path) -> None:
    """Choose a file for audio, as by the dialogue."""
    end = time.monotonic() + WAIT
    while not page.evaluate("document.querySelector('#file-audio input[type=file]') !== null"):
        assert time.monotonic() < end, page.texts("body")
        time.sleep(0.05)
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=root, selector="#file-audio input[type=file]")["nodeId"]
    page.send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_that_comes_with_the_library_has_utterances_and_is_calibrated(name: str) -> None:
    inputs = Inputs(_predictor(name, "cpu", None))
    answers = {truth: inputs.shown((True, True, True), example=truth)[0] for truth in inputs.examples}
    assert all("% (calibrated), from all three" in said for said in answers.values())
    right = sum(f'<p class="said">{truth.partition(": ")[2]}</p>' in said for truth, said in answers.items())
    assert right >= 4  # of 8; by chance 2
