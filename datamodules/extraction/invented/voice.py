"""Voices of an invented corpus: a buzz through vowel resonances, or the program espeak-ng."""

from __future__ import annotations

import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.extraction.invented.turns import Options, Turn, generator

Array = npt.NDArray[np.float64]

# Frequencies in hertz of the first three resonances of some vowels, as any phonetics book has them.
_VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
    (640, 1190, 2390),
)
_MANNER = {  # pitch, its range, loudness and syllables a second, relative to a neutral voice
    "angry": (1.25, 1.6, 1.6, 1.2),
    "happy": (1.35, 1.9, 1.2, 1.1),
    "neutral": (1.0, 1.0, 1.0, 1.0),
    "sad": (0.85, 0.6, 0.6, 0.75),
    "other": (1.0, 1.2, 0.9, 1.0),
}


def speak(text: str, manner: str, female: bool, rate: int, rng: np.random.Generator, longest: int) -> Array:
    """A voice-like sound [samples] in -1..1: a buzz through vowel resonances, a syllable per vowel of the text."""
    pitch, swing, loud, pace = _MANNER[manner]
    syllables = min(max(2, sum(letter in "aeiouy" for letter in text.lower())), longest)
    step = int(rate * 0.16 / pace)
    count = syllables * step
    at = np.arange(count) / rate
    melody = np.interp(np.arange(count), np.arange(syllables) * step, rng.normal(0, 0.12 * swing, syllables))
    hertz = (200.0 if female else 115.0) * pitch * np.exp(melody) * (1.05 - 0.15 * at / at[-1])
    turns = np.cumsum(hertz) / rate
    sound = np.zeros(count)
    vowels = rng.integers(len(_VOWELS), size=syllables)
    shape = np.hanning(step + 2)[1:-1]
    for number in range(syllables):
        part = slice(number * step, (number + 1) * step)
        for harmonic in range(1, 24):
            frequency = harmonic * hertz[part].mean()
            if frequency > 0.45 * rate:
                break
            peaks = enumerate(_VOWELS[vowels[number]])
            gain = sum(1 / (1 + ((frequency - peak) / 90) ** 2) / (1 + order) for order, peak in peaks)
            sound[part] += (gain + 0.02) / np.sqrt(harmonic) * np.sin(2 * np.pi * harmonic * turns[part])
        sound[part] *= shape * rng.uniform(0.7, 1.0)
    sound += rng.normal(0, 0.02, count)
    sound *= 0.22 * loud / np.sqrt(np.mean(sound**2))
    edge = np.zeros(int(0.1 * rate))
    clipped: Array = np.tanh(np.concatenate([edge, sound, edge]) * 0.6)
    return clipped


def speak_espeak(text: str, manner: str, female: bool, rate: int) -> Array:
    """The same by espeak-ng, resampled by linear interpolation."""
    pitch, _, loud, pace = _MANNER[manner]
    voice = "en-us+f3" if female else "en-us+m3"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        words = ["-v", voice, "-p", str(int(45 * pitch)), "-s", str(int(150 * pace)), "-a", str(int(90 * loud))]
        subprocess.run(["espeak-ng", *words, "-w", str(path), text], check=True, capture_output=True)
        with wave.open(str(path)) as file:
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
            had = file.getframerate()
    resampled: Array = np.interp(np.arange(0, len(sound), had / rate), np.arange(len(sound)), sound)
    return resampled


def voice_of(turn: Turn, options: Options, rate: int) -> Array:
    """What is heard."""
    female = "F" in turn.speaker
    if "audio" in turn.absent:
        return np.zeros(int(0.8 * rate))
    if options.voice == "espeak-ng":
        return speak_espeak(turn.text, turn.emotion, female, rate)
    return speak(turn.text, turn.emotion, female, rate, generator(options.seed, turn.name, "voice"), options.syllables)
