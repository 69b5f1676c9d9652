from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.speed import extraction
from datamodules.extraction.index import index_of
from datamodules.extraction.media.pictures import Film
from tests.datamodules.extraction.media_files import face_picture, voice, write_video


def test_tables_and_file(
    raw_iemocap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of("IEMOCAP", raw_iemocap)
    few = replace(index, recordings=index.recordings[4:8])
    monkeypatch.setattr(extraction, "index_of", lambda *words: few)
    threads = torch.get_num_threads()
    words = ["--raw", str(raw_iemocap), "--minutes", "--jobs", "--repeats", "1", "--csv", str(tmp_path / "table.csv")]
    extraction.main(words)
    torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    parts = {row["name"]: float(row["value"]) for row in rows if row["what"] == "part"}
    assert {"decode pictures", "detect faces", "audio: comparE", "text: minilm", "all"} < set(parts)
    assert all(name in shown for name in parts) and "real time" in shown
    whole = parts.pop("all")
    assert min(parts.values()) > 0 and 0.4 * whole < sum(parts.values()) < 2.5 * whole


def test_a_repeated_video_is_as_long_as_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", [face_picture()] * 25, 25, voice(1.0))
    seconds = extraction.repeat(path, tmp_path / "b.avi", 4.5)
    assert seconds == pytest.approx(5.0, abs=0.3)
    shown = list(Film(tmp_path / "b.avi"))
    assert shown[-1].end == pytest.approx(seconds, abs=0.1)
    assert len(shown) == pytest.approx(125, abs=3)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(raw_iemocap: Path, tmp_path: Path) -> None:
    recording = index_of("IEMOCAP", raw_iemocap).recordings[4]
    assert recording.picture is not None
    short, long = extraction.measure_memory(recording.picture.path, tmp_path, [1, 8])
    assert long.value < short.value + 40
