"""The parts of MISA that others share, against loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ifmmin.nn.subspaces import ModalityLinear, Subspaces, orthogonality, subspace_losses
from tests.batches import random_present


def naive_orthogonality(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    if len(x) < 2:
        return 0.0
    rows = [[(v - s.mean(0)) / (np.linalg.norm(v - s.mean(0)) + 1e-6) for v in s] for s in (x, y)]
    total = 0.0
    for i in range(x.shape[1]):
        for j in range(y.shape[1]):
            total += float(sum(a[i] * b[j] for a, b in zip(*rows, strict=True))) ** 2
    return float(total / (x.shape[1] * y.shape[1]))


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_orthogonality_and_its_gradient(size: int) -> None:
    torch.manual_seed(size)
    x, y = torch.randn(size, 3).double().requires_grad_(), torch.randn(size, 4).double()
    found = orthogonality(x, y)
    assert float(found.detach()) == pytest.approx(naive_orthogonality(x.detach().numpy(), y.numpy()), abs=1e-12)
    found.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert bool(x.grad.any()) == (size > 1)


def test_norms_have_a_gradient_unless_they_are_detached() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 3).double().requires_grad_(), torch.randn(6, 4).double()
    assert torch.autograd.gradcheck(lambda each: orthogonality(each, y, detached=False), x)
    radial = []
    for detached in (True, False):
        (gradient,) = torch.autograd.grad(orthogonality(x, y, detached), x)
        radial.append(float((gradient * (x - x.mean(dim=0))).sum().detach()))
    # Shrinking the sample lowers the detached form alone.
    assert radial[0] > 0.1
    assert abs(radial[1]) < 1e-5


def test_shared_terms_are_over_what_is_known() -> None:
    torch.manual_seed(0)
    parts = Subspaces(*torch.randn(3, 6, 3, 2).double())
    known = torch.from_numpy(random_present(6))
    layer = ModalityLinear(2).double()
    losses = subspace_losses(parts, layer, known)
    hidden = Subspaces(*(part.where(known[..., None], torch.nan) for part in parts))
    for name, value in subspace_losses(hidden, layer, known).items():
        torch.testing.assert_close(value, losses[name])
    u, p, s = (part.numpy() for part in parts)
    there, errors = known.numpy(), []
    diff = sum(naive_orthogonality(p[there[:, m], m], s[there[:, m], m]) for m in range(3))
    for m, n in combinations(range(3), 2):
        both = there[:, m] & there[:, n]
        diff += naive_orthogonality(p[both, m], p[both, n])
    for row, m in zip(*there.nonzero(), strict=True):
        linear = [*layer.values()][m]
        guess = linear.weight.detach().numpy() @ (p[row, m] + s[row, m]) + linear.bias.detach().numpy()
        errors.append((guess - u[row, m]) ** 2)
    assert float(losses["diff"].detach()) == pytest.approx(diff)
    assert float(losses["recon"].detach()) == pytest.approx(np.mean(errors))
