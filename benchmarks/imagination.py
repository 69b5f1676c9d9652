"""How much of an absent modality's embedding a trained model imagines, on the built-in corpus.

    python -m benchmarks.imagination runs/Synthetic/fold1/IFMMIN-seed0/run-1/checkpoints/epoch040.ckpt

Prints, per modality, the share of the variance of the teacher's embedding that the imagined one
explains where the modality is absent, over the validation split and the missing conditions: 1 is
perfect, 0 no better than the training mean, below 0 worse than it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from baselines import MMIN, MMINWithoutCycle
from datamodules.batch import MISSING_CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.missing import under_conditions
from datamodules.synthetic import Synthetic
from ifmmin.compatibility import check_same_kind, class_path, read_header
from ifmmin.model import IFMMIN

IMAGINING = {class_path(model): model for model in (IFMMIN, MMIN, MMINWithoutCycle)}


@torch.no_grad()
def explained_variance(model: IFMMIN | MMINWithoutCycle, data: Synthetic) -> dict[str, float]:
    """Per modality, 1 - error of the imagined embedding / error of the training mean."""
    model.eval()
    mean = torch.cat([model.teacher.complete(batch.complete()) for batch in data.in_order("train")]).mean(dim=0)
    error, spread = torch.zeros(len(MODALITIES)), torch.zeros(len(MODALITIES))
    for batch in data.in_order("val"):
        rows, _ = under_conditions(batch, MISSING_CONDITIONS)
        true = model.teacher.complete(rows)
        imagined = model.imagine(rows).imagined.view_as(true)
        for modality in range(len(MODALITIES)):
            absent = ~rows.present[:, modality]
            error[modality] += (imagined - true)[absent, modality].square().sum()
            spread[modality] += (mean - true)[absent, modality].square().sum()
    return dict(zip(MODALITIES, (1 - error / spread).tolist(), strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the shares; 1 where the checkpoint is not of an imagining model on the built-in corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="+")
    options = parser.parse_args(argv)
    try:
        for path in options.checkpoint:
            header = read_header(path)
            model = IMAGINING.get(header["ifmmin"]["model"])
            if model is None:
                raise InputError(f"{path}: a checkpoint of {header['ifmmin']['model']}, which imagines no embedding.")
            trained = header["ifmmin"]["data"]
            data = Synthetic(fold=trained["fold"])
            check_same_kind(data, trained, path)
            data.setup("fit")
            shares = explained_variance(model.load_from_checkpoint(path, map_location="cpu"), data)
            print(f"{model.__name__} {path}: " + ", ".join(f"{name} {share:+.3f}" for name, share in shares.items()))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
