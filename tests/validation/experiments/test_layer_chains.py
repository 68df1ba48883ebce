"""Exact posteriors of chains of layers against closed forms and quadrature by scipy."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from theory import hierarchical_structure
from validation.experiments.layer_chains import PRIOR_SPREAD, chain_posterior

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
