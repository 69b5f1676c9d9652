"""MPLMM's parity with its published code (tests/data/systems/mplmm.npz, float64), its prompts, and what is frozen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.mplmm import MPLMM, Prompts
from baselines.mult import MulT
from baselines.mult.networks import Sizes, Streams
from baselines.mult.pretraining import MulTPretraining
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part, split_parts
from ifmmin.testing import check_model
from tests.baselines.test_mult import LETTER, golden_answer, golden_targets
from tests.batches import CLASSES, DIMS, random_batch
from tests.systems import State, below, close, load_system

GOLDEN = load_system("mplmm")
PARAMETERS = below(GOLDEN, "param/")
MODES = [("text",), ("audio",), ("visual",), ("text", "audio"), ("text", "visual"), ("audio", "visual"), ()]
"""What is absent in each row."""
FRAMES = {name: GOLDEN[f"in/{name}"] for name in MODALITIES}
GENERATORS = {
    "text": {"audio": "l_ap", "visual": "l_vp", "both": "l_avp"},
    "audio": {"text": "a_lp", "visual": "a_vp", "both": "a_lvp"},
    "visual": {"text": "v_lp", "audio": "v_ap", "both": "v_alp"},
}


def present() -> dict[str, Tensor]:
    return {name: torch.tensor([name not in absent for absent in MODES]) for name in MODALITIES}


def prompts(name: str) -> Prompts:
    widths = {other: frames.shape[2] for other, frames in FRAMES.items()}
    steps = {other: frames.shape[1] for other, frames in FRAMES.items()}
    width, length = (int(GOLDEN[f"const/{key}"]) for key in ("width", "prompt_length"))
    part, letter, place = Prompts(name, widths, steps, width, length).double(), LETTER[name], "lav".index(LETTER[name])
    linears = {f"convert.{other}": f"{LETTER[other]}2{letter}" for other in part.others}
    linears |= {f"generate.{key}": theirs for key, theirs in GENERATORS[name].items()}
    state: State = {
        "generative": PARAMETERS["generative_prompt"][place].T,
        "missing_type": PARAMETERS["missing_type_prompt"][place],
        "missing": PARAMETERS[f"prompt{letter}_m"].T,
        "present": PARAMETERS[f"prompt{letter}_nm"].T,
        "matrix": PARAMETERS[f"m_{letter}"],
    }
    for ours, theirs in linears.items():
        state[f"{ours}.weight"] = PARAMETERS[f"{theirs}.conv.weight"][:, :, 0]
        state[f"{ours}.bias"] = PARAMETERS[f"{theirs}.conv.bias"]
    load_part(part, state, name)
    return part


def completed(name: str) -> Tensor:
    """Steps [7, T, d] of a modality under every mode."""
    part, shown = prompts(name), present()
    own = FRAMES[name] @ PARAMETERS[f"proj_{LETTER[name]}.weight"][:, :, 0].T
    converted = {other: F.gelu(part.convert[other](FRAMES[other])) for other in part.others}
    # What is absent must not be read.
    hidden = {other: steps.masked_fill(~shown[other][:, None, None], 0.0) for other, steps in converted.items()}
    return part.complete(own, hidden, shown, shown[name])


@torch.no_grad()
@pytest.mark.parametrize("name", MODALITIES)
def test_generated_and_marked_steps(name: str) -> None:
    found = completed(name)
    for mode in range(7):
        close(found[mode].T, GOLDEN[f"out/completed_mode{mode}_{name}"])


@torch.no_grad()
def test_missing_type_matrices() -> None:
    shown = present()
    close(sum(prompts(name).signal(shown[name]) for name in MODALITIES), GOLDEN["out/missing_type_matrices"])  # type: ignore[arg-type]


@torch.no_grad()
def test_the_whole_model() -> None:
    names = {"dim": "width", "heads": "heads", "layers": "crossmodal_layers", "memory_layers": "memory_layers"}
    sizes = Sizes(**{ours: int(GOLDEN[f"const/{theirs}"]) for ours, theirs in names.items()}, future_mask=True)
    targets = golden_targets(PARAMETERS, sizes).eval()
    x = [completed(name) for name in MODALITIES]
    tokens = [prompts(name).missing_type @ GOLDEN["out/missing_type_matrices"] for name in MODALITIES]
    streams = Streams(x, None, torch.ones(7, 3, dtype=torch.bool), torch.arange(7))
    logits = golden_answer(PARAMETERS, targets(streams, tokens))
    close(logits, GOLDEN["out/logits"])
    close(F.cross_entropy(logits, GOLDEN["in/labels"]), GOLDEN["loss/cross_entropy"])


def test_the_published_missing_type_prompts_never_move() -> None:
    """Why ours start at random."""
    for name in ("missing_type_prompt", "m_a", "m_v", "m_l"):
        assert float(GOLDEN[f"observed/largest_value_after_20_adam_steps/{name}"]) == 0.0
    model = made()
    model.losses(random_batch(6))["cls"].backward()
    for m in range(3):
        for parameter in (model.prompts_of(m).missing_type, model.prompts_of(m).matrix):
            assert parameter.grad is not None
            assert bool(parameter.grad.any())


SMALL: dict[str, Any] = {"steps": 4, "dim": 8, "heads": 2, "layers": 1, "memory_layers": 1}


def made(**options: Any) -> MPLMM:
    torch.manual_seed(0)
    model = MPLMM(feature_dims=list(DIMS), class_names=CLASSES, **(SMALL | options)).double().eval()
    model.load_stage1(split_parts(model.stage1_module().state_dict()))
    return model


def test_the_backbone_is_stage_1_and_frozen_but_for_the_last_layer() -> None:
    model, batch = made(), random_batch(6)
    torch.manual_seed(1)
    backbone = MulTPretraining(feature_dims=list(DIMS), class_names=CLASSES, **SMALL).double()
    model.load_stage1(split_parts(backbone.state_dict()))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"prompts", "output"}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train().losses(batch)["cls"].backward()
    optimizer.step()
    before, after = backbone.state_dict(), model.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name], value) == (not name.startswith("output.")), name


@torch.no_grad()
def test_without_prompts_complete_utterances_are_answered_as_by_the_backbone() -> None:
    """Zero signal prompts and no token: what is left is MulT."""
    model = made()
    backbone = MulT(feature_dims=list(DIMS), class_names=CLASSES, **SMALL).double().eval()
    load_part(model, model.state_dict() | backbone.state_dict(), "backbone")
    for m in range(3):
        model.prompts_of(m).present.zero_()
    whole = random_batch(5).unmasked()
    torch.testing.assert_close(model.answer(model.targets(model.streams(whole))), backbone(whole))
    assert not torch.allclose(model(whole), backbone(whole))  # the tokens are read


@torch.no_grad()
def test_rows_are_completed_and_told_one_by_one() -> None:
    model, batch = made(), random_batch(6)
    found = model(batch)
    for row in range(6):
        x, z = [], []
        signals: Any = 0
        for m, name in enumerate(MODALITIES):
            part, target = model.prompts_of(m), model.targets.of(m)
            there = {o: bool(batch.present[row, MODALITIES.index(o)]) for o in MODALITIES}
            pooled = {
                o: torch.nn.functional.adaptive_avg_pool1d(batch.frames[k][row, : batch.lengths[row, k]].T[None], 4)[
                    0
                ].T
                for k, o in enumerate(MODALITIES)
            }
            if there[name]:
                x.append(target.project(pooled[name]) + part.present)
            else:
                sources = [other for other in ("text", "audio", "visual") if other != name and there[other]]
                read = [part.generative, *(F.gelu(part.convert[o](pooled[o])) for o in sources)]
                mix = part.mixer(sources[0] if len(sources) == 1 else "both")
                mixed = mix.weight @ torch.cat(read) + mix.bias[:, None]
                x.append(F.gelu(mixed) + part.missing)
            signals = signals + (part.present if there[name] else part.missing).T @ part.matrix
        for m in range(3):
            target = model.targets.of(m)
            parts = [
                transformer(x[m][None], x[MODALITIES.index(source)][None])
                for source, transformer in target.sources.items()
            ]
            tokens = model.prompts_of(m).missing_type @ signals
            z.append(target.memory(torch.cat([torch.cat(parts, dim=2), tokens[None]], dim=1))[:, -1])
        torch.testing.assert_close(found[row], model.answer(torch.stack(z, dim=1))[0])


def test_stage_1_reads_complete_utterances() -> None:
    torch.manual_seed(0)
    stage1 = MulTPretraining(feature_dims=list(DIMS), class_names=CLASSES, **SMALL).double().eval()
    batch = random_batch(5)
    expected = F.cross_entropy(stage1(batch.unmasked()), batch.labels)
    torch.testing.assert_close(stage1.losses(batch), {"cls": expected})
    assert stage1.needs.hidden_frames
    assert (stage1.monitored_row, stage1.log_prefix) == ("avt", "stage1/")


def test_stage_1_of_another_width_is_refused() -> None:
    other = MulTPretraining(feature_dims=list(DIMS), class_names=CLASSES, **(SMALL | {"dim": 4}))
    with pytest.raises(InputError, match="targets does not fit"):
        made().load_stage1(split_parts(other.state_dict()))
    with pytest.raises(InputError, match="dim 4"):
        made(pretraining={"dim": 4})
    assert made(pretraining={"relu_dropout": 0.3}).stage1_module().hparams["relu_dropout"] == 0.3


@pytest.mark.parametrize("options", [{"future_mask": True}, {"prompt_length": 1, "steps": 1}], ids=str)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(MPLMM, **(SMALL | options))
