"""Extractors are found by name, without an import; what is wrong is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from datamodules.errors import InputError
from datamodules.extraction.extractors import registry
from datamodules.extraction.recipes import Choice
from tests.cli.running import CHECKOUT
from tests.datamodules.extraction import stand_ins
from tests.datamodules.extraction.stand_ins import pretend

HERE = "tests.datamodules.extraction.stand_ins"


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = {"loudness": "Loudness", "pinned": "Pinned", "greedy": "Greedy", "lacking": "NamesNoModality"}
    pretend(monkeypatch, broken="no_such_module_at_all:X", **{name: f"{HERE}:{leaf}" for name, leaf in classes.items()})
    registry._warn.cache_clear()


def line_of(choice: Choice, modality: str = "audio") -> str:
    with pytest.raises(InputError) as caught:
        registry.build(choice, modality)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_ours_and_others_are_listed_alike() -> None:
    listed = registry.names()
    assert {"comparE", "face-hog", "hf-speech", "hf-text", "hf-vision", "loudness", "broken", "npy"} <= {*listed}
    assert listed == sorted(listed)
    assert registry.names(registry.DETECTOR_GROUP) == ["boxes", "hog", "yunet"]


def test_every_built_in_class_can_be_imported_without_what_it_needs() -> None:
    """Their modules import nothing of the extras: it is imported when one is made."""
    code = (
        "import sys\n"
        f"for name in {sorted(registry.EXTRAS)!r}: sys.modules[name] = None\n"
        "from datamodules.extraction.extractors import registry\n"
        "for point in registry.BUILT_IN:\n"
        "    registry.find(point.name, point.group)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, timeout=120)


def test_nothing_is_imported_to_list_names_or_to_import_recipes() -> None:
    code = (
        "import sys, json\n"
        "from datamodules.extraction import recipes\n"
        "from datamodules.extraction.extractors import registry\n"
        "registry.names()\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('datamodules.extraction.extractors.')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, check=True, timeout=120)
    home = "datamodules.extraction.extractors."
    assert {*json.loads(done.stdout)} == {home + "options", home + "registry"}


def test_an_extractor_of_another_distribution_is_made_with_its_options() -> None:
    made = registry.build(Choice("loudness", {"gain": 2, "scale": "log"}), "audio", device="cuda:7")
    assert isinstance(made, stand_ins.Loudness)
    assert made.options == (2.0, 3, "log", None, False)
    assert made.device == "cuda:7"


def test_an_unknown_name_has_a_near_one() -> None:
    assert line_of(Choice("loudnes")).startswith(
        "extractor 'loudnes' is not known or not installed. Did you mean loudness? There are: broken, comparE, "
    )
    assert "Did you mean comparE?" in line_of(Choice("compare"))


def test_another_modality_lists_those_of_the_modality() -> None:
    line = line_of(Choice("loudness"), "text")
    assert line.startswith("extractor loudness is of audio, not text; for text there are: ")
    assert "pinned" in line
    assert "loudness" not in line.partition(";")[2]


def test_a_broken_distribution_is_a_warning_to_others(caplog: pytest.LogCaptureFixture) -> None:
    listed = registry.available("audio")
    assert "loudness" in listed
    assert "broken" not in listed
    assert "left out: extractor broken (no_such_module_at_all:X) cannot be imported" in caplog.text


def test_a_broken_distribution_is_one_line_to_who_asks_for_it() -> None:
    assert line_of(Choice("broken")) == (
        "extractor broken (no_such_module_at_all:X) cannot be imported (No module named 'no_such_module_at_all')."
    )
    assert "cannot be imported (No module named 'no_such_module_at_all')" in line_of(Choice("greedy"))
    assert "breaks its contract: it has no modality, width, reads, __call__, recipe" in line_of(Choice("lacking"))


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"gian": "2"}, "extractor loudness has no option 'gian'. Did you mean gain?"),
        ({"gain": "much"}, "extractor loudness: option gain must be float, not 'much'."),
        ({"gain": "nan"}, "option gain must be float, not 'nan'."),
        ({"gain": float("inf")}, "option gain must be float, not 'inf'."),
        ({"steps": "2.5"}, "option steps must be int, not '2.5'."),
        ({"steps": True}, "option steps must be int, not 'True'."),
        ({"scale": "root"}, "option scale must be linear or log, not 'root'."),
        ({"floor": "low"}, "option floor must be float or none, not 'low'."),
        ({"centred": "1"}, "option centred must be bool, not '1'."),
        ({"device": "cpu"}, "has no option 'device'."),
        ({"gain": [1]}, "option gain must be float, not '[1]'."),
    ],
)
def test_a_wrong_option_names_all(options: dict[str, object], wrong: str) -> None:
    line = line_of(Choice("loudness", options))  # type: ignore[arg-type]
    assert wrong in line
    assert line.endswith(
        "Its options: gain: float = 1.0, steps: int = 3, scale: linear or log = linear, "
        "floor: float or none = None, centred: bool = False."
    )


def test_options_are_converted_to_their_types() -> None:
    words = {"gain": "2", "steps": "4", "scale": "log", "floor": "none", "centred": "TRUE"}
    given = registry.check("loudness", "audio", words)
    assert given == {"gain": 2.0, "steps": 4, "scale": "log", "floor": None, "centred": True}
    assert [type(value) for value in given.values()] == [float, int, str, type(None), bool]


@pytest.mark.parametrize(("name", "remedy"), [("opensmile", ", or --audio logmel"), ("transformers", "")])
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, remedy: str) -> None:
    module = ModuleType("needs_a_package")

    class Needy:
        modality = "audio"

        def __init__(self) -> None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=f"{name}.core")

    module.Needy = Needy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    pretend(monkeypatch, needy="needs_a_package:Needy")
    extra = registry.EXTRAS[name]
    line = line_of(Choice("needy"))
    assert line.startswith(f'extractor needy needs {name}: pip install "ifmmin[{extra}]"{remedy}')


def test_a_name_that_is_taken_stays_ours(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    pretend(monkeypatch, npy=f"{HERE}:Loudness")
    assert registry.find("npy").__name__ == "Npy"
    registry.names()
    assert caplog.text.count(f"extractor npy of {HERE}:Loudness left out: the name is taken") == 1


def test_ours_may_be_listed_in_the_metadata_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, **{point.name: point.value for point in registry.BUILT_IN if point.name == "npy"})
    assert registry.find("npy").__name__ == "Npy"
    assert not caplog.text


def test_a_detector_is_made_with_its_options() -> None:
    made = registry.build_detector(Choice("boxes", {"threshold": "0.25"}))
    assert isinstance(made, stand_ins.Detector)
    assert made.threshold == 0.25
    with pytest.raises(InputError, match="face detector boxes has no option 'x'"):
        registry.build_detector(Choice("boxes", {"x": 1}))
    with pytest.raises(InputError, match=r"face detector 'boxen' is not known or not installed\. Did you mean boxes"):
        registry.build_detector(Choice("boxen"))


def test_every_file_of_an_extractor_is_listed() -> None:
    """No built-in extractor is forgotten in the registry."""
    helpers = {"__init__", "hub", "options", "ready_made", "registry"}
    files = {path.stem for path in Path(registry.__file__).parent.glob("*.py")} - helpers
    homes = {point.module.rpartition(".")[2] for point in registry.BUILT_IN}
    assert files <= homes
