"""Parity of the refinement with IMDer's published code (tests/data/systems/imder.npz)."""

from __future__ import annotations

from ifmmin.nn.refinement import Refinement
from tests.systems import State, below, close, load_system

GOLDEN = load_system("imder")


NAMES = {"0.": "widen.", "2.": "narrow.", "1.body.": "blocks."}


def published_refinement() -> Refinement:
    state: State = {}
    for key, value in below(GOLDEN, "param_rec/").items():
        theirs = next(prefix for prefix in NAMES if key.startswith(prefix))
        ours = NAMES[theirs] + key.removeprefix(theirs).replace("body.3.conv_du.", "weights.")
        linear = value.dim() == 3 and value.shape[2] == 1  # a convolution over one step is a linear layer
        state[ours] = value[..., 0] if linear else value
    refinement = Refinement(dim=4, width=8, blocks=2, reduction=4).double()
    refinement.load_state_dict(state)
    return refinement


def test_refinement() -> None:
    refined = published_refinement()(GOLDEN["in/x"].transpose(1, 2))
    close(refined.transpose(1, 2), GOLDEN["out/refined"])
