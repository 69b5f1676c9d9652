"""What misaligned members are drawn, and their targets, against loops."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest
import torch

from ifmmin.nn.correlation import draw_misaligned, label_distance, largest_root, misalignment


@pytest.mark.parametrize("modalities", [2, 3])
def test_members_are_of_different_utterances_that_have_them(modalities: int) -> None:
    torch.manual_seed(0)
    known = torch.rand(12, modalities) < 0.6
    drawn = draw_misaligned(known, 400)
    assert drawn.shape[1] == modalities
    assert 300 < len(drawn) <= 400
    for row in drawn.tolist():
        assert len(set(row)) == modalities
        assert all(known[utterance, m] for m, utterance in enumerate(row))
    for m in range(modalities):  # every utterance that has a modality gives one
        assert set(drawn[:, m].tolist()) == set(known[:, m].nonzero()[:, 0].tolist())


def test_every_triple_is_drawn_equally_often() -> None:
    drawn = draw_misaligned(torch.ones(4, 3, dtype=torch.bool), 30_000, torch.Generator().manual_seed(0))
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == 4 * 3 * 2
    expected = len(drawn) / len(counts)
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 50  # chi² of 23: p < 0.001


def test_there_may_be_nothing_to_draw() -> None:
    two, lacking = torch.ones(2, 3, dtype=torch.bool), torch.ones(5, 3, dtype=torch.bool)
    lacking[:, 1] = False
    for known in (two, lacking, two[:0]):
        assert draw_misaligned(known, 8).shape == (0, 3)


def test_a_generator_repeats_the_draw() -> None:
    known = torch.ones(9, 3, dtype=torch.bool)
    one, other = (draw_misaligned(known, 20, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)


def test_distance_of_probabilities_is_that_of_classes_where_they_are_certain() -> None:
    x, y = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 2, 1, 1])
    certain = [torch.nn.functional.one_hot(labels, 3).float() for labels in (x, y)]
    assert label_distance(*certain).tolist() == label_distance(x, y).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("labels", ["classes", "values"])
def test_targets_against_a_loop(members: int, labels: str) -> None:
    torch.manual_seed(0)
    drawn = torch.randint(3, (members, 30)) if labels == "classes" else 6 * torch.rand(members, 30).double() - 3
    largest = largest_root(members, 1.0 if labels == "classes" else 6.0)
    found = misalignment(list(drawn), largest, margin=0.2)
    for case in range(30):
        given = drawn[:, case].tolist()
        squares = [float(x != y) if labels == "classes" else (x - y) ** 2 for x, y in combinations(given, 2)]
        expected = (math.sqrt(sum(squares)) + 0.2) / (largest + 0.2)
        assert float(found[case]) == pytest.approx(expected)
        assert 0 < found[case] <= 1


def test_targets_of_classes() -> None:
    same, other, third = (torch.tensor([label]) for label in range(3))
    triples = ([same, same, same], [same, other, same], [same, other, third])
    found = [float(misalignment(labels, largest_root(3))) for labels in triples]
    root = math.sqrt(3) + 0.1
    assert found == pytest.approx([0.1 / root, (math.sqrt(2) + 0.1) / root, 1.0])
