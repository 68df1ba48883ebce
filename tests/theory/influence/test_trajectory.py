"""Influence formulas against finite differences of integrated flows and of spectral functions, and their symmetries."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.stats import ortho_group

from theory import Dataset, Modes, hierarchical_dataset, influence_trajectory, mode_strength, tree_distance
from theory.dynamics.singular_modes import singular_modes
from theory.influence.mode_response import _exp_second_difference, response_kernels

TAU = 1200.0
FORMULAS = ("paper-P1", "paper-P2", "spectral", "fixed-init", "sample-weight")
seeds = st.integers(0, 2**32 - 1)


def flow_map(modes, syx, sxx, epochs, tau=TAU):
    """Integrate both layers with DOP853 from the aligned balanced weights of `modes`; return W at `epochs`."""
    rng = np.random.default_rng(0)
    root = np.sqrt(modes.initial_strengths)
    hidden = np.linalg.qr(rng.normal(size=(len(root) + 1, len(root))))[0]
    w1, w2 = hidden * root @ modes.right.T, modes.left * root @ hidden.T

    def velocity(_, state):
        a, b = state[: w1.size].reshape(w1.shape), state[w1.size :].reshape(w2.shape)
        error = (syx - b @ a @ sxx) / tau
        return np.concatenate([(b.T @ error).ravel(), (error @ a.T).ravel()])

    start = np.concatenate([w1.ravel(), w2.ravel()])
    solved = solve_ivp(velocity, (0, epochs[-1]), start, method="DOP853", t_eval=epochs, rtol=1e-12, atol=1e-15)
    return np.stack([z[w1.size :].reshape(w2.shape) @ z[: w1.size].reshape(w1.shape) for z in solved.y.T])


def differentiate(function, step):
    """Five-point central difference: truncation step^4 / 30 times the fifth derivative."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def losses(maps, data):
    return 0.5 * np.sum((maps @ data.inputs.T - data.targets.T) ** 2, axis=1)


def random_problem(seed, *, n, p, o, rank):
    """Whitened inputs (n x p, X^T X = I), targets of the given rank with generic singular values."""
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(n, p)))[0]
    y = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, o)) + 0.3 * rng.normal(size=(n, 1)) * np.eye(1, o)
    y = x @ np.linalg.lstsq(x, rng.normal(size=(n, rank)) @ rng.normal(size=(rank, o)), rcond=None)[0] + (
        y - x @ (x.T @ y)
    )
    return Dataset(x, y)


# (samples, inputs, outputs, rank of Y^T X): square, tall, wide, more samples than inputs, rank-deficient
SHAPES = [(4, 4, 4, 4), (3, 3, 5, 3), (5, 5, 3, 3), (7, 4, 3, 3), (6, 4, 4, 2)]


@pytest.mark.parametrize("formula", ["fixed-init", "sample-weight"])
@pytest.mark.parametrize("shape", SHAPES)
def test_exact_formulas_are_derivatives_of_the_integrated_flow(formula, shape):
    n, p, o, rank = shape
    data = random_problem(11, n=n, p=p, o=o, rank=rank)
    u, s, v = singular_modes(data.syx)
    assert len(s) == rank
    modes = Modes(u, s, v, np.linspace(2e-3, 6e-3, rank))
    epochs = np.array([0.0, 100.0, 400.0, 1000.0, 4000.0])
    influence = influence_trajectory(data, epochs, tau=TAU, g0=modes, formula=formula)
    for i in range(n):
        target, moment = np.outer(data.targets[i], data.inputs[i]), np.outer(data.inputs[i], data.inputs[i])
        moment *= formula == "sample-weight"

        def loss_at(weight, target=target, moment=moment):
            return losses(flow_map(modes, data.syx + weight * target, data.sxx + weight * moment, epochs), data)

        reference = differentiate(loss_at, 1e-3)
        # truncation (1e-3)^4 / 30 times a fifth derivative of at most (2 s t / tau)^5 < 1e6 while a mode rises: 3e-8;
        # integration 1e-12 / 1e-3 = 1e-9. The issue asks for 1e-7 relative.
        scale = np.abs(reference).max()
        assert np.abs(influence.values[:, i] - reference).max() <= 1e-7 * max(scale, 1.0)


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_spectral_formula_is_the_derivative_of_the_spectral_function(shape):
    n, p, o, rank = shape
    data = random_problem(12, n=n, p=p, o=o, rank=rank)
    epochs, g0 = np.array([0.0, 300.0, 900.0, 3000.0]), 1e-3
    influence = influence_trajectory(data, epochs, tau=TAU, g0=g0, formula="spectral")

    def spectral_map(c):
        u, s, vt = np.linalg.svd(c, full_matrices=False)
        return (u * mode_strength(epochs[:, None], s, g0, TAU)[:, None]) @ vt

    for i in range(n):
        target = np.outer(data.targets[i], data.inputs[i])
        reference = differentiate(lambda e, target=target: losses(spectral_map(data.syx + e * target), data), 1e-3)
        # truncation 3e-14 times fifth derivatives up to (2 t / tau)^5 and 1 / gap^4 of generic values; rounding 1e-13
        assert np.abs(influence.values[:, i] - reference).max() <= 1e-7 * max(np.abs(reference).max(), 1.0)


def test_degenerate_tree_matches_the_flow():
    data = hierarchical_dataset()
    u, s, v = singular_modes(data.syx)
    modes = Modes(u, s, v, np.full(8, 1e-3))
    epochs = np.array([500.0, 1500.0, 3000.0])
    influence = influence_trajectory(data, epochs, tau=TAU, g0=1e-3, formula="sample-weight")
    target, moment = np.outer(data.targets[2], data.inputs[2]), np.outer(data.inputs[2], data.inputs[2])
    reference = differentiate(
        lambda e: losses(flow_map(modes, data.syx + e * target, data.sxx + e * moment, epochs), data), 1e-3
    )
    assert np.abs(influence.sel(source="sparrow").values - reference).max() <= 1e-7


def test_own_mode_grows_as_if_time_passed_faster():
    """For one mode alone the weight of its sample rescales time: dg = t dg/dt (closed diagonal of the integrals)."""
    s, g0 = 1.7, 1e-2
    data = Dataset(np.eye(1), np.array([[s]]))
    epochs = np.linspace(0, 6000, 25)
    influence = influence_trajectory(data, epochs, tau=TAU, g0=g0).values[:, 0, 0]
    g = mode_strength(epochs, s, g0, TAU)
    expected = (g - s) * epochs * 2 * g * (s - g) / TAU
    # quadrature and closed forms are accurate to a few eps times the panel count (25)
    assert np.allclose(influence, expected, rtol=1e-13, atol=1e-15)


def exact_second_difference(a, b):
    with mpmath.workdps(80):
        # distinct nodes: a perturbation of 1e-30 changes the value by 1e-30 relative
        a, b = mpmath.mpf(a) - mpmath.mpf("1e-30"), mpmath.mpf(b) - mpmath.mpf("2e-30")
        first_ab, first_b0 = (mpmath.exp(a) - mpmath.exp(b)) / (a - b), mpmath.expm1(b) / b
        return float((first_ab - first_b0) / a)


@given(st.floats(0, 60), st.floats(0, 60), st.sampled_from([1.0, 1e-3, 1e-9, 1e-14]))
def test_exp_second_difference_does_not_cancel(x, y, shrink):
    a, b = -max(x, y * shrink), -min(x, y * shrink)
    value = _exp_second_difference(np.array([a]), np.array([b]))[0]
    # at most a factor 4 of cancellation in the recursion, a few eps in exp and exprel
    assert value == pytest.approx(exact_second_difference(a, b), rel=64 * np.finfo(float).eps)


@pytest.mark.parametrize("gap", [1.0, 1e-2, 1e-5, 1e-8, 1e-11, 1e-14])
def test_symmetric_kernel_near_degeneracy(gap):
    """The divided difference of the Saxe map in 60 digits, gaps from 1 down to 1e-14: relative error <= 1e-10."""
    s = np.array([1.0 + gap, 1.0])
    t, g0 = np.array([10.0, 700.0, 3000.0, 9000.0]), 1e-5
    (kernels,) = response_kernels("spectral", t, s, np.full(2, g0), TAU, piece=len(t))
    symmetric = kernels.target_input + kernels.input_target
    for k, time in enumerate(t):
        with mpmath.workdps(60):
            high, low, start, h = (mpmath.mpf(float(v)) for v in (s[0], s[1], g0, 2 * time / TAU))

            def strength(x, h=h, start=start):
                return x / (1 + (x / start - 1) * mpmath.exp(-x * h))

            exact = float((strength(high) - strength(low)) / (high - low))
        # rounding of exponents: eps h s <= 15 eps, times the few operations of the formula
        assert symmetric[k, 0, 1] == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("formula", ["fixed-init", "sample-weight"])
@given(seed=seeds)
@settings(max_examples=15)
def test_influence_does_not_depend_on_coordinates(formula, seed):
    """Rotating input and output space leaves every influence as it was."""
    rng = np.random.default_rng(seed)
    data = random_problem(seed, n=5, p=3, o=4, rank=3)
    rotate_in, rotate_out = ortho_group.rvs(3, random_state=rng), ortho_group.rvs(4, random_state=rng)
    rotated = Dataset(data.inputs @ rotate_in, data.targets @ rotate_out, data.names)
    epochs = np.array([200.0, 1500.0])
    first = influence_trajectory(data, epochs, tau=TAU, g0=1e-3, formula=formula)
    second = influence_trajectory(rotated, epochs, tau=TAU, g0=1e-3, formula=formula)
    # two SVDs of rounding eps s_max each, amplified by the response of a rising mode, 2 s t / tau ~ 10
    assert np.abs(first - second).max() <= 1e-12 * max(1.0, float(np.abs(first).max()))


@pytest.mark.parametrize("formula", FORMULAS)
@given(scale=st.sampled_from([1e-6, 1e-2, 1e3]))
@settings(max_examples=3)
def test_time_rescales_with_the_targets(formula, scale):
    """Targets and strengths times c, tau times c: the same trajectory with losses times c^2 and rates as they were."""
    data = random_problem(5, n=4, p=4, o=4, rank=4)
    if scale == 1.0:
        return
    epochs = np.array([100.0, 900.0])
    base = influence_trajectory(data, epochs, tau=TAU, g0=1e-3, formula=formula)
    scaled_data = Dataset(data.inputs, scale * data.targets, data.names)
    scaled = influence_trajectory(scaled_data, epochs, tau=scale * TAU, g0=scale * 1e-3, formula=formula)
    assert np.allclose(scaled / scale**2, base, rtol=1e-11, atol=1e-12 * float(np.abs(base).max()))


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_influence_depends_on_tree_distance_only(formula, levels):
    data, distance = hierarchical_dataset(levels), tree_distance(levels)
    influence = influence_trajectory(data, np.array([500.0, 1700.0, 4000.0]), tau=TAU, g0=1e-4, formula=formula)
    for d in range(levels + 1):
        alike = influence.values[:, distance == d]
        # response of near-threshold modes amplifies the rounding of the singular vectors by 2 s t / tau < 40
        assert np.ptp(alike, axis=1).max() <= 1e-11


@pytest.mark.parametrize("formula", FORMULAS)
def test_chosen_sources_and_outside_queries(formula):
    data = hierarchical_dataset()
    epochs = np.array([0.0, 1000.0, 2500.0])
    everything = influence_trajectory(data, epochs, tau=TAU, g0=1e-4, formula=formula)
    outside = Dataset(data.inputs[[5, 0]], data.targets[[5, 0]], ("a", "b"))
    some = influence_trajectory(data, epochs, tau=TAU, g0=1e-4, formula=formula, sources=["lily"], queries=outside)
    assert some.dims == ("epoch", "source", "query")
    assert np.allclose(some.sel(source="lily", query="a"), everything.sel(source="lily", query="oak"), atol=1e-13)
    assert np.allclose(some.sel(source="lily", query="b"), everything.sel(source="lily", query="dog"), atol=1e-13)
    assert some.attrs["formula"] == formula
    assert some.attrs["tau"] == TAU


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("entries", [1, 100, 1000])
def test_pieces_of_epochs_and_sources_do_not_matter(formula, entries, monkeypatch):
    data, epochs = hierarchical_dataset(), np.linspace(0, 5000, 9)
    whole = influence_trajectory(data, epochs, tau=TAU, g0=1e-4, formula=formula)
    monkeypatch.setattr("theory.influence.trajectory._CHUNK", entries)
    monkeypatch.setattr("theory.influence.mode_response._CHUNK", entries)
    again = influence_trajectory(data, epochs, tau=TAU, g0=1e-4, formula=formula)
    # the same sums in another order: a few eps of terms below 4
    np.testing.assert_allclose(again, whole, rtol=0, atol=64 * np.finfo(float).eps * 4)


@pytest.mark.parametrize("formula", ["fixed-init", "sample-weight"])
@pytest.mark.parametrize("start", [0.5, 2.0, 20.0, 200.0])
def test_modes_that_start_large_or_above_their_value(formula, start):
    """The integrands have poles at tau / (2 g0) before the start, and no epoch cuts the first panel short."""
    data = random_problem(6, n=4, p=4, o=4, rank=4)
    u, s, v = singular_modes(data.syx)
    modes = Modes(u, s, v, start * np.array([1.0, 0.3, 1e-2, 1e-3]))
    epochs = np.array([300.0, 700.0])
    influence = influence_trajectory(data, epochs, tau=TAU, g0=modes, formula=formula)
    target, moment = np.outer(data.targets[0], data.inputs[0]), np.outer(data.inputs[0], data.inputs[0])
    moment *= formula == "sample-weight"
    reference = differentiate(
        lambda e: losses(flow_map(modes, data.syx + e * target, data.sxx + e * moment, epochs), data), 1e-3
    )
    # Integration 1e-12 of losses up to g0^2 |x|^2 / 2, over the step; truncation as in the first test, relative.
    assert np.abs(influence.values[:, 0] - reference).max() <= 1e-9 * start**2 + 1e-7 * np.abs(reference).max()


def test_outside_query_has_its_own_input_and_target():
    """A query that is no training sample: its loss along the flow, differentiated."""
    data = random_problem(3, n=5, p=5, o=3, rank=2)
    rng = np.random.default_rng(8)
    query = Dataset(rng.normal(size=(2, 5)), rng.normal(size=(2, 3)))
    u, s, v = singular_modes(data.syx)
    modes = Modes(u, s, v, np.full(len(s), 4e-3))
    epochs = np.array([300.0, 1200.0])
    influence = influence_trajectory(data, epochs, tau=TAU, g0=modes, queries=query)
    target, moment = np.outer(data.targets[1], data.inputs[1]), np.outer(data.inputs[1], data.inputs[1])
    reference = differentiate(
        lambda e: losses(flow_map(modes, data.syx + e * target, data.sxx + e * moment, epochs), query), 1e-3
    )
    assert np.abs(influence.values[:, 1] - reference).max() <= 1e-7 * max(1.0, np.abs(reference).max())


def test_printed_formulas_follow_the_paper_term_by_term():
    """Eqs. 48-51 and 58 typed out for distinct singular values, without any of the package's kernels."""
    data = random_problem(21, n=4, p=4, o=4, rank=4)
    t, g0 = 800.0, 1e-3
    u, s, vt = np.linalg.svd(data.syx)
    g = mode_strength(t, s, g0, TAU)
    g_prime = differentiate(lambda e: mode_strength(t, s + e, g0, TAU), 1e-3)
    gap = s[None, :] - s[:, None] + np.eye(4)
    for variant in ("P1", "P2"):
        influence = influence_trajectory(data, [t], tau=TAU, g0=g0, formula=f"paper-{variant}")
        for i in range(4):
            q = u.T @ np.outer(data.targets[i], data.inputs[i]) @ vt.T
            a = q / gap * (1 - np.eye(4))
            b = (q if variant == "P1" else q.T) / -gap * (1 - np.eye(4))
            dw = u @ (a * g + np.diag(g_prime * np.diag(q)) + g[:, None] * b) @ vt
            residual = u * g @ vt @ data.inputs.T - data.targets.T
            expected = np.einsum("oj,op,jp->j", residual, dw, data.inputs)
            # the five-point derivative: (1e-3)^4 / 30 times a fifth derivative of order (2 t / tau)^5 ~ 4
            assert np.allclose(influence.values[0, i], expected, rtol=0, atol=1e-9 * max(1, np.abs(expected).max()))


def test_printed_formula_is_not_the_derivative():
    """The erratum: with Q = S alpha alpha^T the printed response differs from the exact one, visibly."""
    data = hierarchical_dataset()
    epochs = np.arange(0, 10001, 100.0)
    exact = influence_trajectory(data, epochs, tau=TAU, g0=2.5e-5, formula="spectral").sel(source="dog")
    for variant in ("P1", "P2"):
        printed = influence_trajectory(data, epochs, tau=TAU, g0=2.5e-5, formula=f"paper-{variant}").sel(source="dog")
        assert float(np.abs(printed - exact).max()) > 0.05 * float(np.abs(exact).max())


def good_call(**change):
    arguments = {"epochs": [0.0, 1.0], "tau": TAU, "g0": 1e-3, "formula": "sample-weight"} | change
    data = arguments.pop("dataset", hierarchical_dataset())
    return influence_trajectory(data, arguments.pop("epochs"), **arguments)


RANK_DEFICIENT = Dataset(np.eye(3), np.outer([1.0, 2.0, 3.0], [1.0, 1.0, 0.0]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"formula": "paper"}, "formula must be one of 'paper-P1'"),
        ({"epochs": [0.0, -1.0]}, "epochs must not be negative"),
        ({"epochs": [1.0, 1.0]}, "epochs must be an increasing list"),
        ({"epochs": 3.0}, "epochs must be an increasing list"),
        ({"epochs": [0.0, np.inf]}, "epochs holds a non-finite value"),
        ({"tau": 0.0}, "tau must be a positive number"),
        ({"g0": 0.0}, "every initial strength must be positive"),
        ({"g0": np.ones(3)}, r"g0 has shape \(3,\), but there are 8 modes"),
        ({"g0": np.linspace(1, 2, 8)}, "g0 differs inside a block of equal singular values"),
        ({"dataset": Dataset(2 * np.eye(2), np.eye(2))}, "needs whitened inputs"),
        ({"dataset": RANK_DEFICIENT, "formula": "spectral"}, "Y\\^T X has rank 1, less than its sides"),
        ({"dataset": RANK_DEFICIENT, "formula": "paper-P1"}, "is not differentiable"),
        ({"dataset": RANK_DEFICIENT, "formula": "paper-P2"}, "use 'fixed-init' or 'sample-weight'"),
        ({"queries": Dataset(np.eye(2), np.eye(2))}, "queries have 2 inputs and 2 outputs"),
        ({"g0": Modes(np.eye(2), np.array([2.0, 1.0]), np.eye(2), np.ones(2))}, "belong to a data set with other"),
        (
            {
                "dataset": Dataset(np.eye(2), np.diag([3.0, 1.0])),
                "g0": Modes(np.eye(2), np.array([2.0, 1.0]), np.eye(2), np.ones(2)),
            },
            "do not reproduce Y\\^T X",
        ),
        (
            {
                "dataset": Dataset(np.eye(2), np.diag([2.0, 1.0])),
                "g0": np.array([1e-3, 2e-3]),
                "formula": "spectral",
            },
            "needs a single g0",
        ),
    ],
)
def test_bad_input_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        good_call(**change)


def test_unknown_source_is_refused():
    with pytest.raises(KeyError, match="no sample is called 'wolf'"):
        good_call(sources=["wolf"])
