"""How much of an absent modality's embedding a trained model imagines, on the built-in corpus.

    python -m benchmarks.imagination runs/Synthetic/fold1/IFMMIN-seed0/run-1/checkpoints/epoch040.ckpt

Prints, per modality, the share of the variance of the teacher's embedding that the imagined one
explains where the modality is absent, over the validation split and the missing conditions: 1 is
perfect, 0 no better than the training mean, below 0 worse than it. Then, for each loss term on the
first training batch (dropout off): its weighted value, and the norm of its gradient in each trained
part: what drives that part. For IF-MMIN also the spread over utterances of the
teacher's h and H: features that do not vary carry nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from baselines import MMINWithoutCycle
from datamodules.batches.visible import under_conditions
from datamodules.conditions import MISSING_CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.synthetic import Synthetic
from ifmmin.checkpoints import load_model
from ifmmin.checkpoints.compatibility import check_same_kind
from ifmmin.model import IFMMIN


@torch.no_grad()
def explained_variance(model: IFMMIN | MMINWithoutCycle, data: Synthetic) -> dict[str, float]:
    """Per modality, 1 - error of the imagined embedding / error of the training mean."""
    model.eval()
    mean = torch.cat([model.teacher.targets(batch.unmasked()) for batch in data.in_order("train")]).mean(dim=0)
    error, spread = torch.zeros(len(MODALITIES)), torch.zeros(len(MODALITIES))
    for batch in data.in_order("val"):
        rows, _ = under_conditions(batch, MISSING_CONDITIONS)
        true = model.teacher.targets(rows)
        imagined = model.imagine(rows).imagined.view_as(true)
        for modality in range(len(MODALITIES)):
            absent = ~rows.present[:, modality]
            error[modality] += (imagined - true)[absent, modality].square().sum()
            spread[modality] += (mean - true)[absent, modality].square().sum()
    return dict(zip(MODALITIES, (1 - error / spread).tolist(), strict=True))


@torch.no_grad()
def spread_over_utterances(model: IFMMIN, data: Synthetic) -> dict[str, float]:
    """Mean over modalities and coordinates of the standard deviation of the teacher's h and H on validation."""
    h = torch.cat([model.teacher.targets(batch.unmasked()) for batch in data.in_order("val")])
    H = model.teacher_invariance(h)
    return {"h": float(h.std(dim=0).mean()), "H": float(H.std(dim=0).mean())}


def gradient_norms(model: IFMMIN | MMINWithoutCycle, data: Synthetic) -> dict[str, dict[str, float]]:
    """Per loss term, its weighted value as ``value`` and the norm of its gradient in each trained part."""
    model.eval()
    batch = next(iter(data.train_dataloader()))
    parts = dict(model.subnetworks())
    found: dict[str, dict[str, float]] = {}
    for name, loss in model.losses(batch).items():
        weighted = model.loss_weights.get(name, 1.0) * loss
        found[name] = {"value": weighted.item()}
        for part, network in parts.items():
            gradients = torch.autograd.grad(weighted, list(network.parameters()), retain_graph=True, allow_unused=True)
            squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
            found[name][part] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the shares; 1 where the checkpoint is not of an imagining model on the built-in corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="+")
    options = parser.parse_args(argv)
    try:
        for path in options.checkpoint:
            loaded, trained = load_model(path)
            if not isinstance(loaded, (IFMMIN, MMINWithoutCycle)):
                raise InputError(f"{path}: a checkpoint of {type(loaded).__name__}, which imagines no embedding.")
            data = Synthetic(fold=trained["fold"])
            check_same_kind(data, trained, path)
            data.setup("fit")
            shares = explained_variance(loaded, data)
            print(
                f"{type(loaded).__name__} {path}: "
                + ", ".join(f"{name} {share:+.3f}" for name, share in shares.items())
            )
            if isinstance(loaded, IFMMIN):
                spreads = spread_over_utterances(loaded, data)
                print("  spread over utterances: " + ", ".join(f"{k} {v:.4f}" for k, v in spreads.items()))
            for term, norms in gradient_norms(loaded, data).items():
                print(f"  {term}: " + ", ".join(f"{part} {norm:.3g}" for part, norm in norms.items()))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
