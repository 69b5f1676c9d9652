"""``corpus.json`` of an extracted corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from datamodules.extraction.recordings import Index
from datamodules.labels import Classes
from datamodules.storage import description as storage
from datamodules.storage.problems import Strict
from datamodules.storage.targets import SPLITS

UNNAMED = "clips"
"""Name of a ``Folder`` that was given none."""


def write_description(
    out: Path,
    index: Index,
    feature_names: Mapping[str, str],
    usable: Collection[str] | None = None,
    name: str | None = None,
) -> Path:
    """Write ``out/corpus.json``; its bytes depend on the arguments, and on the feature names that it has already.

    Args:
        out: the feature corpus.
        index: of the recordings.
        feature_names: of the feature files, by modality; of a modality that is left out, an earlier description's
            stays.
        usable: the utterances that target files list; None: all that are in a fold.
        name: of the corpus; None: its class's, or :data:`UNNAMED`.

    Returns:
        the file's path.

    Raises:
        CorpusError: an id cannot be stored, folds are not called 1, 2, ..., or a name is empty.
        OSError: the file cannot be written.
    """
    path = storage.description_path(out)
    own = index.corpus == storage.FOLDER  # of others the class says how many folds there are
    if own and sorted(index.folds) != list(range(1, len(index.folds) + 1)):
        what = f"folds {', '.join(map(str, sorted(index.folds)))}, where they are called 1..{len(index.folds)}"
        Strict().add(path, what, "number the folds from 1")
    before = storage.read_description(out)
    earlier = before.feature_names if before is not None and before.corpus == index.corpus else {}
    labels = {recording.utterance: recording.label for recording in index.recordings}
    kept = labels.keys() if usable is None else frozenset(usable)
    counts = {}
    for fold, splits in index.folds.items():
        counted = {split: Counter(labels[each] for each in splits.get(split, ()) if each in kept) for split in SPLITS}
        counts[fold] = {split: {each: counted[split][each] for each in index.class_names} for split in SPLITS}
    description = storage.Description(
        name=name or (UNNAMED if own else index.corpus),
        labels=Classes(index.class_names if len(index.class_names) > 1 else ()),
        folds=max(index.folds, default=0),
        feature_names={**earlier, **feature_names},
        speakers={recording.utterance: recording.speaker for recording in index.recordings},
        corpus=index.corpus,
        counts=counts,
        facts=index.facts,
    )
    return storage.write_description(out, description)
