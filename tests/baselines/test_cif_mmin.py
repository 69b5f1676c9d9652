"""CIF-MMIN's parity with its published code (tests/data/systems/cif_mmin.npz, float64), and its own parts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.cif_mmin import CIFMMIN, ContrastivePretraining
from datamodules.batches.batch import Batch
from ifmmin.checkpoints.published import convert_cascade, convert_classifier, convert_encoder
from ifmmin.nn.encoders import LSTMEncoder
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, random_present, random_utterances
from tests.golden import load
from tests.systems import State, below, close, load_system

GOLDEN = load_system("cif_mmin")
WIDTH = 6
OPTIONS: dict[str, Any] = {
    "feature_dims": [5, 4, 7],
    "class_names": CLASSES,
    "embedding_dim": WIDTH,
    "text_channels": 3,
    "absent_frames": [6, 5, 8],  # an absent modality was read as zero frames of its own length
    "hidden_dims": [8, 8],
}
PUBLISHED = {"audio": ("A", "ConA", "SharedA"), "visual": ("V", "ConV", "SharedV"), "text": ("L", "ConL", "SharedT")}


def golden_batch() -> Batch:
    frames = (GOLDEN["in/audio"], GOLDEN["in/visual"], GOLDEN["in/text"])
    return Batch(
        frames=frames,
        lengths=torch.tensor([[6, 5, 8]]).expand(5, -1),
        index=torch.arange(5),
        labels=GOLDEN["in/labels"],
        utterances=[str(row) for row in range(5)],
        row=torch.arange(5),
        present=GOLDEN["in/missing_index_audio_visual_text"][:, [0, 1, 2]].bool(),
    )


def in_our_order(published: Tensor) -> Tensor:
    """[a; t; v] as [a; v; t]."""
    audio, text, visual = published.split(WIDTH, dim=1)
    return torch.cat([audio, visual, text], dim=1)


def parts(who: str) -> dict[str, State]:
    """The published networks of the ``student`` or of ``stage1`` under our names."""
    state = below(GOLDEN, f"param_{who}/")
    found: dict[str, State] = {"encoders": {}, "classifier": convert_classifier(below(state, "C."), WIDTH)}
    for name, (specific, invariant, _) in PUBLISHED.items():
        for kind, network in (("specific", specific), ("invariant", invariant)):
            converted = convert_encoder(below(state, f"{network}."))
            found["encoders"] |= {f"{name}.{kind}.{key}": value for key, value in converted.items()}
    if who == "student":
        return {**found, "imagination": convert_cascade(below(state, "AE."), WIDTH)}
    layers = {"shared_1": "0", "layer_norm": "2", "shared_2": "3"}
    found["heads"] = {
        f"{name}.{ours}.{kind}": state[f"{shared}.netshared.{theirs}.{kind}"]
        for name, (_, _, shared) in PUBLISHED.items()
        for theirs, ours in layers.items()
        for kind in ("weight", "bias")
    }
    return found


def stage1() -> ContrastivePretraining:
    model = ContrastivePretraining(**OPTIONS).double().eval()
    load(model, parts("stage1"))
    return model


def student() -> CIFMMIN:
    model = CIFMMIN(**OPTIONS, blocks=5, block_dims=[10, 7, 4]).double().eval()
    model.load_stage1(parts("stage1"))
    load(model, parts("student"))
    return model


def test_stage1_embeddings_and_answers() -> None:
    model, batch = stage1(), golden_batch().unmasked()
    h, H = model.embed(batch)
    close(h.flatten(1), in_our_order(GOLDEN["stage1/out/h_audio_text_visual"]))
    close(model(batch), GOLDEN["stage1/out/logits"])
    for position, name in enumerate(PUBLISHED):
        close(H[:, position], GOLDEN[f"stage1/out/con_{name}"])
        close(model.heads[name](H[:, position]), GOLDEN[f"stage1/out/shared_{name}"])


def test_stage1_losses() -> None:
    model, batch = stage1(), golden_batch()
    losses = model.losses(batch)
    close(losses["cls"], GOLDEN["stage1/loss/cross_entropy"])
    pairs = {"at": "text_audio_times_0.25", "vt": "text_visual_times_0.25", "av": "visual_audio_times_0.5"}
    for name, published in pairs.items():
        close(model.loss_weights[name] * losses[name], GOLDEN[f"stage1/loss/contrast_{published}"])
    close(model.total_loss(losses), torch.stack([v for k, v in GOLDEN.items() if k.startswith("stage1/loss")]).sum())
    assert float(model.scale["log"].detach().exp()) == pytest.approx(float(GOLDEN["const/contrast_scale"]))


def test_stage2_forward() -> None:
    model, batch = student(), golden_batch()
    out = model.imagine(batch)
    close(out.embeddings, in_our_order(GOLDEN["stage2/out/h"]))
    close(out.invariant, in_our_order(GOLDEN["stage2/out/H"]))
    close(out.imagined, in_our_order(GOLDEN["stage2/out/imagined"]))
    close(model.imagination(out.embeddings, out.invariant)[1], GOLDEN["stage2/out/codes"])
    close(out.embeddings + out.imagined, in_our_order(GOLDEN["stage2/out/latent"]))
    close(model(batch), GOLDEN["stage2/out/logits"])


@pytest.mark.parametrize("remembered", [False, True], ids=["teacher computed", "teacher remembered"])
def test_stage2_losses(remembered: bool) -> None:
    model, batch = student(), golden_batch()
    if remembered:
        model.teacher.remember([batch], len(batch))
    h_absent, _ = model.teacher.absent_part(batch).chunk(2, dim=2)
    _, H_complete = model.teacher.targets(batch).chunk(2, dim=2)
    close(h_absent.flatten(1), in_our_order(GOLDEN["stage2/out/teacher_h_absent"]))
    close(H_complete.flatten(1), in_our_order(GOLDEN["stage2/out/teacher_H_complete"]))
    losses = model.losses(batch)
    close(losses["cls"], GOLDEN["stage2/loss/cross_entropy"])
    close(losses["img"], GOLDEN["stage2/loss/mse_imagined"])
    close(losses["inv"], GOLDEN["stage2/loss/mse_invariant"])
    close(model.total_loss(losses), GOLDEN["stage2/loss/total"])
    assert [1.0, model.loss_weights["img"], model.loss_weights["inv"]] == GOLDEN["const/lambda_ce_mse_inv"].tolist()


def test_the_published_student_reads_the_last_state_of_text_ours_the_maximum() -> None:
    batch = golden_batch()
    published = LSTMEncoder(7, WIDTH, pooling="last").double()
    published.load_state_dict(convert_encoder(below(GOLDEN, "param_student/ConL.")))
    shown = batch.frames[2] * batch.present[:, 2, None, None]
    close(published(shown), GOLDEN["stage2/out/con_text_published_last_step"])
    ours = student().embed(batch)[1][:, 2]
    assert (ours - GOLDEN["stage2/out/con_text_published_last_step"]).abs().max() > 0.01


def test_no_gradient_of_the_contrast_reaches_what_is_classified_and_none_of_the_answer_the_rest() -> None:
    model, batch = stage1().train(), golden_batch()
    losses = model.losses(batch)
    names = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for term, value in losses.items():
        gradients = torch.autograd.grad(value, list(names.values()), retain_graph=True, allow_unused=True)
        moved = set()
        for name, gradient in zip(names, gradients, strict=True):
            if name.startswith("encoders.") and gradient is not None and bool(gradient.any()):
                moved.add(name.split(".")[2])
        assert moved == {"specific" if term == "cls" else "invariant"}


def test_the_scale_is_trained_if_asked_for() -> None:
    fixed, learnt = (
        ContrastivePretraining(**OPTIONS, learn_scale=learn, contrast_scale=4.0) for learn in (False, True)
    )
    for model in (fixed, learnt):
        assert float(model.scale["log"].detach().exp()) == pytest.approx(4.0)
        model.double().total_loss(model.losses(golden_batch())).backward()
    assert fixed.scale["log"].grad is None
    gradient = learnt.scale["log"].grad
    assert gradient is not None
    assert float(gradient) != 0
    check_model(ContrastivePretraining, learn_scale=True)
    chosen = CIFMMIN(**OPTIONS, pretraining={"contrast_scale": 2.0}).stage1_module()
    assert isinstance(chosen, ContrastivePretraining)
    assert float(chosen.scale["log"].detach().exp()) == pytest.approx(2.0)


def test_a_contrast_is_over_utterances_that_have_both() -> None:
    torch.manual_seed(0)
    model = ContrastivePretraining(feature_dims=list(DIMS), class_names=CLASSES).double().eval()
    batch = batch_of(random_utterances(16, partial=True))
    losses, whole = model.losses(batch), batch.unmasked()
    both = whole.present[:, 0] & whole.present[:, 2]
    kept = both.nonzero()[:, 0]
    H = model.embed(whole)[1]
    x, y = (model.heads[name](H[kept, m]) for name, m in (("audio", 0), ("text", 2)))
    x, y = (view / view.norm(dim=1, keepdim=True) for view in (x, y))
    terms = []
    for i in range(len(kept)):
        for one, other in ((x, y), (y, x)):
            others = sum(
                math.exp(math.e * float(one[i].detach() @ other[j].detach())) for j in range(len(kept)) if j != i
            )
            terms.append(math.log(others) - math.e * float(one[i].detach() @ other[i].detach()))
    assert float(losses["at"].detach()) == pytest.approx(sum(terms) / len(terms))


def test_errors_are_of_what_the_corpus_has() -> None:
    torch.manual_seed(0)
    model = student()
    utterances = random_utterances(12, dims=[5, 4, 7], partial=True)
    batch = batch_of(utterances, random_present(12))
    batch = replace(batch, present=torch.where(batch.present.any(1, keepdim=True), batch.present, batch.available))
    losses, out = model.losses(batch), model.imagine(batch)
    absent, complete = model.teacher.absent_part(batch), model.teacher.targets(batch)
    img, inv = [], []
    for row in range(12):
        for m in range(3):
            if batch.available[row, m]:
                place = slice(m * WIDTH, (m + 1) * WIDTH)
                img.append((out.imagined[row, place] - absent[row, m, :WIDTH]).square().mean())
                inv.append((out.invariant[row, place] - complete[row, m, WIDTH:]).square().mean())
    torch.testing.assert_close(losses["img"], torch.stack(img).mean())
    torch.testing.assert_close(losses["inv"], torch.stack(inv).mean())


def test_each_encoder_is_clipped_by_itself() -> None:
    names = [name for name, _ in CIFMMIN(**OPTIONS).subnetworks()]
    assert names == [
        *(f"encoders.{name}.{kind}" for name in PUBLISHED for kind in ("specific", "invariant")),
        "imagination",
        "classifier",
    ]
