"""Writing a trained model as an ONNX network that answers as its predictor does."""

from __future__ import annotations

import io
import json
import logging
import time
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from datamodules.files import atomic_path, expanded
from datamodules.text import printable
from ifmmin import __version__
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints import load_model
from ifmmin.export.comparing import Comparison, compare
from ifmmin.export.dependencies import require
from ifmmin.export.network import INPUTS, OUTPUT, Network
from ifmmin.export.operators import OPSET, operators
from ifmmin.export.tracing import traceable
from ifmmin.inference import Predictor

TOLERANCE = 1e-5
"""Largest difference between an answer of the network and the predictor's."""

# No two sequences of a modality as long as each other, and every condition that may be met alone.
_EXAMPLE = ((21, 34, 19), (3, 23, 25), (18, 1, 4), (24, 2, 27), (17, 35, 23), (2, 31, 20), (22, 4, 29))


@dataclass(frozen=True)
class Exported:
    """A network that was written.

    Attributes:
        path: the file.
        model: name of the class.
        megabytes: size of the file, in 10^6 bytes.
        export_seconds: to trace and write it.
        comparison: with the predictor.
        metadata: what the file says of itself.
    """

    path: Path
    model: str
    megabytes: float
    export_seconds: float
    comparison: Comparison
    metadata: dict[str, str]


def export_checkpoint(
    checkpoint: str | Path, path: str | Path, model: type[MissingModalityModule] | None = None
) -> Exported:
    """Write a checkpoint that ``fit`` made as an ONNX network; nothing in the checkpoint is executed.

    Args:
        checkpoint: for instance ``runs/.../checkpoints/epoch017.ckpt``, or a folder of ``save_pretrained``.
        path: of the network, ``.onnx``; a file that is there is replaced once the new one was compared.
        model: the class, for a model of your own that is not among the installed ones.

    Raises:
        InputError: as of :meth:`ifmmin.Predictor.load` and :func:`export_model`.
    """
    loaded, trained_on = load_model(checkpoint, model)
    return export_model(loaded, trained_on, path, str(checkpoint))


def export_model(
    model: MissingModalityModule,
    trained_on: Mapping[str, Any],
    path: str | Path,
    source: str = "the checkpoint",
) -> Exported:
    """Write a model as an ONNX network, and compare it with the predictor before it gets its name.

    The network reads ``audio``, ``visual``, ``text`` (float32 [B, T, D], as in the corpus, of a length of their own),
    ``lengths`` (int64 [B, 3]) and ``present`` (bool [B, 3]), and gives ``answers``: probabilities [B, C], or values
    [B, 1].

    Args:
        model: on the CPU; it is set to evaluation.
        trained_on: its checkpoint's record of the training data.
        path: of the network, ``.onnx``.
        source: the checkpoint, for messages.

    Raises:
        InputError: the path has another ending; onnx or onnxruntime is missing; the model is not on the CPU, cannot be
            traced, or its network answers otherwise.
        OSError: the file cannot be written.
    """
    path, name = expanded(path), type(model).__name__
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{printable(path)}: networks are written as .onnx; give a name that ends in it.")
    onnx = require("onnx")
    require("onnxruntime")
    if model.device.type != "cpu":
        raise InputError(f"{name} is on {model.device}: load it on the CPU to export it.")
    predictor = Predictor(model, trained_on, source)
    metadata = describe(model, trained_on)
    with atomic_path(path) as temporary:
        started = time.perf_counter()
        _trace(model, trained_on, temporary)
        written = onnx.load(str(temporary))
        onnx.helper.set_model_props(written, metadata)
        onnx.save(written, str(temporary))
        seconds = time.perf_counter() - started
        try:
            found = compare(predictor, trained_on, temporary)
        except InputError as error:
            raise InputError(f"{name} cannot be exported: {error}") from error
        if not found.difference <= TOLERANCE:
            where = f"under {{{','.join(found.condition)}}}, at lengths {list(found.frames)}"
            raise InputError(
                f"{name} cannot be exported: {where}, the network and the model differ by {found.difference:.1e}, more "
                f"than {TOLERANCE:.0e}; nothing was written."
            )
        size = temporary.stat().st_size / 1e6
    return Exported(path, name, size, seconds, found, metadata)


def describe(model: MissingModalityModule, trained_on: Mapping[str, Any]) -> dict[str, str]:
    """What a network says of itself: text, and JSON of what is not text. Orders are those of columns."""
    plain = {
        "format": "ifmmin",
        "model": type(model).__name__,
        "task": model.task.name,
        "corpus": str(trained_on.get("name", model.corpus)),
        "fingerprint": str(trained_on.get("fingerprint", "")),
    }
    structured = {
        "task_options": model.task.spec(),
        "classes": list(model.class_names),
        "modalities": list(MODALITIES),
        "widths": list(model.feature_dims),
        "features": list(trained_on.get("feature_names", [])),
        "extraction": trained_on.get("extraction", {}),
        "normalization": list(trained_on["normalization"]),
        "conditions": [condition for condition in CONDITIONS if model.answers(condition)],
        "fold": trained_on.get("fold"),
        "versions": {"ifmmin": __version__, "torch": str(torch.__version__), "onnx_operators": OPSET},
    }
    return plain | {key: json.dumps(value, ensure_ascii=False, default=str) for key, value in structured.items()}


def _trace(model: MissingModalityModule, trained_on: Mapping[str, Any], path: Path) -> None:
    """Trace the model and write it.

    The tracing exporter, not that of torch.export, which unrolls an LSTM over the example's length, and follows no row
    or frame whose place depends on values.
    """
    network = Network(model, trained_on).eval()
    axes = {name: {0: "batch", 1: f"{name}_frames"} for name in MODALITIES}
    axes |= {name: {0: "batch"} for name in ("lengths", "present", OUTPUT)}
    log, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    log.setLevel(logging.CRITICAL)
    try:
        with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(io.StringIO()), traceable(model), operators():
            warnings.simplefilter("ignore")  # of sizes that a trace fixes: the comparison finds those that matter
            torch.onnx.export(
                network,
                _example(model),
                str(path),
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # somebody else's code may fail in any way
        line = printable(str(error).partition("\n")[0], 200)
        raise InputError(
            f"{type(model).__name__} cannot be exported: it cannot be traced ({type(error).__name__}: {line})."
        ) from error
    finally:
        log.setLevel(level)


def _example(model: MissingModalityModule) -> tuple[Tensor, ...]:
    """Utterances of every condition that the model answers, of different lengths, with padding behind all of them."""
    conditions = [condition for condition in CONDITIONS if model.answers(condition)]
    lengths = torch.tensor(_EXAMPLE)
    present = torch.tensor([present_under(conditions[row % len(conditions)]) for row in range(len(_EXAMPLE))])
    generator = torch.Generator().manual_seed(0)
    longest = (lengths.max(dim=0).values + 1).tolist()
    frames = [
        torch.randn(len(_EXAMPLE), steps, width, generator=generator)
        for steps, width in zip(longest, model.feature_dims, strict=True)
    ]
    return *frames, lengths, present
