"""MISA's parity with its published code (tests/data/systems/misa.npz, float64), and its own parts."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from baselines.misa import MISA
from baselines.misa.model import predicted
from baselines.misa.networks import BidirectionalStates, MeanFrame, PresentAttention, StackedLSTMs
from datamodules.batches.batch import Batch
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch, random_present
from tests.ifmmin.nn.test_subspaces import naive_orthogonality
from tests.systems import State, below, close, load_system

GOLDEN = load_system("misa")
PARAMETERS = below(GOLDEN, "param/")
NAMES = {"audio": "a", "visual": "v", "text": "t"}
PUBLISHED = ("t", "v", "a")
"""Order of the published tokens."""
PRIVATE = {"a": "private_a_3", "v": "private_v_1", "t": "private_t_1"}


def golden_batch(present: Tensor | None = None) -> Batch:
    lengths = [GOLDEN["in/lengths"], GOLDEN["in/lengths"], GOLDEN["in/text_mask"].sum(dim=1).long()]
    frames = (GOLDEN["in/audio_time_first"].transpose(0, 1), GOLDEN["in/visual_time_first"].transpose(0, 1))
    rows = len(GOLDEN["in/labels"])
    return Batch(
        frames=(*frames, GOLDEN["in/text"]),
        lengths=torch.stack(lengths, dim=1),
        index=torch.arange(rows),
        labels=GOLDEN["in/labels"],
        utterances=[str(row) for row in range(rows)],
        row=torch.arange(rows),
        present=torch.ones(rows, 3, dtype=torch.bool) if present is None else present,
    )


def renamed(state: State, names: dict[str, str]) -> State:
    return {ours + key: value for theirs, ours in names.items() for key, value in below(state, theirs).items()}


def lstms(short: str) -> State:
    """Both bidirectional LSTMs of a modality, and the norm between them, under our names."""
    state: State = renamed(PARAMETERS, {f"{short}layer_norm.": "between."})
    for theirs, ours in ((f"{short}rnn1.", "first."), (f"{short}rnn2.", "second.")):
        for key, value in below(PARAMETERS, theirs).items():
            turned = key.endswith("_reverse")
            state[f"{ours}{'backwards' if turned else 'forwards'}.{key.removesuffix('_reverse')}"] = value
    return state


def published() -> MISA:
    """The original MISA with the published weights."""
    width = int(GOLDEN["const/hidden"])
    model = MISA(
        feature_dims=[5, 4, 10],
        class_names=["0", "1", "2"],
        original=True,
        embedding_dim=width,
        heads=int(GOLDEN["const/heads"]),
        feedforward_dim=int(GOLDEN["const/feedforward"]),
    ).double()
    for name, short in NAMES.items():
        projection = {
            f"project_{short}.project_{short}.": "project.",
            f"project_{short}.project_{short}_layer_norm.": "norm.",
        }
        state = renamed(PARAMETERS, projection) | ({} if short == "t" else lstms(short))
        load_part(model.encoders[name], state, name)
        load_part(model.private[name], below(PARAMETERS, f"private_{short}.{PRIVATE[short]}."), name)
        load_part(model.reconstruct[name], below(PARAMETERS, f"recon_{short}.recon_{short}_1."), name)
    load_part(model.shared, renamed(PARAMETERS, {"shared.shared_1.": "0."}), "shared")
    load_part(model.fusion.layer, below(PARAMETERS, "transformer_encoder.layers.0."), "fusion")
    head = renamed(PARAMETERS, {"fusion.fusion_layer_1.": "hidden.0.", "fusion.fusion_layer_3.": "output."})
    # The published tokens are text, visual, audio; ours audio, visual, text.
    blocks = head["hidden.0.weight"].unflatten(1, (2, 3, width))
    head["hidden.0.weight"] = blocks.flip(2).flatten(1)
    load_part(model.classifier, head, "classifier")
    return model.eval()


@torch.no_grad()
def test_utterance_before_projection() -> None:
    batch, encoder = golden_batch(), published().encoders["audio"]
    assert isinstance(encoder, StackedLSTMs)
    close(encoder.pool(batch.frames[0], batch.lengths[:, 0]), GOLDEN["out/audio_utterance_before_projection"])


@torch.no_grad()
def test_embeddings() -> None:
    model = published()
    parts = model.split(golden_batch())
    reconstructed = model.reconstruct(parts.private + parts.shared)
    for m, short in enumerate(NAMES.values()):
        close(parts.embeddings[:, m], GOLDEN[f"out/{short}_orig"])
        close(parts.private[:, m], GOLDEN[f"out/{short}_private"])
        close(parts.shared[:, m], GOLDEN[f"out/{short}_shared"])
        close(reconstructed[:, m], GOLDEN[f"out/{short}_recon"])


@torch.no_grad()
def test_answer() -> None:
    close(published()(golden_batch()), GOLDEN["out/logits"])


@torch.no_grad()
def test_losses_and_their_sum() -> None:
    model = published()
    losses = model.losses(golden_batch())
    published_names = {
        "cls": "cross_entropy",
        "diff": "difference",
        "sim": "similarity_cmd5",
        "recon": "reconstruction",
    }
    assert losses.keys() == published_names.keys()
    for name, theirs in published_names.items():
        close(losses[name], GOLDEN[f"loss/{theirs}"])
    for name in ("diff", "sim", "recon"):
        assert model.loss_weights[name] == float(GOLDEN[f"const/{name}_weight"])
    close(model.total_loss(losses), GOLDEN["loss/total_published_weights"])


@torch.no_grad()
def test_corrected_answer_of_what_is_present() -> None:
    present = GOLDEN["in/present_audio_visual_text"]
    close(published()(golden_batch(present)), GOLDEN["corrected/logits_absent_tokens_masked_and_zeroed"])


@torch.no_grad()
def test_corrected_similarity_over_the_rows_that_have_both() -> None:
    batch = golden_batch(GOLDEN["in/present_audio_visual_text"])
    close(published().losses(batch)["sim"], GOLDEN["corrected/cmd5_rows_with_both"])


def test_states_are_those_of_a_bidirectional_lstm_over_true_frames() -> None:
    torch.manual_seed(0)
    ours, reference = BidirectionalStates(3, 2).double(), nn.LSTM(3, 2, bidirectional=True, batch_first=True).double()
    for suffix, rnn in (("", ours.forwards), ("_reverse", ours.backwards)):
        for name, parameter in rnn.named_parameters():
            reference.get_parameter(name + suffix).data.copy_(parameter.data)
    frames, lengths = torch.randn(5, 7, 3).double(), torch.tensor([1, 7, 3, 2, 5])
    packed, (ends, _) = reference(pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    states, last = ours(frames, lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(states[row, :length], expected[row, :length])
    torch.testing.assert_close(last, ends.transpose(0, 1))


def test_recurrent_weights_begin_orthogonal() -> None:
    for name, weight in StackedLSTMs(4, 8).named_parameters():
        if "weight_hh" in name:
            torch.testing.assert_close(weight.T @ weight, torch.eye(4), atol=1e-5, rtol=0)


def test_mean_frame_ignores_what_is_behind_the_last() -> None:
    encoder, frames = MeanFrame(2, 3), torch.tensor([[[1.0, 2.0], [3.0, 4.0], [99.0, 99.0]]])
    torch.testing.assert_close(encoder.pool(frames, torch.tensor([2])), torch.tensor([[2.0, 3.0]]))


@torch.no_grad()
def test_attention_is_that_of_each_row_alone_over_its_tokens() -> None:
    torch.manual_seed(0)
    part = PresentAttention(8, 2, 16, dropout=0.3).double().eval()
    tokens, shown = torch.randn(6, 6, 8).double(), torch.from_numpy(random_present(6)).repeat(1, 2)
    found = part(tokens.masked_fill(~shown[..., None], torch.nan), shown)
    for row in range(6):
        expected = torch.zeros(6, 8, dtype=torch.float64)
        expected[shown[row]] = part.layer(tokens[row : row + 1, shown[row]])[0]
        torch.testing.assert_close(found[row], expected)


def made(**options: Any) -> MISA:
    torch.manual_seed(0)
    small: dict[str, Any] = {"embedding_dim": 8, "text_channels": 8, "feedforward_dim": 16}
    return MISA(feature_dims=list(DIMS), class_names=CLASSES, **(small | options)).double().eval()


@torch.no_grad()
def test_the_losses_of_what_is_present_row_by_row() -> None:
    model, batch = made(lambda_missing=0.5), random_batch(18)
    losses, present = model.losses(batch), batch.present.numpy()
    u, p, s = (part.numpy() for part in model.split(batch.unmasked()))
    guess = model.reconstruct(torch.from_numpy(p + s)).numpy()
    outputs = model(batch)
    expected = [-outputs[row].log_softmax(0)[label] for row, label in enumerate(batch.label.tolist())]
    torch.testing.assert_close(losses["cls"], torch.stack(expected).mean())

    diff = sum(naive_orthogonality(p[present[:, m], m], s[present[:, m], m]) for m in range(3))
    similarities = []
    for m, n in combinations(range(3), 2):
        both = present[:, m] & present[:, n]
        diff += naive_orthogonality(p[both, m], p[both, n])
        x, y = s[both, m], s[both, n]
        means = x.mean(0), y.mean(0)
        terms = [np.linalg.norm(means[0] - means[1])]
        terms += [np.linalg.norm(((x - means[0]) ** k).mean(0) - ((y - means[1]) ** k).mean(0)) for k in (2, 3, 4, 5)]
        similarities.append(float(sum(terms)))
    assert float(losses["diff"]) == pytest.approx(diff)
    assert float(losses["sim"]) == pytest.approx(np.mean(similarities))

    recon, missing = [], []
    for row in range(18):
        there = [m for m in range(3) if present[row, m]]
        recon += [((guess[row, m] - u[row, m]) ** 2).mean() for m in there]
        mean = np.mean([s[row, m] for m in there], axis=0)
        missing += [((mean - s[row, m]) ** 2).mean() for m in range(3) if m not in there]
    assert float(losses["recon"]) == pytest.approx(np.mean(recon))
    assert float(losses["missing"]) == pytest.approx(np.mean(missing))


def test_missing_modalities_teach_and_are_not_taught() -> None:
    """L_missing has a gradient to s of what is present alone."""
    shared = torch.randn(1, 3, 4, requires_grad=True)
    present = torch.tensor([[True, False, True]])
    F.mse_loss(predicted(shared, present)[:, 1], shared[:, 1].detach()).backward()
    assert shared.grad is not None
    assert shared.grad[0].any(dim=1).tolist() == [True, False, True]


def test_hidden_frames_are_read_for_the_missing_term_alone() -> None:
    assert not made().needs.hidden_frames
    assert made(lambda_missing=0.1).needs.hidden_frames
    assert "missing" not in made().losses(random_batch(6))


def test_weights_and_dropout_follow_the_form_unless_they_are_given() -> None:
    weights = ("diff", "sim", "recon")
    for options, expected, rate in (
        ({}, [0.06, 0.2, 0.2], 0.5),
        ({"original": True}, [0.3, 1.0, 1.0], 0.1),
        ({"original": True, "lambda_sim": 0.0, "fusion_dropout": 0.2}, [0.3, 0.0, 1.0], 0.2),
    ):
        model = made(**options)
        assert [model.loss_weights[name] for name in weights] == expected
        assert model.fusion.layer.dropout.p == rate


@pytest.mark.parametrize("options", [{"original": True}, {"lambda_missing": 0.5}], ids=str)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(MISA, embedding_dim=8, text_channels=8, feedforward_dim=16, **options)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InputError, match="heads 3"):
        made(heads=3)
