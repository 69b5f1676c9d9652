"""expression: an embedding of facial expressions, by the small net of face-api."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.errors import InputError
from datamodules.extraction.extractor import FloatArray, Pictures, Reads
from datamodules.extraction.extractors.hub import exact, on_device
from datamodules.extraction.extractors.ready_made import MODELS, sha256_of, weights_path
from datamodules.extraction.media.detectors import version_of
from datamodules.text import printable

SOURCE = "npm pack @vladmandic/face-api@1.7.15, folder package/model"
"""Where the weights come from; MIT licence."""

WEIGHTS = ("face_expression_model.bin", "9a9840f2cf1f4c7eab95f197512569345c00d2426754d4608b92af30e0300f3d")
"""Weights in 8 bits, and their sha256."""

MANIFEST = (
    "face_expression_model-weights_manifest.json",
    "5b349c17c7836da506e03422cd6461c74085d8bb2713ad4114647dc5d28174c8",
)
"""Their names, shapes and ranges."""

_MEAN = (122.782, 117.001, 104.298)


class Expression:
    """What the expression net of face-api computes of a face before its last layer, 256 values.

    Sixteen 3x3 convolutions, all but the first separable, in four blocks that add up their layers; the mean over the
    last 7x7 cells. https://github.com/vladmandic/face-api

    Args:
        model: the file ``face_expression_model.bin``, with its manifest beside it, or their folder.
        device: where it runs.
        batch: how many faces are read at once.

    Raises:
        InputError: a file is not there, or another one.
    """

    modality: Literal["audio", "visual", "text"] = "visual"
    name = "expression"
    width = 256

    def __init__(self, model: str, *, device: str = "cpu", batch: int = 16) -> None:
        path = weights_path(model)
        folder = path if path.is_dir() else path.parent
        content = [_checked(folder / name, digest) for name, digest in (WEIGHTS, MANIFEST)]
        self._net = on_device(_Net(_weights(*content)), device, "expression")
        self._device, self._batch = torch.device(device), batch
        self.reads = Reads("faces", side=112)

    def __call__(self, item: Pictures) -> FloatArray:
        """Compute features [N, 256] of faces uint8 [N, 112, 112, 3]."""
        found = []
        with exact():
            for start in range(0, len(item.pixels), self._batch):
                pixels = torch.from_numpy(item.pixels[start : start + self._batch].astype(np.float32))
                found.append(self._net(pixels.to(self._device)).cpu())
        values: FloatArray = torch.cat(found).numpy()
        return values

    def recipe(self) -> dict[str, Any]:
        """Digest of the weights, version of PyTorch."""
        return {"model": "face-api 1.7.15", "sha256": WEIGHTS[1], "torch": version_of("torch")}


class _Net(torch.nn.Module):
    """The layers up to the embedding.

    Args:
        weights: by name, in TensorFlow's order of axes.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in weights.items():
            axes = {"depthwise_filter": (2, 3, 0, 1), "bias": (0,)}.get(name.rpartition("/")[2], (3, 2, 0, 1))
            if not name.startswith("fc/"):
                self.register_buffer(name.replace("/", "_"), value.permute(axes).contiguous())
        self.register_buffer("mean", torch.tensor(_MEAN))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed faces [B, 112, 112, 3] in 0..255 as [B, 256]."""
        mean: Tensor = self.get_buffer("mean")
        values = ((pixels - mean) / 255).movedim(-1, 1)
        for block in range(4):
            first = F.relu(self._layer(values, f"dense{block}_conv0", stride=2))
            total = first + self._layer(first, f"dense{block}_conv1")
            for layer in (2, 3):
                total = total + self._layer(F.relu(total), f"dense{block}_conv{layer}")
            values = F.relu(total)
        return values.mean((2, 3))

    def _layer(self, values: Tensor, name: str, stride: int = 1) -> Tensor:
        """A 3x3 convolution that keeps the size, or halves it: TensorFlow then pads at the right and below alone."""
        bias = self.get_buffer(f"{name}_bias")
        padded = F.pad(values, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        if hasattr(self, f"{name}_filters"):
            return F.conv2d(padded, self.get_buffer(f"{name}_filters"), bias, stride)
        depth = self.get_buffer(f"{name}_depthwise_filter")
        apart = F.conv2d(padded, depth, stride=stride, groups=len(depth))
        return F.conv2d(apart, self.get_buffer(f"{name}_pointwise_filter"), bias)


def _checked(path: Path, digest: str) -> bytes:
    """Content of a file.

    Raises:
        InputError: it is not there, or another one.
    """
    shown = printable(path)
    if not path.is_file():
        raise InputError(f"expression: {shown} is not there; bring it from {SOURCE}, or give its folder as {MODELS}.")
    if sha256_of(path) != digest:
        raise InputError(
            f"expression: {shown} is another file than that of {SOURCE} (its sha256 is not {digest[:12]}…)."
        )
    return path.read_bytes()


def _weights(content: bytes, manifest: bytes) -> dict[str, Tensor]:
    """Read weights by name: 8 bits each, or 32 where no range is given."""
    found: dict[str, Tensor] = {}
    place = 0
    for entry in json.loads(manifest)[0]["weights"]:
        size = int(np.prod(entry["shape"]))
        kind = entry.get("quantization")
        stored = np.frombuffer(content, np.uint8 if kind else np.float32, size, place)
        place += stored.nbytes
        values = stored.astype(np.float64) * kind["scale"] + kind["min"] if kind else stored
        found[entry["name"]] = torch.from_numpy(values.astype(np.float32).reshape(entry["shape"]))
    return found
