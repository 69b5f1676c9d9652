"""What is measured of one trained model, as numbers by name.

``explained_variance`` by modality
    1 - (squared error of the imagined embedding) / (squared error of the training mean), summed over the rows of the
    validation split under the missing conditions in which the modality is absent: 1 is perfect, 0 the training mean.
``std`` of ``h``, ``H`` and ``H/h``
    Standard deviation over validation utterances, mean over modalities and coordinates; and its ratio.
``modality_told``, ``emotion_told`` from ``h``, ``H`` and ``chance``
    See :mod:`benchmarks.imagination.probes`.
``loss_start``, ``loss_end`` by term
    Mean over the first and over the last epoch, not weighted, from the run's own logs.
``weighted_loss`` by term, ``gradient`` by ``term/part``
    On the first training batch with dropout off: the weighted value, and the norm of its gradient in a trained part.
``dead_units``, ``units`` by part and ``all``
    See :mod:`benchmarks.imagination.dead_units`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.imagination import probes
from benchmarks.imagination.dead_units import count_units
from benchmarks.imagination.subjects import Subject
from datamodules.base import EmotionDataModule
from datamodules.batches.visible import under_conditions
from datamodules.conditions import MISSING_CONDITIONS, MODALITIES
from ifmmin.base import MissingModalityModule

Values = dict[tuple[str, str], float]
"""Numbers by measure and what they are of."""


def measure(model: MissingModalityModule, data: EmotionDataModule, subject: Subject) -> Values:
    """Measure everything that the model has."""
    model.eval()
    values: Values = {}
    for modality, share in explained_variance(model, data).items():
        values["explained_variance", modality] = share
    values |= _of_features(model, data)
    terms = gradient_norms(model, data)
    for term, norms in terms.items():
        curve = subject.logged(f"{model.log_prefix}train/{term}")
        if curve:
            values["loss_start", term] = curve[min(curve)]
            values["loss_end", term] = curve[max(curve)]
        for part, norm in norms.items():
            values[("weighted_loss", term) if part == "value" else ("gradient", f"{term}/{part}")] = norm
    for part, (dead, units) in count_units(model, data).items():
        values["dead_units", part], values["units", part] = dead / units, units
    return values


@torch.no_grad()
def explained_variance(model: MissingModalityModule, data: EmotionDataModule) -> dict[str, float]:
    """Compute the share of the variance of the true embeddings that the imagined ones explain, by modality.

    Returns:
        {} of a model that imagines no embedding; without a modality whose true embeddings do not vary.
    """
    mean = _training_mean(model, data)
    if mean is None:
        return {}
    conditions = [condition for condition in MISSING_CONDITIONS if model.answers(condition)]
    error, spread = torch.zeros(len(MODALITIES)).double(), torch.zeros(len(MODALITIES)).double()
    for batch in data.in_order("val"):
        rows, _ = under_conditions(batch, conditions)
        pair = model.imagined_embeddings(rows) if len(rows) else None
        if pair is None:
            continue
        imagined, true = pair
        absent = batch.available[rows.row] & ~rows.present
        for modality in range(len(MODALITIES)):
            here = absent[:, modality]
            guessed, wanted = imagined[here, modality].double(), true[here, modality].double()
            error[modality] += (guessed - wanted).square().sum()
            spread[modality] += (mean[modality] - wanted).square().sum()
    shares = (1 - error / spread).tolist()
    return {name: share for name, share, s in zip(MODALITIES, shares, spread.tolist(), strict=True) if s > 0}


def _training_mean(model: MissingModalityModule, data: EmotionDataModule) -> Tensor | None:
    """Mean [3, E] of the true embeddings over the training utterances; None of a model that imagines none."""
    total, count = torch.zeros(()).double(), torch.zeros(len(MODALITIES), 1).double()
    for batch in data.in_order("train"):
        pair = model.imagined_embeddings(batch.unmasked())
        if pair is None:
            return None
        there = batch.available[..., None]
        total = total + pair[1].double().masked_fill(~there, 0.0).sum(dim=0)
        count += there.sum(dim=0)
    return total / count.clamp(min=1)


def _of_features(model: MissingModalityModule, data: EmotionDataModule) -> Values:
    """Spread of h and H, and what probes tell from them."""
    values: Values = {}
    computed: dict[str, Callable[..., Tensor | None]] = {"h": model.modality_embeddings, "H": model.invariant_features}
    for name, compute in computed.items():
        train, held_out = (probes.read_features(compute, data, split) for split in ("train", "val"))
        if train is None or held_out is None:
            continue
        values["std", name] = held_out.spread()
        targets = ("modality", "emotion") if model.task.name == "classification" else ("modality",)
        for target in targets:
            values[f"{target}_told", name] = probes.told(train, held_out, target)
            values[f"{target}_told", "chance"] = probes.chance(train, held_out, target)
    if ("std", "H") in values and values.get(("std", "h"), 0.0) > 0:
        values["std", "H/h"] = values["std", "H"] / values["std", "h"]
    return values


def gradient_norms(model: MissingModalityModule, data: EmotionDataModule) -> dict[str, dict[str, float]]:
    """Per loss term, its weighted value as ``value`` and the norm of its gradient in each trained part."""
    model.eval()
    batch = next(iter(data.train_dataloader()))
    found: dict[str, dict[str, float]] = {}
    for name, loss in model.losses(batch).items():
        weighted = model.loss_weights.get(name, 1.0) * loss
        found[name] = {"value": weighted.item()}
        for part, network in model.subnetworks():
            parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
            gradients: tuple[Tensor | None, ...] = ()
            if weighted.requires_grad:
                gradients = torch.autograd.grad(weighted, parameters, retain_graph=True, allow_unused=True)
            squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
            found[name][part] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return found
