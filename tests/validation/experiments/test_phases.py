"""Exact posteriors of the small models against closed forms and quadrature by scipy."""

from operator import itemgetter

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from theory import hierarchical_structure
from validation.experiments.phases import PRIOR_SPREAD, chain_posterior, two_fits_posterior

SIZES = np.geomspace(3.0, 3000.0, 7)
VALUES = np.sqrt([15.0, 7.0, 3.0, 1.0])
N = 8


@pytest.fixture(scope="module")
def singular():
    return chain_posterior(3, SIZES)


def test_one_layer_has_the_posterior_of_a_normal_mean():
    """Precision n / N + 1 / sigma^2 of w = g, mean n s / N over it; quadrature errors are 1e-8 of the deviation."""
    regular = chain_posterior(1, SIZES)
    precision = SIZES / N + 1 / PRIOR_SPREAD**2
    np.testing.assert_allclose(regular["value"], VALUES, rtol=1e-15)
    for k, s in enumerate(VALUES):
        np.testing.assert_allclose(
            regular["strength"][k], SIZES / N / precision, atol=1e-7 / np.sqrt(precision).min() / s
        )
        np.testing.assert_allclose(regular["deviation"][k], 1 / np.sqrt(precision) / s, rtol=1e-7)
        np.testing.assert_allclose(regular["bernstein_von_mises"][k], np.sqrt(N / SIZES) / s, rtol=1e-15)


def chain_integral(function, s, n, low, high):
    def integrand(w):
        return function(w) * np.exp(-n * (s - w**3) ** 2 / (2 * N) - w**2 / (2 * PRIOR_SPREAD**2) + offset)

    solution = s ** (1 / 3)
    offset = min(n * s**2 / (2 * N), solution**2 / (2 * PRIOR_SPREAD**2))
    points = [p for p in (0.0, 0.9 * solution, solution) if low < p < high]
    return quad(integrand, low, high, points=points, epsabs=0, epsrel=1e-10, limit=500)[0]


@pytest.mark.parametrize("level", range(4))
def test_three_layers_have_the_posterior_by_quadrature(singular, level):
    s = VALUES[level]
    edge, limit = (s / 2) ** (1 / 3), 2 * s ** (1 / 3)
    for k in (0, 2, 4):
        n = SIZES[k]
        z = chain_integral(lambda w: 1.0, s, n, -limit, limit)
        learned = chain_integral(lambda w: 1.0, s, n, edge, limit) / z
        mean = chain_integral(lambda w: w**3 / s, s, n, -limit, limit) / z
        # 1e-8 in each phase's log Z, as asked of the quadrature, and 1e-10 here
        assert float(singular["learned"][level, k]) == pytest.approx(learned, abs=1e-7)
        assert float(singular["strength"][level, k]) == pytest.approx(mean, abs=1e-7)


def test_the_levels_of_the_singular_model_are_learned_in_order():
    """Transitions against the root of the difference of both phases' weights, interpolated over a tenth of n."""
    sizes = np.geomspace(20, 320, 25)
    found = chain_posterior(3, sizes)["transition"].values
    assert (np.diff(found) > 0).all()
    for s, n_star in zip(VALUES, found, strict=True):
        edge, limit = (s / 2) ** (1 / 3), 2 * s ** (1 / 3)

        def excess(log_n, s=s, edge=edge, limit=limit):
            parts = [chain_integral(lambda w: 1.0, s, np.exp(log_n), *ends) for ends in ((-limit, edge), (edge, limit))]
            return np.log(parts[0] / parts[1])

        exact = np.exp(brentq(excess, np.log(20), np.log(320), xtol=1e-6))
        # Weights follow a logistic in log n; on a chord of a tenth it is linear up to 12^2 x 0.1^2 / 8 / 2 of a chord.
        assert n_star == pytest.approx(exact, rel=0.01)


def test_bernstein_von_mises_holds_after_the_transition_and_not_before(singular):
    """At n = 3000 corrections are of relative order N / (n s^2) = 0.3 % and the prior's pull N / (9 n s^2 sigma^2)."""
    ratio = singular["deviation"] / singular["bernstein_von_mises"]
    assert np.abs(ratio[:, -1] - 1).max() < 0.05
    assert ratio[:, 0].max() < 0.1


def test_densities_are_relative_to_their_peak(singular):
    density = singular["density"]
    assert float(density.max()) == 1.0
    assert (density.max("relative_weight") == 1.0).all()
    before, after = density.isel(level=2, n=0), density.isel(level=2, n=-1)
    assert abs(float(before["relative_weight"][int(before.argmax("relative_weight"))])) < 0.05
    assert abs(float(after["relative_weight"][int(after.argmax("relative_weight"))]) - 1) < 0.05


def test_the_chain_has_the_singular_values_of_the_tree():
    tree = hierarchical_structure()
    assert len(tree.values) == N
    np.testing.assert_allclose(np.unique(tree.values)[::-1], VALUES, rtol=1e-15)


# --- two ways to fit ----------------------------------------------------------------------------------------------


R, Q = np.array([0.50, 0.45, 0.25, 0.30]), np.array([0.30, 0.25, 0.45, 0.30])
PATTERN = np.array([0.5, -0.9, 0.3, 0.1])
LOSSES = {
    "U": lambda v: (R - 0.2 * PATTERN / R * v**2) ** 2 / 2,
    "V": lambda v: (Q - 6.0 * PATTERN / Q * v) ** 2 / 2,
}


def two_fits_integral(phase, function, n):
    def integrand(v):
        losses = LOSSES[phase](v)
        return function(losses) * np.exp(-n * (losses.mean() - 0.05))

    return quad(integrand, -1, 1, points=[-0.05, 0.0, 0.05], epsabs=0, epsrel=1e-10, limit=500)[0]


@pytest.fixture(scope="module")
def fits():
    return two_fits_posterior(np.geomspace(10, 1e4, 31))


def test_both_fits_have_their_minimum_in_the_middle():
    v = np.linspace(-1, 1, 2001)
    for losses in LOSSES.values():
        mean = np.array([losses(x).mean() for x in v])
        assert abs(v[mean.argmin()]) < 1e-9


@pytest.mark.parametrize("k", [3, 13, 22])
def test_weights_and_influence_are_those_of_the_posterior(fits, k):
    n = float(fits["n"][k])
    z = {phase: two_fits_integral(phase, lambda _: 1.0, n) for phase in LOSSES}
    total = sum(z.values())
    for phase in LOSSES:
        assert float(fits["weight"].sel(phase=phase)[k]) == pytest.approx(z[phase] / total, abs=1e-7)

    def mean(function):
        return sum(two_fits_integral(phase, function, n) for phase in LOSSES) / total

    for i, j in ((0, 1), (0, 2), (0, 3), (2, 2)):
        both, first, second = (mean(f) for f in (lambda x, i=i, j=j: x[i] * x[j], itemgetter(i), itemgetter(j)))
        covariance = both - first * second
        # Losses are of order 0.1 and their covariances of 1e-3; subtraction costs 1e-2 / 1e-3 of the quadrature's 1e-8.
        assert float(fits["total"][k, i, j]) == pytest.approx(-n / 4 * covariance, rel=1e-6, abs=n * 1e-9)


def test_the_parts_sum_to_the_whole(fits):
    np.testing.assert_allclose(fits["within"] + fits["between"], fits["total"], rtol=0, atol=1e-14)


def test_the_expansion_holds_for_large_n_and_predicts_the_transition(fits):
    """What is left out falls like exp(-n rate) of the box's ends and is 1e-8 from n = 1000 on."""
    late = fits.sel(n=slice(1000, None))
    np.testing.assert_allclose(late["expansion"], late["free_energy"], rtol=0, atol=2e-2)
    assert float(fits["transition"]) == pytest.approx(float(fits["exact_transition"]), rel=0.02)


def test_influence_peaks_and_flips_sign_only_where_the_phases_disagree(fits):
    at = np.abs(np.log(fits["n"] / fits["exact_transition"]))
    for query, sign in (("2", -1), ("3", 1)):
        total, within = (fits[part].sel(source="1", query=query) for part in ("total", "within"))
        peak = int(np.argmax(np.abs(fits["between"].sel(source="1", query=query).values)))
        assert float(at[peak]) < 0.25, "within one step of n beside the transition"
        assert np.sign(float(total[peak])) == sign
        assert (np.sign(within.values) == -sign).all(), "without the transition the sign would be the other one"
        assert np.sign(float(total[-1])) == -sign
    indifferent = fits["between"].sel(source="1", query="4")
    assert np.abs(indifferent).max() < 0.05 * np.abs(fits["between"].sel(source="1", query="2")).max()
