"""denseface: the papers' visual feature, for weights of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.errors import InputError
from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import FloatArray, Pictures, Reads
from datamodules.extraction.extractors.hub import check_sha256, exact, on_device
from datamodules.extraction.extractors.ready_made import MODELS, sha256_of, weights_path
from datamodules.extraction.media.detectors import version_of
from datamodules.text import printable

IEMOCAP_GREY = (131.0754, 47.858177)
"""Mean and deviation of the grey values of IEMOCAP's faces, as the published features used them; of MSP-IMPROV's
96.3801 and 53.615868."""

_GROWTH, _LAYERS, _BLOCKS = 12, 16, 3


class DenseFace:
    """Global average pool of a DenseNet-BC (Huang et al. 2017; growth 12, depth 100, reduction 0.5), 342 values.

    The published weights were trained on FER+ and never released. A file of one's own has the names of torchvision's
    DenseNet (``features.denseblock1.denselayer1.norm1.weight``) with a first convolution of 3x3 and stride 1; its
    classifier is left out.

    Args:
        model: file of weights, ``.safetensors``, or tensors alone that ``torch.save`` wrote.
        mean: of the grey values 0..255 that it was trained on.
        deviation: of these.
        sha256: digest that the file must have.
        device: where it runs.
        batch: how many faces are read at once.

    Raises:
        InputError: the file is not there, has other weights, or would have to be run to be read.
    """

    modality: Literal["audio", "visual", "text"] = "visual"
    name = "denseface"
    width = 342

    def __init__(
        self,
        model: str,
        mean: float = IEMOCAP_GREY[0],
        deviation: float = IEMOCAP_GREY[1],
        sha256: str | None = None,
        *,
        device: str = "cpu",
        batch: int = 16,
    ) -> None:
        if deviation <= 0:
            raise InputError(f"denseface: deviation must be above 0, it is {deviation}.")
        path = weights_path(model)
        weights = tensors_of(path, "denseface")
        self._sha256 = sha256_of(path)
        check_sha256(self._sha256, sha256, f"denseface: {printable(path)}")
        self._net = on_device(_filled(DenseNet(), weights, f"denseface: {printable(path)}"), device, "denseface")
        self._mean, self._deviation = mean, deviation
        self._device, self._batch = torch.device(device), batch
        self._model = path.name
        self.reads = Reads("faces", side=64, grey=True)

    def __call__(self, item: Pictures) -> FloatArray:
        """Compute features [N, 342] of grey faces uint8 [N, 64, 64]."""
        found = []
        with exact():
            for start in range(0, len(item.pixels), self._batch):
                pixels = torch.from_numpy(item.pixels[start : start + self._batch].astype(np.float32))[:, None]
                found.append(self._net(((pixels - self._mean) / self._deviation).to(self._device)).cpu())
        values: FloatArray = torch.cat(found).numpy()
        return values

    def recipe(self) -> dict[str, Any]:
        """Digest of the weights, grey values, version of PyTorch."""
        return {
            "model": self._model,
            "sha256": self._sha256,
            "mean": self._mean,
            "deviation": self._deviation,
            "torch": version_of("torch"),
        }


class DenseNet(nn.Module):
    """Three blocks of 16 layers; each layer adds 12 channels to all before it, each transition halves both sizes."""

    def __init__(self) -> None:
        super().__init__()
        channels = 2 * _GROWTH
        self.features = nn.ModuleDict({"conv0": nn.Conv2d(1, channels, 3, padding=1, bias=False)})
        for block in range(1, _BLOCKS + 1):
            layers = {f"denselayer{number + 1}": _Layer(channels + number * _GROWTH) for number in range(_LAYERS)}
            self.features[f"denseblock{block}"] = nn.ModuleDict(layers)
            channels += _LAYERS * _GROWTH
            if block < _BLOCKS:
                self.features[f"transition{block}"] = nn.ModuleDict(
                    {"norm": nn.BatchNorm2d(channels), "conv": nn.Conv2d(channels, channels // 2, 1, bias=False)}
                )
                channels //= 2
        self.features["norm5"] = nn.BatchNorm2d(channels)

    def forward(self, faces: Tensor) -> Tensor:
        """Embed faces [B, 1, 64, 64] as [B, 342]."""
        values: Tensor = self.features["conv0"](faces)
        for name, part in self.features.items():
            if name.startswith("denseblock"):
                for layer in part.values():  # type: ignore[operator]
                    values = torch.cat([values, layer(values)], 1)
            elif name.startswith("transition"):
                values = F.avg_pool2d(part["conv"](F.relu(part["norm"](values))), 2)  # type: ignore[index]
        return F.relu(self.features["norm5"](values)).mean((2, 3))


class _Layer(nn.Module):
    """A bottleneck of 1x1 and a convolution of 3x3, each behind a normalisation and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * _GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * _GROWTH)
        self.conv2 = nn.Conv2d(4 * _GROWTH, _GROWTH, 3, padding=1, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """The 12 channels [B, 12, H, W] that it adds."""
        narrow: Tensor = self.conv1(F.relu(self.norm1(values)))
        added: Tensor = self.conv2(F.relu(self.norm2(narrow)))
        return added


def tensors_of(path: Path, who: str) -> dict[str, Tensor]:
    """Tensors of a file by name; nothing in it is run.

    Raises:
        InputError: it is not there, or holds something else.
    """
    shown = f"{who}: {printable(path)}"
    if not path.is_file():
        raise InputError(f"{shown}: is not there; give a file of weights as option model, or its folder as {MODELS}.")
    try:
        if path.suffix == ".safetensors":
            found = require("safetensors.torch").load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # of many kinds
        raise InputError(f"{shown}: is no file of tensors alone; bring a .safetensors.") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{shown}: holds more than tensors by name; save the state_dict alone.")
    return {str(name): value for name, value in found.items()}


def _filled(net: nn.Module, weights: dict[str, Tensor], shown: str) -> nn.Module:
    """A network with its weights, ready for inference.

    Raises:
        InputError: some are missing, too many, or of another shape.
    """
    given = {name: value for name, value in weights.items() if not name.startswith("classifier.")}
    wanted = net.state_dict()
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in wanted]
    other = [name for name, value in given.items() if name in wanted and value.shape != wanted[name].shape]
    for what, names in (("lacks", missing), ("has unknown", unknown), ("has another shape of", other)):
        if names:
            raise InputError(f"{shown}: {what} {len(names)} weights, such as {printable(names[0], 80)}.")
    net.load_state_dict(given, strict=False)
    return net.float().eval().requires_grad_(False)
