"""What each modality gave to an answer: exact Shapley values from the answers under all seven conditions."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import torch
from torch import Tensor

from datamodules.conditions import CONDITIONS, MODALITIES
from ifmmin.tasks import Task


def shapley_values(values: Tensor, present: Tensor, empty: Tensor) -> Tensor:
    r"""Share of each modality in what a game of the present modalities pays.

    .. math:: \phi_m = \sum_{S \subseteq P \setminus m} \frac{|S|!\,(|P|-|S|-1)!}{|P|!}\,\bigl(v(S \cup m) - v(S)\bigr)

    of the present modalities P: the mean, over the orders in which they may arrive, of what m adds to those before it
    (Shapley 1953). Shares add up to v(P) - v(∅); an absent modality has 0.

    Args:
        values: [N, 7, K], v under each of :data:`~datamodules.conditions.CONDITIONS`; of conditions that need an
            absent modality anything. NaN where there is no answer makes the shares that need it NaN.
        present: bool [N, 3].
        empty: [K], v of no modality at all.

    Returns:
        float64 [N, 3, K].

    >>> import torch
    >>> payoff = torch.tensor([[[0.4], [0.5], [0.0], [0.9], [0.0], [0.0], [0.0]]])  # {a}, {v} and {a,v}
    >>> shapley_values(payoff, torch.tensor([[True, True, False]]), torch.tensor([0.1]))[0, :, 0]
    tensor([0.3500, 0.4500, 0.0000], dtype=torch.float64)
    """
    values, count = values.double(), present.sum(dim=1)
    shares = values.new_zeros(len(values), len(MODALITIES), values.shape[2])

    def worth(coalition: tuple[int, ...]) -> Tensor:
        if not coalition:
            return empty.double().expand(len(values), -1)
        return values[:, CONDITIONS.index("".join(MODALITIES[place][0] for place in coalition))]

    for modality in range(len(MODALITIES)):
        others = [place for place in range(len(MODALITIES)) if place != modality]
        for size in range(len(MODALITIES)):
            # Orders of n modalities in which `size` given ones come first and this one next, out of n!.
            weights = [factorial(size) * factorial(n - size - 1) / factorial(n) if n > size else 0.0 for n in range(4)]
            weight = torch.tensor(weights, dtype=torch.float64, device=values.device)[count]
            for before in combinations(others, size):
                after = tuple(sorted((*before, modality)))
                plays = present[:, list(after)].all(dim=1)
                added = weight[:, None] * (worth(after) - worth(before))
                shares[:, modality] += torch.where(plays[:, None], added, 0.0)
    return shares


def uninformed(task: Task) -> Tensor:
    """What is said of nothing, v(∅): every class alike, or the middle of a regression's scale; float64 [P].

    Not the classes' frequencies in training: a checkpoint does not know them, and a model that sees nothing has no
    reason to say them.
    """
    if task.class_names:
        return torch.full((task.outputs,), 1 / task.outputs, dtype=torch.float64)
    scale = task.spec()
    return torch.tensor([(scale["low"] + scale["high"]) / 2], dtype=torch.float64)
