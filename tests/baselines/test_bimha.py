"""BIMHA's definitions (tests/data/papers/bimha.npz, float64), and that pairs are weighed against each other."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.bimha import BIMHA, NAMES, PAIRS, Features, PairAttention, PairToken, available_pairs
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.systems import below, close, load_system

GOLDEN = load_system("bimha", "papers")
PRESENT, AVAILABLE = GOLDEN["in/present"], GOLDEN["out/pair_available"]
SMALL: dict[str, Any] = {
    "embedding_dim": 8, "pair_dim": 3, "token_dim": 4, "heads": 2, "hidden_dim": 6, "text_channels": 4
}  # fmt: skip


def made(**options: Any) -> BIMHA:
    torch.manual_seed(0)
    given: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES}
    return BIMHA(**(given | SMALL | options)).double().eval()


def golden_model() -> BIMHA:
    model, given = made(), below(GOLDEN, "in/")
    for pair, weight, bias in zip(model.pairs.values(), given["pair_weight"], given["pair_bias"], strict=True):
        pair.load_state_dict({"linear.weight": weight, "linear.bias": bias})
    names = {"out_proj.weight": "out_proj_weight", "out_proj.bias": "out_proj_bias"}
    state = {name: given[names.get(name, name)] for name in model.attention.attention.state_dict()}
    model.attention.attention.load_state_dict(state)
    return model


def golden_tokens(model: BIMHA) -> Tensor:
    """Of every pair, of those that are not there as well: u holds numbers that must not matter."""
    u = GOLDEN["in/utterance"]
    return torch.stack([pair(u[:, m], u[:, n]) for (m, n), pair in zip(PAIRS, model.pairs.values(), strict=True)], 1)


@torch.no_grad()
def test_tokens_and_attention() -> None:
    model = golden_model()
    tokens = golden_tokens(model)
    assert torch.equal(available_pairs(PRESENT), AVAILABLE)
    close(tokens.where(AVAILABLE[..., None], 0.0), GOLDEN["out/pair_av_at_vt"].where(AVAILABLE[..., None], 0.0))
    attended = model.attention(tokens, AVAILABLE)
    close(attended.tokens, GOLDEN["out/residual"])
    close(attended.weights, GOLDEN["out/attention"])


@torch.no_grad()
def test_what_the_head_reads() -> None:
    model = golden_model()
    close(model.fuse(Features(GOLDEN["in/utterance"], golden_tokens(model)), PRESENT), GOLDEN["out/fused"])


@torch.no_grad()
def test_a_token_is_bilinear() -> None:
    torch.manual_seed(0)
    pair, u, v, w = PairToken(3, 5).double(), *torch.randn(3, 4, 3).double()
    b = pair.linear.bias
    close(pair(2 * u, v) - b, 2 * (pair(u, v) - b))
    close(pair(u, -3 * v) - b, -3 * (pair(u, v) - b))
    close(pair(u, v + w) - b, pair(u, v) + pair(u, w) - 2 * b)
    close(pair(u, v), F.bilinear(u, v, pair.linear.weight.view(5, 3, 3), b))


@torch.no_grad()
def test_attention_sums_to_1_over_the_pairs_that_are_there() -> None:
    torch.manual_seed(0)
    attention, tokens = PairAttention(4, 2).double(), torch.randn(8, 3, 4).double()
    available = torch.tensor([[row & 1, row & 2, row & 4] for row in range(8)]) > 0
    attended = attention(tokens, available)
    close(attended.weights.sum(dim=3), available[:, :, None].expand(-1, -1, 2).double())
    assert bool((attended.weights.transpose(1, 3)[~available] == 0).all())
    assert bool((attended.tokens[~available] == 0).all())
    # What is not there may be anything.
    others = attention(tokens.where(available[..., None], torch.nan), available)
    assert torch.equal(others.tokens, attended.tokens)


@torch.no_grad()
@pytest.mark.parametrize("order", [list(order) for order in permutations(range(3))])
def test_permuted_pairs_give_permuted_tokens(order: list[int]) -> None:
    torch.manual_seed(0)
    attention, tokens = PairAttention(4, 2).double(), torch.randn(6, 3, 4).double()
    available = torch.tensor([[True] * 3, [True, True, False], [False, True, True]] * 2)
    attended, permuted = attention(tokens, available), attention(tokens[:, order], available[:, order])
    close(permuted.tokens, attended.tokens[:, order])
    close(permuted.weights, attended.weights[:, order][..., order])


def token(model: BIMHA, place: int, u: Tensor, v: Tensor) -> Tensor:
    """W (u ⊗ v) + b of one pair of vectors [D]."""
    pair = model.pairs[NAMES[place]]
    assert isinstance(pair, PairToken)
    return pair.linear.weight @ torch.outer(u, v).flatten() + pair.linear.bias


@torch.no_grad()
def test_an_answer_row_by_row() -> None:
    """Every condition of an utterance, from its own frames and the plain definition, pair by pair and head by head."""
    model, stored = made(), random_batch(3, seed=4, padding=2)
    batch, _ = under_conditions(stored, CONDITIONS)
    outputs, received = model(batch), model.pair_attention(batch)
    layer = model.attention.attention
    for row, (utterance, present) in enumerate(zip(batch.row.tolist(), batch.present, strict=True)):
        u = torch.zeros(3, 3).double()
        for m, (encoder, project) in enumerate(zip(model.encoders.encoders(), model.projections.values(), strict=True)):
            if present[m]:
                u[m] = project(encoder(stored.frames[m][utterance, None, : stored.lengths[utterance, m]]))[0]
        there = [place for place, (m, n) in enumerate(PAIRS) if present[m] and present[n]]
        q, weights = torch.zeros(3, 4).double(), torch.zeros(3).double()
        if there:
            p = torch.stack([token(model, place, u[PAIRS[place][0]], u[PAIRS[place][1]]) for place in there])
            parts = (p @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, dim=1)
            heads = []
            for query, key, value in zip(*(part.chunk(2, dim=1) for part in parts), strict=True):
                A = (query @ key.T / 2**0.5).softmax(dim=1)
                weights[there] += A.mean(dim=0) / 2
                heads.append(A @ value)
            q[there] = p + layer.out_proj(torch.cat(heads, dim=1))
        close(outputs[row], model.head(torch.cat([u.flatten(), q.flatten()])))
        close(received[row], weights)


@torch.no_grad()
def test_a_pair_is_computed_once_for_all_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    read: list[int] = []
    whole = PairToken.forward

    def counted(self: PairToken, u: Tensor, v: Tensor) -> Tensor:
        read.append(len(u))
        return whole(self, u, v)

    monkeypatch.setattr(PairToken, "forward", counted)
    batch, _ = under_conditions(random_batch(5), CONDITIONS)
    model(batch)
    assert read == [5, 5, 5]


@torch.no_grad()
def test_losses_are_of_rows_and_of_complete_utterances() -> None:
    model, batch = made(lambda_complete=0.5), random_batch(12)
    losses = model.losses(batch)
    close(losses["cls"], F.cross_entropy(model(batch), batch.labels))
    close(losses["complete"], F.cross_entropy(model(batch.unmasked()), batch.labels))
    close(model.total_loss(losses), losses["cls"] + 0.5 * losses["complete"])
    assert [*made(lambda_complete=0.0).losses(batch)] == ["cls"]


def gradients(model: BIMHA) -> dict[str, float]:
    """The largest value of each parameter's gradient; queries, keys and values apart."""
    model.total_loss(model.losses(random_batch(12))).backward()
    found: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        blocks = zip(("query", "key", "value"), parameter.grad.chunk(3), strict=True)
        parts = dict(blocks) if "in_proj" in name else {"": parameter.grad}
        found |= {f"{name} {part}".strip(): float(gradient.abs().max()) for part, gradient in parts.items()}
    return found


def test_no_gradient_is_all_zero() -> None:
    zero = [name for name, largest in gradients(made()).items() if largest < 1e-9]
    # Shifting every key by one vector changes no attention.
    assert zero == ["attention.attention.in_proj_bias key"]


def test_masked_utterances_alone_train_no_query_and_no_key() -> None:
    zero = {name for name, largest in gradients(made(lambda_complete=0.0)).items() if largest < 1e-9}
    blocks = [f"attention.attention.in_proj_{kind} {part}" for kind in ("weight", "bias") for part in ("query", "key")]
    assert zero == set(blocks)


@pytest.mark.parametrize(
    "options", [{"lambda_complete": 0.0}, {"heads": 1}, {"class_names": [], "task": Regression().spec()}]
)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(BIMHA, **(SMALL | options))


def test_heads_must_divide_the_tokens() -> None:
    with pytest.raises(InputError, match="heads 3: it must divide token_dim 4"):
        made(heads=3)


@torch.no_grad()
def test_the_attention_of_each_pair_is_a_column_of_predictions() -> None:
    model, batch = made(), under_conditions(random_batch(4), CONDITIONS)[0]
    values = model.row_values(batch)
    assert [*values] == [f"pair_attention_{pair}" for pair in ("audio_visual", "audio_text", "visual_text")]
    table, available = torch.stack([*values.values()], dim=1), available_pairs(batch.present)
    assert torch.equal(table.isnan(), ~available)
    close(table.nansum(dim=1), available.any(dim=1).double())
    weights = table[batch.present.all(dim=1)]
    assert len(weights) == 4
    assert bool((weights.max(dim=1).values - weights.min(dim=1).values > 1e-4).all())
