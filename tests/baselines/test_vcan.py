"""VCAN's definitions (tests/data/papers/vcan.npz, float64), and that its selection does what it says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.vcan import VCAN, Head, best_frames, frame_scores, frames_at, smoothed
from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from datamodules.linear_gaussian.generator import LinearGaussianCorpus
from datamodules.linear_gaussian.views import VIEWS
from ifmmin.nn.encoders import LSTMEncoder, TextCNN
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_utterances
from tests.systems import close, load_system

GOLDEN = load_system("vcan", "papers")
SMALL: dict[str, Any] = {"embedding_dim": 8, "cnn_channels": 4, "hidden_dims": [6]}

FloatArray = npt.NDArray[np.float64]


def made(**options: Any) -> VCAN:
    torch.manual_seed(0)
    given: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES}
    return VCAN(**(given | SMALL | options)).double().eval()


def smoothed_by_hand(frames: FloatArray, width: int) -> FloatArray:
    half = width // 2
    return np.stack([frames[max(0, i - half) : i + half + 1].mean(axis=0) for i in range(len(frames))])


def chosen_by_hand(frames: FloatArray, widths: list[int], top: int) -> list[int]:
    """The union over widths, ascending, of one sequence [T, D]."""
    union: set[int] = set()
    for width in widths:
        scores = [np.var(frame) for frame in smoothed_by_hand(frames, width)]
        union |= set(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:top])
    return sorted(union)


def mapped_by_hand(chosen: list[int], audio: int, visual: int) -> list[int]:
    return sorted({i * visual // audio for i in chosen})


def test_the_golden_score() -> None:
    close(frame_scores(GOLDEN["in/spectrum"], "published"), GOLDEN["out/score"])


def test_the_golden_choice_and_map() -> None:
    score, lengths, visual = GOLDEN["out/score"], GOLDEN["in/audio_lengths"], GOLDEN["in/visual_lengths"]
    chosen = best_frames(score, lengths, int(GOLDEN["in/top"]))
    assert torch.equal(chosen, GOLDEN["out/chosen_audio"])
    assert torch.equal(frames_at(chosen, lengths, visual, 6), GOLDEN["out/chosen_visual"])


def test_scores_of_ten_and_more_are_compared_as_numbers() -> None:
    """As text, 9.5 comes before 10.5."""
    assert best_frames(torch.tensor([[9.5, 10.5, 2.0, 11.0]]), torch.tensor([4]), 2).tolist() == [[3, 1]]


def test_a_published_score_is_a_number_of_any_frame() -> None:
    frames = torch.tensor([[0.0, 0.0, 0.0], [-1.0, 0.0, 1.0], [-3.0, 1.0, 1.0], [5.0, 5.0, 5.0]]).double()
    expected = [0.0, (2 / 3) ** (1 / 3 + 1 / 2), (32 / 9) ** (1 / 3 + 3 / 5), 0.0]
    close(frame_scores(frames, "published"), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("width", [1, 3, 9])
def test_smoothing_frame_by_frame(width: int) -> None:
    lengths = torch.tensor([12, 1, 5])
    frames = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 12, 4)))
    frames = frames.where(torch.arange(12)[:, None] < lengths[:, None, None], torch.nan)
    found = smoothed(frames, lengths, width)
    for mine, given, length in zip(found, frames, lengths.tolist(), strict=True):
        close(mine[:length], torch.from_numpy(smoothed_by_hand(given[:length].numpy(), width)))


@pytest.mark.parametrize(("widths", "top"), [([1, 3, 9], 10), ([1], 4), ([5, 31], 2)])
def test_frames_chosen_by_hand(widths: list[int], top: int) -> None:
    """Of sequences of 1 to 40 frames: no more than all tops together, and at least one."""
    rng = np.random.default_rng(1)
    sequences = [rng.standard_normal((length, 5)) for length in (1, 2, 9, 10, 11, 25, 40, 40)]
    frames = torch.zeros(len(sequences), 43, 5).double()
    for row, sequence in enumerate(sequences):
        frames[row, : len(sequence)] = torch.from_numpy(sequence)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    chosen = made(smoothing=widths, top=top).choose(frames, lengths)
    for row, sequence in zip(chosen.tolist(), sequences, strict=True):
        found = sorted(set(row) - {-1})
        assert found == chosen_by_hand(sequence, widths, top)
        assert min(top, len(sequence)) <= len(found) <= min(top * len(widths), len(sequence))


def test_the_map_is_monotone_and_inside() -> None:
    for audio in range(1, 13):
        for visual in range(1, 17):
            length, other = torch.tensor([audio]), torch.tensor([visual])
            places = [
                frames_at(torch.tensor([[i]]), length, other, 16)[0].nonzero().flatten().tolist() for i in range(audio)
            ]
            assert all(len(place) == 1 for place in places)
            flat = [place[0] for place in places]
            assert flat == sorted(flat) == [int(np.floor(i * visual / audio + 1e-9)) for i in range(audio)]
            assert flat[0] == 0 and flat[-1] < visual


def long_batch(size: int = 4, seed: int = 3) -> Batch:
    """Utterances of 40 to 60 frames, all modalities shown."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(40, 61, (size, 3))
    utterances = [tuple(rng.standard_normal((T, D)) for T, D in zip(row, DIMS, strict=True)) for row in sizes]
    return batch_of([(audio, visual, text) for audio, visual, text in utterances])


def kept_of(model: VCAN, batch: Batch) -> tuple[list[list[int]], list[list[int]]]:
    """Frames of audio and of visual that are read of each utterance, by hand."""
    audio, visual = [], []
    for row, (a, v, _) in enumerate(batch.lengths.tolist()):
        audio.append(chosen_by_hand(batch.frames[0][row, :a].numpy(), model.smoothing, model.top or a))
        visual.append(mapped_by_hand(audio[-1], a, v))
    return audio, visual


@torch.no_grad()
def test_visual_frames_that_are_not_chosen_do_not_matter() -> None:
    model, batch = made(), long_batch()
    _, kept = kept_of(model, batch)
    outputs = model(batch)
    odd = torch.full_like(batch.frames[1], torch.nan)
    for row, frames in enumerate(kept):
        assert len(frames) < batch.lengths[row, 1]
        odd[row, frames] = batch.frames[1][row, frames]
    assert torch.equal(model(replace(batch, frames=(batch.frames[0], odd, batch.frames[2]))), outputs)
    changed = batch.frames[1].clone()
    for row, frames in enumerate(kept):
        changed[row, frames[1]] += 3.0
    assert not torch.isclose(model(replace(batch, frames=(batch.frames[0], changed, batch.frames[2]))), outputs).any()


@torch.no_grad()
@pytest.mark.parametrize(("smoothing", "change"), [([1], 0.0), ([1, 3, 9], 1 + 1e-6)])
def test_audio_frames_that_are_not_chosen_do_not_matter(smoothing: list[int], change: float) -> None:
    """As long as they stay worse than those chosen: alone silent ones, beside smoothed ones nearly the same."""
    model, batch = made(smoothing=smoothing), long_batch()
    kept, _ = kept_of(model, batch)
    quiet = change * batch.frames[0]
    for row, frames in enumerate(kept):
        quiet[row, frames] = batch.frames[0][row, frames]
    assert not torch.equal(quiet, batch.frames[0])
    other = replace(batch, frames=(quiet, *batch.frames[1:]))
    assert kept_of(model, other)[0] == kept
    assert torch.equal(model(other), model(batch))


def embedded_by_hand(head: Any, place: int, frames: Tensor) -> Tensor:
    encoder = head.encoders[place]
    if isinstance(encoder, LSTMEncoder):
        embedded = encoder.rnn(frames[:, None])[0].amax(dim=0)[0]
    elif isinstance(encoder, TextCNN):
        whole: Any = F.pad(frames, (0, 0, 0, max(0, 5 - len(frames)))).T[None]
        best = [each(whole).amax(dim=2) for each in encoder.convolutions]
        embedded = encoder.output(torch.cat(best, dim=1).relu())[0].relu()
    else:
        embedded = encoder.output(frames.mean(dim=0)).relu()
    assert isinstance(embedded, Tensor)
    return embedded


@torch.no_grad()
@pytest.mark.parametrize("share", [0.5, 0.25, 0.0])
def test_an_answer_row_by_row(share: float) -> None:
    """Every condition of an utterance, from its own true frames, one after the other."""
    model = made(text_share=share, top=2)
    stored = batch_of(random_utterances(5, seed=4, longest=20), padding=2)
    batch, _ = under_conditions(stored, [each for each in CONDITIONS if model.answers(each)])
    outputs, (audio, visual) = model(batch), kept_of(model, stored)
    assert len(batch) == 5 * (7 if share else 6)
    for row, (utterance, (a, v, t)) in enumerate(zip(batch.row.tolist(), batch.present.tolist(), strict=True)):
        seen = {}
        if a:
            seen[0] = stored.frames[0][utterance, audio[utterance]]
        if v:
            every = [*range(int(stored.lengths[utterance, 1]))]
            seen[1] = stored.frames[1][utterance, visual[utterance] if a else every]
        answers = []
        for head in model.group.values():
            h = [embedded_by_hand(head, m, seen[m]) if m in seen else torch.zeros(8).double() for m in (0, 1)]
            answers.append(head.classifier(torch.cat(h)))  # type: ignore[operator]
        answer = torch.stack(answers).mean(dim=0)
        if t and share:
            assert isinstance(model.text, Head)
            frames = stored.frames[2][utterance, : stored.lengths[utterance, 2]]
            text = model.text.classifier(embedded_by_hand(model.text, 0, frames))
            answer = (1 - share) * answer + share * text if seen else text
        close(outputs[row], answer)


@torch.no_grad()
def test_without_a_limit_every_frame_is_read() -> None:
    model, batch = made(top=None), long_batch()
    audio, visual = model.select(batch)
    for seen, m in ((audio, 0), (visual, 1)):
        assert torch.equal(seen.lengths, batch.lengths[:, m])
        assert torch.equal(seen.frames, batch.frames[m])
    assert not torch.isclose(model(batch), made()(batch)).any()


@torch.no_grad()
def test_the_published_score_chooses_other_frames() -> None:
    batch = long_batch()
    ours, theirs = (made(score=score, smoothing=[1]).select(batch)[0] for score in ("variance", "published"))
    for row, length in enumerate(batch.lengths[:, 0].tolist()):
        frames = batch.frames[0][row, :length].numpy()
        size = np.abs(frames)
        scores = frames.var(axis=1) ** (1 / 5 + size.max(axis=1) / size.sum(axis=1))
        best = sorted(np.argsort(-scores)[:10].tolist())
        assert torch.equal(theirs.frames[row], batch.frames[0][row, best])
    assert not torch.equal(ours.frames, theirs.frames)


def test_without_text_its_rows_train_nothing_and_are_not_answered() -> None:
    model = made(text_share=0.0)
    assert [each for each in CONDITIONS if not model.answers(each)] == ["t"]
    assert all(made().answers(each) for each in CONDITIONS)
    batch = random_batch(12)
    alone = batch.present[:, 2] & ~batch.present[:, :2].any(dim=1)
    assert alone.any() and not alone.all()
    expected = F.cross_entropy(model(batch)[~alone], batch.label[~alone])
    close(model.losses(batch)["cls"], expected)
    close(made().losses(batch)["cls"], F.cross_entropy(made()(batch), batch.label))


@pytest.mark.parametrize(
    "options",
    [
        {"text_share": 0.0},
        {"top": 1, "smoothing": [7]},
        {"top": None},
        {"score": "published"},
        {"task": Regression().spec()},
    ],
)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(VCAN, **(SMALL | options))


def test_no_gradient_is_all_zero() -> None:
    model, batch = made(), random_batch(24)
    model.total_loss(model.losses(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().max() > 1e-9), name


@torch.no_grad()
def test_an_utterance_is_read_once_per_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio once, visual once as selected and once in full, whatever the number of conditions."""
    model, read = made(), []
    whole = LSTMEncoder.pool

    def counted(self: LSTMEncoder, frames: Tensor, lengths: Tensor) -> Tensor:
        read.append(len(frames))
        return whole(self, frames, lengths)

    monkeypatch.setattr(LSTMEncoder, "pool", counted)
    model(under_conditions(random_batch(5), CONDITIONS)[0])
    assert read == [5, 10]


@torch.no_grad()
def test_shares_of_frames_that_are_read() -> None:
    model, stored = made(), long_batch()
    batch, condition = under_conditions(stored, CONDITIONS)
    values, (audio, visual) = model.row_values(batch), kept_of(model, stored)
    for row, utterance in enumerate(batch.row.tolist()):
        a, v, _ = stored.lengths[utterance].tolist()
        name = CONDITIONS[condition[row]]
        heard = len(audio[utterance]) / a if "a" in name else np.nan
        looked = (len(visual[utterance]) / v if "a" in name else 1.0) if "v" in name else np.nan
        np.testing.assert_allclose(float(values["audio_kept"][row]), heard, rtol=1e-6)
        np.testing.assert_allclose(float(values["visual_kept"][row]), looked, rtol=1e-6)


@dataclass(frozen=True)
class Concentrated(LinearGaussianCorpus):
    """The built-in corpus, whose middle quarter of frames is loud; the rest tells next to nothing."""

    @staticmethod
    def informative(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Bool [F] of sequences with ``lengths``, one after the other."""
        each = [np.abs((np.arange(length) + 0.5) / length - 0.5) < 0.125 for length in lengths]
        return np.concatenate(each)

    def gains(self, modality: int, lengths: npt.NDArray[np.int64]) -> FloatArray:
        return np.where(self.informative(lengths), 2.0, 0.2)


@torch.no_grad()
@pytest.mark.parametrize("long", [False, True])
def test_selection_keeps_frames_that_tell(long: bool) -> None:
    """Of utterances as in the built-in corpus, and of some four times as long, of which a third is read."""
    audio, visual, text = VIEWS
    views = (replace(audio, median_length=40, longest=90), replace(visual, median_length=40, longest=60), text)
    corpus = Concentrated(views=views if long else VIEWS)
    heard, looked, _ = corpus.sample(300, np.random.default_rng(0)).frames
    values = (heard.values - heard.values.mean(axis=0)) / heard.values.std(axis=0)
    read: dict[str, list[bool]] = {"audio": [], "visual": []}
    shares = []
    model = made(feature_dims=[values.shape[1], 6, 7])
    for a, b, n in zip(heard.offsets, heard.offsets[1:], np.diff(looked.offsets), strict=False):
        length, other = torch.tensor([b - a]), torch.tensor([n])
        chosen = model.choose(torch.from_numpy(values[a:b])[None], length)
        kept = frames_at(chosen, length, length, int(length))[0]
        read["audio"] += kept[torch.from_numpy(corpus.informative(length.numpy()))].tolist()
        shares.append(float(kept.float().mean()))
        # Of a video of more frames than audio has, some are between two marks whatever is chosen.
        marks, ever = (frames_at(each, length, other, n)[0] for each in (chosen, torch.arange(b - a)[None]))
        read["visual"] += marks[ever & torch.from_numpy(corpus.informative(other.numpy()))].tolist()
    assert np.mean(read["audio"]) >= 0.8 and np.mean(read["visual"]) >= 0.8
    assert np.mean(shares) < (0.4 if long else 0.85)


def test_options_out_of_range() -> None:
    with pytest.raises(InputError, match=r"smoothing \[1, 4\]: widths are odd"):
        made(smoothing=[1, 4])
    with pytest.raises(InputError, match="must not be empty"):
        made(smoothing=[])
    with pytest.raises(InputError, match=r"text_share 1\.0: it must be at least 0 and below 1"):
        made(text_share=1.0)
