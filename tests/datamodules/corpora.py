"""Tiny corpora in the public feature layout, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt
import torch

from datamodules.base import EmotionDataModule
from datamodules.labels import Scale
from datamodules.storage.corpus import Corpus
from datamodules.storage.frames import RaggedFrames
from datamodules.storage.layouts import IEMOCAP_LAYOUT, MSP_IMPROV_LAYOUT, Layout, speaker_of
from datamodules.storage.writing import write_features, write_targets
from tests.batches import FloatArray, Utterance

LAYOUTS: dict[str, Layout] = {"IEMOCAP": IEMOCAP_LAYOUT, "MSPIMPROV": MSP_IMPROV_LAYOUT}

SAMPLES: dict[str, Path] = {
    "IEMOCAP": Path(__file__).parents[1] / "data" / "sample_iemocap",
    "MSPIMPROV": Path(__file__).parents[1] / "data" / "sample_msp",
}
"""Small corpora that another program wrote; read them, or copy them to change them."""


def utterance_id(layout: str, number: int) -> str:
    """The id of an utterance; the speakers of a layout take turns."""
    speaker = number % LAYOUTS[layout].folds
    session, gender = speaker // 2 + 1, "FM"[speaker % 2]
    if layout == "IEMOCAP":
        return f"Ses{session:02d}F_impro01_{gender}{number:03d}"
    return f"MSP-IMPROV-S01A-{gender}{session:02d}-P-{gender}M{number:03d}"


def ragged(sequences: Sequence[FloatArray], dtype: type[np.floating[Any]] = np.float32) -> RaggedFrames:
    """One modality in memory."""
    offsets = np.concatenate([[0], np.cumsum([len(frames) for frames in sequences])])
    return RaggedFrames(torch.from_numpy(np.concatenate(sequences).astype(dtype)), torch.from_numpy(offsets))


def corpus_of(utterances: Sequence[Utterance], dtype: type[np.floating[Any]] = np.float32) -> Corpus:
    """A corpus in memory."""
    audio, visual, text = (ragged([utterance[m] for utterance in utterances], dtype) for m in range(3))
    lengths = torch.stack([frames.offsets.diff() for frames in (audio, visual, text)], dim=1)
    return Corpus(Path("memory"), [f"utterance {i}" for i in range(len(utterances))], (audio, visual, text), lengths)


def write_corpus(
    root: Path,
    layout: Literal["IEMOCAP", "MSPIMPROV"] = "IEMOCAP",
    utterances: int = 48,
    dims: Sequence[int] = (5, 6, 7),
    seed: int = 0,
) -> list[str]:
    """Write a whole corpus: features with a trace of the class in them, and all folds, split by speaker.

    Args:
        root: the folder to write to.
        layout: whose names, folds, ids and label files.
        utterances: how many, at least one for each speaker (10 and 12).
        dims: frame widths of audio, visual and text.
        seed: another seed, other features and lengths.

    Returns:
        the utterance ids, in the order of writing.
    """
    described = LAYOUTS[layout]
    rng = np.random.default_rng(seed)
    ids = [utterance_id(layout, number) for number in range(utterances)]
    # Each speaker meets each class: the classes advance by one each time all speakers had a turn.
    labels = np.array([(n + n // described.folds) % len(described.class_names) for n in range(utterances)])
    for modality, dim in enumerate(dims):
        centres = rng.standard_normal((len(described.class_names), dim))
        path = described.feature_path(root, modality)
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for utterance, label in zip(ids, labels, strict=True):
                frames = centres[label] + rng.standard_normal((rng.integers(2, 9), dim))
                file[utterance] = frames.astype(np.float32)
    speakers = np.array([speaker_of(utterance, described) for utterance in ids])
    names = list(dict.fromkeys(speakers))
    for fold in range(1, described.folds + 1):
        # Folds 1 and 2 test the two speakers of session 1, and so on; the other speaker validates.
        test, val = names[fold - 1], names[(fold - 1) ^ 1]
        parts = {"tst": speakers == test, "val": speakers == val, "trn": (speakers != test) & (speakers != val)}
        for prefix, part in parts.items():
            chosen = [utterance for utterance, used in zip(ids, part, strict=True) if used]
            write_split(root, layout, fold, prefix, chosen, labels[part])
    return ids


def write_split(
    root: Path,
    layout: Literal["IEMOCAP", "MSPIMPROV"],
    fold: int,
    prefix: str,
    utterances: Sequence[str],
    labels: npt.NDArray[np.int64],
) -> None:
    """Write one split (``trn``, ``val`` or ``tst``) of a fold as that corpus's public pack does."""
    folder = root / "target" / str(fold)
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "IEMOCAP":
        np.save(folder / f"{prefix}_label.npy", np.eye(len(LAYOUTS[layout].class_names))[labels])
        np.save(folder / f"{prefix}_int2name.npy", np.array(utterances, dtype="S")[:, None])
    else:
        np.save(folder / f"{prefix}_label.npy", labels)
        np.save(folder / f"{prefix}_int2name.npy", np.array(utterances))


def change_features(path: Path, changes: Mapping[str, Any]) -> None:
    """Replace datasets of a feature file; None takes one out."""
    with h5py.File(path, "r+") as file:
        for utterance, value in changes.items():
            if utterance in file:
                del file[utterance]
            if value is not None:
                file[utterance] = value


def take_out(root: Path, layout: Layout, gaps: Mapping[str, str]) -> None:
    """Take modalities out of a corpus's feature files.

    Args:
        root: of the corpus.
        layout: of its files.
        gaps: by utterance, the letters of the modalities that it loses: ``{"u1": "v", "u2": "at"}``.
    """
    for modality, letter in enumerate("avt"):
        lost = {name: None for name, letters in gaps.items() if letter in letters}
        change_features(layout.feature_path(root, modality), lost)


def random_gaps(utterances: Sequence[str], share: float, seed: int = 0) -> dict[str, str]:
    """By utterance, one or two modalities at random for a ``share`` of the utterances."""
    rng = np.random.default_rng(seed)
    patterns = ["a", "v", "t", "av", "at", "vt"]
    return {name: patterns[rng.integers(6)] for name in utterances if rng.random() < share}


def load_ids(root: Path, fold: int, prefix: str) -> list[str]:
    """The ids of a split, read without the code under test."""
    array = np.load(root / "target" / str(fold) / f"{prefix}_int2name.npy").ravel()
    return [name.decode() if isinstance(name, bytes) else str(name) for name in array]


def load_features(path: Path, utterances: Sequence[str]) -> list[npt.NDArray[np.float32]]:
    """The frames of utterances, read without the code under test."""
    with h5py.File(path, "r") as file:
        return [file[utterance][()] for utterance in utterances]


def truncate(path: Path) -> None:
    """Cut a file to half its size."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class RegressionSample(EmotionDataModule):
    """A small corpus of values from -3 to 3 in the public layout, five folds split by speaker."""

    layout = Layout("Values", ("audio", "visual", "text"), Scale(-3, 3), 5, IEMOCAP_LAYOUT.speaker_pattern)
    monitor = "MAE"
    schedule = "steps"


def write_regression_corpus(root: Path, utterances: int = 120, dims: Sequence[int] = (5, 6, 7), seed: int = 0) -> Path:
    """Write the files of :class:`RegressionSample`: each view shows the value in all its features, with noise."""
    rng = np.random.default_rng(seed)
    ids = [utterance_id("IEMOCAP", number) for number in range(utterances)]
    values = rng.uniform(-3, 3, utterances).astype(np.float32)
    layout = RegressionSample.layout
    for modality, dim in enumerate(dims):
        direction = rng.standard_normal(dim)
        frames = [value * direction + rng.standard_normal((rng.integers(2, 9), dim)) for value in values]
        named = zip(ids, (each.astype(np.float32) for each in frames), strict=True)
        write_features(layout.feature_path(root, modality), named)
    session = np.array([int(name[3:5]) for name in ids])
    woman = np.array([name.split("_")[-1][0] == "F" for name in ids])
    for fold in range(1, layout.folds + 1):
        inside = session == fold
        parts = {"train": ~inside, "val": inside & woman, "test": inside & ~woman}
        splits = {name: (np.array(ids)[part].tolist(), values[part]) for name, part in parts.items()}
        write_targets(root / "target" / str(fold), splits)
    return root


CLIPS = ("calm", "angry", "très drôle")
"""Classes of :func:`write_clips`."""


def write_clips(root: Path, name: str = "clips", dims: Sequence[int] = (5, 6, 7), **changes: Any) -> list[str]:
    """Write a ``Folder`` of four speakers, three classes and two folds, with folders and accents in ids.

    Args:
        root: the folder to write to.
        name: of the corpus.
        dims: frame widths of audio, visual and text.
        **changes: of :func:`~datamodules.folder.write_folder`.

    Returns:
        the utterance ids.
    """
    from datamodules.folder import write_folder

    rng = np.random.default_rng(0)
    speakers = {f"take {take}/é{number:02d}": f"S{take}" for take in range(4) for number in range(9)}
    ids = list(speakers)
    labels = {utterance: CLIPS[number % 3] for number, utterance in enumerate(ids)}
    for folder, modality, dim in zip("AVL", ("audio", "visual", "text"), dims, strict=True):
        centres = rng.standard_normal((3, dim))
        frames = [centres[CLIPS.index(labels[each])] + rng.standard_normal((rng.integers(2, 6), dim)) for each in ids]
        named = zip(ids, (each.astype(np.float32) for each in frames), strict=True)
        write_features(root / folder / f"{modality}.h5", named)
    folds = []
    for test, val in (("S0", "S1"), ("S1", "S0")):
        parts = {"train": {"S2", "S3"}, "val": {val}, "test": {test}}
        folds.append({split: [each for each in ids if speakers[each] in those] for split, those in parts.items()})
    given: dict[str, Any] = {"classes": CLIPS, "labels": labels, "folds": folds, "speakers": speakers}
    write_folder(root, **{"name": name, **given, **changes})
    return ids
