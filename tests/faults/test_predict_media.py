"""Words of ``predict`` for media files that are wrong: one line each, nothing written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from tests.cli.running import best, fit
from tests.datamodules.corpora import write_corpus
from tests.datamodules.extraction.media_files import voice, write_wav
from tests.faults.cases import one_line, words_table
from tests.ifmmin.media_models import WIDTHS, add_extraction, extraction, install

pytest.importorskip("av")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints and files."""
    root = tmp_path_factory.mktemp("prepared")
    write_corpus(root / "corpus", dims=[*WIDTHS.values()])
    run = fit(root / "run", "--data", "IEMOCAP", "--data.root", str(root / "corpus"), model="MeanFusion")
    add_extraction(best(run), root / "media.ckpt")
    add_extraction(best(run), root / "sound.ckpt", extraction("audio"))
    missing = extraction()
    missing["audio"]["extractor"] = "missing"
    add_extraction(best(run), root / "missing.ckpt", missing)
    stored = torch.load(best(run), weights_only=True)
    del stored["ifmmin"]["temperatures"]
    torch.save(stored, root / "older.ckpt")
    add_extraction(root / "older.ckpt", root / "older.ckpt")
    stored["ifmmin"]["data"].pop("extraction", None)
    torch.save(stored, root / "ready.ckpt")
    write_wav(root / "clip.wav", voice(1.0))
    write_wav(root / "silent.wav", 0 * voice(1.0))
    write_wav(root / "long.wav", voice(40.0, rate=8_000), rate=8_000)
    (root / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHm.\n", encoding="utf-8")
    (root / "bad.srt").write_text("1\n00:00:00,000 --> soon\nHm.\n", encoding="utf-8")
    (root / "notes.mp4").write_text("no film", encoding="utf-8")
    (root / "old.csv").write_text("old\n", encoding="utf-8")
    (root / "empty").mkdir()
    return root


REFUSED = [
    ("clip.wav", "predict: --ckpt_path is needed."),
    ("clip.wav --ckpt_path none.ckpt", "none.ckpt: there is no such checkpoint file."),
    ("clip.wav --ckpt_path clip.wav", "clip.wav: not a readable checkpoint"),
    (
        "clip.wav --ckpt_path ready.ckpt",
        "ready.ckpt: this checkpoint's features came ready-made; media cannot be turned",
    ),
    ("clip.wav --ckpt_path missing.ckpt", "extractor 'missing' is not installed"),
    ("clip.wav clip.wav --ckpt_path missing.ckpt", "extractor 'missing' is not installed"),
    ("--ckpt_path media.ckpt --json", "predict: --model is needed."),
    ("--window 2 --ckpt_path media.ckpt", "predict: give a media file, a folder of them, --text or --camera."),
    ("none.mp4 --ckpt_path media.ckpt", "none.mp4: no such file; give a video or sound file."),
    ("notes.mp4 --ckpt_path media.ckpt", "notes.mp4: cannot be read: "),
    ("words.srt --ckpt_path media.ckpt", "words.srt: no audio track and no video track; give a video or sound file."),
    ("empty --ckpt_path media.ckpt", "empty: no media files in this folder"),
    ("silent.wav --ckpt_path media.ckpt", "silent.wav: nothing of it can be used (audio: silent;"),
    (
        "long.wav --ckpt_path media.ckpt",
        "long.wav: 40 s long, but models know utterances of up to 30 s; give subtitles",
    ),
    ("clip.wav --ckpt_path media.ckpt --half up", "invalid choice: 'up'"),
    ("clip.wav --ckpt_path media.ckpt --device moon", "--device moon: there is none here; give cpu"),
    ("clip.wav --ckpt_path media.ckpt --device meta", "--device meta: there is none here"),
    ("clip.wav --ckpt_path media.ckpt --without smell", "--without smell: give one or two of audio, visual, text."),
    ("clip.wav --ckpt_path media.ckpt --without ''", "--without : give one or two of"),
    ("clip.wav --ckpt_path media.ckpt --without audio,visual,text", "all modalities are left out"),
    ("clip.wav --ckpt_path media.ckpt --without audio", "nothing of it can be used (audio: left out;"),
    ("clip.wav --ckpt_path media.ckpt --text Hm. --without text", "text is given, but is absent: left out."),
    (
        "clip.wav --ckpt_path sound.ckpt --text Hm.",
        "text is given, but is absent: this checkpoint's text features came",
    ),
    (
        "clip.wav --ckpt_path sound.ckpt --subtitles words.srt",
        "subtitles are given, but text is absent: this checkpoint",
    ),
    ("clip.wav --ckpt_path media.ckpt --subtitles none.srt", "none.srt: there is no such file"),
    ("clip.wav --ckpt_path media.ckpt --subtitles bad.srt", "bad.srt: line 2, 00:00:00,000 --> soon, has no two times"),
    ("clip.wav --ckpt_path media.ckpt --subtitles clip.wav", "clip.wav: subtitles are read from .srt and .vtt"),
    ("clip.wav --ckpt_path media.ckpt --subtitles words.srt --window 2", "give either subtitles or a window"),
    (
        "clip.wav --ckpt_path media.ckpt --subtitles words.srt --text Hm.",
        "--text is for one utterance; leave out --text",
    ),
    ("clip.wav --ckpt_path media.ckpt --window 2 --text Hm.", "leave out --text or --window."),
    ("clip.wav clip.wav --ckpt_path media.ckpt --text Hm.", "--text is for one file; predict each with its own."),
    ("empty --ckpt_path media.ckpt --subtitles words.srt", "--subtitles is for one file"),
    ("clip.wav --ckpt_path media.ckpt --window 0", "window 0: give seconds from 0.1 to 30."),
    ("clip.wav --ckpt_path media.ckpt --window -1", "window -1: give seconds"),
    ("clip.wav --ckpt_path media.ckpt --window 60", "window 60: give seconds from 0.1 to 30."),
    ("clip.wav --ckpt_path media.ckpt --window nan", "window nan: give seconds"),
    ("clip.wav --ckpt_path media.ckpt --window soon", "argument --window: invalid float value: 'soon'"),
    ("clip.wav --ckpt_path media.ckpt --window 2 --hop 0", "hop 0: give at least 0.1 seconds."),
    ("clip.wav --ckpt_path media.ckpt --hop 2", "--hop belongs to --window"),
    ("clip.wav --ckpt_path media.ckpt --seconds 2", "--seconds belongs to --camera."),
    ("clip.wav --ckpt_path media.ckpt --microphone none", "--microphone belongs to --camera."),
    ("clip.wav --ckpt_path media.ckpt --camera 0", "--camera takes neither files nor subtitles."),
    ("--camera 77 --ckpt_path media.ckpt", "camera 77: cannot be opened ("),
    ("--camera none.mp4 --ckpt_path media.ckpt", "camera none.mp4: cannot be opened (No such file or directory)."),
    ("--camera nosuch:0 --ckpt_path media.ckpt", "camera nosuch:0: cannot be opened ("),
    ("--camera clip.wav --ckpt_path media.ckpt", "clip.wav: it has no video; give another device."),
    (
        "--camera lavfi:color --microphone lavfi:none --ckpt_path media.ckpt",
        "microphone lavfi:none: cannot be opened (",
    ),
    ("--camera lavfi:color --seconds 1 --ckpt_path media.ckpt", "--seconds 1: give at least those of a window, 5."),
    ("--camera lavfi:color --window 0 --ckpt_path media.ckpt", "window 0: give seconds from 0.1 to 30."),
    ("--camera lavfi:color --text Hm. --ckpt_path media.ckpt", "leave out --text or --camera."),
    (
        "--camera lavfi:color --microphone none --without visual --ckpt_path media.ckpt",
        "--camera: there is neither picture nor sound; leave out less.",
    ),
    (
        "clip.wav --ckpt_path older.ckpt --calibrated true",
        "older.ckpt: has no temperature of any condition, so its probabilities are not calibrated; validate --cal",
    ),
    ("clip.wav clip.wav --ckpt_path older.ckpt --calibrated true", "older.ckpt: has no temperature of any condition"),
    ("clip.wav --ckpt_path media.ckpt --calibrated maybe", "argument --calibrated: invalid choice: 'maybe'"),
    ("clip.wav --ckpt_path media.ckpt --calibrated", "argument --calibrated: expected one argument."),
    ("clip.wav --ckpt_path media.ckpt --abstain_below 1.5", "abstain_below 1.5: give a probability, from 0 to 1."),
    ("clip.wav --ckpt_path media.ckpt --abstain_below nan", "abstain_below nan: give a probability, from 0 to 1."),
    ("clip.wav --ckpt_path media.ckpt --output answers.txt", "answers.txt: answers are written as .csv"),
    ("clip.wav --ckpt_path media.ckpt --output old.csv", "old.csv: exists already; give another --output"),
    (
        "clip.wav --ckpt_path media.ckpt --data IEMOCAP",
        "--data is for a corpus; with media files the checkpoint says it",
    ),
    ("clip.wav --ckpt_path media.ckpt --trainer.devices 2", "--trainer.devices is for a corpus"),
    ("clip.wav --ckpt_path media.ckpt --model Nonsense", "model 'Nonsense' is not known."),
    ("clip.wav --ckpt_path media.ckpt --model MMIN", "media.ckpt: a checkpoint of MeanFusion, not of MMIN"),
    ("clip.wav --ckpt_path media.ckpt --subtitle words.srt", "--subtitle is not known. Did you mean --subtitles?"),
    ("clip.wav --ckpt_path media.ckpt --text", "argument --text: expected one argument."),
    ("'clip\x1b[2J.wav' --ckpt_path media.ckpt", r"clip\x1b[2J.wav: no such file"),
]


@pytest.mark.parametrize(("words", "expected"), words_table(REFUSED))
def test_refused_in_one_line(
    words: str, expected: str, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    monkeypatch.chdir(prepared)
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    assert expected in one_line(capsys, ["predict", *shlex.split(words)])
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*")} == before
