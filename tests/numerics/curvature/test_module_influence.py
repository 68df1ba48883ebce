"""Influence in any module: against dense solves of losses written by hand, refits of convex problems, refusals."""

import dataclasses

import numpy as np
import pytest
import torch
from module_cases import (
    CROSS_ENTROPY,
    CURVATURES,
    DEVICES,
    EPS,
    NAMES,
    half_squares,
    identities,
    make,
    on,
)

from numerics import (
    Checkpoints,
    IndefiniteCurvature,
    ModuleCheckpoints,
    Samples,
    SolveNotConverged,
    TorchModel,
    gauss_newton_influence,
    gradient_kernel,
    hessian_influence,
    linear_as_module,
)
from theory import Dataset, hierarchical_dataset

METHODS = {"hessian": hessian_influence, "gauss-newton": gauss_newton_influence}
ENGINES = ["dense", "matrix-free"]


class Reference:
    """Influence at one checkpoint by a dense solve of autograd's matrix of the written loss, with bounds of its error.

    An entry of a gradient or matrix errs by 2000 EPS of the largest one (see test_module_curvature), its norm by as
    much times the size.
    """

    def __init__(self, case, t, curvature, beta=None):
        w = case.checkpoints.weights[t]
        self.n, self.size = len(case.samples), len(w)
        self.matrix = case.matrix(curvature, w, beta).numpy()
        self.sources, self.queries = (case.gradients(w, s).numpy() for s in (case.samples, case.queries))
        self.eigenvalues = np.linalg.eigvalsh(self.matrix)
        self.largest = np.abs(self.eigenvalues).max()
        self.matrix_error = 2000 * EPS * self.size * np.abs(self.matrix).max()
        self.gradient_error = 2000 * EPS * np.sqrt(self.size) * max(np.abs(self.sources).max(), 1)
        # Weyl, and size x EPS x norm for each of the two eigenvalue routines.
        self.eigenvalue_error = self.matrix_error + 2 * self.size * EPS * self.largest

    def solved(self, rows, damping):
        return np.linalg.solve(self.matrix + damping * np.eye(self.size), rows.T).T

    def influence(self, damping, asked=None, *, rtol=0.0, damping_error=0.0):
        """Return -(1/N) g_j^T (M + damping)^{-1} g_i and a bound (N, m) of the error of a solver.

        `rtol` is the residual that the solver may leave; `damping_error` that of the damping it used.
        """
        asked = self.sources if asked is None else asked
        x, y = self.solved(self.sources, damping), self.solved(asked, damping)
        norm_g, norm_x, norm_y = (np.linalg.norm(rows, axis=1) for rows in (self.sources, x, y))
        # To first order y^T dM x + dg_j^T x + y^T dg_i; dM also of two backward stable solvers; y^T r for a residual.
        shifted = np.linalg.norm(self.matrix) + damping
        change = self.matrix_error + damping_error + 2 * self.size * EPS * shifted
        assert change < 0.1 * np.abs(self.eigenvalues + damping).min()  # so that higher orders add at most a ninth
        error = change * np.outer(norm_x, norm_y) + self.gradient_error * np.add.outer(norm_x, norm_y)
        error += 2 * self.size * EPS * np.outer(norm_x, np.linalg.norm(asked, axis=1))
        # Either side may be the one that is solved for.
        error += rtol * np.maximum(np.outer(norm_g, norm_y), np.outer(norm_x, np.linalg.norm(asked, axis=1)))
        return -x @ asked.T / self.n, 10 / 9 * error / self.n


def assert_within(found, expected, error):
    assert np.all(np.abs(found - expected) <= error), f"off by {np.max(np.abs(found - expected) / error):.3g} bounds"


BETA = [0.0, 1.0, 2.5, 1.0, 0.3, 1.0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weights", [None, BETA], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("asks", ["training set", "others"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_influence_is_the_dense_solve(curvature, name, engine, asks, weights, device):
    case = make(name)
    constants = [0.21, 3.0, 40.0]
    queries = None if asks == "training set" else case.queries
    result = METHODS[curvature](
        case.samples, on(device, case), damping=constants, queries=queries, weights=weights, method=engine
    )
    assert result["influence"].attrs["method"] == engine
    rtol = 1e-8 if engine == "matrix-free" else 0.0
    for t in range(2):
        reference = Reference(
            case, t, curvature, None if weights is None else torch.tensor(weights, dtype=torch.float64)
        )
        for d, constant in enumerate(constants):
            asked = None if queries is None else reference.queries
            assert_within(result["influence"].values[d, t], *reference.influence(constant, asked, rtol=rtol))
    assert result["residual"].max() <= (1e-8 if engine == "matrix-free" else 1e-10)


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("name", NAMES)
def test_many_samples_and_few(curvature, name):
    """More outputs than parameters or fewer: the Gauss-Newton matrix is taken among the parameters or in its span."""
    for n in (2, 40):
        case = make(name, n=n, m=2)
        result = METHODS[curvature](case.samples, case.checkpoints, damping=0.5, queries=case.queries)
        for t in range(2):
            reference = Reference(case, t, curvature)
            assert_within(result["influence"].values[0, t], *reference.influence(0.5, reference.queries))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_spectrum_and_relative_damping(curvature, name, engine):
    case = make(name)
    result = METHODS[curvature](case.samples, case.checkpoints, relative_damping=[0.3, 2.0], method=engine)
    for t in range(2):
        reference = Reference(case, t, curvature)
        accuracy = reference.eigenvalue_error + (1e-6 * reference.largest if engine == "matrix-free" else 0.0)
        assert_within(float(result["max_abs_eigenvalue"][t]), reference.largest, accuracy)
        assert_within(float(result["min_eigenvalue"][t]), reference.eigenvalues.min(), accuracy)
        for d, constant in enumerate((0.3, 2.0)):
            damping = constant * reference.largest
            settings = {"damping_error": constant * accuracy, "rtol": 1e-8 if engine == "matrix-free" else 0.0}
            assert_within(result["influence"].values[d, t], *reference.influence(damping, **settings))
            nearest = np.abs(reference.eigenvalues + damping).min()
            found = float(result["smallest_damped"][d, t])
            if engine == "dense" or reference.eigenvalues.min() + damping > 0:
                assert_within(found, nearest, (1 + constant) * accuracy)
            else:
                assert np.isnan(found)
        if engine == "dense":
            eigenvalues, error = reference.eigenvalues, reference.eigenvalue_error
            assert not np.any((np.abs(eigenvalues) > error) & (np.abs(eigenvalues) < 1e2 * error))
            assert int(result["negative_eigenvalues"][t]) == np.sum(eigenvalues < -error)
    assert ("negative_eigenvalues" in result) == (engine == "dense")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_residuals_are_those_of_each_source(curvature, engine):
    """|(M + lambda) x - g| / |g| cannot be seen from outside, but bounds |g_j^T (x - M^-1 g)| / (|M^-1 g_j| |g|)."""
    case = make("tanh classes")
    result = METHODS[curvature](case.samples, case.checkpoints, damping=[1.0], method=engine, rtol=1e-3)
    assert result["residual"].dims == ("damping", "epoch", "source")
    reference = Reference(case, 0, curvature)
    expected, rounding = reference.influence(1.0)
    norms = np.linalg.norm(reference.sources, axis=1), np.linalg.norm(reference.solved(reference.sources, 1.0), axis=1)
    residual = result["residual"].values[0, 0]
    assert_within(result["influence"].values[0, 0], expected, np.outer(residual * norms[0], norms[1]) / 6 + rounding)
    if engine == "matrix-free":
        assert residual.max() > 1e-9  # looser than the default, so that the bound is a bound of something


@pytest.mark.parametrize("curvature", CURVATURES)
def test_residuals_see_a_wrong_factorisation(curvature, monkeypatch):
    """With eigenvalues 1 % too large the solution is that of 1.01 M, and its residual is measured with M itself."""
    exact = torch.linalg.eigh

    def wrong(matrix):
        values, vectors = exact(matrix)
        return (1.01 * values, vectors) if len(matrix.shape) != 3 else (values, vectors)

    data, others, checkpoints = linear_problem()
    written = linear_case(data, others, checkpoints)
    monkeypatch.setattr(torch.linalg, "eigh", wrong)

    def expected(t):
        reference = Reference(written, t, curvature)
        matrix, unit = reference.matrix, np.eye(reference.size)
        solved = np.linalg.solve(1.01 * matrix + 2 * unit, reference.sources.T)
        left = np.linalg.norm((matrix + 2 * unit) @ solved - reference.sources.T, axis=0)
        return left / np.linalg.norm(reference.sources, axis=1)

    with pytest.raises(
        SolveNotConverged, match=f"left a residual of {expected(0)[0]:.2g} for 'a', where rounding leaves"
    ):
        METHODS[curvature](data, written.checkpoints, damping=2.0)
    if curvature == "gauss-newton":  # whose dual is decomposed for every output at once, after the outputs themselves
        result = gauss_newton_influence(data, checkpoints, damping=2.0)
        for t in range(2):
            # Residuals of order 1e-3 from systems of condition below 1e3 and rounding of 1e-13.
            np.testing.assert_allclose(result["residual"].values[0, t], expected(t), rtol=1e-6)


def test_matrix_free_solves_for_the_fewer():
    case = make("tanh classes")
    few = hessian_influence(case.samples, case.checkpoints, damping=9.0, queries=case.queries, method="matrix-free")
    assert few["residual"].dims == ("damping", "epoch", "query")
    assert few["influence"].dims == ("damping", "epoch", "source", "query")
    one = hessian_influence(
        case.samples, case.checkpoints, damping=9.0, sources=["sample-4"], queries=case.queries, method="matrix-free"
    )
    assert one["residual"].dims == ("damping", "epoch", "source")
    reference = Reference(case, 1, "hessian")
    for result in (few, one):
        expected, error = reference.influence(9.0, reference.queries, rtol=1e-8)
        found = result["influence"].sel(source="sample-4").values[0, 1]
        assert_within(found, expected[4], error[4])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_gradients_and_samples_go_through_in_blocks(curvature, engine):
    """One byte allows one sample, one vector and one source at a time."""
    case = make("sigmoid regression")
    settings = {"damping": [9.0, 12.0], "queries": case.queries, "method": engine, "max_memory": 1}
    result = METHODS[curvature](case.samples, case.checkpoints, **settings)
    kernel = gradient_kernel(case.samples, case.checkpoints, queries=case.queries, max_memory=1)
    for t in range(2):
        reference = Reference(case, t, curvature)
        for d, damping in enumerate((9.0, 12.0)):
            expected = reference.influence(damping, reference.queries, rtol=1e-8)
            assert_within(result["influence"].values[d, t], *expected)
        expected = reference.sources @ reference.queries.T
        np.testing.assert_allclose(kernel.values[t], expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_kernel_is_that_of_autograd(name):
    case = make(name)
    kernel = gradient_kernel(case.samples, case.checkpoints, queries=case.queries, sources=["sample-2", "sample-0"])
    assert kernel.dims == ("epoch", "source", "query")
    assert kernel["source"].values.tolist() == ["sample-2", "sample-0"]
    assert kernel["query"].values.tolist() == list(case.queries.names)
    for t in range(2):
        reference = Reference(case, t, "hessian")
        expected = reference.sources[[2, 0]] @ reference.queries.T
        norms = [np.linalg.norm(g, axis=1) for g in (reference.sources[[2, 0]], reference.queries)]
        error = reference.gradient_error * np.add.outer(*norms) + 2 * reference.size * EPS * np.outer(*norms)
        assert_within(kernel.values[t], expected, 1.01 * error)


# --- the linear network's own engine ----------------------------------------------------------------------------


def linear_problem(n=5, p=3, o=4, h=9, seed=0):
    rng = np.random.default_rng(seed)
    data = Dataset(rng.normal(size=(n, p)), rng.normal(size=(n, o)), tuple("abcdefgh"[:n]))
    others = Dataset(rng.normal(size=(2, p)), rng.normal(size=(2, o)), ("y", "z"))
    weights = torch.tensor(rng.normal(size=(2, h, p))), torch.tensor(rng.normal(size=(2, o, h)))
    return data, others, Checkpoints(np.array([0.0, 7.0]), *weights)


def linear_case(data, others, checkpoints):
    """Return the same network as a written case."""
    h, p, o = *checkpoints.w1.shape[1:], checkpoints.w2.shape[1]
    module = linear_as_module(checkpoints)
    case = make("sigmoid regression")
    return dataclasses.replace(
        case,
        checkpoints=module,
        samples=Samples.of(data),
        queries=Samples.of(others),
        outputs=lambda w, x: x @ w[: h * p].reshape(h, p).T @ w[h * p :].reshape(o, h).T,
        losses=half_squares,
        curved=identities,
    )


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 0.5, 2.0, 1.0]], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("curvature", CURVATURES)
def test_the_engines_agree_on_linear_networks(curvature, weights):
    """The reduced, the dense and the matrix-free engine, each within its bound of the written network's solve."""
    data, others, checkpoints = linear_problem()
    case = linear_case(data, others, checkpoints)
    beta = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    settings = {"damping": [0.4, 6.0], "sources": ["d", "b"], "weights": weights}
    module = case.checkpoints
    for queries in (None, others):
        runs = {
            "linear": METHODS[curvature](data, checkpoints, queries=queries, **settings),
            "linear, tensors": METHODS[curvature](
                case.samples, checkpoints, queries=None if queries is None else case.queries, **settings
            ),
            "dense": METHODS[curvature](data, module, queries=queries, method="dense", **settings),
            "matrix-free": METHODS[curvature](data, checkpoints, queries=queries, method="matrix-free", **settings),
        }
        for t in range(2):
            reference = Reference(case, t, curvature, beta)
            for d, damping in enumerate(settings["damping"]):
                asked = None if queries is None else reference.queries
                expected, error = reference.influence(damping, asked, rtol=1e-8)
                _, tight = reference.influence(damping, asked)
                for name, run in runs.items():
                    bound = error if name == "matrix-free" else tight
                    assert run["source"].values.tolist() == ["d", "b"]
                    assert_within(run["influence"].values[d, t], expected[[3, 1]], bound[[3, 1]])
                    assert run["residual"].max() <= 1e-8
    expected_engine = "dense" if curvature == "gauss-newton" and weights else "linear network"
    assert runs["linear"]["influence"].attrs["method"] == expected_engine


def test_spectra_of_the_engines_agree_in_the_paper_sized_network():
    """Inertia of 1150 parameters: idle units counted on one side, all eigenvalues found on the other."""
    data = hierarchical_dataset()
    rng = np.random.default_rng(1)
    checkpoints = Checkpoints(
        np.array([0.0]),
        torch.tensor(0.3 * rng.normal(size=(1, 50, 8))),
        torch.tensor(0.3 * rng.normal(size=(1, 15, 50))),
    )
    linear = hessian_influence(data, checkpoints, relative_damping=0.1)
    dense = hessian_influence(data, linear_as_module(checkpoints), relative_damping=0.1)
    free = hessian_influence(data, checkpoints, relative_damping=0.1, method="matrix-free")
    assert linear["negative_eigenvalues"].item() == dense["negative_eigenvalues"].item()
    for name in ("max_abs_eigenvalue", "min_eigenvalue"):
        size = dense["max_abs_eigenvalue"].item()
        assert linear[name].item() == pytest.approx(dense[name].item(), abs=1150 * 10 * EPS * size)
        assert free[name].item() == pytest.approx(dense[name].item(), abs=1e-6 * size)


# --- what the formula says: the derivative of a refit --------------------------------------------------------


def central(function, beta, i, step):
    up, down = beta.copy(), beta.copy()
    up[i] += step
    down[i] -= step
    return (function(up) - function(down)) / (2 * step)


def derivative(function, beta, i, step, rounding):
    """Return Richardson's extrapolation of two central differences, and a bound of its error.

    The plain difference at step/2 errs by a third of the distance of the two, to leading order; the extrapolation by
    less. `rounding` is the error of one value of `function`.
    """
    wide, narrow = central(function, beta, i, step), central(function, beta, i, step / 2)
    return (4 * narrow - wide) / 3, np.abs(wide - narrow) / 3 + 4 * rounding / step


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("beta", [np.ones(5), np.array([1.0, 0.0, 2.0, 0.5, 1.0])], ids=["unweighted", "weighted"])
def test_influence_is_the_derivative_of_the_ridge_refit(curvature, engine, beta):
    """At the minimum of L(w; beta) + lambda |w|^2 / 2, found by normal equations, for queries seen and not seen."""
    rng = np.random.default_rng(0)
    ridge, (x, y) = 0.3, (rng.normal(size=(7, 3)), rng.normal(size=(7, 2)))

    def fit(beta):
        weighted = x[:5].T * beta
        return np.linalg.solve(weighted @ x[:5] / 5 + ridge * np.eye(3), weighted @ y[:5] / 5).T

    def losses(beta):
        return 0.5 * ((y - x @ fit(beta).T) ** 2).sum(1)

    model = TorchModel(torch.nn.Linear(3, 2, bias=False).double())
    checkpoints = ModuleCheckpoints(np.array([0.0]), model, torch.tensor(fit(beta)).reshape(1, 6))
    samples = Samples(torch.tensor(x[:5]), torch.tensor(y[:5]))
    queries = Samples(torch.tensor(x), torch.tensor(y))
    settings = {"damping": ridge, "queries": queries, "weights": beta, "method": engine, "rtol": 1e-12}
    found = METHODS[curvature](samples, checkpoints, **settings)["influence"].values[0, 0]
    for i in range(5):
        # Losses of order 1 from systems of condition below 100: 1e3 EPS each.
        expected, error = derivative(losses, beta, i, 1e-3, 1e3 * EPS)
        assert np.all(error < 1e-5 * np.abs(expected).max())  # the comparison says something
        assert_within(found[i], expected, error + 1e-11)  # the solver's rtol times gradients of order 10


@pytest.mark.parametrize("engine", ENGINES)
def test_influence_is_the_derivative_of_the_regularised_logistic_refit(engine):
    """The same for classes; the minimum by Newton's method on the written loss, to a gradient of 1e-14."""
    case = make("tanh classes")
    ridge, n = 0.05, 6
    case = dataclasses.replace(case, outputs=lambda w, x: x @ w.reshape(3, 4).T)

    def fit(beta):
        w, b = torch.zeros(12, dtype=torch.float64), torch.tensor(beta)
        for _ in range(12):
            slope = (b @ case.gradients(w)) / n + ridge * w
            w = w - torch.linalg.solve(case.matrix("hessian", w, b) + ridge * torch.eye(12).double(), slope)
        assert slope.norm() < 1e-14
        return w

    def losses(beta):
        return case.written_losses(case.queries)(fit(beta)).numpy()

    beta = np.array([1.0, 0.5, 1.0, 2.0, 1.0, 0.1])
    model = TorchModel(torch.nn.Linear(4, 3, bias=False).double(), CROSS_ENTROPY)
    checkpoints = ModuleCheckpoints(np.array([0.0]), model, fit(beta)[None])
    settings = {"damping": ridge, "queries": case.queries, "weights": beta, "method": engine, "rtol": 1e-12}
    for influence_of in METHODS.values():  # logits are linear in the weights, so both curvatures are the same
        found = influence_of(case.samples, checkpoints, **settings)["influence"].values[0, 0]
        for i in range(n):
            # The gradient's 1e-14 over the ridge of 0.05, times gradients of order 10.
            expected, error = derivative(losses, beta, i, 1e-3, 1e-11)
            assert np.all(error < 1e-4 * np.abs(expected).max())
            assert_within(found[i], expected, error + 1e-11)


# --- choice of the method, labels --------------------------------------------------------------------------------


def test_the_method_is_chosen_by_size(monkeypatch):
    """43 parameters, 6 samples of 3 outputs: H holds 43^2 numbers, the rows that span G 43 x 18."""
    case = make("tanh classes")

    def engine(influence_of, **settings):
        return influence_of(case.samples, case.checkpoints, damping=50.0, **settings)["influence"].attrs["method"]

    for influence_of, numbers, settings in (
        (hessian_influence, 43 * 43, {}),
        (gauss_newton_influence, 43 * 18, {}),
        (gauss_newton_influence, 43 * 18, {"queries": case.queries}),
    ):
        monkeypatch.setattr("numerics.curvature.classical_influence._DENSE_NUMBERS", numbers)
        assert engine(influence_of, **settings) == "dense"
        monkeypatch.setattr("numerics.curvature.classical_influence._DENSE_NUMBERS", numbers - 1)
        assert engine(influence_of, **settings) == "matrix-free"
        assert engine(influence_of, method="dense", **settings) == "dense"


def test_a_module_of_one_parameter():
    """With (w x - y)^2 / 2 at x = 2, y = 1, w = 3: g = 10, H = 4, influence -100 / (4 + 1)."""
    model = TorchModel(torch.nn.Linear(1, 1, bias=False).double())
    checkpoints = ModuleCheckpoints(np.array([0.0]), model, torch.tensor([[3.0]]).double())
    samples = Samples(torch.tensor([[2.0]]), torch.tensor([[1.0]]))
    for influence_of in METHODS.values():
        for engine in ENGINES:
            result = influence_of(samples, checkpoints, damping=1.0, method=engine)
            assert result["influence"].item() == pytest.approx(-20, rel=1e-14)
            assert result["smallest_damped"].item() == pytest.approx(5, rel=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("influence_of", METHODS.values())
def test_result_is_labelled(influence_of, engine):
    case = make("embedding")
    seen = []
    result = influence_of(
        case.samples,
        case.checkpoints,
        relative_damping=[2.5, 3.0],
        sources=["sample-1", "sample-0"],
        queries=case.queries,
        method=engine,
        progress=seen.append,
    )
    assert seen == [1, 2]
    assert result["influence"].dims == ("damping", "epoch", "source", "query")
    assert result["damping"].values.tolist() == [2.5, 3.0]
    assert result["epoch"].values.tolist() == [0.0, 10.0]
    assert result["source"].values.tolist() == ["sample-1", "sample-0"]
    assert result["query"].values.tolist() == ["query-0", "query-1", "query-2"]
    assert result["residual"].dims == ("damping", "epoch", "source")
    assert result["smallest_damped"].dims == ("damping", "epoch")


def test_float32_weights_on_a_view_give_the_float64_answer():
    case = make("tanh classes")
    single = case.checkpoints.weights.float()
    spread = torch.stack([single, -single], dim=2)[..., 0]
    assert not spread[0].is_contiguous()
    model = TorchModel(case.checkpoints.model.module.float(), CROSS_ENTROPY)
    epochs = case.checkpoints.epochs
    found = hessian_influence(case.samples, ModuleCheckpoints(epochs, model, spread), damping=9.0)
    exact = make("tanh classes").checkpoints.model
    expected = hessian_influence(case.samples, ModuleCheckpoints(epochs, exact, single.double()), damping=9.0)
    assert found["influence"].dtype == np.float64
    assert np.array_equal(found["influence"], expected["influence"])


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_singular_curvature_is_refused(engine):
    """Without damping, more parameters than outputs leave the Gauss-Newton matrix singular."""
    case = make("tanh classes", n=2)
    with pytest.raises(IndefiniteCurvature, match=r"Gauss-Newton matrix \+ damping is singular at epoch 0: with damp"):
        gauss_newton_influence(case.samples, case.checkpoints, damping=[1.0, 0.0], method=engine)


def test_damping_that_cancels_an_eigenvalue_is_refused():
    case = make("tanh classes")
    lowest = Reference(case, 1, "hessian").eigenvalues.min()
    with pytest.raises(IndefiniteCurvature, match=r"H \+ damping is singular at epoch 10: with damping"):
        hessian_influence(case.samples, case.checkpoints, damping=[9.0, -lowest])
    with pytest.raises(SolveNotConverged, match=r"at epoch 10 MINRES left a residual of .* for 'sample-0'"):
        hessian_influence(case.samples, case.checkpoints, damping=[9.0, -lowest], method="matrix-free", rtol=1e-13)


def test_a_solve_that_stops_short_names_epoch_and_sample():
    case = make("tanh classes")
    lowest = Reference(case, 0, "hessian").eigenvalues.min()
    advice = rf"for 'query-0' .* after 2 iterations; .* Dampings above {-lowest:.3g} leave no negative eigenvalue"
    with pytest.raises(SolveNotConverged, match=f"at epoch 0 MINRES left .* {advice}"):
        hessian_influence(
            case.samples, case.checkpoints, damping=0.3, queries=case.queries, method="matrix-free", max_iterations=2
        )


def test_gradients_or_losses_that_are_not_finite_are_named():
    def made(loss):
        model = TorchModel(torch.nn.Linear(1, 1, bias=False).double(), loss)
        return ModuleCheckpoints(np.array([0.0, 5.0]), model, torch.tensor([[1.0], [0.0]]).double())

    samples = Samples(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [-1.0]]), ("plus", "minus"))
    logarithm = made(lambda f, y: torch.log(f[:, 0]))  # infinite at w = 0, the second checkpoint
    root = made(lambda f, y: f[:, 0].abs().sqrt())  # infinite slope there
    bend = made(lambda f, y: f[:, 0].abs() ** 1.5)  # infinite curvature there
    for influence_of in METHODS.values():
        with pytest.raises(ValueError, match="the loss of sample 'plus' is not finite at epoch 5; leave out"):
            influence_of(samples, logarithm, damping=1.0)
        with pytest.raises(ValueError, match="the gradient of the loss of sample 'plus' is not finite at epoch 5"):
            influence_of(samples, root, damping=1.0)
        with pytest.raises(ValueError, match=r"is not finite at epoch 5: the loss or the module has no second deriv"):
            influence_of(samples, bend, damping=1.0)


def test_a_kink_has_the_curvature_of_its_sides():
    """Absolute errors: no curvature but the damping, so the influence is that of the gradients, -+ 1 / N lambda."""
    model = TorchModel(torch.nn.Linear(1, 1, bias=False).double(), lambda f, y: (f - y).abs()[:, 0])
    checkpoints = ModuleCheckpoints(np.array([0.0]), model, torch.tensor([[2.0]]).double())
    samples = Samples(torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [4.0]]))
    for engine in ENGINES:
        found = hessian_influence(samples, checkpoints, damping=0.5, method=engine)["influence"].values[0, 0]
        np.testing.assert_allclose(found, [[-1, 1], [1, -1]], rtol=1e-14)
        with pytest.raises(ValueError, match="H is zero at epoch 0, so a damping relative to it is zero too"):
            hessian_influence(samples, checkpoints, relative_damping=0.5, method=engine)


@pytest.mark.parametrize("influence_of", METHODS.values())
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({}, ValueError, "give either damping or relative_damping"),
        ({"damping": -1.0}, ValueError, "damping must not be negative, but its smallest entry is -1.0"),
        ({"damping": 1.0, "sources": []}, ValueError, "sources is empty; name at least one sample"),
        ({"damping": 1.0, "sources": ["sample-1"] * 2}, ValueError, "sources names 'sample-1' twice"),
        ({"damping": 1.0, "sources": ["dog"]}, KeyError, "no sample is called 'dog'"),
        ({"damping": 1.0, "weights": [1.0, 1.0]}, ValueError, r"weights has shape \(2,\), but the data set has 6"),
        ({"damping": 1.0, "weights": [-1.0] * 6}, ValueError, "weights must not be negative"),
        ({"damping": 1.0, "method": "cg"}, ValueError, "method must be one of 'dense', 'matrix-free', but 'cg'"),
        ({"damping": 1.0, "method": "matrix-free", "rtol": 0.0}, ValueError, "rtol must be a positive number"),
    ],
)
def test_bad_input_is_refused(influence_of, arguments, error, match):
    case = make("tanh classes")
    with pytest.raises(error, match=match):
        influence_of(case.samples, case.checkpoints, **arguments)


@pytest.mark.parametrize("estimator", [gradient_kernel, hessian_influence, gauss_newton_influence])
def test_samples_that_do_not_fit_are_refused(estimator):
    constants = {} if estimator is gradient_kernel else {"damping": 1.0}
    case, (data, _, checkpoints) = make("tanh classes"), linear_problem()
    wide = Samples(torch.zeros(2, 9), torch.zeros(2).long())
    for samples, queries in ((wide, None), (case.samples, wide)):
        with pytest.raises(ValueError, match=r"cannot evaluate inputs of shape \(2, 9\)"):
            estimator(samples, case.checkpoints, queries=queries, **constants)
    with pytest.raises(ValueError, match="the network maps 3 inputs to 4 outputs, but the data set has 8 inputs"):
        estimator(data, checkpoints, queries=hierarchical_dataset(), **constants)
    with pytest.raises(ValueError, match="sources names 'a' twice"):
        estimator(data, checkpoints, sources=["a", "a"], **constants)
