"""What docs/extractors.md says is true."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import InputError
from datamodules.extraction.extractor import ENTRY_POINT_GROUP, Absent, Sound
from datamodules.extraction.extractors import registry
from datamodules.extraction.extractors.options import options_of
from datamodules.extraction.recipes import RECIPES, Choice, from_words
from tests.cli.running import CHECKOUT
from tests.datamodules.extraction.stand_ins import pretend

PAGE = (CHECKOUT / "docs" / "extractors.md").read_text(encoding="utf-8")
ROWS = {match[1]: match[0] for match in re.finditer(r"^\| `([\w-]+)` .*$", PAGE, flags=re.MULTILINE)}
SHARED = PAGE.split("## Models of Hugging Face")[1].split("\n## ")[0]


@pytest.mark.parametrize("group", [ENTRY_POINT_GROUP, registry.DETECTOR_GROUP])
def test_every_option_of_every_extractor_is_described(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    for name in registry.names(group):
        for option in options_of(registry.find(name, group)).known:
            assert f"`{option}`" in ROWS[name] + SHARED * name.startswith("hf-"), f"{name}: {option}"


def test_widths_are_the_classes() -> None:
    for name, row in ROWS.items():
        width = re.match(r"\| `[\w-]+` \| (\d+)", row)
        found = getattr(registry.find(name), "width", None) if name in registry.names() else None
        if width and found is not None:
            assert int(width[1]) == found, name


def test_the_table_of_recipes() -> None:
    for name, recipe in RECIPES.items():
        words = [
            f"{choice.extractor}:{choice.options['model']}" if choice.options else choice.extractor
            for choice in recipe.choices.values()
        ]
        cells = [cell.strip(" `") for cell in ROWS[name].split("|")]
        assert cells[2:5] == words


def test_the_commands_choose_what_they_say() -> None:
    block = PAGE.split("```bash")[1].split("```")[0]
    commands = [line.split()[3:] for line in block.splitlines() if " extract " in line]
    recipes = [from_words(words)[0] for words in commands]
    assert recipes[0] == RECIPES["portable"]
    assert recipes[1].visual == Choice("hf-vision", {"model": "/models/clip-vit-base-patch32"})
    assert recipes[1].text == RECIPES["published"].text
    assert recipes[2].audio == Choice("hf-speech", {"model": "/models/wavlm-large", "layers": "-4:"})


def test_the_example_is_found_and_extracts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "loudness.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    (value,) = re.findall(r'loudness = "(.*)"', PAGE)
    pretend(monkeypatch, loudness=value)
    recipe, _ = from_words(["--audio", "loudness", "--audio.floor", "1e-4"])
    assert recipe.audio == Choice("loudness", {"floor": 1e-4})
    made = registry.build(recipe.audio, "audio")
    samples = np.concatenate([np.full(1600, 0.1), np.full(1600, -1.0), np.zeros(1700)]).astype(np.float32)
    np.testing.assert_allclose(made(Sound("one", samples, 16_000)), [[-20], [0], [-80]], atol=1e-4)
    with pytest.raises(Absent):
        made(Sound("one", samples[:100], 16_000))
    with pytest.raises(InputError, match="option floor must be float, not 'low'"):
        from_words(["--audio", "loudness", "--audio.floor", "low"])
