"""The built-in corpus on disk: writing it in the public feature layout, and knowing it again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from datamodules.errors import CorpusError, InputError
from datamodules.linear_gaussian.generator import (
    CLASS_NAMES,
    VERSION,
    IntArray,
    LinearGaussianCorpus,
    View,
)
from datamodules.storage.writing import write_features, write_targets

GENERATOR = "ifmmin linear-Gaussian corpus"
SOURCE_FILE = "source.json"
"""The file that marks a folder as the built-in corpus, with the parameters of its generator."""

FEATURE_FILES: tuple[str, str, str] = ("A/audio.h5", "V/visual.h5", "L/text.h5")
"""The feature file of each modality below the corpus folder."""

SESSIONS = 5
FOLDS = SESSIONS

# Stored values are multiples of this: the last bits of another machine's linear algebra fall away.
_DECIMALS = 4


def write_corpus(
    folder: str | Path, corpus: LinearGaussianCorpus | None = None, utterances_per_speaker: int = 400
) -> None:
    """Write a corpus in the public feature layout: 5 sessions of 2 speakers each, 5 folds.

    Fold k trains on the other sessions, validates on the male and tests on the female speaker of session
    k. The same arguments give the same values. Several processes may write the same folder at once: it
    appears complete or not at all, and whoever comes second uses what is there.

    Args:
        folder: where to write; if it already contains this corpus, nothing is done.
        corpus: the generator; the built-in one by default.
        utterances_per_speaker: utterances of each of the ten speakers.

    Raises:
        CorpusError: ``folder`` contains something else.
        InputError: ``folder`` cannot be written, or ``utterances_per_speaker`` is below 1.
    """
    if utterances_per_speaker < 1:
        raise InputError(f"utterances_per_speaker {utterances_per_speaker}: give at least 1.")
    folder = Path(folder)
    corpus = corpus or LinearGaussianCorpus()
    source = _source_text(corpus, utterances_per_speaker)
    try:
        if not _occupied(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Beside the target: a rename is atomic only within one file system.
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
                built = Path(temporary, "corpus")
                _write_files(built, corpus, utterances_per_speaker)
                (built / SOURCE_FILE).write_text(source, encoding="utf-8")
                _rename_unless_there(built, folder)
    except OSError as error:
        raise InputError(
            f"{folder}: the built-in corpus cannot be written ({error}); free some space or choose another folder."
        ) from error
    found = folder / SOURCE_FILE
    if not found.is_file() or found.read_bytes() != source.encode():
        raise CorpusError(
            f"{folder}: is something other than version {VERSION} of the built-in corpus with seed {corpus.seed}; "
            "delete the folder or choose another."
        )


def load_source(folder: str | Path) -> LinearGaussianCorpus:
    """Rebuild the generator of a folder that :func:`write_corpus` wrote.

    Raises:
        CorpusError: the folder is not such a corpus, is from another version, or its description is damaged.
    """
    path = Path(folder, SOURCE_FILE)
    remedy = "delete the folder, and the built-in corpus is written anew."
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
        if source["generator"] != GENERATOR or source["version"] != VERSION:
            raise CorpusError(f"{path}: made by {source['generator']} {source['version']}, not {VERSION}; {remedy}")
        stored = dict(source["parameters"])
        audio, visual, text = (View(**{**view, "loadings": tuple(view["loadings"])}) for view in stored.pop("views"))
        corpus = LinearGaussianCorpus(**stored, views=(audio, visual, text))
    except CorpusError:
        raise
    except (OSError, InputError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorpusError(f"{path}: cannot be read as the built-in corpus's description ({error}); {remedy}") from error
    return corpus


def utterance_ids(utterances_per_speaker: int) -> list[str]:
    """Every id of the corpus, in IEMOCAP's form, speaker by speaker: ``Ses01F_impro00_F0000``, ..."""
    return [
        f"Ses{session:02d}{gender}_impro00_{gender}{number:04d}"
        for session in range(1, SESSIONS + 1)
        for gender in "FM"
        for number in range(utterances_per_speaker)
    ]


def _source_text(corpus: LinearGaussianCorpus, utterances_per_speaker: int) -> str:
    source = {
        "generator": GENERATOR,
        "version": VERSION,
        "utterances_per_speaker": utterances_per_speaker,
        "classes": CLASS_NAMES,
        "parameters": asdict(corpus),
    }
    return json.dumps(source, indent=2) + "\n"


def _occupied(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _rename_unless_there(built: Path, folder: Path) -> None:
    try:
        built.rename(folder)
    except OSError:
        # Another process was faster; its folder is complete, because it was renamed too.
        if not _occupied(folder):
            raise


def _write_files(folder: Path, corpus: LinearGaussianCorpus, utterances_per_speaker: int) -> None:
    """Write features and targets, not atomically."""
    ids = utterance_ids(utterances_per_speaker)
    sample = corpus.sample(len(ids), np.random.default_rng([corpus.seed, 1]))
    for name, frames in zip(FEATURE_FILES, sample.frames, strict=True):
        values = np.round(frames.values, _DECIMALS).astype(np.float32)
        write_features(folder / name, zip(ids, np.split(values, frames.offsets[1:-1]), strict=True))
    _write_targets(folder / "target", ids, sample.labels)


def _write_targets(folder: Path, ids: Sequence[str], labels: IntArray) -> None:
    one_hot, names = np.eye(len(CLASS_NAMES))[labels], np.array(ids)
    session = np.array([int(name[3:5]) for name in ids])
    male = np.array([name[5] == "M" for name in ids])
    for fold in range(1, FOLDS + 1):
        inside = session == fold
        splits = {"train": ~inside, "val": inside & male, "test": inside & ~male}
        write_targets(
            folder / str(fold), {split: (names[chosen].tolist(), one_hot[chosen]) for split, chosen in splits.items()}
        )
