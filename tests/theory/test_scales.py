"""Closed forms of numbers from 1e-150 to 1e150, against many digits or by the exact scaling that they must obey.

Powers of four scale weights by powers of two, exactly: where the mathematics is homogeneous, so must results be.
"""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import theory
from theory.arithmetic import product

EPS = np.finfo(float).eps
wide = st.floats(-150, 150).map(lambda e: 10.0**e)
power = st.integers(-249, 249).map(lambda k: 4.0**k)  # 1e-150 to 1e150


def digits(*values):
    return [mpmath.mpf(float(v)) for v in values]


def close(found, exact, tolerance):
    """Whether a double is within a relative tolerance of an exact value, or both are beyond the range of doubles."""
    if abs(exact) > mpmath.mpf("1.7e308"):
        return np.isinf(found)
    return abs(mpmath.mpf(float(found)) - exact) <= tolerance * abs(exact) + mpmath.mpf("1e-322")


@given(st.lists(wide, min_size=1, max_size=4), st.lists(wide, max_size=3))
def test_products_and_quotients_of_any_size(factors, divisors):
    exact = Fraction(1)
    for f in factors:
        exact *= Fraction(f)
    for d in divisors:
        exact /= Fraction(d)
    found = float(product(*factors, over=tuple(divisors)))
    if Fraction(1e-300) < exact < Fraction(1e308):
        assert abs(Fraction(found) - exact) <= exact * Fraction(EPS) * 8
    else:
        assert found > 1e307 or found < 1e-299


@given(wide, wide, wide, wide, st.booleans())
@example(1e10, 1.0, 1e300, 1.0, True)  # s = 0, and g0 * t overflows
@example(1e5, 1e150, 1e-170, 1e153, False)
def test_mode_strength(t, s, g0, tau, flat):
    with mpmath.workdps(60):
        mt, ms, mg, mtau = digits(t, 0.0 if flat else s, g0, tau)
        x = 2 * ms * mt / mtau
        exact = mg / (1 + 2 * mg * mt / mtau) if flat else mg / (mpmath.exp(-x) + mg * -mpmath.expm1(-x) / ms)
        # e^-x is known to eps x relative, and matters only before s / g0 < e^1400 has been reached
        assert close(theory.mode_strength(t, 0.0 if flat else s, g0, tau), exact, EPS * (8 + min(float(x), 1500.0)))


@given(wide, st.one_of(st.floats(1e-300, 0.5), st.floats(1e-16, 0.4).map(lambda d: 0.5 - d)), wide)
def test_half_rise_time(s, fraction, tau):
    g0 = fraction * s
    assume(0 < g0 <= s / 2)
    with mpmath.workdps(60):
        ms, mg, mtau = digits(s, g0, tau)
        assert close(theory.half_rise_time(s, g0, tau), mtau / (2 * ms) * mpmath.log(ms / mg - 1), 8 * EPS)


def exact_deep_time(g, s, g0, tau, depth):
    """Return tau / L times the integral of x^{2/L - 2} / (s - x), by hypergeometric functions in 400 digits."""
    g, s, g0, tau = digits(g, s, g0, tau)
    c = 2 - mpmath.mpf(2) / depth
    if depth == 1:
        return tau * mpmath.log((s - g0) / (s - g))
    if depth == 2:
        return tau / (2 * s) * (mpmath.log(g / g0) + mpmath.log((s - g0) / (s - g)))
    b = 1 - c
    high, low = (x**b / b * mpmath.hyp2f1(1, b, 1 + b, x) for x in (g / s, g0 / s))
    return tau / depth * s**-c * (high - low)


@given(
    st.integers(1, 8),
    wide,
    wide,
    st.floats(-140, -0.01),
    st.one_of(st.floats(1e-15, 1.0), st.floats(-15, 0).map(lambda e: 10.0**e)),
    st.booleans(),
)
def test_deep_mode_time(depth, s, tau, start, share, from_start):
    """Near the start and near the end, where differences of primitives would cancel."""
    g0 = s * 10.0**start
    g = g0 * (1 + share) if from_start else s * (1 - share)
    assume(0 < g0 <= g < s)
    with mpmath.workdps(170):
        exact = exact_deep_time(g, s, g0, tau, depth)
        assert close(theory.deep_mode_time(g, s, g0, tau, depth=depth), exact, 32 * EPS)


@settings(max_examples=25)
@given(st.integers(1, 6), st.floats(-100, 100), st.floats(-40, -0.1), st.floats(0.01, 0.99))
def test_deep_mode_strength_is_as_good_as_its_condition_number(depth, exponent, start, share):
    """The time of a known strength, rounded to a double, moves the strength by eps kappa: no more than that is lost."""
    s = 10.0**exponent
    g0 = s * 10.0**start
    g = g0 + share * (s - g0)
    tau = s if depth > 1 else 1.0
    with mpmath.workdps(80):
        t = float(exact_deep_time(g, s, g0, tau, depth))
    assume(0 < t < 1e300)
    kappa = t / g * depth * (g / s) ** (2 - 2 / depth) * s ** (2 - 2 / depth) * (s - g) / tau
    found = float(theory.deep_mode_strength(t, s, g0, tau, depth=depth))
    assert abs(found - g) <= 64 * EPS * (1 + kappa) * g


@given(wide, wide, st.floats(-100, 100))
def test_transition_sample_size(loss, complexity, constant):
    delta_constant = constant * complexity
    with mpmath.workdps(400):
        ml, mc, md = digits(loss, complexity, delta_constant)
        c, shift = ml / mc, md / mc
        excess = shift - mpmath.log(c) - 1
        assume(excess > 1e-3)
        y = -mpmath.lambertw(-mpmath.exp(-1 - excess), -1) if excess < 600 else excess + 1
        if excess >= 600:
            for _ in range(60):
                y = excess + 1 + mpmath.log(y)
        exact = (y / c).real
        condition = float((y / (y - 1)).real) * (1 + abs(float(shift)) / float(excess))
        found = theory.transition_sample_size(-loss, complexity, delta_constant)
        assert close(found, exact, EPS * (16 + 8 * condition + 4 * abs(float(shift))))


@given(wide, wide)
def test_two_constants_far_above_the_loss(constant, loss):
    """If the shift overflows, n = delta_constant / -delta_loss to all digits."""
    found = float(theory.transition_sample_size(-loss, 1e-200, constant))
    if constant > 1e120:
        assert found == pytest.approx(constant / loss, rel=8 * EPS)


@given(st.floats(0.01, 5), st.floats(1e-8, 5))
def test_both_crossings_of_equal_losses(slope, excess):
    """F_V - F_U = slope x - bend log x + constant vanishes at both roots, down to where they meet."""
    bend = 1.5
    # x = bend / slope y: y - log y = 1 + excess
    constant = float(bend * (np.log(bend / slope) - 1 - excess))
    roots = theory.type_b_transition(slope, bend, constant).log_n
    with mpmath.workdps(40):
        ms, mc = digits(slope, constant)
        level = mpmath.log(bend / ms) - mc / bend
        assume(level > 1)
        exact = [-bend / ms * mpmath.lambertw(-mpmath.exp(-level), k).real for k in (0, -1)]
        gap = float(level - 1)
    assert len(roots) == 2
    for found, root in zip(roots, exact, strict=True):
        # y moves by eps / |1 - 1 / y|, about eps / sqrt(2 gap) where the roots meet
        assert abs(found - float(root)) <= 64 * EPS * (1 + 10 / np.sqrt(gap)) * abs(float(root)) * (1 + 10)


@given(st.floats(-150, 2).map(lambda e: 10.0**e))
def test_product_moments_of_small_samples(n):
    """Find log Z = log sum (-n)^k / (k! (2k + 1)^2) to all its digits, however near to zero."""
    with mpmath.workdps(340):
        z = mpmath.hyp2f2(0.5, 0.5, 1.5, 1.5, -mpmath.mpf(n))
        log_z, mean, _ = theory.product_moments(n)
        # beyond n = 1 quadrature of Z to some eps
        assert close(log_z, mpmath.log(z), 64 * EPS)
        step = mpmath.mpf(10) ** -60 * n
        slope = (mpmath.hyp2f2(0.5, 0.5, 1.5, 1.5, -(n + step)) - z) / step / z
        assert close(mean, -n * slope, 64 * EPS)


@given(wide, st.integers(1, 5), wide)
def test_power_moments(n, k, bound):
    with mpmath.workdps(60):
        s = mpmath.mpf(1) / (2 * k)
        x = mpmath.mpf(n) * mpmath.mpf(bound) ** (2 * k)
        log_z, mean, variance = theory.power_moments(n, k, bound=bound)
        if x > 1e4:
            parts = [mpmath.gamma(s + p) for p in range(3)]
        else:
            parts = [x ** (s + p) / (s + p) * mpmath.hyp1f1(s + p, s + p + 1, -x) for p in range(3)]
        exact = mpmath.log(parts[0] / (2 * k)) - s * mpmath.log(mpmath.mpf(n))
        # the logarithms of bound and n, up to 345, cancel in log Z
        assert abs(float(log_z) - float(exact)) <= 4096 * EPS * (1 + abs(float(exact)))
        first, second = parts[1] / parts[0], parts[2] / parts[0]
        # x carries 2 k eps; the variance loses a factor (1 + 1/s) where it is a difference
        assert close(mean, first, 256 * k * EPS)
        assert close(variance, second - first**2, 4096 * k * EPS)


@settings(max_examples=25)
@given(st.lists(st.tuples(wide, wide, st.floats(1, 5), st.floats(-1e3, 1e3)), min_size=2, max_size=4), wide)
def test_phase_weights(phases, size):
    n = max(size, 1.0 + 1e-9)
    columns = np.array(phases).T
    with mpmath.workdps(360):
        energies = [
            mpmath.mpf(n) * loss + lam * mpmath.log(mpmath.mpf(n)) - (m - 1) * mpmath.log(mpmath.log(mpmath.mpf(n))) + c
            for loss, lam, m, c in (digits(*phase) for phase in phases)
        ]
        least = min(energies)
        excess = [float(e - least) for e in energies]
    expected = np.exp(-np.array(excess)) / np.exp(-np.array(excess)).sum()
    try:
        found = theory.phase_weights(n, columns[0], columns[1], multiplicities=columns[2], constants=columns[3])
    except ValueError as error:
        assert "leaves the range of doubles" in str(error)  # noqa: PT017
        return
    # an exponent of size e is known to e eps; those that tell, below 40, are differences of ones up to 1e300
    close_ones = np.array(excess) < 40
    if np.count_nonzero(close_ones) == 1:
        assert np.allclose(found, expected, rtol=0, atol=1e-12)


def homogeneous(function, arguments, scaled, degrees):
    """Compare results at scaled arguments with scaled results; LAPACK rescales, so up to a few eps of the largest."""
    base, other = function(*arguments), function(*scaled)
    for name, factor in degrees.items():
        x, y = getattr(base, name), getattr(other, name)
        x, y = np.asarray(x) * factor, np.asarray(y)
        tolerance = 1024 * EPS * float(np.nanmax(np.abs(x), initial=0.0))
        assert np.allclose(x, y, rtol=0, atol=tolerance, equal_nan=True), name


ROOT = np.random.default_rng(0).normal(size=(3, 3))
COVARIANCE, OTHER = ROOT @ ROOT.T, ROOT.T @ ROOT
MEANS = np.random.default_rng(1).normal(size=(2, 3))


@given(power)
def test_mixtures_scale(c):
    root = float(np.sqrt(c))
    covariances = np.stack([COVARIANCE, OTHER])
    homogeneous(
        theory.decompose_covariance,
        ([0.25, 0.75], MEANS, covariances),
        ([0.25, 0.75], MEANS * root, covariances * c),
        {"within": c, "between": c, "total": c, "between_root": root, "between_rank": 1},
    )
    degrees = {"position": 1, "value": c, "sign_flips": 1, "peaks": 1, "inside": 1, "is_maximum": 1}
    homogeneous(
        theory.phase_transition,
        (MEANS[0], MEANS[1], COVARIANCE, OTHER),
        (MEANS[0] * root, MEANS[1] * root, COVARIANCE * c, OTHER * c),
        degrees,
    )


@given(power)
def test_sampled_decompositions_scale(c):
    root = float(np.sqrt(c))
    draws, phases = np.random.default_rng(2).normal(size=(20, 3)), np.arange(20) % 2
    names = ("within", "between", "total", "within_error", "between_error", "total_error")
    degrees = dict.fromkeys(names, c)
    homogeneous(theory.sampled_decomposition, (draws, phases), (draws * root, phases), degrees | {"means": root})


@given(power)
def test_gaussian_influence_scales(c):
    """Losses in units of c with n_beta in those of 1 / c, at the same localization."""
    gradients, n_beta = MEANS, 2.0
    homogeneous(
        theory.gaussian_influence,
        (gradients, COVARIANCE, n_beta, 1.0),
        (gradients * c, COVARIANCE * c, n_beta / c, 1.0),
        {"mean_shift": 1, "weight_covariance": 1, "gradients_at_mean": c, "influence": c},
    )


@given(power)
def test_laws_of_samplers_scale(c):
    """Steps in units of 1 / c for a precision in those of c: the same autocorrelations, covariances in 1 / c."""
    homogeneous(
        theory.stationary_law,
        (COVARIANCE, 0.01),
        (COVARIANCE * c, 0.01 / c),
        {"covariance": 1 / c, "autocorrelations": 1, "autocorrelation_times": 1},
    )
    law, other = theory.stationary_law(COVARIANCE, 0.01), theory.stationary_law(COVARIANCE * c, 0.01 / c)
    root = float(np.sqrt(c))
    times = theory.loss_autocorrelation_times(MEANS, OTHER, law)
    np.testing.assert_allclose(
        times, theory.loss_autocorrelation_times(MEANS * root, OTHER * c, other), rtol=1024 * EPS
    )
    errors = theory.covariance_standard_error(MEANS, law, 100)
    np.testing.assert_allclose(errors, theory.covariance_standard_error(MEANS * root, other, 100), rtol=1024 * EPS)


@given(st.floats(-150, -1).map(lambda e: 10.0**e))
def test_autocorrelation_times_of_short_steps(step):
    """(1 + rho) / (1 - rho) = 4 / s - 1, where rho = 1 - s / 2 has rounded to one."""
    law = theory.stationary_law([[1.0]], step)
    assert law.autocorrelation_times[0] == pytest.approx(4 / step - 1, rel=8 * EPS)
    # a linear loss decays as rho
    times = theory.loss_autocorrelation_times([[1.0]], [[0.0]], law)
    assert times[0] == pytest.approx(4 / step - 1, rel=8 * EPS)


@given(power)
def test_singular_responses_scale(c):
    target, change = ROOT[:, :2], ROOT.T[:, 1:]
    degrees = {"u": 1, "s": c, "v": 1, "du": 1, "ds": c, "dv": 1, "second_order": c}
    homogeneous(theory.svd_response, (target, change), (target * c, change * c), degrees)
    degrees = {"du": 1, "ds": c, "dv": 1}
    printed = lambda a, b: theory.paper_svd_response(a, b, "P1")  # noqa: E731
    homogeneous(printed, (target, change), (target * c, change * c), degrees)


@pytest.mark.parametrize("c", [4.0**-249, 4.0**-100, 4.0, 4.0**100, 4.0**249])
def test_influence_scales(c):
    """Targets, strengths and tau in units of c: the same dynamics, losses in units of c^2."""
    data = theory.hierarchical_dataset(2)
    scaled = theory.Dataset(data.inputs, data.targets * c, data.names)
    epochs, tau, g0 = [0.0, 3.0, 9.0], 2.0, 1e-3
    for formula in ("paper-P1", "spectral", "fixed-init", "sample-weight"):
        if formula in ("paper-P1", "spectral") and len(data) > data.n_outputs:
            continue
        base = theory.influence_trajectory(data, epochs, tau=tau, g0=g0, formula=formula).values
        other = theory.influence_trajectory(scaled, epochs, tau=tau * c, g0=g0 * c, formula=formula).values
        np.testing.assert_allclose(other, base * c * c, rtol=1e-11, err_msg=formula)
    base = theory.exposure_kernel(data, epochs, [1.0, 5.0], tau=tau, g0=g0).values
    other = theory.exposure_kernel(scaled, epochs, [1.0, 5.0], tau=tau * c, g0=g0 * c).values
    np.testing.assert_allclose(other, base * c * c, rtol=1e-11)  # epochs are what they were


@pytest.mark.parametrize("lr", [1e-320, 1e308])
def test_a_time_constant_beyond_doubles_is_refused(lr):
    if lr < 1:
        with pytest.raises(ValueError, match=r"N O / \(2 lr\) leaves the range of doubles"):
            theory.time_constant(8, 15, lr)
    else:
        assert theory.time_constant(8, 15, lr) == pytest.approx(6e-307, rel=EPS)
