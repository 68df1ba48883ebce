"""Mode strengths against high-precision arithmetic, the differential equation and the simulated network."""

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from theory import (
    Modes,
    aligned_modes,
    half_rise_time,
    hierarchical_dataset,
    initial_mode_strength,
    linear_network_solution,
    mode_strength,
    time_constant,
)
from theory.dynamics.singular_modes import degenerate_blocks

EPS = np.finfo(float).eps
positive = st.floats(1e-6, 1e3)


def exact_strength(t, s, g0, tau):
    """Paper Eq. 30 in 60 digits, where its growing exponential does no harm; the limit law at s = 0."""
    with mpmath.workdps(60):
        t, s, g0, tau = (mpmath.mpf(float(v)) for v in (t, s, g0, tau))
        if s == 0:
            return g0 / (1 + 2 * g0 * t / tau)
        growth = mpmath.exp(2 * s * t / tau)
        return s * growth / (mpmath.expm1(2 * s * t / tau) + s / g0)


@given(st.floats(0, 1e5), st.floats(0, 1e3), positive, st.floats(1, 1e4))
@example(0.875, 2.225073858507e-311, 1.0, 1.0)
@example(1e5, 5e-324, 1e-6, 1.0)
def test_mode_strength_matches_sixty_digits(t, s, g0, tau):
    exact = exact_strength(t, s, g0, tau)
    # e^-x is known to eps x relative; where it matters (g0 << s) the strength inherits it: x <= ln(s/g0) + 37 there.
    tolerance = EPS * (8 + min(2 * s * t / tau, 100.0))
    assert abs(float(mode_strength(t, s, g0, tau)) - exact) <= tolerance * exact


def test_mode_strength_solves_its_equation():
    tau, s, g0 = 1200.0, np.array([3.0, 1.0, 0.5]), np.array([1e-3, 2.0, 1e-6])
    t = np.linspace(0, 9000, 19)
    solved = solve_ivp(
        lambda _, g: 2 * g * (s - g) / tau, (0, t[-1]), g0, method="DOP853", t_eval=t, rtol=1e-12, atol=1e-18
    )
    # 1e-12 a step, about 300 steps, growth of errors in the logistic at most the growth of g itself (relative)
    assert np.allclose(mode_strength(t[:, None], s, g0, tau), solved.y.T, rtol=1e-9)


def test_limits():
    assert float(mode_strength(0.0, 2.0, 0.3, 10.0)) == pytest.approx(0.3, rel=4 * EPS)
    assert np.array_equal(mode_strength(np.inf, [2.0, 0.0, 1.0], [0.1, 0.1, 0.0], 10.0), [2.0, 0.0, 0.0])
    assert float(mode_strength(1e9, 3.0, 1e-9, 1.0)) == pytest.approx(3.0, rel=4 * EPS)
    assert mode_strength(np.zeros((2, 1)), np.ones(3), 0.1, 1.0).shape == (2, 3)


@given(positive, st.floats(1e-12, 0.49), st.floats(1, 1e4))
def test_half_rise(s, fraction, tau):
    t = half_rise_time(s, fraction * s, tau)
    # the strength's slope in x = 2 s t / tau is g / 2, so an error eps x in t moves g by eps x / 2 relative
    tolerance = EPS * (16 + 4 * np.log(1 / fraction))
    assert float(mode_strength(t, s, fraction * s, tau)) == pytest.approx(s / 2, rel=tolerance)


def test_time_constant_is_the_mean_squared_error_one():
    """Tau turns one step on torch's mean squared error into the flow: lr * d(MSE)/dW = (1/tau) dl/dW summed."""
    torch = pytest.importorskip("torch")
    n, o, lr = 4, 7, 0.03
    w = torch.zeros(o, n, requires_grad=True, dtype=torch.float64)
    y = torch.randn(n, o, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.nn.functional.mse_loss(w.T, y).backward()
    assert np.allclose((-lr * w.grad).numpy(), y.T.numpy() / time_constant(n, o, lr), rtol=8 * EPS)


def random_weights(rng, sigma=1e-3, h=50, p=8, o=15):
    return sigma * rng.normal(size=(h, p)), sigma * rng.normal(size=(o, h))


def test_effective_strength_is_the_growing_combination():
    """Linearised at zero, W_1 v and W_2^T u obey a' = s b / tau, b' = s a / tau: only a + b grows."""
    rng = np.random.default_rng(1)
    w1, w2 = random_weights(rng)
    data = hierarchical_dataset()
    u, s, vt = np.linalg.svd(data.syx, full_matrices=False)
    tau, t = 1.0, 2.0
    state = solve_ivp(
        lambda _, z: np.concatenate([s[0] * z[50:], s[0] * z[:50]]) / tau,
        (0, t),
        np.concatenate([w1 @ vt[0], w2.T @ u[:, 0]]),
        rtol=1e-12,
        atol=1e-15,
    ).y[:, -1]
    product = state[:50] @ state[50:]
    effective = initial_mode_strength(w1, w2, u[:, :1], vt[:1].T)[0] * np.exp(2 * s[0] * t / tau)
    # the decaying combination contributes e^{-2 s t} of the same order: e^{-15.5} = 2e-7 after this time
    assert effective == pytest.approx(product, rel=1e-6)


def test_effective_strength_has_the_stated_mean():
    rng = np.random.default_rng(2)
    u, v = np.linalg.qr(rng.normal(size=(15, 8)))[0], np.linalg.qr(rng.normal(size=(8, 8)))[0]
    strengths = np.concatenate([initial_mode_strength(*random_weights(rng), u, v) for _ in range(200)])
    # a sum of h = 50 squares of variance sigma^2 / 2: relative deviation sqrt(2 / 50) each, 1600 of them
    assert strengths.mean() == pytest.approx(50 * 1e-6 / 2, rel=5 * np.sqrt(2 / 50 / 1600))


def test_aligned_modes_decouple_every_block():
    rng = np.random.default_rng(3)
    w1, w2 = random_weights(rng)
    data = hierarchical_dataset()
    modes = aligned_modes(w1, w2, data.syx)
    rounding = 64 * EPS * modes.values[0]
    assert np.allclose(modes.left * modes.values @ modes.right.T, data.syx, rtol=0, atol=rounding)
    assert np.allclose(modes.values**2, [15, 7, 3, 3, 1, 1, 1, 1], rtol=32 * EPS)
    overlap = (w1 @ modes.right + w2.T @ modes.left) / 2
    gram = overlap.T @ overlap
    for block in (slice(2, 4), slice(4, 8)):
        assert len(set(modes.values[block])) == 1
        inner = gram[block, block]
        assert np.allclose(inner, np.diag(np.diag(inner)), rtol=0, atol=64 * EPS * gram.max())
        assert np.all(np.diff(modes.initial_strengths[block]) <= 0)
    assert np.allclose(modes.initial_strengths, np.diag(gram), rtol=0, atol=64 * EPS * gram.max())


def test_rotated_blocks_decouple_the_exact_solution():
    """In the basis of its block each mode is logistic with its own strength, from balanced weights of any overlap."""
    rng, s, tau = np.random.default_rng(5), np.array([2.0, 1.0, 1.0, 1.0]), 1.0
    u, v = np.linalg.qr(rng.normal(size=(6, 4)))[0], np.linalg.qr(rng.normal(size=(5, 4)))[0]
    hidden = np.linalg.qr(rng.normal(size=(7, 4)))[0]
    overlaps = 1e-2 * hidden[:, :1] * np.eye(1, 4) + hidden[:, 1:] @ np.hstack(
        [np.zeros((3, 1)), rng.normal(size=(3, 3))]
    )
    w1, w2, syx = overlaps @ v.T, u @ overlaps.T, u * s @ v.T
    modes = aligned_modes(w1, w2, syx)
    times = np.array([0.0, 0.1, 0.7, 2.0, 9.0])
    maps = linear_network_solution(w1, w2, syx, times, tau)
    strengths = mode_strength(times[:, None], modes.values, modes.initial_strengths, tau)
    decoupled = modes.left * strengths[:, None] @ modes.right.T
    # a few eps a step of tau / (2 s), here of strengths up to 10 at the start: 200 steps
    assert np.abs(maps - decoupled).max() <= 200 * 16 * EPS * 10
    assert np.ptp(modes.initial_strengths[1:]) > 0.5


def test_deflated_strengths_are_those_from_which_a_mode_rises():
    """The exact matrix solution is half-way up each mode at the time that its deflated strength predicts.

    Balanced layers with overlaps a_k that are far from orthogonal. When mode k rises, what it shares with another mode
    j is suppressed by e^{-2 |s_j - s_k| t / tau}.
    """
    s, tau, rng = np.array([4.0, 2.5, 1.0]), 1.0, np.random.default_rng(4)
    overlaps = 1e-7 * rng.normal(size=(4, 3))
    u, v = np.linalg.qr(rng.normal(size=(5, 3)))[0], np.linalg.qr(rng.normal(size=(3, 3)))[0]
    w1, w2 = overlaps @ v.T, u @ overlaps.T
    modes = aligned_modes(w1, w2, u * s @ v.T, deflate=True)
    whole = initial_mode_strength(w1, w2, modes.left, modes.right)
    # In this draw mode 1 shares 28 % of its strength, so that the whole strength would miss the time by far.
    assert modes.initial_strengths[1] < 0.8 * whole[1]
    assert modes.initial_strengths[0] == pytest.approx(whole[0], rel=64 * EPS)
    times = half_rise_time(s, modes.initial_strengths, tau)
    maps = linear_network_solution(w1, w2, u * s @ v.T, times, tau)
    halves = np.einsum("ok,kop,pk->k", modes.left, maps, modes.right)
    gaps = np.abs(s[:, None] - s)[~np.eye(3, dtype=bool)].reshape(3, 2).min(axis=1)
    leak = np.exp(-2 * gaps * times / tau)  # of a neighbour, in either direction, times a squared cosine
    assert leak.max() < 1e-4
    assert np.all(np.abs(halves / (s / 2) - 1) < leak + 1e-12)


def test_a_mode_without_room_beside_faster_ones_is_never_learned():
    """One hidden unit has room for one mode; the rest of the slower one's overlap is rounding."""
    modes = aligned_modes([[0.1, 0.2]], [[0.1], [0.2]], np.diag([2.0, 1.0]), deflate=True)
    assert modes.initial_strengths[0] == pytest.approx(0.01, rel=16 * EPS)
    assert modes.initial_strengths[1] < EPS**2


def test_aligned_modes_leave_out_zero_modes():
    modes = aligned_modes(np.ones((2, 3)), np.ones((4, 2)), np.outer(np.ones(4), [3.0, 4.0, 0.0]))
    assert modes.values == pytest.approx([10.0], rel=8 * EPS)
    assert (modes.left.shape, modes.right.shape) == ((4, 1), (3, 1))


@given(st.lists(st.sampled_from([3.0, 2.0, 1.0, 0.0]), min_size=1, max_size=8))
def test_degenerate_blocks_are_runs_of_equal_values(values):
    values = sorted(values, reverse=True)
    blocks = degenerate_blocks(values, tolerance=1e-9)
    assert [v for block in blocks for v in values[block]] == values
    assert [values[block][0] for block in blocks] == sorted(set(values), reverse=True)
    assert all(len(set(values[block])) == 1 for block in blocks)


def test_degenerate_blocks_tolerance_is_relative_to_the_largest():
    assert len(degenerate_blocks([10.0, 1.0, 0.9], tolerance=0.02)) == 2
    assert len(degenerate_blocks([10.0, 1.0, 0.9], tolerance=0.005)) == 3
    assert degenerate_blocks([], tolerance=0.1) == []


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: time_constant(8, 15, 0.0), "lr must be a positive number, but 0.0"),
        (lambda: time_constant(0, 15, 0.1), "n_samples must be at least 1"),
        (lambda: time_constant(8, 0, 0.1), "n_outputs must be at least 1"),
        (lambda: mode_strength(-1.0, 1.0, 0.1, 1.0), "t must not be negative"),
        (lambda: mode_strength(1.0, -1.0, 0.1, 1.0), "s must not be negative"),
        (lambda: mode_strength(1.0, 1.0, -0.1, 1.0), "g0 must not be negative"),
        (lambda: mode_strength(1.0, 1.0, 0.1, 0.0), "tau must be a positive"),
        (lambda: mode_strength(np.nan, 1.0, 0.1, 1.0), "t holds a non-finite value"),
        (lambda: half_rise_time(1.0, 0.6, 1.0), "needs 0 < g0 <= s / 2"),
        (lambda: half_rise_time(1.0, 0.0, 1.0), "needs 0 < g0 <= s / 2"),
        (lambda: half_rise_time(1.0, 0.1, -1.0), "tau must be a positive"),
        (
            lambda: initial_mode_strength(np.eye(2), np.eye(2), np.eye(2), np.ones((2, 1))),
            "u has 2 columns but v has 1",
        ),
        (lambda: initial_mode_strength(np.eye(2), np.ones((2, 3)), np.eye(2), np.eye(2)), r"w2 has shape \(2, 3\)"),
        (lambda: initial_mode_strength(np.ones((2, 3)), np.eye(2), np.eye(2), np.eye(2)), r"w1 has shape \(2, 3\)"),
        (lambda: aligned_modes(np.eye(2), np.eye(2), np.zeros((2, 2))), "syx is zero"),
        (lambda: degenerate_blocks([1.0, 2.0], tolerance=0.0), "descending order"),
        (lambda: Modes(np.eye(2), np.array([1.0, 2.0]), np.eye(2), np.ones(2)), "positive and descending"),
        (lambda: Modes(np.eye(2), np.array([1.0, 0.0]), np.eye(2), np.ones(2)), "positive and descending"),
        (lambda: Modes(np.eye(2), np.array([2.0, 1.0]), np.eye(2), np.ones(3)), "initial_strengths has shape"),
        (lambda: Modes(np.eye(2), np.array([2.0, 1.0]), np.eye(2), np.array([1.0, 0.0])), "must be positive"),
        (lambda: Modes(np.eye(3), np.array([2.0, 1.0]), np.eye(2), np.ones(2)), r"left has shape \(3, 3\)"),
    ],
)
def test_bad_input_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
