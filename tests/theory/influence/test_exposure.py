"""The exposure kernel against flows whose sample weights change for a while, and against the influence it adds to."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from theory import Dataset, Modes, exposure_kernel, hierarchical_dataset, influence_trajectory
from theory.dynamics.singular_modes import singular_modes

TAU = 1200.0
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


def random_problem(seed, *, n, p, o, rank):
    """Return n samples with X^T X = I and Y^T X of the given rank, with modes of different initial strengths."""
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(n, p)))[0]
    fitted = x @ rng.normal(size=(p, rank)) @ rng.normal(size=(rank, o))
    noise = rng.normal(size=(n, o))
    data = Dataset(x, fitted + 0.3 * (noise - x @ (x.T @ noise)))
    u, s, v = singular_modes(data.syx)
    assert len(s) == rank
    return data, Modes(u, s, v, np.linspace(2e-3, 6e-3, rank))


PROBLEMS = {
    "square": random_problem(1, n=3, p=3, o=3, rank=3),
    "tall": random_problem(2, n=3, p=3, o=5, rank=3),
    "wide": random_problem(3, n=4, p=4, o=2, rank=2),
    "more samples than inputs": random_problem(4, n=6, p=3, o=4, rank=3),
    "rank-deficient": random_problem(5, n=4, p=4, o=4, rank=2),
}


def losses_after_bump(data, modes, sample, change, window, epochs):
    """Integrate both layers with DOP853 while the weight of `sample` is 1 + change inside `window` and 1 outside."""
    rng = np.random.default_rng(0)
    root = np.sqrt(modes.initial_strengths)
    hidden = np.linalg.qr(rng.normal(size=(len(root) + 1, len(root))))[0]
    w1, w2 = hidden * root @ modes.right.T, modes.left * root @ hidden.T

    def stretch(state, begin, end, times, weight):
        beta = np.ones(len(data))
        beta[sample] += weight
        syx, sxx = (data.targets * beta[:, None]).T @ data.inputs, (data.inputs * beta[:, None]).T @ data.inputs

        def velocity(_, z):
            a, b = z[: w1.size].reshape(w1.shape), z[w1.size :].reshape(w2.shape)
            error = (syx - b @ a @ sxx) / TAU
            return np.concatenate([(b.T @ error).ravel(), (error @ a.T).ravel()])

        return solve_ivp(velocity, (begin, end), state, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-15).y.T

    begin, end = window
    state = stretch(np.concatenate([w1.ravel(), w2.ravel()]), 0.0, begin, [begin], 0.0)[-1]
    state = stretch(state, begin, end, [end], change)[-1]
    states = stretch(state, end, epochs[-1], epochs, 0.0)
    maps = np.stack([z[w1.size :].reshape(w2.shape) @ z[: w1.size].reshape(w1.shape) for z in states])
    return 0.5 * np.sum((maps @ data.inputs.T - data.targets.T) ** 2, axis=1)


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_bump_of_weight_acts_as_the_kernel_says(case):
    data, modes = PROBLEMS[case]
    window, epochs, step = (700.0, 850.0), np.array([900.0, 1600.0, 4000.0]), 1e-2
    exposures = np.mean(window) + np.ptp(window) / 2 * NODES
    kernel = exposure_kernel(data, epochs, exposures, tau=TAU, g0=modes)
    integrated = np.ptp(window) / 2 * np.tensordot(WEIGHTS, kernel.values, axes=1)
    for sample in range(len(data)):
        changed = {k: losses_after_bump(data, modes, sample, k * step, window, epochs) for k in (-2, -1, 1, 2)}
        reference = (8 * (changed[1] - changed[-1]) - (changed[2] - changed[-2])) / (12 * step)
        # Truncation (1e-2)^4 / 30 times a fifth derivative of (2 s D / tau)^5 = 1 at D = 150; integration 1e-12 / 1e-2.
        assert np.abs(integrated[:, sample] - reference).max() <= 1e-8 * max(np.abs(reference).max(), 1.0)


@pytest.mark.parametrize("case", PROBLEMS)
def test_all_exposures_add_up_to_the_influence_of_the_sample_weight(case):
    data, modes = PROBLEMS[case]
    edges = np.linspace(0, 3000, 41)
    exposures = (edges[:-1, None] + edges[1:, None]) / 2 + np.diff(edges)[:, None] / 2 * NODES
    weights = (np.diff(edges)[:, None] / 2 * WEIGHTS).ravel()
    kernel = exposure_kernel(data, [3000.0], exposures.ravel(), tau=TAU, g0=modes)
    expected = influence_trajectory(data, [3000.0], tau=TAU, g0=modes, formula="sample-weight").values[0]
    # Panels of 75 epochs are short against the poles of g at distance pi tau / (2 s) > 300: rho^-32 is below eps.
    total = np.tensordot(weights, kernel.values[:, 0], axes=1)
    np.testing.assert_allclose(total, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_later_exposure_has_no_influence_and_labels_are_complete():
    kernel = exposure_kernel(hierarchical_dataset(), [1000.0, 2000.0], [1500.0], tau=TAU, g0=1e-3, sources=["cat"])
    assert kernel.dims == ("exposure", "epoch", "source", "query")
    assert not kernel.sel(epoch=1000.0).any()
    assert kernel.sel(epoch=2000.0, source="cat").any()
    assert kernel.attrs["units"] == "loss per sample weight and epoch"


def test_pieces_of_epochs_do_not_matter(monkeypatch):
    times = np.linspace(100.0, 4000.0, 7)
    whole = exposure_kernel(hierarchical_dataset(2), times, times[::2], tau=TAU, g0=1e-3)
    monkeypatch.setattr("theory.influence.exposure._CHUNK", 1)
    again = exposure_kernel(hierarchical_dataset(2), times, times[::2], tau=TAU, g0=1e-3)
    # the same sums in another order: a few eps of losses below 2 over tau
    np.testing.assert_allclose(again, whole, rtol=0, atol=64 * np.finfo(float).eps * 2 / TAU)


def test_at_once_the_kernel_is_the_gradient_kernel():
    """Exposure now moves the weights along the sample's own gradient: -K / tau, from balanced weights."""
    data = hierarchical_dataset()
    u, s, v = singular_modes(data.syx)
    modes = Modes(u, s, v, np.full(8, 1e-3))
    kernel = exposure_kernel(data, [1500.0], [1500.0], tau=TAU, g0=modes).values[0, 0]
    g = s / (1 + (s / 1e-3 - 1) * np.exp(-2 * s * 1500.0 / TAU))
    residual = (u * g @ v.T) - data.targets.T
    gram_out, gram_in = u * g @ u.T, v * g @ v.T
    expected = -(np.eye(8) * (residual.T @ gram_out @ residual) + (residual.T @ residual) * gram_in) / TAU
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"epochs": [2.0, 1.0]}, "epochs must be an increasing list"),
        ({"exposures": [-1.0]}, "exposures must not be negative"),
        ({"exposures": [[1.0]]}, "exposures must be an increasing list"),
        ({"tau": 0.0}, "tau must be a positive number"),
        ({"dataset": Dataset(2 * np.eye(2), np.eye(2))}, "exposure_kernel needs whitened inputs"),
        ({"queries": Dataset(np.eye(3), np.eye(3))}, "queries have 3 inputs and 3 outputs"),
    ],
)
def test_bad_input_is_refused(change, match):
    arguments = {"dataset": hierarchical_dataset(1), "epochs": [1.0], "exposures": [0.5], "tau": TAU, "g0": 1e-3}
    with pytest.raises(ValueError, match=match):
        exposure_kernel(**(arguments | change))
