from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES
from ifmmin.nn.encoders import LSTMEncoder, ModalityEncoders, Pooling, SequenceEncoder, TextCNN
from ifmmin.nn.heads import Classifier, InvarianceActivation, InvarianceEncoder
from ifmmin.nn.initialisation import initialise
from ifmmin.nn.padding import frame_mask
from tests.batches import DIMS, Utterance, batch_of, random_batch, random_present, random_utterances

FloatArray = npt.NDArray[np.float64]
Kind = Literal["max", "last", "attention", "cnn"]

WIDTH = 6


def array(tensor: Tensor) -> FloatArray:
    return tensor.detach().numpy()


def sigmoid(x: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-x))


# One sequence at a time, straight from the definitions.


def naive_lstm(encoder: LSTMEncoder, frames: FloatArray) -> FloatArray:
    weights = [getattr(encoder.rnn, f"{kind}_l0") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    W, U, b, c = map(array, weights)
    state = cell = np.zeros(encoder.embedding_dim)
    states: list[FloatArray] = []
    for frame in frames:
        i, f, g, o = np.split(W @ frame + b + U @ state + c, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        state = sigmoid(o) * np.tanh(cell)
        states.append(state)
    if encoder.pooling == "last":
        return states[-1]
    if encoder.pooling == "max":
        return np.asarray(np.max(states, axis=0))
    A, a, u = map(array, (encoder.attention.weight, encoder.attention.bias, encoder.attention_vector.weight[0]))
    scores = np.array([np.exp(u @ np.tanh(A @ state + a)) for state in states])
    weighted = [score * state for score, state in zip(scores / scores.sum(), states, strict=True)]
    return np.asarray(np.sum(weighted, axis=0))


def naive_cnn(encoder: TextCNN, frames: FloatArray) -> FloatArray:
    missing = max(0, 5 - len(frames))  # a short text is followed by zero frames up to the largest width
    frames = np.concatenate([frames, np.zeros((missing, frames.shape[1]))])
    pooled = []
    for layer in encoder.convolutions:
        assert isinstance(layer, nn.Conv1d) and layer.bias is not None
        weight, bias = array(layer.weight), array(layer.bias)
        for kernel, offset in zip(weight, bias, strict=True):
            best = 0.0  # of the ReLU
            for start in range(len(frames) - kernel.shape[1] + 1):
                window = frames[start : start + kernel.shape[1]]
                best = max(best, float((kernel.T * window).sum() + offset))
            pooled.append(best)
    return np.asarray(np.maximum(array(encoder.output.weight) @ np.array(pooled) + array(encoder.output.bias), 0))


def naive(encoder: SequenceEncoder, frames: FloatArray) -> FloatArray:
    if isinstance(encoder, LSTMEncoder):
        return naive_lstm(encoder, frames)
    assert isinstance(encoder, TextCNN)
    return naive_cnn(encoder, frames)


def encoder_of(kind: Kind, dtype: torch.dtype = torch.float64, **options: Any) -> SequenceEncoder:
    torch.manual_seed(0)
    made: SequenceEncoder
    if kind == "cnn":
        made = TextCNN(DIMS[2], WIDTH, channels=4, **options)
        # Biases that are not zero, so that the model cannot get padding right by accident.
        for layer in made.convolutions:
            assert isinstance(layer.bias, Tensor)
            nn.init.normal_(layer.bias)
        nn.init.uniform_(made.output.bias, 0.5, 1.0)
    else:
        made = LSTMEncoder(DIMS[2], WIDTH, kind, **options)
    return made.to(dtype).eval()


KINDS: tuple[Kind, ...] = ("max", "last", "attention", "cnn")


def padded(sequences: list[FloatArray], extra: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    lengths = [len(frames) for frames in sequences]
    stack = torch.zeros(len(sequences), max(lengths) + extra, sequences[0].shape[1], dtype=dtype)
    for position, frames in enumerate(sequences):
        stack[position, : len(frames)] = torch.from_numpy(frames)
    return stack, torch.tensor(lengths)


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    extra=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize("kind", KINDS)
def test_each_sequence_is_encoded_as_if_alone(kind: Kind, lengths: list[int], extra: int, seed: int) -> None:
    """Neither padding nor company changes an embedding, in float64 against the definition."""
    encoder = encoder_of(kind)
    rng = np.random.default_rng(seed)
    sequences = [rng.standard_normal((T, DIMS[2])) for T in lengths]
    embedded = array(encoder(*padded(sequences, extra, torch.float64)))
    for ours, frames in zip(embedded, sequences, strict=True):
        np.testing.assert_allclose(ours, naive(encoder, frames), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["max", "last", "attention"])
def test_the_gradients_are_those_of_each_sequence_alone(kind: Pooling) -> None:
    encoder = LSTMEncoder(DIMS[2], WIDTH, kind).double()
    frames, lengths = padded(
        [np.random.default_rng(T).standard_normal((T, DIMS[2])) for T in (3, 9, 1, 6, 6)], 2, torch.float64
    )

    def alone(sequence: Tensor) -> Tensor:
        states: Tensor = encoder.rnn(sequence)[0]
        if kind == "last":
            return states[-1]
        if kind == "max":
            return states.amax(dim=0)
        weights: Tensor = encoder.attention_vector(torch.tanh(encoder.attention(states))).softmax(dim=0)
        return weights.t()[0] @ states

    expected = torch.stack([alone(sequence[:length]) for sequence, length in zip(frames, lengths, strict=True)])
    ours, arriving, parameters = encoder.pool(frames, lengths), torch.randn_like(expected), list(encoder.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(ours, parameters, arriving),
        torch.autograd.grad(expected, parameters, arriving),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_close_to_the_definition(kind: Kind) -> None:
    encoder = encoder_of(kind, torch.float32)
    sequences = [np.random.default_rng(T).standard_normal((T, DIMS[2])) for T in (1, 3, 40, 300)]
    together = array(encoder(*padded(sequences, 3, torch.float32)))
    exact = encoder_of(kind)
    for ours, frames in zip(together, sequences, strict=True):
        np.testing.assert_allclose(ours, naive(exact, frames), rtol=1e-5, atol=1e-5)
        alone = array(encoder(*padded([frames], 0, torch.float32)))[0]
        np.testing.assert_allclose(ours, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_text_shorter_than_the_widest_convolution(length: int) -> None:
    encoder = encoder_of("cnn")
    frames = np.random.default_rng(length).standard_normal((length, DIMS[2]))
    ours = array(encoder(*padded([frames], 0, torch.float64)))[0]
    np.testing.assert_allclose(ours, naive(encoder, frames), rtol=1e-10, atol=1e-12)
    assert ours.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("absent_frames", [1, 4, 22])
def test_an_absent_modality_is_so_many_zero_frames(kind: Kind, absent_frames: int) -> None:
    encoder = encoder_of(kind, absent_frames=absent_frames)
    expected = naive(encoder, np.zeros((absent_frames, DIMS[2])))
    np.testing.assert_allclose(array(encoder.absent()), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
@pytest.mark.parametrize("kind", KINDS)
def test_many_sequences_of_very_different_lengths(kind: Kind, order: str) -> None:
    """So many that they are read in parts, whatever order they come in."""
    encoder = encoder_of(kind)
    rng = np.random.default_rng(5)
    lengths = np.sort(np.exp(rng.normal(2, 1, 70)).astype(int) + 1)
    lengths = {"ascending": lengths, "descending": lengths[::-1], "random": rng.permutation(lengths)}[order]
    sequences = [rng.standard_normal((T, DIMS[2])) for T in lengths.tolist()]
    frames, true = padded(sequences, 2, torch.float64)
    embedded = encoder(frames, true)
    for ours, alone in zip(array(embedded), sequences, strict=True):
        np.testing.assert_allclose(ours, naive(encoder, alone), rtol=1e-10, atol=1e-12)
    embedded.sum().backward()
    together = [parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None]
    encoder.zero_grad()
    for start in range(70):
        part = frames[start : start + 1, : int(true[start])]
        encoder(part, true[start : start + 1]).sum().backward()
    for whole, parameter in zip(together, encoder.parameters(), strict=True):
        torch.testing.assert_close(whole, parameter.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_the_only_randomness(kind: Kind) -> None:
    encoder = encoder_of(kind).train()
    frames, lengths = padded([np.ones((6, DIMS[2]))], 0, torch.float64)
    same = torch.equal(encoder(frames, lengths), encoder(frames, lengths))
    assert same == (kind != "cnn")


def test_frame_mask() -> None:
    assert frame_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


# All three modalities of a batch.


def encoders_of(pooling: Pooling = "max") -> ModalityEncoders:
    torch.manual_seed(3)
    made = ModalityEncoders.of_dims(DIMS, WIDTH, pooling, channels=4, absent_frames=(3, 4, 6))
    return made.double().eval()


def test_the_modalities_in_order() -> None:
    made = encoders_of("attention")
    assert list(made) == list(MODALITIES)
    kinds = [type(encoder) for encoder in made.encoders()]
    assert kinds == [LSTMEncoder, LSTMEncoder, TextCNN]
    assert [encoder.input_dim for encoder in made.encoders()] == list(DIMS)
    assert [encoder.absent_frames for encoder in made.encoders()] == [3, 4, 6]
    assert [encoder.pooling for encoder in made.encoders() if isinstance(encoder, LSTMEncoder)] == ["attention"] * 2


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), size=st.integers(1, 6), padding=st.integers(0, 3), rows=st.booleans())
def test_every_row_against_its_own_modalities(seed: int, size: int, padding: int, rows: bool) -> None:
    made = encoders_of()
    utterances = random_utterances(size, seed=seed, partial=True)
    batch = batch_of(utterances, random_present(size, seed), padding)
    if rows:
        batch, _ = under_conditions(batch, CONDITIONS)
    embedded = array(made(batch))
    assert embedded.shape == (len(batch), 3, WIDTH)
    for row, stored in enumerate(batch.row.tolist()):
        for modality, encoder in enumerate(made.encoders()):
            frames = utterances[stored][modality]
            if not batch.present[row, modality]:
                frames = np.zeros((encoder.absent_frames, frames.shape[1]))
            np.testing.assert_allclose(embedded[row, modality], naive(encoder, frames), rtol=1e-10, atol=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), size=st.integers(1, 6))
def test_nothing_of_what_is_absent_gets_in(seed: int, size: int) -> None:
    """The absent modalities become NaN, of another length, and nothing changes, to the last bit."""
    made = encoders_of()
    present = random_present(size, seed)
    utterances = random_utterances(size, seed=seed)
    lengths = np.random.default_rng(seed).integers(1, 30, (size, 3))

    def hidden(row: int, modality: int) -> FloatArray:
        return np.full((lengths[row, modality], DIMS[modality]), np.nan)

    changed: list[Utterance] = []
    for row, utterance in enumerate(utterances):
        audio, visual, text = (utterance[m] if present[row, m] else hidden(row, m) for m in range(3))
        changed.append((audio, visual, text))
    assert torch.equal(made(batch_of(utterances, present)), made(batch_of(changed, present)))


def test_all_rows_of_a_batch_lack_a_modality() -> None:
    made = encoders_of()
    batch = batch_of(random_utterances(3), np.tile([False, True, False], (3, 1)))
    embedded = made(batch)
    absent = made.absent()
    assert absent.shape == (3, WIDTH)
    assert torch.equal(embedded[:, 0], absent[0].expand(3, -1))
    assert torch.equal(embedded[:, 2], absent[2].expand(3, -1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "longest"), [(1, 9), (5, 3), (7, 4), (40, 30)])
def test_zero_frames_beside_true_sequences(kind: Kind, count: int, longest: int) -> None:
    """In training they are one more sequence of the same run: the same embeddings, and the same gradients."""
    encoder = encoder_of(kind, absent_frames=4)
    lengths = [*sorted(np.random.default_rng(count).integers(1, longest + 1, count - 1).tolist()), longest]
    frames, each = padded([np.random.default_rng(T).standard_normal((T, DIMS[2])) for T in lengths], 0, torch.float64)
    results = []
    for together in (True, False):
        encoder.zero_grad()
        if together:
            pooled = encoder.pool_with_absent(frames, each)
        else:
            pooled = torch.cat([encoder.pool(frames, each), encoder.pool_absent()])
        pooled.square().sum().backward()
        gradients = [parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None]
        results.append([pooled.detach(), *gradients])
    for ours, apart in zip(*results, strict=True):
        torch.testing.assert_close(ours, apart, rtol=1e-9, atol=1e-12)


def test_absent_embeddings_train_the_encoder() -> None:
    made = encoders_of()
    made(batch_of(random_utterances(2), np.tile([False, True, False], (2, 1)))).sum().backward()
    # Every parameter has a gradient, or several devices would wait for each other.
    assert all(parameter.grad is not None for parameter in made.parameters())


class Counting(SequenceEncoder):
    """Counts the sequences that are really encoded."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, WIDTH, absent_frames=2)
        self.inner = LSTMEncoder(dim, WIDTH)
        self.encoded: list[int] = []

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        self.encoded.append(len(frames))
        return self.inner.pool(frames, lengths)


def test_dropout_is_drawn_for_every_row_that_lacks_text() -> None:
    made = ModalityEncoders.of_dims(DIMS, WIDTH, channels=16).train()
    batch = batch_of(random_utterances(64), np.tile([True, True, False], (64, 1))).to("cpu", torch.float32)
    assert len(made(batch)[:, 2].unique(dim=0)) > 1
    made.eval()
    torch.testing.assert_close(made(batch)[:, 2], made.absent()[2].expand(64, -1))


def test_seven_conditions_cost_one_encoding_per_modality() -> None:
    counting = [Counting(dim) for dim in DIMS]
    made = ModalityEncoders(counting).double()
    batch = random_batch(5)
    rows, condition = under_conditions(batch, CONDITIONS)
    embedded = made(rows)
    # The five utterances once, and the zero frames that an absent modality stands for.
    assert [sorted(encoder.encoded) for encoder in counting] == [[1, 5]] * 3
    for position, name in enumerate(CONDITIONS):
        seen = torch.tensor([[m in name for m in "avt"]]).expand(5, -1)
        separately = made(replace(batch, present=seen))
        torch.testing.assert_close(embedded[condition == position], separately, rtol=1e-12, atol=1e-12)


def test_rows_of_one_utterance_share_its_embedding() -> None:
    made = encoders_of()
    rows, _ = under_conditions(random_batch(4), CONDITIONS)
    embedded = made(rows)
    for stored in range(4):
        for modality in range(3):
            mine = embedded[(rows.row == stored) & rows.present[:, modality], modality]
            assert len(mine) == 4
            assert torch.equal(mine, mine[:1].expand(4, -1))


# The other parts.


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("activation", ["leaky_relu", "sigmoid"])
def test_invariance_encoder(layers: int, activation: InvarianceActivation) -> None:
    module = InvarianceEncoder(WIDTH, 0.5, layers, activation).double().eval()
    h = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    x = array(h)
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    assert len(linear) == layers
    for position, layer in enumerate(linear, start=1):
        x = x @ array(layer.weight).T + array(layer.bias)
        if activation == "leaky_relu":
            x = np.where(x > 0, x, 0.01 * x)
        elif position < layers:
            x = sigmoid(x)
    np.testing.assert_allclose(array(module(h)), x, rtol=1e-10, atol=1e-12)


def test_the_dropout_of_the_invariance_encoder_follows_each_activation() -> None:
    forms: list[tuple[int, InvarianceActivation, int]] = [(1, "leaky_relu", 1), (2, "leaky_relu", 2), (4, "sigmoid", 3)]
    for layers, activation, expected in forms:
        module = InvarianceEncoder(WIDTH, 0.25, layers, activation)
        parts = list(module.layers)
        dropped = [position for position, part in enumerate(parts) if isinstance(part, nn.Dropout)]
        assert len(dropped) == expected
        assert all(isinstance(parts[position - 1], (nn.LeakyReLU, nn.Sigmoid)) for position in dropped)
        assert {part.p for part in parts if isinstance(part, nn.Dropout)} == {0.25}
    assert InvarianceEncoder(WIDTH).state_dict().keys() == {
        f"layers.{n}.{k}" for n in (0, 3) for k in ("weight", "bias")
    }


def test_classifier() -> None:
    module = Classifier(7, 4, [5, 3], dropout=0.5).double().eval()
    features = torch.randn(6, 7, dtype=torch.float64)
    x = array(features)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == [5, 3, 4]
    for position, layer in enumerate(layers):
        x = x @ array(layer.weight).T + array(layer.bias)
        x = x if position == 2 else np.maximum(x, 0)
    np.testing.assert_allclose(array(module(features)), x, rtol=1e-10, atol=1e-12)


def test_initialisation_is_kaiming_and_leaves_the_lstm() -> None:
    torch.manual_seed(0)
    parts = nn.ModuleDict({"linear": nn.Linear(300, 200), "cnn": nn.Conv1d(60, 200, 5), "lstm": nn.LSTM(8, 16)})
    lstm = {name: value.clone() for name, value in parts["lstm"].named_parameters()}
    initialise(parts)
    for name in ("linear", "cnn"):
        weight, bias = parts[name].weight, parts[name].bias
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        assert float(weight.detach().std()) == pytest.approx((2 / 300) ** 0.5, rel=0.02)  # fan in is 300 in both
        assert abs(float(weight.detach().mean())) < 0.002
        assert not bias.any()
    assert all(torch.equal(value, lstm[name]) for name, value in parts["lstm"].named_parameters())
