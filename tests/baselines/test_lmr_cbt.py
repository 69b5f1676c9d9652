"""LMR-CBT's cross-modal block against lf_mcl_lmr_gcnet.npz (tests/data/systems, float64), and the model row by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.lmr_cbt import LMRCBT, Convolution, GatedBlock, Recurrence
from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.systems import below, close, load_system

GOLDEN = load_system("lf_mcl_lmr_gcnet")


def published_block() -> GatedBlock:
    """The published weights; the score's bias changes no softmax."""
    parameters, block = below(GOLDEN, "param_lmr_cross/"), GatedBlock(4).double()
    names = {"channel_affine.": "sequence.", "y_affine.": "vector.", "attn_weight_affine.": "score."}
    state = {ours + key: v for theirs, ours in names.items() for key, v in below(parameters, theirs).items()}
    del state["score.bias"]
    load_part(block, state, "block")
    return block


@torch.no_grad()
def test_published_block() -> None:
    """What takes the place of the sequence there."""
    mixed = published_block().mix(GOLDEN["in_lmr/text"], GOLDEN["in_lmr/other"])
    close(mixed.softmax(dim=2), GOLDEN["out_lmr/cross_block"])


@torch.no_grad()
def test_corrected_block() -> None:
    x, y, block = GOLDEN["in_lmr/text"], GOLDEN["in_lmr/other"], published_block()
    close(block.weights(x, y), GOLDEN["corrected_lmr/attention_over_time"])
    close(block(x, y, torch.tensor([True, True])), GOLDEN["corrected_lmr/residual_weighted_text"])
    weighed = block(x, y, torch.tensor([False, True]))
    assert torch.equal(weighed[0], x[0])
    close(weighed[1], GOLDEN["corrected_lmr/residual_weighted_text"][1])


@torch.no_grad()
def test_local_layers_read_each_sequence_in_time() -> None:
    torch.manual_seed(0)
    frames = torch.randn(3, 6, 5).double()
    recurrence = Recurrence(5, 8, input_dropout=0.3, dropout=0.5).double().eval()
    convolution = Convolution(5, 4).double()
    for row in range(3):
        states = frames[row]
        for layer in range(2):
            both = []
            for suffix, direction in (("", 1), ("_reverse", -1)):
                cell = nn.LSTMCell(states.shape[1], 4).double()
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(cell, name).copy_(recurrence.rnn.get_parameter(f"{name}_l{layer}{suffix}"))
                h, c, found = torch.zeros(4).double(), torch.zeros(4).double(), []
                for step in states.flip(0) if direction < 0 else states:
                    h, c = cell(step, (h, c))
                    found.append(h)
                both.append(torch.stack(found[::direction]))
            states = torch.cat(both, dim=1)
        torch.testing.assert_close(recurrence(frames)[row], recurrence.norm(states))
        weight = convolution.convolution.weight
        windows = [sum((weight[..., k] @ frames[row, t + k] for k in range(3)), torch.zeros(4)) for t in range(4)]
        torch.testing.assert_close(convolution(frames)[row], convolution.norm(torch.stack(windows)))


def small(**options: Any) -> LMRCBT:
    torch.manual_seed(0)
    sizes = {"steps": 4, "dim": 8, "heads": 2, "layers": 2}
    return LMRCBT(feature_dims=list(DIMS), class_names=CLASSES, **sizes | options).double().eval()


def alone(model: LMRCBT, batch: Batch, row: int) -> Tensor:
    """h [3, d] of one row, step by step as the docstring has it."""
    stored, shown = int(batch.row[row]), batch.present[row].tolist()
    frames = [pool_steps(batch.frames[m][[stored]], batch.lengths[[stored], m], 4) for m in range(3)]
    h = torch.zeros(3, 8).double()
    for m, name in ((0, "audio"), (1, "visual")):
        if shown[m]:
            h[m] = model.transformers[name](model.local[name](frames[m]))[0, -1]
    if shown[2]:
        x = model.local["text"](frames[2])
        for m, name in ((1, "visual"), (0, "audio")):
            if shown[m]:
                block = model.blocks[name]
                assert isinstance(block, GatedBlock)
                scores = [block.score(torch.tanh(block.sequence(step) + block.vector(h[m]))) for step in x[0]]
                x = x * (1 + torch.cat(scores).softmax(dim=0))[None, :, None]
        h[2] = model.transformers["text"](x)[0, -1]
    return h


@torch.no_grad()
def test_vectors_and_answers_row_by_row() -> None:
    model, batch = small(), random_batch(12)
    for read in (batch, batch.unmasked()):
        h, outputs = model.modality_embeddings(read), model(read)
        for row in range(len(read)):
            expected = alone(model, read, row)
            torch.testing.assert_close(h[row], expected)
            torch.testing.assert_close(outputs[row], model.classifier(expected.flatten()))
    entropies = [-model(batch)[row].log_softmax(0)[label] for row, label in enumerate(batch.label.tolist())]
    torch.testing.assert_close(model.losses(batch)["cls"], torch.stack(entropies).mean())


def test_the_contract_without_blocks() -> None:
    check_model(LMRCBT, blocks=False, steps=4, dim=8, heads=2, layers=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": 3}, "heads 3"), ({"dim": 9, "heads": 3}, "dim 9"), ({"steps": 2}, "steps 2")],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**options)
