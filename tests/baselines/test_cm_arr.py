"""CM-ARR against formulas written out, against scipy, and against what is known of the built-in corpus."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from baselines.cm_arr import CMARR
from baselines.cm_arr.networks import (
    GaussianEncoder,
    ModalityFlow,
    WassersteinContrast,
)
from datamodules.batches.batch import Batch
from datamodules.batches.masks import UniformConditions, utterance_keys
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS, present_under
from datamodules.errors import InputError
from datamodules.linear_gaussian.generator import LinearGaussianCorpus
from ifmmin.nn.attention import packed_layer
from ifmmin.nn.losses import wasserstein2
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_utterances
from tests.cli.running import SMALL, fit, metrics

PHASES = ("alignment", "reconstruction", "refinement")


def build(seed: int = 0, **options: Any) -> CMARR:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"embedding_dim": 16, "heads": 2, "feedforward_dim": 8, "flow_hidden_dim": 12}
    return CMARR(feature_dims=list(DIMS), class_names=CLASSES, hidden_dims=[8], **{**sizes, **options}).double().eval()


def gaussians(size: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(size, dim, dtype=torch.float64, generator=generator)
    return mean, torch.rand(size, dim, dtype=torch.float64, generator=generator) + 0.1


def random_flow(dim: int, seed: int = 0, size: float = 0.3) -> ModalityFlow:
    """A flow far from the identity, as training makes it."""
    torch.manual_seed(seed)
    flow = ModalityFlow(dim, couplings=4, hidden_dim=16)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
    return flow


def close(ours: Tensor, reference: Tensor | float, tolerance: float = 1e-9) -> None:
    expected = torch.as_tensor(reference, dtype=ours.dtype)
    torch.testing.assert_close(ours.detach(), expected, rtol=tolerance, atol=tolerance)


# The 2-Wasserstein distance and the alignment phase.


def test_wasserstein2_is_the_general_formula_at_diagonal_covariances() -> None:
    (mean_x, std_x), (mean_y, std_y) = gaussians(3, 4, 0), gaussians(5, 4, 1)
    distance = wasserstein2(mean_x, std_x, mean_y, std_y)
    assert distance.shape == (3, 5)
    for i, j in product(range(3), range(5)):
        left, right = np.diag(std_x[i].numpy() ** 2), np.diag(std_y[j].numpy() ** 2)
        root = sqrtm(left)
        trace = np.trace(left + right - 2 * sqrtm(root @ right @ root)).real
        square = float((mean_x[i] - mean_y[j]).square().sum()) + trace
        assert float(distance[i, j]) == pytest.approx(math.sqrt(square), rel=1e-9)


def test_wasserstein2_has_a_finite_gradient_where_gaussians_coincide() -> None:
    mean, std = gaussians(30, 4, 0)
    for tensor in (mean, std):
        tensor.requires_grad_()
    wasserstein2(mean, std, mean.detach().clone(), std.detach().clone()).sum().backward()
    assert mean.grad is not None and mean.grad.isfinite().all()
    assert std.grad is not None and std.grad.isfinite().all()


def naive_info_nce(similarity: Tensor) -> float:
    """-log softmax of the partner, among all of the other modality, in both directions."""
    size, total = len(similarity), 0.0
    for i in range(size):
        for others in (similarity[i], similarity[:, i]):
            total -= math.log(math.exp(similarity[i, i]) / sum(math.exp(value) for value in others))
    return total / (2 * size)


def test_contrast_is_info_nce() -> None:
    contrast = WassersteinContrast(6, temperature=0.5).double()
    (mean_x, std_x), (mean_y, std_y) = gaussians(7, 6, 0), gaussians(7, 6, 1)
    distance = (mean_x[:, None] - mean_y).square().sum(-1) + (std_x[:, None] - std_y).square().sum(-1)
    similarity = -distance.sqrt() / math.sqrt(6) / 0.5  # a = -1/sqrt(E) before training
    loss = contrast(mean_x, std_x, mean_y, std_y)
    close(loss, naive_info_nce(similarity.detach()), tolerance=1e-6)  # a was computed in float32
    close(contrast(mean_y, std_y, mean_x, std_x), loss)


def test_offset_of_the_similarity_cancels() -> None:
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    assert naive_info_nce(similarity + 3.0) == pytest.approx(naive_info_nce(similarity))


# Flows.


def test_flow_inverse_undoes_the_flow() -> None:
    flow, points = random_flow(16), torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    common = flow(points)
    assert (common - points).abs().max() > 0.5
    assert (flow.inverse(common) - points).abs().max() < 1e-5
    assert (flow(flow.inverse(points)) - points).abs().max() < 1e-5


def test_flow_density_is_the_change_of_variables() -> None:
    flow = random_flow(4).double()
    points = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for point, density in zip(points, flow.with_density(points)[1], strict=True):
        jacobian = torch.autograd.functional.jacobian(flow, point)
        normal = -0.5 * flow(point).square().sum() - 2 * math.log(2 * math.pi)
        close(density, (normal + torch.linalg.slogdet(jacobian).logabsdet).detach())


def test_flow_density_integrates_to_one() -> None:
    flow = random_flow(2, seed=3).double()
    with torch.no_grad():
        # All mass but that of |z| > 6, whatever the flow does: the inverse of a box of the base space, with a margin.
        box = flow.inverse(torch.cartesian_prod(*[torch.linspace(-6, 6, 121, dtype=torch.float64)] * 2))
        low, high = box.amin(dim=0) - 1, box.amax(dim=0) + 1
        steps = 500
        middles = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        axes = [a + (b - a) * middles for a, b in zip(low, high, strict=True)]
        mass = flow.with_density(torch.cartesian_prod(*axes))[1].exp().sum() * ((high - low) / steps).prod()
    assert float(mass) == pytest.approx(1.0, abs=2e-3)


def test_flow_starts_close_to_the_identity() -> None:
    torch.manual_seed(0)
    flow, points = ModalityFlow(16, couplings=4, hidden_dim=16), torch.randn(50, 16)
    assert (flow(points) - points).abs().max() < 0.5


def test_scales_of_a_flow_are_bounded() -> None:
    """Each coupling scales half of the coordinates, by less than e^2 each, whatever the parameters."""
    flow = random_flow(16, size=100.0).double()
    _, volume = flow.flow().transform.call_and_ladj(torch.randn(50, 16, dtype=torch.float64))
    assert 8 < volume.abs().max() <= 4 * 8 * 2


def test_recovery_counts_observations_at_the_origin() -> None:
    """The posterior mean of a factor u ~ N(0, 1) seen by several with independent noise of variance κ."""
    flow = random_flow(3).double()
    seen = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prior_count = flow.prior_count
    for count in (1, 2):
        precision = 1 + count / prior_count
        posterior_mean = (seen[:count] / prior_count).sum(dim=0) / precision
        ours = flow.recover(seen[:count].sum(dim=0, keepdim=True), torch.tensor([[count]]))
        close(ours[0], flow.inverse(posterior_mean).detach())
    torch.nn.init.constant_(flow.prior, -5.0)
    close(flow.recover(seen.sum(dim=0), torch.tensor(2)), flow.inverse(seen.mean(dim=0)).detach())


# The model.


def test_encoder_pools_the_states_of_attention_over_true_frames() -> None:
    torch.manual_seed(0)
    encoder = GaussianEncoder(5, 8, heads=2, feedforward_dim=8, dropout=0.0).double()
    frames = torch.randn(3, 9, 5, dtype=torch.float64)
    lengths = torch.tensor([9, 4, 1])
    frames[1, 4:] = torch.nan
    frames[2, 1:] = torch.nan
    mean, std = encoder(frames, lengths)
    for row, length in enumerate(lengths.tolist()):
        # PyTorch's own forward of the layer, which the encoder does not use.
        states = encoder.attention(encoder.project(frames[row : row + 1, :length]))[0].mean(dim=0)
        close(mean[row], encoder.mean(states))
        close(std[row], (3 * torch.tanh(encoder.log_std(states) / 3)).exp())
    huge, spread = encoder(1e6 * torch.nan_to_num(frames), lengths)
    assert huge.isfinite().all()
    assert (spread <= math.exp(3)).all() and (spread >= math.exp(-3)).all()


@pytest.mark.parametrize("lengths", [[9], [3, 3, 3], [1, 1, 2, 5, 5, 8, 9]])
def test_attention_on_true_frames_is_that_of_pytorch_on_padded_ones(lengths: list[int]) -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 12, dropout=0.5, batch_first=True).double().eval()
    frames = torch.randn(sum(lengths), 8, dtype=torch.float64, requires_grad=True)
    padded = pad_sequence(frames.split(lengths), batch_first=True)
    padding = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    reference = layer(padded, src_key_padding_mask=padding)[~padding]
    ours = packed_layer(layer, frames, torch.tensor(lengths), together=3)
    close(ours, reference.detach())
    direction = torch.randn_like(ours)
    results = [torch.autograd.grad(states, [frames, *layer.parameters()], direction) for states in (ours, reference)]
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)


def test_dropout_is_in_training_alone() -> None:
    encoder = GaussianEncoder(5, 8, heads=2, feedforward_dim=8, dropout=0.5)
    frames, lengths = torch.randn(4, 6, 5), torch.tensor([6, 4, 1, 6])
    assert not torch.equal(encoder(frames, lengths)[0], encoder(frames, lengths)[0])
    encoder.eval()
    assert torch.equal(encoder(frames, lengths)[0], encoder(frames, lengths)[0])


def naive_supcon(points: Tensor, labels: list[int], temperature: float) -> float:
    """Khosla et al., NeurIPS 2020, equation 2, mean over the anchors that have a positive."""
    unit = points / points.norm(dim=1, keepdim=True)
    similarity = unit @ unit.T / temperature
    terms = []
    for anchor in range(len(points)):
        others = [i for i in range(len(points)) if i != anchor]
        positives = [i for i in others if labels[i] == labels[anchor]]
        if positives:
            denominator = torch.logsumexp(similarity[anchor, others], dim=0)
            terms.append(-float((similarity[anchor, positives] - denominator).mean()))
    return sum(terms) / len(terms)


@torch.no_grad()
@pytest.mark.parametrize("partial", [False, True], ids=["complete corpus", "corpus with gaps"])
def test_losses_are_their_formulas(partial: bool) -> None:
    model = build()
    stored = batch_of(random_utterances(12, seed=4, partial=partial))
    present = stored.present & random_batch(12, seed=4).present
    present = torch.where(present.any(dim=1, keepdim=True), present, stored.present)
    batch = replace(stored, present=present)
    losses = model.losses(batch)
    assert set(losses) == {"cls", "align", "nll", "recovery", "refine"}
    real, there = model.encode(batch.unmasked()), batch.available
    flows = [model.flow(m) for m in range(3)]

    # Absent embeddings: the inverse flow at the mean of the available flow outputs, row by row.
    points, labels, errors = [], [], []
    embeddings = real.mean.clone()
    for row, m in product(range(12), range(3)):
        if not present[row, m]:
            common = [flows[n](real.mean[row, n]) for n in range(3) if present[row, n]]
            embeddings[row, m] = flows[m].inverse(sum(common, torch.zeros(16)) / (len(common) + 1))  # κ starts at 1
        if there[row, m]:
            points.append(real.mean[row, m])
            labels.append(int(batch.labels[row]))
            if not present[row, m]:
                points.append(embeddings[row, m])
                labels.append(int(batch.labels[row]))
                errors.append(float((embeddings[row, m] - real.mean[row, m]).square().sum()))
    logits = model.classify(embeddings)
    close(model(batch), logits)
    close(losses["cls"], -logits.log_softmax(1)[torch.arange(12), batch.labels].mean())
    close(losses["recovery"], sum(errors) / max(1, len(errors)))
    close(losses["refine"], naive_supcon(torch.stack(points), labels, 0.1))
    density = [flows[m].with_density(real.mean[there[:, m], m])[1].mean() for m in range(3)]
    close(losses["nll"], -torch.stack(density).mean())
    pairs = []
    for m, n in combinations(range(3), 2):
        rows = (there[:, m] & there[:, n]).nonzero()[:, 0]
        distance = wasserstein2(real.mean[rows, m], real.std[rows, m], real.mean[rows, n], real.std[rows, n])
        pairs.append(naive_info_nce(-distance / math.sqrt(16) / 0.1))
    close(losses["align"], sum(pairs) / 3, tolerance=1e-6)


def test_classification_sees_nothing_of_what_the_mask_takes_away() -> None:
    model, batch = build().train(), random_batch(12, seed=6)
    for frames in batch.frames:
        frames.requires_grad_()
    model.losses(batch)["cls"].backward()
    for m, frames in enumerate(batch.frames):
        assert frames.grad is not None
        reached = frames.grad.flatten(1).abs().sum(dim=1) > 0
        assert reached.any()
        assert not (reached & ~batch.present[:, m]).any()


def test_likelihood_and_recovery_train_the_flows_alone() -> None:
    """Otherwise embeddings that do not differ at all would be the most likely and best recovered."""
    model = build().train()
    losses = model.losses(random_batch(12, seed=6))
    (losses["nll"] + losses["recovery"]).backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"flows"}


@pytest.mark.parametrize("phases", list(product([True, False], repeat=3)), ids=str)
def test_each_phase_can_be_switched_off(phases: tuple[bool, bool, bool]) -> None:
    on = dict(zip(PHASES, phases, strict=True))
    model = build(**on).train()
    losses = model.losses(random_batch(8, seed=1))
    expected = {"cls"}
    expected |= {"align"} if on["alignment"] else set()
    expected |= {"nll", "recovery"} if on["reconstruction"] else set()
    expected |= {"refine"} if on["refinement"] else set()
    assert set(losses) == expected
    model.total_loss(losses).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


@torch.no_grad()
def test_the_recovery_loss_is_the_error_of_the_imagined_embeddings() -> None:
    model, batch = build(), random_batch(6, seed=1)
    imagined, true = model.imagined_embeddings(batch) or (Tensor(), Tensor())
    errors = (imagined - true)[~batch.present].square().sum(dim=1)
    close(model.losses(batch)["recovery"], errors.mean().detach())
    assert build(reconstruction=False).imagined_embeddings(batch) is None


def test_without_reconstruction_an_absent_embedding_is_zero() -> None:
    model, batch = build(reconstruction=False), random_batch(6, seed=1)
    encoded = model.encode(batch.unmasked())
    embeddings = model.reconstruct(encoded.embedding, encoded.common, batch.present)
    close(embeddings, torch.where(batch.present[..., None], encoded.mean, 0.0))


@torch.no_grad()
def test_weights_of_the_terms() -> None:
    weights: dict[str, Any] = {"lambda_align": 2.0, "lambda_nll": 3.0, "lambda_recovery": 5.0, "lambda_refine": 7.0}
    terms = {"cls": 1.0, "align": 1.0, "nll": 1.0, "recovery": 1.0, "refine": 1.0}
    model = build(**weights)
    assert float(model.total_loss({name: torch.tensor(value) for name, value in terms.items()})) == 18.0


@torch.no_grad()
def test_samples_in_training_and_means_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build(), random_batch(6, seed=1).unmasked()
    evaluated = model.encode(batch)
    close(evaluated.embedding, evaluated.mean)
    model.train()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    drawn = model.encode(batch)
    close(drawn.embedding, drawn.mean + drawn.std)
    monkeypatch.undo()
    torch.manual_seed(1)
    first = model.encode(batch).embedding
    torch.manual_seed(1)
    assert torch.equal(model.encode(batch).embedding, first)


@torch.no_grad()
def test_an_utterance_is_encoded_once_however_many_rows_read_it() -> None:
    model = build()
    seen: list[int] = []
    flowed: list[int] = []
    for encoder in model.encoders.values():
        encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for flow in model.flows.values():
        flow.register_forward_pre_hook(lambda _, inputs: flowed.append(len(inputs[0])))
    rows, _ = under_conditions(batch_of(random_utterances(5, seed=2)), CONDITIONS)
    assert model(rows).shape == (35, 4)
    assert seen == flowed == [5, 5, 5]


@torch.no_grad()
@pytest.mark.parametrize(("condition", "passes"), [("avt", 0), ("at", 1), ("v", 1)])
def test_flows_are_passed_only_to_recover_what_is_absent(condition: str, passes: int) -> None:
    model, stored = build(couplings=2), batch_of(random_utterances(5, seed=2))
    passed: list[str] = []
    for name, part in model.flows.named_modules():
        if name.endswith(".hyper"):
            part.register_forward_pre_hook(lambda *_, name=name: passed.append(name))
    logits = model(under_conditions(stored, [condition])[0])
    assert len(passed) == len(set(passed)) == 3 * 2 * passes
    rows, asked = under_conditions(stored, CONDITIONS)
    close(logits, model(rows)[asked == CONDITIONS.index(condition)])


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_bfloat16_autocast_is_finite_and_near_full_precision(training: bool) -> None:
    model, batch = build().float().train(training), random_batch(16, seed=1, dtype=torch.float32)
    torch.manual_seed(0)
    full = model.losses(batch)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = model.losses(batch)
        logits = model(batch)
    model.total_loss(coarse).backward()
    assert logits.isfinite().all()
    for name, value in coarse.items():
        assert value.isfinite(), name
        assert value.item() == pytest.approx(full[name].item(), rel=0.1, abs=0.1), name
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("labels", [[2], [1, 1], [0, 1]], ids=["one utterance", "one class", "no two of a class"])
def test_losses_of_tiny_batches_are_finite(labels: list[int]) -> None:
    model, batch = build().train(), random_batch(len(labels), seed=3)
    losses = model.losses(replace(batch, labels=torch.tensor(labels)))
    model.total_loss(losses).backward()
    assert all(value.isfinite() and value.shape == () for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("options", [{"heads": 3}, {"heads": 0}, {"couplings": 1}], ids=str)
def test_impossible_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        build(**options)


def test_a_phase_is_switched_off_on_the_command_line(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", "--model.refinement", "false", *SMALL, model="CMARR", epochs=2)
    assert metrics(run)["model"] == "CMARR"
    columns = (run / "logs" / "metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"train/cls", "train/align", "train/nll", "train/recovery"} <= set(columns)
    assert "train/refine" not in columns


# What it is for.


def part(batch: Batch, rows: Tensor) -> Batch:
    """Some utterances of a batch that has one row for each."""
    audio, visual, text = (frames[rows] for frames in batch.frames)
    return replace(
        batch,
        frames=(audio, visual, text),
        lengths=batch.lengths[rows],
        index=batch.index[rows],
        labels=batch.labels[rows],
        utterances=[batch.utterances[row] for row in rows],
        row=torch.arange(len(rows)),
        present=batch.present[rows],
    )


def synthetic_batch(size: int, seed: int) -> Batch:
    """Complete utterances as in the built-in corpus, but of few frames, to be quick."""
    views = [replace(view, median_length=4.0, shortest=4, longest=4) for view in LinearGaussianCorpus().views]
    sample = LinearGaussianCorpus(views=(views[0], views[1], views[2])).sample(size, np.random.default_rng(seed))
    audio, visual, text = (list(part.values.reshape(size, 4, -1)) for part in sample.frames)
    batch = batch_of(list(zip(audio, visual, text, strict=True)), dtype=torch.float32)
    return replace(batch, labels=torch.from_numpy(sample.labels))


def test_recovered_embeddings_beat_zero_and_mean_fill_on_held_out_utterances() -> None:
    train, held_out = synthetic_batch(2048, seed=1), synthetic_batch(1024, seed=2)
    torch.manual_seed(0)
    widths = [frames.shape[-1] for frames in train.frames]
    sizes: dict[str, Any] = {"embedding_dim": 16, "feedforward_dim": 16, "flow_hidden_dim": 16, "hidden_dims": [16]}
    model = CMARR(feature_dims=widths, class_names=CLASSES, refinement=False, **sizes)  # which is the slowest part
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.05, total_iters=110)
    keys = utterance_keys(train.utterances)
    model.train()
    for step in range(110):
        present = torch.from_numpy(UniformConditions()(keys, seed=0, epoch=step))
        rows = torch.randperm(2048)[:128]
        loss = model.total_loss(model.losses(part(replace(train, present=present), rows)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        usual = model.encode(train).mean.mean(dim=0)
        real = model.encode(held_out)
        for condition in MISSING_CONDITIONS:
            present = torch.tensor(present_under(condition)).expand(len(held_out), -1)
            recovered = model.reconstruct(real.embedding, real.common, present)
            error, of_zero, of_mean = (
                (guess - real.mean)[~present].square().mean() for guess in (recovered, torch.zeros(16), usual)
            )
            assert error < of_mean, condition
            assert error < of_zero, condition
