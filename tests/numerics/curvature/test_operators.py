"""Curvature as an operator, its extreme eigenvalues, and MINRES on indefinite matrices, against dense algebra."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from module_cases import CURVATURES, DEVICES, EPS, NAMES, make
from numpy.testing import assert_allclose
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh, minres

from numerics import SolveNotConverged, damped_solve, extreme_eigenvalues, gauss_newton_operator, hessian_operator

OPERATORS = {"hessian": hessian_operator, "gauss-newton": gauss_newton_operator}


def indefinite(size, seed, spread=1.0):
    """Return a symmetric matrix with eigenvalues of both signs and a rotation of them."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=size) * np.exp(spread * rng.normal(size=size))
    rotation = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return (rotation * values) @ rotation.T, rng


def rows(array):
    return torch.tensor(np.atleast_2d(array))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_products_are_those_of_the_matrix(curvature, name, device):
    case = make(name)
    w, beta = case.checkpoints.weights[1], torch.linspace(0, 2, 6)
    operator = OPERATORS[curvature](case.checkpoints.model, w.to(device), case.samples, beta)
    expected = case.matrix(curvature, w, beta.double()).numpy()
    # As in test_module_curvature: 2000 EPS of the largest entry for an entry, summed over a row times unit vectors.
    error = 2000 * EPS * np.abs(expected).max() * len(w)
    columns = np.linalg.qr(np.random.default_rng(0).normal(size=(len(w), 3)))[0]
    assert_allclose(operator @ columns, expected @ columns, rtol=0, atol=error)
    assert_allclose(operator @ columns[:, 0], expected @ columns[:, 0], rtol=0, atol=error)
    assert_allclose(operator.H @ columns, expected @ columns, rtol=0, atol=error)


def test_scipy_takes_the_operator():
    """Its own MINRES and Lanczos agree with dense algebra on the same Hessian."""
    case = make("tanh classes")
    w = case.checkpoints.weights[0]
    operator, matrix = hessian_operator(case.checkpoints.model, w, case.samples), case.matrix("hessian", w).numpy()
    found, info = minres(operator, np.ones(len(w)), shift=-2.0, rtol=1e-12)
    assert info == 0
    # Shifted by 2 the smallest eigenvalue bounds the error by that of the residual, 1e-12 x norms of order 10.
    nearest = np.abs(np.linalg.eigvalsh(matrix) + 2).min()
    expected = np.linalg.solve(matrix + 2 * np.eye(len(w)), np.ones(len(w)))
    size = np.abs(matrix).sum() + 2
    assert np.linalg.norm(found - expected) < 1e-11 * size * np.linalg.norm(expected) / nearest
    top = eigsh(operator, k=1, which="LA", return_eigenvectors=False)[0]
    assert top == pytest.approx(np.linalg.eigvalsh(matrix).max(), rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 30, 81, 300])
def test_extreme_eigenvalues(size):
    matrix, _ = indefinite(size, seed=size)
    values = np.linalg.eigvalsh(matrix)
    lowest, highest = extreme_eigenvalues(aslinearoperator(matrix))
    error = 1e-6 * np.abs(values).max()  # what it promises
    assert lowest == pytest.approx(values[0], abs=error)
    assert highest == pytest.approx(values[-1], abs=error)


@pytest.mark.parametrize("values", ["clustered", "semidefinite", "one sign"])
def test_extreme_eigenvalues_of_awkward_spectra(values):
    """Ends of high multiplicity with close neighbours, as of idle units; a large null space; negative values alone."""
    rng = np.random.default_rng(0)
    spectrum = {
        "clustered": np.concatenate([np.full(60, -0.5), -0.5 + 1e-7 * rng.random(60), rng.random(60) - 0.4, [0.5]]),
        "semidefinite": np.concatenate([np.zeros(150), rng.random(50)]),
        "one sign": -1 - rng.random(200),
    }[values]
    rotation = np.linalg.qr(rng.normal(size=(len(spectrum),) * 2))[0]
    lowest, highest = extreme_eigenvalues(aslinearoperator((rotation * spectrum) @ rotation.T))
    error = 1e-6 * np.abs(spectrum).max()
    assert lowest == pytest.approx(spectrum.min(), abs=error)
    assert highest == pytest.approx(spectrum.max(), abs=error)


def test_extreme_eigenvalues_of_nothing():
    assert extreme_eigenvalues(aslinearoperator(np.zeros((100, 100)))) == (0.0, 0.0)


def test_lanczos_that_does_not_converge_is_refused(monkeypatch):
    monkeypatch.setattr("numerics.curvature.operators.ACCURACY", 0.0)
    monkeypatch.setattr("numerics.curvature.operators._SUBSPACE", 2)
    matrix = np.diag(np.linspace(0, 1, 200))
    matrix[-1, -1] = 1e6
    with pytest.raises(SolveNotConverged, match=r"curvature matrix of size 200 did not converge; use method='dense'"):
        extreme_eigenvalues(aslinearoperator(matrix))


@given(size=st.integers(1, 40), seed=st.integers(0, 2**31), sides=st.integers(1, 4))
def test_solutions_of_indefinite_systems(size, seed, sides):
    """|x - y| <= |r| / min|eig + lambda| for the exact y; the residual reported is that of the solution returned."""
    matrix, rng = indefinite(size, seed)
    gradients = rng.normal(size=(sides, size))
    values = np.linalg.eigvalsh(matrix)
    # Damping in the middle of a gap of the spectrum, so that none is singular and most are indefinite.
    middles = -(values[1:] + values[:-1]) / 2 if size > 1 else -values + 1
    gaps = np.abs(values + middles[:, None]).min(1)
    damping = np.append(middles[gaps > 1e-3 * np.abs(values).max()][:3], 2 * np.abs(values).max())
    solution = damped_solve(aslinearoperator(matrix), rows(gradients), damping, rtol=1e-8, max_iterations=50 * size)
    assert solution.values.shape == (len(damping), sides, size)
    norms = np.linalg.norm(gradients, axis=1)
    for d, shift in enumerate(damping):
        shifted = matrix + shift * np.eye(size)
        found = solution.values[d].numpy()
        left = np.linalg.norm(found @ shifted - gradients, axis=1) / norms
        # M x and lambda x, of `size` terms, may cancel; so twice `size` EPS of their norms, on either side.
        terms = (np.linalg.norm(matrix) + abs(shift)) * np.linalg.norm(found, axis=1)
        rounding = 4 * size * EPS * terms / norms
        assert np.all(np.abs(left - solution.residuals[d]) <= rounding)
        assert np.all(solution.residuals[d] <= 1e-8)
        nearest = np.abs(values + shift).min()
        exact = np.linalg.solve(shifted, gradients.T).T
        error = 2e-8 * norms / nearest
        assert np.all(np.linalg.norm(found - exact, axis=1) <= error)


@given(seed=st.integers(0, 2**31), shift=st.floats(-2, 2))
def test_the_residual_is_the_least_of_the_krylov_space(seed, shift):
    """The recurrence stops at the first k at which a combination of g, M g, ..., M^(k-1) g leaves little enough."""
    matrix, rng = indefinite(12, seed, spread=0.0)
    gradient = rng.normal(size=12)
    shifted, space, needed = matrix + shift * np.eye(12), gradient[:, None] / np.linalg.norm(gradient), 1
    while True:
        best = np.linalg.lstsq(shifted @ space, gradient, rcond=None)[0]
        if np.linalg.norm(shifted @ (space @ best) - gradient) <= 0.3 * np.linalg.norm(gradient):
            break
        space, needed = np.linalg.qr(np.column_stack([space, matrix @ space[:, -1]]))[0], needed + 1
    if needed > 8:  # by then Lanczos vectors may have lost their orthogonality to rounding
        return
    assert damped_solve(aslinearoperator(matrix), rows(gradient), shift, rtol=0.6).iterations == needed


def test_where_conjugate_gradients_break_down():
    """M = diag(1, -1) and g = (1, 1): g . M g = 0, the first step of CG divides by zero."""
    solution = damped_solve(aslinearoperator(np.diag([1.0, -1.0])), rows([1.0, 1.0]), 0.0)
    assert_allclose(solution.values[0, 0], [1, -1], rtol=4 * EPS)
    assert solution.iterations == 2


def test_blocks_of_right_hand_sides_do_not_change_the_solution(monkeypatch):
    matrix, rng = indefinite(20, seed=1, spread=0.1)
    gradients = rows(rng.normal(size=(5, 20)))
    together = damped_solve(aslinearoperator(matrix), gradients, [3.0, 5.0])
    monkeypatch.setattr("numerics.curvature.minres._NUMBERS", 1)
    apart = damped_solve(aslinearoperator(matrix), gradients, [3.0, 5.0])
    # Each is within rtol |g| / min|eig + lambda| of the exact solution, in a space of its own.
    bound = 2e-8 * gradients.norm(dim=1).numpy() / np.abs(np.linalg.eigvalsh(matrix) + 3).min()
    assert np.all((together.values - apart.values).norm(dim=2).numpy() <= bound)


def test_a_gradient_of_zero_has_the_solution_zero():
    matrix, rng = indefinite(5, seed=2)
    gradients = rows(np.stack([np.zeros(5), rng.normal(size=5)]))
    solution = damped_solve(aslinearoperator(matrix), gradients, 10.0)
    assert not solution.values[0, 0].any()
    assert solution.residuals[0, 0] == 0
    assert damped_solve(aslinearoperator(matrix), gradients[:1], 10.0).iterations == 0


def test_a_solve_that_stops_short_is_never_returned():
    matrix, rng = indefinite(50, seed=3, spread=2.0)
    gradients = rows(rng.normal(size=(2, 50)))
    with pytest.raises(
        SolveNotConverged,
        match=r"MINRES left a residual of .* for right-hand side 0 with damping 0\.1 after 3 iterations; allow more",
    ):
        damped_solve(aslinearoperator(matrix), gradients, 0.1, max_iterations=3)
    with pytest.raises(SolveNotConverged, match="for 'dog' with damping 0"):
        damped_solve(aslinearoperator(np.diag([0.0, 1.0, 2.0])), gradients[:1, :3], 0.0, names=["dog"])
    assert issubclass(SolveNotConverged, ArithmeticError)


def test_an_operator_that_is_not_symmetric_is_noticed():
    """MINRES then minimises nothing, and the residual that is measured says so."""
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    with pytest.raises(SolveNotConverged):
        damped_solve(aslinearoperator(rotation), rows([1.0, 0.0]), 0.5)


def test_products_that_are_not_numbers_are_noticed():
    broken = LinearOperator((3, 3), matvec=lambda v: np.nan * v, dtype=np.float64)
    with pytest.raises(SolveNotConverged, match="residual of nan"):
        damped_solve(broken, rows(np.ones(3)), 1.0)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"gradients": torch.ones(1, 3)}, TypeError, r"gradients must be float64, but are torch.float32; convert"),
        ({"gradients": rows(np.ones(4))}, ValueError, r"shape \(3, 3\), but gradients of 4 parameters"),
        ({"operator": aslinearoperator(np.ones((3, 2)))}, ValueError, r"shape \(3, 2\), but gradients of 3"),
        ({"damping": np.nan}, ValueError, "damping holds a non-finite value"),
        ({"rtol": 0.0}, ValueError, "rtol must be a positive number, but 0.0 was given"),
        ({"max_iterations": 0}, ValueError, "max_iterations must be at least 1, but 0 was given"),
    ],
)
def test_bad_input_is_refused(arguments, error, match):
    good = {"operator": aslinearoperator(np.eye(3)), "gradients": rows(np.ones(3)), "damping": 1.0}
    with pytest.raises(error, match=match):
        damped_solve(**good | arguments)
