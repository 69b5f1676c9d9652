"""Face networks in PyTorch, from files of the user's: denseface, expression."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from datamodules.extraction.extractor import Pictures
from datamodules.extraction.extractors import expression
from datamodules.extraction.extractors.denseface import DenseNet
from tests.cli.running import CHECKOUT
from tests.datamodules.extraction.face_networks import faces, line_of, made

DATA = CHECKOUT / "tests" / "data"


# denseface.


@pytest.fixture(scope="module")
def dense_weights() -> dict[str, torch.Tensor]:
    """Random weights and statistics, and a classifier of eight emotions."""
    generator = torch.Generator().manual_seed(0)
    weights = DenseNet().state_dict()
    for name, value in weights.items():
        if value.dtype.is_floating_point:
            drawn = torch.randn(value.shape, generator=generator)
            weights[name] = drawn.abs() + 0.5 if "running_var" in name else drawn * (0.1 if value.ndim > 1 else 1)
    weights["classifier.weight"] = torch.zeros(8, 342)
    return dict(weights)


def naive_dense(weights: dict[str, torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """Layer by layer from the names alone, in float64."""
    double = {name: value.double() for name, value in weights.items()}

    def normal(name: str, given: torch.Tensor) -> torch.Tensor:
        mean, variance = double[f"{name}.running_mean"], double[f"{name}.running_var"]
        scale = double[f"{name}.weight"] / (variance + 1e-5).sqrt()
        return ((given - mean[:, None, None]) * scale[:, None, None] + double[f"{name}.bias"][:, None, None]).clamp(0)

    values = F.conv2d(values.double(), double["features.conv0.weight"], padding=1)
    for block in (1, 2, 3):
        for layer in range(1, 17):
            prefix = f"features.denseblock{block}.denselayer{layer}"
            narrow = F.conv2d(normal(f"{prefix}.norm1", values), double[f"{prefix}.conv1.weight"])
            added = F.conv2d(normal(f"{prefix}.norm2", narrow), double[f"{prefix}.conv2.weight"], padding=1)
            values = torch.cat([values, added], 1)
        if block < 3:
            prefix = f"features.transition{block}"
            values = F.conv2d(normal(f"{prefix}.norm", values), double[f"{prefix}.conv.weight"])
            size = values.shape[-1] // 2
            values = values.reshape(*values.shape[:2], size, 2, size, 2).mean((3, 5))
    return normal("features.norm5", values).mean((2, 3))


def save_weights(weights: dict[str, torch.Tensor], path: Path) -> Path:
    from safetensors.torch import save_file

    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_denseface_is_a_densenet_bc(tmp_path: Path, dense_weights: dict[str, torch.Tensor], suffix: str) -> None:
    # 769,162 with three colours and ten classes, as for CIFAR-10.
    assert sum(value.numel() for value in DenseNet().parameters()) == 769_162 - 2 * 24 * 9 - 10 * 343
    model = save_weights(dense_weights, tmp_path / f"mine{suffix}")
    item = faces(3, 64, grey=True)
    made_of = made("denseface", model, 2, mean=100.0, deviation=50.0)
    assert (made_of.width, made_of.reads.side, made_of.reads.grey) == (342, 64, True)
    wanted = naive_dense(dense_weights, (torch.from_numpy(item.pixels).double()[:, None] - 100) / 50)
    np.testing.assert_allclose(made_of(item), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made("denseface", model, 16, mean=100.0, deviation=50.0)(item), made_of(item), atol=1e-5)
    recipe = made_of.recipe()
    assert recipe["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (recipe["mean"], recipe["deviation"], recipe["model"]) == (100.0, 50.0, f"mine{suffix}")


def drop(weights: dict[str, Any]) -> None:
    del weights["features.norm5.bias"]


def add(weights: dict[str, Any]) -> None:
    weights["features.denseblock4.x"] = torch.zeros(1)


def reshape(weights: dict[str, Any]) -> None:
    weights["features.conv0.weight"] = torch.zeros(24, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, "lacks 1 weights, such as features.norm5.bias"),
        (add, "has unknown 1 weights, such as features.denseblock4.x"),
        (reshape, "has another shape of 1 weights, such as features.conv0.weight"),
    ],
)
def test_weights_of_another_network(
    tmp_path: Path, dense_weights: dict[str, torch.Tensor], change: Callable[[Any], None], said: str
) -> None:
    weights = dict(dense_weights)
    change(weights)
    assert said in line_of("denseface", save_weights(weights, tmp_path / "mine.safetensors"))


class Runs:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_of_weights_is_run(tmp_path: Path) -> None:
    torch.save({"x": Runs(tmp_path / "made")}, tmp_path / "mine.pt")
    assert line_of("denseface", tmp_path / "mine.pt").endswith("is no file of tensors alone; bring a .safetensors.")
    torch.save({"state_dict": {}}, tmp_path / "mine.pt")
    assert line_of("denseface", tmp_path / "mine.pt").endswith(
        "holds more than tensors by name; save the state_dict alone."
    )
    (tmp_path / "mine.safetensors").write_bytes(b"\xff" * 20)
    assert "is no file of tensors alone" in line_of("denseface", tmp_path / "mine.safetensors")
    assert not (tmp_path / "made").exists()


def test_wrong_options_of_denseface(tmp_path: Path, dense_weights: dict[str, torch.Tensor]) -> None:
    model = save_weights(dense_weights, tmp_path / "mine.safetensors")
    assert "deviation must be above 0" in line_of("denseface", model, deviation=0)
    assert "has other weights than asked for" in line_of("denseface", model, sha256="0" * 64)


# expression.


@pytest.fixture(scope="module")
def face_api(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the original's weights, fetched by npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not here, which fetches the weights")
    folder = tmp_path_factory.mktemp("npm")
    command = [npm, "pack", "--silent", "--cache", str(folder / "cache"), "@vladmandic/face-api@1.7.15"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm cannot fetch @vladmandic/face-api ({error})")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for name, _ in (expression.WEIGHTS, expression.MANIFEST):
            content = archive.extractfile(f"package/model/{name}")
            assert content is not None
            (folder / name).write_bytes(content.read())
    return folder


def test_the_expression_net_gives_the_original_s_values(face_api: Path) -> None:
    """Against values that the original computed in Node: tests/data/face_api_expression.js."""
    row, column, colour = np.ogrid[:112, :112, :3]
    pixels = [(row * row * (number + 1) + column * (7 + number) + 29 * colour * row) % 256 for number in range(3)]
    item = Pictures("one", np.stack(pixels).astype(np.uint8), np.arange(3) / 10, 3)
    wanted = np.load(DATA / "face_api_expression.npy")
    for model in (face_api, face_api / expression.WEIGHTS[0], face_api / expression.MANIFEST[0]):
        made_of = made("expression", model, 2)
        assert (made_of.width, made_of.reads.side, made_of.reads.grey) == (256, 112, False)
        np.testing.assert_allclose(made_of(item), wanted, rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(made("expression", face_api, 1)(item), made_of(item), atol=1e-5)
    assert made_of.recipe()["sha256"] == expression.WEIGHTS[1]


def test_another_file_of_the_expression_net_s_name(tmp_path: Path) -> None:
    for name, _ in (expression.WEIGHTS, expression.MANIFEST):
        (tmp_path / name).write_bytes(b"{}")
    assert line_of("expression", tmp_path).endswith(
        "is another file than that of npm pack @vladmandic/face-api@1.7.15, folder package/model (its sha256 is not "
        "9a9840f2cf1f…)."
    )


def test_the_layers_of_the_expression_net() -> None:
    """Against a naive reader of the same weights, where the original's cannot be had."""
    generator = np.random.default_rng(0)
    weights: dict[str, Any] = {}
    inside = 3
    for block, outside in enumerate((32, 64, 128, 256)):
        for layer in range(4):
            prefix = f"dense{block}/conv{layer}"
            if block == layer == 0:
                weights[f"{prefix}/filters"] = generator.normal(0, 0.2, (3, 3, 3, outside))
            else:
                weights[f"{prefix}/depthwise_filter"] = generator.normal(0, 0.3, (3, 3, inside, 1))
                weights[f"{prefix}/pointwise_filter"] = generator.normal(0, inside**-0.5, (1, 1, inside, outside))
            weights[f"{prefix}/bias"] = generator.normal(0, 0.1, outside)
            inside = outside
    net = expression._Net({name: torch.from_numpy(values).float() for name, values in weights.items()})
    pixels = generator.integers(0, 256, (2, 112, 112, 3)).astype(np.float32)

    def layer_of(values: Any, prefix: str, stride: int) -> Any:
        """TensorFlow's padding: as much as is needed, the odd one at the end."""
        size = -(-values.shape[1] // stride)
        lacking = (size - 1) * stride + 3 - values.shape[1]
        padding = (lacking // 2, lacking - lacking // 2)
        padded = np.pad(values, ((0, 0), padding, padding, (0, 0)))
        whole = weights.get(f"{prefix}/filters")
        found = 0
        for row in range(3):
            for column in range(3):
                piece = padded[:, row : row + stride * size : stride, column : column + stride * size : stride][
                    :, :size, :size
                ]
                if whole is not None:
                    found = found + piece @ whole[row, column]
                else:
                    depth = weights[f"{prefix}/depthwise_filter"][row, column, :, 0]
                    found = found + (piece * depth) @ weights[f"{prefix}/pointwise_filter"][0, 0]
        return found + weights[f"{prefix}/bias"]

    values = (pixels.astype(np.float64) - [122.782, 117.001, 104.298]) / 255
    for block in range(4):
        first = np.maximum(layer_of(values, f"dense{block}/conv0", 2), 0)
        second = layer_of(first, f"dense{block}/conv1", 1)
        third = layer_of(np.maximum(first + second, 0), f"dense{block}/conv2", 1)
        fourth = layer_of(np.maximum(first + second + third, 0), f"dense{block}/conv3", 1)
        values = np.maximum(first + second + third + fourth, 0)
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(pixels)), values.mean((1, 2)), rtol=1e-4, atol=1e-5)
