"""The tree of MSP-IMPROV, invented."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np

from datamodules.extraction.invented.face import Person
from datamodules.extraction.invented.turns import SENTENCES, Options, Turn, generator
from datamodules.extraction.invented.voice import voice_of
from datamodules.extraction.invented.writing import Video, write_wav

_MSP_LABELS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
_MSP_WORDS = {"A": "Angry", "H": "Happy", "N": "Neutral", "S": "Sad", "O": "Other", "X": "Other"}


def make_msp(root: Path, options: Options) -> dict[str, object]:
    """The tree of MSP-IMPROV: six pairs, four scenarios, of which 'S', the other improvised turns, is the one used."""
    turns: list[Turn] = []
    for session in options.first(6):
        for person, other in (("F", "M"), ("M", "F")):
            speaker = f"{person}{session:02d}"
            # scenario, label, intended emotion: the letter in the name is what was to be acted, not what was perceived.
            plan = [("S", label, "AHNS"["AHNS".index(label) - 3]) for _ in range(options.turns) for label in "AHNS"]
            plan += [("S", "O", "N"), ("S", "X", "H"), ("P", "N", "N"), ("R", "A", "A"), ("T", "S", "S")]
            for number, (scenario, label, intended) in enumerate(plan):
                emotion = _MSP_LABELS.get(label, "other")
                sentences = SENTENCES[emotion]
                name = f"MSP-IMPROV-S{session:02d}{intended}-{speaker}-{scenario}-{person}{other}{number + 1:02d}"
                text = sentences[(number + session) % len(sentences)]
                turns.append(Turn(name, speaker, label, emotion, text))
    if options.defects:
        used = [turn for turn in turns if "-S-" in turn.name and turn.label in _MSP_LABELS]
        spoilt = used[:: max(1, len(used) // 4)]
        for turn, absent in zip(spoilt, (["visual"], ["audio"], ["text"], ["visual", "text"]), strict=False):
            turn.absent = list(absent)
    for turn in turns:
        _write_msp_turn(root, turn, options)
    _write_msp_evaluation(root / "Evalution.txt", turns)
    kept = [turn for turn in turns if "-S-" in turn.name and turn.label in _MSP_LABELS]
    counts = Counter(turn.emotion for turn in kept)
    utterances = [asdict(turn) for turn in turns]
    return {"utterances": utterances, "in_four_classes": len(kept), "classes": dict(sorted(counts.items()))}


def _write_msp_turn(root: Path, turn: Turn, options: Options) -> None:
    _, _, sentence, speaker, scenario, _ = turn.name.split("-")
    place = Path(f"session{int(speaker[1:])}") / sentence / scenario
    split = options.msp_layout == "split"
    audio, video = (root / "Audio" / place, root / "Video" / place) if split else (root / place, root / place)
    rate, fps = 44100, Fraction(60000, 1001)
    sound = voice_of(turn, options, rate)
    turn.end = len(sound) / rate
    write_wav(audio / f"{turn.name}.wav", [sound], rate)
    size = options.width // 2
    height = size * 3 // 4
    noise = generator(options.seed, turn.name, "film").normal(0, 1, (height, height, 3))
    person = Person(0.70, (0.20, 0.45, 0.25))
    film = Video(video / f"{turn.name}.avi", size, height, fps, rate)
    hold, count = 6, max(1, int(turn.end * float(fps)))
    for number in range(0, count, hold):
        mouth = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * number / float(fps))
        away, grain = "visual" in turn.absent, np.roll(noise, number, axis=1)
        picture = person.picture(height, size, turn.emotion, float(mouth), 0.02, away, grain)
        film.frames(picture, min(hold, count - number))
    film.sound([sound], rate)
    film.close()
    if "text" not in turn.absent:
        words = root / "All_human_transcriptions" / f"{turn.name}.txt"
        words.parent.mkdir(parents=True, exist_ok=True)
        words.write_text(turn.text + "\n")


def _write_msp_evaluation(path: Path, turns: list[Turn]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = []
    for turn in turns:
        values = {"A": (4.0, 2.0), "H": (3.5, 4.25), "N": (2.75, 3.0), "S": (2.0, 2.0)}.get(turn.label, (3.0, 3.0))
        activation, valence = values
        dominance = "NaN" if turn.label == "X" else "3.000000"
        scores = f"A:{activation:.6f}; V:{valence:.6f}; D:{dominance}"
        head = f"{turn.name.replace('MSP', 'UTD', 1)}.avi; {turn.label}; {scores} ; N:4.000000;"
        word = _MSP_WORDS[turn.label]
        raters = [f"m-p{number:03d}_01; {word}; {word}, ; {scores}; N:4.000000;" for number in range(1, 6)]
        blocks.append("\n".join([head, *raters]) + "\n")
    path.write_text("\n".join(blocks))
