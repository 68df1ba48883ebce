"""Measured learning coefficients: exact Gaussian laws, quadrature at finite n_beta, Aoyagi's values in the limit."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import solve_discrete_lyapunov

from numerics import (
    MALA,
    SGLD,
    Checkpoints,
    Samples,
    TrainingConfig,
    estimate_learning_coefficient,
    extrapolate_learning_coefficient,
    gaussian_learning_coefficient,
    linear_as_module,
    per_sample_losses,
    sample,
    train,
)
from theory import Dataset, hierarchical_dataset, learning_coefficient

# Most of these checkpoints are no minima, on purpose: laws are exact there too. test_trust.py has the warning.
pytestmark = pytest.mark.filterwarnings("ignore::numerics.UntrustedResultWarning")

DATA = hierarchical_dataset(levels=2)
RUN = train(DATA, TrainingConfig(hidden=5, sigma=0.05, epochs=900, checkpoint_every=300, lr=0.1)).checkpoints


def general_data(n=6, p=3, o=4, seed=0):
    """Return inputs that are neither one-hot nor whitened."""
    rng = np.random.default_rng(seed)
    return Dataset(rng.normal(size=(n, p)), rng.normal(size=(n, o)))


def some_weights(data, hidden=5, scale=0.4):
    rng = np.random.default_rng(5)
    w1 = torch.tensor(scale * rng.normal(size=(1, hidden, data.n_inputs)))
    w2 = torch.tensor(scale * rng.normal(size=(1, data.n_outputs, hidden)))
    return Checkpoints(np.array([100.0]), w1, w2)


# --- exact Gaussian law ---------------------------------------------------------------------------------------------


def dense_gaussian(dataset, checkpoints, n_beta, localization, step_size):
    """Compute the same by automatic differentiation, a linear solve and, with a step, the chain's Lyapunov equation."""
    w1, w2 = checkpoints.w1[0], checkpoints.w2[0]
    split = w1.numel()

    def loss(flat):
        return per_sample_losses(flat[split:].view_as(w2) @ flat[:split].view_as(w1), dataset).mean()

    flat = torch.cat([w1.flatten(), w2.flatten()])
    h = torch.autograd.functional.hessian(loss, flat).numpy()
    g = torch.autograd.functional.jacobian(loss, flat).numpy()
    precision = n_beta * h + localization * np.eye(len(h))
    shift = -np.linalg.solve(precision, n_beta * g)
    if step_size:
        advance = np.eye(len(h)) - step_size / 2 * precision
        covariance = solve_discrete_lyapunov(advance, step_size * np.eye(len(h)))
    else:
        covariance = np.linalg.inv(precision)
    return n_beta * (g @ shift + shift @ h @ shift / 2 + np.trace(h @ covariance) / 2)


@pytest.mark.parametrize("step_size", [0.0, 1e-3])
@pytest.mark.parametrize("hidden", [2, 5, 20])  # 20 units leave 13 idle
def test_the_gaussian_value_is_that_of_a_dense_computation(hidden, step_size):
    data = general_data()
    weights = some_weights(data, hidden)
    value = gaussian_learning_coefficient(data, weights, n_beta=30.0, localization=200.0, step_size=step_size)
    expected = dense_gaussian(data, weights, 30.0, 200.0, step_size)
    # Matrices of size 140 and condition below 10: a few hundred roundings.
    assert value.dims == ("epoch",)
    np.testing.assert_allclose(value, [expected], rtol=1e-11)
    as_module = gaussian_learning_coefficient(
        data, linear_as_module(weights), n_beta=30.0, localization=200.0, step_size=step_size
    )
    np.testing.assert_allclose(as_module, [expected], rtol=1e-11)


def test_where_no_gaussian_exists_there_is_no_value():
    """In the saddle at zero weights the Hessian has eigenvalues +-sigma(Y^T X) / N, the largest sqrt(7) / 4."""
    zero = Checkpoints(np.zeros(1), torch.zeros(1, 3, 4), torch.zeros(1, 7, 3))
    edge = np.sqrt(7) / 4
    below = gaussian_learning_coefficient(DATA, zero, n_beta=1.0, localization=edge * 0.999)
    above = gaussian_learning_coefficient(DATA, zero, n_beta=1.0, localization=edge * 1.001)
    assert np.isnan(below[0])
    assert np.isfinite(above[0])


def test_a_trained_overparametrised_network_is_regular():
    """Each of the 4 x 7 entries of its map can be changed to first order: lambda = 14, less what the pull takes."""
    data = hierarchical_dataset(levels=2)
    w2, s, w1 = np.linalg.svd(data.syx, full_matrices=False)
    root = np.diag(np.sqrt(s))
    minimum = Checkpoints(np.zeros(1), torch.tensor(root @ w1)[None], torch.tensor(w2 @ root)[None])
    value = gaussian_learning_coefficient(data, minimum, n_beta=1e4, localization=1.0)
    # The 28 curvatures are at least min(s) / N = 1 / 4 (directions that change W at the weakest mode alone).
    assert 14 - 28 / 2 / (1 + 1e4 / 4) <= float(value[0]) < 14


@pytest.mark.parametrize("sampler", [MALA, SGLD])
def test_the_estimate_under_strong_localization_is_the_gaussian_value(sampler):
    """Terms beyond the second order: the pull of 1e5 keeps weights within 1e-2 of their size, so they are below 1 %."""
    data, weights = general_data(), some_weights(general_data())
    settings = sampler(step_size=1e-5, n_beta=1e3, localization=1e5)
    found = estimate_learning_coefficient(data, weights, settings, chains=32, draws=2000, burn_in=100, workers=1)
    bias = settings.step_size if sampler is SGLD else 0.0
    exact = float(gaussian_learning_coefficient(data, weights, n_beta=1e3, localization=1e5, step_size=bias)[0])
    error = 4 * float(found["standard_error"][0]) + 0.01 * abs(exact)
    assert abs(float(found["learning_coefficient"][0]) - exact) < error
    assert error < 0.05 * abs(exact)
    assert float(found["r_hat"][0]) < 1.02


# --- singular minima ------------------------------------------------------------------------------------------------


def singular_minimum(widths, rank):
    """Return data with L = 1/2 |W_2 W_1 - W*|^2, W* of the given rank, at the balanced minimum of least norm.

    The P inputs are sqrt(P) times the unit vectors, so that the mean over samples of |W x - y|^2 is the matrix's.
    """
    p, h, o = widths
    target = np.zeros((o, p))
    w1, w2 = torch.zeros(1, h, p), torch.zeros(1, o, h)
    for k in range(rank):
        target[k, k] = w1[0, k, k] = w2[0, k, k] = 1
    inputs = np.sqrt(p) * np.eye(p)
    return Dataset(inputs, inputs @ target.T), Checkpoints(np.zeros(1), w1, w2)


def measured(widths, rank, n_beta, *, steepness, length, chains, seed=0):
    """Estimate with MALA and a pull of 1.

    The weights spread by 1 along the minima. Curvatures on the way are the squares of the layers' largest singular
    values: about (sqrt(h) + sqrt(max(P, O)))^2 for normal entries, and 2 more of the map itself. `steepness` is the
    step in units of their inverse. The slowest direction relaxes in 2 / step: chains burn in for 1.5 of such times,
    when variances are 5 % short of their limits and log n_beta / gamma^2 by 0.1, and draw for `length` of them.
    """
    p, h, o = widths
    steepest = (np.sqrt(h) + np.sqrt(max(p, o))) ** 2 + 2 * (rank > 0)
    step = steepness / (n_beta * steepest + 1)
    thin = max(1, int(length * 2 / step / 1000))
    data, minimum = singular_minimum(widths, rank)
    return estimate_learning_coefficient(
        data,
        minimum,
        MALA(step, n_beta, localization=1.0),
        chains=chains,
        draws=int(length * 2 / step / thin),
        burn_in=int(1.5 * 2 / step),
        thin=thin,
        seed=seed,
        workers=1,
    ).isel(epoch=0)


def at_finite_n(widths, t, points):
    """Return n_beta E[L] for the zero map and a pull of 1, exactly: an integral over the eigenvalues of W_1 W_1^T.

    W_2 is Gaussian given W_1 and integrates to det(1 + t A)^(-O/2), A = W_1 W_1^T a Wishart matrix; its eigenvalues
    have the density prod a^((P-h-1)/2) e^(-a/2) prod |a_i - a_j|. n_beta E[L] = -dlog Z / dlog t.
    """
    p, h, o = widths
    u = np.linspace(-np.log(t) - 18, 5, points)  # log a: e^-18 of the scale 1 / t to where e^(-a/2) is 1e-32
    a = np.exp(u)
    log_weight = ((p - h - 1) / 2 + 1) * u - a / 2 - o / 2 * np.log1p(t * a)
    slope = o / 2 * t * a / (1 + t * a)
    axes = np.meshgrid(*[np.arange(points)] * h, indexing="ij", sparse=True)
    total = sum(log_weight[i] for i in axes)
    weight = np.exp(total - total.max())
    for i, j in combinations(axes, 2):
        weight = weight * np.abs(a[i] - a[j])
    return float((weight * sum(slope[i] for i in axes)).sum() / weight.sum())


@pytest.mark.parametrize(("widths", "points"), [((2, 2, 2), 400), ((5, 3, 5), 120)])
def test_finite_n_beta_and_localization_are_as_the_exact_integral_says(widths, points):
    """The trapezoidal sums change by less than 2e-3 when points are halved, a tenth of the standard error."""
    exact = at_finite_n(widths, 100.0, points)
    assert abs(exact - at_finite_n(widths, 100.0, points // 2)) < 2e-3
    found = measured(widths, 0, 100.0, steepness=4.0, length=2, chains=96)
    assert abs(float(found["learning_coefficient"]) - exact) < 4 * float(found["standard_error"])
    # What is tested is not the limit: that is far away.
    assert exact + 10 * float(found["standard_error"]) < learning_coefficient(widths, 0)[0]


# What the extrapolation leaves out is known where the integral above can be done: from n_beta = 100 and 1000 -0.9 % for
# (5, 3, 5), from 300 and 3000 -0.4 %, and -0.8 % for (2, 2, 2) of rank 0, where corrections fall like log(n) / sqrt(n).
# Chains are so few that the Monte-Carlo error is 1 to 2 times that; with many more the three standard errors would see
# the form of the fit. `steepness` is such that two to three in four proposals are accepted.
QUICK = [((2, 2, 2), 1, 6.0), ((3, 2, 3), 1, 6.0)]
SLOW = [
    ((2, 2, 2), 0, 4.0),
    ((5, 3, 5), 0, 3.6),
    ((5, 4, 6), 1, 3.2),
    ((5, 4, 6), 2, 3.2),
    ((5, 4, 6), 3, 3.2),
    ((10, 5, 10), 2, 2.4),
]


def check_against_aoyagi(widths, rank, steepness, ladder, chains):
    """Estimate at two n_beta, independently, and extrapolate; the cheap one is given longer chains."""
    exact, multiplicity = learning_coefficient(widths, rank)
    common = {"steepness": steepness, "chains": chains}
    lengths = (4, 0.5)
    runs = [measured(widths, rank, ladder[k], length=lengths[k], seed=k, **common) for k in range(2)]
    assert max(float(run["r_hat"]) for run in runs) < 1.05
    values, errors = (
        np.array([float(run[name]) for run in runs]) for name in ("learning_coefficient", "standard_error")
    )
    found = extrapolate_learning_coefficient(ladder, values, errors, multiplicity=multiplicity)
    error = abs(found.learning_coefficient - float(exact))
    assert error < 3 * found.standard_error
    assert error < 0.1 * exact
    # The bar means something: 10 % are at least four standard errors.
    assert found.standard_error < 0.025 * exact


@pytest.mark.parametrize(("widths", "rank", "steepness"), QUICK)
def test_small_singular_networks_have_aoyagis_coefficient(widths, rank, steepness):
    check_against_aoyagi(widths, rank, steepness, np.array([100.0, 1000.0]), chains=48)


@pytest.mark.slow
@pytest.mark.parametrize(("widths", "rank", "steepness"), SLOW)
def test_singular_networks_have_aoyagis_coefficient(widths, rank, steepness):
    check_against_aoyagi(widths, rank, steepness, np.array([300.0, 3000.0]), chains=16)


def test_the_most_singular_minimum_has_the_smallest_coefficient():
    """Zero maps of a (2, 2, 2) network: 2 where W_2 is invertible, for there W_1 must vanish; 3/2 at the origin.

    With W_2 = 20 and a pull of 1 the singular minima are 20 standard deviations away. The four curvatures are 400.
    """
    data, _ = singular_minimum((2, 2, 2), 0)
    regular = Checkpoints(np.zeros(1), torch.zeros(1, 2, 2), 20 * torch.eye(2)[None])
    found = estimate_learning_coefficient(
        data, regular, MALA(5e-5, 100.0, 1.0), chains=32, draws=600, burn_in=200, workers=1
    )
    value, error = float(found["learning_coefficient"][0]), float(found["standard_error"][0])
    assert abs(value - 2) < 4 * error
    assert value - 4 * error > 1.5
    # Curvatures 400 n_beta against a pull of 1.
    gaussian = float(gaussian_learning_coefficient(data, regular, n_beta=100.0, localization=1.0)[0])
    assert gaussian == pytest.approx(4 / 2 * 4e4 / (4e4 + 1), rel=1e-12)


# --- the estimator --------------------------------------------------------------------------------------------------


def test_the_estimate_is_the_mean_of_the_draws():
    settings = {"chains": 3, "draws": 50, "burn_in": 5, "thin": 2, "seed": 1, "dtype": torch.float64}
    sampler = SGLD(1e-4, 50.0, 500.0)
    draws = sample(DATA, RUN, sampler, **settings).values
    found = estimate_learning_coefficient(DATA, RUN, sampler, **settings)
    start = per_sample_losses(RUN.maps, DATA).mean(-1).numpy()
    np.testing.assert_allclose(found["loss"], start, rtol=1e-14)
    np.testing.assert_allclose(found["mean_loss"], draws.mean((1, 2, 3)), rtol=1e-12)
    # The difference of two losses of order 1 keeps 1e-13.
    np.testing.assert_allclose(found["learning_coefficient"], 50 * (draws.mean((1, 2, 3)) - start), atol=1e-11)
    assert all(found[name].dims == ("epoch",) for name in found)
    assert found.attrs["n_beta"] == 50.0


def test_going_downhill_gives_negative_estimates():
    """At the untrained network the loss falls: n_beta times less than nothing, and reported so."""
    found = estimate_learning_coefficient(DATA, RUN.at([0.0]), SGLD(1e-3, 50.0, 5.0), draws=200)
    assert float(found["learning_coefficient"][0]) < -5
    assert float(found["loss"][0]) == pytest.approx(per_sample_losses(RUN.maps, DATA)[0].mean().item())


def test_the_standard_error_is_the_spread_over_independent_runs():
    """60 copies of one checkpoint know their spread to 1 / sqrt(118) = 9 %; three times that is allowed."""
    last = RUN.at([900.0])
    copies = Checkpoints(np.arange(60.0), last.w1.repeat(60, 1, 1), last.w2.repeat(60, 1, 1))
    found = estimate_learning_coefficient(DATA, copies, SGLD(1e-3, 50.0, 500.0), chains=2, draws=2000, burn_in=100)
    claimed = float(np.sqrt((found["standard_error"] ** 2).mean()))
    assert 0.73 < claimed / float(found["learning_coefficient"].std(ddof=1)) < 1.27


def test_several_samplers_at_once_give_what_each_gives_alone():
    samplers = [SGLD(1e-4, n_beta, 500.0) for n_beta in (20.0, 50.0)]
    together = estimate_learning_coefficient(DATA, RUN, samplers, draws=40, burn_in=3)
    assert together["learning_coefficient"].dims == ("setting", "epoch")
    for k, sampler in enumerate(samplers):
        alone = estimate_learning_coefficient(DATA, RUN, sampler, draws=40, burn_in=3)
        for name in alone:
            one = together[name].isel(setting=k) if name != "loss" else together[name]
            np.testing.assert_array_equal(one, alone[name])


def test_weights_are_those_of_the_sampled_loss():
    """Weight 0 and a sample that is not there give the same loss up to the N of the mean."""
    beta = np.array([1.0, 1.0, 0.0, 1.0])
    settings = {"draws": 30, "dtype": torch.float64}
    weighted = estimate_learning_coefficient(DATA, RUN, SGLD(1e-4, 40.0, 500.0), weights=beta, **settings)
    smaller = DATA.without(DATA.names[2])
    without = estimate_learning_coefficient(smaller, RUN, SGLD(1e-4, 30.0, 500.0), **settings)
    np.testing.assert_allclose(weighted["learning_coefficient"], without["learning_coefficient"], rtol=1e-8)


def test_a_module_gives_the_same_from_the_same_noise():
    settings = {"draws": 30, "burn_in": 2, "dtype": torch.float64}
    linear = estimate_learning_coefficient(DATA, RUN, SGLD(1e-4, 50.0, 500.0), **settings)
    module = estimate_learning_coefficient(DATA, linear_as_module(RUN), SGLD(1e-4, 50.0, 500.0), **settings)
    # Chains contract, so rounding does not grow.
    np.testing.assert_allclose(module["learning_coefficient"], linear["learning_coefficient"], rtol=1e-9)


def test_a_single_chain_is_split():
    found = estimate_learning_coefficient(DATA, RUN, SGLD(1e-4, 50.0, 500.0), chains=1, draws=20)
    assert np.isfinite(found["r_hat"]).all()
    assert np.isfinite(found["standard_error"]).all()


def test_too_few_draws_are_refused():
    with pytest.raises(ValueError, match="draws must be at least 4, but 3"):
        estimate_learning_coefficient(DATA, RUN, SGLD(1e-4, 50.0, 500.0), draws=3)


# --- extrapolation --------------------------------------------------------------------------------------------------


@given(
    value=st.floats(0.5, 80),
    c=st.floats(-3, 20),
    m=st.integers(1, 5),
    start=st.floats(1e2, 1e4),
    points=st.integers(2, 5),
)
def test_the_forms_are_recovered(value, c, m, start, points):
    n = start * 10 ** np.linspace(0, 1.5, points)
    y = value + c / np.sqrt(n) if m == 1 else value - (m - 1) / (np.log(n) + c)
    found = extrapolate_learning_coefficient(n, y, np.full(points, 1e-3), multiplicity=m)
    # Least squares stop where a step changes the parameters by 1e-12 of themselves.
    assert found.learning_coefficient == pytest.approx(value, rel=1e-6)
    assert found.chi_square < 1e-6
    assert found.degrees_of_freedom == points - 2


@pytest.mark.parametrize("m", [1, 2])
def test_the_extrapolated_error_is_the_spread_over_repetitions(m):
    """500 repetitions know their spread to 1 / sqrt(1000) = 3 %; linear error propagation is good to a few per cent."""
    n, errors = np.array([300.0, 1000.0, 3000.0]), np.array([0.02, 0.015, 0.01])
    exact = 3.5 - 1 / (np.log(n) - 2.0) if m == 2 else 3.5 - 1.5 / np.sqrt(n)
    rng = np.random.default_rng(0)
    fits = [
        extrapolate_learning_coefficient(n, exact + errors * rng.normal(size=3), errors, multiplicity=m)
        for _ in range(500)
    ]
    spread = np.std([f.learning_coefficient for f in fits], ddof=1)
    claimed = np.median([f.standard_error for f in fits])
    assert 0.9 < claimed / spread < 1.1
    # chi-square with one degree of freedom: mean 1, standard deviation sqrt(2 / 500) = 0.06 of the mean.
    assert abs(np.mean([f.chi_square for f in fits]) - 1) < 4 * np.sqrt(2 / 500)


@pytest.mark.parametrize(
    ("n_beta", "estimates", "errors", "m", "match"),
    [
        ([10.0], [1.0], [0.1], 1, "at least two different n_beta are needed"),
        ([10.0, 10.0], [1.0, 1.0], [0.1, 0.1], 1, "at least two different n_beta are needed"),
        ([], [], [], 1, "at least two different n_beta are needed"),
        ([10.0, -1.0], [1.0, 1.0], [0.1, 0.1], 1, "n_beta must be positive, but the smallest is -1"),
        ([10.0, 20.0], [1.0, 1.0], [0.1, 0.0], 1, "standard_errors must be positive"),
        ([10.0, 20.0], [1.0, np.nan], [0.1, 0.1], 1, "estimates holds a non-finite value"),
        ([10.0, 20.0], [1.0], [0.1, 0.1], 1, "must have the same number of rows"),
        ([10.0, 20.0], [1.0, 1.0], [0.1, 0.1], 0, "multiplicity must be at least 1, but 0"),
    ],
)
def test_bad_ladders_are_refused(n_beta, estimates, errors, m, match):
    with pytest.raises(ValueError, match=match):
        extrapolate_learning_coefficient(n_beta, estimates, errors, multiplicity=m)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_beta": 0.0}, "n_beta must be a positive number"),
        ({"localization": -1.0}, "localization must not be negative"),
        ({"step_size": -1.0}, "step_size must not be negative"),
        ({"step_size": 1.0}, r"step_size 1 is unstable at epoch 0: .* but must be below 4"),
    ],
)
def test_bad_arguments_of_the_gaussian_value_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        gaussian_learning_coefficient(DATA, RUN, **{"n_beta": 10.0, "localization": 100.0} | change)


def test_samples_without_a_module_are_refused():
    with pytest.raises(TypeError, match="give the network as a module, see linear_as_module"):
        gaussian_learning_coefficient(Samples.of(DATA), RUN, n_beta=10.0, localization=100.0)
