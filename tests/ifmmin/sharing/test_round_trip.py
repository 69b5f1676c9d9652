"""What is saved is loaded again to the same bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from datamodules import Synthetic
from datamodules.conditions import CONDITIONS, present_under
from datamodules.errors import InputError
from ifmmin import IFMMIN, MissingModalityModule, Predictor
from ifmmin.checkpoints import load_model
from ifmmin.results.files import write_results
from tests.batches import DIMS, batch_of, random_utterances
from tests.cli.running import best, fit, same, sample
from tests.ifmmin.models import MODELS, Small
from tests.ifmmin.sharing.saved import QUICK, fresh, record, results

EVERY = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(MODELS)]
FILES = {"README.md", "config.json", "model.safetensors", "preprocessing.safetensors"}


def answers(model: MissingModalityModule) -> Iterator[torch.Tensor]:
    """Outputs under every condition that it answers."""
    utterances = random_utterances(3, seed=1)
    for condition in filter(model.answers, CONDITIONS):
        yield model(batch_of(utterances, np.array([present_under(condition)] * 3), dtype=torch.float32))


@pytest.mark.parametrize("name", EVERY)
def test_every_model_comes_back_to_the_bit(name: str, tmp_path: Path) -> None:
    model = fresh(name)
    assert model.save_pretrained(tmp_path / "saved") == tmp_path / "saved"
    assert {path.name for path in (tmp_path / "saved").iterdir()} == FILES
    again = MissingModalityModule.from_pretrained(tmp_path / "saved")
    assert type(again) is type(model)
    assert not again.training
    assert same(model.state_dict(), again.state_dict())
    torch.manual_seed(9)
    wanted = list(answers(model))
    torch.manual_seed(9)
    found = list(answers(again))
    assert len(wanted) == len(found) > 0
    assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True))


def test_a_regression_comes_back(tmp_path: Path) -> None:
    task = {"name": "regression", "low": -3.0, "high": 3.0}
    model = fresh("MeanFusion", class_names=[], task=task, corpus="CMU-MOSI")
    model.save_pretrained(tmp_path / "saved")
    again = MissingModalityModule.from_pretrained(tmp_path / "saved")
    assert again.task.name == "regression"
    assert same(model.state_dict(), again.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(answers(model), answers(again), strict=True))


def test_stage_1_and_temperatures_are_in_it_and_no_path(tmp_path: Path) -> None:
    model = fresh("IFMMIN", pretrained="/home/somebody/stage1.ckpt")
    assert isinstance(model, IFMMIN)
    model.taught, model.temperatures = True, {"a": 1.5, "avt": 0.75}
    model.save_pretrained(tmp_path / "saved")
    again = IFMMIN.from_pretrained(tmp_path / "saved")
    assert again.taught
    assert again.temperatures == {"a": 1.5, "avt": 0.75}
    assert any(name.startswith("teacher.encoders.") for name in again.state_dict())
    assert not any(b"somebody" in path.read_bytes() for path in (tmp_path / "saved").iterdir())


def test_a_model_of_ones_own_is_loaded_by_its_class_only(tmp_path: Path) -> None:
    model = Small(feature_dims=list(DIMS), class_names=["a", "b"])
    model.save_pretrained(tmp_path / "saved")
    assert same(model.state_dict(), Small.from_pretrained(tmp_path / "saved").state_dict())
    line = r"a checkpoint of Small, which is not among the installed models; if you have the class "
    with pytest.raises(InputError, match=line + r"\(tests.ifmmin.models.Small\), import it and call Small.from_pretr"):
        MissingModalityModule.from_pretrained(tmp_path / "saved")


def test_nothing_that_a_configuration_names_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    fresh("MeanFusion").save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    config = json.loads(path.read_text())
    config["class_path"] = config["ifmmin"]["model"] = "hostile_module.Hostile"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="Hostile, which is not among the installed models"):
        MissingModalityModule.from_pretrained(tmp_path / "saved")


def test_a_predictor_answers_as_before(tmp_path: Path) -> None:
    predictor = Predictor(fresh("MeanFusion"), record())
    predictor.save_pretrained(tmp_path / "saved")
    audio, visual, text = random_utterances(1, seed=4)[0]
    again = Predictor.from_pretrained(tmp_path / "saved")
    for features in ({"audio": audio, "visual": visual, "text": text}, {"text": text}):
        assert dict(again.predict(features)) == dict(predictor.predict(features))
    raw = {"normalization": ["none"] * 3, "statistics": {}}
    assert dict(Predictor(again.model, raw).predict({"text": text})) != dict(again.predict({"text": text}))


def test_a_predictor_needs_the_statistics(tmp_path: Path) -> None:
    fresh("MeanFusion").save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match="saved without its training data's statistics"):
        Predictor.from_pretrained(tmp_path / "saved")


def test_a_checkpoint_and_its_folder_answer_alike(tmp_path: Path) -> None:
    checkpoint = best(fit(tmp_path / "run", *sample("IEMOCAP"), model="MeanFusion"))
    model, trained_on = load_model(checkpoint)
    folder = Predictor.load(checkpoint).save_pretrained(tmp_path / "saved")
    again, kept = load_model(folder)
    assert same(model.state_dict(), again.state_dict())
    assert {name: value for name, value in kept.items() if name != "statistics"} == {
        name: value for name, value in trained_on.items() if name != "statistics"
    }
    for modality, values in trained_on["statistics"].items():
        assert same(values, kept["statistics"][modality])
    stated = json.loads((tmp_path / "run" / "metrics.json").read_text())
    scores = json.loads((folder / "results.json").read_text())
    assert scores["metrics"] == stated["metrics"]
    assert scores["intervals"] == stated["intervals"]
    # Saved again from the folder, nothing is lost.
    Predictor.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for name in ("model.safetensors", "preprocessing.safetensors", "config.json", "results.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in folder.iterdir())


def test_a_model_fresh_from_training_knows_its_data(tmp_path: Path) -> None:
    data = Synthetic(utterances_per_speaker=12)
    data.setup("fit")
    model = MODELS["MeanFusion"](feature_dims=data.feature_dims, class_names=data.class_names, corpus="Synthetic")
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet).fit(model, data)
    model.save_pretrained(tmp_path / "saved")
    again = MissingModalityModule.from_pretrained(tmp_path / "saved")
    assert again.trained_on is not None
    assert again.trained_on["fingerprint"] == data.fingerprint
    assert "not a corpus result" in (tmp_path / "saved" / "README.md").read_text()


def test_the_scores_of_another_run_are_refused(tmp_path: Path) -> None:
    model = fresh("MeanFusion")
    predictor = Predictor(model, record())
    for name, changes, line in (
        ("model", {"model": "IFMMIN"}, "of IFMMIN, not of MeanFusion"),
        ("fold", {"trained_on": {"corpus": "IEMOCAP", "fold": 2, "seed": 7}}, "IEMOCAP fold 2 seed 7, but this model"),
    ):
        write_results(results(model, **changes), tmp_path / name)
        with pytest.raises(InputError, match=line):
            predictor.save_pretrained(tmp_path / "saved", run=tmp_path / name)
    assert not (tmp_path / "saved").exists()
