"""Layers of any balance: continuous where balance is lost to rounding, integrated where there is no closed form."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from theory import (
    Dataset,
    brief_ablation_trajectory,
    leave_one_out_trajectory,
    linear_network_factors,
    linear_network_run,
    linear_network_solution,
)
from theory.dynamics import modal_flow
from theory.dynamics.modal_flow import ModalFlow
from theory.dynamics.network_flow import EXACT, INTEGRATED, LEAST_INTEGRATED, MOST_IMBALANCE, NetworkFlow

EPS = np.finfo(float).eps
TIMES = np.array([0.0, 0.2, 0.7, 2.0, 5.0, 15.0])


def orthonormal(rng, rows, columns):
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0]


def lambda_balanced(rng, o, p, h, lam):
    """Return generic layers with W_2^T W_2 - W_1 W_1^T = lam I, h <= min(o, p)."""
    if lam < 0:
        w1, w2 = lambda_balanced(rng, p, o, h, -lam)
        return w2.T, w1.T
    w1 = 0.3 * rng.normal(size=(h, p))
    values, vectors = np.linalg.eigh(w1 @ w1.T + lam * np.eye(h))
    return w1, orthonormal(rng, o, h) * np.sqrt(values) @ vectors.T


def target(rng, o, p):
    r = min(o, p)
    return orthonormal(rng, o, r) * np.linspace(2.5, 1.0, r) @ orthonormal(rng, p, r).T


def away_from_saddles(w1, w2, syx):
    """Whether every mode that there is room for grows from an overlap of a tenth of the largest.

    Half of all balanced layers of full rank (det W of the wrong sign) run into a saddle, where any change counts much.
    """
    u, _, vt = np.linalg.svd(syx)
    kept = min(len(w1), *syx.shape)
    overlaps = np.linalg.svd((w1 @ vt[:kept].T + w2.T @ u[:, :kept]) / 2, compute_uv=False)
    return overlaps[-1] >= 0.1 * overlaps[0]


def integrated(w1, w2, syx, times, tolerance=1e-12):
    """Return both layers at `times` by DOP853 on the layers themselves, tau = 1."""

    def velocity(_, state):
        a, b = state[: w1.size].reshape(w1.shape), state[w1.size :].reshape(w2.shape)
        error = syx - b @ a
        return np.concatenate([(b.T @ error).ravel(), (error @ a.T).ravel()])

    start = np.concatenate([w1.ravel(), w2.ravel()])
    flow = solve_ivp(
        velocity, (0, times[-1]), start, method="DOP853", t_eval=times, rtol=tolerance, atol=1e-3 * tolerance
    )
    return [(z[: w1.size].reshape(w1.shape), z[w1.size :].reshape(w2.shape)) for z in flow.y.T]


def maps_of(layers):
    return np.stack([b @ a for a, b in layers])


shapes = st.sampled_from([(3, 3, 3), (4, 3, 2), (3, 4, 2), (2, 4, 2), (4, 4, 1)])
lambdas = st.sampled_from([-1.5, -0.05, 0.0, 0.05, 0.7, 5.0])


@given(shapes, lambdas, st.floats(-16, -3), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_the_solution_is_continuous_where_balance_is_lost(shape, lam, exponent, seed):
    """A relative change of size d moves lambda and the rest of the imbalance by d |Q|^2, and W by some d |Q|^2 / gap.

    Weights of size |Q|^2 <= 5 h + 10, gaps of 0.2 and overlaps of a tenth: a factor of 500 in all. lambda taken for 0
    would make W jump by lambda / s at d = eps.
    """
    rng, size = np.random.default_rng(seed), 10**exponent
    w1, w2 = lambda_balanced(rng, *shape, lam)
    syx = target(rng, *shape[:2])
    assume(away_from_saddles(w1, w2, syx))
    moved = [w * (1 + size * rng.uniform(-1, 1, w.shape)) for w in (w1, w2)]
    before, after = (linear_network_solution(a, b, syx, TIMES, 1.0) for a, b in ((w1, w2), moved))
    assert np.abs(after - before).max() <= 500 * size + 1e-12


@pytest.mark.parametrize("lam", [-1.5, 0.0, 0.7, 5.0])
@pytest.mark.parametrize("keep", [lambda w: w.astype(np.float32), lambda w: np.round(w, 6)], ids=["float32", "printed"])
def test_stored_weights_keep_the_closed_form_and_tell_its_error(lam, keep):
    rng = np.random.default_rng(0)
    w1, w2 = lambda_balanced(rng, 4, 3, 3, lam)
    syx = target(rng, 4, 3)
    assert away_from_saddles(w1, w2, syx)
    stored = [np.asarray(keep(w), dtype=float) for w in (w1, w2)]
    run = linear_network_run(*stored, syx, TIMES, 1.0)
    assert run.method == EXACT
    assert 0 < run.imbalance < 1e-5
    error = np.linalg.norm(run.maps - maps_of(integrated(*stored, syx, TIMES)), axis=(1, 2))
    # both integrations keep some ten times DOP853's 1e-10
    assert np.abs(run.errors - error).max() <= 2e-9 * np.linalg.norm(syx)
    assert error.max() < 1e-5


@given(shapes, lambdas, st.floats(-7, -2), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_error_of_every_map_is_told(shape, lam, exponent, seed):
    """Closed, mixed and integrated: relative changes of 1e-7 to 1e-2 reach from 1e-8 to 0.1 of imbalance."""
    rng = np.random.default_rng(seed)
    w1, w2 = (w * (1 + 10**exponent * rng.uniform(-1, 1, w.shape)) for w in lambda_balanced(rng, *shape, lam))
    syx = target(rng, *shape[:2])
    assume(away_from_saddles(w1, w2, syx))
    run = linear_network_run(w1, w2, syx, TIMES, 1.0)
    error = np.linalg.norm(run.maps - maps_of(integrated(w1, w2, syx, TIMES)), axis=(1, 2))
    # as above; an integrated run tells 1e-9 of the map for an error within it
    assert np.all(error <= run.errors + 2e-9 * np.linalg.norm(syx))
    assert np.all(run.errors <= error + 3e-9 * np.linalg.norm(run.maps, axis=(1, 2)).max())


@pytest.mark.parametrize("function", [linear_network_solution, linear_network_factors])
def test_the_answer_has_no_step_where_integration_takes_over(function):
    """Moved by d at either end of the band, far less than what separates the two methods, W moves by order d."""
    rng = np.random.default_rng(3)
    w1, w2 = lambda_balanced(rng, 4, 3, 3, 0.7)
    syx, direction = target(rng, 4, 3), np.triu(rng.normal(size=(3, 3)))
    slope = NetworkFlow(w1 + 1e-6 * direction @ w1, w2, syx, 1.0).imbalance / 1e-6
    for end in (MOST_IMBALANCE, LEAST_INTEGRATED):
        moved = [w1 + (end / slope * (1 + side)) * direction @ w1 for side in (-1e-3, 1e-3)]
        flows = [NetworkFlow(a, w2, syx, 1.0) for a in moved]
        assert flows[0].imbalance < end < flows[1].imbalance
        below, above = (function(a, w2, syx, TIMES, 1.0) for a in moved)
        steps = zip(below, above, strict=True) if isinstance(below, tuple) else [(below, above)]
        for one, other in steps:
            # 2e-3 of the way to the end in either of two layers of size 1, over gaps of 0.2: 10 times 2e-3 * end
            assert np.abs(one - other).max() <= 10 * 2e-3 * end
    # a switch instead would be seen: at the upper end the closed form is off by more than that
    closed = np.concatenate([maps for _, maps in ModalFlow(moved[1], w2, syx, 1.0).maps_at(TIMES)])
    reference = maps_of(integrated(moved[1], w2, syx, TIMES))
    assert np.abs(closed - reference).max() >= 0.05 * LEAST_INTEGRATED


def test_mixed_flows_are_the_shares_of_both():
    """Half-way through the band, each counts a half: the error told is half of that of the closed form."""
    rng = np.random.default_rng(3)
    w1, w2 = lambda_balanced(rng, 4, 3, 3, 0.7)
    syx, direction = target(rng, 4, 3), np.triu(rng.normal(size=(3, 3)))
    slope = NetworkFlow(w1 + 1e-6 * direction @ w1, w2, syx, 1.0).imbalance / 1e-6
    w1 = w1 + (MOST_IMBALANCE + LEAST_INTEGRATED) / 2 / slope * direction @ w1
    run, flow = linear_network_run(w1, w2, syx, TIMES, 1.0), NetworkFlow(w1, w2, syx, 1.0)
    share = (flow.imbalance - MOST_IMBALANCE) / (LEAST_INTEGRATED - MOST_IMBALANCE)
    assert 0.4 < share < 0.6
    reference = integrated(w1, w2, syx, TIMES)
    closed = list(ModalFlow(w1, w2, syx, 1.0).maps_at(TIMES))
    expected = (1 - share) * np.concatenate([maps for _, maps in closed]) + share * maps_of(reference)
    assert run.method == INTEGRATED
    assert np.abs(run.maps - expected).max() <= 1e-8
    layers = linear_network_factors(w1, w2, syx, TIMES, 1.0)
    # layers mixed have the mixed product up to the square of what separates them, 1e-4 of the weights
    assert np.abs(layers[1] @ layers[0] - expected).max() <= 1e-6


def test_an_integrated_bottleneck_costs_no_more_once_it_has_arrived():
    rng = np.random.default_rng(1)
    w1, w2, syx = rng.normal(size=(2, 4)), rng.normal(size=(4, 2)), np.diag([4.0, 3.0, 2.0, 1.0])
    late = linear_network_solution(w1, w2, syx, [30.0, 1e9], 1.0)
    assert np.abs(late - np.diag([4.0, 3.0, 0.0, 0.0])).max() <= 1e-8


def test_the_error_is_not_known_where_the_flow_was_not_integrated():
    w1 = np.array([[0.5, 1e-6], [0.0, 0.4]])
    run = linear_network_run(w1, np.diag([0.5, 0.4]), np.diag([2.0, 1.0]), [1.0, 1e9], 1.0)
    assert run.method == EXACT
    assert np.isfinite(run.errors[0])
    assert np.isnan(run.errors[1])


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 2, 3), (3, 3, 1), (3, 4, 2)], ids=str)
def test_unbalanced_layers_are_integrated_and_the_result_says_so(shape):
    o, p, h = shape
    rng = np.random.default_rng(5)
    w1, w2, syx = rng.normal(size=(h, p)), 0.5 * rng.normal(size=(o, h)), target(rng, o, p)
    run = linear_network_run(w1, w2, syx, TIMES, 1.0)
    reference = integrated(w1, w2, syx, TIMES)
    # h = 1 is lambda-balanced whatever its weights are
    assert run.method == (EXACT if h == 1 else INTEGRATED)
    assert (run.imbalance > MOST_IMBALANCE) == (h > 1)
    size = np.abs(run.maps).max()
    assert np.abs(run.maps - maps_of(reference)).max() <= 1e-8 * size  # steps of 1e-10, some ten of them count
    assert np.array_equal(linear_network_solution(w1, w2, syx, TIMES, 1.0), run.maps)
    if h > 1:
        layers = linear_network_factors(w1, w2, syx, TIMES, 1.0)
        for k, (a, b) in enumerate(reference):
            assert max(np.abs(layers[0][k] - a).max(), np.abs(layers[1][k] - b).max()) <= 1e-8 * size
        assert np.all(run.errors >= 1e-10 * np.linalg.norm(run.maps, axis=(1, 2)))
    u, s, vt = np.linalg.svd(syx)
    kept = min(h, o, p)
    limit = linear_network_solution(w1, w2, syx, [0.0, np.inf], 1.0)[1]
    assert np.abs(limit - u[:, :kept] * s[:kept] @ vt[:kept]).max() <= 1e-13 * s[0]


def test_a_limit_that_depends_on_the_path_is_refused():
    rng = np.random.default_rng(0)
    w1, w2 = rng.normal(size=(2, 3)), 3 * rng.normal(size=(3, 2))
    with pytest.raises(ValueError, match=r"t must be finite: .* depends on the path"):
        linear_network_solution(w1, w2, np.eye(3), np.inf, 1.0)
    assert linear_network_solution(w1, w2, np.eye(3), 5.0, 1.0).shape == (3, 3)


def test_an_arrived_flow_costs_no_more_steps():
    """The minimum is reached by e^{-2 s t}; beyond, the integrator would pay for stability by the epoch."""
    rng = np.random.default_rng(1)
    w1, w2, syx = rng.normal(size=(4, 3)), rng.normal(size=(3, 4)), target(rng, 3, 3)
    late = linear_network_solution(w1, w2, syx, [20.0, 1e9], 1.0)
    assert np.abs(late - syx).max() <= 1e-9 * np.abs(syx).max()


@given(shapes, lambdas, st.floats(-150, 150), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_every_scale_is_the_same_flow(shape, lam, exponent, seed):
    """C -> c C, weights -> sqrt(c): exact in powers of four, so that only overflow could tell."""
    rng = np.random.default_rng(seed)
    w1, w2 = lambda_balanced(rng, *shape, lam)
    syx, root = target(rng, *shape[:2]), 2.0 ** round(exponent / np.log10(2) / 2)
    base = linear_network_solution(w1, w2, syx, [*TIMES, np.inf], 1.0)
    scaled = linear_network_solution(root * w1, root * w2, syx * root * root, [*TIMES, np.inf], root * root)
    assert np.array_equal(scaled / root / root, base)


def steps_taken(call, monkeypatch):
    """Count the steps, long and short, that a call takes."""
    taken = []
    advanced, long_step = ModalFlow._advanced, modal_flow.long_step
    monkeypatch.setattr(ModalFlow, "_advanced", lambda *a: (taken.append(1), advanced(*a))[1])
    monkeypatch.setattr(modal_flow, "long_step", lambda *a, **k: (taken.append(1), long_step(*a, **k))[1])
    call()
    monkeypatch.undo()
    return len(taken)


BOTTLENECK = (0.1 * np.array([[0.6, 0.8]]), 0.1 * np.array([[0.8], [0.6]]), np.diag([3.0, 2.99]))
LARGE_LAMBDA = (np.zeros((2, 3)), 5.0 * np.eye(3, 2), np.array([[1.0, 0.2, 0.0], [0.0, 0.7, 0.3], [0.1, 0.0, 0.4]]))


@pytest.mark.parametrize("layers", [BOTTLENECK, LARGE_LAMBDA], ids=["bottleneck", "lambda 25"])
@pytest.mark.parametrize("function", [linear_network_solution, linear_network_factors])
def test_late_times_cost_no_more_than_their_logarithm(layers, function, monkeypatch):
    counts = [steps_taken(lambda t=t: function(*layers, t, 1.0), monkeypatch) for t in (1e4, 1e8)]
    # each of the 13 doublings from 1e4 to 1e8 takes three steps, and as many again where one is not granted at once
    assert counts[1] <= counts[0] + 13 * 6


@pytest.mark.parametrize("t", [1.0, 30.0, 700.0])
def test_a_slow_exchange_in_a_bottleneck_is_followed(t):
    """One hidden unit, two modes: the rows (v + u) grow by e^{s t}, (v - u) shrink, and all share one factor."""
    w1, w2, syx = BOTTLENECK
    s = np.diag(syx)
    plus, minus = (w1[0] + w2[:, 0]) / 2, (w2[:, 0] - w1[0]) / 2
    # Q Q^T = e^{Ft} Q Q^T e^{Ft} / (1 + Q^T P Q), coordinates (v + u) and (v - u)
    top = max(s) * t
    grown, shrunk = plus * np.exp(s * t - top), minus * np.exp(-s * t - top)
    norm = (
        np.exp(-2 * top)
        + np.sum(plus**2 * (np.exp(2 * s * t - 2 * top) - np.exp(-2 * top)) / s)
        + np.sum(minus**2 * -np.expm1(-2 * s * t) * np.exp(-2 * top) / s)
    )
    first, second = grown - shrunk, grown + shrunk
    expected = np.outer(second, first) / norm
    found = linear_network_solution(w1, w2, syx, t, 1.0)
    # e^{2 s t} is known to 2 s t eps: 5e-13 at the latest time
    assert np.abs(found - expected).max() <= 1e-12


@pytest.mark.parametrize("t", [0.05, 0.5, 3.0])
def test_large_lambda_is_the_integrated_flow_and_its_limit(t):
    w1, w2, syx = LARGE_LAMBDA
    reference = maps_of(integrated(w1, w2, syx, np.array([t])))[0]
    assert np.abs(linear_network_solution(w1, w2, syx, t, 1.0) - reference).max() <= 1e-9
    late, limit = linear_network_solution(w1, w2, syx, [1e7, np.inf], 1.0)
    assert np.abs(late - limit).max() <= 1e-12


def balanced_start(rng, n, o):
    """Return large balanced layers of full width and a square data set for them."""
    left, right, hidden = orthonormal(rng, o, n), orthonormal(rng, n, n), orthonormal(rng, n, n)
    root = np.sqrt(rng.uniform(0.2, 0.8, n))
    data = Dataset(np.eye(n), rng.normal(size=(n, o)) + np.eye(n, o))
    return hidden * root @ right.T, left * root @ hidden.T, data


def test_leaving_out_from_large_weights_is_integrated_where_balance_is_lost():
    w1, w2, data = balanced_start(np.random.default_rng(2), 3, 4)
    closed = leave_one_out_trajectory(data, [0.5, 2.0], tau=1.0, w1=w1, w2=w2, sources=["sample-1"])
    assert closed.attrs["method"] == f"{EXACT}; {INTEGRATED}, from unbalanced layers: sample-1"
    assert closed.attrs["imbalance"] > MOST_IMBALANCE

    def losses(weights):
        def velocity(_, state):
            a, b = state[: w1.size].reshape(w1.shape), state[w1.size :].reshape(w2.shape)
            error = (data.targets.T - b @ a) * weights
            return np.concatenate([(b.T @ error).ravel(), (error @ a.T).ravel()])

        start = np.concatenate([w1.ravel(), w2.ravel()])
        flow = solve_ivp(velocity, (0, 2), start, method="DOP853", t_eval=[0.5, 2.0], rtol=1e-12, atol=1e-14).y.T
        maps = [z[w1.size :].reshape(w2.shape) @ z[: w1.size].reshape(w1.shape) for z in flow]
        return np.array([np.square(m - data.targets.T).sum(axis=0) / 2 for m in maps])

    expected = losses(np.ones(3)) - losses(np.array([1.0, 0.0, 1.0]))
    assert np.abs(closed.values[:, 0] - expected).max() <= 1e-8 * np.abs(expected).max()


def test_brief_ablation_says_how_its_windows_begin():
    rng = np.random.default_rng(4)
    w1, w2, data = balanced_start(rng, 3, 4)
    for first, method in ((w1, EXACT), (rng.normal(size=(3, 3)), INTEGRATED)):
        brief = brief_ablation_trajectory(data, [1.0, 2.0], tau=5.0, w1=first, w2=w2, window=3)
        assert brief.attrs["method"] == method
        assert np.isfinite(brief.values).all()


def test_no_target_is_integrated_down_to_zero_and_has_no_limit():
    w1, w2 = np.diag([2.0, 1.0]), np.diag([0.5, 1.0])
    flow = NetworkFlow(w1, w2, np.zeros((2, 2)), 1.0)
    assert flow.method == INTEGRATED
    late = linear_network_solution(w1, w2, np.zeros((2, 2)), [0.0, 30.0], 1.0)
    assert np.abs(late[1]).max() < 0.05
    with pytest.raises(ValueError, match="t must be finite: without a target"):
        flow.limit()


def test_unbalanced_scalar_modes_solve_their_equation():
    """Diagonal layers of different lambda fall apart into networks of one hidden unit, each balanced to its own."""
    w1, w2, syx = np.diag([2.0, 0.3]), np.diag([0.1, 1.5]), np.diag([1.0, 2.0])
    together = linear_network_solution(w1, w2, syx, TIMES, 1.0)
    assert linear_network_run(w1, w2, syx, TIMES, 1.0).method == INTEGRATED
    for k in range(2):
        # one hidden unit is lambda-balanced: the closed form, independent of the integration
        alone = linear_network_solution(w1[k : k + 1, k : k + 1], w2[k : k + 1, k : k + 1], [[syx[k, k]]], TIMES, 1.0)
        assert np.abs(together[:, k, k] - alone[:, 0, 0]).max() <= 1e-8
