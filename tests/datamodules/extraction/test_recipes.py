"""Recipes: by name, from words, from provenance."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datamodules.errors import InputError
from datamodules.extraction import recipes
from datamodules.extraction.extractors import registry
from datamodules.extraction.recipes import RECIPES, Choice, ExtractionRecipe, from_attributes, from_words
from tests.datamodules.extraction.stand_ins import pretend

HERE = "tests.datamodules.extraction.stand_ins"


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, loudness=f"{HERE}:Loudness", pinned=f"{HERE}:Pinned", faces=f"{HERE}:Faces")
    plain = ExtractionRecipe(Choice("loudness"), None, Choice("pinned", {"model": "m"}))
    monkeypatch.setitem(recipes.RECIPES, "portable", plain)


def test_the_named_recipes_are_the_specification_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert {name: [choice.extractor for choice in recipe.choices.values()] for name, recipe in RECIPES.items()} == {
        "portable": ["comparE", "face-hog", "minilm"],
        "published": ["comparE", "face-hog", "hf-text"],
        "modern": ["hf-speech", "hf-vision", "hf-text"],
    }
    models = {name: [choice.options.get("model") for choice in RECIPES[name].choices.values()] for name in RECIPES}
    assert models == {
        "portable": [None, None, None],
        "published": [None, None, "bert-large-uncased"],
        "modern": ["microsoft/wavlm-large", "openai/clip-vit-base-patch32", "roberta-large"],
    }
    assert [recipe.detector for recipe in RECIPES.values()] == [Choice("hog")] * 3


@pytest.mark.parametrize("name", ["portable", "published", "modern"])
def test_a_recipe_survives_json(name: str) -> None:
    assert ExtractionRecipe.from_dict(json.loads(json.dumps(RECIPES[name].to_dict()))) == RECIPES[name]


GOOD: dict[str, Any] = RECIPES["modern"].to_dict()


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {**GOOD, "more": None},
        {key: value for key, value in GOOD.items() if key != "detector"},
        {**GOOD, "detector": None},
        {**GOOD, "audio": "comparE"},
        {**GOOD, "audio": {"extractor": "comparE"}},
        {**GOOD, "audio": {"extractor": 3, "options": {}}},
        {**GOOD, "audio": {"extractor": "comparE", "options": []}},
        {**GOOD, "audio": {"extractor": "comparE", "options": {"a": [1]}}},
        {**GOOD, "audio": {"extractor": "comparE", "options": {3: 1}}},
        {**GOOD, "audio": {"extractor": "comparE", "options": {}, "more": 1}},
        {**GOOD, "audio": {"extractor": "comparE", "options": {str(number): 1 for number in range(101)}}},
    ],
)
def test_a_malformed_recipe_is_one_line(data: Any) -> None:
    with pytest.raises(InputError, match=r"^recipe: [^\n]*$"):
        ExtractionRecipe.from_dict(data)


# Words of a command line.


def test_without_words_it_is_portable() -> None:
    assert from_words([]) == (RECIPES["portable"], [])


def test_words_of_others_come_back_in_order() -> None:
    words = ["RAW", "OUT", "--audio", "loudness", "--jobs", "2", "--audio.gain=2", "--only", "audio", "--dry-run"]
    recipe, rest = from_words(words)
    assert rest == ["RAW", "OUT", "--jobs", "2", "--only", "audio", "--dry-run"]
    assert recipe.audio == Choice("loudness", {"gain": 2.0})


def test_a_value_may_begin_with_a_minus() -> None:
    recipe, _ = from_words(["--audio.gain", "-4", "--text", "pinned", "--text.model", "-4:"])
    assert recipe.audio == Choice("loudness", {"gain": -4.0})
    assert recipe.text == Choice("pinned", {"model": "-4:"})


def test_name_and_model_in_one_word() -> None:
    recipe, _ = from_words(["--text", "pinned:bert-large", "--visual", "npy:C:/faces", "--detector", "boxes:f"])
    assert recipe.text == Choice("pinned", {"model": "bert-large"})
    assert recipe.visual == Choice("npy", {"folder": "C:/faces"})
    assert recipe.detector == Choice("boxes", {"model": "f"})


def test_options_alone_change_the_recipe_s_choice() -> None:
    recipe, _ = from_words(["--text.model", "other", "--audio.gain", "3"])
    assert recipe.text == Choice("pinned", {"model": "other"})
    assert recipe.audio == Choice("loudness", {"gain": 3.0})


def test_another_extractor_drops_the_recipe_s_options() -> None:
    recipe, _ = from_words(["--text", "npy", "--text.folder", "words"])
    assert recipe.text == Choice("npy", {"folder": "words"})


def test_a_modality_may_be_left_out() -> None:
    recipe, _ = from_words(["--audio", "none"])
    assert recipe.audio is None
    assert {*recipe.choices} == {"text"}


def test_the_last_of_two_words_wins() -> None:
    recipe, _ = from_words(["--audio.gain", "2", "--audio", "none", "--audio", "loudness", "--audio.gain", "3"])
    assert recipe.audio == Choice("loudness", {"gain": 3.0})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--recipe portabel", "recipe 'portabel' is not known. Did you mean portable? There are: portable, "),
        ("--recipe", "--recipe needs a value."),
        ("--audio", "--audio needs a value."),
        ("--audio --text npy", "--audio needs a value."),
        ("--audio.gain", "--audio.gain needs a value."),
        ("--audio nothing-such", "extractor 'nothing-such' is not known"),
        ("--audio pinned --audio.model m", "extractor pinned is of text, not audio"),
        ("--audio loudness:model", "--audio loudness:model: loudness takes no model; write --audio loudness."),
        ("--audio.gian 3", "extractor loudness has no option 'gian'. Did you mean gain?"),
        ("--audio none --audio.gain 3", "--audio.gain has no extractor; leave out --audio none."),
        ("--text pinned", "extractor pinned needs the option model. Its options: model: str, sha256: "),
        ("--visual npy:x --detector hogg", "face detector 'hogg' is not known or not installed. Did you mean hog?"),
        ("--visual npy:x --detector none", "face detector 'none' is not known"),
    ],
)
def test_a_wrong_word_is_one_line(words: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        from_words(words.split())
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


# Provenance.


def attribute(extractor: str, options: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    recipe = more.pop("recipe", {})
    return {"format": 1, "extractor": extractor, "options": options or {}, "recipe": recipe, "detector": None, **more}


def test_the_recipe_of_feature_files_with_their_weights() -> None:
    detector = {"extractor": "boxes", "options": {"model": "f.onnx"}, "recipe": {"sha256": "d" * 64}}
    recipe = from_attributes(
        {
            "audio": attribute("loudness", {"gain": 2.0}, recipe={"sha256": "no option of it"}),
            "visual": attribute("faces", {"model": "clip"}, detector=detector, recipe={"sha256": "e" * 64}),
            "text": attribute("pinned", {"model": "m"}, recipe={"sha256": "a" * 64}),
        }
    )
    assert recipe.audio == Choice("loudness", {"gain": 2.0})
    assert recipe.visual == Choice("faces", {"model": "clip", "sha256": "e" * 64})
    assert recipe.text == Choice("pinned", {"model": "m", "sha256": "a" * 64})
    assert recipe.detector == Choice("boxes", {"model": "f.onnx", "sha256": "d" * 64})


def test_a_modality_without_provenance_is_left_out() -> None:
    recipe = from_attributes({"audio": attribute("loudness")})
    assert recipe == ExtractionRecipe(Choice("loudness"), None, None)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"audio": attribute("gone")}, "extraction of audio: the extractor 'gone' is not installed; install the "),
        ({"audio": attribute("a\x1b[2J")}, r"extraction of audio: the extractor 'a\\x1b[2J' is not installed; install"),
        (
            {"visual": attribute("openface", {"folder": "x"})},
            "extraction of visual: openface reads ready-made files by utterance and cannot be run on a recording; "
            "predict without visual, or train on features of another extractor.",
        ),
        ({"text": attribute("npy", {"folder": "x"})}, "extraction of text: npy reads ready-made files"),
        ({"sound": attribute("loudness")}, "extraction of sound: is no provenance of a modality."),
        ({"audio": None}, "extraction of audio: is no provenance of a modality."),
        ({"audio": {}}, "extraction of audio: extractor must be a name"),
        ({"audio": attribute("loudness", recipe=3)}, "extraction of audio: its recipe is no object."),
        ({"audio": attribute("loudness", {"gian": 1})}, "extractor loudness has no option 'gian'."),
        ({"text": attribute("loudness")}, "extractor loudness is of audio, not text"),
        ({"visual": attribute("faces", {"model": "m"}, detector=3)}, "extraction of visual: its detector is no"),
        (
            {"visual": attribute("faces", {"model": "m"}, detector={"extractor": "gone", "options": {}})},
            "face detector 'gone' is not known or not installed.",
        ),
    ],
)
def test_provenance_that_cannot_be_followed_is_one_line(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        from_attributes(attributes)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_files_of_others_are_read_by_the_registry_s_names() -> None:
    assert {*recipes.FROM_FILES} <= {*registry.names()}
