"""What the samplers converge to: discretised Gaussians, quadrature in two dimensions, Algorithm 1's bias, exact BIF.

Linear regression has quadratic losses, so its local posterior is Gaussian and everything about it is known: Sigma =
(n_beta H + gamma)^(-1), Cov(l_i, l_j) = g_i^T Sigma g_j + tr(H_i Sigma H_j Sigma) / 2 with gradients at the mean.
"""

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from scipy.linalg import solve_discrete_lyapunov

from numerics import (
    MALA,
    SGLD,
    Checkpoints,
    ModuleCheckpoints,
    RMSPropSGLD,
    Samples,
    TorchModel,
    TrainingConfig,
    bayesian_influence,
    covariance_diagnostics,
    diagnose,
    hessian_influence,
    per_sample_losses,
    sample,
    train,
)
from theory import Dataset, adaptive_limit

N_BETA, GAMMA = 40.0, 15.0
RNG = np.random.default_rng(11)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 1))
REGRESSION = Samples(torch.tensor(X), torch.tensor(Y))
MODEL = TorchModel(torch.nn.Linear(3, 1, bias=False, dtype=torch.float64))
ENTRIES = {f"w{k}": lambda p, k=k: p["weight"][0, k] for k in range(3)}


def regression_checkpoints(count, seed=3):
    anchors = 0.5 * np.random.default_rng(seed).normal(size=(count, 3))
    return ModuleCheckpoints(np.arange(float(count)), MODEL, torch.tensor(anchors))


def exact_posterior(anchor, beta=None):
    """Mean and precision of exp(-n_beta L - gamma / 2 |w - anchor|^2), L = mean of beta (y - w.x)^2 / 2."""
    beta = np.ones(6) if beta is None else beta
    precision = N_BETA / 6 * (X.T * beta) @ X + GAMMA * np.eye(3)
    return np.linalg.solve(precision, N_BETA / 6 * (X.T * beta) @ Y[:, 0] + GAMMA * anchor), precision


def loss_covariance(mean, covariance):
    gradients = (X @ mean - Y[:, 0])[:, None] * X
    turned = X @ covariance @ X.T  # tr(H_i S H_j S) = (x_i.S x_j)^2 for H_i = x_i x_i^T
    return gradients @ covariance @ gradients.T + turned**2 / 2


@pytest.mark.parametrize("kind", ["sgld", "mala"])
def test_mean_and_covariance_are_those_of_the_discretised_gaussian(kind):
    """SGLD's covariance is the solution of S = A S A^T + eps I, A = I - eps P / 2; MALA's is P^(-1) itself."""
    step = 0.8 / np.linalg.eigvalsh(exact_posterior(np.zeros(3))[1]).max()
    sampler = {"sgld": SGLD, "mala": MALA}[kind](step, N_BETA, GAMMA)
    checkpoints = regression_checkpoints(1)
    drawn = sample(
        REGRESSION, checkpoints, sampler, chains=48, draws=1000, burn_in=100, observables=ENTRIES, dtype=torch.float64
    ).sel(sample=list(ENTRIES))
    mean, precision = exact_posterior(checkpoints.weights[0].numpy())
    if kind == "sgld":
        shrink = np.eye(3) - step / 2 * precision
        covariance = solve_discrete_lyapunov(shrink, step * np.eye(3))
        # far from the limit of small steps, so that the test can tell the laws apart: 1 / (1 - 0.8 / 4)
        assert np.linalg.eigvalsh(covariance @ precision).max() > 1.2
    else:
        covariance = np.linalg.inv(precision)
        assert 0.3 < drawn.attrs["acceptance"] < 0.99
    flat = drawn.values[0].reshape(-1, 3)
    bound = 4 * diagnose(drawn)["mcse_mean"][0].values
    assert np.all(np.abs(flat.mean(axis=0) - mean) < bound)
    bound = 4 * covariance_diagnostics(drawn)["mcse_mean"][0].values
    assert np.all(np.abs(np.cov(flat.T) - covariance) < bound)
    assert diagnose(drawn)["r_hat"].max() < 1.01


def test_influence_is_the_exact_gaussian_one_within_its_standard_errors():
    """The z-scores of 40 independent posteriors x 21 pairs behave as standard normal numbers.

    Their 99th percentile of |z| is 2.58. Entries of one checkpoint share their draws, so 40 are independent at least:
    the standard deviation of z is known to 1 / sqrt(80) = 11 %, 4 of which are allowed, and a percentile above 3.3 has
    less than 0.1 % in a normal sample. The standard error itself has 5 x 32 blocks behind it: 6 %.
    """
    step = 0.5 / np.linalg.eigvalsh(exact_posterior(np.zeros(3))[1]).max()
    checkpoints = regression_checkpoints(40)
    result = bayesian_influence(
        REGRESSION, checkpoints, SGLD(step, N_BETA, GAMMA), chains=5, draws=3200, burn_in=100, dtype=torch.float64
    )
    upper = np.triu_indices(6)
    z = []
    for t, anchor in enumerate(checkpoints.weights.numpy()):
        mean, precision = exact_posterior(anchor)
        covariance = solve_discrete_lyapunov(np.eye(3) - step / 2 * precision, step * np.eye(3))
        error = result["covariance"].values[t] - loss_covariance(mean, covariance)
        z.append((error / result["standard_error"].values[t])[upper])
    z = np.array(z)
    assert abs(z.std() - 1) < 0.45
    assert abs(z.mean()) < 4 / np.sqrt(40)
    assert np.quantile(np.abs(z), 0.99) < 3.3
    influence = -N_BETA / 6 * result["covariance"].values
    np.testing.assert_allclose(result["influence"], influence, rtol=1e-13)


def test_influence_is_the_derivative_of_the_expected_loss():
    """The derivative of E[l_j] by beta_i from central differences of the exact posterior: sign, scale and 1 / N."""

    def expected_losses(beta, anchor):
        mean, precision = exact_posterior(anchor, beta)
        return ((X @ mean - Y[:, 0]) ** 2 + np.einsum("na,ab,nb->n", X, np.linalg.inv(precision), X)) / 2

    checkpoints, h = regression_checkpoints(1), 1e-4
    anchor = checkpoints.weights[0].numpy()
    unit = np.eye(6)
    base = np.array([1.0, 0.0, 1.0, 2.0, 1.0, 1.0])
    derivative = np.array(
        [(expected_losses(base + h * e, anchor) - expected_losses(base - h * e, anchor)) / (2 * h) for e in unit]
    )
    # A short step: its bias is 1 / (1 - 0.02) - 1 = 2 % of the covariance, allowed for below.
    step = 0.08 / np.linalg.eigvalsh(exact_posterior(np.zeros(3))[1]).max()
    settings = {"chains": 64, "draws": 2000, "burn_in": 300, "dtype": torch.float64, "weights": base}
    result = bayesian_influence(REGRESSION, checkpoints, SGLD(step, N_BETA, GAMMA), **settings)
    error = np.abs(result["influence"].values[0] - derivative)
    bound = 4 * N_BETA / 6 * result["standard_error"].values[0] + 0.03 * np.sqrt(
        np.outer(np.abs(derivative.diagonal()), np.abs(derivative.diagonal()))
    )
    assert np.all(error < bound)


@pytest.mark.slow  # 13 s of chains
def test_metropolis_adjusted_chains_sample_a_curved_density():
    """W = w2 w1 in two dimensions, whose posterior bends along w1 w2 = const, against quadrature."""
    data = Dataset(np.array([[1.0], [0.5]]), np.array([[1.2], [-0.4]]))
    anchor, n_beta, gamma = (0.4, 0.3), 12.0, 0.7
    weights = Checkpoints(np.array([0.0]), torch.tensor([[[anchor[0]]]]), torch.tensor([[[anchor[1]]]]))

    def losses(a, b):
        return 0.5 * (1.2 - a * b) ** 2, 0.5 * (-0.4 - 0.5 * a * b) ** 2

    def density(a, b):
        first, second = losses(a, b)
        pull = gamma / 2 * ((a - anchor[0]) ** 2 + (b - anchor[1]) ** 2)
        return np.exp(-n_beta * (first + second) / 2 - pull)

    def moment(f):
        return dblquad(lambda b, a: f(a, b) * density(a, b), -9, 9, -9, 9, epsabs=1e-9, epsrel=1e-9)[0]

    total = moment(lambda a, b: 1.0)
    means = np.array([moment(lambda a, b, k=k: losses(a, b)[k]) for k in (0, 1)]) / total
    second = [
        [moment(lambda a, b, i=i, j=j: losses(a, b)[i] * losses(a, b)[j]) / total - means[i] * means[j] for j in (0, 1)]
        for i in (0, 1)
    ]
    drawn = sample(
        data, weights, MALA(0.2, n_beta, gamma), chains=64, draws=4000, burn_in=500, dtype=torch.float64, seed=2
    )
    assert 0.4 < drawn.attrs["acceptance"] < 0.95
    flat = drawn.values[0].reshape(-1, 2)
    assert np.all(np.abs(flat.mean(axis=0) - means) < 4 * diagnose(drawn)["mcse_mean"][0].values)
    assert np.all(np.abs(np.cov(flat.T) - second) < 4 * covariance_diagnostics(drawn)["mcse_mean"][0].values)
    assert diagnose(drawn)["r_hat"].max() < 1.01


# L = |w|^2 / 2 in 64 dimensions: inputs sqrt(N) times unit vectors, targets zero.
BOWL = Samples(np.sqrt(8) * torch.eye(8, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.float64))
BOWL_MODEL = TorchModel(torch.nn.Linear(8, 8, bias=False, dtype=torch.float64))
RADIUS = {"radius": lambda p: p["weight"].square().mean()}


def variance_ratio(sampler, *, chains=100, draws=300, burn_in=1000, thin=4):
    """Return the mean square of the weights times n_beta, and its standard error: 1 for the exact posterior."""
    start = ModuleCheckpoints(np.array([0.0]), BOWL_MODEL, torch.zeros(1, 64, dtype=torch.float64))
    settings = {"chains": chains, "draws": draws, "burn_in": burn_in, "thin": thin, "dtype": torch.float64}
    drawn = sample(BOWL, start, sampler, observables=RADIUS, **settings).sel(sample=["radius"])
    error = diagnose(drawn)["mcse_mean"].item()
    return drawn.mean().item() * sampler.n_beta, error * sampler.n_beta


def extrapolated(step, **settings):
    """Return the variance ratio at steps going to zero, from two steps, and its standard error.

    The weak error of Euler's method is c step + O(step^2): 2 r(step / 2) - r(step) leaves the square.
    """
    (coarse, a), (fine, b) = (variance_ratio(RMSPropSGLD(s, 100.0, 0.0, **settings)) for s in (step, step / 2))
    return 2 * fine - coarse, np.hypot(a, 2 * b), abs(fine - coarse)


@pytest.mark.slow
@pytest.mark.parametrize(("stability", "step"), [(0.1, 2e-4), (1e-3, 2e-5)])
def test_algorithm_1_has_the_predicted_bias_and_its_frozen_variant_none(stability, step):
    """n_beta = 100: with a preconditioner that follows w at once (b = 0) the law tends to p / G, frozen it is p.

    The step's own error halves with the step; after extrapolation at most half of it is left. Weights move by
    eps h / (2 (|w| + a)) of themselves a step, half a percent or more: a thousand steps forget the start, and the 600
    after the freeze what was before it.
    """
    limit = adaptive_limit(lambda w: -50 * w**2, lambda w: w, stability, (-2.0, 2.0)).variance_ratio
    printed, error, left = extrapolated(step, decay=0.0, stability=stability)
    assert abs(printed - limit) < 4 * error + left / 2
    frozen, error, left = extrapolated(step, decay=0.9, stability=stability, adaptation=400)
    assert abs(frozen - 1) < 4 * error + left / 2


def test_algorithm_1_is_biased_as_printed():
    """The same at one step and the default decay, far from 1 for a small stability constant and towards 2.

    V averages 1 / (1 - b) = 10 gradients, over which w keeps its size but for 3 % a step: between a third and the whole
    of the limit's excess of 0.99 is there. Freezing removes all of it but the step's own 2 %.
    """
    settings = {"decay": 0.9, "stability": 1e-3}
    printed, error = variance_ratio(RMSPropSGLD(2e-5, 100.0, 0.0, **settings), chains=50)
    assert printed - 4 * error > 1.33
    assert printed < 2
    frozen, error = variance_ratio(RMSPropSGLD(2e-5, 100.0, 0.0, adaptation=400, **settings), chains=50)
    assert abs(frozen - 1) < 4 * error + 0.02


def test_influence_at_a_minimum_is_the_damped_hessian_one():
    """At a stationary point of a linear network with misfit, lambda = gamma / n_beta, in the limit of large n_beta.

    The mean of the local posterior is then the minimum itself, and with n_beta = 1e7 the weights spread by 3e-4: terms
    of second order in the losses are a part in 1e5 of the first. The step's bias is 1 / (1 - 0.08 / 4) - 1 = 2 %.
    """
    rng = np.random.default_rng(4)
    data = Dataset(rng.normal(size=(7, 2)), rng.normal(size=(7, 3)))
    run = train(data, TrainingConfig(hidden=3, sigma=0.5, lr=0.2, epochs=20_000, checkpoint_every=20_000))
    minimum = run.checkpoints.at([20_000])
    n_beta, damping = 1e7, 0.3
    exact = hessian_influence(data, minimum, damping=damping)
    assert exact["min_eigenvalue"].item() > -1e-6  # the posterior exists
    slope = float(sample_gradient_norm(data, minimum))
    assert slope < 1e-7  # against gradients of single samples of order 1
    step = 0.08 / (n_beta * (exact["max_abs_eigenvalue"].item() + damping))
    sampler = SGLD(step, n_beta, damping * n_beta)
    settings = {"chains": 96, "draws": 1500, "burn_in": 400, "dtype": torch.float64}
    result = bayesian_influence(data, minimum, sampler, **settings)
    expected = exact["influence"].values[0, 0]
    error = np.abs(result["influence"].values[0] - expected)
    spread = np.sqrt(np.outer(np.abs(expected.diagonal()), np.abs(expected.diagonal())))
    assert np.all(error < 4 * n_beta / 7 * result["standard_error"].values[0] + 0.02 * spread)
    # A lost 1 / N or sign would show: the slope over all pairs is 1 within the same few per cent.
    assert np.vdot(result["influence"].values[0], expected) / np.vdot(expected, expected) == pytest.approx(1, abs=0.05)


def sample_gradient_norm(data, checkpoints):
    """Return the norm of the gradient of L, by autograd of the maps' losses."""
    w1, w2 = (w[0].clone().requires_grad_() for w in (checkpoints.w1, checkpoints.w2))
    gradients = torch.autograd.grad(per_sample_losses(w2 @ w1, data).mean(), (w1, w2))
    return torch.cat([g.flatten() for g in gradients]).norm()
