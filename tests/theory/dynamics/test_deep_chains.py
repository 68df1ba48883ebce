"""Deep chains against quadrature, the differential equation, and gradient flow through actual layers."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from theory import deep_mode_strength, deep_mode_time, mode_strength

EPS = np.finfo(float).eps


@given(
    depth=st.integers(1, 8),
    s=st.floats(0.1, 50),
    start=st.floats(1e-8, 0.5),
    share=st.floats(0, 1),
)
def test_time_is_the_integral_of_the_inverse_speed(depth, s, start, share):
    g0 = start * s
    g = min(g0 + share * (s - g0), s * (1 - 1e-6))
    with mpmath.workdps(30):
        exponent = mpmath.mpf(2) - mpmath.mpf(2) / depth
        edges = [g0, *[e for e in np.geomspace(g0, g, 12)[1:-1] if g0 < e < g], g]
        expected = mpmath.quad(lambda x: x**-exponent / (mpmath.mpf(s) - x), edges) / depth if g > g0 else 0
    found = deep_mode_time(g, s, g0, 1.0, depth=depth)
    # The primitive at g0 is up to (g0 / s)^(2 / L - 1) large; its difference carries its rounding, and near s the
    # logarithm carries eps / (1 - g / s) <= 1e6 eps.
    size = s ** (2 / depth - 2) * (start ** (2 / depth - 1) + 20 + np.log(1 / start))
    assert abs(float(found) - float(expected)) <= 64 * EPS * (size + 1e6 * s ** (2 / depth - 2))


@given(depth=st.integers(1, 6), s=st.floats(0.2, 5), start=st.floats(1e-6, 0.4), time=st.floats(0, 30))
def test_strength_inverts_the_time(depth, s, start, time):
    g = float(deep_mode_strength(time, s, start * s, 1.0, depth=depth))
    assert start * s <= g <= s
    if start * s * (1 + 1e-9) < g < s * (1 - 1e-6):
        slope = depth * g ** (2 - 2 / depth) * (s - g)  # dg/dt
        again = float(deep_mode_time(g, s, start * s, 1.0, depth=depth))
        # bisection leaves 1e-12 of g, which is that much time over the slope
        assert abs(again - time) <= 4e-12 * (g / slope + 1) + 1e-12 * time


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7])
def test_strength_solves_the_differential_equation(depth):
    s, g0, tau = 2.0, 0.05, 10.0
    times = np.linspace(0, 60, 25)
    flow = solve_ivp(
        lambda _, g: depth * g ** (2 - 2 / depth) * (s - g) / tau,
        (0, 60),
        [g0],
        method="DOP853",
        t_eval=times,
        rtol=1e-12,
        atol=1e-14,
    )
    np.testing.assert_allclose(deep_mode_strength(times, s, g0, tau, depth=depth), flow.y[0], rtol=1e-9)


def test_two_layers_are_the_logistic_law():
    times, s = np.linspace(0, 5000, 40)[:, None], np.array([3.0, 1.0, 0.2])
    np.testing.assert_allclose(
        deep_mode_strength(times, s, 1e-5, 1200.0, depth=2), mode_strength(times, s, 1e-5, 1200.0), rtol=1e-11
    )


def test_a_chain_of_actual_layers_follows_the_law():
    """Three balanced layers through aligned random bases, as gradient flow of 1/2 |C - W3 W2 W1|^2."""
    rng, tau, g0 = np.random.default_rng(0), 1.0, 0.02
    s = np.array([2.0, 1.0])
    bases = [np.linalg.qr(rng.normal(size=(n, 2)))[0] for n in (3, 4, 5, 3)]
    layers = [(b * g0 ** (1 / 3)) @ a.T for a, b in pairwise(bases)]
    target = (bases[3] * s) @ bases[0].T
    shapes = [layer.shape for layer in layers]
    cuts = np.cumsum([layer.size for layer in layers])[:-1]

    def velocity(_, state):
        w1, w2, w3 = (part.reshape(shape) for part, shape in zip(np.split(state, cuts), shapes, strict=True))
        error = (target - w3 @ w2 @ w1) / tau
        slopes = (w2.T @ w3.T @ error, w3.T @ error @ w1.T, error @ w1.T @ w2.T)
        return np.concatenate([slope.ravel() for slope in slopes])

    times = np.linspace(0, 12, 13)
    state = np.concatenate([layer.ravel() for layer in layers])
    flow = solve_ivp(velocity, (0, 12), state, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-14).y.T
    for t, z in zip(times, flow, strict=True):
        w1, w2, w3 = (part.reshape(shape) for part, shape in zip(np.split(z, cuts), shapes, strict=True))
        strengths = np.diag(bases[3].T @ w3 @ w2 @ w1 @ bases[0])
        np.testing.assert_allclose(strengths, deep_mode_strength(t, s, g0, tau, depth=3), rtol=1e-8)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: deep_mode_time(3.0, 2.0, 0.1, 1.0, depth=3), "needs 0 < g0 <= g < s"),
        (lambda: deep_mode_time(0.05, 2.0, 0.1, 1.0, depth=3), "needs 0 < g0 <= g < s"),
        (lambda: deep_mode_strength(1.0, 2.0, 0.0, 1.0, depth=3), "a mode that starts at zero is never learned"),
        (lambda: deep_mode_strength(-1.0, 2.0, 0.1, 1.0, depth=3), "t must not be negative"),
        (lambda: deep_mode_strength(1.0, 2.0, 0.1, 1.0, depth=0), "depth must be at least 1, but 0"),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
