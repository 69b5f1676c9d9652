"""``withhold_test``: the test split is not read, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.batches.batch import Batch
from datamodules.errors import InputError
from datamodules.iemocap import IEMOCAP
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from tests.datamodules.corpora import change_features, load_ids, write_corpus

FOLD = 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus", utterances=60)
    return tmp_path / "corpus"


def fitted(root: Path, withhold: bool) -> IEMOCAP:
    data = IEMOCAP(str(root), FOLD, withhold_test=withhold, batch_size=8)
    data.setup("fit")
    return data


def split_files(root: Path) -> list[Path]:
    return sorted((root / "target" / str(FOLD)).glob("tst_*.npy"))


def removed(root: Path) -> None:
    for path in split_files(root):
        path.unlink()


def other_labels(root: Path) -> None:
    label = next(path for path in split_files(root) if "label" in path.name)
    np.save(label, np.load(label)[::-1] * 7)


def no_arrays(root: Path) -> None:
    for path in split_files(root):
        path.write_bytes(b"nothing")


def not_finite_frames(root: Path) -> None:
    names = load_ids(root, FOLD, "tst")
    path = IEMOCAP_LAYOUT.feature_path(root, 0)
    change_features(path, {name: np.full((3, 5), np.nan, np.float32) for name in names})


def same(left: Batch, right: Batch) -> bool:
    frames = all(torch.equal(a, b) for a, b in zip(left.frames, right.frames, strict=True))
    return frames and all(
        torch.equal(getattr(left, name), getattr(right, name)) for name in ("present", "labels", "index")
    )


def test_training_and_validation_are_the_same(root: Path) -> None:
    whole, withheld = fitted(root, False), fitted(root, True)
    for name in ("train_dataloader", "val_dataloader"):
        left, right = list(getattr(whole, name)()), list(getattr(withheld, name)())
        assert len(left) == len(right) > 0
        assert all(same(*pair) for pair in zip(left, right, strict=True))


@pytest.mark.parametrize("spoil", [removed, other_labels, no_arrays, not_finite_frames], ids=lambda f: f.__name__)
def test_what_the_test_split_holds_has_no_effect(root: Path, spoil: Callable[[Path], None]) -> None:
    before = fitted(root, True)
    expected = [*before.train_dataloader(), *before.val_dataloader()]
    spoil(root)
    after = fitted(root, True)
    found = [*after.train_dataloader(), *after.val_dataloader()]
    assert all(same(*pair) for pair in zip(expected, found, strict=True))
    assert after.fingerprint == before.fingerprint
    with pytest.raises(InputError):  # it is what is read otherwise
        fitted(root, False)


def test_whoever_asks_for_it_is_refused(root: Path) -> None:
    data = fitted(root, True)
    for ask in (
        lambda: data.indices("test"),
        data.test_dataloader,
        lambda: data.setup("test"),
        lambda: data.setup("predict"),
        lambda: next(data.in_order("test")),
    ):
        with pytest.raises(InputError, match="withhold_test keeps the test split"):
            ask()
    assert data.targets is not None and set(data.targets) == {"train", "val"}
    test = set(load_ids(root, FOLD, "tst"))
    assert test and not test & set(data.corpus.utterances)
