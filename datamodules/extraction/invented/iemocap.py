"""The tree of IEMOCAP_full_release, invented."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.extraction.invented.face import Person
from datamodules.extraction.invented.turns import SENTENCES, Options, Turn, generator
from datamodules.extraction.invented.voice import voice_of
from datamodules.extraction.invented.writing import Video, write_wav

Array = npt.NDArray[np.float64]

_IEMOCAP_LABELS = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"}
_RATINGS = {
    "ang": ("Anger", (2, 4, 4)),
    "hap": ("Happiness", (4, 3, 3)),
    "exc": ("Excited", (5, 4, 3)),
    "neu": ("Neutral state", (3, 2, 3)),
    "sad": ("Sadness", (2, 2, 2)),
    "fru": ("Frustration", (2, 3, 3)),
    "xxx": ("Other", (3, 3, 3)),
}


def make_iemocap(root: Path, options: Options) -> dict[str, object]:
    """The tree of IEMOCAP_full_release: five sessions, two dialogues each, the markers on the woman and on the man."""
    truth: list[dict[str, object]] = []
    for session in options.first(5):
        for wearer, scene in (("F", "impro01"), ("M", "script01_1" if session % 2 else "impro02")):
            dialogue = f"Ses{session:02d}{wearer}_{scene}"
            turns = _iemocap_turns(dialogue, wearer, options)
            if options.defects:
                _spoil_iemocap(session, dialogue, turns)
            _write_iemocap_dialogue(root / f"Session{session}", dialogue, turns, options)
            truth += [asdict(turn) for turn in turns]
    kept = [turn for turn in truth if turn["label"] in _IEMOCAP_LABELS]
    counts = Counter(_IEMOCAP_LABELS[str(turn["label"])] for turn in kept)
    return {"utterances": truth, "in_four_classes": len(kept), "classes": dict(sorted(counts.items()))}


def _iemocap_turns(dialogue: str, wearer: str, options: Options) -> list[Turn]:
    rng = generator(options.seed, dialogue, "turns")
    labels = [label for _ in range(options.turns) for label in ("ang", "exc" if wearer == "F" else "hap", "neu", "sad")]
    labels += ["fru", "xxx"]
    turns = []
    for person in ("F", "M"):
        for number, place in enumerate(rng.permutation(len(labels)).tolist()):
            label = labels[place]
            emotion = _IEMOCAP_LABELS.get(label, "other")
            sentences = SENTENCES[emotion]
            name = f"{dialogue}_{person}{number:03d}"
            half = "left" if person == wearer else "right"
            text = sentences[int(rng.integers(len(sentences)))]
            turns.append(Turn(name, f"{dialogue[:5]}{person}", label, emotion, text, half=half))
    # They take turns.
    return [turn for number in range(len(labels)) for turn in (turns[number], turns[len(labels) + number])]


def _spoil_iemocap(session: int, dialogue: str, turns: list[Turn]) -> None:
    """Take something away from some of the utterances of the four classes."""
    kept = [turn for turn in turns if turn.label in _IEMOCAP_LABELS]
    if dialogue[5] == "F":
        wanted = {1: ["visual"], 2: ["audio"], 3: ["text"], 4: ["audio", "visual"]}.get(session, [])
        kept[0].absent = list(wanted)
        if session == 5:  # its video will be cut off in the middle of the file
            for turn in kept:
                turn.absent = ["visual"]


def _write_iemocap_dialogue(session: Path, dialogue: str, turns: list[Turn], options: Options) -> None:
    rate, fps = 16000, Fraction(30000, 1001)
    pause = int(0.25 * rate)
    left_sound: list[Array] = [np.zeros(pause)]
    right_sound: list[Array] = [np.zeros(pause)]
    at = pause
    for turn in turns:
        sound = voice_of(turn, options, rate)
        folder = session / "sentences" / "wav" / dialogue
        write_wav(folder / f"{turn.name}.wav", [sound], rate)
        turn.start, turn.end = at / rate, (at + len(sound)) / rate
        silent = np.zeros(len(sound) + pause)
        heard = np.concatenate([sound, np.zeros(pause)])
        # The woman is on one channel, the man on the other; which is which is not relied upon by anything known.
        left_sound.append(heard if turn.speaker.endswith("F") else silent)
        right_sound.append(silent if turn.speaker.endswith("F") else heard)
        at += len(heard)
        _write_alignment(session / "sentences" / "ForcedAlignment" / dialogue / f"{turn.name}.wdseg", turn)
    left, right = np.concatenate(left_sound), np.concatenate(right_sound)
    write_wav(session / "dialog" / "wav" / f"{dialogue}.wav", [left, right], rate)
    video = session / "dialog" / "avi" / "DivX" / f"{dialogue}.avi"
    _film_iemocap(video, dialogue, turns, at / rate, fps, [left, right], rate, options)
    if options.defects and dialogue.startswith("Ses05F"):
        data = video.read_bytes()
        video.write_bytes(data[:2000])  # a copy that broke off
    _write_transcription(session / "dialog" / "transcriptions" / f"{dialogue}.txt", dialogue, turns)
    _write_evaluation(session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt", turns)
    if options.defects:
        # What a Mac leaves beside files, found in copies of the release; it is no text.
        for place in ("EmoEvaluation", "transcriptions"):
            (session / "dialog" / place / f"._{dialogue}.txt").write_bytes(b"\x00\x05\x16\x07\x00\x02Mac OS X\xff\xfe")


def _film_iemocap(
    path: Path,
    dialogue: str,
    turns: list[Turn],
    seconds: float,
    fps: Fraction,
    sound: list[Array],
    rate: int,
    options: Options,
) -> None:
    """Both people beside each other, the one with the markers on the left, black above and below."""
    width, height = options.width, options.width * 2 // 3
    inner = height * 8 // 15
    people = {
        "left": Person(0.66, (0.30, 0.36, 0.52), markers=True),
        "right": Person(0.80, (0.52, 0.36, 0.30)),
    }
    rng = generator(options.seed, dialogue, "film")
    noise = rng.normal(0, 1, (inner, inner, 3))
    video = Video(path, width, height, fps, rate, channels=2)
    hold, count = 3, round(seconds * float(fps))
    for number in range(0, count, hold):
        time = number / float(fps)
        picture = np.zeros((height, width, 3))
        for side, person in people.items():
            now = next((turn for turn in turns if turn.start <= time < turn.end and turn.half == side), None)
            mouth = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * time) if now else 0.0
            expression = now.emotion if now else "neutral"
            near = [turn for turn in turns if turn.half == side and turn.start - 0.2 <= time < turn.end + 0.2]
            away = any("visual" in turn.absent for turn in near) and not dialogue.startswith("Ses05F")
            turn = 0.03 * np.sin(2 * np.pi * 0.5 * time + (side == "left"))
            grain = np.roll(noise, number, axis=1)
            part = person.picture(inner, width // 2, expression, float(mouth), float(turn), away, grain)
            column = 0 if side == "left" else width // 2
            picture[(height - inner) // 2 : (height + inner) // 2, column : column + width // 2] = part
        video.frames(picture, min(hold, count - number))
    video.sound(sound, rate)
    video.close()


def _write_transcription(path: Path, dialogue: str, turns: list[Turn]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{t.name} [{t.start:08.4f}-{t.end:08.4f}]: {t.text}" for t in turns if "text" not in t.absent]
    # Words outside of any utterance: unlabelled, with a number of their own, or without one.
    other, at = "M" if dialogue[5] == "F" else "F", turns[0].end
    lines.insert(1, f"{dialogue}_{other}XX0 [{at:08.4f}-{at + 0.2:08.4f}]: [LAUGHTER]")
    lines.insert(3, "M: Hm.")
    path.write_text("\n".join(lines) + "\n")


def _write_evaluation(path: Path, turns: list[Turn]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]
    for turn in turns:
        word, (valence, activation, dominance) = _RATINGS[turn.label]
        means = f"[{valence:.4f}, {activation:.4f}, {dominance:.4f}]"
        lines = [f"[{turn.start:.4f} - {turn.end:.4f}]\t{turn.name}\t{turn.label}\t{means}"]
        lines += [f"C-{rater}:\t{word};\t()" for rater in ("E1", "E2", "E4")]
        lines += [f"C-{turn.speaker[-1]}1:\t{word}; Other;\t(made up)"]
        lines += [f"A-{rater}:\tval {valence}; act {activation}; dom  {dominance};\t()" for rater in ("E1", "E2")]
        lines += [f"A-{turn.speaker[-1]}1:\tval {valence}; act {activation}; dom  ;\t()"]
        blocks.append("\n".join(lines) + "\n")
    path.write_text("\n".join(blocks) + "\n")


def _write_alignment(path: Path, turn: Turn) -> None:
    """Words with their frames of 10 ms, spread evenly."""
    if "text" in turn.absent:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [word.strip(".,!?").upper() for word in turn.text.split()]
    frames = int((turn.end - turn.start) * 100)
    edges = np.linspace(10, max(frames - 10, 11 + len(words)), len(words) + 1).astype(int)
    spoken = [(int(a), int(b), word) for a, b, word in zip(edges[:-1], edges[1:] - 1, words, strict=True)]
    rows = [(0, int(edges[0]) - 1, "<s>"), *spoken, (int(edges[-1]), frames - 1, "</s>")]
    lines = [
        "\t SFrm  EFrm    SegAScr Word",
        *(f"\t{a:5d} {b:5d} {-1000 * (b - a + 1):10d} {word}" for a, b, word in rows),
    ]
    path.write_text("\n".join([*lines, f" Total score: {-1000 * frames:12d}"]) + "\n")
