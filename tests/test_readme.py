"""What the README shows is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules import Synthetic
from ifmmin.discovery import discover_models
from tests.cli.running import CHECKOUT, SMALL, fresh, metrics

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
PARTS, PREDICTOR = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def model_rows() -> list[str]:
    """The README's rows of the models, made from their cards."""
    rows = []
    for name, model in sorted(discover_models().items(), key=lambda item: (item[1].card.family, item[0])):
        card = model.card
        paper = f"[{card.source}]({card.url})" if card.url else card.source
        code = f", [code]({card.code})" if card.code else ""
        rows.append(f"`{name}` | {card.summary} | {paper}{code} | {card.family}")
    return rows


def test_the_table_of_models_is_that_of_their_cards() -> None:
    table = README.split("## Models")[1].split("## Corpora")[0]
    shown = [line for line in table.splitlines() if re.match(r"`\w+` \|", line)]
    assert shown == model_rows()


def test_it_is_a_page_beside_the_table_of_models() -> None:
    prose = re.sub(r"^– \|.*$", "", README, flags=re.MULTILINE)  # systems that have no class
    for row in model_rows():
        prose = prose.replace(row, "")
    assert len(prose.split()) <= 1100


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (CHECKOUT / target).exists(), target


def test_the_two_lines_that_ci_runs_are_there() -> None:
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert [line.rpartition("&& ")[2].split()[1:3] for line in lines] == [["cli.py", "fit"], ["-m", "pytest"]]


def test_the_parts_import_without_lightning() -> None:
    code = f"{PARTS}\nimport sys\nassert 'lightning' not in sys.modules\nassert codes.shape == (8, 320)"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, timeout=120)


def test_one_utterance_is_predicted() -> None:
    random = np.random.default_rng(0)
    data = Synthetic(utterances_per_speaker=12)
    given: dict[str, Any] = {}
    for name, dim in zip(("audio", "visual", "text"), data.feature_dims, strict=True):
        given[name] = random.standard_normal((5, dim))
    exec(PREDICTOR, given)
    assert set(given["probability"]) == {"angry", "happy", "neutral", "sad"}
    assert sum(given["probability"].values()) == pytest.approx(1)
    assert sum(given["why"].values()) == pytest.approx(max(given["probability"].values()) - 1 / 4)


def test_the_template_copied_elsewhere_trains_and_learns(tmp_path: Path) -> None:
    template = (CHECKOUT / "baselines" / "mean_fusion.py").read_text(encoding="utf-8")
    (tmp_path / "my_package.py").write_text(template, encoding="utf-8")
    options = ["--model.learning_rate", "0.001"]
    words = [
        "--model",
        "my_package.MeanFusion",
        *options,
        *SMALL[:1],
        "100",
        "--trainer.max_epochs",
        "30",
        "--run_dir",
        "run",
    ]
    done = fresh("fit", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    full = metrics(tmp_path / "run")["metrics"]["avt"]["WA"]
    assert full == pytest.approx(metrics(tmp_path / "run")["metrics"]["avt"]["bayes_WA"], abs=0.15)
