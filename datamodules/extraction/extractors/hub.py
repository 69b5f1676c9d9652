"""Weights of Hugging Face's models: found on this machine, read without running anything in them, loaded exactly."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datamodules.errors import InputError
from datamodules.extraction.dependencies import quiet_transformers, require
from datamodules.extraction.extractors.ready_made import MODELS, sha256_of, weights_path
from datamodules.text import printable

SIDE_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
"""What is needed beside weights; of a model that is downloaded nothing else is fetched."""

_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_UNUSED = re.compile(r"pooler\.|masked_spec_embed|mask_token|position_ids")
"""Weights that no feature is computed from; checkpoints may lack them."""


@dataclass(frozen=True)
class Pretrained:
    """A model on this machine.

    Attributes:
        who: loads it, for messages.
        model: hub id or folder, as the user gave it.
        folder: it is in.
        from_hub: whether ``model`` is a hub id.
        config: content of its ``config.json``.
        sha256: of the file of weights; of several, of their names and digests.
        files: sha256 of what lies beside the weights, by name.
    """

    who: str
    model: str
    folder: Path
    from_hub: bool
    config: Mapping[str, Any]
    sha256: str
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """Hub id, or name of the folder: no path."""
        return self.model if self.from_hub else self.folder.resolve().name

    def recipe(self) -> dict[str, Any]:
        """Everything of the model that changes a value."""
        return {"model": self.name, "sha256": self.sha256, "files": dict(self.files)}

    def model_type(self, known: tuple[str, ...], what: str) -> str:
        """Its type, which must be one of ``known``.

        Raises:
            InputError: it is another.
        """
        kind = self.config.get("model_type")
        if kind not in known:
            raise InputError(
                f"{self.who}: {printable(self.model)}: is a model of type {printable(kind, 40)}, which is no {what} "
                f"known here: {', '.join(known)}."
            )
        return str(kind)

    def load(self, class_name: str, device: str) -> Any:
        """Load the model in float32 for inference.

        Args:
            class_name: of ``transformers``.
            device: where it runs.

        Raises:
            InputError: weights are missing, damaged, or would have to be run to be read.
        """
        shown = f"{self.who}: {printable(self.model)}"
        is_safe = any((self.folder / name).is_file() for name in _SAFE)
        with quiet_transformers() as transformers:
            try:
                model, loading = getattr(transformers, class_name).from_pretrained(
                    self.folder,
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=is_safe,
                    weights_only=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                )
            except Exception as error:  # of many kinds, from four libraries
                if not is_safe:
                    raise InputError(
                        f"{shown}: its weights are no plain tensors, reading them would run code; "
                        "bring a model.safetensors."
                    ) from error
                raise InputError(f"{shown}: cannot be loaded ({_first_line(error)}).") from error
        missing = sorted(name for name in loading["missing_keys"] if not _UNUSED.search(name))
        if missing or loading["mismatched_keys"]:
            names = missing or sorted(str(key) for key in loading["mismatched_keys"])
            raise InputError(
                f"{shown}: {len(names)} of its weights are missing or of another shape, such as "
                f"{printable(names[0], 80)}."
            )
        return on_device(model.eval(), device, self.who)

    def processor(self, class_name: str) -> Any:
        """Load the tokenizer or the feature extractor that lies beside the weights.

        Raises:
            InputError: it is missing or damaged.
        """
        with quiet_transformers() as transformers:
            try:
                return getattr(transformers, class_name).from_pretrained(
                    self.folder, local_files_only=True, trust_remote_code=False
                )
            except Exception as error:
                raise InputError(
                    f"{self.who}: {printable(self.model)}: its {class_name.removeprefix('Auto').lower()} cannot be "
                    f"loaded ({_first_line(error)})."
                ) from error


def pretrained(model: str, who: str, *, download: bool = False, sha256: str | None = None) -> Pretrained:
    """Find a model on this machine.

    Args:
        model: a folder as ``save_pretrained`` writes it, or an id of huggingface.co, looked for in its cache.
        who: asks, for messages.
        download: fetch what is not here; otherwise no connection is attempted.
        sha256: digest that the weights must have; None: any.

    Raises:
        InputError: it is not here, not complete, or has other weights.
    """
    folder = weights_path(model)
    from_hub = not folder.is_dir()
    if from_hub:
        folder = _cached(model, who, download)
    shown = f"{who}: {printable(model)}"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{shown}: has no config.json that can be read ({_first_line(error)}).") from error
    if not isinstance(config, dict):
        raise InputError(f"{shown}: its config.json is no object.")
    digest = _digest(_weights(folder, shown))
    check_sha256(digest, sha256, shown)
    beside = sorted(path for path in folder.iterdir() if path.is_file() and any(map(path.match, SIDE_FILES)))
    return Pretrained(who, model, folder, from_hub, config, digest, {path.name: sha256_of(path) for path in beside})


def check_sha256(found: str, wanted: str | None, shown: str) -> None:
    """Compare the digest of weights with the one that features were made with.

    Raises:
        InputError: they differ.
    """
    if wanted is not None and found != wanted.lower():
        raise InputError(
            f"{shown}: has other weights than asked for: sha256 {found[:12]}…, not {printable(wanted, 13)}; "
            "bring those, or leave out the option sha256."
        )


def on_device(model: Any, device: str, who: str) -> Any:
    """Move a network to a device.

    Raises:
        InputError: there is no such device here.
    """
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{who}: device {printable(device, 40)!r}: {_first_line(error)}.") from error


@contextmanager
def exact() -> Iterator[None]:
    """Run networks without gradients and, on a GPU, without the convolutions of ten bits that are PyTorch's default."""
    cudnn = torch.backends.cudnn
    with torch.inference_mode(), cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False):
        yield


def _cached(model: str, who: str, download: bool) -> Path:
    """Folder of a model of huggingface.co.

    Raises:
        InputError: it is not in the cache, and ``download`` is not set or fails.
    """
    require("transformers")  # brings the hub's client
    import huggingface_hub as hub
    from huggingface_hub import errors

    shown = f"{who}: {printable(model)}"
    try:
        config = hub.try_to_load_from_cache(model, "config.json")
    except errors.HFValidationError:
        raise InputError(f"{shown}: there is no such folder, nor in a folder of {MODELS}.") from None
    if isinstance(config, str):  # a file may also be known not to be there
        folder = Path(config).parent
        if not download or any((folder / name).is_file() for name in (*_SAFE, *_PICKLED)):
            return folder
    if download:
        return _downloaded(model, shown)
    raise InputError(
        f"{shown}: is no folder, and not in huggingface.co's cache {printable(hub.constants.HF_HUB_CACHE)}; give the "
        f"folder as option model, put it into a folder of {MODELS}, or fetch it with --download."
    )


def _downloaded(model: str, shown: str) -> Path:
    """Fetch a model, after its size is announced.

    Raises:
        InputError: that fails.
    """
    import huggingface_hub as hub

    try:
        listed = hub.HfApi().model_info(model, files_metadata=True).siblings or []
        sizes = {file.rfilename: file.size or 0 for file in listed}
        weights = "*.safetensors*" if {*_SAFE} & {*sizes} else "pytorch_model*.bin*"
        wanted = [
            name
            for name in sizes
            if any(fnmatch.fnmatch(name, like) for like in (*SIDE_FILES, weights)) and "/" not in name
        ]
        size = sum(sizes[name] for name in wanted)
        logging.getLogger("ifmmin").warning(f"{shown}: downloading {_size(size)} from {hub.constants.ENDPOINT}")
        return Path(hub.snapshot_download(model, allow_patterns=wanted))
    except Exception as error:  # of many kinds: the network, the hub, the disk
        raise InputError(f"{shown}: cannot be downloaded ({_first_line(error)}).") from error


def _size(count: int) -> str:
    """``1.3 GB``, ``0.4 MB``."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _weights(folder: Path, shown: str) -> list[Path]:
    """Files of weights, safetensors before all others.

    Raises:
        InputError: there are none, or some are missing.
    """
    name = next((name for name in (*_SAFE, *_PICKLED) if (folder / name).is_file()), None)
    if name is None:
        raise InputError(f"{shown}: has no weights: no {_SAFE[0]} and no {_PICKLED[0]} in {printable(folder)}.")
    if not name.endswith(".json"):
        return [folder / name]
    try:
        listed = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values()
        paths = [folder / part for part in sorted({*map(str, listed)})]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{shown}: {name} cannot be read ({_first_line(error)}).") from error
    gone = [path.name for path in paths if path.parent != folder or not path.is_file()]
    if gone or not paths:
        raise InputError(f"{shown}: lacks {printable(', '.join(gone) or 'all weights')}.")
    return paths


def _digest(paths: list[Path]) -> str:
    if len(paths) == 1:
        return sha256_of(paths[0])
    listed = "".join(f"{path.name} {sha256_of(path)}\n" for path in paths)
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()


def _first_line(error: BaseException) -> str:
    """What an error says first, printable; its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return printable(lines[0].rstrip(" .:"), 120) if lines else type(error).__name__
