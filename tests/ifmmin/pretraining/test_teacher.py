from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from datamodules.batches.batch import Batch
from datamodules.errors import InputError
from ifmmin.nn.encoders import ModalityEncoders
from ifmmin.pretraining import teacher
from ifmmin.pretraining.file_rows import FileRows
from ifmmin.pretraining.teacher import Teacher
from tests.batches import DIMS, batch_of, random_utterances


def batches() -> Iterator[Batch]:
    utterances = random_utterances(10, seed=1)
    for start in (4, 0, 7):
        index = torch.arange(start, {0: 4, 4: 7, 7: 10}[start])
        batch = batch_of([utterances[row] for row in index.tolist()])
        batch.index = index
        yield batch


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_embeddings_in_a_file_are_those_in_memory(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    remembering = Teacher(ModalityEncoders.of_dims(DIMS)).to(dtype)
    expected: list[torch.Tensor] = []
    for limit, kind in ((2**28, torch.Tensor), (10 * 3 * 128 * dtype.itemsize - 1, FileRows)):
        monkeypatch.setattr(teacher, "LARGEST_MEMORY", limit)
        remembering.remember(batches(), 10)
        assert type(remembering._memory) is kind
        found = [remembering.targets(batch) for batch in batches()]
        assert all(each.dtype == dtype for each in found)
        expected = expected or found
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    rows = FileRows(5, (2, 3), torch.empty(0, dtype=dtype))
    rows[torch.tensor([4, 1])] = torch.arange(12, dtype=dtype).view(2, 2, 3)
    assert rows[torch.tensor([1, 4, 1])].tolist() == [
        [[6, 7, 8], [9, 10, 11]],
        [[0, 1, 2], [3, 4, 5]],
        [[6, 7, 8], [9, 10, 11]],
    ]


def test_rows_are_kept_where_the_system_has_no_positioned_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("posix_fallocate", "pwrite", "preadv"):
        monkeypatch.delattr(os, name, raising=False)
    rows = FileRows(5, (2,), torch.empty(0))
    rows[torch.tensor([4, 1])] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert rows[torch.tensor([1, 4])].tolist() == [[3, 4], [1, 2]]


def test_a_full_disk_is_said_before_the_teacher_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ifmmin.pretraining.file_rows.os.posix_fallocate", full)
    monkeypatch.setattr(teacher, "LARGEST_MEMORY", 0)
    with pytest.raises(InputError, match=r"no room for 1\.5 GB of the teacher's.*No space left on device.*TMPDIR"):
        Teacher(ModalityEncoders.of_dims(DIMS)).remember(iter(()), 1_000_000)
