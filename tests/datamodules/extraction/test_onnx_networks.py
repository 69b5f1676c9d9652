"""Face networks in ONNX files of the user's: onnx, yunet."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import InputError
from datamodules.extraction.extractors import registry, yunet
from datamodules.extraction.media.detectors import Face, FaceDetector
from datamodules.extraction.recipes import Choice
from tests.cli.running import CHECKOUT
from tests.datamodules.extraction.face_networks import built, faces, line_of, made

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, from_array, FLOAT = onnx.helper, onnx.numpy_helper.from_array, onnx.TensorProto.FLOAT
DATA = CHECKOUT / "tests" / "data"


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
