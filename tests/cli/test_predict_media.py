"""``predict`` for media files, folders and cameras."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ifmmin import MediaPredictor
from ifmmin.cli.main import main
from ifmmin.cli.media_words import OPTIONS
from tests.cli.running import CHECKOUT, best, fit
from tests.datamodules.corpora import write_corpus
from tests.datamodules.extraction.media_files import voice, write_video, write_wav
from tests.ifmmin.media_models import WIDTHS, add_extraction, install

pytest.importorskip("av")

DOCS = (CHECKOUT / "docs" / "predict.md").read_text(encoding="utf-8")

Shown = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def extractors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The small extractors are installed, and an empty folder is the current one."""
    install(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root, dims=[*WIDTHS.values()])
    run = fit(root / "run", "--data", "IEMOCAP", "--data.root", str(root), model="MeanFusion")
    return add_extraction(best(run), root / "media.ckpt")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips of which one has no sound and one is broken, with a file that is no clip."""
    root = tmp_path_factory.mktemp("clips")
    pictures = [np.full((48, 64, 3), 150, np.uint8)] * 20
    write_video(root / "a.avi", pictures, 10, voice(2.0))
    (root / "b.mp4").write_text("broken", encoding="utf-8")
    write_video(root / "c.avi", pictures, 10)
    write_wav(root / "d.WAV", voice(1.0))
    (root / "notes.txt").write_text("no clip", encoding="utf-8")
    (root / "._a.avi").write_text("left by a Mac", encoding="utf-8")
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def predict(*words: object) -> int:
    return main(["predict", *map(str, words)])


def test_a_clip(checkpoint: Path, clips: Path, tmp_path: Path, capsys: Shown) -> None:
    assert (
        predict(clips / "a.avi", "--ckpt_path", checkpoint, "--text", "You said nothing.", "--without", "visual") == 0
    )
    shown = capsys.readouterr().out.splitlines()
    answer = MediaPredictor.load(checkpoint).predict(clips / "a.avi", text="You said nothing.", without=["visual"])
    assert shown[:4] == [
        "a.avi · 2.0 s",
        "  audio   20 frames",
        "  visual  absent: left out",
        "  text    3 tokens",
    ]
    ranked = sorted(answer.probability.items(), key=lambda item: -item[1])
    assert shown[4].startswith("{a,t}: " + " · ".join(f"{name} {value:.2f}" for name, value in ranked))
    each = {name: max(said.items(), key=lambda item: item[1]) for name, said in answer.each.items() if said}
    tops = [f"{{{name[0]}}} {top[0]} {top[1]:.2f}" for name, top in each.items()]
    assert shown[4].endswith("what each alone says: " + ", ".join(tops))
    assert not [*tmp_path.iterdir()]


def test_the_answer_as_json(checkpoint: Path, clips: Path, capsys: Shown) -> None:
    assert predict("--ckpt_path", checkpoint, "--json", clips / "c.avi") == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    answer = MediaPredictor.load(checkpoint).predict(clips / "c.avi")
    assert found["probability"] == answer.probability and found["prediction"] == answer.prediction
    assert found["condition"] == "{v}" and found["name"] == "c.avi" and found["faces"] == [20, 20]
    assert found["absent"] == {"audio": "no audio track", "text": "no transcript"}


def test_a_remedy_is_named_where_words_are_missing(checkpoint: Path, clips: Path, capsys: Shown) -> None:
    assert predict(clips / "d.WAV", "--ckpt_path", checkpoint) == 0
    assert "  text    absent: no transcript (give --text or --subtitles)\n" in capsys.readouterr().out


def test_words_alone(checkpoint: Path, capsys: Shown) -> None:
    assert predict("--text", "[what a day]", "--ckpt_path", checkpoint) == 0
    assert "{t}: " in capsys.readouterr().out


def test_a_folder(checkpoint: Path, clips: Path, tmp_path: Path, capsys: Shown) -> None:
    output = tmp_path / "out" / "answers.csv"
    assert predict(clips, "--ckpt_path", checkpoint, "--output", output) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in shown] == [
        "[1/4] a.avi",
        "[2/4] b.mp4",
        "[3/4] c.avi",
        "[4/4] d.WAV",
        f"written: {output}",
    ]
    assert "no answer: cannot be read: " in shown[1]
    found = rows(output)
    assert [row["condition"] for row in found] == ["av", "", "v", "a"]
    assert [row["file"] for row in found] == ["a.avi", "b.mp4", "c.avi", "d.WAV"]
    assert found[1]["problem"].startswith("cannot be read: ") and found[1]["prediction"] == ""
    predictor = MediaPredictor.load(checkpoint)
    for row, name in ((found[0], "a.avi"), (found[3], "d.WAV")):
        answer = predictor.predict(clips / name)
        said = {name: np.float32(row[f"p_{name}"]) for name in answer.probability}
        assert said == {name: np.float32(value) for name, value in answer.probability.items()}
        assert row["prediction"] == answer.prediction
        assert [row[name] for name in ("audio", "visual", "text")] == [str(int(name in answer.each)) for name in WIDTHS]
    assert found[0]["absent"] == "text: no transcript" and found[0]["alone_audio"]


def test_several_files_of_which_none_can_be_answered(checkpoint: Path, clips: Path, capsys: Shown) -> None:
    assert predict(clips / "b.mp4", "none.mp4", "--ckpt_path", checkpoint) == 1
    shown = capsys.readouterr()
    assert "[2/2] none.mp4  no answer: no such file" in shown.out
    assert not shown.err


def test_windows(checkpoint: Path, clips: Path, tmp_path: Path, capsys: Shown) -> None:
    output = tmp_path / "answers.csv"
    words = ["--window", "1", "--hop", "0.5", "--ckpt_path", checkpoint]
    assert predict(clips / "d.WAV", clips / "a.avi", *words, "--output", output) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("[1/2] d.WAV 0:00.0–0:01.0  {a}: ")
    found = rows(output)
    assert [(row["start"], row["end"]) for row in found[1:]] == [
        ("0.000", "1.000"),
        ("0.500", "1.500"),
        ("1.000", "2.000"),
    ]
    assert [row["file"] for row in found] == ["d.WAV", "a.avi", "a.avi", "a.avi"]


def test_subtitles(checkpoint: Path, clips: Path, tmp_path: Path, capsys: Shown) -> None:
    subtitles = tmp_path / "talk.vtt"
    subtitles.write_text("WEBVTT\n\n00:00.500 --> 00:01.500\n=Hello\n", encoding="utf-8")
    output = tmp_path / "answers.csv"
    assert predict(clips / "a.avi", "--subtitles", subtitles, "--ckpt_path", checkpoint, "--output", output) == 0
    assert capsys.readouterr().out.startswith('0:00.5–0:01.5  "=Hello"  {a,v,t}: ')
    (row,) = rows(output)
    assert row["words"] == "'=Hello"  # no spreadsheet runs it
    assert (row["condition"], row["start"], row["end"]) == ("avt", "0.500", "1.500")


def test_calibrated_answers_and_abstaining(checkpoint: Path, clips: Path, tmp_path: Path, capsys: Shown) -> None:
    temperature = torch.load(checkpoint, weights_only=True)["ifmmin"]["temperatures"]
    plain = {name: MediaPredictor.load(checkpoint).predict(clips / name) for name in ("a.avi", "c.avi", "d.WAV")}
    expected = {}
    for name, answer in plain.items():
        condition = "".join(modality[0] for modality in answer.frames)
        powers = np.array([*answer.probability.values()]) ** (1 / temperature[condition])
        expected[name] = powers / powers.sum()
    highest = sorted(float(values.max()) for values in expected.values())
    threshold = (highest[0] + highest[1]) / 2  # one abstains
    output, words = tmp_path / "answers.csv", ["--calibrated", "true", "--abstain_below", threshold]
    assert predict(clips, "--ckpt_path", checkpoint, *words, "--output", output) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = dict(zip(("a.avi", "b.mp4", "c.avi", "d.WAV"), lines[:4], strict=True))
    abstained = []
    for row in rows(output):
        name = row["file"]
        if name == "b.mp4":
            assert (row["prediction"], row["abstained"], row["calibrated"]) == ("", "0", "0")
            continue
        found = [float(row[f"p_{label}"]) for label in plain[name].probability]
        assert found == pytest.approx(expected[name], abs=1e-6)
        assert row["calibrated"] == "1" and ", calibrated: " in shown[name]
        abstains = expected[name].max() < threshold
        assert row["abstained"] == str(int(abstains)) and ("calibrated: abstains (" in shown[name]) == abstains
        assert row["prediction"] == ("" if abstains else plain[name].prediction)
        abstained.append(abstains)
    assert sum(abstained) == 1
    assert predict(clips / "d.WAV", "--ckpt_path", checkpoint, "--calibrated", "false") == 0
    assert "{a}: " in capsys.readouterr().out


def test_the_form_for_a_corpus_stays(capsys: Shown) -> None:
    with pytest.raises(SystemExit):
        predict("--help")
    assert "--data.help" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        predict("clip.mp4", "--help")
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in OPTIONS) and "--data" not in shown


def test_a_file_as_camera(checkpoint: Path, clips: Path, tmp_path: Path, capsys: Shown) -> None:
    output = tmp_path / "answers.csv"
    film = clips / "a.avi"
    words = ["--camera", film, "--microphone", film, "--window", "0.8", "--hop", "0.4", "--ckpt_path", checkpoint]
    assert predict(*words, "--output", output) == 0
    assert capsys.readouterr().out.startswith("0.0–0.8 s  {a,v}: ")
    found = rows(output)
    assert 1 <= len(found) <= 4 and {row["condition"] for row in found} == {"av"}
    assert [row["file"] for row in found] == [str(film)] * len(found)


def test_a_device_as_camera_and_no_microphone(checkpoint: Path, capsys: Shown) -> None:
    words = ["--camera", "lavfi:color=white", "--microphone", "none", "--window", "0.5", "--ckpt_path", checkpoint]
    assert predict(*words, "--seconds", "1") == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("0.0–0.5 s  {v}: ")


def test_a_microphone_that_is_not_there_is_a_note(checkpoint: Path, capsys: Shown, monkeypatch: Any) -> None:
    monkeypatch.setattr("datamodules.extraction.media.camera._MICROPHONES", {sys.platform: ("lavfi", "no_such")})
    assert predict("--camera", "lavfi:color=white", "--window", "0.5", "--seconds", "1", "--ckpt_path", checkpoint) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("note: microphone lavfi:no_such: cannot be opened (")
    assert "{v}: " in shown.out


PROGRAM = """
import sys
sys.path.insert(0, {checkout!r})
import pytest
from tests.ifmmin.media_models import install
install(pytest.MonkeyPatch())
from ifmmin.cli.main import main
raise SystemExit(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_a_camera_and_keeps_the_answers(checkpoint: Path, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(checkout=str(CHECKOUT)), encoding="utf-8")
    words = ["predict", "--camera", "lavfi:color=white", "--microphone", "none", "--window", "0.5"]
    command = [sys.executable, str(script), *words, "--ckpt_path", str(checkpoint), "--output", "answers.csv"]
    program = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    first = program.stdout.readline()
    assert "{v}: " in first, program.communicate()
    time.sleep(0.2)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=30)
    assert program.returncode == 0, (out, err)
    assert "written: answers.csv" in out and not err
    assert len(rows(tmp_path / "answers.csv")) == 1 + out.count("{v}: ")


def test_a_clip_on_a_disk_that_may_not_be_written(checkpoint: Path, clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "read only"
    shutil.copytree(clips, folder)
    folder.chmod(0o500)
    try:
        assert predict(folder / "a.avi", "--ckpt_path", checkpoint) == 0
    finally:
        folder.chmod(0o700)


def test_the_example_in_the_documentation(checkpoint: Path, clips: Path, tmp_path: Path, capsys: Shown) -> None:
    (example,) = re.findall(r"```python\n(from ifmmin import MediaPredictor.*?)```", DOCS, flags=re.DOTALL)
    shutil.copy(checkpoint, "media.ckpt")
    shutil.copy(clips / "a.avi", "clip.mp4")
    given: dict[str, Any] = {}
    exec(example, given)
    assert given["answer"].condition == "{a,v,t}" and {*given["features"]} == {"audio", "visual"}
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["0.0", "1.0"], ["1.0", "2.0"]]


def test_every_option_is_in_the_documentation() -> None:
    shown = DOCS.split("## A whole corpus")[0]
    for name in {*OPTIONS} - {"help", "model"}:
        assert f"--{name}" in shown, name
