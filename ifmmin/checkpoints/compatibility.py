"""Whether a checkpoint, a model and a corpus belong together."""

from __future__ import annotations

from typing import Any

from datamodules.base import EmotionDataModule
from datamodules.errors import CorpusError, InputError
from datamodules.storage.hdf5 import remedy_for_missing
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.reading import trained_model

FOLLOWS_THE_DATA = ("feature_dims", "class_names", "task", "corpus", "monitor")
"""Arguments of every model that follow the data."""


def model_arguments(data: EmotionDataModule) -> dict[str, Any]:
    """The arguments of a model that follow the data.

    Raises:
        CorpusError: the features of a modality are not there, so nothing can be trained.
        InputError: nothing is labelled.
    """
    data.corpus_layout.target_folder(data.root, data.fold)  # refuses a corpus without folds
    for modality, dim in enumerate(data.feature_dims):
        if not dim:
            path = data.corpus_layout.feature_path(data.root, modality)
            if not path.is_file():
                raise CorpusError(f"{path}: does not exist; {remedy_for_missing(path)}.")
            raise CorpusError(f"{path}: no features there; training needs all three modalities.")
    return {
        "feature_dims": data.feature_dims,
        "class_names": data.class_names,
        "task": data.task,
        "corpus": data.corpus_name,
        "monitor": data.monitor,
    }


def check_same_model(model: type[MissingModalityModule], header: dict[str, Any], path: str) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        InputError: naming both.
    """
    trained = trained_model(header["ifmmin"])
    if trained != model.__name__:
        raise InputError(
            f"{path}: a checkpoint of {trained}, not of {model.__name__}; "
            f"give --model {trained}, or another checkpoint."
        )


def check_same_kind(data: EmotionDataModule, trained: dict[str, Any], path: str) -> None:
    """Refuse data whose features or classes are not those a checkpoint was trained on.

    Raises:
        InputError: naming the file and both widths, or both lists of classes.
    """
    for modality, (dim, wanted) in enumerate(zip(data.feature_dims, trained["feature_dims"], strict=True)):
        if dim not in (0, wanted):
            features = data.corpus_layout.feature_path(data.root, modality)
            raise InputError(
                f"{features}: frames of {dim} values, but {path} was trained on frames of {wanted}; "
                "give the features it was trained on, or another checkpoint."
            )
    task = trained.get("task", {"name": "classification"})  # up to 0.1.0 there was no other
    if data.task != task:
        raise InputError(f"{path}: trained for {task['name']}, but the corpus's labels are for {data.task['name']}.")
    named = bool(data.class_names or data.corpus_layout.folds)  # without labels there may be no classes
    if named and data.class_names != trained["class_names"]:
        theirs, ours = trained["class_names"], data.class_names
        apart = [name for name in (*theirs, *ours) if (name in theirs) != (name in ours)]
        how = f"only one of them has {printable(', '.join(apart), 100)}" if apart else "their order differs"
        raise InputError(
            f"{path}: its classes are {', '.join(theirs)}, the corpus's {', '.join(ours)}: {how}; "
            "give --data.classes, or another checkpoint."
        )


def check_same_fold(data: EmotionDataModule, trained: dict[str, Any], path: str) -> None:
    """Refuse to use a checkpoint with another fold of its own corpus.

    It was trained on that fold's test data, or, where folds are independent draws, on features of another meaning.

    Raises:
        InputError: the folds differ.
    """
    if data.corpus_name == trained["name"] and data.fold != trained["fold"]:
        why = f"training data include fold {data.fold}'s test data"
        if data.corpus_layout.independent_folds:
            why = f"features are another draw than fold {data.fold}'s"
        raise InputError(
            f"{path}: trained on fold {trained['fold']}, whose {why}; "
            f"give --data.fold {trained['fold']}, or the checkpoint of fold {data.fold}."
        )
