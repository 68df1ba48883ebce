"""What is known exactly of influence between tokens: gates, bigrams, entropy rates, the noise of a pair."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize

from theory import (
    bigram_covariance,
    entropy_rate,
    gate_correlation,
    gate_losses,
    gate_posterior,
    gate_slope,
    pair_noise,
    steepest_gate,
)


@given(theta=st.floats(-40, 40), vocabulary=st.integers(2, 100_000))
def test_losses_in_many_digits(theta, vocabulary):
    with mpmath.workdps(60):
        s = 1 / (1 + mpmath.exp(-mpmath.mpf(theta)))
        exact = [-mpmath.log(s + (1 - s) / vocabulary), mpmath.log(vocabulary) - mpmath.log(1 - s)]
        found = gate_losses(theta, vocabulary)
        # Some ten operations on numbers up to 52, the largest loss; small losses are sums of like-signed terms.
        np.testing.assert_allclose(found, [float(x) for x in exact], rtol=1e-13, atol=1e-15)
        slope = abs(mpmath.diff(lambda t: -mpmath.log(1 / (1 + mpmath.exp(-t)) * (1 - mpmath.mpf(1) / vocabulary)
                                                      + mpmath.mpf(1) / vocabulary), mpmath.mpf(theta)))  # fmt: skip
        np.testing.assert_allclose(gate_slope(theta, vocabulary), float(slope), rtol=1e-12)


@pytest.mark.parametrize("vocabulary", [2, 50, 256, 50_304])
def test_steepest_gate_is_the_maximum_and_half_of_log_v(vocabulary):
    found = optimize.minimize_scalar(
        lambda theta: -float(gate_slope(theta, vocabulary)), bounds=(-20, 5), method="bounded", options={"xatol": 1e-10}
    )
    gate, loss = steepest_gate(vocabulary)
    # The maximum of a function is found to the root of its rounding.
    assert abs(np.log(gate / (1 - gate)) - found.x) < 1e-6
    assert loss == pytest.approx(np.log(vocabulary) / 2, rel=1e-13)


@pytest.mark.parametrize(("theta", "localization", "n_beta"), [(-2.8, 25.0, 0.0), (-2.8, 1e3, 500.0), (3.0, 4.0, 30.0)])
def test_moments_by_another_quadrature(theta, localization, n_beta):
    vocabulary, share = 64, 0.3

    def density(t):
        repeated, fresh = gate_losses(t, vocabulary)
        return np.exp(-n_beta * (share * repeated + (1 - share) * fresh - best) - localization / 2 * (t - theta) ** 2)

    best = 0.0
    grid = np.linspace(theta - 10, theta + 10, 2001)
    best = float(min(share * a + (1 - share) * b for a, b in gate_losses(grid, vocabulary)))

    def mean(f):
        peak = grid[np.argmax([density(t) for t in grid])]
        limits = {"points": [float(peak)], "epsrel": 1e-11, "epsabs": 0.0, "limit": 500}
        top = integrate.quad(lambda t: f(*gate_losses(t, vocabulary)) * density(t), theta - 10, theta + 10, **limits)[0]
        return top / integrate.quad(density, theta - 10, theta + 10, **limits)[0]

    found = gate_posterior(theta, vocabulary, localization=localization, n_beta=n_beta, share_repeated=share)
    means = [mean(lambda a, b: a), mean(lambda a, b: b)]
    products = [
        mean(lambda a, b, i=i, j=j: ((a, b)[i] - means[i]) * ((a, b)[j] - means[j]))
        for i, j in ((0, 0), (0, 1), (1, 1))
    ]
    # rtol 1e-8 of the mesh, in standard deviations
    np.testing.assert_allclose(found.mean, means, atol=1e-7 * np.sqrt(max(products)))
    covariance = found.covariance
    np.testing.assert_allclose(
        [covariance[0, 0], covariance[0, 1], covariance[1, 1]], products, atol=1e-7 * max(map(abs, products))
    )


def test_covariance_tends_to_the_slope_squared_over_the_localization():
    thetas = np.linspace(-8, 3, 12)
    gamma = 1e6
    found = np.array([gate_posterior(t, 256, localization=gamma).covariance for t in thetas])
    # The next term is of relative order 1 / gamma times squared ratios of derivatives, which are below about 10.
    np.testing.assert_allclose(found[:, 0, 0] * gamma, gate_slope(thetas, 256) ** 2, rtol=1e-4)
    correlation = found[:, 0, 1] / np.sqrt(found[:, 0, 0] * found[:, 1, 1])
    assert (correlation < -1 + 1e-4).all()


def test_the_bump_is_of_the_covariance_alone():
    thetas = np.linspace(-12, 8, 400)
    slope, correlation = gate_slope(thetas, 256), gate_correlation(thetas, 256)
    assert (np.diff(correlation) >= 0).all()
    peak = int(np.argmax(slope))
    assert 0 < peak < 399
    assert correlation[peak] > 0.99  # the correlation has risen before the covariance peaks
    loss = gate_losses(thetas, 256)[:, 0]
    assert loss[np.argmin(abs(correlation - 0.5))] > 0.85 * np.log(256)  # and before the loss falls


@given(theta=st.floats(-8, 6), vocabulary=st.integers(2, 500))
def test_correlation_from_gradients(theta, vocabulary):
    """The gradient of a token with a base of its own, by complex steps in float128-free arithmetic: gate and logits."""
    h = 1e-30

    def loss(gate, first_logit):
        s = 1 / (1 + np.exp(-gate))
        base = np.exp(first_logit) / (np.exp(first_logit) + vocabulary - 1)
        return -np.log(s + (1 - s) * base)

    of_gate = loss(theta + 1j * h, 0j).imag / h
    of_first = loss(complex(theta), 1j * h).imag / h
    others = -of_first / (vocabulary - 1)  # all logits together change nothing
    own = of_first**2 + (vocabulary - 1) * others**2
    np.testing.assert_allclose(gate_correlation(theta, vocabulary), of_gate**2 / (of_gate**2 + own), rtol=1e-9)


def test_bigram_covariance_against_the_hessian_by_differences():
    rng = np.random.default_rng(0)
    table, counts = rng.normal(size=(3, 3)), rng.integers(0, 9, size=(3, 3))
    tokens = [(u, v) for u in range(3) for v in range(3)]
    n_beta, gamma, step = 40.0, 3.0, 1e-4

    def losses(flat):
        logits = flat.reshape(3, 3)
        return np.array([np.log(np.exp(logits[u]).sum()) - logits[u, v] for u, v in tokens])

    def energy(flat):
        return n_beta * losses(flat) @ counts.ravel() / counts.sum() + gamma / 2 * np.square(flat - table.ravel()).sum()

    eye = step * np.eye(9)
    point = table.ravel()
    hessian = [
        [energy(point + a + b) - energy(point + a - b) - energy(point - a + b) + energy(point - a - b) for a in eye]
        for b in eye
    ] / np.float64(4 * step**2)
    gradients = np.stack([(losses(point + a) - losses(point - a)) / (2 * step) for a in eye])
    expected = gradients.T @ np.linalg.solve(hessian, gradients)
    found = bigram_covariance(table, counts, tokens, n_beta=n_beta, localization=gamma)
    # Second differences: rounding 1e-16 x 50 / step^2 = 5e-7 and truncation step^2.
    np.testing.assert_allclose(found, expected, atol=5e-6)
    context = np.repeat(np.arange(3), 3)
    assert (found[context[:, None] != context] == 0).all()


@given(st.integers(2, 12), st.integers(0, 2**31))
def test_entropy_rate_by_iterating_the_chain(size, seed):
    matrix = np.random.default_rng(seed).dirichlet(np.ones(size), size=size)
    at = np.full(size, 1 / size)
    for _ in range(5000):
        at = at @ matrix
    expected = -sum(at[i] * sum(p * np.log(p) for p in matrix[i] if p > 0) for i in range(size))
    assert entropy_rate(matrix) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("times", [0.1, 3.0, 50.0])
def test_noise_of_a_pair_by_simulation(times):
    """Two chains that start at 0 and know nothing of each other, correlated 4,000 times."""
    rng, chains, draws = np.random.default_rng(0), 3, 50
    noise = rng.normal(size=(4000, 2, chains, draws))
    x = np.zeros_like(noise)
    for k in range(1, draws):
        x[..., k] = (1 - times / draws) * x[..., k - 1] + noise[..., k]
    x = x.reshape(4000, 2, -1)
    x -= x.mean(axis=2, keepdims=True)
    square = (x[:, 0] * x[:, 1]).sum(axis=1) ** 2 / np.square(x).sum(axis=2).prod(axis=1)
    error = square.std() / np.sqrt(len(square))
    assert abs(square.mean() - pair_noise(times, chains=chains, draws=draws) ** 2) < 4 * error


def test_noise_of_a_pair_in_closed_form():
    """One chain that forgets at once is its start, 0, and draws - 1 independent numbers: eigenvalues 1 and 1 / n."""
    n = 7
    # Without its mean: n - 2 directions of variance 1, and one of variance 1 / n along the start.
    with mpmath.workdps(30):
        law = [mpmath.mpf(1)] * (n - 2) + [mpmath.mpf(1) / n]

        def share(k):
            return mpmath.quad(
                lambda t: 1 / (1 + 2 * t * law[k]) / mpmath.sqrt(mpmath.fprod(1 + 2 * t * v for v in law)),
                [0, 1, 10, 1000, mpmath.inf],
            )

        exact = mpmath.sqrt(sum((v * share(k)) ** 2 for k, v in enumerate(law)))
    assert pair_noise(n, chains=1, draws=n) == pytest.approx(float(exact), rel=1e-10)


@given(times=st.floats(1e-6, 20), chains=st.integers(1, 5))
def test_longer_chains_and_more_of_them_are_less_noisy(times, chains):
    noise = pair_noise(times, chains=chains, draws=40)
    assert pair_noise(times, chains=chains + 1, draws=40) < noise < 1
    assert pair_noise(1.5 * times, chains=chains, draws=40) <= noise * (1 + 1e-9)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: gate_losses(0.0, 1), "vocabulary must be at least 2"),
        (lambda: gate_posterior(0.0, 4, localization=0.0), "localization must be a positive number"),
        (lambda: gate_posterior(0.0, 4, localization=1.0, share_repeated=1.5), "share of the tokens"),
        (lambda: bigram_covariance(np.zeros((2, 3)), np.ones((2, 2)), [[0, 0]], n_beta=1, localization=1), "a row and"),
        (lambda: bigram_covariance(np.zeros((2, 2)), np.zeros((2, 2)), [[0, 0]], n_beta=1, localization=1), "all 0"),
        (lambda: bigram_covariance(np.zeros((2, 2)), np.ones((2, 2)), [[0, 2]], n_beta=1, localization=1), "below 2"),
        (lambda: pair_noise(0.1, chains=1, draws=2), "always correlate with 1 or -1"),
        (lambda: pair_noise(30.0, chains=4, draws=20), "a chain of 20 draws is 30 relaxation times long"),
        (lambda: entropy_rate([[0.5, 0.4], [0.5, 0.5]]), "rows sum to 1"),
        (lambda: entropy_rate(np.eye(2)), "several stationary"),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
