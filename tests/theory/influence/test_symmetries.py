"""What every trajectory must keep: coordinates, order of samples, the clock, the tree, and sums over all samples."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import (
    Dataset,
    Modes,
    brief_ablation_trajectory,
    exposure_kernel,
    hierarchical_dataset,
    influence_trajectory,
    leave_one_out_trajectory,
    mode_strength,
    svd_response,
    tree_distance,
)
from theory.dynamics.singular_modes import singular_modes
from theory.influence.mode_response import FORMULAS

TAU = 1200.0
EPS = np.finfo(float).eps
EPOCHS = np.array([200.0, 900.0, 2500.0])
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Run:
    """A data set and the aligned balanced weights, of one strength, that a network starts from."""

    data: Dataset
    modes: Modes
    w1: np.ndarray
    w2: np.ndarray


def start(data, g0=2e-3):
    """Put each mode on a hidden unit of its own; one unit stays idle."""
    u, s, v = singular_modes(data.syx)
    hidden = np.eye(len(s) + 1)[:, : len(s)] * np.sqrt(g0)
    return Run(data, Modes(u, s, v, np.full(len(s), g0)), hidden @ v.T, u @ hidden.T)


def generic_data(seed, n=3, o=4):
    """Return orthonormal inputs and targets whose singular values lie at least 0.4 apart and in 0.6 .. 2.4."""
    rng = np.random.default_rng(seed)
    x, v = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    u = np.linalg.qr(rng.normal(size=(o, n)))[0]
    s = 0.6 + 0.7 * np.arange(n) + rng.uniform(0, 0.3, size=n)
    return Dataset(x, x @ v * s @ u.T)


MEASURES = {
    formula: lambda run, t, tau, formula=formula: influence_trajectory(
        run.data, t, tau=tau, g0=run.modes, formula=formula
    )
    for formula in FORMULAS
} | {
    "exposure": lambda run, t, tau: exposure_kernel(run.data, t, [t[0]], tau=tau, g0=run.modes).isel(exposure=0),
    "leave-one-out": lambda run, t, tau: leave_one_out_trajectory(run.data, t, tau=tau, w1=run.w1, w2=run.w2),
    "ablation kernel": lambda run, t, tau: brief_ablation_trajectory(
        run.data, t, tau=tau, w1=run.w1, w2=run.w2, window=5, method="kernel"
    ),
    "brief ablation": lambda run, t, tau: brief_ablation_trajectory(
        run.data, t[1:2], tau=tau, w1=run.w1, w2=run.w2, window=5
    ),
}
EXACT = [name for name in MEASURES if name != "brief ablation"]


def tolerance(name, values, run):
    """Return the rounding eps s of the modes times (2 s t / tau)^2 / gap, the slope of their response.

    The integrated window subtracts runs that DOP853 knows to 1e-10 of the losses each. So does leaving a sample out:
    without its input, balanced layers of strength g0 = 2e-3 are unbalanced by as much, and integrated.
    """
    size = max(1.0, float(np.abs(values).max()))
    losses = 5 * np.square(run.data.targets).sum(axis=1).max()
    return 1e-10 * losses if name in ("brief ablation", "leave-one-out") else 1e4 * EPS * size


@pytest.mark.parametrize("name", MEASURES)
@given(seed=seeds)
@settings(max_examples=8)
def test_coordinates_do_not_matter(name, seed):
    """Targets and inputs rotated: U -> R U, V -> T V."""
    rng = np.random.default_rng(seed)
    run = start(generic_data(seed))
    turn_in, turn_out = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (3, 4))
    turned = start(Dataset(run.data.inputs @ turn_in.T, run.data.targets @ turn_out.T))
    one, other = MEASURES[name](run, EPOCHS, TAU), MEASURES[name](turned, EPOCHS, TAU)
    assert np.abs(one.values - other.values).max() <= tolerance(name, one, run)


@pytest.mark.parametrize("name", MEASURES)
@given(seed=seeds, order=st.sampled_from(list(permutations(range(3)))))
@settings(max_examples=8)
def test_samples_carry_their_influence_with_them(name, seed, order):
    data = generic_data(seed)
    run = start(data)
    names = [data.names[i] for i in order]
    shuffled = start(Dataset(data.inputs[list(order)], data.targets[list(order)], tuple(names)))
    one, other = MEASURES[name](run, EPOCHS, TAU), MEASURES[name](shuffled, EPOCHS, TAU)
    assert list(other["source"].values) == list(other["query"].values) == names
    moved = one.sel(source=names, query=names)
    assert np.abs(moved.values - other.values).max() <= tolerance(name, one, run)


# what a change of the clock does to the units: per epoch of exposure, and per tau of a window counted in steps
CLOCK = dict.fromkeys(EXACT, 0) | {"exposure": -1, "ablation kernel": -1}


@pytest.mark.parametrize("name", EXACT)
@given(seed=seeds, scale=st.sampled_from([1e-3, 0.5, 40.0]))
@settings(max_examples=6)
def test_time_is_measured_in_tau(name, seed, scale):
    run = start(generic_data(seed))
    one, other = MEASURES[name](run, EPOCHS, TAU), MEASURES[name](run, scale * EPOCHS, scale * TAU)
    assert np.abs(one.values - other.values / scale ** CLOCK[name]).max() <= tolerance(name, one, run)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("levels", [2, 3])
def test_influence_depends_on_tree_distance_only(name, levels):
    run, distance = start(hierarchical_dataset(levels), 1e-4), tree_distance(levels)
    values = MEASURES[name](run, EPOCHS, TAU).values
    for d in range(levels + 1):
        assert np.ptp(values[:, distance == d], axis=1).max() <= tolerance(name, values, run)
    assert np.ptp(values, axis=(1, 2)).max() > 1e3 * tolerance(name, values, run)


def residuals(run, maps):
    return maps @ run.data.inputs.T - run.data.targets.T


@given(seeds)
def test_all_sample_weights_together_are_a_faster_clock(seed):
    """Raising every weight speeds up the flow: sum_i dW_i = t dW/dt, dW/dt from the logistic equation."""
    run = start(generic_data(seed))
    m, data = run.modes, run.data
    summed = influence_trajectory(data, EPOCHS, tau=TAU, g0=m, formula="sample-weight").sum("source").values
    for t, row in zip(EPOCHS, summed, strict=True):
        g = mode_strength(t, m.values, m.initial_strengths, TAU)
        speed = m.left * (2 * g * (m.values - g) / TAU) @ m.right.T
        expected = np.einsum("oj,oj->j", residuals(run, m.left * g @ m.right.T), t * speed @ data.inputs.T)
        assert np.abs(row - expected).max() <= 3 * tolerance("sample-weight", expected, run)


@pytest.mark.parametrize("formula", FORMULAS[:4])
@given(seed=seeds)
@settings(max_examples=15)
def test_changes_of_the_correlation_add_up_linearly(formula, seed):
    """sum_i y_i x_i^T = C: what is linear in E turns the sum over sources into the derivative along C, U s g' V^T."""
    run = start(generic_data(seed))
    m, data, step = run.modes, run.data, 1e-3
    summed = influence_trajectory(data, EPOCHS, tau=TAU, g0=m, formula=formula).sum("source").values

    def strength(s, t):
        return mode_strength(t, s, m.initial_strengths, TAU)

    for t, row in zip(EPOCHS, summed, strict=True):
        near, far = ([strength(m.values + sign * k * step, t) for sign in (1, -1)] for k in (1, 2))
        slope = (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * step)
        change = m.left * (m.values * slope) @ m.right.T
        expected = np.einsum(
            "oj,oj->j", residuals(run, m.left * strength(m.values, t) @ m.right.T), change @ data.inputs.T
        )
        # truncation step^4 / 30 times the fifth derivative, (2 t / tau)^5 g <= 2e3
        assert np.abs(row - expected).max() <= 1e-9


@pytest.mark.parametrize("name", [name for name in EXACT if name != "leave-one-out"])
@given(seed=seeds)
@settings(max_examples=8)
def test_source_and_query_are_dual_to_first_order_where_every_target_can_be_fitted(name, seed):
    """With y_i = C x_i, r_j^T dW_i x_j is a sum over a and b of kernels times alpha_ia alpha_ib alpha_ja alpha_jb."""
    run = start(generic_data(seed))
    values = MEASURES[name](run, EPOCHS, TAU).values
    assert np.abs(values - np.swapaxes(values, 1, 2)).max() <= tolerance(name, values, run)


def test_source_and_query_are_not_dual_for_finite_changes_nor_beside_noise():
    """Leaving out is of all orders; and with more samples than inputs a target has a part that no map fits."""
    run = start(generic_data(0))
    finite = MEASURES["leave-one-out"](run, EPOCHS, TAU).values
    rng = np.random.default_rng(1)
    x = np.linalg.qr(rng.normal(size=(5, 3)))[0]
    noisy = MEASURES["sample-weight"](start(Dataset(x, rng.normal(size=(5, 4)))), EPOCHS, TAU).values
    for values in (finite, noisy):
        assert np.abs(values - np.swapaxes(values, 1, 2)).max() > 5e-3 * np.abs(values).max()


@given(seeds, st.integers(1, 5), st.integers(1, 5))
def test_svd_response_does_not_depend_on_coordinates(seed, o, p):
    """C -> R C T^T, E -> R E T^T: values alike, vectors turned (compared through products, which have no sign)."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (o, p))
    rank = min(o, p)
    s = np.arange(rank, 0, -1.0)
    c = np.linalg.qr(rng.normal(size=(o, rank)))[0] * s @ np.linalg.qr(rng.normal(size=(p, rank)))[0].T
    e = rng.normal(size=(o, p))
    one, other = svd_response(c, e), svd_response(left @ c @ right.T, left @ e @ right.T)
    # gaps of 1: rounding eps |C| |E| of first order, once more |E| of second
    bound = 1e3 * EPS * (1 + np.linalg.norm(e)) ** 2
    assert np.abs(one.ds - other.ds).max() <= bound
    assert np.abs(one.second_order - other.second_order).max() <= bound
    assert np.abs(left @ one.du @ one.v.T @ right.T - other.du @ other.v.T).max() <= bound
    assert np.abs(left @ one.u @ one.dv.T @ right.T - other.u @ other.dv.T).max() <= bound


@given(seeds, st.floats(-3, 3))
def test_first_order_response_is_linear_in_the_change(seed, weight):
    rng = np.random.default_rng(seed)
    c = np.linalg.qr(rng.normal(size=(4, 3)))[0] * [3.0, 2.0, 1.0] @ np.linalg.qr(rng.normal(size=(3, 3)))[0].T
    e, f = rng.normal(size=(2, 4, 3))
    one, other, both = svd_response(c, e), svd_response(c, f), svd_response(c, e + weight * f)
    bound = 1e3 * EPS * (1 + np.linalg.norm(e) + abs(weight) * np.linalg.norm(f))
    assert np.abs(both.ds - one.ds - weight * other.ds).max() <= bound
    assert np.abs((both.du @ both.v.T) - one.du @ one.v.T - weight * other.du @ other.v.T).max() <= bound
    assert np.abs((both.u @ both.dv.T) - one.u @ one.dv.T - weight * other.u @ other.dv.T).max() <= bound
