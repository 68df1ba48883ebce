"""The posterior of a network of two weights against a sum over a grid, and its chains against both."""

import numpy as np
import pytest

from numerics.curvature.linear import hessian
from validation.experiments.two_weights import DATA, N_BETA, PULL, exact_posterior, network, sampled_influence


def grid_moments(weights):
    """Return mean and covariance of losses by the trapezoid rule, which converges like e^{-1/h} on smooth decays."""
    a, b = np.meshgrid(np.linspace(-6, 8, 1401), np.linspace(-6, 8, 1401), indexing="ij")
    losses = 0.5 * (DATA.targets[:, 0, None, None] - DATA.inputs[:, 0, None, None] * a * b) ** 2
    risk = np.tensordot(weights, losses, 1) / 3
    log_density = -N_BETA * risk - PULL / 2 * ((a - 0.9) ** 2 + (b - 0.7) ** 2)
    p = np.exp(log_density - log_density.max())
    p /= p.sum()
    mean = np.einsum("iab,ab->i", losses, p)
    centred = losses - mean[:, None, None]
    return mean, np.einsum("iab,jab,ab->ij", centred, centred, p)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 1.0, 0.0)])
def test_moments_are_those_of_a_sum_over_a_grid(weights):
    posterior = exact_posterior(*weights)
    mean, covariance = grid_moments(np.array(weights))
    # the quadrature's 1e-7 of log Z, in units of losses whose spread is their size
    np.testing.assert_allclose(posterior.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(posterior.covariance, covariance, rtol=0, atol=1e-5 * np.abs(covariance).max())


def test_no_weights_are_weights_of_one():
    np.testing.assert_array_equal(exact_posterior().mean, exact_posterior(1.0, 1.0, 1.0).mean)


def test_no_gaussian_limit_exists():
    at = network()
    lowest = np.linalg.eigvalsh(hessian(DATA, at.w1[0], at.w2[0]).numpy())[0]
    assert N_BETA * lowest + PULL < 0


@pytest.mark.slow  # 11 s of chains
def test_chains_have_the_exact_influence_of_a_sample_left_out_too():
    for weights in (None, (1.0, 1.0, 0.0)):
        sampled = sampled_influence(weights=weights)
        exact = exact_posterior(*(weights or ())).influence
        error = sampled["standard_error"].values * N_BETA / 3
        rows, columns = np.triu_indices(3)
        assert (np.abs(sampled["influence"].values - exact)[rows, columns] < 4.5 * error[rows, columns]).all()
