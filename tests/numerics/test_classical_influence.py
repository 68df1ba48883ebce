"""Damped influence against dense solves, its limits, its inertia, and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from numerics import (
    Checkpoints,
    IndefiniteCurvature,
    TrainingConfig,
    gauss_newton_influence,
    gradient_kernel,
    hessian_influence,
    per_sample_losses,
    train,
)
from numerics.curvature import gauss_newton, hessian
from theory import Dataset, hierarchical_dataset

EPS = np.finfo(float).eps
METHODS = {"hessian": (hessian_influence, hessian), "gauss-newton": (gauss_newton_influence, gauss_newton)}


def problem(n=4, p=3, o=5, h=6, seed=0, checkpoints=2):
    rng = np.random.default_rng(seed)
    data = Dataset(rng.normal(size=(n, p)), rng.normal(size=(n, o)))
    w1, w2 = torch.tensor(rng.normal(size=(checkpoints, h, p))), torch.tensor(rng.normal(size=(checkpoints, o, h)))
    return data, Checkpoints(np.arange(checkpoints) * 10.0, w1, w2)


def autograd_gradients(data, w1, w2):
    layers = w1.clone().requires_grad_(), w2.clone().requires_grad_()
    losses = per_sample_losses(layers[1] @ layers[0], data)
    rows = [torch.autograd.grad(loss, layers, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([a.flatten(), b.flatten()]) for a, b in rows]).numpy()


def dense_influence(matrix, gradients, damping):
    """Return -(1/N) g_j^T (M + damping)^{-1} g_i by LU of the full matrix, and a bound of either side's rounding."""
    shifted = matrix.numpy() + damping * np.eye(len(matrix))
    solved = np.linalg.solve(shifted, gradients.T)
    influence = -gradients @ solved / len(gradients)
    # A backward stable solve is off by eps x condition of what it multiplies; a factor 20 for accumulated constants.
    size = np.linalg.norm(gradients) * np.linalg.norm(solved)
    eigenvalues = np.abs(np.linalg.eigvalsh(shifted))
    return influence, 20 * EPS * eigenvalues.max() / eigenvalues.min() * size


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "shape",
    [(4, 3, 5, 6), (4, 3, 5, 20), (7, 2, 3, 2), (1, 1, 1, 1), (3, 5, 1, 4)],
    ids=lambda s: "x".join(map(str, s)),
)
def test_influence_is_the_dense_solve(method, shape):
    data, checkpoints = problem(*shape)
    influence_of, matrix_of = METHODS[method]
    constants = [1e-3, 0.37, 25.0]
    result = influence_of(data, checkpoints, damping=constants)["influence"]
    for t, (w1, w2) in enumerate(zip(checkpoints.w1, checkpoints.w2, strict=True)):
        gradients = autograd_gradients(data, w1, w2)
        for d, constant in enumerate(constants):
            expected, rounding = dense_influence(matrix_of(data, w1, w2), gradients, constant)
            np.testing.assert_allclose(result.values[d, t], expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("method", METHODS)
def test_influence_in_the_paper_sized_network(method):
    data = hierarchical_dataset()
    checkpoints = train(data, TrainingConfig(epochs=3000, checkpoint_every=1500)).checkpoints
    influence_of, matrix_of = METHODS[method]
    result = influence_of(data, checkpoints, relative_damping=[1e-2, 1.0])
    for t, (w1, w2) in enumerate(zip(checkpoints.w1, checkpoints.w2, strict=True)):
        matrix = matrix_of(data, w1, w2)
        largest = float(torch.linalg.eigvalsh(matrix).abs().max())
        assert float(result["max_abs_eigenvalue"][t]) == pytest.approx(largest, rel=1e-11)
        gradients = autograd_gradients(data, w1, w2)
        for constant in (1e-2, 1.0):
            expected, rounding = dense_influence(matrix, gradients, constant * largest)
            found = result["influence"].sel(damping=constant)[t]
            np.testing.assert_allclose(found, expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("hidden", [4, 30])
def test_inertia_counts_every_direction(hidden):
    data, checkpoints = problem(h=hidden)
    result = hessian_influence(data, checkpoints, damping=0.1)
    for t, (w1, w2) in enumerate(zip(checkpoints.w1, checkpoints.w2, strict=True)):
        eigenvalues = torch.linalg.eigvalsh(hessian(data, w1, w2)).numpy()
        rounding = 20 * EPS * len(eigenvalues) * np.abs(eigenvalues).max()
        assert float(result["min_eigenvalue"][t]) == pytest.approx(eigenvalues.min(), abs=rounding)
        assert float(result["max_abs_eigenvalue"][t]) == pytest.approx(np.abs(eigenvalues).max(), abs=rounding)
        assert int(result["negative_eigenvalues"][t]) == np.sum(eigenvalues < -rounding)
        assert float(result["smallest_damped"][0, t]) == pytest.approx(np.abs(eigenvalues + 0.1).min(), abs=rounding)


@given(seed=st.integers(0, 2**31), exponent=st.floats(1, 6))
def test_strong_damping_leaves_the_gradient_kernel(seed, exponent):
    data, checkpoints = problem(seed=seed, checkpoints=1)
    constant = 10.0**exponent
    kernel = gradient_kernel(data, checkpoints).values[0]
    for influence_of, _ in METHODS.values():
        result = influence_of(data, checkpoints, relative_damping=constant)
        damping = constant * float(result["max_abs_eigenvalue"][0])
        # (M + lambda)^{-1} = (1 - M / lambda + ...) / lambda: the remainder is 1 / (c - 1) of the gradients' norms.
        norms = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        error = np.abs(-damping * len(data) * result["influence"].values[0, 0] - kernel)
        assert np.all(error <= (1 / (constant - 1) + 1e-12) * norms)


@given(seed=st.integers(0, 2**31))
def test_rotating_the_hidden_layer_changes_nothing(seed):
    data, checkpoints = problem(seed=seed)
    rotation = torch.linalg.qr(torch.tensor(np.random.default_rng(seed).normal(size=(6, 6))))[0]
    rotated = Checkpoints(checkpoints.epochs, rotation @ checkpoints.w1, checkpoints.w2 @ rotation.T)
    for influence_of, _ in METHODS.values():
        a, b = (influence_of(data, c, relative_damping=1.5)["influence"].values for c in (checkpoints, rotated))
        # Damping 1.5 max|eig| keeps the condition below 2.5 / 0.5.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e3 * EPS * np.abs(a).max())
        np.testing.assert_allclose(a, np.swapaxes(a, 2, 3), rtol=0, atol=100 * EPS * np.abs(a).max())


def test_the_gradient_kernel_is_that_of_autograd():
    data, checkpoints = problem()
    kernel = gradient_kernel(data, checkpoints)
    for t, (w1, w2) in enumerate(zip(checkpoints.w1, checkpoints.w2, strict=True)):
        gradients = autograd_gradients(data, w1, w2)
        expected = gradients @ gradients.T
        np.testing.assert_allclose(kernel.values[t], expected, rtol=0, atol=200 * EPS * np.abs(expected).max())


def test_untrained_weights_of_zero_have_no_influence():
    data, checkpoints = problem()
    zero = Checkpoints(checkpoints.epochs, 0 * checkpoints.w1, 0 * checkpoints.w2)
    assert not hessian_influence(data, zero, damping=100.0)["influence"].any()
    assert not gauss_newton_influence(data, zero, damping=1.0)["influence"].any()
    with pytest.raises(ValueError, match="the Gauss-Newton matrix is zero at epoch 0"):
        gauss_newton_influence(data, zero, relative_damping=1.0)


def test_damping_that_cancels_a_negative_eigenvalue_is_refused():
    data, checkpoints = problem()
    lowest = hessian_influence(data, checkpoints, damping=0.1)["min_eigenvalue"].values
    assert lowest[1] < 0
    with pytest.raises(
        IndefiniteCurvature, match=r"H \+ damping is singular at epoch 10: with damping .* Choose another"
    ):
        hessian_influence(data, checkpoints, damping=[0.1, -lowest[1]])


def test_progress_is_reported():
    seen = []
    hessian_influence(*problem(), damping=0.1, progress=seen.append)
    assert seen == [1, 2]


@pytest.mark.parametrize("influence_of", [hessian_influence, gauss_newton_influence])
@pytest.mark.parametrize(
    ("constants", "match"),
    [
        ({}, "give either damping or relative_damping"),
        ({"damping": 1.0, "relative_damping": 1.0}, "and not both"),
        ({"damping": [0.1, -0.2]}, "damping must not be negative, but its smallest entry is -0.2"),
        ({"relative_damping": -1.0}, "relative_damping must not be negative"),
        ({"damping": np.nan}, "damping holds a non-finite value"),
        ({"damping": []}, "damping must be a number or a list of numbers"),
        ({"damping": [[0.1]]}, "damping must be a number or a list of numbers"),
    ],
)
def test_bad_damping_is_refused(influence_of, constants, match):
    with pytest.raises(ValueError, match=match):
        influence_of(*problem(), **constants)


def test_gauss_newton_needs_positive_damping():
    with pytest.raises(ValueError, match=r"its damping must be positive, but 0.0 was given"):
        gauss_newton_influence(*problem(), damping=[0.0, 1.0])


def test_weights_of_another_network_are_refused():
    _, checkpoints = problem()
    for call in (gradient_kernel, lambda d, c: hessian_influence(d, c, damping=1.0)):
        with pytest.raises(ValueError, match="the network maps 3 inputs to 5 outputs, but the data set has 8 inputs"):
            call(hierarchical_dataset(), checkpoints)
