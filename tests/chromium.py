"""One page in headless Chromium, driven through its DevTools pipe: no driver and no package needed."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser, None where there is none."""

# Chromium reads commands from descriptor 3 and answers on 4. subprocess cannot place descriptors, this can.
_PLACE = "import os, sys; r, w, *run = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4); os.execv(run[0], run)"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root, as in a container, has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
)


class Page:
    """A browser tab: what it holds, what it complained about and what it asked the network for.

    Attributes:
        errors: console errors and warnings, uncaught exceptions and violations of the content policy, in order.
        requests: the addresses that the page asked for, other than the page itself.
    """

    def __init__(self, commands: int, answers: int, timeout: float = 60.0) -> None:
        """Talk through two descriptors; every wait ends after ``timeout`` seconds."""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._commands, self._answers, self._timeout = commands, answers, timeout
        self._buffer, self._number, self._address = b"", 0, ""
        self._session: str | None = None
        self._loaded = False

    def open(self, page: Path | str, width: int = 1280, height: int = 900, script: bool = True) -> None:
        """Load a file or an address in a new tab of ``width`` x ``height`` CSS pixels, with or without JavaScript."""
        self._session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)
        self.send("Emulation.setScriptExecutionDisabled", value=not script)
        self._address, self._loaded = page if isinstance(page, str) else page.resolve().as_uri(), False
        self.send("Page.navigate", url=self._address)
        while not self._loaded:
            self._receive()

    def resize(self, width: int, height: int) -> None:
        """Give the tab another size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)

    def settle(self) -> None:
        """Wait until the page has drawn what it draws anew after a change of its size; it needs JavaScript."""
        self.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, as JSON carries it."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def texts(self, selector: str) -> list[str]:
        """The text of every element of ``selector`` that is shown, in the order of the page."""
        shown = f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.getClientRects().length)"
        return list(self.evaluate(f"{shown}.map(e => e.textContent.replace(/\\s+/g, ' ').trim())"))

    def click(self, selector: str, number: int = 0) -> None:
        """Press and release the mouse on the middle of the ``number``-th shown element of ``selector``."""
        box = self.evaluate(f"""(() => {{
            const shown = [...document.querySelectorAll({json.dumps(selector)})].filter(e => e.getClientRects().length);
            shown[{number}].scrollIntoView({{block: "center", inline: "center"}});
            const {{x, y, width, height}} = shown[{number}].getBoundingClientRect();
            return [x + width / 2, y + height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            mouse = {"type": kind, "x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", **mouse)

    def press(self, key: str, code: int) -> None:
        """Press and release a key, for instance ``("Enter", 13)`` or ``(" ", 32)``, on what has the focus."""
        text = {"text": {"Enter": "\r", " ": " "}[key]} if key in ("Enter", " ") else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def choose(self, selector: str, label: str, number: int = 0) -> None:
        """Choose the option with this text in the ``number``-th ``<select>`` of ``selector``."""
        self.evaluate(f"""(() => {{
            const select = document.querySelectorAll({json.dumps(selector)})[{number}];
            select.value = [...select.options].find(option => option.text === {json.dumps(label)}).value;
            for (const name of ["input", "change"]) select.dispatchEvent(new Event(name, {{bubbles: true}}));
        }})()""")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a DevTools command and return its result; RuntimeError if the browser refuses it."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def _receive(self) -> dict[str, Any]:
        """The next message, noted if it is a complaint, a request or the end of loading."""
        deadline = time.monotonic() + self._timeout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise EOFError("the browser is gone")
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, values: dict[str, Any]) -> None:
        """Keep what a test asks for later."""
        if event == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.errors.append(str([argument.get("value") for argument in values["args"]]))
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(values["exceptionDetails"]))
        elif event == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.errors.append(values["entry"]["text"])
        elif event == "Network.requestWillBeSent" and values["request"]["url"] != self._address:
            self.requests.append(values["request"]["url"])
        elif event == "Page.loadEventFired":
            self._loaded = True


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A headless browser with a fresh profile in the folder ``profile``, closed at the end of the block."""
    assert EXECUTABLE is not None, "no Chromium"
    # Above 4, so that placing one end does not overwrite the other.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for pair in (os.pipe(), os.pipe()) for end in _closing(pair)]
    command_read, command_write, answer_read, answer_write = ends
    place = [sys.executable, "-c", _PLACE, str(command_read), str(answer_write)]
    command = [*place, EXECUTABLE, *_FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        command, pass_fds=(command_read, answer_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(command_read)
    os.close(answer_write)
    try:
        yield Page(command_write, answer_read)
    finally:
        os.close(command_write)  # Chromium leaves when its pipe closes
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(answer_read)


def _closing(pair: tuple[int, int]) -> Iterator[int]:
    """Each end of a pipe, closed after use."""
    for end in pair:
        yield end
        os.close(end)
