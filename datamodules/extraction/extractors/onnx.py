"""onnx: any face network in an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.errors import InputError
from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import FloatArray, Pictures, Reads
from datamodules.extraction.extractors.hub import check_sha256
from datamodules.extraction.extractors.ready_made import MODELS, file_stem, sha256_of, weights_path
from datamodules.extraction.media.detectors import version_of
from datamodules.text import printable


class Onnx:
    """What a network of the user's computes of a face, at its output or at any tensor inside.

    Its input [N, 1, side, side] is grey, [N, 3, side, side] RGB, with N free or 1; values are pixels 0..255 minus
    ``mean`` over ``deviation``. A result [N, D] is a feature, of [N, D, height, width] its mean over both.

    Args:
        model: the file.
        output: name of the tensor; by default the network's first output.
        mean: of the pixels: one number, or one of each colour, joined by commas.
        deviation: likewise.
        bgr: the network reads blue first.
        sha256: digest that the file must have.
        device: ``cpu``, or ``cuda`` where onnxruntime was built for it.
        batch: how many faces are read at once, where N is free.

    Raises:
        InputError: the file is not there or no such network.
    """

    modality: Literal["audio", "visual", "text"] = "visual"

    def __init__(
        self,
        model: str,
        output: str | None = None,
        mean: str = "0",
        deviation: str = "1",
        bgr: bool = False,
        sha256: str | None = None,
        *,
        device: str = "cpu",
        batch: int = 16,
    ) -> None:
        path = weights_path(model)
        self._session = open_session(path, "onnx", device, output)
        self._path, self._sha256 = path, sha256_of(path)
        shown = f"onnx: {printable(path)}"
        check_sha256(self._sha256, sha256, shown)
        self._input = self._session.get_inputs()[0]
        shape = self._input.shape
        is_known = len(shape) == 4 and shape[1] in (1, 3) and isinstance(shape[2], int) and shape[2] == shape[3]
        if len(self._session.get_inputs()) != 1 or not is_known or (isinstance(shape[0], int) and shape[0] != 1):
            raise InputError(
                f"{shown}: its input is {printable(shape, 60)}, not [N, 1 or 3, side, side] with N free or 1."
            )
        if "float" not in self._input.type:
            raise InputError(f"{shown}: its input is {printable(self._input.type, 40)}, not tensor(float).")
        self._output = output or self._session.get_outputs()[0].name
        colours = int(shape[1])
        self._mean, self._deviation = _numbers(mean, colours, "mean"), _numbers(deviation, colours, "deviation")
        if not self._deviation.all():
            raise InputError("onnx: deviation must not be 0.")
        self._bgr = bgr and colours == 3
        self._batch = 1 if isinstance(shape[0], int) else batch
        self.reads = Reads("faces", side=int(shape[2]), grey=colours == 1)
        self.name = file_stem(path.stem + (f"-{output}" if output else ""))
        self.width = self._run(np.zeros((1, *shape[2:], colours), np.uint8)).shape[1]

    def __call__(self, item: Pictures) -> FloatArray:
        """Compute features [N, D] of faces uint8 [N, side, side] where grey, or [N, side, side, 3]."""
        pixels = item.pixels[..., None] if self.reads.grey else item.pixels
        starts = range(0, len(pixels), self._batch)
        return np.concatenate([self._run(pixels[start : start + self._batch]) for start in starts])

    def recipe(self) -> dict[str, Any]:
        """Digest of the file, tensor, how pixels are prepared, version of onnxruntime."""
        return {
            "model": self._path.name,
            "sha256": self._sha256,
            "output": self._output,
            "mean": self._mean.tolist(),
            "deviation": self._deviation.tolist(),
            "bgr": self._bgr,
            "side": self.reads.side,
            "onnxruntime": version_of("onnxruntime", "onnxruntime-gpu"),
        }

    def _run(self, pixels: Any) -> FloatArray:
        """Features [N, D] of pixels [N, side, side, colours]."""
        values = ((pixels.astype(np.float32) - self._mean) / self._deviation)[..., :: -1 if self._bgr else 1]
        given = np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)
        try:
            (found,) = self._session.run([self._output], {self._input.name: given})
        except Exception as error:
            raise InputError(f"onnx: {printable(self._path)}: cannot be run ({printable(error, 120)}).") from error
        is_numbers = isinstance(found, np.ndarray) and found.dtype.kind == "f" and len(found) == len(pixels)
        if not is_numbers or found.ndim not in (2, 4):
            shape = list(getattr(found, "shape", ()))
            raise InputError(
                f"onnx: {printable(self._path)}: {printable(self._output, 60)} is {shape}, not [N, D] or "
                "[N, D, height, width] of floats; name another tensor as option output."
            )
        values = found.mean((2, 3)) if found.ndim == 4 else found
        features: FloatArray = np.asarray(values, np.float32)
        return features


def open_session(path: Path, who: str, device: str = "cpu", output: str | None = None) -> Any:
    """Open a network with onnxruntime, on one thread, so that its values are the same in every process.

    Args:
        path: of the file.
        who: opens it, for messages.
        device: ``cpu`` or ``cuda``.
        output: a tensor inside that becomes an output.

    Raises:
        InputError: the file is not there or cannot be opened, or there is no such device.
    """
    runtime = require("onnxruntime")
    shown = f"{who}: {printable(path)}"
    if not path.is_file():
        raise InputError(f"{shown}: is not there; give an ONNX file as option model, or its folder as {MODELS}.")
    kind = device.partition(":")[0]
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind)
    if provider not in runtime.get_available_providers():
        raise InputError(f"{who}: device {printable(device, 40)!r} is none that this onnxruntime can use.")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(path, options, providers=[provider])
        if output is not None and output not in [known.name for known in session.get_outputs()]:
            session = runtime.InferenceSession(with_output(path.read_bytes(), output), options, providers=[provider])
    except Exception as error:  # onnxruntime's own kinds have no common base
        what = f"has no tensor {printable(output, 60)!r}, or " if output else ""
        raise InputError(f"{shown}: {what}cannot be opened ({printable(error, 120)}).") from error
    return session


def with_output(content: bytes, name: str) -> bytes:
    """Content of an ONNX file with one more output: a tensor inside.

    Protocol Buffers merge a message that comes twice, so a second graph that holds the output alone is put behind
    (fields: 7 of the model is the graph, 12 of the graph its outputs, 1 of an output its name).
    """
    return content + _field(7, _field(12, _field(1, name.encode("utf-8"))))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes in the wire format of Protocol Buffers."""
    length, encoded = len(content), b""
    while length > 127:
        encoded += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + encoded + bytes([length]) + content


def _numbers(text: str, colours: int, name: str) -> Any:
    """One number, or one of each colour, joined by commas."""
    try:
        found = np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError:
        found = np.array([np.nan], np.float32)
    if len(found) not in (1, colours) or not np.isfinite(found).all():
        raise InputError(
            f"onnx: {name} must be one number, or {colours} joined by commas, not {printable(text, 40)!r}."
        )
    return found
