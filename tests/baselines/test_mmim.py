"""MMIM's parity with its published code (tests/data/systems/mmim.npz, float64), and its own parts."""

from __future__ import annotations

import math
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from baselines.mmim import MMIM, ProjectedMean, ProjectedState
from datamodules.batches.batch import Batch
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.nn.encoders import SequenceEncoder
from ifmmin.nn.gaussians import ConditionalGaussian, group_entropy
from ifmmin.nn.losses import info_nce
from ifmmin.tasks import Regression
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_present, random_utterances
from tests.systems import State, below, close, load_system

GOLDEN = load_system("mmim")
PUBLISHED = below(GOLDEN, "param/")
SHORT = {"audio": "a", "visual": "v", "text": "t"}
NO_CONSTANT = 8 * math.log(2 * math.pi) / 2
"""What the published log density of 8 values lacks."""
NO_ENTROPY_CONSTANT = math.log(2 * math.pi * math.e)
"""What the published entropy of 2 values lacks."""


class Given(SequenceEncoder):
    """The first frame; the published text vector comes from BERT."""

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        return frames[:, 0]


def golden_batch() -> Batch:
    audio, visual, text = GOLDEN["in/audio"], GOLDEN["in/visual"], GOLDEN["in/text"][:, None]
    lengths = torch.stack([GOLDEN["in/audio_lengths"], GOLDEN["in/visual_lengths"], torch.ones(8).long()], dim=1)
    return Batch(
        frames=(audio, visual, text),
        lengths=lengths,
        index=torch.arange(8),
        labels=GOLDEN["in/labels"][:, 0],
        utterances=[str(row) for row in range(8)],
        row=torch.arange(8),
        present=torch.ones(8, 3, dtype=torch.bool),
    )


def layers(name: str, **renamed: str) -> State:
    """Parameters of the published network ``name``; ours="theirs" takes its layer ``theirs`` as ``ours``."""
    state = below(PUBLISHED, f"{name}.")
    return {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for ours, theirs in renamed.items() for kind in KINDS}


KINDS = ("weight", "bias")


def published() -> MMIM:
    """MMIM with the published weights; the entropies' memory is that of the golden file."""
    model = MMIM(
        feature_dims=[5, 4, 10], task=Regression().spec(), widths=[8, 8, 10], hidden_dim=9, entropy_dim=2, batch_size=9
    )
    model.encoders["audio"], model.encoders["visual"] = ProjectedState(5, 7, 8, 0.1), ProjectedState(4, 6, 8, 0.1)
    model.encoders["text"] = Given(10, 10, 1)
    model.double().eval()
    for name, network in (("audio", "acoustic_enc"), ("visual", "visual_enc")):
        state = {k: v for k, v in below(PUBLISHED, f"{network}.").items() if k.startswith("rnn.")}
        load_part(model.encoders[name], {**state, **layers(network, linear="linear_1")}, name)
    fusion = layers("fusion_prj", first="linear_1", second="linear_2", output="linear_3")
    text, audio, visual = fusion["first.weight"].split([10, 8, 8], dim=1)
    load_part(model.fusion, {**fusion, "first.weight": torch.cat([audio, visual, text], dim=1)}, "fusion")
    for name, short in SHORT.items():
        load_part(model.predictors[name], below(PUBLISHED, f"cpc_z{short}.net."), name)
    for pair, name in enumerate(("visual", "audio")):
        short = f"t{SHORT[name]}"
        both = {"mean": "mlp_mu", "log_variance": "mlp_logvar"}
        renamed = {f"{ours}.{n}": f"{theirs}.{n}" for ours, theirs in both.items() for n in (0, 2)}
        load_part(model.bounds[name], layers(f"mi_{short}", **renamed), name)
        load_part(model.projections[name], below(PUBLISHED, f"mi_{short}.entropy_prj.0."), name)
        model.memory[pair] = torch.cat([GOLDEN[f"in/mem_{short}_{sign}"] for sign in ("neg", "pos")])
        model.memory_groups[pair] = torch.tensor([0] * 4 + [1] * 5)
    return model


@torch.no_grad()
def test_published_forward_and_task_loss() -> None:
    model, batch = published(), golden_batch()
    audio, visual, text = model.embed(batch)
    close(audio, GOLDEN["out/h_audio"])
    close(visual, GOLDEN["out/h_visual"])
    Z, outputs = model.fuse([audio, visual, text], batch.present)
    close(Z, GOLDEN["out/fusion"])
    close(outputs, GOLDEN["out/prediction"])
    close(model(batch), GOLDEN["out/prediction"])
    close(model.losses(batch)["cls"], GOLDEN["loss/task_L1"])


@torch.no_grad()
def test_published_and_corrected_contrast() -> None:
    model, batch = published(), golden_batch()
    close(model.losses(batch)["cpc"], GOLDEN["loss/nce"])
    Z = GOLDEN["out/fusion"]
    for m, (h, name) in enumerate(zip(model.embed(batch), SHORT, strict=True)):
        close(info_nce(h, model.predictors[name](Z)), GOLDEN[f"loss/nce_{SHORT[name]}"])
        shown = GOLDEN["in/present_audio_visual_text"][:, m]
        reference = GOLDEN[f"corrected/nce_{SHORT[name]}_present_rows_only"]
        close(info_nce(h[shown], model.predictors[name](Z[shown])), reference)


@torch.no_grad()
def test_corrected_likelihood_and_the_published_one() -> None:
    model, batch = published(), golden_batch()
    h = dict(zip(SHORT, model.embed(batch), strict=True))
    total = torch.zeros(()).double()
    for name, bound in model.bounds.items():
        assert isinstance(bound, ConditionalGaussian)
        short, x, y = f"t{SHORT[name]}", h["text"], h[name]
        density = bound(x, y).mean() + NO_CONSTANT
        close(density, GOLDEN[f"corrected/lld_{short}_tanh_logvar"])
        total += density - NO_CONSTANT
        # Its networks give the published value too, which has neither -½ log σ² nor a tanh.
        errors, log_variance = (bound.mean(x) - y).square(), bound.log_variance(x)
        close(-(errors / log_variance.exp() / 2).sum(dim=1).mean(), GOLDEN[f"loss/lld_{short}"])
        full = -(errors / log_variance.exp() / 2 + log_variance / 2).sum(dim=1)
        close(full, GOLDEN[f"corrected/lld_{short}_per_row"])
    losses = model.losses(batch)
    close(losses["likelihood"], -total)
    close(losses["bound"], -total)


@torch.no_grad()
def test_published_and_corrected_entropy() -> None:
    model, batch = published(), golden_batch()
    h = dict(zip(SHORT, model.embed(batch), strict=True))
    signs = model.entropy_groups(batch.label)
    for pair, name in enumerate(model.projections):
        short, features = f"t{SHORT[name]}", model.projections[name](h[name]).tanh()
        together = torch.cat([features, model.memory[pair]]), torch.cat([signs, model.memory_groups[pair]])
        close(group_entropy(*together, 2, ridge=0.0) - NO_ENTROPY_CONSTANT, GOLDEN[f"loss/H_{short}"])
        close(model.entropy(pair, features, signs), group_entropy(*together, 2))
        by_class = group_entropy(features, GOLDEN["in/classes"], 3) - NO_ENTROPY_CONSTANT
        close(by_class, GOLDEN[f"corrected/H_{short}_classes_ridge1e-4"])


def test_weights_and_options_are_the_published_ones() -> None:
    model = MMIM(feature_dims=list(DIMS), class_names=CLASSES)
    alpha, beta = float(GOLDEN["const/alpha"]), float(GOLDEN["const/beta"])
    assert model.loss_weights == {"cpc": alpha, "likelihood": beta, "entropy": beta}
    assert model.memory.shape == (2, 128, 16)  # embeddings of 64, a quarter of that as published
    with pytest.raises(InputError, match="widths"):
        MMIM(feature_dims=list(DIMS), class_names=CLASSES, widths=[8])


def test_a_zero_label_has_no_sign() -> None:
    assert published().entropy_groups(torch.tensor([0.0, 2.0, -0.1, torch.nan])).tolist() == [-1, 1, 0, -1]


def test_each_stage_trains_parameters_of_its_own() -> None:
    torch.manual_seed(0)
    model = MMIM(feature_dims=list(DIMS), class_names=CLASSES).double()
    batch = replace(random_batch(16), present=torch.ones(16, 3, dtype=torch.bool))
    names = dict(model.named_parameters())
    reached = {}
    for term, value in model.losses(batch).items():
        gradients = torch.autograd.grad(value, list(names.values()), retain_graph=True, allow_unused=True)
        pairs = zip(names, gradients, strict=True)
        reached[term] = {name.partition(".")[0] for name, gradient in pairs if gradient is not None and gradient.any()}
    assert reached == {
        "cls": {"encoders", "fusion"},
        "cpc": {"encoders", "fusion", "predictors"},
        "bound": {"bounds"},
        "likelihood": {"encoders"},
        "entropy": {"encoders", "projections"},
    }


def test_text_is_read_from_its_mean_true_frame() -> None:
    torch.manual_seed(0)
    encoder = ProjectedMean(3, 2).double()
    frames = torch.randn(2, 4, 3).double()
    frames[1, 2:] = 0
    expected = encoder.linear(torch.stack([frames[0].mean(dim=0), frames[1, :2].mean(dim=0)])).tanh()
    torch.testing.assert_close(encoder(frames, torch.tensor([4, 2])), expected)


@torch.no_grad()
def test_the_terms_row_by_row() -> None:
    """Over the rows that show, or utterances that have, what a term needs, by loops."""
    torch.manual_seed(0)
    model = MMIM(feature_dims=list(DIMS), class_names=CLASSES, entropy_dim=3).double().eval()
    batch = batch_of(random_utterances(24, seed=4, partial=True), random_present(24, seed=4))
    batch = replace(batch, present=torch.where(batch.present.any(1, keepdim=True), batch.present, batch.available))
    losses, h = model.losses(batch), model.embed(batch.unmasked())
    shown = [h[m] * batch.present[:, m, None] for m in range(3)]
    Z = model.fusion(torch.cat(shown, dim=1))[0]
    contrast = 0.0
    for m, name in enumerate(SHORT):
        rows = [row for row in range(24) if batch.present[row, m]]
        cosine = [[torch.cosine_similarity(h[m][i], model.predictors[name](Z[j]), dim=0) for j in rows] for i in rows]
        terms = [math.log(sum(math.exp(c) for c in line)) - float(line[i]) for i, line in enumerate(cosine)]
        contrast += sum(terms) / len(rows)
    assert float(losses["cpc"]) == pytest.approx(contrast)
    likelihood = entropy = 0.0
    for name, m in (("visual", 1), ("audio", 0)):
        rows = [row for row in range(24) if batch.available[row, 2] and batch.available[row, m]]
        densities = [float(model.bounds[name](h[2][[row]], h[m][[row]])) for row in rows]
        likelihood += sum(densities) / len(rows)
        values = []
        for label in range(4):
            mine = [model.projections[name](h[m][row]).tanh().numpy() for row in rows if batch.label[row] == label]
            if len(mine) > 1:
                covariance = np.cov(np.stack(mine).T, bias=True) + 1e-4 * np.eye(3)
                values.append(np.linalg.slogdet(2 * np.pi * np.e * covariance)[1] / 2)
        entropy += np.mean(values)
    assert float(losses["likelihood"]) == pytest.approx(-likelihood)
    assert float(losses["bound"]) == pytest.approx(-likelihood)
    assert float(losses["entropy"]) == pytest.approx(-entropy)


@torch.no_grad()
def test_entropies_are_of_this_batch_and_the_one_before() -> None:
    torch.manual_seed(0)
    model = MMIM(feature_dims=list(DIMS), class_names=CLASSES, dropout=0.0, entropy_dim=2).double().train()
    batches = [random_batch(size, seed=size) for size in (16, 32, 24)]

    def rows(batch: Batch, name: str, m: int) -> tuple[Tensor, Tensor]:
        return model.projections[name](model.embed(batch.unmasked())[m]).tanh(), batch.labels

    for before, batch in zip([None, *batches], batches, strict=False):
        expected = torch.zeros(()).double()
        for name, m in (("visual", 1), ("audio", 0)):
            found = [rows(each, name, m) for each in (before, batch) if each is not None]
            features, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
            expected -= group_entropy(features, labels, 4)
        torch.testing.assert_close(model.losses(batch)["entropy"], expected)
        model.remember()
    assert (model.memory_groups >= 0).sum(dim=1).tolist() == [24, 24]


def test_a_training_step_remembers_its_rows_and_a_checkpoint_has_them() -> None:
    torch.manual_seed(0)
    model, batch = MMIM(feature_dims=list(DIMS), class_names=CLASSES), random_batch(16, dtype=torch.float32)
    trainer = L.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader([batch], batch_size=None))  # type: ignore[arg-type]
    again = MMIM(feature_dims=list(DIMS), class_names=CLASSES)
    again.load_state_dict(model.state_dict())
    for pair in range(2):
        assert again.memory_groups[pair, :16].tolist() == batch.labels.tolist()
        assert again.memory[pair, :16].any(dim=1).all()
        assert not (again.memory_groups[pair, 16:] >= 0).any()
