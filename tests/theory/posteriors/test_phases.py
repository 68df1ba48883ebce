"""Free energies and transitions against high precision, singular models against series and quadrature."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import gamma

from theory.posteriors.phases import (
    Crossing,
    free_energy,
    phase_weights,
    power_moments,
    product_moments,
    transition_sample_size,
    type_b_transition,
)

EPS = np.finfo(float).eps
exponent = st.floats(-300, np.log10(0.367))


def test_free_energy_is_its_formula():
    n = np.array([[2.0], [1e6]])
    losses, lambdas, m, c = np.array([0.1, 0.0]), np.array([0.5, 2.0]), np.array([2.0, 1.0]), np.array([0.3, -1.0])
    expected = n * losses + lambdas * np.log(n) - (m - 1) * np.log(np.log(n)) + c
    assert np.allclose(free_energy(n, losses, lambdas, multiplicities=m, constants=c), expected, rtol=8 * EPS)


@given(
    st.floats(0.5, 300),
    st.lists(
        st.tuples(st.floats(0, 50), st.floats(0, 20), st.integers(1, 4), st.floats(-5, 5)), min_size=1, max_size=4
    ),
)
def test_phase_weights_match_fifty_digits(log10_n, phases):
    n = 10.0**log10_n
    gaps, lambdas, multiplicities, constants = (np.array(column, dtype=float) for column in zip(*phases, strict=True))
    losses = gaps / n
    weights = phase_weights(n, losses, lambdas, multiplicities=multiplicities, constants=constants)
    with mpmath.workdps(50):
        x = mpmath.log(mpmath.mpf(n))
        free = [
            mpmath.mpf(n) * mpmath.mpf(float(a)) + float(b) * x - (float(m) - 1) * mpmath.log(x) + float(c)
            for a, b, m, c in zip(losses, lambdas, multiplicities, constants, strict=True)
        ]
        exact = [mpmath.exp(min(free) - f) for f in free]
        exact = np.array([float(e / sum(exact)) for e in exact])
    # each term of F is rounded a few times; an absolute error e in any F changes a weight by at most 2 e relative
    size = np.max(gaps + lambdas * np.log(n) + 3 * abs(np.log(np.log(n))) + np.abs(constants))
    assert np.all(np.abs(weights - exact) <= 16 * EPS * (1 + size) * exact + 1e-300)
    assert weights.sum() == pytest.approx(1, abs=8 * EPS)


def test_phase_weights_at_huge_n_and_in_batches():
    assert np.array_equal(phase_weights(1e300, [1e10, 0.0], [0.0, 10.0]), [0.0, 1.0])
    assert phase_weights(np.full((2, 3), 5.0), [0.0, 1.0], 0.5).shape == (2, 3, 2)
    assert np.array_equal(phase_weights(7.0, [1.0], [2.0]), [1.0])


@given(exponent)
def test_transition_matches_lambert_w_in_high_precision(log10_c):
    c = 10.0**log10_c
    with mpmath.workdps(60):
        exact = -mpmath.lambertw(-mpmath.mpf(c), -1).real / mpmath.mpf(c)
        y = float(exact * mpmath.mpf(c))
        error = float(abs(mpmath.mpf(float(transition_sample_size(-c, 1.0))) / exact - 1))
    # y - log y = -log c: eps |log c| of the logarithm, relative to y >= |log c|, and the condition number y / (y - 1)
    assert error <= 8 * EPS * y / (y - 1)


@given(st.floats(-12, np.log10(0.36)), st.floats(-3, 3), st.floats(0.1, 10))
def test_transition_with_constants_is_where_free_energies_cross(log10_c, constant, delta_lambda):
    delta_loss = -(10.0**log10_c) * delta_lambda
    n = float(transition_sample_size([delta_loss], delta_lambda, constant)[0])
    threshold = np.exp(constant / delta_lambda - 1)
    if -delta_loss / delta_lambda >= threshold * (1 - 1e-12):
        assert np.isnan(n) or -delta_loss / delta_lambda <= threshold * (1 + 1e-12)
        return
    terms = np.array([n * delta_loss, delta_lambda * np.log(n), constant])
    # rounding of the terms, and of n (relative 8 eps y/(y-1), which the slope n dF/dn = -dlambda (y-1)
    # turns into 8 eps y dlambda = 8 eps |n dloss|)
    assert abs(terms.sum()) <= 16 * EPS * (np.abs(terms).sum() + delta_lambda)
    assert n * -delta_loss / delta_lambda >= 1  # the root beyond the minimum, where V wins for good


def test_spurious_root_is_rejected():
    n = float(transition_sample_size(-0.3, 1.0))
    with mpmath.workdps(30):
        spurious = float(mpmath.exp(-mpmath.lambertw(mpmath.mpf("-0.3"), 0)).real)
    assert 1 < spurious < np.e < n
    before, after = phase_weights([n * 0.99, n * 1.01], [0.3, 0.0], [0.0, 1.0])
    assert before[0] > 0.5 > after[0]
    assert phase_weights(spurious, [0.3, 0.0], [0.0, 1.0])[0] == pytest.approx(0.5, abs=8 * EPS)  # a root all the same


def test_no_transition_and_limits():
    with pytest.raises(ValueError, match=r"is not below 0\.367879, so the phase of lower loss"):
        transition_sample_size(-1.0, 1.0)
    result = transition_sample_size([-1.0, -1e-3], 1.0)
    assert np.isnan(result[0])
    assert np.isfinite(result[1])
    assert transition_sample_size(-1e-308, 1.0) == np.inf
    assert transition_sample_size(np.full((2, 1), -0.1), np.ones(3)).shape == (2, 3)


@pytest.mark.parametrize(("loss", "complexity"), [(0.1, 1.0), (0.0, 1.0), (-0.1, 0.0), (-0.1, -1.0)])
def test_type_a_needs_a_trade(loss, complexity):
    with pytest.raises(ValueError, match="it needs delta_loss < 0 and delta_lambda > 0"):
        transition_sample_size(loss, complexity)


@given(st.sampled_from([-1.5, -0.5, 0.0, 0.25, 2.0]), st.integers(-3, 3), st.floats(-8, 8))
def test_type_b_crossings_are_all_the_sign_changes(slope, bend, constant):
    def difference(x):
        return slope * x - bend * np.log(x) + constant

    result = type_b_transition(slope, bend, constant)
    for x in result.log_n:
        if 1e-300 < x < 1e300:
            # the root is exact to a few eps relative, conditioned by exponentiating shift / ratio <= 32
            size = abs(slope * x) + abs(bend) * (1 + abs(np.log(x))) + abs(constant)
            assert abs(difference(x)) <= 64 * EPS * size
    grid = np.geomspace(1e-40, 1e40, 40_001)
    signs = np.sign(difference(grid))
    signs = signs[signs != 0]  # a crossing may lie on the grid
    changes = int(np.sum(signs[1:] * signs[:-1] < 0))
    inside = sum(grid[0] < x < grid[-1] for x in result.log_n)
    close_pair = len(result.log_n) == 2 and result.log_n[1] < 1.01 * result.log_n[0]
    assert changes == inside or close_pair
    if slope or bend:
        assert result.winner == ("V" if difference(1e200) < 0 else "U")
    else:
        assert result.winner == ("tie" if constant == 0 else "V" if constant < 0 else "U")


def test_type_b_order_of_the_terms():
    assert type_b_transition(-0.5, -3.0, 100.0).winner == "V"
    assert type_b_transition(0.5, 3.0, -3.0).winner == "U"
    assert type_b_transition(0.0, -1.0, -9.0).winner == "U"
    assert type_b_transition(0.0) == Crossing("tie", ())
    assert type_b_transition(0.5, 1.0, 9.0).log_n == ()


@given(st.floats(-10, 2.3))
def test_product_model_matches_hypergeometric_series(log10_n):
    n = 10.0**log10_n
    with mpmath.workdps(150):  # the alternating series cancels about n / log(10) digits
        m = [
            mpmath.mpf(n) ** j / (2 * j + 1) ** 2 * mpmath.hyp2f2(j + 0.5, j + 0.5, j + 1.5, j + 1.5, -mpmath.mpf(n))
            for j in range(3)
        ]
        exact = float(mpmath.log(m[0])), float(m[1] / m[0]), float(m[2] / m[0] - (m[1] / m[0]) ** 2)
        size = float(m[2] / m[0] + (m[1] / m[0]) ** 2)
    log_z, mean, variance = product_moments(n)
    # positive sums of 80 terms good to a few eps each; the variance is a difference of terms of the given size
    assert abs(log_z - exact[0]) <= 64 * EPS
    assert mean == pytest.approx(exact[1], rel=64 * EPS)
    assert abs(variance - exact[2]) <= 64 * EPS * size


def test_product_model_asymptote():
    n = np.array([65.0, 1e3, 1e10, 1e300])
    asymptote = np.sqrt(np.pi) / (4 * np.sqrt(n)) * (np.log(n) + np.euler_gamma + 2 * np.log(2))
    # what is left out is below exp(-65); the logarithm of Z ~ 1e-148 is rounded at 340 eps
    assert np.allclose(product_moments(n)[0], np.log(asymptote), rtol=4 * EPS, atol=8 * EPS)
    # lambda = 1/2 and m = 2 in the free energy, with the term 1 / log n as the whole remainder
    remainder = -product_moments(n)[0] - free_energy(
        n, 0.0, 0.5, multiplicities=2.0, constants=np.log(4 / np.sqrt(np.pi))
    )
    expected = -np.log1p((np.euler_gamma + 2 * np.log(2)) / np.log(n))
    assert np.allclose(remainder, expected, rtol=0, atol=4 * EPS * (8 + np.log(n)))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_power_model(k):
    n, bound = 3.0, 0.9
    moments = [quad(lambda w, j=j: (n * w ** (2 * k)) ** j * np.exp(-n * w ** (2 * k)), 0, bound)[0] for j in range(3)]
    log_z, mean, variance = power_moments(n, k, bound=bound)
    # quad's default tolerance is 1.5e-8 a moment, its true error for entire integrands about 1e-14; three are combined
    assert log_z == pytest.approx(np.log(moments[0]), abs=1e-12)
    assert mean == pytest.approx(moments[1] / moments[0], rel=1e-12)
    assert variance == pytest.approx(moments[2] / moments[0] - (moments[1] / moments[0]) ** 2, rel=1e-11)
    log_z, mean, variance = power_moments([1e-3, 1.0, 1e200], k)
    assert np.allclose(mean, 1 / (2 * k), rtol=4 * EPS)
    assert np.allclose(variance, 1 / (2 * k), rtol=16 * EPS)
    # Z = Gamma(1 + 1/2k) n^(-1/2k), each logarithm rounded
    assert np.allclose(log_z, np.log(gamma(1 + 1 / (2 * k))) - np.log([1e-3, 1.0, 1e200]) / (2 * k), rtol=8 * EPS)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: free_energy(0.5, 0.0, 1.0), "n must be at least 1"),
        (lambda: free_energy(1.0, 0.0, 1.0, multiplicities=2), "log log n has no value"),
        (lambda: free_energy(2.0, 0.0, 1.0, multiplicities=0), "a multiplicity is at least 1"),
        (lambda: phase_weights(2.0, [0.0, 0.0], -1.0), "lambdas must not be negative"),
        (lambda: power_moments(0.0, 1), "n must be positive"),
        (lambda: power_moments(1.0, 1, bound=0.0), "bound must be positive"),
        (lambda: power_moments(1.0, 0), "k must be at least 1"),
        (lambda: product_moments(-1.0), "n must not be negative"),
        (lambda: type_b_transition(float("nan")), "delta_lambda holds a non-finite"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
