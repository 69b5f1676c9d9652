"""The card says what the run was, and never more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules import Synthetic
from ifmmin import Predictor
from ifmmin.results.files import write_results
from ifmmin.results.uncertainty import Intervals
from ifmmin.tasks import SUMMARY_ROWS
from tests.ifmmin.sharing.saved import fresh, record, results


def card(tmp_path: Path, data: dict[str, Any], **options: Any) -> tuple[dict[str, Any], str]:
    """Front matter and text of the card of a saved model."""
    Predictor(fresh("MeanFusion"), data).save_pretrained(tmp_path / "saved", **options)
    text = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_it_has_the_table_with_intervals(tmp_path: Path) -> None:
    scores = results(fresh("MeanFusion"))
    ends = {row: {score.name: (0.123, 0.987) for score in scores.task.scores} for row in SUMMARY_ROWS}
    scores.intervals = Intervals("speakers", 2, ends)
    write_results(scores, tmp_path / "run")
    front, body = card(tmp_path, record(), run=tmp_path / "run")
    # 5 of 8 right: 62.5 %; classes 2/2, 1/2, 1/2, 1/2: 62.5 % as well.
    rows = [line for line in body.splitlines() if line.startswith("| ") and "62.50 [12.3, 98.7]" in line]
    assert [row.split(" | ")[0] for row in rows][:2] == ["| {a}", "| {v}"]
    assert len(rows) == 9
    assert "95% bootstrap interval over 2 speakers" in body
    assert "fold 3 · seed 7 · test · 8 utterances" in body
    assert front["model-index"][0]["results"][0]["metrics"][0] == {
        "type": "accuracy",
        "name": "WA pooled",
        "value": 0.625,
    }
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "IEMOCAP"
    for heading in ("Use", "Trained on", "Results", "Intended use", "Limits", "Licence", "Made with"):
        assert f"\n## {heading}\n" in body


def test_values_are_named_by_their_scale(tmp_path: Path) -> None:
    task = {"name": "regression", "low": -1.0, "high": 2.5}
    model = fresh("MeanFusion", class_names=[], task=task, corpus="CMU-MOSI")
    Predictor(model, record(class_names=[], task=task)).save_pretrained(tmp_path / "saved")
    assert "\n- values: -1 to 2.5\n" in (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")


def test_it_says_what_was_hidden_in_training(tmp_path: Path) -> None:
    data = Synthetic(
        utterances_per_speaker=12, train_mask="0.2,0.5,0.8", permanent_mask=True, train_pattern="bursts:0.3"
    )
    data.setup("fit")
    _, body = card(tmp_path / "one", record(masking=data.checkpoint_record()["masking"]))
    assert (
        "\n- `--data.train_mask 0.2,0.5,0.8`\n- `--data.permanent_mask true`\n- `--data.train_pattern bursts:0.3:10`\n"
        in body
    )
    data = Synthetic(utterances_per_speaker=12)
    data.setup("fit")
    _, body = card(tmp_path / "two", record(masking=data.checkpoint_record()["masking"]))
    assert "\n- `--data.train_mask uniform`\n\n" in body
    _, body = card(tmp_path / "three", record())  # of a checkpoint from before it was recorded
    assert "--data." not in body


def test_the_hub_reads_its_front_matter(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    write_results(results(fresh("MeanFusion")), tmp_path / "run")
    card(tmp_path, record(), run=tmp_path / "run")
    read = hub.ModelCard.load(tmp_path / "saved" / "README.md").data
    assert read.library_name == "ifmmin"
    assert read.license_name == "iemocap-data-release"
    (found,) = (each for each in read.eval_results if each.metric_name == "WA full {a,v,t}")
    assert (found.dataset_name, found.metric_type, found.metric_value) == ("IEMOCAP", "accuracy", 0.625)


def test_no_place_of_the_training_machine_is_in_it(tmp_path: Path) -> None:
    write_results(results(fresh("MeanFusion")), tmp_path / "run")
    card(tmp_path, record(), run=tmp_path / "run")
    for path in (tmp_path / "saved").iterdir():
        assert b"somebody" not in path.read_bytes()
        assert b"secret-host" not in path.read_bytes()


@pytest.mark.parametrize(
    ("name", "changes", "title"),
    [
        ("Synthetic", {"synthetic": True, "invented": False}, "built-in synthetic corpus (not a corpus result)"),
        ("IEMOCAP", {"synthetic": True, "invented": True}, "IEMOCAP made of invented recordings (not a corpus result)"),
    ],
)
def test_what_is_generated_is_never_a_corpus_result(
    tmp_path: Path, name: str, changes: dict[str, Any], title: str
) -> None:
    own = {"corpus": name, "trained_on": {"corpus": name, "fold": 3, "seed": 7}}
    scores = results(fresh("MeanFusion"), **own, is_synthetic=True, invented=changes["invented"])
    write_results(scores, tmp_path / "run")
    front, body = card(tmp_path, record(name=name, **changes), run=tmp_path / "run")
    assert f"# MeanFusion on {title}" in body
    assert "**No result on a corpus of speech.**" in body
    assert front["license"] == "mit"
    assert "synthetic" in front["tags"]
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == title


def test_a_record_of_generated_data_suffices(tmp_path: Path) -> None:
    _, body = card(tmp_path, record(name="IEMOCAP", synthetic=True, invented=True))
    assert "made of invented recordings (not a corpus result)" in body
    assert "The run's scores were not given." in body


@pytest.mark.parametrize(
    ("corpus", "options", "licence"),
    [
        ("IEMOCAP", {}, "other"),
        ("folder-mine", {}, "unknown"),
        ("IEMOCAP", {"licence": "cc-by-4.0"}, "cc-by-4.0"),
    ],
)
def test_the_licence_is_the_corpus_s(tmp_path: Path, corpus: str, options: dict[str, Any], licence: str) -> None:
    front, body = card(tmp_path, record(name=corpus), **options)
    assert front["license"] == licence
    assert ("https://sail.usc.edu/iemocap/" in body) == (licence == "other")


def test_a_name_cannot_write_the_card(tmp_path: Path) -> None:
    classes = ["a|b", "`x`", "c", "d"]
    model = fresh("MeanFusion", class_names=classes)
    Predictor(model, record(class_names=classes)).save_pretrained(tmp_path / "saved")
    assert "- classes: a\\|b, 'x', c, d" in (tmp_path / "saved" / "README.md").read_text()
