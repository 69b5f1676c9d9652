"""The built-in corpora on disk: writing one in the public feature layout, and knowing it again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from datamodules.errors import CorpusError, InputError
from datamodules.linear_gaussian.generator import VERSION, LinearGaussianCorpus
from datamodules.linear_gaussian.observation import BoolArray, IntArray
from datamodules.linear_gaussian.sentiment import SentimentGenerator
from datamodules.linear_gaussian.views import View
from datamodules.storage.targets import SPLITS
from datamodules.storage.writing import write_features, write_targets

Generator = LinearGaussianCorpus | SentimentGenerator
_Kind = TypeVar("_Kind", LinearGaussianCorpus, SentimentGenerator)

SOURCE_FILE = "source.json"
"""The file that marks a folder as a built-in corpus, with the parameters of its generator."""

FEATURE_NAMES: tuple[str, str, str] = ("audio", "visual", "text")
FEATURE_FILES: tuple[str, str, str] = ("A/audio.h5", "V/visual.h5", "L/text.h5")
"""The feature file of each modality below the corpus folder."""

SESSIONS = 5

DIALOGUE = 20
"""Successive utterances of a speaker that are turns of one dialogue."""

# Stored values are multiples of this: the last bits of another machine's linear algebra fall away.
_DECIMALS = 4


@dataclass(frozen=True)
class Arrangement:
    """The utterances of a folder, and their places in its folds.

    Attributes:
        utterances: N ids.
        draws: how many of them are drawn together, adding up to N: each draw has its own random numbers.
        folds: by fold and split, the positions of its utterances, int64.
        record: the numbers that it was made from, for :data:`SOURCE_FILE`.
        first: bool [N], the utterances that begin a dialogue.
    """

    utterances: list[str]
    draws: list[int]
    folds: Mapping[int, Mapping[str, IntArray]]
    record: Mapping[str, Any]
    first: BoolArray


def sessions(utterances_per_speaker: int) -> Arrangement:
    """Five sessions of two speakers each, and a fold for each session.

    Fold k trains on the other sessions, validates on the male and tests on the female speaker of session k. Ids
    have IEMOCAP's form: ``Ses01F_impro00_F0000``, ...

    Raises:
        InputError: ``utterances_per_speaker`` is below 1.
    """
    if utterances_per_speaker < 1:
        raise InputError(f"utterances_per_speaker {utterances_per_speaker}: give at least 1.")
    speakers = [(session, gender) for session in range(1, SESSIONS + 1) for gender in "FM"]
    ids = [f"Ses{s:02d}{g}_impro00_{g}{n:04d}" for s, g in speakers for n in range(utterances_per_speaker)]
    session, male = (
        np.repeat(values, utterances_per_speaker)
        for values in ([session for session, _ in speakers], [gender == "M" for _, gender in speakers])
    )
    folds = {}
    for fold in range(1, SESSIONS + 1):
        inside = session == fold
        splits = {"train": ~inside, "val": inside & male, "test": inside & ~male}
        folds[fold] = {split: np.flatnonzero(chosen) for split, chosen in splits.items()}
    first = np.tile(np.arange(utterances_per_speaker) % DIALOGUE == 0, len(speakers))
    return Arrangement(ids, [len(ids)], folds, {"utterances_per_speaker": utterances_per_speaker}, first)


def single_fold(fold: int, sizes: Mapping[str, int]) -> Arrangement:
    """One fold that shares no utterance with any other; ids are ``fold01_test00000``, ....

    Each split is a draw of its own, the training utterances last: more or fewer of them leave the others as they are.

    Args:
        fold: its number.
        sizes: the number of utterances of ``train``, ``val`` and ``test``.

    Raises:
        InputError: a size is below 1.
    """
    if min(sizes.values()) < 1:
        raise InputError(f"utterances {dict(sizes)}: give at least 1 of each split.")
    order = SPLITS[::-1]
    draws = [sizes[split] for split in order]
    ids = [f"fold{fold:02d}_{split}{number:05d}" for split in order for number in range(sizes[split])]
    edges = pairwise(accumulate(draws, initial=0))
    places = {split: np.arange(*span) for split, span in zip(order, edges, strict=True)}
    record = {"fold": fold, "utterances": {split: sizes[split] for split in SPLITS}}
    first = np.concatenate([np.arange(draw) % DIALOGUE == 0 for draw in draws])
    return Arrangement(ids, draws, {fold: places}, record, first)


def write_corpus(folder: str | Path, corpus: Generator, arrangement: Arrangement) -> None:
    """Write a corpus in the public feature layout.

    The same arguments give the same values. Several processes may write the same folder at once: it appears
    complete or not at all, and whoever comes second uses what is there.

    Args:
        folder: where to write; if it already contains this corpus, nothing is done.
        corpus: the generator.
        arrangement: the utterances and folds.

    Raises:
        CorpusError: ``folder`` contains something else.
        InputError: ``folder`` cannot be written.
    """
    folder = Path(folder)
    source = _source_text(corpus, arrangement)
    try:
        if not _occupied(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Beside the target: a rename is atomic only within one file system.
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
                built = Path(temporary, "corpus")
                _write_files(built, corpus, arrangement)
                (built / SOURCE_FILE).write_text(source, encoding="utf-8")
                _rename_unless_there(built, folder)
    except OSError as error:
        raise InputError(
            f"{folder}: the built-in corpus cannot be written ({error}); free some space or choose another folder."
        ) from error
    found = folder / SOURCE_FILE
    stay = getattr(corpus, "stay", None)
    record = arrangement.record if stay is None else {**arrangement.record, "stay": stay}
    if not found.is_file() or found.read_bytes() != source.encode():
        raise CorpusError(
            f"{folder}: is something other than version {VERSION} of the built-in corpus with seed {corpus.seed} and "
            f"{_readable(record)}; delete the folder or choose another."
        )


@overload
def load_source(folder: str | Path) -> LinearGaussianCorpus: ...
@overload
def load_source(folder: str | Path, kind: type[_Kind]) -> _Kind: ...
def load_source(folder: str | Path, kind: type[Any] = LinearGaussianCorpus) -> Any:
    """Rebuild the generator of a folder that :func:`write_corpus` wrote.

    Args:
        folder: the corpus.
        kind: class of the generator.

    Raises:
        CorpusError: the folder is not such a corpus, is from another version, or its description is damaged.
    """
    path = Path(folder, SOURCE_FILE)
    remedy = "delete the folder, and the built-in corpus is written anew."
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
        if source["generator"] != kind.title or source["version"] != VERSION:
            raise CorpusError(
                f"{path}: made by {source['generator']} {source['version']}, not {kind.title} {VERSION}; {remedy}"
            )
        stored = dict(source["parameters"])
        audio, visual, text = (View(**{**view, "loadings": tuple(view["loadings"])}) for view in stored.pop("views"))
        corpus = kind(**stored, views=(audio, visual, text))
    except CorpusError:
        raise
    except (OSError, InputError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorpusError(f"{path}: cannot be read as the built-in corpus's description ({error}); {remedy}") from error
    return corpus


def _source_text(corpus: Generator, arrangement: Arrangement) -> str:
    # Folders from before there was a memory have no word of it.
    parameters = {name: value for name, value in asdict(corpus).items() if (name, value) != ("stay", None)}
    source = {
        "generator": corpus.title,
        "version": VERSION,
        **arrangement.record,
        **corpus.meaning,
        "parameters": parameters,
    }
    return json.dumps(source, indent=2) + "\n"


def _readable(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in record.items())


def _occupied(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _rename_unless_there(built: Path, folder: Path) -> None:
    try:
        built.rename(folder)
    except OSError:
        # Another process was faster; its folder is complete, because it was renamed too.
        if not _occupied(folder):
            raise


def _write_files(folder: Path, corpus: Generator, arrangement: Arrangement) -> None:
    """Write features and targets, not atomically."""
    begins = np.split(arrangement.first, np.cumsum(arrangement.draws)[:-1])
    drawn = [
        corpus.draw(count, np.random.default_rng([corpus.seed, 1, number]), first)
        for number, (count, first) in enumerate(zip(arrangement.draws, begins, strict=True))
    ]
    for modality, name in enumerate(FEATURE_FILES):
        frames = []
        for _, sequences in drawn:
            values, offsets = sequences[modality].values, sequences[modality].offsets
            frames += np.split(np.round(values, _DECIMALS).astype(np.float32), offsets[1:-1])
        write_features(folder / name, zip(arrangement.utterances, frames, strict=True))
    _write_targets(folder / "target", arrangement, np.concatenate([labels for labels, _ in drawn]))


def _write_targets(folder: Path, arrangement: Arrangement, labels: npt.NDArray[np.floating]) -> None:
    names = np.array(arrangement.utterances)
    for fold, splits in arrangement.folds.items():
        write_targets(
            folder / str(fold), {split: (names[chosen].tolist(), labels[chosen]) for split, chosen in splits.items()}
        )
