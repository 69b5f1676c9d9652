"""Rate curves against one utterance after the other, and the area against NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Synthetic
from datamodules.batches.batch import Batch
from datamodules.batches.masks import (
    MaskSampler,
    MissingRate,
    MissingRates,
    MissingShare,
    mask_sampler,
    utterance_keys,
)
from datamodules.batches.patterns import PATTERNS, frame_pattern
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import model_arguments
from ifmmin.curves import CURVES, area, chosen_curves, curve_counts, curve_of
from ifmmin.discovery import discover_models
from ifmmin.results.curves import AREA, curve_rows, curve_table, score_curves
from tests.datamodules.corpora import take_out

RATES = CURVES["modalities"].rates


@pytest.fixture(scope="module")
def data() -> Synthetic:
    data = Synthetic(utterances_per_speaker=12, seed=3)
    data.setup("test")
    return data


def made(data: Synthetic, name: str = "ModalityDropout") -> MissingModalityModule:
    torch.manual_seed(0)
    return discover_models()[name](**model_arguments(data)).eval()


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("modalities", MissingRate),
        ("share", MissingShare),
        ("rates:0.2,0.5,0.8", lambda share: MissingRates((share * 0.2, share * 0.5, share * 0.8))),
        ("rates:0.9,0,0.25", lambda share: MissingRates((share * 0.9, 0.0, share * 0.25))),
    ],
)
def test_masks_of_a_curve_are_every_utterance_under_its_own(
    name: str, mask: Callable[[float], MaskSampler], data: Synthetic
) -> None:
    model = made(data)
    utterances, counts = curve_counts(model, data, names=[name])
    found = counts[name]
    (batch,) = data.in_order("test")
    assert utterances == batch.utterances
    assert found.shape == (12, len(curve_of(name).rates), 4, 4)
    for place, rate in enumerate(curve_of(name).rates):
        for number, shown in enumerate(mask(rate)(utterance_keys(batch.utterances), 3, 0)):
            row = replace(batch, row=torch.tensor([number]), present=torch.from_numpy(shown)[None])
            with torch.no_grad():
                answer = int(model(row).argmax())
            assert found[number, place].nonzero().tolist() == [[int(batch.labels[number]), answer]]


@pytest.mark.parametrize("model", ["ModalityDropout", "MeanFusion"])
@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_frames_of_a_curve_are_lost_alike_one_utterance_at_a_time(name: str, model: str, data: Synthetic) -> None:
    network = made(data, model)
    _, counts = curve_counts(network, data, names=[name])
    (whole,) = data.in_order("test")
    spreads = data.spreads
    for place, rate in enumerate(CURVES[name].rates):
        pattern = frame_pattern(f"{name}:{rate}")
        for number, utterance in enumerate(whole.utterances):
            frames = []
            for modality in range(3):
                length = whole.lengths[number : number + 1, modality]
                own = whole.frames[modality][number : number + 1, : int(length)]
                if pattern is not None and name == "noise":
                    std = data.statistics[modality].std if modality == 0 else 1.0  # type: ignore[union-attr]
                    keys = utterance_keys([utterance])
                    noise = pattern.apply(
                        torch.zeros_like(own), length.numpy(), keys, modality, 3, 0, spreads[modality]
                    )
                    own = own + noise / std
                elif pattern is not None:
                    own = pattern.apply(own, length.numpy(), utterance_keys([utterance]), modality, 3, 0, own[0, 0])
                frames.append(own)
            alone = replace(
                whole,
                frames=(frames[0], frames[1], frames[2]),
                lengths=whole.lengths[number : number + 1],
                row=torch.tensor([0]),
                present=torch.ones(1, 3, dtype=torch.bool),
            )
            with torch.no_grad():
                answer = int(network(alone).argmax())
            assert counts[name][number, place].nonzero().tolist() == [[int(whole.labels[number]), answer]]


def test_each_rate_of_frames_is_read_once(data: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(data)
    asked: list[int] = []
    evaluate = model.evaluate

    def counted(batch: Batch, conditions: Sequence[str]) -> Any:
        asked.append(len(conditions))
        return evaluate(batch, conditions)

    monkeypatch.setattr(model, "evaluate", counted)
    curve_counts(model, data)
    frames = sum(len(CURVES[name].rates) - 1 for name in PATTERNS)
    assert asked == [7] + [1] * frames


def test_masks_of_a_corpus_with_gaps_hide_what_is_there(tmp_path: Path) -> None:
    whole = Synthetic(str(tmp_path), utterances_per_speaker=12)
    tested = [f"Ses01F_impro00_F{number:04d}" for number in range(12)]
    take_out(whole.root, whole.layout, {name: "tva"[number % 3] for number, name in enumerate(tested[:9])})
    data = Synthetic(str(tmp_path), utterances_per_speaker=12, incomplete="keep", seed=3)
    data.setup("test")
    model = made(data)
    counts = curve_counts(model, data)[1]
    (batch,) = data.in_order("test")
    for place, rate in enumerate(RATES):
        assert counts["modalities"][:, place].sum() == 12
        wanted = MissingRate(rate)(utterance_keys(batch.utterances), 3, 0)
        for number, mask in enumerate(wanted & batch.available.numpy()):
            if mask.any():  # otherwise it is drawn again
                row = replace(batch, row=torch.tensor([number]), present=torch.from_numpy(mask)[None])
                with torch.no_grad():
                    answer = int(model(row).argmax())
                assert counts["modalities"][number, place, int(batch.labels[number]), answer] == 1
    # Frames are lost of complete utterances, those that the complete condition counts.
    complete = batch.available.all(dim=1)
    assert torch.equal(counts["frames"].sum(dim=(2, 3)) > 0, complete[:, None].expand(-1, len(CURVES["frames"].rates)))


def test_masks_are_nested_and_leave_one_modality() -> None:
    keys = utterance_keys([f"utterance {number}" for number in range(4000)])
    shown = [MissingRate(rate)(keys, 0, 0) for rate in RATES]
    assert shown[0].all()
    assert all(mask.any(axis=1).all() for mask in shown)
    for less, more in pairwise(shown):
        alone = more.sum(axis=1) == 1  # the one that is given back may differ
        assert (less | ~more)[~alone].all()
    # Each modality is absent at the rate, less the utterances whose last modality is given back.
    for rate, mask in zip(RATES, shown, strict=True):
        expected = rate - rate ** len(MODALITIES) / len(MODALITIES)
        assert np.allclose((~mask).mean(axis=0), expected, atol=0.03)


def test_unequal_rates_end_at_what_training_has_of_them() -> None:
    keys = utterance_keys([f"utterance {number}" for number in range(4000)])
    for rates in ((0.2, 0.5, 0.8), (0.1, 0.1, 0.9)):
        mask = curve_of(f"rates:{','.join(map(str, rates))}").mask
        assert mask is not None
        assert mask(0.0)(keys, 0, 0).all()
        shown = mask(1.0)(keys, 0, 0)
        np.testing.assert_array_equal(shown, mask_sampler(",".join(map(str, rates)))(keys, 0, 0))
        # A naive sum over what may be shown: a condition is as likely as the product over its modalities.
        likely = {
            condition: np.prod([1 - rate if m in condition else rate for m, rate in zip("avt", rates, strict=True)])
            for condition in CONDITIONS
        }
        for place, modality in enumerate("avt"):
            expected = sum(p for condition, p in likely.items() if modality in condition) / sum(likely.values())
            assert shown[:, place].mean() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("silent", "left"),
    [("v", ["frames", "bursts", "noise"]), ("avt", [])],
)
def test_a_model_has_the_curves_whose_conditions_it_answers(
    silent: str, left: list[str], data: Synthetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(data)
    monkeypatch.setattr(model, "answers", lambda condition: condition != silent)
    assert list(curve_counts(model, data)[1]) == left


# Areas.


def test_the_area_is_numpys_trapezoid_over_the_width() -> None:
    random = np.random.default_rng(0)
    trapezoid = getattr(np, "trapezoid", None) or np.trapz  # type: ignore[attr-defined]  # NumPy below 2.0
    for rates in ([0.0, 1.0], [0.0, 0.1, 0.4, 0.7], list(CURVES["frames"].rates)):
        values = random.random((3, 5, len(rates)))
        expected = trapezoid(values, rates, axis=-1) / rates[-1]
        np.testing.assert_allclose(area(rates, values), expected, rtol=1e-12)
    # EMT-DLFR's sum, over rates 0.0 to 1.0.
    curve = random.random(11)
    assert float(area(CURVES["frames"].rates, curve)) == pytest.approx(sum(curve[:-1] + curve[1:]) / 2 * 0.1)


def test_scores_areas_and_intervals_of_curves(data: Synthetic) -> None:
    model = made(data)
    counts = curve_counts(model, data, names=["frames", "noise"])[1]
    frames, noise = score_curves(model.task, counts)
    assert (frames.name, noise.name, frames.n) == ("frames", "noise", 12)
    right = counts["frames"].diagonal(dim1=2, dim2=3).sum(dim=2).double().numpy()  # [12, 11]
    np.testing.assert_allclose([frames.values[f"{rate:.1f}"]["WA"] for rate in CURVES["frames"].rates], right.mean(0))
    assert frames.values[AREA]["WA"] == pytest.approx(area(CURVES["frames"].rates, right.mean(axis=0)).item())
    random = np.random.default_rng(1)
    drawn = [area(CURVES["frames"].rates, right[random.integers(12, size=12)].mean(axis=0)) for _ in range(4_000)]
    ends = frames.intervals[AREA]["WA"]
    assert ends is not None
    np.testing.assert_allclose(np.array(ends), np.quantile(drawn, [0.025, 0.975]), atol=0.04)
    (alone,) = score_curves(model.task, {"frames": counts["frames"]}, groups=["one", "two"] * 6, intervals=False)
    assert alone.intervals == {} and alone.values == frames.values
    rows = curve_rows(model.task, [frames, noise])
    expected = [*(f"{rate:.1f}" for rate in CURVES["frames"].rates), AREA, "0.0", "0.5", "1.0", "1.5", "2.0", AREA]
    assert [row["rate"] for row in rows] == expected
    table = curve_table("a title", model.task.score("UA"), [frames, noise])
    assert table.row_count == 2 and len(table.columns) == 3 + 13


def test_curves_are_named(data: Synthetic) -> None:
    assert chosen_curves("all") == tuple(CURVES)
    assert set(PATTERNS) < set(CURVES)
    assert chosen_curves("rates:0.1,0.10,.9,frames,rates:0.2,0.50,0.8") == (
        "frames",
        "rates:0.2,0.5,0.8",
        "rates:0.1,0.1,0.9",
    )
    assert chosen_curves("rates:0.123456789,0,0.5,all") == (*CURVES, "rates:0.123456789,0,0.5")
    for wrong in ("frame", "", "frames,", "rates:0.5", "rates:uniform", "0.2,0.5,0.8", "rates:0.2,0.5"):
        with pytest.raises(InputError, match=r"--curves .*give all, or some of modalities, share, frames, bursts, noi"):
            chosen_curves(wrong)
    with pytest.raises(InputError, match=r"--curves rates:0.2,0.5,1: missing rate 1.0 of text: it must be in \[0, 1"):
        chosen_curves("rates:0.2,0.5,1,frames")
