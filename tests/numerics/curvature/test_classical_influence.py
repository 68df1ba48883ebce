"""Damped influence against dense solves of autograd's matrices, its limits, inertia and refusals."""

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
    train,
)
from numerics.curvature import linear_influence as classical_solver
from theory import Dataset, hierarchical_dataset

EPS = np.finfo(float).eps
METHODS = {"hessian": hessian_influence, "gauss-newton": gauss_newton_influence}


def problem(n=4, p=3, o=5, h=6, seed=0, checkpoints=2):
    rng = np.random.default_rng(seed)
    data = Dataset(rng.normal(size=(n, p)), rng.normal(size=(n, o)))
    w1, w2 = torch.tensor(rng.normal(size=(checkpoints, h, p))), torch.tensor(rng.normal(size=(checkpoints, o, h)))
    return data, Checkpoints(np.arange(checkpoints) * 10.0, w1, w2)


class Written:
    """Gradients and curvature of one checkpoint by automatic differentiation of the loss as written.

    ``matrix_error`` bounds the rounding of the matrix in Frobenius norm and ``gradient_error`` that of one gradient,
    ours and autograd's together: an entry is a sum of products of at most four matrices with inner sizes among N, P, O
    and h, so m = 2 (N + P + O + h) + 10 roundings reach a term (as many again in autograd's backward pass, hence 3 m),
    and the error is m EPS times the norm of the same expression with every term taken positive.
    """

    def __init__(self, method, data, w1, w2):
        x, y = torch.tensor(data.inputs), torch.tensor(data.targets)
        (h, p), (o, _), n = w1.shape, w2.shape, len(data)

        def outputs(w):
            first, second = w[: h * p].reshape(h, p), w[h * p :].reshape(o, h)
            return torch.stack([second @ (first @ a) for a in x])

        def losses(w):
            return 0.5 * (y - outputs(w)).square().sum(1)

        point = torch.cat([w1.flatten(), w2.flatten()])
        self.n = n
        self.gradients = torch.func.jacrev(losses)(point).numpy()
        jacobian = torch.func.jacrev(outputs)(point).flatten(0, 1)
        if method == "hessian":
            # Twice in reverse, as torch warns of its own forward mode.
            self.matrix = torch.func.jacrev(torch.func.jacrev(lambda w: losses(w).mean()))(point).numpy()
        else:
            self.matrix = (jacobian.T @ jacobian / n).numpy()
        self.eigenvalues = np.linalg.eigvalsh(self.matrix)
        self.largest = np.abs(self.eigenvalues).max()

        size_x, size_y, a, b = (float(np.linalg.norm(m)) for m in (data.inputs, data.targets, w1, w2))
        self.residual = float(np.linalg.norm(y - outputs(point)))
        positive_residual = size_y + a * b * size_x
        m = 3 * EPS * (2 * (n + p + o + h) + 10)
        blocks = (b * size_x) ** 2 + np.sqrt(o) * (a * size_x) ** 2
        blocks += 2 * (a * b * size_x**2 + np.sqrt(h) * size_x * positive_residual)
        self.matrix_error = m * blocks / n
        self.gradient_error = m * positive_residual * size_x * (a + b)
        # The dual matrix K = J J^T has no more terms; its eigenvectors and those of D add size x EPS x norm each.
        self.dual_error = (m + 2 * n * o * EPS) * blocks if method == "gauss-newton" else 0.0

    @property
    def eigenvalue_error(self):
        """Weyl: the error of the matrix and size x EPS x norm for each of the two eigenvalue routines."""
        return self.matrix_error + 2 * EPS * len(self.matrix) * self.largest

    def influence(self, damping, relative=0.0):
        """Return -(1/N) g_j^T (M + damping)^{-1} g_i by a dense solve and a bound (N, N) of both sides' rounding.

        `relative` is the constant c if the code under test makes the damping itself, as c times the largest eigenvalue.
        """
        shifted = self.matrix + damping * np.eye(len(self.matrix))
        solved = np.linalg.solve(shifted, self.gradients.T).T
        gradients, solutions = (np.linalg.norm(rows, axis=1) for rows in (self.gradients, solved))
        # With s = A^{-1} g, g_j^T A^{-1} g_i moves by s_j^T dA s_i + dg_j^T s_i + s_j^T dg_i to first order. dA is the
        # error of the matrix, of the damping, and size x EPS x |A|_F for each of two backward stable solvers.
        size = len(shifted)
        change = self.matrix_error + relative * self.eigenvalue_error + 2 * size * EPS * np.linalg.norm(shifted)
        nearest = np.abs(np.linalg.eigvalsh(shifted)).min()
        assert change < 0.1 * nearest  # so that the higher orders add at most a ninth
        error = change * np.outer(solutions, solutions)
        error += self.gradient_error * np.add.outer(solutions, solutions)
        error += 2 * size * EPS * np.outer(gradients, solutions)  # a product of `size` terms on either side
        # In the dual space the form is N r_j^T K (K + N c)^{-1} r_i, whose derivative N r_j^T N c (K + N c)^{-1} dK
        # (K + N c)^{-1} r_i is at most dK / c |r_j| |r_i|, also for residuals r outside the range of J.
        error += self.dual_error * self.residual**2 / damping
        return -self.gradients @ solved.T / self.n, 10 / 9 * error / self.n


def each(method, data, checkpoints):
    return [Written(method, data, w1, w2) for w1, w2 in zip(checkpoints.w1, checkpoints.w2, strict=True)]


def assert_within(found, expected, error):
    assert np.all(np.abs(found - expected) <= error), f"off by {np.max(np.abs(found - expected) / error):.3g} bounds"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "shape",
    [(4, 3, 5, 6), (4, 3, 5, 20), (7, 2, 3, 2), (1, 1, 1, 1), (3, 5, 1, 4)],
    ids=lambda s: "x".join(map(str, s)),
)
def test_influence_is_the_dense_solve(method, shape):
    data, checkpoints = problem(*shape)
    constants = [1e-3, 0.37, 25.0]
    result = METHODS[method](data, checkpoints, damping=constants)["influence"]
    for t, written in enumerate(each(method, data, checkpoints)):
        for d, constant in enumerate(constants):
            assert_within(result.values[d, t], *written.influence(constant))


@pytest.mark.parametrize("method", METHODS)
def test_influence_of_degenerate_weights_is_the_dense_solve(method):
    """A layer of zeros, repeated hidden units and repeated samples: the hidden span has less than full dimension."""
    data, checkpoints = problem(h=12, checkpoints=4)
    data = Dataset(np.vstack([data.inputs, data.inputs[:2]]), np.vstack([data.targets, data.targets[:2]]))
    w1, w2 = checkpoints.w1.clone(), checkpoints.w2.clone()
    w1[0], w2[1] = 0, 0
    w1[2, 1:], w2[2, :, 1:] = w1[2, :1], w2[2, :, :1]
    checkpoints = Checkpoints(checkpoints.epochs, w1, w2)
    result = METHODS[method](data, checkpoints, damping=0.2)["influence"]
    for t, written in enumerate(each(method, data, checkpoints)):
        assert_within(result.values[0, t], *written.influence(0.2))


@pytest.mark.parametrize("method", METHODS)
def test_influence_in_the_paper_sized_network(method):
    data = hierarchical_dataset()
    checkpoints = train(data, TrainingConfig(epochs=3000, checkpoint_every=1500)).checkpoints.at([1500, 3000])
    result = METHODS[method](data, checkpoints, relative_damping=[1e-2, 1.0])
    for t, written in enumerate(each(method, data, checkpoints)):
        assert_within(float(result["max_abs_eigenvalue"][t]), written.largest, written.eigenvalue_error)
        for constant in (1e-2, 1.0):
            found = result["influence"].sel(damping=constant)[t]
            assert_within(found.values, *written.influence(constant * written.largest, constant))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hidden", [4, 30])
def test_inertia_counts_every_direction(method, hidden):
    data, checkpoints = problem(h=hidden)
    result = METHODS[method](data, checkpoints, damping=[0.1, 3.0])
    for t, written in enumerate(each(method, data, checkpoints)):
        eigenvalues, error = written.eigenvalues, written.eigenvalue_error
        assert_within(float(result["min_eigenvalue"][t]), eigenvalues.min(), error)
        assert_within(float(result["max_abs_eigenvalue"][t]), written.largest, error)
        # No eigenvalue is so small that rounding could decide its sign, other than the zeros.
        assert not np.any((np.abs(eigenvalues) > error) & (np.abs(eigenvalues) < 1e3 * error))
        assert int(result["negative_eigenvalues"][t]) == np.sum(eigenvalues < -error)
        for d, constant in enumerate((0.1, 3.0)):
            assert_within(float(result["smallest_damped"][d, t]), np.abs(eigenvalues + constant).min(), error)
    assert (result["negative_eigenvalues"] > 0).all() == (method == "hessian")


@given(seed=st.integers(0, 2**31), exponent=st.floats(1, 6))
def test_strong_damping_leaves_the_gradient_kernel(seed, exponent):
    data, checkpoints = problem(seed=seed, checkpoints=1, h=3)
    for method, influence_of in METHODS.items():
        (written,) = each(method, data, checkpoints)
        damping = 10.0**exponent * written.largest
        found = influence_of(data, checkpoints, damping=damping)["influence"].values[0, 0]
        kernel = written.gradients @ written.gradients.T
        # lambda (M + lambda)^{-1} = 1 - M / lambda + ..., so the relative error in units of the gradients' norms is at
        # most q / (1 - q), q = max|eig| / lambda. The rounding of either side is bounded as in the dense solve.
        q = 10.0**-exponent
        norms = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        rounding = written.influence(damping)[1] * damping * written.n
        assert_within(-damping * written.n * found, kernel, q / (1 - q) * norms + rounding)


@given(seed=st.integers(0, 2**31))
def test_rotating_the_hidden_layer_changes_nothing(seed):
    data, checkpoints = problem(seed=seed)
    rotation = torch.linalg.qr(torch.tensor(np.random.default_rng(seed).normal(size=(6, 6))))[0]
    rotated = Checkpoints(checkpoints.epochs, rotation @ checkpoints.w1, checkpoints.w2 @ rotation.T)
    for method, influence_of in METHODS.items():
        results = [influence_of(data, c, relative_damping=1.5) for c in (checkpoints, rotated)]
        a, b = (r["influence"].values[0] for r in results)
        for t, written in enumerate(each(method, data, checkpoints)):
            # A term holds two weights, each rounded h times by its product and h times by the rotation's own error:
            # 4 h roundings, fewer than matrix_error allows. Twice the bound, for the two runs.
            error = 2 * written.influence(1.5 * written.largest, 1.5)[1]
            assert_within(a[t], b[t], error)
            assert_within(a[t], a[t].T, error)
        assert np.array_equal(results[0]["negative_eigenvalues"], results[1]["negative_eigenvalues"])


@given(shape=st.tuples(*[st.integers(1, 5)] * 4), seed=st.integers(0, 2**31))
def test_the_gradient_kernel_is_that_of_autograd(shape, seed):
    data, checkpoints = problem(*shape, seed=seed)
    kernel = gradient_kernel(data, checkpoints)
    assert kernel.dims == ("epoch", "source", "query")
    for t, written in enumerate(each("gauss-newton", data, checkpoints)):
        norms, error = np.linalg.norm(written.gradients, axis=1), written.gradient_error
        product = 2 * EPS * written.gradients.shape[1] * np.outer(norms, norms)
        error = product + error * (np.add.outer(norms, norms) + error)
        assert_within(kernel.values[t], written.gradients @ written.gradients.T, error)
        assert_within(kernel.values[t], kernel.values[t].T, error)


def test_weights_of_zero_have_no_influence_but_curvature():
    """There H = -[[0, E^T], [E, 0]] / N for each hidden unit: E = Y^T X = diag(2, 4), N = 2 give +-1 and +-2."""
    data = Dataset(np.eye(2), np.diag([2.0, 4.0]))
    zero = Checkpoints(np.array([0.0]), torch.zeros(1, 7, 2), torch.zeros(1, 2, 7))
    result = hessian_influence(data, zero, damping=[0.25, 100.0])
    assert not result["influence"].any()
    error = 28 * EPS * 2  # Weyl: size x EPS x norm, all 28 parameters
    assert result["max_abs_eigenvalue"].item() == pytest.approx(2, abs=error)
    assert result["min_eigenvalue"].item() == pytest.approx(-2, abs=error)
    assert result["negative_eigenvalues"].item() == 14
    assert result["smallest_damped"].values.ravel() == pytest.approx([0.75, 98], abs=error)
    with pytest.raises(IndefiniteCurvature, match=r"with relative damping 0\.5 its smallest"):
        hessian_influence(data, zero, relative_damping=0.5)

    assert not gauss_newton_influence(data, zero, damping=1.0)["influence"].any()
    with pytest.raises(ValueError, match="the Gauss-Newton matrix is zero at epoch 0"):
        gauss_newton_influence(data, zero, relative_damping=1.0)


def test_damping_that_cancels_a_negative_eigenvalue_is_refused():
    data, checkpoints = problem()
    lowest = each("hessian", data, checkpoints)[1].eigenvalues.min()
    assert lowest < 0
    with pytest.raises(
        IndefiniteCurvature, match=r"H \+ damping is singular at epoch 10: with damping .* Choose another"
    ):
        hessian_influence(data, checkpoints, damping=[0.1, -lowest])
    assert issubclass(IndefiniteCurvature, ArithmeticError)


def test_an_idle_eigenvalue_that_cancels_the_damping_is_refused():
    """Wherever there are idle hidden directions, h > P + O, -sigma(E) / N is an eigenvalue."""
    data, checkpoints = problem(h=12, checkpoints=1)
    error = data.targets.T @ data.inputs - checkpoints.maps[0].numpy() @ data.inputs.T @ data.inputs
    idle = np.linalg.svd(error, compute_uv=False)[0] / len(data)
    with pytest.raises(IndefiniteCurvature, match=r"H \+ damping is singular at epoch 0: with damping"):
        hessian_influence(data, checkpoints, damping=idle)


@pytest.mark.parametrize("constants", [{"damping": 1e-18}, {"relative_damping": 1e-18}])
def test_gauss_newton_damping_below_rounding_is_refused(constants):
    with pytest.raises(IndefiniteCurvature, match=r"Gauss-Newton matrix \+ damping is singular at epoch 0: .* 1e-18"):
        gauss_newton_influence(*problem(n=7, p=2), **constants)


@pytest.mark.parametrize("influence_of", METHODS.values())
def test_result_is_labelled(influence_of):
    data, checkpoints = problem()
    result = influence_of(data, checkpoints, relative_damping=[0.5, 2.0])
    assert result["influence"].dims == ("damping", "epoch", "source", "query")
    assert result["damping"].values.tolist() == [0.5, 2.0]
    assert result["epoch"].values.tolist() == [0.0, 10.0]
    assert result["source"].values.tolist() == result["query"].values.tolist() == list(data.names)
    assert result["smallest_damped"].dims == ("damping", "epoch")
    for name in ("max_abs_eigenvalue", "min_eigenvalue", "negative_eigenvalues"):
        assert result[name].dims == ("epoch",)


def test_residuals_are_rounding_unless_the_solve_is_wrong(monkeypatch):
    """A solver that returns twice the solution leaves (T + lambda) 2 x - g = g, of relative size 1."""
    data, checkpoints = problem()
    for influence_of in METHODS.values():
        result = influence_of(data, checkpoints, damping=[0.1, 3.0])
        assert result["residual"].dims == ("damping", "epoch", "source")
        for t, written in enumerate(
            each("hessian" if influence_of is hessian_influence else "gauss-newton", data, checkpoints)
        ):
            for d, damping in enumerate((0.1, 3.0)):
                shifted = written.matrix + damping * np.eye(len(written.matrix))
                # Backward stability: 2 size EPS |A| |x| for each of two solvers, and what the matrices differ by.
                solved = np.linalg.norm(np.linalg.solve(shifted, written.gradients.T), axis=0)
                bound = 4 * len(shifted) * EPS * np.linalg.norm(shifted) + written.matrix_error + written.dual_error
                bound = bound * solved / np.linalg.norm(written.gradients, axis=1)
                assert np.all(result["residual"].values[d, t] <= bound)
    exact = classical_solver.solve_banded
    monkeypatch.setattr(classical_solver, "solve_banded", lambda *arguments: 2 * exact(*arguments))
    residual = hessian_influence(data, checkpoints, damping=0.1)["residual"]
    np.testing.assert_allclose(residual, 1, atol=1e-9)


@pytest.mark.parametrize(("influence_of", "calls"), [(hessian_influence, [1, 2]), (gauss_newton_influence, [2])])
def test_progress_is_reported(influence_of, calls):
    seen = []
    influence_of(*problem(), damping=0.1, progress=seen.append)
    assert seen == calls


@pytest.mark.parametrize("influence_of", METHODS.values())
@pytest.mark.parametrize(
    ("constants", "match"),
    [
        ({}, "give either damping or relative_damping"),
        ({"damping": 1.0, "relative_damping": 1.0}, "and not both"),
        ({"damping": [0.1, -0.2]}, "damping must not be negative, but its smallest entry is -0.2"),
        ({"relative_damping": -1.0}, "relative_damping must not be negative"),
        ({"damping": np.nan}, "damping holds a non-finite value"),
        ({"relative_damping": np.inf}, "relative_damping holds a non-finite value"),
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


@pytest.mark.parametrize("estimator", [gradient_kernel, hessian_influence, gauss_newton_influence])
def test_weights_of_another_network_are_refused(estimator):
    _, checkpoints = problem()
    constants = {} if estimator is gradient_kernel else {"damping": 1.0}
    with pytest.raises(ValueError, match="the network maps 3 inputs to 5 outputs, but the data set has 8 inputs"):
        estimator(hierarchical_dataset(), checkpoints, **constants)
