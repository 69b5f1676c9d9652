"""A corpus of one's own: what a class says of other corpora, its ``corpus.json`` says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.base import EmotionDataModule, expanded
from datamodules.conditions import MODALITIES
from datamodules.labels import Classes, Scale
from datamodules.storage.description import FOLDER, Description, check_ids, description_path, write_description
from datamodules.storage.layouts import Layout
from datamodules.storage.problems import Problems, Strict, root_exists
from datamodules.storage.targets import SPLITS
from datamodules.storage.writing import write_targets

_NO_SPEAKER = r"(?!)"


class Folder(EmotionDataModule):
    """A corpus of your own: name, classes or scale, folds and speakers are those of ``ROOT/corpus.json``.

    ``extract`` writes that file; :func:`write_folder` writes it for features that you have. Its results are shown as
    those of ``Folder-<name>``, so that no published figure is ever shown beside them.

    Example:
        >>> from tempfile import mkdtemp
        >>> root = write_folder(
        ...     mkdtemp(),
        ...     name="clips",
        ...     classes=["calm", "angry"],
        ...     labels={"a": "calm", "b": "angry", "c": "calm"},
        ...     folds=[{"train": ["a"], "val": ["b"], "test": ["c"]}],
        ...     speakers={"a": "Ann", "b": "Bob", "c": "Cem"},
        ... ).parent
        >>> Folder.layout_of({"root": str(root)}).class_names
        ('calm', 'angry')
    """

    @classmethod
    def layout_of(cls, options: Mapping[str, Any]) -> Layout:
        """What ``corpus.json`` says.

        Args:
            options: of this class, by name, or some of them.

        Raises:
            CorpusError: there is no such file, or it is damaged or describes a corpus of another class.
            InputError: there is no such place.
        """
        root = expanded(options.get("root") or "")
        problems = Strict()
        root_exists(root, problems)
        found = cls.described({"root": str(root)})
        if found is None:
            what = "does not exist, so the corpus's classes and folds are unknown"
            remedy = "let `extract` write it, or datamodules.folder.write_folder: docs/your_own_corpus.md shows how"
            problems.add(description_path(root), what, remedy)
            raise AssertionError("the line before has raised")
        if found.monitor is None:
            found = replace(found, monitor="UA" if found.labels.names else "MAE")
        names = {name: found.feature_names.get(name, name) for name in MODALITIES}
        layout = Layout(
            name=f"{FOLDER}-{found.name}",
            feature_names=(names["audio"], names["visual"], names["text"]),
            labels=found.labels,
            folds=found.folds,
            speaker_pattern=_NO_SPEAKER,
            invented=found.invented,
            incomplete=found.incomplete or "refuse",
            description=found,
        )
        return layout.with_options(options)


def write_folder(
    root: str | Path,
    *,
    name: str,
    labels: Mapping[str, str | float],
    folds: Sequence[Mapping[str, Iterable[str]]],
    classes: Sequence[str] = (),
    scale: tuple[float, float] | None = None,
    speakers: Mapping[str, str | None] | None = None,
    features: Mapping[str, str] | None = None,
    monitor: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write what :class:`Folder` needs beside features: ``corpus.json`` and the target files of every fold.

    Features are ``A/<name>.h5``, ``V/<name>.h5`` and ``L/<name>.h5``, one dataset [frames, width] by utterance id;
    :func:`datamodules.storage.writing.write_features` writes one.

    Args:
        root: the corpus's folder; made.
        name: of the corpus, as tables show it.
        labels: by utterance id, the name of a class, or a value on the scale.
        folds: of each, the ids in ``train``, ``val`` and ``test``; the first is fold 1.
        classes: in label order; empty with a ``scale``.
        scale: the least and the greatest value, where labels are values.
        speakers: by utterance id, None where it is not known; with it a fold whose training speakers are tested is
            refused.
        features: names of the feature files by modality; others are called ``audio``, ``visual``, ``text``.
        monitor: the score that selects models; by default UA, or MAE of values.
        facts: anything else that is known, in plain values, for people to read; ``"incomplete": "keep"`` says that
            utterances lack modalities on purpose.

    Returns:
        the path of ``corpus.json``.

    Raises:
        CorpusError: an id has no label, an unknown one, or is in two splits; an id cannot be stored, or a name is
            empty; one line that says which.
        OSError: the folder cannot be written.
    """
    root, problems = Path(root), Strict()
    scheme = Classes(tuple(classes)) if scale is None else Scale(*scale)
    path = description_path(root)
    check_ids(path, labels, problems)
    if scale is None:
        strange = [name for name, label in labels.items() if label not in classes]
        what = f"its label is none of {', '.join(classes)}"
        problems.add_if_any(path, strange, what, "give the name of a class, or leave it out")
    written = []
    for fold, splits in enumerate(folds, start=1):
        chosen = {split: list(splits.get(split, ())) for split in SPLITS}
        _check_fold(path, fold, chosen, labels, problems)
        written.append({split: (names, _column(names, labels, classes)) for split, names in chosen.items()})
        for names, column in written[-1].values():
            scheme.read(path, names, column, problems)
    description = Description(
        name=name,
        labels=scheme,
        folds=len(written),
        feature_names=dict(features or {}),
        speakers=dict(speakers or {}),
        monitor=monitor,
        facts=dict(facts or {}),
    )
    path = write_description(root, description)
    for fold, targets in enumerate(written, start=1):
        write_targets(root / "target" / str(fold), targets)
    return path


def _check_fold(
    path: Path, fold: int, splits: Mapping[str, Sequence[str]], labels: Mapping[str, Any], problems: Problems
) -> None:
    """Report an empty split, and ids that are listed twice or have no label."""
    counted = Counter(name for names in splits.values() for name in names)
    for split in SPLITS:
        if not splits[split]:
            problems.add(path, f"fold {fold} has no {split} utterance", "give at least one")
    twice = [name for name, count in counted.items() if count > 1]
    problems.add_if_any(path, twice, f"more than once in fold {fold}", "keep it in one split")
    bare = [name for name in counted if name not in labels]
    problems.add_if_any(path, bare, f"in fold {fold}, but it has no label", "give its label, or leave it out")


def _column(names: Sequence[str], labels: Mapping[str, Any], classes: Sequence[str]) -> npt.NDArray[Any]:
    """Class numbers int64 [n], or values float32 [n]."""
    if classes:
        number = {label: place for place, label in enumerate(classes)}
        return np.array([number[labels[name]] for name in names], dtype=np.int64)
    return np.array([labels[name] for name in names], dtype=np.float32)
