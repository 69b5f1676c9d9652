"""The models that come with the library score what their cards say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import lightning as L
import numpy as np
import pytest

import datamodules
from benchmarks import pretrained
from datamodules.base import EmotionDataModule
from datamodules.conditions import CONDITIONS
from ifmmin import MissingModalityModule, Predictor
from ifmmin.sharing.hub import SHIPPED, shipped_folder

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def corpus(name: str) -> EmotionDataModule:
    made: EmotionDataModule = getattr(datamodules, pretrained.MODELS[name][0])()
    return made


def accuracies(model: MissingModalityModule, data: EmotionDataModule) -> dict[str, float]:
    """WA of each condition on the test split, from counts."""
    data.setup("test")
    assert model.trained_on is not None
    data.adopt_preprocessing(model.trained_on)
    L.Trainer(accelerator="cpu", **QUIET).test(model, data, verbose=False)
    assert model.evaluated is not None
    counts = model.evaluated.numpy()
    return {name: np.trace(count) / count.sum() for name, count in zip(CONDITIONS, counts, strict=True)}


@pytest.mark.parametrize("name", SHIPPED)
def test_it_scores_what_its_card_says(name: str) -> None:
    model, data = MissingModalityModule.from_pretrained(name), corpus(name)
    assert type(model).__name__ == pretrained.MODELS[name][1]
    found = accuracies(model, data)
    assert model.trained_on is not None
    assert data.fingerprint == model.trained_on["fingerprint"]
    stated = json.loads((shipped_folder(name) / "results.json").read_text())
    assert stated["split"] == "test"
    card = (shipped_folder(name) / "README.md").read_text()
    for condition, accuracy in found.items():
        # Another machine's linear algebra may turn a tie: by less than one in a hundred.
        assert accuracy == pytest.approx(stated["metrics"][condition]["WA"], abs=0.01)
        assert f"{100 * stated['metrics'][condition]['WA']:.2f} [" in card
        limit = stated["metrics"][condition]["bayes_WA"]
        assert limit - 0.1 < accuracy < limit + 0.05


def test_a_predictor_of_it_answers_for_stored_frames() -> None:
    """Of {a,t}, the two lines of the README: counted by hand over raw frames."""
    data = corpus("synthetic")
    data.setup("test")
    assert data.targets is not None
    predictor, right = Predictor.from_pretrained("synthetic"), []
    root = Path(data.root)
    with h5py.File(root / "A" / "audio.h5") as audio, h5py.File(root / "L" / "text.h5") as text:
        targets = data.targets["test"]
        for name, label in zip(targets.utterances, np.asarray(targets.labels), strict=True):
            answer = dict(predictor.predict({"audio": audio[name][()], "text": text[name][()]}))
            right.append(max(answer, key=lambda each: answer[each]) == data.class_names[int(label)])
    stated = json.loads((shipped_folder("synthetic") / "results.json").read_text())
    assert np.mean(right) == pytest.approx(stated["metrics"]["at"]["WA"], abs=0.01)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_small_and_no_corpus_result(name: str) -> None:
    files = list(shipped_folder(name).iterdir())
    assert {path.name for path in files} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessing.safetensors",
        "results.json",
    }
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert "(not a corpus result)" in (shipped_folder(name) / "README.md").read_text()
    assert not any(str(Path.home()).encode() in path.read_bytes() for path in files)


def test_names_are_those_of_the_command() -> None:
    assert set(pretrained.MODELS) == set(SHIPPED)


@pytest.mark.slow
def test_the_command_makes_the_same_weights(tmp_path: Path) -> None:
    assert pretrained.main(["synthetic", "--output", str(tmp_path)]) == 0
    made = Predictor.from_pretrained(tmp_path / "synthetic").model.state_dict()
    for name, value in Predictor.from_pretrained("synthetic").model.state_dict().items():
        np.testing.assert_allclose(made[name].numpy(), value.numpy(), rtol=1e-3, atol=1e-4)


def test_an_unknown_name() -> None:
    with pytest.raises(SystemExit, match="error: other: no model of privileged, synthetic"):
        pretrained.main(["other"])
