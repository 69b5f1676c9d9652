"""Trees of IEMOCAP and MSP-IMPROV whose media are empty files: enough to be indexed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from datamodules.extraction.recordings import Index, Recording


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def label_block(name: str, category: str, start: float = 0.5, end: float = 1.5) -> str:
    rater = name.rsplit("_", 1)[1][0]
    return (
        f"[{start:.4f} - {end:.4f}]\t{name}\t{category}\t[2.5000, 2.5000, 2.5000]\n"
        f"C-E2:\tNeutral state;\t()\nC-{rater}1:\tNeutral state; Anger;\t(hm)\n"
        f"A-E1:\tval 2; act 3; dom  ;\t()\n"
    )


def iemocap(root: Path, categories: Mapping[str, str], words: Mapping[str, str] | None = None) -> Path:
    """Make all five sessions; ``categories`` and ``words`` by utterance, words by default "Hello."."""
    words = dict.fromkeys(categories, "Hello.") if words is None else words
    dialogues: dict[str, list[str]] = {}
    for name in categories:
        dialogues.setdefault(name.rsplit("_", 1)[0], []).append(name)
    for number in range(1, 6):
        for place in ("dialog/EmoEvaluation", "dialog/transcriptions", "dialog/avi/DivX", "sentences/wav"):
            (root / f"Session{number}" / place).mkdir(parents=True, exist_ok=True)
    for dialogue, names in dialogues.items():
        session = root / f"Session{dialogue[4]}"
        blocks = [label_block(name, categories[name], at + 0.5, at + 1.25) for at, name in enumerate(names)]
        header = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"
        write(session / "dialog/EmoEvaluation" / f"{dialogue}.txt", "\n".join([header, *blocks]))
        lines = [f"{name} [000.5001-001.2500]: {words[name]}" for name in names if name in words]
        write(session / "dialog/transcriptions" / f"{dialogue}.txt", "\n".join(lines) + "\n")
        touch(session / "dialog/avi/DivX" / f"{dialogue}.avi")
        for name in names:
            touch(session / "sentences/wav" / dialogue / f"{name}.wav")
    return root


def every_speaker() -> dict[str, str]:
    """Each speaker of IEMOCAP says something angry, neutral and sad, and is excited, in both kinds of dialogue."""
    return {
        f"Ses0{session}{wearer}_impro01_{speaker}00{number}": category
        for session in range(1, 6)
        for wearer in "FM"
        for speaker in "FM"
        for number, category in enumerate(("ang", "exc", "neu", "sad", "fru"))
    }


def msp_head(name: str, letter: str, numbers: str = "A:2.0; V:3.0; D:3.0 ; N:4.0;") -> str:
    return f"{name.replace('MSP', 'UTD', 1)}.avi; {letter}; {numbers}\nm-p001_01; Happy; Happy, ; A:2; V:3; D:3; N:4;\n"


def msp_improv(
    root: Path, letters: Mapping[str, str], label_file: str = "Evalution.txt", layout: str = "split"
) -> Path:
    """Make a tree: ``split`` has Audio and Video, ``flat`` has both beside each other."""
    for name in letters:
        _, _, sentence, speaker, scenario, _ = name.split("-")
        place = Path(f"session{int(speaker[1:])}", sentence, scenario)
        audio, video = ("Audio" / place, "Video" / place) if layout == "split" else (place, place)
        touch(root / audio / f"{name}.wav")
        touch(root / video / f"{name}.avi")
        write(root / "All_human_transcriptions" / f"{name}.txt", " I see. \n")
    write(root / label_file, "\n".join(msp_head(name, letter) for name, letter in letters.items()))
    return root


def every_actor() -> dict[str, str]:
    """Each of the twelve actors is angry, happy, neutral and sad in scenario S, and something in the others."""
    names = {}
    for pair in range(1, 7):
        for person, other in ("FM", "MF"):
            for number, letter in enumerate("AHNSOX"):
                # The letter in the name is another one: it is what was to be acted.
                acted = "HNSA"[number % 4]
                names[f"MSP-IMPROV-S01{acted}-{person}0{pair}-S-{person}{other}0{number + 1}"] = letter
            for number, scenario in enumerate("PRT"):
                names[f"MSP-IMPROV-S02N-{person}0{pair}-{scenario}-{person}{other}1{number}"] = "H"
    return names


def by_id(index: Index) -> dict[str, Recording]:
    return {recording.utterance: recording for recording in index.recordings}


def lines(index: Index) -> list[str]:
    return [str(problem) for problem in index.problems]


def found(index: Index, words: str) -> str:
    """The one problem line that has ``words``."""
    (line,) = (line for line in lines(index) if words in line)
    return line


def sets(folds: Mapping[int, Mapping[str, tuple[str, ...]]]) -> dict[int, dict[str, set[str]]]:
    return {fold: {split: set(ids) for split, ids in splits.items()} for fold, splits in folds.items()}


def naive_folds(speakers: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[int, dict[str, set[str]]]:
    """For each (man, woman): man validates and woman tests, then the other way round; the other pairs train."""
    folds: dict[int, dict[str, set[str]]] = {}
    for man, woman in pairs:
        for val, test in ((man, woman), (woman, man)):
            splits: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
            for utterance, speaker in speakers.items():
                if speaker == val:
                    splits["val"].add(utterance)
                elif speaker == test:
                    splits["test"].add(utterance)
                else:
                    splits["train"].add(utterance)
            folds[len(folds) + 1] = splits
    return folds
