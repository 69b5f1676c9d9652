"""Train and save the models that come with the library: ``python -m benchmarks.pretrained``.

One for each built-in corpus: the model that its board ranks first, on fold 1 with seed 0. The same commit, versions and
kind of machine give the same weights; the folder's ``README.md`` has what they score.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ifmmin.cli.main import main as ifmmin
from ifmmin.sharing.hub import SHIPPED, shipped_folder

MODELS = {"privileged": ("Privileged", "LinearImputation"), "synthetic": ("Synthetic", "LinearImputation")}
"""Corpus and model of each."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train the models and save them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHIPPED)}; by default all")
    parser.add_argument("--output", type=Path, help="folder of the folders; by default the library's own")
    options = parser.parse_args(argv)
    if unknown := sorted({*options.names} - {*SHIPPED}):
        raise SystemExit(f"error: {unknown[0]}: no model of {', '.join(SHIPPED)}.")
    for name in options.names or SHIPPED:
        folder = shipped_folder(name) if options.output is None else options.output / name
        if code := train_and_save(*MODELS[name], folder):
            return code
    return 0


def train_and_save(corpus: str, model: str, folder: Path) -> int:
    """Fit a model on fold 1 of a corpus and save it, in place of one that was saved there; the exit code."""
    with tempfile.TemporaryDirectory() as runs:
        run = Path(runs) / "run"
        if code := ifmmin(["fit", "--model", model, "--data", corpus, "--run_dir", str(run)]):
            return code
        (checkpoint,) = (run / "checkpoints").glob("epoch*.ckpt")
        return ifmmin(["save", str(checkpoint), str(folder), "--overwrite"])


if __name__ == "__main__":
    sys.exit(main())
