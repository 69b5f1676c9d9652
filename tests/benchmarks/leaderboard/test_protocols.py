from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.leaderboard.protocols import RATES, missing_rate_sweep
from datamodules import Synthetic
from datamodules.batches.masks import MissingRate, utterance_keys
from datamodules.conditions import MODALITIES
from ifmmin.checkpoints.compatibility import model_arguments
from ifmmin.discovery import discover_models
from tests.datamodules.corpora import take_out


@pytest.fixture(scope="module")
def data() -> Synthetic:
    data = Synthetic(utterances_per_speaker=12)
    data.setup("test")
    return data


def test_sweep_is_every_utterance_under_its_own_mask(data: Synthetic) -> None:
    torch.manual_seed(0)
    model = discover_models()["ModalityDropout"](**model_arguments(data))
    found = missing_rate_sweep(model, data, seed=3)
    assert list(found) == [f"{rate:.1f}" for rate in RATES]
    (batch,) = data.in_order("test")
    model.eval()
    for rate in (0.0, 0.3, 0.7):
        expected = np.zeros((4, 4), dtype=int)
        masks = MissingRate(rate)(utterance_keys(batch.utterances), 3, 0)
        for number, mask in enumerate(masks):
            row = replace(batch, row=torch.tensor([number]), present=torch.from_numpy(mask)[None])
            with torch.no_grad():
                expected[int(batch.labels[number]), int(model(row).argmax())] += 1
        assert found[f"{rate:.1f}"] == expected.tolist()


def test_sweep_of_a_corpus_with_gaps_hides_what_is_there(tmp_path: Path) -> None:
    whole = Synthetic(str(tmp_path), utterances_per_speaker=12)
    tested = [f"Ses01F_impro00_F{number:04d}" for number in range(12)]
    take_out(whole.root, whole.layout, {name: "tva"[number % 3] for number, name in enumerate(tested[:9])})
    data = Synthetic(str(tmp_path), utterances_per_speaker=12, incomplete="keep")
    data.setup("test")
    model = discover_models()["ModalityDropout"](**model_arguments(data)).eval()
    found = missing_rate_sweep(model, data, seed=3)
    (batch,) = data.in_order("test")
    for rate in (0.0, 0.3, 0.7):
        assert np.sum(found[f"{rate:.1f}"]) == 12
        wanted = MissingRate(rate)(utterance_keys(batch.utterances), 3, 0)
        expected = np.zeros((4, 4), dtype=int)
        for number, mask in enumerate(wanted & batch.available.numpy()):
            if not mask.any():  # drawn again
                break
            row = replace(batch, row=torch.tensor([number]), present=torch.from_numpy(mask)[None])
            with torch.no_grad():
                expected[int(batch.labels[number]), int(model(row).argmax())] += 1
        else:
            assert found[f"{rate:.1f}"] == expected.tolist()
        assert rate or expected.sum() == 12


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


def test_a_model_that_does_not_answer_all_has_no_sweep(data: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    model = discover_models()["ModalityDropout"](**model_arguments(data))
    monkeypatch.setattr(model, "answers", lambda condition: condition != "v")
    assert missing_rate_sweep(model, data, seed=0) == {}
