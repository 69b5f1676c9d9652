"""CFN-SR's block, LMR-CBT's in code (lf_mcl_lmr_gcnet.npz, tests/data/systems, float64), and the model by rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.cfn_sr import CFNSR, Reading
from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.nn.cross_modal import AdditiveAttention
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_utterances
from tests.systems import below, close, load_system

GOLDEN = load_system("lf_mcl_lmr_gcnet")


def made(**options: Any) -> CFNSR:
    torch.manual_seed(0)
    sizes = {"steps": None, "dim": 8, "heads": 2, "layers": 2, "hidden_dim": 6}
    return CFNSR(feature_dims=list(DIMS), class_names=CLASSES, **sizes | options).double().eval()


@torch.no_grad()
@pytest.mark.parametrize("scaled", [False, True])
def test_the_block_adds_the_weighted_steps(scaled: bool) -> None:
    """x + w x, corrected to a softmax of each row over its own steps, in the mean over steps."""
    parameters, model = below(GOLDEN, "param_lmr_cross/"), made(dim=4, heads=2, scaled=scaled)
    names = {"channel_affine.": "sequence.", "y_affine.": "vector.", "attn_weight_affine.": "score."}
    state = {ours + key: v for theirs, ours in names.items() for key, v in below(parameters, theirs).items()}
    del state["score.bias"]  # of a softmax
    block = model.blocks["audio_visual"]
    assert isinstance(block, AdditiveAttention)
    load_part(block, state, "block")
    x, y = GOLDEN["in_lmr/text"], GOLDEN["in_lmr/other"]
    rows, steps = torch.arange(len(x)), x.shape[1]
    lengths = torch.full((len(x),), steps)
    # Behind the last step there is something that must not be read.
    target = Reading(F.pad(x, (0, 0, 0, 2), value=9.0), lengths, y, x.mean(dim=1), rows)
    source = Reading(y[:, None], torch.ones_like(lengths), y, y, rows)
    added = model.weighed("audio_visual", target, source, rows)
    w = GOLDEN["corrected_lmr/attention_over_time"]
    close(block.weights(x, y), w)
    close(added, (w[..., None] * x).sum(dim=1) if scaled else (w[..., None] * x).mean(dim=1))
    if not scaled:
        close(target.mean + added, GOLDEN["corrected_lmr/residual_weighted_text"].mean(dim=1))


def read_alone(model: CFNSR, frames: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """z and x [T, d] of one utterance's frames [T, D]."""
    convolution, transformer = model.convolutions[name], model.transformers[name]
    assert isinstance(convolution, nn.Conv1d)
    z = F.conv1d(frames.T[None], convolution.weight, convolution.bias, padding=1)[0].T.relu()
    return z, transformer(z[None])[0]


@torch.no_grad()
@pytest.mark.parametrize("scaled", [True, False])
def test_an_answer_row_by_row(scaled: bool) -> None:
    """Every condition of an utterance, from its own frames alone, step by step."""
    model = made(scaled=scaled)
    stored = random_batch(3, seed=4, padding=2)
    batch, _ = under_conditions(stored, CONDITIONS)
    outputs, embeddings = model(batch), model.modality_embeddings(batch)
    for row, (utterance, present) in enumerate(zip(batch.row.tolist(), batch.present, strict=True)):
        shown = [name for m, name in enumerate(MODALITIES) if present[m]]
        read = {
            name: read_alone(model, stored.frames[m][utterance, : stored.lengths[utterance, m]], name)
            for m, name in enumerate(MODALITIES)
            if name in shown
        }
        f, o = torch.zeros(3, 8).double(), torch.zeros(3, 8).double()
        for m, name in enumerate(MODALITIES):
            if name not in shown:
                continue
            z, x = read[name]
            factor = torch.zeros(len(x)).double()
            for source in shown:
                if source == name:
                    continue
                block = model.blocks[f"{source}_{name}"]
                assert isinstance(block, AdditiveAttention)
                y = read[source][1][-1]
                scores = [float(block.score(torch.tanh(block.sequence(step) + block.vector(y)))) for step in x]
                w = np.exp(scores) / np.exp(scores).sum() * (len(x) if scaled else 1)
                factor += torch.from_numpy(w) / (len(shown) - 1)
            f[m], o[m] = (x + factor[:, None] * x).mean(dim=0), z.mean(dim=0)
        close(embeddings[row], f)
        close(outputs[row], model.classifier(torch.cat([f.flatten(), o.flatten()])))


@torch.no_grad()
def test_weights_are_of_a_row_not_of_a_batch() -> None:
    """In the published code the weights of a batch are added up, so that the same utterance twice answers otherwise."""
    model, (one,) = made(), random_utterances(1, seed=3)
    alone = model(batch_of([one]))
    assert torch.allclose(model(batch_of([one] * 3)), alone.expand(3, -1), rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_modality_alone_keeps_what_it_was() -> None:
    """Nothing weighs it: f is the mean of x, whatever the blocks are."""
    model, batch = made(), random_batch(6)
    alone = replace(batch, present=torch.eye(3, dtype=torch.bool).repeat(2, 1))
    before = model(alone)
    for block in model.blocks.parameters():
        block.copy_(torch.randn_like(block))
    assert torch.equal(model(alone), before)
    assert not torch.allclose(model(batch.unmasked()), made()(batch.unmasked()))


@torch.no_grad()
def test_each_pair_and_each_sequence_is_read_once_for_all_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = made(), []
    whole = AdditiveAttention.weights

    def counted(self: AdditiveAttention, x: Tensor, *others: Tensor) -> Tensor:
        read.append(len(x))
        return whole(self, x, *others)

    monkeypatch.setattr(AdditiveAttention, "weights", counted)
    for convolution in model.convolutions.values():
        convolution.register_forward_hook(lambda _, given, __: read.append(len(given[0])))
    batch, _ = under_conditions(random_batch(5), CONDITIONS)
    model(batch)
    assert read == [5] * 9


def gradients(model: CFNSR, batch: Batch) -> dict[str, Tensor]:
    """Gradients by name, of an attention's projection those of queries, keys and values apart."""
    model.total_loss(model.losses(batch)).backward()
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        parts = ("query", "key", "value") if "project" in name else ("",)
        found |= {name + part: grad for part, grad in zip(parts, parameter.grad.chunk(len(parts)), strict=True)}
    return found


def test_no_gradient_is_all_zero() -> None:
    for name, gradient in gradients(made(), random_batch(24, longest=6)).items():
        # Shifting every key by one vector changes no attention.
        assert bool(gradient.abs().max() > 1e-12) != name.endswith("project.biaskey"), name


@pytest.mark.parametrize(
    "options", [{"steps": None}, {"scaled": False}, {"class_names": [], "task": Regression().spec()}]
)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(CFNSR, **({"steps": 4, "dim": 8, "heads": 2, "layers": 1, "hidden_dim": 6} | options))


def test_heads_must_divide_dim() -> None:
    with pytest.raises(InputError, match="heads 3: it must divide dim 8"):
        made(heads=3)
