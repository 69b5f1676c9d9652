"""Shapley values against the mean over all orders of arrival, and their properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.conditions import CONDITION_TABLE, CONDITIONS
from ifmmin.calibration.shapley import shapley_values, uninformed
from ifmmin.tasks import Classification, Regression

EMPTY = torch.full((4,), 0.25, dtype=torch.float64)
PRESENT = CONDITION_TABLE


def games(seed: int = 0) -> Tensor:
    """One game for each set of present modalities; worths of what is absent are NaN."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(7, 7, 4, generator=generator, dtype=torch.float64)
    possible = (PRESENT[:, None] | ~CONDITION_TABLE[None]).all(dim=2)
    return values.masked_fill(~possible[:, :, None], torch.nan)


def by_orders(values: Tensor, present: Tensor, empty: Tensor) -> np.ndarray:
    """What each modality adds on arrival, averaged over the orders in which those present may arrive."""
    names = [name for name, there in zip("avt", present.tolist(), strict=True) if there]
    orders = list(itertools.permutations(names))
    shares = np.zeros((3, values.shape[1]))
    for order in orders:
        here, before = "", empty.numpy()
        for name in order:
            here = "".join(sorted(here + name, key="avt".index))
            now = values[CONDITIONS.index(here)].numpy()
            shares["avt".index(name)] += (now - before) / len(orders)
            before = now
    return shares


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_the_mean_over_all_orders(seed: int) -> None:
    values = games(seed)
    found = shapley_values(values, PRESENT, EMPTY)
    for row in range(len(values)):
        np.testing.assert_allclose(found[row], by_orders(values[row], PRESENT[row], EMPTY), atol=1e-12)


def test_shares_add_up_and_only_the_present_have_any() -> None:
    values = games()
    found = shapley_values(values, PRESENT, EMPTY)
    total = torch.stack([values[row, row] for row in range(7)])
    torch.testing.assert_close(found.sum(dim=1), total - EMPTY)
    assert (found[~PRESENT] == 0).all()
    assert (found[PRESENT] != 0).all()


def test_modalities_that_give_the_same_have_the_same_share() -> None:
    values = games()[-1:]
    values[:, CONDITIONS.index("t")] = values[:, CONDITIONS.index("v")]
    values[:, CONDITIONS.index("at")] = values[:, CONDITIONS.index("av")]
    found = shapley_values(values, PRESENT[-1:], EMPTY)[0]
    torch.testing.assert_close(found[1], found[2])
    assert (found[0] != found[1]).all()


def test_a_modality_that_changes_nothing_has_no_share() -> None:
    values = games()[-1:]
    for with_audio, without in {"av": "v", "at": "t", "avt": "vt"}.items():
        values[:, CONDITIONS.index(with_audio)] = values[:, CONDITIONS.index(without)]
    values[:, CONDITIONS.index("a")] = EMPTY
    assert shapley_values(values, PRESENT[-1:], EMPTY)[0, 0].abs().max() < 1e-15


def test_an_answer_that_is_not_there_leaves_no_number() -> None:
    values = games()
    values[:, CONDITIONS.index("v")] = torch.nan
    found = shapley_values(values, PRESENT, EMPTY)
    assert found[CONDITIONS.index("avt")].isnan().all()
    assert found[CONDITIONS.index("at")].isfinite().all()


def test_what_is_said_of_nothing() -> None:
    assert uninformed(Classification(["a", "b"])).tolist() == [0.5, 0.5]
    assert uninformed(Regression(-3, 3)).tolist() == [0.0]
    assert uninformed(Regression(1, 5)).tolist() == [3.0]
