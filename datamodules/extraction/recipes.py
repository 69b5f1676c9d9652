"""Which extractors make a corpus's features, as plain data: named recipes, words of a command line, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.extractor import ENTRY_POINT_GROUP
from datamodules.extraction.extractors import registry
from datamodules.extraction.extractors.options import Plain, near, options_of
from datamodules.text import printable

FROM_FILES = ("npy", "openface")
"""Extractors that read files of others by utterance: they cannot be run on a recording."""


@dataclass(frozen=True)
class Choice:
    """An extractor, or a face detector, and its options.

    Attributes:
        extractor: its name, as the registry lists it.
        options: keywords of its class, plain.
    """

    extractor: str
    options: Mapping[str, Plain] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"extractor": self.extractor, "options": dict(self.options)}

    @classmethod
    def from_dict(cls, data: Any, what: str) -> Choice:
        """Read what :meth:`to_dict` made; a stranger may have written it.

        Args:
            data: as JSON holds it.
            what: it is of, for the message: ``recipe: audio``.

        Raises:
            InputError: it is something else.
        """
        if not isinstance(data, Mapping) or {*data} != {"extractor", "options"}:
            raise InputError(f"{what}: must have extractor and options and nothing else.")
        name, options = data["extractor"], data["options"]
        if not isinstance(name, str) or not isinstance(options, Mapping) or len(options) > _MOST_OPTIONS:
            raise InputError(f"{what}: extractor must be a name, and options an object.")
        for key, value in options.items():
            if not isinstance(key, str) or not isinstance(value, Plain):
                raise InputError(f"{what}: option {printable(key, 60)} is no text, number, truth value or null.")
        return cls(name, dict(options))


_MOST_OPTIONS = 100


@dataclass(frozen=True)
class ExtractionRecipe:
    """An extractor of each modality.

    Attributes:
        audio: of sound; None: leave it out.
        visual: of pictures; None: leave it out.
        text: of words; None: leave it out.
        detector: finds the faces that ``visual`` is given.
    """

    audio: Choice | None
    visual: Choice | None
    text: Choice | None
    detector: Choice = field(default_factory=lambda: Choice("hog"))

    @property
    def choices(self) -> dict[str, Choice]:
        """The extractors by modality, of those that are not left out."""
        found = {modality: getattr(self, modality) for modality in MODALITIES}
        return {modality: choice for modality, choice in found.items() if choice is not None}

    def checked(self) -> ExtractionRecipe:
        """The same with options converted to their types; extractors' modules are imported, nothing is made.

        Raises:
            InputError: an extractor is not installed, of another modality, or an option is wrong.
        """
        choices = {
            modality: Choice(choice.extractor, registry.check(choice.extractor, modality, choice.options))
            for modality, choice in self.choices.items()
        }
        if self.visual is None:
            return replace(self, **choices)
        options = registry.check_detector(self.detector.extractor, self.detector.options)
        return replace(self, **choices, detector=Choice(self.detector.extractor, options))

    def to_dict(self) -> dict[str, Any]:
        """As plain data, which :meth:`from_dict` reads.

        >>> RECIPES["portable"].to_dict()["audio"]
        {'extractor': 'comparE', 'options': {}}
        """
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: None if choice is None else choice.to_dict() for name, choice in values.items()}

    @classmethod
    def from_dict(cls, data: Any) -> ExtractionRecipe:
        """Read what :meth:`to_dict` made.

        Raises:
            InputError: anything is missing, more, or of another type.
        """
        known = {part.name for part in fields(cls)}
        if not isinstance(data, Mapping) or {*data} != known:
            raise InputError(f"recipe: must have {', '.join(sorted(known))} and nothing else.")
        choices: dict[str, Any] = {}
        for name, choice in data.items():
            is_left_out = choice is None and name in MODALITIES
            choices[name] = None if is_left_out else Choice.from_dict(choice, f"recipe: {name}")
        return cls(**choices)


RECIPES = {
    "portable": ExtractionRecipe(Choice("comparE"), Choice("face-hog"), Choice("minilm")),
    "published": ExtractionRecipe(
        Choice("comparE"), Choice("face-hog"), Choice("hf-text", {"model": "bert-large-uncased"})
    ),
    "modern": ExtractionRecipe(
        Choice("hf-speech", {"model": "microsoft/wavlm-large"}),
        Choice("hf-vision", {"model": "openai/clip-vit-base-patch32"}),
        Choice("hf-text", {"model": "roberta-large"}),
    ),
}
"""By name. ``portable`` needs no network and no weights but MiniLM's, which its package ships; ``published`` is the
papers' where it can be had, which DenseFace's weights cannot; ``modern`` wants a GPU."""


def from_words(words: Sequence[str]) -> tuple[ExtractionRecipe, list[str]]:
    """Read a recipe from words of a command line.

    Args:
        words: ``--recipe NAME``; ``--audio``, ``--visual``, ``--text`` or ``--detector`` with a name, a name and its
            model (``hf-text:bert-large-uncased``) or ``none``; ``--audio.OPTION VALUE`` and so on; ``--a=b`` too.

    Returns:
        the recipe, checked, and the words that are none of these, in order.

    Raises:
        InputError: a name, an option or a value is wrong or missing.

    >>> words = "OUT --audio npy:sound --visual none --text npy --text.folder words --jobs 2"
    >>> recipe, rest = from_words(words.split())
    >>> recipe.audio, recipe.visual, rest
    (Choice(extractor='npy', options={'folder': 'sound'}), None, ['OUT', '--jobs', '2'])
    """
    named, options, rest = _sorted_words(words)
    name = named.pop("recipe", "portable")
    if name not in RECIPES:
        listed = ", ".join(RECIPES)
        raise InputError(f"recipe {printable(name, 60)!r} is not known.{near(name, RECIPES)} There are: {listed}.")
    recipe = RECIPES[name]
    for slot in (*MODALITIES, "detector"):
        choice = getattr(recipe, slot)
        if slot in named:
            choice = _choice(named[slot], slot)
        if options[slot]:
            if choice is None:
                raise InputError(f"--{slot}.{next(iter(options[slot]))} has no extractor; leave out --{slot} none.")
            choice = Choice(choice.extractor, {**choice.options, **options[slot]})
        recipe = replace(recipe, **{slot: choice})
    return recipe.checked(), rest


def _sorted_words(words: Sequence[str]) -> tuple[dict[str, str], dict[str, dict[str, Plain]], list[str]]:
    """Names by slot, options by slot and name, and the words that are neither."""
    slots = (*MODALITIES, "detector")
    named: dict[str, str] = {}
    options: dict[str, dict[str, Plain]] = {slot: {} for slot in slots}
    rest: list[str] = []
    left = iter(words)
    for word in left:
        key, equals, value = word.partition("=")
        slot, dot, option = key.removeprefix("--").partition(".")
        is_ours = key.startswith("--") and (slot in slots or (slot == "recipe" and not dot))
        if not is_ours:
            rest.append(word)
            continue
        if not equals:
            following = next(left, None)
            if following is None or (following.startswith("--") and not dot):
                raise InputError(f"{key} needs a value.")
            value = following
        if dot:
            options[slot][option.replace("-", "_")] = value
        else:
            named[slot] = value
    return named, options, rest


def _choice(word: str, slot: str) -> Choice | None:
    """``NAME``, ``NAME:MODEL`` or, for a modality, ``none``."""
    if word == "none" and slot != "detector":
        return None
    name, colon, model = word.partition(":")
    if not colon:
        return Choice(name)
    group = registry.DETECTOR_GROUP if slot == "detector" else ENTRY_POINT_GROUP
    known = options_of(registry.find(name, group)).known
    option = next((option for option in ("model", "folder") if option in known), None)
    if option is None:
        raise InputError(f"--{slot} {printable(word, 60)}: {name} takes no model; write --{slot} {name}.")
    return Choice(name, {option: model})


def from_attributes(attributes: Mapping[str, Mapping[str, Any]]) -> ExtractionRecipe:
    """Rebuild the recipe of features from their files' provenance, to run it on recordings.

    Weights are pinned: an extractor with an option ``sha256`` is given the recorded one, and refuses other weights when
    it is made.

    Args:
        attributes: the attribute ``extraction`` of each feature file, by modality; a modality that is not there is left
            out. A stranger may have written them.

    Raises:
        InputError: one is malformed, its extractor is not installed, or reads files of others.
    """
    choices: dict[str, Choice | None] = dict.fromkeys(MODALITIES)
    detector = Choice("hog")
    for modality, attribute in attributes.items():
        what = f"extraction of {printable(modality, 20)}"
        if modality not in choices or not isinstance(attribute, Mapping):
            raise InputError(f"{what}: is no provenance of a modality.")
        recorded = {key: attribute.get(key) for key in ("extractor", "options")}
        choices[modality] = _pinned(Choice.from_dict(recorded, what), modality, attribute.get("recipe"), what)
        if modality == "visual" and attribute.get("detector") is not None:
            detector = _pinned_detector(attribute["detector"], what)
    return ExtractionRecipe(**choices, detector=detector).checked()


def _pinned(choice: Choice, modality: str, recipe: Any, what: str) -> Choice:
    """The choice with the weights that were used.

    Raises:
        InputError: it cannot be run on recordings here.
    """
    if choice.extractor in FROM_FILES:
        raise InputError(
            f"{what}: {choice.extractor} reads ready-made files by utterance and cannot be run on a recording; "
            f"predict without {modality}, or train on features of another extractor."
        )
    if choice.extractor not in registry.names():
        raise InputError(
            f"{what}: the extractor {printable(choice.extractor, 60)!r} is not installed; install the distribution "
            f"that it came with, or predict without {modality}."
        )
    if not isinstance(recipe, Mapping):
        raise InputError(f"{what}: its recipe is no object.")
    digest = recipe.get("sha256")
    takes_it = "sha256" in options_of(registry.find(choice.extractor)).known
    if takes_it and isinstance(digest, str):
        return Choice(choice.extractor, {**choice.options, "sha256": digest})
    return choice


def _pinned_detector(data: Any, what: str) -> Choice:
    if not isinstance(data, Mapping):
        raise InputError(f"{what}: its detector is no object.")
    choice = Choice.from_dict({key: data.get(key) for key in ("extractor", "options")}, f"{what}: detector")
    digest = data["recipe"].get("sha256") if isinstance(data.get("recipe"), Mapping) else None
    takes_it = "sha256" in options_of(registry.find(choice.extractor, registry.DETECTOR_GROUP)).known
    if takes_it and isinstance(digest, str):
        return Choice(choice.extractor, {**choice.options, "sha256": digest})
    return choice
