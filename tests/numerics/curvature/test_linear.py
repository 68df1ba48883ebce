"""Gradients, Hessian and Gauss-Newton matrix against automatic differentiation of the loss as written."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from numerics.curvature.linear import gauss_newton, hessian, idle_eigenvalues, per_sample_gradients
from numerics.models.linear import without_idle_units
from theory import Dataset

EPS = np.finfo(float).eps


def problem(n, p, o, h, seed):
    rng = np.random.default_rng(seed)
    data = Dataset(rng.normal(size=(n, p)), rng.normal(size=(n, o)))
    return data, torch.tensor(rng.normal(size=(h, p))), torch.tensor(rng.normal(size=(o, h)))


def flat(w1, w2):
    return torch.cat([w1.flatten(), w2.flatten()])


def written_outputs(data, h):
    """Return W x_i of every sample as a function of one flat vector, straight from the definition."""
    x, split = torch.tensor(data.inputs), h * data.n_inputs

    def outputs(w):
        w1, w2 = w[:split].reshape(h, data.n_inputs), w[split:].reshape(data.n_outputs, h)
        return torch.stack([w2 @ (w1 @ a) for a in x])

    return outputs


def written_losses(data, h):
    outputs, y = written_outputs(data, h), torch.tensor(data.targets)
    return lambda w: 0.5 * (y - outputs(w)).square().sum(1)


def second_derivative(losses):
    """Return the Hessian of the mean loss; twice in reverse, as torch warns of its own forward mode."""
    return torch.func.jacrev(torch.func.jacrev(lambda w: losses(w).mean()))


def sizes(data, w1, w2):
    """Return the Frobenius norms |X|, |W_1|, |W_2| and that of the residuals with every term taken positive."""
    x, y, a, b = (float(np.linalg.norm(m)) for m in (data.inputs, data.targets, w1, w2))
    return x, a, b, y + a * b * x


def roundings(data, w1):
    """Return a bound of the relative rounding error of one entry, both sides together.

    An entry is a sum of products of at most four matrices, whose inner sizes are among N, P, O and h: at most
    2 (N + P + O + h) roundings reach a term, and as many again in the backward pass of automatic differentiation; 10
    for the scalar factors. A sum with m roundings a term errs by m EPS times the sum of its terms' sizes, which
    Cauchy-Schwarz bounds by products of Frobenius norms.
    """
    m = 2 * (len(data) + data.n_inputs + data.n_outputs + len(w1)) + 10
    return 3 * m * EPS


def hessian_error(data, w1, w2):
    x, a, b, residual = sizes(data, w1, w2)
    return roundings(data, w1) * ((b * x) ** 2 + (a * x) ** 2 + a * b * x**2 + x * residual) / len(data)


shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))


@given(shape=shapes, seed=st.integers(0, 2**31))
def test_gradients_are_those_of_autograd(shape, seed):
    data, w1, w2 = problem(*shape, seed)
    expected = torch.func.jacrev(written_losses(data, len(w1)))(flat(w1, w2))
    x, a, b, residual = sizes(data, w1, w2)
    error = roundings(data, w1) * residual * x * (a + b)
    torch.testing.assert_close(per_sample_gradients(data, w1, w2), expected, rtol=0, atol=error)


@given(shape=shapes, seed=st.integers(0, 2**31))
def test_hessian_is_that_of_autograd(shape, seed):
    data, w1, w2 = problem(*shape, seed)
    losses = written_losses(data, len(w1))
    expected = second_derivative(losses)(flat(w1, w2))
    torch.testing.assert_close(hessian(data, w1, w2), expected, rtol=0, atol=hessian_error(data, w1, w2))


@given(shape=shapes, seed=st.integers(0, 2**31))
def test_gauss_newton_is_the_jacobians_square(shape, seed):
    data, w1, w2 = problem(*shape, seed)
    jacobian = torch.func.jacrev(written_outputs(data, len(w1)))(flat(w1, w2)).flatten(0, 1)
    expected = jacobian.T @ jacobian / len(data)
    torch.testing.assert_close(gauss_newton(data, w1, w2), expected, rtol=0, atol=hessian_error(data, w1, w2))


def test_gradients_of_many_checkpoints_are_those_of_each():
    data, w1, w2 = problem(3, 2, 4, 5, seed=0)
    together = per_sample_gradients(data, torch.stack([w1, -w1, 0 * w1]), torch.stack([w2, 2 * w2, w2]))
    x, a, b, residual = sizes(data, w1, 2 * w2)
    error = roundings(data, w1) * residual * x * (a + 2 * b)
    for found, first, second in zip(together, (w1, -w1, 0 * w1), (w2, 2 * w2, w2), strict=True):
        expected = torch.func.jacrev(written_losses(data, 5))(flat(first, second))
        torch.testing.assert_close(found, expected, rtol=0, atol=error)


@pytest.mark.parametrize(("n", "p", "o", "h"), [(4, 2, 3, 9), (2, 3, 1, 6), (5, 3, 3, 7)])
def test_idle_directions_complete_the_spectrum(n, p, o, h):
    """The Hessian's spectrum is that of the units that carry weight and, for each idle one, that of the residual."""
    data, w1, w2 = problem(n, p, o, h, seed=1)
    _, reduced1, reduced2 = without_idle_units(w1, w2)
    copies = h - len(reduced1)
    assert copies == h - p - o
    parts = [torch.linalg.eigvalsh(hessian(data, reduced1, reduced2))]
    parts += [idle_eigenvalues(data, w1, w2)] * copies
    losses = written_losses(data, h)
    whole = second_derivative(losses)(flat(w1, w2))
    expected = torch.linalg.eigvalsh(whole)
    # Weyl: eigenvalues move by at most the norm of the error, which is (size x the entries' error) for the matrix and
    # (size x EPS x norm) for each of the two eigenvalue routines.
    error = len(whole) * (hessian_error(data, w1, w2) + 2 * EPS * float(expected.abs().max()))
    torch.testing.assert_close(torch.cat(parts).sort().values, expected, rtol=0, atol=error)


def test_without_weights_every_direction_is_idle():
    """At W_1 = 0 and W_2 = 0 the spectrum is that of the idle block, once for each of the h units."""
    data, w1, w2 = problem(4, 2, 3, 5, seed=2)
    losses = written_losses(data, 5)
    whole = second_derivative(losses)(flat(0 * w1, 0 * w2))
    expected = torch.linalg.eigvalsh(whole)
    found = idle_eigenvalues(data, 0 * w1, 0 * w2).repeat(5).sort().values
    error = len(whole) * (hessian_error(data, 0 * w1, 0 * w2) + 2 * EPS * float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=error)
