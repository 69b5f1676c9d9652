"""Labels with a memory, against sums over all label paths, and draws."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from datamodules import InputError, Synthetic
from datamodules.conditions import CONDITIONS
from datamodules.linear_gaussian.files import SOURCE_FILE, load_source
from datamodules.linear_gaussian.generator import LinearGaussianCorpus
from datamodules.linear_gaussian.memory import LabelChain
from tests.datamodules.corpora import take_out

FloatArray = npt.NDArray[np.float64]

COUNTS = np.array([1103, 1636, 1708, 1084])
PRIORS = COUNTS / COUNTS.sum()
BY_CHANCE = float(np.square(PRIORS).sum())
EQUAL = np.full(4, 0.25)


@pytest.mark.parametrize("stay", [0.1, 0.261, 0.5, 0.85, 0.99])
def test_the_chain_keeps_the_priors_and_repeats_as_often_as_it_says(stay: float) -> None:
    step = LabelChain(PRIORS, stay).transition()
    np.testing.assert_allclose(step.sum(axis=1), 1)
    np.testing.assert_allclose(PRIORS @ step, PRIORS)
    assert PRIORS @ step.diagonal() == pytest.approx(stay)
    assert (step >= 0).all()
    np.testing.assert_allclose(LabelChain(PRIORS, stay).transition(3), np.linalg.matrix_power(step, 3), atol=1e-14)


def test_four_equal_classes_forget_at_a_quarter() -> None:
    np.testing.assert_allclose(LabelChain(EQUAL, 0.25).transition(), 0.25)
    np.testing.assert_allclose(LabelChain(EQUAL, 0.85).transition(), np.full((4, 4), 0.05) + 0.8 * np.eye(4))
    np.testing.assert_allclose(LabelChain(PRIORS, BY_CHANCE).transition(), np.tile(PRIORS, (4, 1)), atol=1e-15)


@pytest.mark.parametrize("stay", [1.0, 1.5, -0.2, 0.05, np.nan])
def test_what_is_no_chain_is_refused(stay: float) -> None:
    with pytest.raises(InputError, match=r"stay .*; give at least 0.0809 and less than 1"):
        LinearGaussianCorpus(stay=stay)


@pytest.mark.parametrize("stay", [0.1, 0.6, 0.85])
def test_drawn_labels_are_a_chain(stay: float) -> None:
    count = 40_000
    first = np.arange(count) % 20 == 0
    labels = LabelChain(PRIORS, stay).sample(count, np.random.default_rng(1), first)
    # Correlated draws: some (1 + rho) / (1 - rho) of them tell as much as an independent one.
    rho = (stay - BY_CHANCE) / (1 - BY_CHANCE)
    assert np.bincount(labels) / count == pytest.approx(
        PRIORS, abs=4 * np.sqrt(0.25 * (1 + abs(rho)) / (1 - rho) / count)
    )
    same = labels[1:] == labels[:-1]
    inside = ~first[1:]
    assert same[inside].mean() == pytest.approx(stay, abs=0.012)
    assert same[~inside].mean() == pytest.approx(BY_CHANCE, abs=0.05)


def test_without_a_memory_the_draws_are_those_of_before() -> None:
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    labels = LabelChain(PRIORS).sample(100, rng, np.zeros(100, dtype=bool))
    assert (labels == other.choice(4, size=100, p=PRIORS)).all()
    assert rng.random() == other.random()


def naive_filter(likelihood: FloatArray, steps: list[int], seen: list[bool], stay: float) -> FloatArray:
    """p(y_t | x_1 .. x_t) by the sum over all paths of labels, turns that were left out included."""
    rho = (stay - BY_CHANCE) / (1 - BY_CHANCE)
    step = rho * np.eye(4) + (1 - rho) * np.tile(PRIORS, (4, 1))
    answers = []
    for last in range(len(steps)):
        total = np.zeros(4)
        # Between two turns there are steps - 1 others of which nothing is known: their labels are summed over too.
        hidden = [sum(steps[1 : turn + 1]) for turn in range(last + 1)]
        for path in product(range(4), repeat=hidden[-1] + 1):
            weight = PRIORS[path[0]]
            for before, after in pairwise(path):
                weight *= step[before, after]
            for turn, place in enumerate(hidden):
                weight *= likelihood[turn, path[place]] if seen[turn] else 1
            total[path[-1]] += weight
        answers.append(total / total.sum())
    return np.array(answers)


@pytest.mark.parametrize("stay", [0.1, 0.5, 0.9])
def test_the_filter_is_the_sum_over_label_paths(stay: float) -> None:
    rng = np.random.default_rng(3)
    steps = {7: [0, 1, 2, 1], 2: [0, 3], 5: [0]}
    turns = np.array([[chain, place, step] for chain, each in steps.items() for place, step in enumerate(each)])
    likelihood = rng.gamma(1.0, size=(2, 7, 4))
    seen = np.array([[True] * 7, [True, False, True, True, False, True, True]])
    posterior = np.log(likelihood * PRIORS) - np.log((likelihood * PRIORS).sum(axis=2, keepdims=True))
    shuffled = rng.permutation(7)
    found = LabelChain(PRIORS, stay).filtered(posterior[:, shuffled], turns[shuffled], seen[:, shuffled])
    for condition in range(2):
        ends = np.cumsum([0, *map(len, steps.values())])
        for (chain, each), start, end in zip(steps.items(), ends, ends[1:], strict=False):
            expected = naive_filter(likelihood[condition, start:end], each, seen[condition, start:end].tolist(), stay)
            rows = [int(np.flatnonzero(shuffled == place)[0]) for place in range(start, end)]
            np.testing.assert_allclose(np.exp(found[condition, rows]), expected, rtol=1e-10, err_msg=str(chain))


def test_without_a_memory_the_filter_is_the_rule_of_one_turn() -> None:
    rng = np.random.default_rng(0)
    posterior = np.log(rng.dirichlet(np.ones(4), size=(3, 30)))
    turns = np.stack([np.repeat([0, 1, 2], 10), np.tile(np.arange(10), 3), np.tile(np.arange(10) > 0, 3)], axis=1)
    for stay in (None, BY_CHANCE):
        found = LabelChain(PRIORS, stay).filtered(posterior, turns.astype(np.int64), np.ones((3, 30), dtype=bool))
        np.testing.assert_allclose(found, posterior, atol=1e-12)


@pytest.mark.parametrize(
    ("separation", "alone", "filtered"), [(1.0, 0.551, 0.700), (1.5, 0.702, 0.828), (2, 0.823, 0.905)]
)
def test_accuracies_of_a_known_toy(separation: float, alone: float, filtered: float) -> None:
    # Four equal classes whose means are unit vectors times the separation, noise N(0, I), stay .85.
    rng, chain = np.random.default_rng(2), LabelChain(EQUAL, 0.85)
    chains, length = 400, 50
    first = np.arange(chains * length) % length == 0
    labels = chain.sample(chains * length, rng, first)
    x = separation * np.eye(4)[labels] + rng.standard_normal((len(labels), 4))
    logits = separation * x
    posterior = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    place = np.arange(len(labels))
    turns = np.stack([place // length, place % length, (place % length > 0).astype(np.int64)], axis=1)
    found = chain.filtered(posterior[None], turns, np.ones((1, len(labels)), dtype=bool))[0]
    assert (posterior.argmax(axis=1) == labels).mean() == pytest.approx(alone, abs=0.02)
    assert (found.argmax(axis=1) == labels).mean() == pytest.approx(filtered, abs=0.02)


# In the built-in corpus.


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    data = Synthetic(root=str(tmp_path_factory.mktemp("corpus") / "stay"), stay=0.85, fold=2)
    data.setup("fit")
    return data


def test_the_corpus_repeats_labels_within_dialogues(remembering: Synthetic) -> None:
    data = remembering
    labels, turns = data.labels.numpy(), data.turns
    order = np.lexsort((turns[:, 1], turns[:, 0]))
    inside = turns[order[1:], 1] > 0
    same = labels[order[1:]] == labels[order[:-1]]
    assert same[inside].mean() == pytest.approx(0.85, abs=0.02)
    assert same[~inside].mean() == pytest.approx(BY_CHANCE, abs=0.12)
    assert [int(row[2]) for row in turns[order]] == [int(row[1] > 0) for row in turns[order]]
    assert turns[:, 0].max() + 1 == 200


def test_the_limit_with_a_memory_is_above_the_one_without(remembering: Synthetic) -> None:
    alone = remembering.bayes_accuracy("train")
    filtered = remembering.bayes_accuracy("train", memory=True)
    for condition in CONDITIONS:
        assert filtered[condition] > alone[condition] + 0.05, condition
    # A filter that is right is calibrated: the share of right answers is the mean of the largest probability.
    source, rows = remembering.source, remembering.indices("test")
    posterior = source.log_posterior_batch(*remembering._stacked(rows))
    certain = source.chain.filtered(posterior, remembering.turns[rows], np.ones((7, len(rows)), dtype=bool))
    test = remembering.bayes_accuracy("test", memory=True)
    for place, condition in enumerate(CONDITIONS):
        error = 4 * np.sqrt(3 * 0.25 / len(rows))  # neighbours are alike: a third as many independent ones
        assert test[condition] == pytest.approx(np.exp(certain[place].max(axis=1)).mean(), abs=error)


def test_without_a_memory_both_limits_are_equal() -> None:
    data = Synthetic(utterances_per_speaker=40)
    data.setup("fit")
    assert data.bayes_accuracy("test", memory=True) == data.bayes_accuracy("test")


def test_a_turn_that_a_condition_does_not_show_tells_nothing(tmp_path: Path) -> None:
    whole = Synthetic(root=str(tmp_path / "corpus"), utterances_per_speaker=40, stay=0.9)
    whole.setup("fit")
    names = [whole.corpus.utterances[row] for row in whole.indices("test")]
    gaps = {name: "v" for name in names if int(name[-2:]) % 3 == 1}
    take_out(tmp_path / "corpus", whole.corpus_layout, gaps)
    lacking = Synthetic(root=str(tmp_path / "corpus"), utterances_per_speaker=40, stay=0.9, incomplete="keep")
    lacking.setup("fit")
    limits, others = lacking.bayes_accuracy("test", memory=True), whole.bayes_accuracy("test", memory=True)
    assert {name for name in CONDITIONS if limits[name] == others[name]} >= {"a", "t", "at"}
    assert any(limits[name] != others[name] for name in ("v", "av", "vt", "avt"))


def test_the_folder_remembers_its_memory(remembering: Synthetic, tmp_path: Path) -> None:
    assert load_source(remembering.root) == LinearGaussianCorpus(stay=0.85)
    assert '"stay": 0.85' in (remembering.root / SOURCE_FILE).read_text()
    plain = Synthetic(root=str(tmp_path / "plain"), utterances_per_speaker=2)
    assert "stay" not in (plain.root / SOURCE_FILE).read_text()
    with pytest.raises(InputError, match=r"utterances_per_speaker 2, stay 0.5; delete the folder"):
        Synthetic(root=str(tmp_path / "plain"), utterances_per_speaker=2, stay=0.5)


def test_each_memory_has_a_folder_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for stay in (None, 0.5, 0.85):
        Synthetic(utterances_per_speaker=1, stay=stay)
    folders = sorted(path.name for path in (tmp_path / "ifmmin").iterdir())
    assert folders == ["synthetic-2-1", "synthetic-2-1-stay0.5", "synthetic-2-1-stay0.85"]


@pytest.mark.parametrize("stay", [1.0, 0.0, -0.5])
def test_a_memory_out_of_range_is_refused(stay: float) -> None:
    with pytest.raises(InputError, match=r"--data.stay .*: it must be at least 0.1 and below 1"):
        Synthetic(stay=stay)
