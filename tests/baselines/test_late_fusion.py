"""LateFusion's parity with LF-RNN and LF-Transformer (tests/data/systems/lf_mcl_lmr_gcnet.npz), and its own parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from baselines.late_fusion import AnswerFusion, BidirectionalLSTM, ClassTokenTransformer, LateFusion
from datamodules.batches.batch import Batch
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch, random_present
from tests.systems import State, below, close, load_system

GOLDEN = load_system("lf_mcl_lmr_gcnet")
NAMES = {"audio": "a", "visual": "v", "text": "t"}
ORDER = [1, 2, 0]
"""Of audio, visual, text in the published weights, which are of text, audio, visual."""


def golden_batch() -> Batch:
    lengths = [GOLDEN["in_lf/audio_lengths"], GOLDEN["in_lf/visual_lengths"], torch.full((3,), 5)]
    audio, visual = (
        pad_sequence(list(GOLDEN[f"in_lf/{name}_concatenated"].split(counts.tolist())), batch_first=True)
        for name, counts in zip(("audio", "visual"), lengths, strict=False)
    )
    return Batch(
        frames=(audio, visual, GOLDEN["in_lf/text"]),
        lengths=torch.stack(lengths, dim=1),
        index=torch.arange(3),
        labels=torch.tensor([0, 3, 1]),
        utterances=["0", "1", "2"],
        row=torch.arange(3),
        present=GOLDEN["in_lf/present_audio_visual_text"],
    )


def heads(published: State) -> State:
    """The published two linear layers of each modality under our names."""
    renamed = {"0.": "hidden.0.", "2.": "output."}
    return {
        f"{name}.{ours}{kind}": published[f"affines.{short}.{theirs}{kind}"]
        for name, short in NAMES.items()
        for theirs, ours in renamed.items()
        for kind in ("weight", "bias")
    }


def recurrent(**options: Any) -> LateFusion:
    """LF-RNN with the published weights; its states are as wide as the frames."""
    model = LateFusion(feature_dims=[4, 5, 6], class_names=CLASSES, widths=[4, 5, 6], **options).double().eval()
    published = below(GOLDEN, "param_lf_rnn/")
    for name, short in NAMES.items():
        encoder = model.encoders[name]
        assert isinstance(encoder, BidirectionalLSTM)
        both = below(published, f"rnns.{short}.")
        load_part(encoder.forwards, {key: v for key, v in both.items() if not key.endswith("_reverse")}, name)
        turned = {key.removesuffix("_reverse"): v for key, v in both.items() if key.endswith("_reverse")}
        load_part(encoder.backwards, turned, name)
    load_part(model.heads, heads(published), "heads")
    return model


@torch.no_grad()
def test_corrected_lf_rnn_each_modality_by_itself() -> None:
    batch = golden_batch()
    alone = recurrent().answers_alone(batch.unmasked())
    for position, short in enumerate(NAMES.values()):
        close(alone[:, position], GOLDEN[f"corrected_lf_rnn/logits_{short}_true_lengths_final_states"])
    # The published linear layer over the three, of complete rows; ours has shares that add up to 1.
    weights = GOLDEN["param_lf_rnn/weighted_fusion.weight"][0, ORDER]
    close((weights[:, None] * alone).sum(dim=1), GOLDEN["corrected_lf_rnn/logits_sum_of_weighted"])


@torch.no_grad()
def test_corrected_lf_rnn_mean_of_what_is_present() -> None:
    close(recurrent()(golden_batch()), GOLDEN["corrected_lf_rnn/logits_mean_of_present"])


@torch.no_grad()
def test_corrected_lf_rnn_softmax_weights_of_what_is_present() -> None:
    model = recurrent(weighting="learnt")
    model.fusion.weights.copy_(GOLDEN["param_lf_rnn/weighted_fusion.weight"][0, ORDER])
    close(model(golden_batch()), GOLDEN["corrected_lf_rnn/logits_softmax_weights_of_present"])


def transformers() -> dict[str, ClassTokenTransformer]:
    """LF-Transformer's encoders with the published weights; it reads frames without a projection."""
    published, made = below(GOLDEN, "param_lf_transformer/"), {}
    for (name, short), width, heads in zip(NAMES.items(), (4, 5, 6), (2, 1, 2), strict=True):
        encoder = ClassTokenTransformer(width, width, layers=1, heads=heads, feedforward_dim=8, dropout=0.0).double()
        state = below(published, f"transformers.{short}.")
        layers = {key.removeprefix("encoder."): v for key, v in state.items() if key.startswith("encoder.")}
        unprojected = {"project.weight": torch.eye(width), "project.bias": torch.zeros(width)}
        load_part(encoder, {**layers, **unprojected, "token": state["cls_emb.weight"][0]}, name)
        made[name] = encoder.eval()
    return made


@torch.no_grad()
def test_lf_transformer() -> None:
    batch, encoders = golden_batch(), transformers()
    embeddings = [
        encoder(frames, lengths)
        for encoder, frames, lengths in zip(encoders.values(), batch.frames, batch.lengths.T, strict=True)
    ]
    close(embeddings[0], GOLDEN["out_lf_transformer/cls_audio"])
    published = below(GOLDEN, "param_lf_transformer/")
    answers = [
        F.linear(
            F.linear(e, published[f"affines.{short}.0.weight"], published[f"affines.{short}.0.bias"]).relu(),
            published[f"affines.{short}.2.weight"],
            published[f"affines.{short}.2.bias"],
        )
        for e, short in zip(embeddings, NAMES.values(), strict=True)
    ]
    weights = published["weighted_fusion.weight"][0, ORDER]
    close((weights[:, None] * torch.stack(answers, dim=1)).sum(dim=1), GOLDEN["out_lf_transformer/logits"])


def test_the_lstm_is_a_bidirectional_one_that_reads_true_frames() -> None:
    torch.manual_seed(0)
    encoder, reference = BidirectionalLSTM(3, 2).double(), nn.LSTM(3, 2, bidirectional=True, batch_first=True).double()
    for suffix, rnn in (("", encoder.forwards), ("_reverse", encoder.backwards)):
        for name, parameter in rnn.named_parameters():
            reference.get_parameter(name + suffix).data.copy_(parameter.data)
    frames, lengths = torch.randn(5, 7, 3).double(), torch.tensor([1, 7, 3, 2, 5])
    packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
    _, (ends, _) = reference(packed)
    torch.testing.assert_close(encoder(frames, lengths), torch.cat([ends[0], ends[1]], dim=1))


def test_the_class_token_attends_to_true_frames() -> None:
    """Against PyTorch's own stack of layers, each sequence alone."""
    torch.manual_seed(0)
    encoder = ClassTokenTransformer(3, 8, layers=2, heads=2, feedforward_dim=16, dropout=0.3).double().eval()
    frames, lengths = torch.randn(4, 6, 3).double(), torch.tensor([6, 1, 4, 3])
    for row, length in enumerate(lengths.tolist()):
        states = torch.cat([encoder.token[None, None], encoder.project(frames[row : row + 1, :length])], dim=1)
        for layer in encoder.layers:
            states = layer(states)
        torch.testing.assert_close(encoder(frames, lengths)[row], states[0, 0])


@pytest.mark.parametrize("weighting", ["mean", "learnt"])
def test_the_answer_is_the_weighted_mean_row_by_row(weighting: Any) -> None:
    fusion = AnswerFusion(weighting)
    weights = torch.tensor([0.3, -1.0, 2.0]) if weighting == "learnt" else torch.zeros(3)
    fusion.weights.data.copy_(weights)
    answers, present = torch.randn(6, 3, 4), torch.from_numpy(random_present(6))
    for row in range(6):
        there = present[row].nonzero()[:, 0].tolist()
        total = sum(float(weights[m].exp()) for m in there)
        expected = sum((float(weights[m].exp()) / total * answers[row, m] for m in there), torch.zeros(4))
        torch.testing.assert_close(fusion(answers, present)[row], expected)


def test_the_losses_row_by_row() -> None:
    torch.manual_seed(0)
    model, batch = LateFusion(feature_dims=list(DIMS), class_names=CLASSES).double().eval(), random_batch(12)
    losses, alone = model.losses(batch), model.answers_alone(batch)

    def entropy(logits: Tensor, label: int) -> Tensor:
        return -logits.log_softmax(0)[label]

    fused, single = [], []
    for row, label in enumerate(batch.label.tolist()):
        there = batch.present[row].nonzero()[:, 0].tolist()
        fused.append(entropy(torch.stack([alone[row, m] for m in there]).mean(0), label))
        single += [entropy(alone[row, m], label) for m in there]
    torch.testing.assert_close(losses["cls"], torch.stack(fused).mean())
    torch.testing.assert_close(losses["alone"], torch.stack(single).mean())


@pytest.mark.parametrize("options", [{"form": "transformer"}, {"weighting": "learnt"}], ids=str)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(LateFusion, **options)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="widths"):
        LateFusion(feature_dims=list(DIMS), class_names=CLASSES, widths=[8])
    with pytest.raises(InputError, match="heads 3"):
        LateFusion(feature_dims=list(DIMS), class_names=CLASSES, form="transformer", heads=3)
    LateFusion(feature_dims=list(DIMS), class_names=CLASSES, heads=3)  # no attention, no heads
