"""CMGA's definitions (tests/data/papers/cmga.npz, float64), and that its gate forgets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.cmga import CMGA, PAIRS, GatedAttention
from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.linear_gaussian.generator import LinearGaussianCorpus
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_present
from tests.systems import close, load_system

GOLDEN = load_system("cmga", "papers")
LENGTHS = (GOLDEN["in/source_lengths"], GOLDEN["in/target_lengths"])


def golden_attention() -> GatedAttention:
    module = GatedAttention(4).double()
    state = {name: GOLDEN[f"in/{name.replace('.', '_')}"] for name in module.state_dict()}
    module.load_state_dict(state)
    return module


def made(**options: Any) -> CMGA:
    torch.manual_seed(0)
    given: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES, "dim": 8, "heads": 2, "hidden_dim": 6}
    return CMGA(**(given | options)).double().eval()


@torch.no_grad()
def test_gated_attention() -> None:
    found = golden_attention()(GOLDEN["in/source"], GOLDEN["in/target"], *LENGTHS)
    close(found.h, GOLDEN["out/interaction"])
    for row, length in enumerate(LENGTHS[1].tolist()):
        close(found.gate[row, :length], GOLDEN["out/gate"][row, :length])
    assert bool(((found.gate > 0) & (found.gate < 1)).all())


@torch.no_grad()
def test_a_shut_gate_forgets_the_source_and_an_open_one_adds_it() -> None:
    module, target = golden_attention(), GOLDEN["in/target"]
    true = (torch.arange(3) < LENGTHS[1][:, None])[..., None]
    module.gate.bias.fill_(-torch.inf)
    assert torch.equal(module(GOLDEN["in/source"], target, *LENGTHS).h, target.relu() * true)
    module.gate.bias.fill_(torch.inf)
    mixed = GOLDEN["out/attended"] @ GOLDEN["in/mix_weight"].T + GOLDEN["in/mix_bias"]
    close(module(GOLDEN["in/source"], target, *LENGTHS).h, (target + mixed).relu() * true)


@torch.no_grad()
def test_padding_of_the_source_does_not_matter() -> None:
    module, source = golden_attention(), GOLDEN["in/source"].clone()
    source[1, 2:] = 1e3
    source = F.pad(source, (0, 0, 0, 4), value=-1e3)
    close(module(source, GOLDEN["in/target"], *LENGTHS).h, GOLDEN["out/interaction"])


def attended(x: Tensor, model: CMGA) -> Tensor:
    """Self-attention of one sequence [S, d], head by head."""
    query, key, value = (x @ model.attention.project.weight.T + model.attention.project.bias).chunk(3, dim=1)
    heads = [
        (q @ k.T / k.shape[1] ** 0.5).softmax(dim=1) @ v
        for q, k, v in zip(*(part.chunk(model.attention.heads, dim=1) for part in (query, key, value)), strict=True)
    ]
    mixed: Tensor = model.attention.output(torch.cat(heads, dim=1))
    return mixed


def sinusoid(steps: int, dim: int) -> Tensor:
    place, rate = np.arange(1, steps + 1)[:, None], 1e4 ** (-np.arange(dim // 2) / (dim // 2 - 1))
    return torch.from_numpy(np.concatenate([np.sin(place * rate), np.cos(place * rate)], axis=1))


@torch.no_grad()
def test_an_answer_row_by_row() -> None:
    """Every condition of an utterance, from plain convolutions of its own frames alone."""
    model = made()
    stored = random_batch(3, seed=4, padding=2)
    batch, _ = under_conditions(stored, CONDITIONS)
    outputs = model(batch)
    for row, (utterance, present) in enumerate(zip(batch.row.tolist(), batch.present, strict=True)):
        shown = [name for m, name in enumerate(MODALITIES) if present[m]]
        z, h = {}, {name: torch.zeros(8).double() for name in MODALITIES}
        for m, name in enumerate(MODALITIES):
            if name in shown:
                frames = stored.frames[m][utterance, : stored.lengths[utterance, m]]
                convolution = model.convolutions[name]
                assert isinstance(convolution, nn.Conv1d)
                x = F.conv1d(frames.T[None], convolution.weight, convolution.bias, padding=1)[0].T
                h[name], z[name] = x.mean(dim=0), x + sinusoid(len(x), 8)
        parts = [*z.values()] if len(shown) == 1 else []
        for source, target in PAIRS:
            if source in shown and target in shown:
                pair = model.pairs[f"{source}_{target}"]
                assert isinstance(pair, GatedAttention)
                weights = (pair.query(z[target]) @ pair.key(z[source]).T / 8**0.5).softmax(dim=1)
                A = weights @ pair.value(z[source])
                gate = pair.gate(torch.cat([A, z[target]], dim=1)).sigmoid()
                parts.append((z[target] + pair.mix(A) * gate).relu())
        u = attended(torch.cat(parts), model).mean(dim=0)
        close(outputs[row], model.head(torch.cat([u, *h.values()])))


@torch.no_grad()
def test_a_pair_is_computed_once_for_all_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = made(), []
    whole = GatedAttention.forward

    def counted(self: GatedAttention, source: Tensor, *others: Tensor) -> Any:
        read.append(len(source))
        return whole(self, source, *others)

    monkeypatch.setattr(GatedAttention, "forward", counted)
    batch, _ = under_conditions(random_batch(5), CONDITIONS)
    model(batch)
    assert read == [5, 5, 5]


def test_no_gradient_is_all_zero() -> None:
    model, batch = made(), random_batch(12)
    model.total_loss(model.losses(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        # Shifting every key by one vector changes no attention.
        parts = dict(zip(("query", "key", "value"), parameter.grad.chunk(3), strict=True)) if "project" in name else {}
        for part, gradient in parts.items() or [("", parameter.grad)]:
            assert bool(gradient.abs().max() > 1e-9) != ("bias" in name and part == "key"), (name, part)


@pytest.mark.parametrize("options", [{"steps": 4}, {"heads": 1}, {"class_names": [], "task": Regression().spec()}])
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(CMGA, **({"dim": 8, "heads": 2, "hidden_dim": 6} | options))


def test_heads_must_divide_dim() -> None:
    with pytest.raises(InputError, match="heads 3: it must divide dim 8"):
        made(heads=3)


@torch.no_grad()
def test_mean_gates_of_each_row_are_columns_of_predictions() -> None:
    model, batch = made(), random_batch(8)
    values = model.row_values(batch)
    tokens, pairs = model.interactions(batch)
    assert [*values] == ["gate_audio_text", "gate_visual_text", "gate_audio_visual"]
    for source, target in PAIRS:
        m, n = MODALITIES.index(source), MODALITIES.index(target)
        for row, mean in enumerate(values[f"gate_{source}_{target}"]):
            gate = pairs[f"{source}_{target}"].gate[row, : tokens[n].lengths[row]]
            shown = batch.present[row, m] and batch.present[row, n]
            if shown:
                close(mean, gate.mean())
            assert bool(mean.isnan()) != bool(shown)


def corpus(size: int, noise: bool, seed: int) -> Batch:
    """Utterances like the built-in corpus's; with ``noise`` the audio is another utterance's, its nuisance trebled."""
    audio, visual, text = LinearGaussianCorpus().views
    views = (replace(audio, nuisance=(3 if noise else 1) * audio.nuisance), visual, text)
    rng = np.random.default_rng(seed)
    sample = LinearGaussianCorpus(views=views).sample(size, rng)
    audios, visuals, texts = (np.split(each.values, each.offsets[1:-1]) for each in sample.frames)
    if noise:
        audios = [audios[place] for place in rng.permutation(size)]
    batch = batch_of([*zip(audios, visuals, texts, strict=True)], dtype=torch.float32)
    return replace(batch, labels=torch.from_numpy(sample.labels))


def audio_gate(noise: bool) -> tuple[float, float]:
    """The mean gate of both pairs with audio as source, on a test split, before and after training."""
    train, test = corpus(2048, noise, seed=1), corpus(256, noise, seed=2)
    torch.manual_seed(0)
    model = CMGA(feature_dims=[frames.shape[2] for frames in train.frames], class_names=CLASSES, dim=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    @torch.no_grad()
    def found() -> float:
        values = model.eval().row_values(test)
        return float(torch.cat([values["gate_audio_text"], values["gate_audio_visual"]]).mean())

    before = found()
    model.train()
    for step in range(100):
        rows = torch.randint(2048, (64,))
        few = replace(train, row=rows, present=torch.from_numpy(random_present(64, step)))
        optimizer.zero_grad()
        model.total_loss(model.losses(few)).backward()
        optimizer.step()
    return before, found()


def test_the_gate_of_a_source_of_noise_falls_more_than_that_of_an_informative_one() -> None:
    (before, after), (_, informative) = audio_gate(noise=True), audio_gate(noise=False)
    assert after < min(before, informative) - 0.005
