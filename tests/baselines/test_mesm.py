"""MESM's selection against lf_mcl_lmr_gcnet.npz (tests/data/systems, float64), and the model row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.mesm import MESM, SELECTED, SparseBlock, top_mass
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.systems import close, load_system

GOLDEN = load_system("lf_mcl_lmr_gcnet")
LENGTHS = torch.tensor([7, 1, 5, 9])


def made(**options: Any) -> MESM:
    torch.manual_seed(0)
    sizes = {"dim": 8, "heads": 2, "blocks": 2, "text_channels": 8, "threshold": 0.6}
    return MESM(feature_dims=list(DIMS), class_names=CLASSES, **sizes | options).double().eval()


def true_steps() -> Tensor:
    return torch.arange(9) < LENGTHS[:, None]


def random_weights(seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(4, 9).double().mul(3).masked_fill(~true_steps(), -torch.inf).softmax(dim=1)


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_published_selection(threshold: float) -> None:
    """Of all positions of an attention map [H, W] together."""
    weights = GOLDEN["in_mesm/attention"].flatten(1)
    chosen = top_mass(weights, torch.ones_like(weights, dtype=torch.bool), threshold)
    assert torch.equal(chosen.long(), GOLDEN[f"out_mesm/selected_cdf_{threshold}"].flatten(1))


def fewest(weights: list[float], threshold: float) -> list[bool]:
    """The smallest set of largest weights whose sum reaches the threshold, one after the other."""
    chosen, mass = [False] * len(weights), 0.0
    while mass < threshold and not all(chosen):
        best = max((place for place, each in enumerate(chosen) if not each), key=lambda place: weights[place])
        chosen[best] = True
        mass += weights[best]
    return chosen


@pytest.mark.parametrize("threshold", [1e-9, 0.3, 0.8, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_the_fewest_of_the_largest_weights_reach_the_threshold(threshold: float, seed: int) -> None:
    weights = random_weights(seed)
    chosen = top_mass(weights, true_steps(), threshold)
    for row, length in enumerate(LENGTHS.tolist()):
        assert chosen[row].tolist() == fewest(weights[row, :length].tolist(), threshold) + [False] * (9 - length)


def test_a_smaller_threshold_keeps_fewer_and_1_keeps_all() -> None:
    weights, before = random_weights(0), torch.zeros(4, 9, dtype=torch.bool)
    for threshold in (0.01, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0):
        chosen = top_mass(weights, true_steps(), threshold)
        assert bool((chosen | ~before).all())  # whatever a smaller threshold keeps
        before = chosen
    counts = [int(top_mass(weights, true_steps(), threshold).sum()) for threshold in (0.01, 0.5, 0.9, 1.0)]
    assert counts[0] == len(LENGTHS)
    assert counts == sorted(set(counts))
    assert torch.equal(before, true_steps())
    tiny = torch.tensor([[1.0, 1e-30, 0.0]])  # their sum is 1 after the first
    assert top_mass(tiny, tiny >= 0, 1.0).all()


def test_a_row_selects_alone() -> None:
    weights, true = random_weights(1), true_steps()
    together = top_mass(weights, true, 0.7)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = top_mass(weights[[row], :length], true[[row], :length], 0.7)
        assert torch.equal(alone[0], together[row, :length])


def test_of_equal_weights_the_first_are_kept() -> None:
    assert (
        top_mass(torch.full((1, 8), 0.125), torch.ones(1, 8, dtype=torch.bool), 0.5)[0].tolist()
        == [True] * 4 + [False] * 4
    )


def block_and_steps() -> tuple[SparseBlock, Tensor, Tensor]:
    torch.manual_seed(0)
    block = SparseBlock(8, 2, 0.1).double().eval()
    with torch.no_grad():
        block.attention.score.weight.mul_(10)  # so that few steps have most of the weight
    return block, torch.randn(4, 9, 8).double(), torch.randn(4, 8).double()


def test_steps_that_are_not_selected_do_not_matter_for_what_follows() -> None:
    block, x, y = block_and_steps()
    kept, _ = block.select(x, LENGTHS, y, 0.5)
    x.requires_grad_()
    found, lengths = block(x, LENGTHS, y, 0.5)
    (gradient,) = torch.autograd.grad(found.pow(2).sum(), x)
    assert bool((~kept & true_steps()).any())
    assert float(gradient[~kept].abs().max()) == 0
    assert bool((gradient[kept].abs().amax(dim=1) > 0).all())
    assert lengths.tolist() == kept.sum(dim=1).tolist()
    # Other values that are not selected either, to the bit.
    with torch.no_grad():
        other = torch.where(kept[..., None], x, x + 0.02 * torch.randn_like(x))
        assert torch.equal(block.select(other, LENGTHS, y, 0.5)[0], kept)
        assert torch.equal(block(other, LENGTHS, y, 0.5)[0], found)


def test_the_attention_that_selects_learns() -> None:
    """The published selection is a mask without a gradient; ours weighs what it keeps."""
    block, x, y = block_and_steps()
    block(x, LENGTHS, y, 0.5)[0].pow(2).sum().backward()
    for name, parameter in block.attention.named_parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) > 1e-9, name


def sinusoids(steps: int, dim: int) -> Tensor:
    place, rate = np.arange(1, steps + 1)[:, None], 1e4 ** (-np.arange(dim // 2) / (dim // 2 - 1))
    return torch.from_numpy(np.concatenate([np.sin(place * rate), np.cos(place * rate)], axis=1))


def selected_alone(model: MESM, name: str, frames: Tensor, query: Tensor) -> tuple[Tensor, float]:
    """The vector [d] of one utterance's frames [T, D] and the share of them that is left, block by block."""
    convolution, blocks, norm = model.convolutions[name], model.blocks[name], model.norms[name]
    assert isinstance(convolution, nn.Conv1d) and isinstance(blocks, nn.ModuleList)
    x = F.conv1d(frames.T[None], convolution.weight, convolution.bias, padding=1)[0].T.relu()
    x = x + sinusoids(len(x), 8)
    for block in blocks:
        assert isinstance(block, SparseBlock)
        attention = block.attention
        scores = [attention.score(torch.tanh(attention.sequence(step) + attention.vector(query))) for step in x]
        weights = torch.cat(scores).softmax(dim=0)
        chosen = torch.tensor(fewest(weights.tolist(), model.threshold))
        shares = weights[chosen] / weights[chosen].sum()
        x = block.layer((x[chosen] * (shares * len(shares))[:, None])[None], None, None)[0]
    vector: Tensor = norm(x).mean(dim=0)
    return vector, len(x) / len(frames)


@torch.no_grad()
def test_an_answer_row_by_row() -> None:
    """Every condition of an utterance, from its own frames alone."""
    model = made()
    stored = random_batch(4, seed=4, padding=2)
    batch, _ = under_conditions(stored, CONDITIONS)
    model.learnt["weights"].copy_(torch.tensor([0.5, 2.0, 1.5]))
    outputs, embeddings, values = model(batch), model.modality_embeddings(batch), model.row_values(batch)
    assert [*values] == ["kept_audio", "kept_visual"]
    dropped = 0
    for row, (utterance, present) in enumerate(zip(batch.row.tolist(), batch.present.tolist(), strict=True)):
        frames = [stored.frames[m][utterance, : stored.lengths[utterance, m]] for m in range(3)]
        expected, answer = torch.zeros(3, 8).double(), torch.zeros(4).double()
        query = model.learnt["query"]
        if present[2]:
            query = expected[2] = model.text(frames[2][None])[0]
        for m, name in enumerate(MODALITIES):
            if present[m] and name in SELECTED:
                expected[m], share = selected_alone(model, name, frames[m], query)
                close(values[f"kept_{name}"][row], torch.tensor(share).double())
                dropped += share < 1
            elif name in SELECTED:
                assert bool(values[f"kept_{name}"][row].isnan())
            if present[m]:
                answer += model.learnt["weights"][m] * model.heads[name](expected[m])
        close(embeddings[row], expected)
        close(outputs[row], answer)
    assert dropped > 10


@torch.no_grad()
def test_text_selects_and_so_changes_what_is_read_of_the_others() -> None:
    """The weights of audio and visual frames differ between utterances that differ in their text alone."""
    model, batch = made(threshold=0.3), random_batch(6, longest=9, seed=1).unmasked()
    before = model.modality_embeddings(batch)
    batch.frames[2].neg_()
    after = model.modality_embeddings(batch)
    for m in range(len(SELECTED)):
        assert bool(((after - before)[:, m].abs().amax(dim=1) > 1e-9).any())


@torch.no_grad()
def test_a_sequence_is_read_once_with_its_text_and_once_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = made(blocks=1), []
    whole = SparseBlock.forward

    def counted(self: SparseBlock, x: Tensor, *others: Any) -> Any:
        read.append(len(x))
        return whole(self, x, *others)

    monkeypatch.setattr(SparseBlock, "forward", counted)
    batch, _ = under_conditions(random_batch(5), CONDITIONS)
    model(batch)
    assert read == [10, 10]


def test_no_gradient_is_all_zero() -> None:
    model, batch = made(threshold=0.8), random_batch(24)
    model.total_loss(model.losses(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        parts = dict(zip(("query", "key", "value"), parameter.grad.chunk(3), strict=True)) if "project" in name else {}
        for part, gradient in parts.items() or [("", parameter.grad)]:
            # Shifting every key by one vector changes no attention.
            assert bool(gradient.abs().max() > 1e-12) != ("bias" in name and part == "key"), (name, part)


OPTIONS: list[dict[str, Any]] = [
    {"steps": 4},
    {"threshold": 1.0},
    {"threshold": 0.01},
    {"class_names": [], "task": Regression().spec()},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(MESM, **({"dim": 8, "heads": 2, "blocks": 1, "text_channels": 8} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": 3}, "heads 3: it must divide dim 8"), ({"threshold": 0.0}, "threshold 0"), ({"threshold": 1.5}, "1.5")],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(**options)
