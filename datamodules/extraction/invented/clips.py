"""A folder of clips with a manifest, invented."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np

from datamodules.extraction.invented.face import Person
from datamodules.extraction.invented.turns import SENTENCES, Options, Turn, generator
from datamodules.extraction.invented.voice import voice_of
from datamodules.extraction.invented.writing import Video, write_wav


def make_clips(root: Path, options: Options) -> dict[str, object]:
    """A folder of short clips with a manifest: some with everything, some with sound, picture or words alone."""
    rows, turns = [], []
    kinds = ["all", "all", "all", "sound", "picture", "words"] if options.defects else ["all"]
    rate, fps, size = 16000, Fraction(25), options.width // 2
    height = size * 3 // 4
    for number in range(max(8, 4 * options.turns * 4)):
        emotion = ("angry", "happy", "neutral", "sad")[number % 4]
        speaker = f"{'FM'[number // 4 % 2]}{number // 8 % 4 + 1:02d}"
        kind = kinds[number % len(kinds)]
        turn = Turn(f"clip{number:03d}", speaker, emotion, emotion, SENTENCES[emotion][number // 4 % 4])
        turn.absent = {"sound": ["visual", "text"], "picture": ["audio", "text"], "words": ["audio", "visual"]}.get(
            kind, []
        )
        sound = voice_of(Turn(turn.name, speaker, emotion, emotion, turn.text), options, rate)
        path = ""
        if kind == "sound":
            path = f"media/{turn.name}.wav"
            write_wav(root / path, [sound], rate)
        elif kind != "words":
            path = f"media/{turn.name}.mp4"
            film = Video(root / path, size, height, fps, rate if kind == "all" else None)
            noise = generator(options.seed, turn.name, "film").normal(0, 1, (height, height, 3))
            count = max(1, int(len(sound) / rate * 25))
            for frame in range(0, count, 3):
                mouth = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * frame / 25)
                grain, person = np.roll(noise, frame, axis=1), Person(0.75, (0.35, 0.35, 0.40))
                picture = person.picture(height, size, emotion, float(mouth), 0.0, False, grain)
                film.frames(picture, min(3, count - frame))
            if kind == "all":
                film.sound([sound], rate)
            film.close()
        words = "" if "text" in turn.absent else turn.text
        rows.append({"id": turn.name, "media": path, "text": words, "label": emotion, "speaker": speaker})
        turns.append(turn)
    root.mkdir(parents=True, exist_ok=True)
    with (root / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["id", "media", "text", "label", "speaker"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    counts = Counter(turn.emotion for turn in turns)
    utterances = [asdict(turn) for turn in turns]
    return {"utterances": utterances, "in_four_classes": len(turns), "classes": dict(sorted(counts.items()))}
