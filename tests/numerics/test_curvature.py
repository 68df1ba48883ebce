"""Gradients, Hessian and Gauss-Newton matrix against automatic differentiation of the loss as written."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from numerics.curvature import gauss_newton, hessian, idle_eigenvalues, per_sample_gradients
from numerics.training import without_idle_units
from theory import Dataset

EPS = np.finfo(float).eps


def problem(n, p, o, h, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    data = Dataset(rng.normal(size=(n, p)), rng.normal(size=(n, o)))
    return data, scale * torch.tensor(rng.normal(size=(h, p))), scale * torch.tensor(rng.normal(size=(o, h)))


def written_losses(data, h):
    """Return the losses as a function of one flat vector, straight from their definition."""
    x, y = torch.tensor(data.inputs), torch.tensor(data.targets)
    split = h * data.n_inputs

    def losses(flat):
        w1, w2 = flat[:split].reshape(h, data.n_inputs), flat[split:].reshape(data.n_outputs, h)
        return torch.stack([0.5 * torch.linalg.vector_norm(b - w2 @ (w1 @ a)) ** 2 for a, b in zip(x, y, strict=True)])

    return losses


def bound(matrix):
    """Return a bound of the rounding error: a few hundred operations of the size of the largest entry."""
    return 500 * EPS * max(float(matrix.abs().max()), 1.0)


shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))


@given(shape=shapes, seed=st.integers(0, 2**31))
def test_gradients_and_hessian_are_those_of_autograd(shape, seed):
    data, w1, w2 = problem(*shape, seed)
    losses, flat = written_losses(data, len(w1)), torch.cat([w1.flatten(), w2.flatten()])
    gradients = torch.autograd.functional.jacobian(losses, flat)
    assert torch.allclose(per_sample_gradients(data, w1, w2), gradients, rtol=0, atol=bound(gradients))
    expected = torch.autograd.functional.hessian(lambda w: losses(w).mean(), flat)
    assert torch.allclose(hessian(data, w1, w2), expected, rtol=0, atol=bound(expected))


@given(shape=shapes, seed=st.integers(0, 2**31))
def test_gauss_newton_is_the_jacobians_square(shape, seed):
    data, w1, w2 = problem(*shape, seed)
    x, split, h = torch.tensor(data.inputs), w1.numel(), len(w1)

    def outputs(flat):
        return (x @ flat[:split].reshape(h, -1).T @ flat[split:].reshape(-1, h).T).flatten()

    jacobian = torch.autograd.functional.jacobian(outputs, torch.cat([w1.flatten(), w2.flatten()]))
    expected = jacobian.T @ jacobian / len(data)
    assert torch.allclose(gauss_newton(data, w1, w2), expected, rtol=0, atol=bound(expected))


@pytest.mark.parametrize(("n", "p", "o", "h"), [(4, 2, 3, 9), (2, 3, 1, 6), (5, 3, 3, 7)])
def test_idle_directions_complete_the_spectrum(n, p, o, h):
    """The Hessian's spectrum is that of the units that carry weight and, for each idle one, that of the residual."""
    data, w1, w2 = problem(n, p, o, h, seed=1)
    _, reduced1, reduced2 = without_idle_units(w1, w2)
    copies = h - len(reduced1)
    assert copies > 0
    parts = [torch.linalg.eigvalsh(hessian(data, reduced1, reduced2))]
    parts += [idle_eigenvalues(data, w1, w2)] * copies
    full = torch.linalg.eigvalsh(hessian(data, w1, w2))
    # Weyl: eigenvalues move by at most the norm of the rounding error.
    assert torch.allclose(torch.cat(parts).sort().values, full, rtol=0, atol=bound(full) * len(full))
