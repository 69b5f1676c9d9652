"""Speech, faces and words through pretrained transformers: hf-speech, hf-vision, hf-text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.extraction.extractor import FRAME_RATE, Absent, FloatArray, Pictures, Reads, Sound, Words
from datamodules.extraction.extractors.hub import Pretrained, exact, pretrained
from datamodules.extraction.extractors.ready_made import file_stem
from datamodules.extraction.media.detectors import version_of
from datamodules.text import printable

SPEECH = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "whisper")
VISION = ("clip", "clip_vision_model", "dinov2", "videomae")
TEXT = ("bert", "roberta", "xlm-roberta", "deberta", "deberta-v2")
"""Types of models, as their ``config.json`` names them."""

_HOP = 320
"""Samples between steps of every speech model here: 50 steps a second."""


class Layers:
    """Which hidden states become features.

    Args:
        text: ``last``, the model's output; or a layer's number, or a slice of them as Python writes it: ``-4:`` are the
            last four, ``0`` is what the first layer reads.
        combine: how several become one.
        count: of hidden states, one more than layers.

    Raises:
        InputError: the text is no slice, or chooses none.
    """

    def __init__(self, text: str, combine: str, count: int, who: str) -> None:
        self.text, self.combine = text, combine
        match = re.fullmatch(r"(-?[0-9]{1,4})?(:)?(-?[0-9]{1,4})?", text)
        if text != "last" and (match is None or not text):
            raise InputError(
                f"{who}: layers must be last, a number or a slice such as -4:, not {printable(text, 40)!r}."
            )
        self._chosen: slice | None = None
        if match is not None and text != "last":
            start, colon, stop = match.groups()
            first = int(start) if start else None
            self._chosen = slice(first, int(stop) if stop else None) if colon else _only(int(text))
            if not range(count)[self._chosen]:
                raise InputError(f"{who}: layers {text} are none of the {count} hidden states.")

    @property
    def suffix(self) -> str:
        """What they add to the name of a feature file; nothing for the model's output."""
        return "" if self.text == "last" else f"-{self.combine}{self.text.replace(':', 'to')}"

    @property
    def hidden(self) -> bool:
        """Whether hidden states are needed."""
        return self._chosen is not None

    def of(self, outputs: Any) -> Tensor:
        """Features [B, T, D] of a model's outputs."""
        if self._chosen is None:
            last: Tensor = outputs.last_hidden_state
            return last
        states = torch.stack(tuple(outputs.hidden_states[self._chosen]))
        return states.sum(0) if self.combine == "sum" else states.mean(0)


def _only(number: int) -> slice:
    return slice(number, number + 1 or None)


class _Transformer:
    """What the three have in common: a model, its layers, where it runs."""

    def _start(self, found: Pretrained, model: Any, layers: str, combine: str, device: str) -> None:
        who = found.who
        count = _layers(model.config) + 1
        self.layers = Layers(layers, combine, count, who)
        self.name = file_stem(found.name.rpartition("/")[2] + self.layers.suffix)
        self.width = int(model.config.hidden_size)
        self._found, self._model, self._device = found, model, torch.device(device)

    def _states(self, **inputs: Tensor) -> Tensor:
        with exact():
            placed = {name: value.to(self._device) for name, value in inputs.items()}
            outputs = self._model(**placed, output_hidden_states=self.layers.hidden, return_dict=True)
            return self._of(outputs).float().cpu()

    def _of(self, outputs: Any) -> Tensor:
        return self.layers.of(outputs)

    def recipe(self) -> dict[str, Any]:
        """Model, its checksums, layers, versions."""
        versions = {name: version_of(name) for name in ("transformers", "torch")}
        return {**versions, **self._found.recipe(), "layers": self.layers.text, "combine": self.layers.combine}


class Speech(_Transformer):
    """Hidden states of wav2vec 2.0, HuBERT, WavLM, data2vec or Whisper's encoder, the mean of five steps each: 10 Hz.

    Sound is normalised as the model's own feature extractor does it. Whisper reads 30 s at a time; what it pads with is
    left out.

    Args:
        model: folder or hub id.
        layers: see :class:`Layers`.
        combine: how several layers become one.
        sha256: digest that the weights must have.
        device: where it runs.
        batch: how many pieces of 30 s Whisper reads at once.
        download: fetch the model if it is not on this machine.

    Raises:
        InputError: see :func:`~datamodules.extraction.extractors.hub.pretrained`.
    """

    modality: Literal["audio", "visual", "text"] = "audio"

    def __init__(
        self,
        model: str,
        layers: str = "last",
        combine: Literal["mean", "sum"] = "mean",
        sha256: str | None = None,
        *,
        device: str = "cpu",
        batch: int = 16,
        download: bool = False,
    ) -> None:
        found = pretrained(model, "hf-speech", download=download, sha256=sha256)
        kind = found.model_type(SPEECH, "speech model")
        self._processor = found.processor("AutoFeatureExtractor")
        network = found.load("AutoModel", device)
        self._is_whisper = kind == "whisper"
        self._start(found, network.encoder if self._is_whisper else network, layers, combine, device)
        self._batch = batch
        self.reads = Reads("sound", sample_rate=int(self._processor.sampling_rate))
        if _hop(network.config, self._processor) != _HOP:
            raise InputError(f"hf-speech: {printable(model)}: has no 50 steps a second, which is what is known here.")

    def __call__(self, item: Sound) -> FloatArray:
        """Compute features [T, D] of sound, T its tenths of a second.

        Raises:
            Absent: it is shorter than what the model reads.
        """
        steps = self._whisper(item.samples) if self._is_whisper else self._plain(item.samples)
        return means(steps.numpy(), item.rate // _HOP // FRAME_RATE)

    def _plain(self, samples: FloatArray) -> Tensor:
        """Steps [T, D]."""
        given = self._processor(samples, sampling_rate=self.reads.sample_rate, return_tensors="pt").input_values
        lengths = self._model._get_feat_extract_output_lengths(torch.tensor(len(samples)))
        if int(lengths) < 1:
            raise Absent("too short for the model")
        return self._states(input_values=given)[0]

    def _whisper(self, samples: FloatArray) -> Tensor:
        """Steps [T, D] of pieces of 30 s."""
        longest = int(self._processor.n_samples)
        pieces = [samples[start : start + longest] for start in range(0, len(samples), longest)]
        found = []
        for start in range(0, len(pieces), self._batch):
            some = pieces[start : start + self._batch]
            given = self._processor(some, sampling_rate=self.reads.sample_rate, return_tensors="pt").input_features
            states = self._states(input_features=given)
            found += [state[: -(-len(piece) // _HOP)] for state, piece in zip(states, some, strict=True)]
        return torch.cat(found)


class Vision(_Transformer):
    """Faces, or whole pictures, through CLIP's or DINOv2's vision model, one at a time, or through VideoMAE.

    CLIP and DINOv2 give the first token, CLIP's after its last normalisation. VideoMAE reads pieces of 16 pictures, the
    last one filled up with its last picture; the mean of the tokens of two pictures is the feature of both.

    Args:
        model: folder or hub id.
        layers: see :class:`Layers`.
        combine: how several layers become one.
        pictures: ``faces``, or ``frames``: the middle of the whole picture.
        sha256: digest that the weights must have.
        device: where it runs.
        batch: how many pictures, or pieces of 16, are read at once.
        download: fetch the model if it is not on this machine.

    Raises:
        InputError: see :func:`~datamodules.extraction.extractors.hub.pretrained`.
    """

    modality: Literal["audio", "visual", "text"] = "visual"

    def __init__(
        self,
        model: str,
        layers: str = "last",
        combine: Literal["mean", "sum"] = "mean",
        pictures: Literal["faces", "frames"] = "faces",
        sha256: str | None = None,
        *,
        device: str = "cpu",
        batch: int = 16,
        download: bool = False,
    ) -> None:
        found = pretrained(model, "hf-vision", download=download, sha256=sha256)
        self._kind = found.model_type(VISION, "vision model").removesuffix("_vision_model")
        network = found.load("CLIPVisionModel" if self._kind == "clip" else "AutoModel", device)
        self._start(found, network, layers, combine, device)
        self._preparation = Preparation(found)
        side = self._preparation.side if self._kind == "dinov2" else None
        self.reads = Reads(pictures, side=side or int(network.config.image_size))
        self._batch = batch

    def __call__(self, item: Pictures) -> FloatArray:
        """Compute features [N, D] of pictures uint8 [N, side, side, 3]."""
        pixels = item.pixels
        if self._kind == "videomae":
            frames = int(self._model.config.num_frames)
            lacking = -len(pixels) % frames
            pixels = np.concatenate([pixels, pixels[-1:].repeat(lacking, 0)])
            pixels = pixels.reshape(-1, frames, *pixels.shape[1:])
        found = [
            self._states(pixel_values=self._preparation(pixels[start : start + self._batch]))
            for start in range(0, len(pixels), self._batch)
        ]
        values: FloatArray = torch.cat(found)[: len(item.pixels)].numpy()
        return values

    def _of(self, outputs: Any) -> Tensor:
        """Features [N, D]."""
        if self._kind == "clip" and not self.layers.hidden:
            pooled: Tensor = outputs.pooler_output
            return pooled
        states = self.layers.of(outputs)
        if self._kind != "videomae":
            return states[:, 0]
        tubes = int(self._model.config.num_frames) // int(self._model.config.tubelet_size)
        tube = states.reshape(-1, states.shape[1] // tubes, states.shape[2]).mean(1)
        return tube.repeat_interleave(int(self._model.config.tubelet_size), 0)

    def recipe(self) -> dict[str, Any]:
        """Model, its checksums, layers, what it is shown, versions."""
        return {**super().recipe(), "reads": self.reads.kind, "side": self.reads.side}


class Text(_Transformer):
    """Token vectors of BERT, RoBERTa or DeBERTa, special tokens included.

    Args:
        model: folder or hub id.
        layers: see :class:`Layers`.
        combine: how several layers become one.
        max_tokens: at most, special tokens included; fewer if the model reads fewer. What follows is cut off.
        sha256: digest that the weights must have.
        device: where it runs.
        download: fetch the model if it is not on this machine.

    Raises:
        InputError: see :func:`~datamodules.extraction.extractors.hub.pretrained`.
    """

    modality: Literal["audio", "visual", "text"] = "text"

    def __init__(
        self,
        model: str,
        layers: str = "last",
        combine: Literal["mean", "sum"] = "mean",
        max_tokens: int = 512,
        sha256: str | None = None,
        *,
        device: str = "cpu",
        download: bool = False,
    ) -> None:
        if max_tokens < 3:
            raise InputError(f"hf-text: max_tokens must be at least 3, it is {max_tokens}.")
        found = pretrained(model, "hf-text", download=download, sha256=sha256)
        kind = found.model_type(TEXT, "text model")
        self._tokenizer = found.processor("AutoTokenizer")
        network = found.load("AutoModel", device)
        self._start(found, network, layers, combine, device)
        positions = int(network.config.max_position_embeddings)
        # RoBERTa numbers its positions from behind that of padding.
        positions -= int(network.config.pad_token_id) + 1 if "roberta" in kind else 0
        self.max_tokens = min(max_tokens, positions, self._tokenizer.model_max_length)
        self.reads = Reads("text")

    def __call__(self, item: Words) -> FloatArray:
        """Compute features [T, D] of a text, T its number of tokens."""
        given = self._tokenizer(item.text, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        values: FloatArray = self._states(**given)[0].numpy()
        return values

    def recipe(self) -> dict[str, Any]:
        """Model, its checksums, layers, length, versions."""
        version = version_of("tokenizers")
        return {**super().recipe(), "tokenizers": version, "max_tokens": self.max_tokens}


class Preparation:
    """Pictures as a vision model reads them, by its ``preprocessor_config.json``; they have its size already.

    Attributes:
        side: pixels of a picture; None if the file names none.

    Raises:
        InputError: the file is missing, or has no mean and deviation of three colours.
    """

    def __init__(self, found: Pretrained) -> None:
        path = found.folder / "preprocessor_config.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self._mean = _colours(content["image_mean"]) if content.get("do_normalize", True) else 0.0
            self._deviation = _colours(content["image_std"]) if content.get("do_normalize", True) else 1.0
            self._factor = float(content.get("rescale_factor", 1 / 255)) if content.get("do_rescale", True) else 1.0
            self.side = _side(content.get("crop_size")) or _side(content.get("size"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{found.who}: {printable(found.model)}: its preprocessor_config.json is missing or names no "
                f"image_mean and image_std ({printable(error, 80)})."
            ) from error

    def __call__(self, pixels: Any) -> Tensor:
        """Float32 [..., 3, side, side] of uint8 [..., side, side, 3]."""
        values = torch.from_numpy(np.ascontiguousarray(pixels)).float() * self._factor
        return ((values - self._mean) / self._deviation).movedim(-1, -3)


def _colours(values: Any) -> Tensor:
    """Three numbers."""
    found = torch.tensor([float(value) for value in values])
    if found.shape != (3,) or not found.isfinite().all():
        raise ValueError("not three numbers")
    return found


def _side(size: Any) -> int | None:
    """Pixels of a side, of ``224``, ``{"height": 224, "width": 224}`` or ``{"shortest_edge": 224}``."""
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge"))
    return size if isinstance(size, int) and 0 < size <= 4096 else None


def _layers(config: Any) -> int:
    return int(getattr(config, "encoder_layers", None) or config.num_hidden_layers)


def _hop(config: Any, processor: Any) -> int:
    """Samples between steps."""
    strides: Sequence[int] | None = getattr(config, "conv_stride", None)
    return int(np.prod(strides)) if strides else 2 * int(processor.hop_length)


def means(steps: FloatArray, count: int) -> FloatArray:
    """Mean of each ``count`` steps [n, D], the last of what is left.

    >>> means(np.array([[1.0], [3.0], [5.0]], np.float32), 2).tolist()
    [[2.0], [5.0]]
    """
    starts = np.arange(0, len(steps), count)
    totals = np.add.reduceat(steps.astype(np.float64), starts, axis=0)
    values: FloatArray = (totals / np.diff([*starts, len(steps)])[:, None]).astype(np.float32)
    return values
