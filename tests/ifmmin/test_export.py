from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

import baselines.mean_fusion
from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from datamodules.ranges import declared_options
from ifmmin import MissingModalityModule, Predictor
from ifmmin.cli.main import main
from ifmmin.export import export_model
from ifmmin.tasks import Regression
from tests.batches import CLASSES, DIMS
from tests.cli.running import CHECKOUT, best, fit, sample
from tests.ifmmin.models import MODELS, Small, build, build_narrow

TRAINED_ON = {
    "name": "Corpus",
    "fingerprint": "abc",
    "feature_names": ["a", "v", "t"],
    "normalization": ["train", "utterance", "none"],
    "statistics": {"audio": {"mean": torch.linspace(-3, 3, DIMS[0]), "std": torch.linspace(0.5, 4, DIMS[0])}},
}
EXAMPLE = CHECKOUT / "examples" / "answer_without_torch.py"

QUICK = {"CMARR": "flow", "IFMMIN": "LSTM and TextCNN", "MeanFusion": "means", "ThreeStageContrastive": "transformer"}


def random_inputs(lengths: Any, conditions: list[str], seed: int = 0) -> dict[str, Any]:
    """Inputs of a network, with NaN and huge values where nothing may be read."""
    rng, sizes = np.random.default_rng(seed), np.array(lengths)
    present = np.array([present_under(condition) for condition in conditions])
    inputs: dict[str, Any] = {"lengths": sizes.astype(np.int64), "present": present}
    for m, (name, width) in enumerate(zip(MODALITIES, DIMS, strict=True)):
        frames = rng.standard_normal((len(sizes), sizes[:, m].max() + seed, width)).astype(np.float32)
        for row, length in enumerate(sizes[:, m]):
            frames[row, length:] = np.nan
            if not present[row, m]:
                frames[row] = 1e30
        inputs[name] = frames
    return inputs


def lose(inputs: dict[str, Any], share: float, seed: int) -> None:
    """Put a NaN into frames, the first ones too; of each sequence one stays."""
    rng = np.random.default_rng(seed)
    for m, name in enumerate(MODALITIES):
        for row, length in enumerate(inputs["lengths"][:, m]):
            gone = np.flatnonzero(rng.random(length) < share)
            gone = gone[gone != rng.integers(length)]
            inputs[name][row, gone, rng.integers(DIMS[m])] = np.nan


def wanted(predictor: Predictor, inputs: dict[str, Any]) -> Any:
    """What the predictor answers, one utterance at a time."""
    answers = []
    for row, (lengths, present) in enumerate(zip(inputs["lengths"], inputs["present"], strict=True)):
        shown = zip(MODALITIES, lengths, present, strict=True)
        features = {name: inputs[name][row, :length] for name, length, seen in shown if seen}
        answers.append([*predictor.predict(features).values()])
    return np.array(answers)


def session_of(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def check_against_predictor(model: MissingModalityModule, path: Path) -> None:
    predictor, session = Predictor(model, TRAINED_ON), session_of(path)
    answered = [condition for condition in CONDITIONS if model.answers(condition)]
    cases = [([[length] * 3], [condition]) for length in (1, 2, 7, 64, 300) for condition in answered]
    rng = np.random.default_rng(7)
    for size in (3, 17):
        drawn = rng.choice([1, 2, 5, 7, 30, 64, 299], (size, 3))
        cases.append((drawn.tolist(), [answered[row % len(answered)] for row in range(size)]))
    for number, (lengths, conditions) in enumerate(cases):
        inputs = random_inputs(lengths, conditions, number)
        if number % 2:
            lose(inputs, 0.5, number)
        (found,) = session.run(None, inputs)
        np.testing.assert_allclose(found, wanted(predictor, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(MODELS)]
)
def test_a_network_answers_as_the_predictor_does(name: str, tmp_path: Path) -> None:
    # As published, a cascade that is not trained enlarges rounding past what is compared.
    scaled: dict[str, Any] = {"cascade_init": "scaled"} if "cascade_init" in declared_options(MODELS[name]) else {}
    model = build_narrow(name, **scaled).float()
    exported = export_model(model, TRAINED_ON, tmp_path / "model.onnx")
    check_against_predictor(model, exported.path)
    found = exported.comparison
    print(f"{name}: {exported.megabytes:.2f} MB, {exported.export_seconds:.1f} s, {found.difference:.1e}")


def test_it_says_what_it_is(tmp_path: Path) -> None:
    export_model(build("MeanFusion").float(), TRAINED_ON, tmp_path / "model.onnx")
    session = session_of(tmp_path / "model.onnx")
    found = session.get_modelmeta().custom_metadata_map
    assert (found["model"], found["task"], found["fingerprint"]) == ("MeanFusion", "classification", "abc")
    assert json.loads(found["classes"]) == CLASSES
    assert json.loads(found["widths"]) == list(DIMS)
    assert json.loads(found["modalities"]) == ["audio", "visual", "text"]
    assert json.loads(found["normalization"]) == ["train", "utterance", "none"]
    assert json.loads(found["versions"])["torch"] == str(torch.__version__)
    free = [["batch", f"{name}_frames", width] for name, width in zip(MODALITIES, DIMS, strict=True)]
    assert [put.shape for put in session.get_inputs()] == [*free, ["batch", 3], ["batch", 3]]


def test_a_row_without_an_answer_is_nan_and_alters_no_other(tmp_path: Path) -> None:
    model = build_narrow("IFMMIN").float()
    session = session_of(export_model(model, TRAINED_ON, tmp_path / "model.onnx").path)
    inputs = random_inputs([[4, 5, 6], [7, 1, 2], [3, 3, 3]], ["avt", "avt", "at"])
    inputs["present"][1] = False
    (found,) = session.run(None, inputs)
    assert np.isnan(found[1]).all()
    others = {name: value[[0, 2]] for name, value in inputs.items()}
    np.testing.assert_allclose(found[[0, 2]], wanted(Predictor(model, TRAINED_ON), others), rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["train", "utterance", "none"])
def test_what_is_lost_whole_is_absent(how: str, tmp_path: Path) -> None:
    model = build_narrow("IFMMIN").float()
    statistics = {
        name: {"mean": torch.linspace(-3, 3, dim), "std": torch.linspace(0.5, 4, dim)}
        for name, dim in zip(MODALITIES, DIMS, strict=True)
    }
    trained_on = TRAINED_ON | {"normalization": [how] * 3, "statistics": statistics}
    session = session_of(export_model(model, trained_on, tmp_path / "model.onnx").path)
    inputs = random_inputs([[4, 5, 6], [7, 1, 2], [3, 3, 20]], ["avt", "avt", "avt"])
    inputs["audio"][0, :, 3] = np.nan
    inputs["visual"][1] = np.nan
    inputs["text"][2, :19] = np.nan
    inputs["text"][2, 19:, 1] = 0.125
    for name in MODALITIES:
        inputs[name][2, :, 2] = 7.0  # constant, exactly zero after an utterance's own normalisation
    inputs["text"][2, :19] = np.nan
    (found,) = session.run(None, inputs)
    predictor = Predictor(model, trained_on)
    np.testing.assert_allclose(found, wanted(predictor, inputs), rtol=0, atol=1e-5)
    everything = {name: np.full_like(inputs[name], np.nan) for name in MODALITIES}
    assert np.isnan(session.run(None, inputs | everything)[0]).all()


def test_a_regression_gives_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS["MeanFusion"](feature_dims=list(DIMS), task=Regression().spec())
    session = session_of(export_model(model, TRAINED_ON, tmp_path / "model.onnx").path)
    inputs = random_inputs([[4, 5, 6], [7, 1, 2]], ["avt", "t"])
    (found,) = session.run(None, inputs)
    assert found.shape == (2, 1)
    np.testing.assert_allclose(found, wanted(Predictor(model, TRAINED_ON), inputs), rtol=0, atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["classes"] == "[]"


class CountsInPython(Small):
    """Reads a length as a number of Python, which a trace fixes."""

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) * batch.lengths.max().item()


class OneByOne(Small):
    def forward(self, batch: Batch) -> Tensor:
        if len(batch.row) > 1:
            raise ValueError("one utterance\nat a time")
        return super().forward(batch)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (CountsInPython, "CountsInPython cannot be exported: under {"),
        (OneByOne, "OneByOne cannot be exported: it cannot be traced (ValueError: one utterance)."),
    ],
)
def test_what_cannot_be_exported_says_so_and_leaves_the_old_file(kind: type[Small], line: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old", encoding="utf-8")
    torch.manual_seed(0)
    with pytest.raises(InputError) as caught:
        export_model(kind(feature_dims=list(DIMS), class_names=CLASSES), TRAINED_ON, path)
    assert str(caught.value).startswith(line) and str(caught.value).isprintable()
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_text(encoding="utf-8") == "old"


def test_models_are_as_before_an_export(tmp_path: Path) -> None:
    before = dict(vars(baselines.mean_fusion))
    model = build("MeanFusion").float()
    answer = Predictor(model, TRAINED_ON).predict({"text": np.ones((3, DIMS[2]))})
    export_model(model, TRAINED_ON, tmp_path / "model.onnx")
    assert vars(baselines.mean_fusion) == before
    assert builtins.len is len and torch.backends.mha.get_fastpath_enabled()
    assert Predictor(model, TRAINED_ON).predict({"text": np.ones((3, DIMS[2]))}) == answer


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_line(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf'^{package} .*: pip install "ifmmin\[export\]"\.$'):
        export_model(build("MeanFusion").float(), TRAINED_ON, tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


def example(*words: str, cwd: Path) -> dict[str, float]:
    """What the example prints, in a process in which no module of torch can be imported."""
    program = f"import runpy, sys; sys.modules['torch'] = None; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    return {name: float(value) for name, value in lines}


def test_the_command_and_the_example_without_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, network = best(fit(tmp_path / "run", *sample("IEMOCAP"), model="MeanFusion")), tmp_path / "m.onnx"
    assert main(["export", str(checkpoint), str(network)]) == 0
    said = capsys.readouterr().out
    assert "largest difference" in said and "MB" in said and f"written: {network}" in said
    predictor = Predictor.load(checkpoint)
    audio = np.random.default_rng(0).standard_normal((9, predictor.feature_dims[0]))
    np.save(tmp_path / "audio.npy", audio)
    found = example(str(network), "audio=audio.npy", cwd=tmp_path)
    assert found == pytest.approx(predictor.predict({"audio": audio}), abs=1e-3)
    assert list(example(str(network), cwd=tmp_path)) == predictor.class_names
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) == 20
    assert main(["export", str(checkpoint), str(network)]) == 1
    assert "exists already" in capsys.readouterr().err
