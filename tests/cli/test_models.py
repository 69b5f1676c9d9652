"""The table of models."""

from __future__ import annotations

from ifmmin.cards import ModelCard
from ifmmin.cli.models import models_table
from tests.ifmmin.models import Small


def model(name: str, family: str | None) -> type[Small]:
    return type(name, (Small,), {} if family is None else {"card": ModelCard("X", "does x", family=family)})


def test_families_are_sections_and_names_in_order() -> None:
    models = [model("Late", "fusion"), model("none", None), model("Zed", "alignment"), model("LM", "fusion")]
    table = models_table([*models, model("b", "fusion")])
    assert [str(cell) for cell in table.columns[0].cells] == ["Zed", "b", "Late", "LM", "none"]
    assert [row.end_section for row in table.rows] == [True, False, False, True, False]
