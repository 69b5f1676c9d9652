"""Parity of TFN and LMF with the published code (tests/data/systems/tfn_lmf.npz, float64), and their own parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import baselines.tensor_fusion
from baselines.tensor_fusion import LMF, TFN, LastStateNetwork, MeanNetwork, VectorFusion
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.systems import State, below, close, load_system

GOLDEN = load_system("tfn_lmf")
SMALL: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES, "widths": [3, 2, 4]}
REGRESSION: dict[str, Any] = {"task": {"name": "regression", "low": -3, "high": 3}, "class_names": []}


def published_network(parameters: State, modality: str) -> nn.Module:
    """A sub-network with the published weights, but for the norm of the mean frame."""
    part = below(parameters, {"audio": "audio_subnet.", "visual": "video_subnet.", "text": "text_subnet."}[modality])
    width, input_dim = part["linear_1.weight"].shape
    if modality == "text":
        text = LastStateNetwork(part["rnn.weight_ih_l0"].shape[1], input_dim, width, dropout=0.3).double().eval()
        renamed = {key.replace("rnn.", "rnn.rnn.").replace("linear_1", "linear"): v for key, v in part.items()}
        load_part(text, renamed, modality)
        return text
    mean = MeanNetwork(input_dim, width, dropout=0.3).double().eval()
    names = {f"linear_{place + 1}.{kind}": f"{2 * place}.{kind}" for place in range(3) for kind in ("weight", "bias")}
    load_part(mean.layers, {ours: part[theirs] for theirs, ours in names.items()}, modality)
    return mean


@pytest.mark.parametrize("part", ["tfn", "lmf"])
@torch.no_grad()
def test_sub_networks(part: str) -> None:
    parameters = below(GOLDEN, f"param_{part}/")
    for modality, theirs in (("audio", "audio"), ("visual", "video")):
        norm = below(parameters, f"{theirs}_subnet.norm.")
        statistics = norm["running_mean"], norm["running_var"]
        # Theirs is batch normalisation, ours a LayerNorm: the layers behind it are compared.
        normed = F.batch_norm(GOLDEN[f"in/{modality}_mean"], *statistics, norm["weight"], norm["bias"])
        network = published_network(parameters, modality)
        assert isinstance(network, MeanNetwork)
        close(network.layers(normed), GOLDEN[f"out/{part}/h_{modality}"])
    frames = GOLDEN["in/text"]
    close(published_network(parameters, "text")(frames, torch.full((4,), 6)), GOLDEN[f"out/{part}/h_text"])


@torch.no_grad()
def test_tfn_answers_as_published() -> None:
    parameters = below(GOLDEN, "param_tfn/")
    model = TFN(**SMALL | REGRESSION, hidden_dims=[8, 8]).double().eval()
    names = {"1": "hidden.0", "2": "hidden.3", "3": "output"}
    state = {
        f"{ours}.{kind}": parameters[f"post_fusion_layer_{layer}.{kind}"]
        for layer, ours in names.items()
        for kind in ("weight", "bias")
    }
    load_part(model.classifier, state, "classifier")
    close(model.classifier.hidden(GOLDEN["out/tfn/tensor"]), GOLDEN["out/tfn/hidden"])
    logit = model.fuse([GOLDEN[f"out/tfn/h_{name}"] for name in ("audio", "visual", "text")])
    close(logit, GOLDEN["out/tfn/logit_before_sigmoid"])
    close(6 * logit.sigmoid() - 3, GOLDEN["out/tfn/prediction"])


@torch.no_grad()
def test_lmf_answers_as_published() -> None:
    parameters = below(GOLDEN, "param_lmf/")
    model = LMF(**SMALL | {"widths": [3, 2, 3], "class_names": CLASSES[:3]}).double().eval()
    state = {f"factors.{m}": parameters[f"{name}_factor"] for m, name in enumerate(("audio", "video", "text"))}
    state |= {"weights": parameters["fusion_weights"][0], "bias": parameters["fusion_bias"][0]}
    load_part(model.fusion, state, "fusion")
    close(model.fuse([GOLDEN[f"out/lmf/h_{name}"] for name in ("audio", "visual", "text")]), GOLDEN["out/lmf/output"])


@torch.no_grad()
def test_the_mean_is_over_true_frames_and_the_state_that_of_the_last() -> None:
    torch.manual_seed(0)
    frames, lengths = torch.randn(3, 6, 4).double(), torch.tensor([6, 1, 4])
    frames = frames * (torch.arange(6) < lengths[:, None])[..., None]
    mean, last = MeanNetwork(4, 3, 0.3).double().eval(), LastStateNetwork(4, 5, 3, 0.3).double().eval()
    for row, length in enumerate(lengths.tolist()):
        true = frames[row, :length]
        x = true.numpy().mean(axis=0)
        for place, layer in enumerate(mean.layers):
            if isinstance(layer, nn.Linear):
                x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) if place == 0 else x
                x = np.maximum(layer.weight.numpy() @ x + layer.bias.numpy(), 0)
        np.testing.assert_allclose(mean(frames, lengths)[row], x, atol=1e-12)
        states = last.rnn.rnn(true[:, None])[0]
        torch.testing.assert_close(last(frames, lengths)[row], last.linear(states[-1, 0]))


@pytest.mark.parametrize("model", [TFN, LMF])
def test_the_losses_row_by_row(model: type[VectorFusion]) -> None:
    torch.manual_seed(0)
    made, batch = model(**SMALL).double().eval(), random_batch(12)
    losses, whole = made.losses(batch), made(batch.unmasked())
    shown = made(batch)
    for name, outputs in (("cls", shown), ("complete", whole)):
        entropies = [-outputs[row].log_softmax(0)[label] for row, label in enumerate(batch.label.tolist())]
        torch.testing.assert_close(losses[name], torch.stack(entropies).mean())
    masked = model(**SMALL, lambda_complete=0.0).double().eval()
    masked.load_state_dict(made.state_dict())
    assert masked.losses(batch).keys() == {"cls"} and not masked.needs.hidden_frames
    torch.testing.assert_close(masked.losses(batch)["cls"], losses["cls"])


@torch.no_grad()
def test_without_a_modality_tfn_is_the_tensor_fusion_of_the_two_others() -> None:
    """The same model, of audio and text alone, from the weights of their sub-tensor."""
    torch.manual_seed(0)
    model = TFN(**SMALL).double().eval()
    a, v, t = (torch.randn(7, width).double() for width in (3, 2, 4))
    first = model.classifier.hidden[0]
    assert isinstance(first, nn.Linear)
    weight = first.weight.unflatten(1, (4, 3, 5))[:, :, 0]
    one = torch.ones(7, 1).double()
    two = torch.einsum("bi,bj->bij", torch.cat([one, a], dim=1), torch.cat([one, t], dim=1))
    hidden = torch.einsum("oij,bij->bo", weight, two) + first.bias
    expected = model.classifier.output(model.classifier.hidden[1:](hidden))
    torch.testing.assert_close(model.fuse([a, 0 * v, t]), expected)


@torch.no_grad()
def test_few_tensors_in_memory_at_once_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = TFN(**SMALL).double().eval(), random_batch(8)
    together = model(batch)
    monkeypatch.setattr(baselines.tensor_fusion, "ROWS", 3)
    torch.testing.assert_close(model(batch), together)


@pytest.mark.parametrize("model", [TFN, LMF])
def test_the_contract_without_complete_utterances(model: type[VectorFusion]) -> None:
    check_model(model, widths=[3, 2, 4], lambda_complete=0.0)


def test_widths_that_are_not_three_are_refused() -> None:
    with pytest.raises(InputError, match="widths"):
        LMF(**SMALL | {"widths": [8]})


def test_an_absent_modality_is_zeros() -> None:
    torch.manual_seed(0)
    model, batch = LMF(**SMALL | {"widths": [16, 16, 16]}).double().eval(), random_batch(12)
    h: list[Tensor] = model.embeddings(batch)
    for m, each in enumerate(h):
        assert (each[~batch.present[:, m]] == 0).all() and (each[batch.present[:, m]] != 0).any(dim=1).all()
