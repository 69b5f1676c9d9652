"""EMT-DLFR's parity with its published code (tests/data/systems/emt_dlfr.npz, float64), and its own parts.

The published code masks keys; the same without what is masked must give the same, so that each row is read alone, at
its true length. What it computes behind a length means nothing, and is not compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.emt import EMT
from baselines.emt.networks import (
    AttentionPool,
    Attraction,
    MutualPromotion,
    MutualPromotionUnit,
    RecurrentFrames,
    sinusoids,
)
from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.conditions import per_modality
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.nn.heads import Classifier
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.systems import State, below, close, load_system

GOLDEN = load_system("emt_dlfr")
PARAMETERS = below(GOLDEN, "param/")
ORDER = ("text", "audio", "visual")
"""Of the published global tokens."""
NETWORK = {"audio": "audio_model", "visual": "video_model"}
VIEWS = ("complete", "incomplete")


def renamed(state: State, names: dict[str, str]) -> State:
    return {f"{ours}.{key}": value for theirs, ours in names.items() for key, value in below(state, theirs).items()}


def unit_state() -> State:
    attention = {"fn.to_q.": "query", "fn.to_kv.": "key_value", "fn.to_out.": "output"}
    first, second, last = (below(PARAMETERS, f"fusion.mpus.0.0.0.layers.0.{place}.") for place in range(3))
    return {
        **renamed(first, {theirs: f"cross.{ours}" for theirs, ours in attention.items()}),
        **renamed(first, {"norm.": "norm", "norm_context.": "norm_context"}),
        **renamed(second, {theirs: f"itself.{ours}" for theirs, ours in attention.items()}),
        **renamed(second, {"norm.": "norm_self"}),
        **renamed(last, {"norm.": "norm_feedforward", "fn.net.0.": "feedforward.hidden"}),
        **renamed(last, {"fn.net.2.": "feedforward.output"}),
    }


def pool_state() -> State:
    return renamed(below(PARAMETERS, "fusion.attn_pools.0.attention."), {"0.": "score.0", "2.": "score.2"})


def fusion() -> MutualPromotion:
    dim, heads, layers, expansion = (
        int(GOLDEN[f"const/{name}"]) for name in ("d_model", "heads", "layers", "ff_expansion")
    )
    made = MutualPromotion(dim, heads, layers, expansion).double().eval()
    state = {f"unit.{key}": value for key, value in unit_state().items()}
    load_part(made, state | {f"pool.{key}": value for key, value in pool_state().items()}, "fusion")
    return made


def encoder(name: str) -> RecurrentFrames:
    width, hidden = PARAMETERS[f"{NETWORK[name]}.linear_1.weight"].shape
    made = RecurrentFrames(GOLDEN[f"in/{name}"].shape[2], hidden, width).double()
    state = below(PARAMETERS, f"{NETWORK[name]}.")
    load_part(made, renamed(state, {"rnn.": "rnn", "linear_1.": "linear"}), name)
    return made


def lengths(name: str) -> list[int]:
    key = "text_lengths_without_cls_sep" if name == "text" else f"{name}_lengths"
    counts: list[int] = GOLDEN[f"in/{key}"].tolist()
    return counts


def encoded(name: str, view: str, row: int) -> tuple[Tensor, Tensor]:
    """Frames [1, length, E] and utterance vector [1, E] of one row."""
    length = lengths(name)[row]
    if name == "text":
        tokens = GOLDEN[f"in/text_{view}"][row : row + 1]
        return tokens[:, 1 : 1 + length], tokens[:, 0]
    frames = GOLDEN[f"in/{name}{'' if view == 'complete' else '_incomplete'}"][row : row + 1, :length]
    found: tuple[Tensor, Tensor] = encoder(name)(frames)
    return found


def fused(view: str, row: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """[u_t; u_a; u_v], G and X_m of one row."""
    parts = {name: encoded(name, view, row) for name in ORDER}
    project = {name: PARAMETERS[f"proj_{name.replace('visual', 'video')}.weight"] for name in ORDER}
    tokens = torch.stack([F.linear(parts[name][1], project[name]) for name in ORDER], dim=1)
    positions = sinusoids(16, 8)
    frames = [F.linear(parts[name][0], project[name]) + positions[: lengths(name)[row]] for name in ORDER]
    tokens, frames = fusion()(tokens, frames, [torch.tensor([0])] * 3)
    u = torch.cat([parts[name][1] for name in ORDER], dim=1)
    return u, tokens, dict(zip(ORDER, frames, strict=True))


def test_positions() -> None:
    close(sinusoids(16, 8), PARAMETERS["fusion.pos_embed.pe"][0])
    assert sinusoids(3, 5).shape == (3, 5)


@torch.no_grad()
def test_mutual_promotion_unit() -> None:
    unit = MutualPromotionUnit(8, heads=2, expansion=4, attention_dropout=0.3, feedforward_dropout=0.1).double().eval()
    load_part(unit, unit_state(), "unit")
    for row in range(2):
        shown, context = GOLDEN["in/mpu/x_mask"][row], GOLDEN["in/mpu/context_mask"][row]
        x, c = GOLDEN["in/mpu/x"][row, shown], GOLDEN["in/mpu/context"][row, context]
        close(unit(x[None], c[None])[0], GOLDEN["out/mpu"][row, shown])


@torch.no_grad()
def test_attention_pool() -> None:
    pool = AttentionPool(24).double()
    load_part(pool, pool_state(), "pool")
    close(pool(GOLDEN["in/pool"]), GOLDEN["out/pool"])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("row", range(3))
@torch.no_grad()
def test_encoders_fusion_and_answer(view: str, row: int) -> None:
    u, tokens, frames = fused(view, row)
    for name in NETWORK:
        found, utterance = encoded(name, view, row)
        close(found[0], GOLDEN[f"out/{name}_frames_{view}"][row, : lengths(name)[row]])
        close(utterance[0], GOLDEN[f"out/{name}_utterance_{view}"][row])
    close(tokens[0], GOLDEN[f"out/global_{view}"][row])
    for name, local in frames.items():
        close(local[0], GOLDEN[f"out/local_{name}_{view}"][row, : lengths(name)[row]])
    head = Classifier(43, 1, [9, 9], dropout=0.0).double()
    names = {"post_fusion_layer_1.": "hidden.0", "post_fusion_layer_2.": "hidden.3", "post_fusion_layer_3.": "output"}
    load_part(head, renamed(PARAMETERS, names), "classifier")
    close(head(torch.cat([u, tokens.flatten(1)], dim=1))[0], GOLDEN[f"out/pred_{view}"][row])


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", ["gmc_tokens", "text", "audio", "video"])
@torch.no_grad()
def test_attraction(mode: str, name: str) -> None:
    given = {
        "gmc_tokens": lambda view: GOLDEN[f"out/global_{view}"].flatten(1),
        "text": lambda view: GOLDEN[f"in/text_{view}"][:, 0],
        "audio": lambda view: GOLDEN[f"out/audio_utterance_{view}"],
        "video": lambda view: GOLDEN[f"out/visual_utterance_{view}"],
    }
    complete, incomplete = (given[name](view) for view in VIEWS)
    bottleneck, width = PARAMETERS[f"{name}_predictor.net.0.weight"].shape
    part = Attraction(width, bottleneck).double().train(mode == "train")
    projector, predictor = (below(PARAMETERS, f"{name}_{kind}.net.") for kind in ("projector", "predictor"))
    load_part(part.projector, projector, name)
    load_part(part.predictor, predictor, name)
    for view, values in zip(VIEWS, (complete, incomplete), strict=True):
        z = part.projector(values)
        close(z, GOLDEN[f"out/{mode}/z_{name}_{view}"])
        close(part.predictor(z), GOLDEN[f"out/{mode}/p_{name}_{view}"])
    close(-part(incomplete, complete).mean(), GOLDEN[f"loss/{mode}/attraction_{name}"])


@pytest.mark.parametrize("name", ORDER)
@torch.no_grad()
def test_reconstruction(name: str) -> None:
    """SmoothL1 over frames that were dropped; the published denominator has 1e-6 more than their values."""
    published = name.replace("visual", "video")
    linear = [PARAMETERS[f"recon_{published}.{kind}"] for kind in ("weight", "bias")]
    made, true, dropped = [], [], []
    for row, length in enumerate(lengths(name)):
        frames = F.linear(fused("incomplete", row)[2][name], *linear)[0]
        close(frames, GOLDEN[f"out/recon_{published}"][row, :length])
        first = 1 if name == "text" else 0
        whole, kept = ("text_complete", "text_kept_with_cls") if name == "text" else (name, f"{name}_kept")
        made.append(frames)
        true.append(GOLDEN[f"in/{whole}"][row, first : first + length])
        dropped.append(GOLDEN[f"in/{kept}"][row, first : first + length] == 0)
    frames, target, taken = (torch.cat(parts) for parts in (made, true, dropped))
    errors = F.smooth_l1_loss(frames, target, reduction="none")
    values = taken.sum() * frames.shape[1]
    ours = errors[taken].sum() / (values + GOLDEN["const/recon_eps"])
    close(ours, GOLDEN[f"loss/eval/recon_{published}_exact"])


@pytest.mark.parametrize("view", VIEWS)
def test_task_loss(view: str) -> None:
    close(Regression().loss(GOLDEN[f"out/pred_{view}"], GOLDEN["in/labels"]), GOLDEN[f"loss/eval/task_{view}_L1"])


def made(**options: Any) -> EMT:
    """A small model of 4 steps."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"steps": 4, "embedding_dim": 8, "dim": 8, "heads": 2, "layers": 2, "hidden_dims": [6, 6]}
    return EMT(feature_dims=list(DIMS), class_names=CLASSES, **(small | options)).double().eval()


def pooled(batch: Batch, steps: int = 4) -> Batch:
    """As a datamodule serves it to a model of that many steps."""
    frames = per_modality(pool_steps(part, batch.lengths[:, m], steps) for m, part in enumerate(batch.frames))
    return replace(batch, frames=frames, lengths=steps * (batch.lengths > 0))


def test_an_absent_modality_is_the_learnt_frame_and_utterance_vector_row_by_row() -> None:
    model, batch = made(), pooled(random_batch(6))
    for row in range(6):
        frames, utterances = [], []
        for m in range(3):
            reader = model.reader(m)
            found = reader.encoder(batch.frames[m][row : row + 1])
            if not batch.present[row, m]:
                found = (reader.absent_frame.expand(1, 4, -1), reader.absent_utterance[None])
            frames.append(reader.project(found[0]) + sinusoids(4, 8).float())
            utterances.append(found[1])
        tokens = torch.stack([model.reader(m).project(u) for m, u in enumerate(utterances)], dim=1)
        tokens, _ = model.fusion(tokens, frames)
        expected = model.classifier(torch.cat([*utterances, tokens.flatten(1)], dim=1))
        torch.testing.assert_close(model(batch)[row], expected[0])


def test_losses_of_both_views_row_by_row() -> None:
    model, batch = made(), pooled(random_batch(7))
    losses, whole = model.losses(batch), batch.unmasked()
    everything = [torch.arange(7)] * 3
    incomplete, complete = (model.fuse(model.encode(view), view.present, everything) for view in (batch, whole))
    for name, view in (("cls", incomplete), ("complete", complete)):
        expected = torch.stack([-view.outputs[row].log_softmax(0)[label] for row, label in enumerate(batch.labels)])
        torch.testing.assert_close(losses[name], expected.mean())
    attraction = model.attractions["tokens"](incomplete.tokens.flatten(1), complete.tokens.flatten(1)).mean()
    reconstruction = torch.zeros((), dtype=torch.float64)
    for m, name in enumerate(("audio", "visual", "text")):
        absent = [row for row in range(7) if not batch.present[row, m]]
        drawn = [
            model.attractions[name](incomplete.utterances[[row], m], complete.utterances[[row], m])[0] for row in absent
        ]
        attraction = attraction + torch.stack(drawn).mean()
        errors = []
        for row in absent:
            guess = model.reconstructors[name](incomplete.restored[m][row]).detach().numpy()
            away = np.abs(guess - batch.frames[m][row].numpy())
            errors.append(np.where(away < 1, 0.5 * away**2, away - 0.5).mean())
        reconstruction = reconstruction + float(np.mean(errors))
    torch.testing.assert_close(losses["attraction"], -attraction)
    torch.testing.assert_close(losses["reconstruction"], reconstruction)


def test_plain_emt_reads_nothing_hidden_and_has_no_further_parameters() -> None:
    plain, whole = made(attraction=False, reconstruction=False), made()
    assert not plain.needs.hidden_frames
    assert whole.needs.hidden_frames
    assert list(plain.losses(pooled(random_batch(4)))) == ["cls"]
    more = set(whole.state_dict()) - set(plain.state_dict())
    assert {name.split(".")[0] for name in more} == {"attractions", "reconstructors"}


OPTIONS: list[dict[str, Any]] = [
    {"attraction": False, "reconstruction": False},
    {"attraction": False},
    {"reconstruction": False},
    {"attract_all": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(EMT, **options, steps=4, embedding_dim=8, dim=8, heads=2, hidden_dims=[8])


@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_of_one_trains(size: int) -> None:
    model = made().train()
    total = model.total_loss(model.losses(pooled(random_batch(size))))
    total.backward()
    assert total.isfinite()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InputError, match="heads 3"):
        EMT(feature_dims=list(DIMS), class_names=CLASSES, heads=3)
