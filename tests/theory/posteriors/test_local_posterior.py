"""Gaussian local posteriors against quadrature and finite differences, sampler laws against Lyapunov and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import norm, ortho_group

from theory import (
    adaptive_limit,
    covariance_standard_error,
    gaussian_influence,
    loss_autocorrelation_times,
    quadratic_loss_covariance,
    stationary_law,
)

EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)


def random_losses(seed, n=4, d=3):
    """Return gradients and indefinite Hessians of n losses, and a localization that makes them a posterior."""
    rng = np.random.default_rng(seed)
    gradients, hessians = rng.normal(size=(n, d)), rng.normal(size=(n, d, d))
    hessians = (hessians + hessians.swapaxes(1, 2)) / 2
    return gradients, hessians, 2.0 - min(0.0, 5 * float(np.linalg.eigvalsh(hessians.mean(axis=0))[0]))


def expected_losses(gradients, hessians, n_beta, localization, weights):
    """E[l_j] under weighted losses, by solving the normal equations and taking the trace."""
    n, d = gradients.shape
    precision = n_beta / n * np.einsum("i,iab->ab", weights, hessians) + localization * np.eye(d)
    shift = np.linalg.solve(precision, -n_beta / n * weights @ gradients)
    moment = np.linalg.inv(precision) + np.outer(shift, shift)
    return gradients @ shift + np.einsum("iab,ab->i", hessians, moment) / 2


@given(seeds)
def test_influence_is_the_derivative_of_the_expected_loss(seed):
    gradients, hessians, localization = random_losses(seed)
    result = gaussian_influence(gradients, hessians, 5.0, localization)
    for i in range(4):

        def central(h, i=i):
            ends = [expected_losses(gradients, hessians, 5.0, localization, 1 + s * h * np.eye(4)[i]) for s in (-1, 1)]
            return (ends[1] - ends[0]) / (2 * h)

        coarse, fine = central(2e-3), central(1e-3)
        # Richardson: what is left is of order h^4, bounded by h^2 of the correction times the condition (localization
        # keeps eigenvalues above 2); rounding of E, times a condition number below 1000, over h
        size = np.abs(expected_losses(gradients, hessians, 5.0, localization, np.ones(4))).max()
        tolerance = 1e-2 * np.abs(coarse - fine) + 1e3 * EPS * (1 + size) / 1e-3
        assert np.all(np.abs((4 * fine - coarse) / 3 - result.influence[i]) <= tolerance)


def test_covariance_matches_gauss_hermite_quadrature():
    gradients, hessians, localization = random_losses(3, d=2)
    n_beta = 5.0
    result = gaussian_influence(gradients, hessians, n_beta, localization)
    # five nodes integrate degree 9 exactly, the product of two quadratic losses has degree 4; the Gaussian of the
    # reference comes from a solve and a Cholesky factor
    precision = n_beta * hessians.mean(axis=0) + localization * np.eye(2)
    mean = np.linalg.solve(precision, -n_beta * gradients.mean(axis=0))
    nodes, weights = hermegauss(5)
    z = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    p = np.outer(weights, weights).ravel() / weights.sum() ** 2
    w = mean + np.linalg.solve(np.linalg.cholesky(precision).T, z.T).T
    losses = w @ gradients.T + np.einsum("qa,iab,qb->qi", w, hessians, w) / 2
    centred = losses - p @ losses
    assert np.allclose(result.covariance, (centred * p[:, None]).T @ centred, rtol=1e-12, atol=1e-13)
    assert np.allclose(result.mean_shift, mean, rtol=1e-13)
    at_mean = quadratic_loss_covariance(result.gradients_at_mean, hessians, result.weight_covariance)
    assert np.allclose(at_mean, result.covariance, rtol=1e-13)


def test_first_order_is_the_damped_classical_influence():
    """At a stationary point, lambda = gamma / n_beta; the classical form by a linear solve."""
    gradients, hessians, _ = random_losses(1)
    gradients -= gradients.mean(axis=0)
    n_beta, localization = 7.0, 40.0
    result = gaussian_influence(gradients, hessians, n_beta, localization)
    damped = hessians.mean(axis=0) + localization / n_beta * np.eye(3)
    classical = -gradients @ np.linalg.solve(damped, gradients.T) / 4
    # the shift vanishes up to the rounding of the mean; condition number of the solve below 10
    assert np.allclose(-n_beta / 4 * result.first_order, classical, rtol=100 * EPS, atol=100 * EPS)
    assert np.abs(result.mean_shift).max() < 10 * EPS


def test_strong_localization_leaves_the_gradient_kernel():
    gradients, hessians, _ = random_losses(2)
    kernel = gradients @ gradients.T
    n_beta, strengths = 3.0, np.array([1e4, 1e5, 1e6])
    deviations = [np.abs(g * gaussian_influence(gradients, hessians, n_beta, g).covariance - kernel) for g in strengths]
    # gamma Cov = K + a / gamma + O(gamma^-2): ten times stronger localization, a tenth of the deviation, up to the
    # ratio of successive terms n_beta |H| / gamma < 3 * 5 / gamma, times ten for the number of second-order terms
    sums = np.array([d.sum() for d in deviations])
    assert np.all(np.abs(sums[:-1] / sums[1:] - 10) < 10 * 10 * 15 / strengths[:-1])
    # the coefficient: resolvent expansion, shift -n_beta grad L / gamma in the gradients, and tr(H_i H_j) / 2
    h, g = hessians.mean(axis=0), gradients.mean(axis=0)
    moved = gradients @ (hessians @ g).T
    a = -n_beta * (gradients @ h @ gradients.T + moved + moved.T) + np.einsum("iab,jab->ij", hessians, hessians) / 2
    covariance = gaussian_influence(gradients, hessians, n_beta, 1e6).covariance  # next term: 15 / 1e6 times a few
    assert np.all(np.abs(1e6 * (1e6 * covariance - kernel) - a) <= 1e-4 * np.abs(a).max())


@given(seeds)
def test_rotations_and_units_change_nothing(seed):
    gradients, hessians, localization = random_losses(seed)
    rotation = ortho_group.rvs(3, random_state=seed)
    reference = gaussian_influence(gradients, hessians, 5.0, localization)
    turned = gaussian_influence(gradients @ rotation.T, rotation @ hessians @ rotation.T, 5.0, localization)
    # the smallest precision is 2, the largest some tens: condition below 100, squared in the second order
    size = np.abs(reference.covariance).max()
    assert np.allclose(turned.covariance, reference.covariance, rtol=0, atol=1e4 * EPS * size)
    assert np.allclose(turned.mean_shift, rotation @ reference.mean_shift, rtol=0, atol=1e4 * EPS * (1 + size))
    # weights in other units, w = 2 w': gradients x 2, Hessians and localization x 4
    scaled = gaussian_influence(2 * gradients, 4 * hessians, 5.0, 4 * localization)
    assert np.allclose(scaled.covariance, reference.covariance, rtol=0, atol=1e4 * EPS * size)
    # losses in other units: l / 2 at twice n_beta is the same posterior
    halved = gaussian_influence(gradients / 2, hessians / 2, 10.0, localization)
    assert np.allclose(halved.covariance, reference.covariance / 4, rtol=0, atol=1e4 * EPS * size)
    assert np.linalg.eigvalsh(reference.covariance)[0] >= -1e4 * EPS * size


def test_mean_hessian_stands_for_each():
    gradients, hessians, localization = random_losses(4)
    mean = hessians.mean(axis=0)
    one = gaussian_influence(gradients, mean, 5.0, localization)
    each = gaussian_influence(gradients, np.stack([mean] * 4), 5.0, localization)
    assert np.allclose(one.influence, each.influence, rtol=64 * EPS)


def test_existence_condition():
    hessian = np.diag([1.0, -2.0])
    with pytest.raises(ValueError, match=r"only for a localization above 20, but 19\.99"):
        gaussian_influence(np.ones((3, 2)), hessian, 10.0, 19.99)
    with pytest.raises(ValueError, match="only for a localization above 20"):
        gaussian_influence(np.ones((3, 2)), hessian, 10.0, 20.0)
    assert np.isfinite(gaussian_influence(np.ones((3, 2)), hessian, 10.0, 20.01).influence).all()


def random_chain(seed, d=3):
    """Return a precision matrix and d steps whose largest step times precision is 3."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d + 2))
    precision, step = root @ root.T + 0.1 * np.eye(d), rng.uniform(0.1, 1.0, size=d)
    return precision, 3.0 * step / np.abs(np.linalg.eigvals(step[:, None] * precision)).max()


@given(seeds)
def test_stationary_covariance_solves_the_lyapunov_equation(seed):
    precision, step = random_chain(seed)
    drift = np.eye(3) - step[:, None] * precision / 2
    law = stationary_law(precision, step)
    reference = solve_discrete_lyapunov(drift, np.diag(step))
    # both lose the condition number 1 / (1 - rho^2) of the equation and that of the preconditioned precision
    s = 2 * (1 - law.autocorrelations)
    condition = s.max() / s.min()
    assert np.allclose(law.covariance, reference, rtol=0, atol=1e3 * EPS * condition * np.abs(reference).max())
    closed = np.linalg.inv(precision - precision @ np.diag(step) @ precision / 4)
    assert np.allclose(law.covariance, closed, rtol=0, atol=1e3 * EPS * condition * np.abs(reference).max())
    rho = np.sort(np.linalg.eigvals(drift).real)
    assert np.allclose(np.sort(law.autocorrelations), rho, rtol=0, atol=1e3 * EPS)
    assert np.allclose(law.autocorrelation_times, (1 + law.autocorrelations) / (1 - law.autocorrelations))
    # the chain's own modes: the lag-one covariance is M diag(rho) M^T
    lagged = (law.modes * law.autocorrelations) @ law.modes.T
    assert np.allclose(lagged, drift @ reference, rtol=0, atol=1e3 * EPS * condition * np.abs(reference).max())


def test_sgld_variance_by_eigenvalue():
    eigenvalues, step = np.array([0.5, 3.0, 39.9]), 0.1
    law = stationary_law(np.diag(eigenvalues), step)
    expected = 1 / (eigenvalues * (1 - step * eigenvalues / 4))
    # 1 - eps h / 4 cancels to 1 / 400 for the last eigenvalue
    assert np.allclose(np.diag(law.covariance), expected, rtol=400 * 8 * EPS)
    assert np.allclose(np.sort(law.autocorrelations), np.sort(1 - step * eigenvalues / 2), atol=8 * EPS)
    assert np.allclose(law.covariance, stationary_law(np.diag(eigenvalues), np.full(3, step)).covariance, rtol=8 * EPS)


@pytest.mark.parametrize(("step", "stable"), [(1.999, True), (2.0, False), (2.1, False)])
def test_stability_limit(step, stable):
    precision = np.array([[1.0, 0.5], [0.5, 1.0]])
    steps = np.array([step, step])  # eigenvalues of the precision 0.5 and 1.5
    limit = 4 / 1.5 / 2
    if stable:
        assert np.isfinite(stationary_law(precision, steps * limit).covariance).all()
    else:
        with pytest.raises(ValueError, match=r"the chain diverges: .* must be below 4; shorten"):
            stationary_law(precision, steps * limit)


def test_simulated_chains_have_the_predicted_law_and_standard_errors():
    rng = np.random.default_rng(0)
    precision, step = random_chain(5, d=2)
    step = step / 3  # largest step times precision is 1
    law = stationary_law(precision, step)
    gradients, hessians, _ = random_losses(6, n=3, d=2)
    hessians = 0.3 * precision + 0.2 * hessians
    chains, draws = 1000, 2000
    drift = np.eye(2) - step[:, None] * precision / 2
    w = rng.normal(size=(chains, 2)) @ np.linalg.cholesky(solve_discrete_lyapunov(drift, np.diag(step))).T
    linear, quadratic = np.empty((draws, chains, 3)), np.empty((draws, chains, 3))
    for t in range(draws):
        w = w - step / 2 * (w @ precision) + np.sqrt(step) * rng.normal(size=(chains, 2))
        linear[t] = w @ gradients.T
        quadratic[t] = linear[t] + np.einsum("ca,iab,cb->ci", w, hessians, w) / 2
    longest = law.autocorrelation_times.max()
    assert draws > 50 * longest

    def per_chain(values):
        centred = values - values.mean(axis=0)
        return np.einsum("tci,tcj->cij", centred, centred) / draws

    predicted = quadratic_loss_covariance(gradients, hessians, law.covariance)
    estimates = per_chain(quadratic)
    standard_error = estimates.std(axis=0) / np.sqrt(chains)
    # five standard errors, and the bias -tau / T of a covariance about the chain's own mean
    bias = longest / draws * np.sqrt(np.outer(np.diag(predicted), np.diag(predicted)))
    assert np.all(np.abs(estimates.mean(axis=0) - predicted) <= 5 * standard_error + bias)

    # a standard deviation over 1000 near-Gaussian chains is known to 1 / sqrt(2000) = 2.2 %: five of them, plus tau / T
    tolerance = 5 / np.sqrt(2 * chains) + longest / draws
    times = loss_autocorrelation_times(gradients, hessians, law)
    assert quadratic.mean(axis=0).std(axis=0) == pytest.approx(
        np.sqrt(times * np.diag(predicted) / draws), rel=tolerance
    )
    errors = covariance_standard_error(gradients, law, draws)
    assert np.allclose(per_chain(linear).std(axis=0), errors, rtol=tolerance)


def test_autocorrelation_times_of_single_modes():
    rho = np.array([0.9, 0.5])
    law = stationary_law(np.diag(2 * (1 - rho)), 1.0)
    gradients = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    hessians = np.zeros((5, 2, 2))
    hessians[2] = np.diag([1.0, 0.0])
    hessians[3] = [[0.0, 1.0], [1.0, 0.0]]
    decays = np.array([0.9, 0.5, 0.81, 0.45])
    lags = np.arange(1, 2000)
    expected = 1 + 2 * (decays[:, None] ** lags).sum(axis=1)  # 0.9^2000 < 1e-90
    times = loss_autocorrelation_times(gradients, hessians, law)
    assert np.allclose(times[:4], expected, rtol=1e-12)
    assert np.isnan(times[4])


@pytest.mark.parametrize("damping", [0.1, 1e-3])
def test_fast_adaptation_on_a_parabola(damping):
    """E|w|^3 = 2 sqrt(2/pi) sigma^3 and E|w| = sqrt(2/pi) sigma give the ratio; 1.444 and 1.988 at sigma = 0.1."""
    sigma = 0.1
    expected = (2 * np.sqrt(2 / np.pi) * sigma + damping) / (np.sqrt(2 / np.pi) * sigma + damping)
    result = adaptive_limit(lambda w: -50 * w**2, lambda w: w, damping, (-2.0, 2.0))
    # rtol 1e-8 of the quadrature in either variance; the bounds are at 20 sigma
    assert result.variance_ratio == pytest.approx(expected, rel=4e-8)
    assert result.posterior_variance == pytest.approx(sigma**2, rel=2e-8)
    assert abs(result.mean) < 1e-8
    assert abs(result.posterior_mean) < 1e-8


def test_fast_adaptation_is_the_small_step_limit_of_the_chain():
    """The transition matrix of Algorithm 1 at decay 0 on a grid, its stationary vector, and steps to zero."""
    damping, grid = 1.0, np.linspace(-7, 7, 561)

    def variance(step):
        gain = step / (np.abs(grid) + damping)
        kernel = norm.pdf(grid, (grid - gain / 2 * grid)[:, None], np.sqrt(gain)[:, None])
        kernel /= kernel.sum(axis=1, keepdims=True)
        system = np.vstack([kernel.T - np.eye(len(grid)), np.ones(len(grid))])
        stationary = np.linalg.lstsq(system, np.eye(len(grid) + 1)[-1], rcond=None)[0]
        return stationary @ grid**2

    coarse, fine = variance(0.2), variance(0.1)
    limit = adaptive_limit(lambda w: -(w**2) / 2, lambda w: w, damping, (-12.0, 12.0)).variance
    # the chain's bias is of first order in the step: extrapolated to zero, at most half the correction is left
    assert abs(2 * fine - coarse - limit) <= abs(coarse - fine) / 2
    assert abs(coarse - limit) < 0.1 * (limit - 1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: gaussian_influence([[1.0]], [[1.0]], 0.0, 1.0), "n_beta must be a positive"),
        (lambda: gaussian_influence([[1.0]], [[1.0]], 1.0, -1.0), "localization must not be negative"),
        (lambda: gaussian_influence([[1.0]], np.eye(2), 1.0, 1.0), "hessians has shape"),
        (lambda: gaussian_influence([[1.0, 0.0]], [[1.0, 1.0], [0.0, 1.0]], 1.0, 1.0), "hessians must be symmetric"),
        (lambda: quadratic_loss_covariance([[1.0]], [[1.0]], np.eye(2)), "weight_covariance has shape"),
        (lambda: stationary_law(np.ones((1, 2)), 0.1), "precision has shape"),
        (lambda: stationary_law([[1.0, 1.0], [0.0, 1.0]], 0.1), "precision must be symmetric"),
        (lambda: stationary_law(np.diag([1.0, -1.0]), 0.1), "smallest eigenvalue is -1; raise the localization"),
        (lambda: stationary_law(np.eye(2), [0.1, 0.0]), "every step must be positive"),
        (lambda: stationary_law(np.eye(2), [0.1, 0.1, 0.1]), "one step or 2 of them"),
        (lambda: loss_autocorrelation_times([[1.0]], [[1.0]], stationary_law(np.eye(2), 0.1)), "gradients has shape"),
        (lambda: covariance_standard_error([[1.0]], stationary_law([[1.0]], 0.1), 1), "draws must be at least 2"),
        (lambda: adaptive_limit(lambda w: -(w**2), lambda w: w, 0.0, (-1.0, 1.0)), "damping must be a positive"),
        (lambda: adaptive_limit(lambda w: -(w**2), lambda w: w, 1.0, (1.0, -1.0)), "lower limit below"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
