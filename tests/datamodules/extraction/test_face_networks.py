"""Face networks from files of the user's: onnx, yunet, denseface, expression."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from datamodules.errors import InputError
from datamodules.extraction.extractor import Pictures
from datamodules.extraction.extractors import expression, registry, yunet
from datamodules.extraction.extractors.denseface import DenseNet
from datamodules.extraction.media.detectors import Face, FaceDetector
from datamodules.extraction.recipes import Choice
from tests.cli.running import CHECKOUT

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, from_array, FLOAT = onnx.helper, onnx.numpy_helper.from_array, onnx.TensorProto.FLOAT
DATA = CHECKOUT / "tests" / "data"


def faces(count: int, side: int, grey: bool = False) -> Pictures:
    shape = (count, side, side) if grey else (count, side, side, 3)
    pixels = np.random.default_rng(count).integers(0, 256, shape, np.uint8)
    return Pictures("one", pixels, np.arange(count) / 10, count)


def made(kind: str, model: Path, batch: int = 16, **options: Any) -> Any:
    return registry.build(Choice(kind, {"model": str(model), **options}), "visual", batch=batch)


def line_of(kind: str, model: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        made(kind, model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# onnx.

RANDOM = np.random.default_rng(0)
KERNEL = {colours: RANDOM.standard_normal((4, colours, 3, 3)).astype(np.float32) for colours in (1, 3)}
MATRIX = RANDOM.standard_normal((4, 6)).astype(np.float32)


def save_network(path: Path, colours: int, shape: list[Any] | None = None, kind: int = FLOAT) -> None:
    """Convolution, ReLU (``inner``), mean over height and width, one layer (``logits``)."""
    nodes = [
        helper.make_node("Conv", ["face", "kernel"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["inner"]),
        helper.make_node("GlobalAveragePool", ["inner"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("face", kind, shape or ["N", colours, 12, 12])
    first = (shape or ["N"])[0]
    answer = helper.make_tensor_value_info("logits", kind, [first, 6])
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = [
        from_array(values.astype(dtype), name) for name, values in {"kernel": KERNEL[colours], "matrix": MATRIX}.items()
    ]
    graph = helper.make_graph(nodes, "net", [given], [answer], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def naive(pixels: Any, colours: int) -> tuple[Any, Any]:
    """Mean of ``inner`` and ``logits``, pixel by pixel in float64; pixels [N, side, side, colours]."""
    inner = np.zeros((len(pixels), 4, 10, 10))
    for row in range(10):
        for column in range(10):
            piece = pixels[:, row : row + 3, column : column + 3].astype(np.float64)
            inner[:, :, row, column] = np.einsum("nhwc,kchw->nk", piece, KERNEL[colours].astype(np.float64))
    pooled = np.maximum(inner, 0).mean((2, 3))
    return pooled, pooled @ MATRIX


@pytest.mark.parametrize("shape", [["N", 1, 12, 12], [1, 1, 12, 12]])
def test_a_grey_network_s_output(tmp_path: Path, shape: list[Any]) -> None:
    """As FER+'s, which reads one face of 64x64 at a time."""
    save_network(tmp_path / "my net.onnx", 1, shape)
    item = faces(5, 12, grey=True)
    for batch in (1, 2, 16):
        made_of = made("onnx", tmp_path / "my net.onnx", batch)
        assert (made_of.width, made_of.name, made_of.reads.side, made_of.reads.grey) == (6, "my-net", 12, True)
        np.testing.assert_allclose(made_of(item), naive(item.pixels[..., None], 1)[1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("bgr", [False, True])
def test_a_tensor_inside_of_a_colour_network(tmp_path: Path, bgr: bool) -> None:
    save_network(tmp_path / "net.onnx", 3)
    item = faces(5, 12)
    options = {"output": "inner", "mean": "127.5, 120,110", "deviation": "64", "bgr": bgr}
    made_of = made("onnx", tmp_path / "net.onnx", 2, **options)
    assert (made_of.width, made_of.name, made_of.reads.grey) == (4, "net-inner", False)
    values = (item.pixels - np.array([127.5, 120, 110])) / 64
    wanted = naive(values[..., ::-1] if bgr else values, 3)[0]
    np.testing.assert_allclose(made_of(item), wanted, rtol=1e-4, atol=1e-4)


def test_every_name_of_a_tensor_can_be_asked_for(tmp_path: Path) -> None:
    save_network(tmp_path / "net.onnx", 1)
    for name, width in {"logits": 6, "flat": 4, "pooled": 4, "convolved": 4}.items():
        assert made("onnx", tmp_path / "net.onnx", output=name).width == width
    model = onnx.load(tmp_path / "net.onnx")
    long = "x" * 300  # its length takes two bytes
    for node in model.graph.node:
        node.output[:] = [long if name == "flat" else name for name in node.output]
        node.input[:] = [long if name == "flat" else name for name in node.input]
    onnx.save(model, tmp_path / "long.onnx")
    assert made("onnx", tmp_path / "long.onnx", output=long).width == 4


def test_the_recipe_of_a_network(tmp_path: Path) -> None:
    save_network(tmp_path / "net.onnx", 1)
    digest = hashlib.sha256((tmp_path / "net.onnx").read_bytes()).hexdigest()
    recipe = made("onnx", tmp_path / "net.onnx", 3, sha256=digest).recipe()
    assert (recipe["model"], recipe["sha256"], recipe["output"]) == ("net.onnx", digest, "logits")
    assert recipe == json.loads(json.dumps(made("onnx", tmp_path / "net.onnx", 5).recipe()))
    assert "has other weights than asked for" in line_of("onnx", tmp_path / "net.onnx", sha256="0" * 64)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output": "outer"}, "has no tensor 'outer', or cannot be opened ("),
        ({"mean": "1,2"}, "mean must be one number, or 1 joined by commas, not '1,2'"),
        ({"mean": "grey"}, "mean must be one number"),
        ({"deviation": "nan"}, "deviation must be one number"),
        ({"deviation": "0"}, "deviation must not be 0"),
    ],
)
def test_wrong_options_of_a_network(tmp_path: Path, options: dict[str, str], said: str) -> None:
    save_network(tmp_path / "net.onnx", 1)
    assert said in line_of("onnx", tmp_path / "net.onnx", **options)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([2, 1, 12, 12], "its input is [2, 1, 12, 12], not [N, 1 or 3, side, side]"),
        (["N", 1, 12, 13], "its input is ['N', 1, 12, 13], not"),
        (["N", 1, "H", "W"], "its input is ['N', 1, 'H', 'W'], not"),
    ],
)
def test_a_network_of_another_input(tmp_path: Path, shape: list[Any], said: str) -> None:
    save_network(tmp_path / "net.onnx", 1, shape)
    assert said in line_of("onnx", tmp_path / "net.onnx")


@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"no network at all", pickle.dumps({})])
def test_a_file_that_is_no_network(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    for kind in ("onnx", "yunet"):
        with pytest.raises(InputError, match=rf"^{kind}: {tmp_path}/net.onnx: [^\n]*$"):
            built(kind, tmp_path / "net.onnx")


def built(kind: str, model: Path, **options: Any) -> Any:
    choice = Choice(kind, {"model": str(model), **options})
    return registry.build_detector(choice) if kind == "yunet" else registry.build(choice, "visual")


@pytest.mark.parametrize("kind", ["onnx", "yunet", "denseface", "expression"])
def test_a_file_that_is_not_there(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=rf"^{kind}: {tmp_path}/[^\n]* is not there; (give|bring)"):
        built(kind, tmp_path / "gone" / "net.onnx")


def test_a_device_that_onnxruntime_has_not(tmp_path: Path) -> None:
    save_network(tmp_path / "net.onnx", 1)
    with pytest.raises(InputError, match="onnx: device 'tpu' is none that this onnxruntime can use"):
        registry.build(Choice("onnx", {"model": str(tmp_path / "net.onnx")}), "visual", device="tpu")


# yunet.


def save_detector(path: Path, size: tuple[int, int] | None, answers: dict[str, Any]) -> None:
    """A network that answers the same of every picture, plus how blue its first pixel is times 0."""
    shape = [1, 3, *(size or ("H", "W"))]
    nodes, outputs, weights = [], [], []
    for name, values in answers.items():
        nodes.append(helper.make_node("Identity", [f"{name}_stored"], [name]))
        outputs.append(helper.make_tensor_value_info(name, FLOAT, values.shape))
        weights.append(from_array(values.astype(np.float32), f"{name}_stored"))
    nodes.append(helper.make_node("Identity", ["input"], ["seen"]))
    outputs.append(helper.make_tensor_value_info("seen", FLOAT, shape))
    given = helper.make_tensor_value_info("input", FLOAT, shape)
    graph = helper.make_graph(nodes, "net", [given], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def answers(height: int, width: int, seed: int = 0) -> dict[str, Any]:
    """Random answers of YuNet's nine tensors that the detector reads, few of them sure."""
    random = np.random.default_rng(seed)
    found = {}
    for stride in (8, 16, 32):
        cells = height // stride * (width // stride)
        found[f"cls_{stride}"] = random.uniform(-0.2, 1.2, (1, cells, 1))
        found[f"obj_{stride}"] = random.uniform(-0.2, 1.2, (1, cells, 1))
        found[f"bbox_{stride}"] = random.normal(0, 0.7, (1, cells, 4))
    return found


def naive_faces(found: dict[str, Any], width: int, threshold: float, scale: float) -> list[Face]:
    """Cell by cell, then box by box."""
    boxes = []
    for stride in (8, 16, 32):
        columns = width // stride
        for cell in range(found[f"cls_{stride}"].shape[1]):
            sure = min(max(float(found[f"cls_{stride}"][0, cell, 0]), 0), 1)
            there = min(max(float(found[f"obj_{stride}"][0, cell, 0]), 0), 1)
            score = (sure * there) ** 0.5
            x, y, log_width, log_height = found[f"bbox_{stride}"][0, cell]
            wide, high = np.exp(log_width) * stride, np.exp(log_height) * stride
            left = (cell % columns + x) * stride - wide / 2
            top = (cell // columns + y) * stride - high / 2
            if score >= threshold:
                boxes.append(Face(left * scale, top * scale, wide * scale, high * scale, score))
    kept: list[Face] = []
    for box in sorted(boxes, key=lambda face: -face.score):
        for other in kept:
            across = min(box.left + box.width, other.left + other.width) - max(box.left, other.left)
            down = min(box.top + box.height, other.top + other.height) - max(box.top, other.top)
            shared = max(across, 0) * max(down, 0)
            if shared > 0.3 * (box.width * box.height + other.width * other.height - shared):
                break
        else:
            kept.append(box)
    return kept


def close(found: Sequence[Face], wanted: list[Face]) -> None:
    assert len(found) == len(wanted) > 3
    for one, other in zip(found, wanted, strict=True):
        assert vars(one) == pytest.approx(vars(other), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(
    ("size", "picture", "scale"),
    [((64, 96), (64, 96), 1.0), ((64, 96), (40, 50), 1.0), ((64, 96), (128, 192), 2.0), (None, (60, 90), 1.0)],
)
def test_boxes_are_those_of_a_naive_reader(
    tmp_path: Path, size: tuple[int, int] | None, picture: tuple[int, int], scale: float
) -> None:
    found = answers(64, 96)
    save_detector(tmp_path / "net.onnx", size, found)
    made_of = built("yunet", tmp_path / "net.onnx", threshold=0.6)
    assert isinstance(made_of, FaceDetector)
    assert (made_of.name, made_of.grey) == ("yunet", False)
    close(made_of(np.zeros((*picture, 3), np.uint8)), naive_faces(found, 96, 0.6, scale))


def test_the_picture_is_given_as_bgr_above_left(tmp_path: Path) -> None:
    save_detector(tmp_path / "net.onnx", (64, 96), answers(64, 96))
    made_of = built("yunet", tmp_path / "net.onnx")
    seen: list[Any] = []
    session = made_of._session

    class Spy:
        def run(self, names: list[str], given: dict[str, Any]) -> Any:
            seen.append(session.run(["seen"], given)[0])
            return session.run(names, given)

    made_of._session = Spy()
    picture = np.random.default_rng(0).integers(1, 256, (40, 50, 3), np.uint8)
    made_of(picture)
    np.testing.assert_array_equal(seen[0][0, :, :40, :50], picture[..., ::-1].transpose(2, 0, 1))
    assert not seen[0][0, :, 40:].any()
    assert not seen[0][0, :, :, 50:].any()


def test_a_picture_without_a_face_has_none(tmp_path: Path) -> None:
    found = answers(64, 96)
    save_detector(tmp_path / "net.onnx", (64, 96), {name: np.zeros_like(values) for name, values in found.items()})
    assert built("yunet", tmp_path / "net.onnx")(np.zeros((64, 96, 3), np.uint8)) == []


def test_another_network_is_no_yunet(tmp_path: Path) -> None:
    save_network(tmp_path / "net.onnx", 3)
    for wrong in ({}, {"threshold": 1.5}, {"sha256": "0" * 64}):
        with pytest.raises(InputError, match=r"^yunet: [^\n]*(is no YuNet|must be in 0..1|has other weights)"):
            built("yunet", tmp_path / "net.onnx", **wrong)


def test_the_overlap_of_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 5, 5], [0, 0, 10, 4]], float)
    assert yunet.best_of_overlapping(boxes, np.array([0.5, 0.9, 0.7, 0.95])) == [3, 1, 2]
    assert yunet.best_of_overlapping(boxes[:0], np.zeros(0)) == []


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
