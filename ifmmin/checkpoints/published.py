"""Reading the released checkpoints of the published MMIN and IF-MMIN code.

The published code saves one state dict per network, ``<epoch>_net_<NET>.pth`` with NET in A, V, L
(encoders), AE, AE_cycle (MMIN's cascades), IFIM, C (classifier), Shared or invariant (invariance
encoder). It concatenates embeddings in the order audio, text, visual; ours is audio, visual, text,
so the weights that read or write h are reordered on the way in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.errors import InputError
from ifmmin.checkpoints.reading import load_safely

State = dict[str, Tensor]


_FILE = re.compile(r"(?P<epoch>\w+)_net_(?P<net>[A-Za-z_]+)\.pth")


_ENCODER_NAMES = {"A": "audio", "V": "visual", "L": "text"}


def _reorder(weight: Tensor, width: int, dim: int) -> Tensor:
    """Turn blocks in the published order (audio, text, visual)* along ``dim`` into ours."""
    blocks = weight.split(width, dim=dim)
    ours = [blocks[first + step] for first in range(0, len(blocks), 3) for step in (0, 2, 1)]
    return torch.cat(ours, dim=dim)


def _renamed(state: Mapping[str, Tensor], pattern: str, name: str) -> State:
    """Rename keys by a regular expression; a key that does not match is an error."""
    renamed = {}
    for key, value in state.items():
        if not re.fullmatch(pattern, key):
            raise InputError(f"unknown parameter {key!r}")
        renamed[re.sub(pattern, name, key)] = value
    return renamed


def convert_encoder(state: Mapping[str, Tensor]) -> State:
    """A published A, V (LSTM) or L (TextCNN) network, under our names."""
    if not any(key.startswith("conv") for key in state):
        return _renamed(state, r"(rnn\.\w+)", r"\1")
    ours: State = {}
    for key, value in state.items():
        if match := re.fullmatch(r"conv(\d)\.(weight|bias)", key):
            # Conv2d [out, 1, width, dim] over a one-channel picture is Conv1d [out, dim, width].
            kernel = value.squeeze(1).transpose(1, 2) if match[2] == "weight" else value
            ours[f"convolutions.{int(match[1]) - 1}.{match[2]}"] = kernel
        else:
            ours |= _renamed({key: value}, r"embd\.0\.(weight|bias)", r"output.\1")
    return ours


_SHARED_FORMS = {1: "leaky_relu", 2: "leaky_relu", 4: "sigmoid"}
"""Activation of the public forms of the shared encoder, by their number of linear layers."""


def convert_invariance(state: Mapping[str, Tensor]) -> State:
    """A published Shared (invariant) network of any of its forms, under our names."""
    ours: State = {}
    for key, value in state.items():
        match = re.fullmatch(r"netshared\.shared_([1-9])\.(weight|bias)", key)
        if match is None:
            raise InputError(f"unknown parameter {key!r}")
        # Ours has an activation and a dropout behind each linear layer.
        ours[f"layers.{3 * (int(match[1]) - 1)}.{match[2]}"] = value
    layers = len(_widths(ours, "layers."))
    if layers not in _SHARED_FORMS:
        raise InputError(f"{layers} linear layers, but its public forms have 1, 2 or 4")
    return ours


def convert_cascade(state: Mapping[str, Tensor], embedding_dim: int) -> State:
    """A published AE, AE_cycle or IFIM network, under our names and in our order of modalities."""
    ours: State = {}
    last = max(int(key.split(".")[1]) for key in state if key.startswith("decoder_0."))
    for key, value in state.items():
        if match := re.fullmatch(r"(encoder|decoder)_(\d+)\.(\d+)\.(weight|bias)", key):
            side, block, layer, kind = match.groups()
            if side == "encoder" and layer == "0" and kind == "weight":
                value = _reorder(value, embedding_dim, dim=1)
            if side == "decoder" and int(layer) == last:
                value = _reorder(value, embedding_dim, dim=0)
            ours[f"blocks.{block}.{side}.{layer}.{kind}"] = value
        else:
            renamed = _renamed({key: value}, r"transition\.([02])\.(weight|bias)", r"head.\1.\2")
            name = next(iter(renamed))
            if name == "head.0.weight":
                value = _reorder(value, embedding_dim, dim=1)
            if name.startswith("head.2."):
                value = _reorder(value, embedding_dim, dim=0)
            ours[name] = value
    return ours


def convert_classifier(state: Mapping[str, Tensor], embedding_dim: int | None = None) -> State:
    """A published C network, under our names.

    Args:
        state: its parameters.
        embedding_dim: E for a stage-1 classifier, which reads h or [h; H] and so depends on the
            order of modalities; None for one that reads the codes of a cascade.
    """
    ours = _renamed(state, r"(?:module\.(\d+)|(fc_out))\.(weight|bias)", r"hidden.\1\2.\3")
    ours = {key.replace("hidden.fc_out.", "output."): value for key, value in ours.items()}
    if embedding_dim is not None:
        first = min(ours, key=lambda key: (not key.startswith("hidden"), key))
        name = first.rsplit(".", 1)[0] + ".weight"
        ours[name] = _reorder(ours[name], embedding_dim, dim=1)
    return ours


def read_published(folder: str | Path, epoch: str | None = None) -> dict[str, State]:
    """Read the networks of a released checkpoint of the published code.

    Args:
        folder: with ``<epoch>_net_<NET>.pth`` files.
        epoch: which of the saved epochs; needed only if the folder has several.

    Returns:
        state dicts by network name, ``invariant`` under its newer name ``Shared``.

    Raises:
        InputError: no such files, several epochs and none chosen, or a file that cannot be read.
    """
    folder = Path(folder)
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*_net_*.pth")):
        if match := _FILE.fullmatch(path.name):
            found.setdefault(match["epoch"], {})[match["net"]] = path
    if not found:
        raise InputError(f"{folder}: no <epoch>_net_<NET>.pth files of the published code there.")
    if epoch is None:
        if len(found) > 1:
            raise InputError(f"{folder}: several epochs ({', '.join(found)}); give one, or leave only one there.")
        (epoch,) = found
    if epoch not in found:
        raise InputError(f"{folder}: no epoch {epoch}; there are {', '.join(found)}.")
    networks = {net: _load_network(path) for net, path in found[epoch].items()}
    if "invariant" in networks:
        networks["Shared"] = networks.pop("invariant")
    return networks


def _load_network(path: Path) -> State:
    """The state dict in a file."""
    state = load_safely(path, legacy=True)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: not the parameters of a network; a state dict of tensors is expected.")
    return {str(name): value for name, value in state.items()}


def published_parts(
    networks: Mapping[str, Mapping[str, Tensor]], stage: int, source: str | Path = "published checkpoint"
) -> dict[str, State]:
    """The networks of the published code under our names of parts, for ``load_state_dict``.

    Args:
        networks: state dicts by published name, from :func:`read_published`.
        stage: 1 where the classifier reads h or [h; H], 2 where it reads the codes of a cascade.
        source: where they come from, for messages.

    Returns:
        state dicts of ``encoders`` and, where published, ``invariance``, ``imagination``,
        ``cycle`` and ``classifier``.

    Raises:
        InputError: an encoder is missing, or a network is not of the published architecture.
    """
    missing = [net for net in _ENCODER_NAMES if net not in networks]
    if missing:
        raise InputError(f"{source}: no network {', '.join(missing)}; A, V and L are all needed.")

    def converted(net: str, convert: Callable[..., State], *options: Any) -> State:
        try:
            return convert(networks[net], *options)
        except (InputError, LookupError, ValueError, RuntimeError) as error:
            raise InputError(f"{source}: network {net} is not of the published architecture ({error}).") from error

    encoders = {
        f"{ours}.{key}": value
        for net, ours in _ENCODER_NAMES.items()
        for key, value in converted(net, convert_encoder).items()
    }
    if "audio.rnn.weight_hh_l0" not in encoders:
        raise InputError(f"{source}: network A is not of the published architecture (no LSTM).")
    width = encoders["audio.rnn.weight_hh_l0"].shape[1]
    parts = {"encoders": encoders}
    if "Shared" in networks:
        parts["invariance"] = converted("Shared", convert_invariance)
    for net, ours in {"IFIM": "imagination", "AE": "imagination", "AE_cycle": "cycle"}.items():
        if net in networks:
            parts[ours] = converted(net, convert_cascade, width)
    if "C" in networks:
        parts["classifier"] = converted("C", convert_classifier, width if stage == 1 else None)
    return parts


def read_published_parts(folder: str | Path, stage: int, epoch: str | None = None) -> dict[str, State]:
    """:func:`read_published` and :func:`published_parts` in one."""
    return published_parts(read_published(folder, epoch), stage, folder)


def published_architecture(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """The hyperparameters of a stage-2 model that the shapes of its parameters tell.

    Args:
        parts: ``encoders``, ``imagination`` and ``classifier`` from :func:`published_parts`, perhaps ``invariance``.

    Returns:
        ``feature_dims``, ``embedding_dim``, ``text_channels``, ``blocks``, ``block_dims`` and
        ``hidden_dims``; with ``invariance`` also ``invariance_layers`` and ``invariance_activation``.

    Raises:
        KeyError: a parameter of the published architecture is not there.
    """
    encoders, cascade, classifier = parts["encoders"], parts["imagination"], parts["classifier"]
    shared: dict[str, Any] = {}
    if "invariance" in parts:
        layers = len(_widths(parts["invariance"], "layers."))
        shared = {"invariance_layers": layers, "invariance_activation": _SHARED_FORMS[layers]}
    return shared | {
        "feature_dims": [
            encoders["audio.rnn.weight_ih_l0"].shape[1],
            encoders["visual.rnn.weight_ih_l0"].shape[1],
            encoders["text.convolutions.0.weight"].shape[1],
        ],
        "embedding_dim": encoders["audio.rnn.weight_hh_l0"].shape[1],
        "text_channels": encoders["text.convolutions.0.weight"].shape[0],
        "blocks": len({key.split(".")[1] for key in cascade if key.startswith("blocks.")}),
        "block_dims": _widths(cascade, "blocks.0.encoder."),
        "hidden_dims": _widths(classifier, "hidden."),
    }


def _widths(state: Mapping[str, Tensor], prefix: str) -> list[int]:
    """The output widths of the linear layers ``<prefix><position>.weight``, in order."""
    name = re.compile(re.escape(prefix) + r"(\d+)\.weight")
    positions = sorted(int(match[1]) for key in state if (match := name.fullmatch(key)))
    return [state[f"{prefix}{position}.weight"].shape[0] for position in positions]
