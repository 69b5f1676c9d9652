"""Plug-ins in the pipeline: made from words, and again from the provenance of their features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.extraction.pipeline import Pipeline
from datamodules.extraction.recipes import Choice, ExtractionRecipe, from_attributes, from_words
from datamodules.extraction.recordings import Recording, Source
from tests.datamodules.extraction import tiny_models
from tests.datamodules.extraction.media_files import face_picture, voice, write_video
from tests.datamodules.extraction.test_onnx_networks import answers, save_detector, save_network

TINY = {"audio": ("hf-speech", "wavlm"), "visual": ("hf-vision", "clip"), "text": ("hf-text", "bert")}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Half a second of a face that speaks."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    write_video(path, [face_picture()] * 12, sound=voice(0.5))
    return Recording("one", Source(path), Source(path), "You said nothing")


def attributes(pipeline: Pipeline, recipe: ExtractionRecipe) -> dict[str, dict[str, object]]:
    """As feature files have them: no folders."""
    found: dict[str, dict[str, object]] = {}
    for modality, choice in recipe.choices.items():
        detector = None
        if modality == "visual" and pipeline.detector is not None:
            detector = {**recipe.detector.to_dict(), "recipe": pipeline.detector.recipe()}
        options = {name: Path(str(value)).name for name, value in choice.options.items()}
        made = pipeline.extractors[modality].recipe()
        found[modality] = {**choice.to_dict(), "options": options, "recipe": made, "detector": detector}
    return found


def test_the_provenance_of_transformers_gives_the_same_bits(
    clip: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = []
    for modality, (extractor, kind) in TINY.items():
        make = {"audio": tiny_models.speech, "visual": tiny_models.vision, "text": tiny_models.text}[modality]
        make(kind, tmp_path / f"tiny-{kind}")
        words += [f"--{modality}", f"{extractor}:{tmp_path}/tiny-{kind}"]
    recipe, _ = from_words(words)
    pipeline = Pipeline.from_recipe(recipe, batch=2)
    (first,) = pipeline.extract([clip])
    assert {name: len(values) for name, values in first.features.items()} == {"audio": 5, "visual": 5, "text": 6}
    monkeypatch.setenv("IFMMIN_MODELS", str(tmp_path))
    again = from_attributes(attributes(pipeline, recipe))
    assert again.choices["audio"].options["model"] == "tiny-wavlm"
    (second,) = Pipeline.from_recipe(again, batch=2).extract([clip])
    for name, values in first.features.items():
        np.testing.assert_array_equal(second.features[name], values)


def test_a_face_network_behind_another_detector(clip: Recording, tmp_path: Path) -> None:
    save_network(tmp_path / "net.onnx", 1)
    found = answers(256, 320)
    for name, values in found.items():
        values[...] = 0
        if name.endswith("_32"):
            values[0, 34] = 1.5 if name.startswith("bbox") else 1  # column 4 of row 3: one large face
    save_detector(tmp_path / "yunet.onnx", (256, 320), found)
    words = f"--audio none --text none --visual onnx:{tmp_path}/net.onnx --detector yunet:{tmp_path}/yunet.onnx"
    recipe, _ = from_words(words.split())
    assert recipe.detector.extractor == "yunet"
    pipeline = Pipeline.from_recipe(recipe)
    (extracted,) = pipeline.extract([clip])
    assert extracted.features["visual"].shape == (5, 6)
    made = attributes(pipeline, recipe)["visual"]
    pinned = from_attributes({"visual": made}).detector
    assert pinned.options["sha256"] == pipeline.detector.recipe()["sha256"]  # type: ignore[union-attr]


def test_files_of_others_need_no_media(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones((3, 2), np.float32))
    recipe = ExtractionRecipe(None, Choice("npy", {"folder": str(tmp_path)}), None)
    recordings = [Recording("one"), Recording("two", absent={"visual": "no media"})]
    first, second = Pipeline.from_recipe(recipe).extract(recordings)
    np.testing.assert_array_equal(first.features["visual"], np.ones((3, 2)))
    assert second.absent == {"visual": "no npy file"}
