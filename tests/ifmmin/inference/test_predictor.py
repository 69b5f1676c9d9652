from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from datamodules.conditions import MODALITIES, present_under
from datamodules.errors import InputError
from ifmmin import IFMMIN, Predictor
from ifmmin.cli.main import main
from ifmmin.inference import Features
from tests.batches import CLASSES, DIMS
from tests.cli.running import SAMPLES, best, fit, sample
from tests.ifmmin.models import MODELS, Small, build

RAW = {"normalization": ["none", "none", "none"], "statistics": {}}
SAMPLE = "Ses01F_impro00_F0000"
FILES = ("A/comparE.h5", "V/denseface.h5", "L/bert_large.h5")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("fitted") / "run"
    return best(fit(run, *sample("IEMOCAP"), "--data.visual_normalization", "utterance"))


def frames_of(utterance: str, condition: str) -> dict[str, Any]:
    """What the sample corpus holds of an utterance, as far as ``condition`` shows it."""
    features = {}
    for name, file, present in zip(MODALITIES, FILES, present_under(condition), strict=True):
        if present:
            with h5py.File(SAMPLES["IEMOCAP"] / file) as stored:
                features[name] = stored[utterance][()]
    return features


def whole() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((4, dim)) for name, dim in zip(MODALITIES, DIMS, strict=True)}


def small() -> Predictor:
    torch.manual_seed(0)
    return Predictor(Small(feature_dims=list(DIMS), class_names=CLASSES), RAW, "small.ckpt")


def test_it_says_what_the_command_line_says(checkpoint: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.csv"
    words = ["predict", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(checkpoint)]
    assert main([*words, "--run_dir", str(tmp_path / "run"), "--output", str(answers)]) == 0
    with answers.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:35]
    assert len({row["condition"] for row in rows}) == 7
    predictor = Predictor.load(checkpoint)
    for row in rows:
        found = predictor.predict(frames_of(row["utterance"], row["condition"]))
        wanted = {name.removeprefix("p_"): float(value) for name, value in row.items() if name.startswith("p_")}
        assert found == pytest.approx(wanted, abs=1e-4)
        assert max(found, key=lambda name: found[name]) == row["prediction"]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_answers(name: str) -> None:
    predictor = Predictor(build(name).float().train(), RAW)
    features = {"audio": whole()["audio"], "text": whole()["text"]}
    found = predictor.predict(features)
    assert list(found) == CLASSES
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert predictor.predict(features) == found  # no dropout


def test_frames_may_be_lists_or_tensors_and_stay_as_they_are() -> None:
    audio = whole()["audio"]
    statistics = {"audio": {"mean": torch.full((DIMS[0],), 3.0), "std": torch.full((DIMS[0],), 2.0)}}
    predictor = small()
    normalising = Predictor(predictor.model, {"normalization": ["train", "none", "none"], "statistics": statistics})
    wanted = predictor.predict({"audio": (audio - 3) / 2})
    held = torch.tensor(audio, dtype=torch.float32)
    given: list[Features] = [{"audio": audio}, {"audio": audio.tolist(), "text": None}, {"audio": held}]
    for features in given:
        assert normalising.predict(features) == pytest.approx(wanted, abs=1e-6)
    assert torch.equal(held, torch.tensor(audio, dtype=torch.float32))


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({}, "no modality is given"),
        ({"audio": None}, "no modality is given"),
        ({"video": np.zeros((2, DIMS[1]))}, "'video' is no modality: give audio, visual, text"),
        ({"audio": np.zeros((2, 9))}, r"audio: shape \[2, 9\], but small.ckpt was trained on frames \[T, 5\]"),
        ({"audio": np.zeros(DIMS[0])}, r"audio: shape \[5\]"),
        ({"audio": np.zeros((0, DIMS[0]))}, "audio: no frames; leave audio out"),
        ({"text": np.full((1, DIMS[2]), np.inf)}, "text: infinite values"),
        ({"visual": [[1.0], [1.0, 2.0]]}, "visual: not an array of numbers"),
        ({"visual": "frames.npy"}, "visual: not an array of numbers"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(features: Features, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as error:
        small().predict(features)
    assert "\n" not in str(error.value)


def test_a_condition_that_the_model_does_not_answer() -> None:
    model = MODELS["MCTN"](feature_dims=list(DIMS), class_names=CLASSES, source="t")  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"MCTN answers t.*, not a"):
        Predictor(model, RAW).predict({"audio": whole()["audio"]})


def test_a_model_that_is_not_installed(checkpoint: Path, tmp_path: Path) -> None:
    foreign = torch.load(checkpoint, weights_only=True)
    foreign["ifmmin"]["model"] = "os.path.Other"
    torch.save(foreign, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other.ckpt: a checkpoint of Other, which is not among"):
        Predictor.load(tmp_path / "other.ckpt")


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such checkpoint file"):
        Predictor.load(tmp_path / "none.ckpt")


def test_a_class_that_is_not_installed_is_given(checkpoint: Path, tmp_path: Path) -> None:
    """The class has another module, and a name that is among no installed ones."""

    class Mine(IFMMIN):
        pass

    theirs = torch.load(checkpoint, weights_only=True)
    theirs["ifmmin"]["model"] = "Mine"
    torch.save(theirs, tmp_path / "mine.ckpt")
    features = frames_of(SAMPLE, "avt")
    predictor = Predictor.load(tmp_path / "mine.ckpt", model=Mine)
    assert type(predictor.model) is Mine
    assert predictor.predict(features) == Predictor.load(checkpoint).predict(features)
    with pytest.raises(InputError, match="a checkpoint of Mine, not of IFMMIN; give its class"):
        Predictor.load(tmp_path / "mine.ckpt", model=IFMMIN)


def test_a_model_that_was_just_made(checkpoint: Path) -> None:
    loaded = Predictor.load(checkpoint)
    made = Predictor(model=loaded.model, trained_on=loaded.trained_on)
    assert made.predict(frames_of(SAMPLE, "at")) == loaded.predict(frames_of(SAMPLE, "at"))
    features = whole()
    assert Predictor(small().model.train()).predict(features) == small().predict(features)  # normalised already


def test_it_describes_itself(checkpoint: Path) -> None:
    lines = repr(Predictor.load(checkpoint)).splitlines()
    assert lines[0] == f"Predictor: IFMMIN of {checkpoint}"
    assert [line.strip().partition(":")[0] for line in lines[1:]] == ["task", "trained on", "frames", "device"]
    said = "\n".join(lines)
    for words in (
        "classification of angry, happy, neutral, sad",
        "IEMOCAP, fold 1, seed 0",
        "audio comparE [T, 26] (normalised by training frames)",
        "visual denseface [T, 34] (normalised by themselves)",
        "text bert_large [T, 48] (as given)",
        "cpu",
    ):
        assert words in said


def test_it_describes_what_it_knows() -> None:
    class Words(Small):
        def answers(self, condition: str) -> bool:
            return "t" in condition

    scale = {"name": "regression", "low": -3.0, "high": 3.0}
    record = RAW | {"feature_names": ["audio", "visual", "bert"]}
    said = repr(Predictor(Words(feature_dims=list(DIMS), task=scale), record))
    assert said.splitlines() == [
        "Predictor: Words of the checkpoint",
        "  task:       regression of values from -3 to 3",
        "  frames:     audio [T, 5] (as given), visual [T, 6] (as given), text bert [T, 7] (as given)",
        "  answers:    t, at, vt, avt",
        "  device:     cpu",
    ]
