"""Open a page in the browser on which sensors are switched off, and the answer is seen to change."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import webbrowser
from collections.abc import Sequence
from functools import partial

from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.cli import stopping
from ifmmin.cli.arguments import Parser
from ifmmin.cli.devices import available_device
from ifmmin.demo.page import Inputs, application, build, import_gradio
from ifmmin.discovery import find_model
from ifmmin.inference import Predictor
from ifmmin.sharing.hub import SHIPPED, stored_at

_HERE = ("127.0.0.1", "localhost", "::1")


def make_parser() -> Parser:
    """The parser of ``demo``."""
    parser = Parser(prog="demo", description=__doc__)
    parser.add_argument(
        "checkpoint",
        type=str,
        help=f"A .ckpt file that fit wrote, a folder that save wrote, or {' or '.join(SHIPPED)}.",
    )
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", help="Address to listen at; by default this machine's own."
    )
    parser.add_argument("--port", type=int, default=7860, help="Port to listen at; 0 takes a free one.")
    parser.add_argument("--open", type=bool, default=False, help="Open the page in the browser.")
    parser.add_argument("--device", type=str, default="cpu", help="Where the model runs.")
    parser.add_argument("--model", type=str | None, default=None, help="Class path of a model of your own.")
    return parser


def demo_command(argv: Sequence[str]) -> int:
    """Serve the page until Ctrl-C.

    Args:
        argv: the words after ``demo``.

    Returns:
        exit code, 0.

    Raises:
        InputError: the checkpoint cannot be read, the address cannot be had, or Gradio is not installed.
    """
    options = make_parser().parse_args(list(argv))
    predictor = _predictor(options.checkpoint, available_device(options.device), options.model)
    listening = _listen(options.host, options.port)
    import_gradio()
    uploads = tempfile.mkdtemp(prefix="ifmmin-demo-")
    remove = partial(shutil.rmtree, uploads, ignore_errors=True)
    stopping.at_stop.append(remove)
    stopping.say_next(lambda: "the page is closed, and what was uploaded is deleted")
    os.environ["GRADIO_TEMP_DIR"] = uploads
    try:
        _serve(predictor, listening, options.host, options.open)
    finally:
        stopping.at_stop.remove(remove)
        remove()
    return 0


def _predictor(source: str, device: str, model: str | None) -> Predictor:
    kind = model and find_model(model)
    return Predictor.load(stored_at(source), device, kind or None)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that whoever opens the address meanwhile waits.

    Raises:
        InputError: the port is taken, or it or the host is no address of this machine.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: give a number from 0 to 65535.")
    shown = printable(host, 60)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        code = error.errno if isinstance(error, OSError) else None
        if code == errno.EADDRINUSE:
            raise InputError(f"--port {port}: is taken; give another one, or 0 for a free one.") from error
        if code == errno.EACCES:
            raise InputError(f"--port {port}: needs permission; give one above 1023.") from error
        raise InputError(f"--host {shown}: no address of this machine; leave it out, or give 0.0.0.0.") from error
    return listening


def _serve(predictor: Predictor, listening: socket.socket, host: str, opens: bool) -> None:
    app = application(build(Inputs(predictor)))
    import uvicorn  # comes with Gradio

    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listening.getsockname()[1]}/"
    if host not in _HERE:
        print("note: whoever reaches this machine can open the page.", flush=True)
    print(f"open {printable(address)} in a browser; Ctrl-C ends it", flush=True)
    if opens:
        webbrowser.open(address)
    settings = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(settings).run(sockets=[listening])
