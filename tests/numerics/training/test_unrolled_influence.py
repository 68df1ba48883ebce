"""The derivative of a training run against autograd through the whole run, retraining, and the flow's closed form."""

import functools

import numpy as np
import pytest
import torch

from numerics import (
    LinearNetwork,
    Samples,
    TorchModel,
    TrainingConfig,
    TrainingDiverged,
    initial_weights,
    leave_one_out,
    retrain,
    unrolled_influence,
)
from numerics.training.train import descent_of
from numerics.training.unrolled_influence import backward_sweep, forward_sweep, neighbourhood
from theory import Dataset, Modes, exposure_kernel, hierarchical_dataset, influence_trajectory
from theory.dynamics.singular_modes import singular_modes

EPS = np.finfo(float).eps
CONFIG = TrainingConfig(hidden=6, sigma=0.3, lr=0.1, epochs=24, checkpoint_every=10, seed=3)
CROSS_ENTROPY = functools.partial(torch.nn.functional.cross_entropy, reduction="none")


def general_data(n=5, seed=0):
    rng = np.random.default_rng(seed)
    return Dataset(rng.normal(size=(n, 3)), rng.normal(size=(n, 4)))


def linear_problem():
    """Return data, queries outside them, keywords, and a function of epochs x weights that autograd runs through."""
    data, queries = general_data(), general_data(2, seed=9)
    w1, w2 = initial_weights(data, hidden=6, sigma=0.3, seed=3)

    def losses(beta, asked):
        a, b = w1, w2
        x, y, xq, yq = (torch.tensor(v) for v in (data.inputs, data.targets, asked.inputs, asked.targets))
        kept = []
        for epoch in range(CONFIG.epochs + 1):
            if epoch in CONFIG.checkpoint_epochs:
                kept.append(0.5 * (yq - xq @ a.T @ b.T).square().sum(1))
            if epoch < CONFIG.epochs:
                error = (y - x @ a.T @ b.T) * beta[epoch][:, None] * (2 * CONFIG.lr / y.numel())
                a, b = a + b.T @ error.T @ x, b + error.T @ (x @ a.T)
        return torch.stack(kept)

    return data, queries, {}, losses


def module_problem():
    generator = torch.Generator().manual_seed(1)

    def samples(n, name):
        inputs = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        return Samples(inputs, torch.randint(3, (n,), generator=generator), tuple(f"{name}{i}" for i in range(n)))

    data, queries = samples(5, "train-"), samples(2, "test-")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()

    def losses(beta, asked):
        state = [p.detach().clone().requires_grad_() for p in module.parameters()]
        kept = []

        def forward(inputs):
            a, c, b, d = state
            return torch.tanh(inputs @ a.T + c) @ b.T + d

        for epoch in range(CONFIG.epochs + 1):
            if epoch in CONFIG.checkpoint_epochs:
                kept.append(CROSS_ENTROPY(forward(asked.inputs), asked.targets))
            if epoch < CONFIG.epochs:
                risk = (beta[epoch] * CROSS_ENTROPY(forward(data.inputs), data.targets)).mean()
                gradient = torch.autograd.grad(risk, state, create_graph=True)
                state = [p - CONFIG.lr * g for p, g in zip(state, gradient, strict=True)]
        return torch.stack(kept)

    return data, queries, {"model": TorchModel(module, CROSS_ENTROPY)}, losses


PROBLEMS = {"linear": linear_problem(), "module": module_problem()}


def by_autograd(losses, asked):
    """Differentiate the run as one expression: shape (epoch of exposure, checkpoint, source, query)."""
    jacobian = torch.autograd.functional.jacobian(
        lambda beta: losses(beta, asked), torch.ones(CONFIG.epochs, 5, dtype=torch.float64)
    )
    return jacobian.permute(2, 0, 3, 1).numpy()


# Two orders of summation of at most 24 epochs' products of numbers of order one, in a run that does not amplify.
ROUNDING = 24 * 100 * EPS


@pytest.mark.parametrize("case", PROBLEMS)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["training set", "other queries"])
def test_it_is_the_derivative_that_autograd_finds_through_the_run(case, elsewhere):
    data, queries, keywords, losses = PROBLEMS[case]
    asked = queries if elsewhere else data
    expected = by_autograd(losses, asked)
    whole = unrolled_influence(data, CONFIG, queries=asked, **keywords)
    assert whole.dims == ("epoch", "source", "query")
    assert (list(whole["source"].values), list(whole["query"].values)) == (list(data.names), list(asked.names))
    np.testing.assert_allclose(whole, expected.sum(0), rtol=0, atol=ROUNDING)
    every = unrolled_influence(data, CONFIG, queries=asked, exposure_every=1, **keywords)
    assert every.dims == ("exposure", "epoch", "source", "query")
    np.testing.assert_allclose(every, expected, rtol=0, atol=ROUNDING)
    assert abs(whole).max() > 0.01


@pytest.mark.parametrize("case", PROBLEMS)
@pytest.mark.parametrize("stretch", [1, 7, 24])
@pytest.mark.parametrize("sweep", [forward_sweep, backward_sweep])
def test_both_directions_give_every_stretch_its_part(case, stretch, sweep):
    data, queries, keywords, losses = PROBLEMS[case]
    exposures, sources = np.arange(0, CONFIG.epochs, stretch), [4, 1]
    descent = descent_of(data, CONFIG, queries=queries, **keywords)
    done = []
    found = sweep(descent, neighbourhood(descent, sources), CONFIG, exposures, 2, done.append)
    expected = np.add.reduceat(by_autograd(losses, queries), exposures, axis=0)[:, :, sources]
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)
    assert done == sorted(done)
    assert done[-1] == CONFIG.epochs


@pytest.mark.parametrize("case", PROBLEMS)
def test_it_is_the_limit_of_retraining(case):
    """Central differences extrapolated to step 0 (Romberg); the last correction bounds the error of the result."""
    data, queries, keywords, _ = PROBLEMS[case]
    found = unrolled_influence(data, CONFIG, queries=queries, **keywords)

    def central(step):
        sides = [leave_one_out(data, CONFIG, epsilon=side * step, queries=queries, **keywords) for side in (1, -1)]
        return (sides[0] + sides[1]) / 2

    rough, middle, fine = (central(0.1 / 2**k) for k in range(3))
    once, again = (4 * middle - rough) / 3, (4 * fine - middle) / 3
    correction = (again - once) / 15
    # Losses of order 10 to 24 epochs' rounding, divided by the smallest step.
    rounding = 24 * 10 * EPS / 0.025
    assert abs(correction).max() < 1e-6
    assert abs(found - again - correction).max() <= abs(correction).max() + rounding


@pytest.mark.parametrize("case", PROBLEMS)
def test_exposure_is_the_limit_of_a_brief_change_of_weight(case):
    data, queries, keywords, _ = PROBLEMS[case]
    found = unrolled_influence(data, CONFIG, queries=queries, exposure_every=1, sources=[data.names[2]], **keywords)
    step = 1e-3
    for epoch in (0, 11, 23):
        bumped = np.ones((2, CONFIG.epochs, 5))
        bumped[:, epoch, 2] += [step, -step]
        losses = retrain(data, {"up": bumped[0], "down": bumped[1]}, CONFIG, queries=queries, **keywords)
        expected = (losses.sel(run="up") - losses.sel(run="down")) / (2 * step)
        # One epoch's step is small, so the third derivative is below the first: step^2 of it, and rounding as above.
        bound = step**2 * float(abs(expected).max()) + 24 * 10 * EPS / step
        assert abs(found.isel(exposure=epoch, source=0) - expected).max() <= bound


def test_a_linear_network_as_a_module_has_the_same_influence():
    data, queries, _, _ = PROBLEMS["linear"]
    w1, w2 = initial_weights(data, hidden=6, sigma=0.3, seed=3)
    model = TorchModel(LinearNetwork(w1, w2))
    config = TrainingConfig(lr=2 * CONFIG.lr / 4, epochs=24, checkpoint_every=10)
    module = unrolled_influence(data, config, model=model, queries=queries, exposure_every=5)
    linear = unrolled_influence(data, CONFIG, queries=queries, exposure_every=5)
    np.testing.assert_allclose(module, linear, rtol=0, atol=ROUNDING)
    given = torch.cat([w1.flatten(), w2.flatten()])
    zeros = TorchModel(LinearNetwork(torch.zeros_like(w1), torch.zeros_like(w2)))
    again = unrolled_influence(data, config, model=zeros, initial=given, queries=queries, exposure_every=5)
    np.testing.assert_array_equal(again, module)
    assert module.attrs["model"] == "LinearNetwork"
    assert linear.attrs["exposure_every"] == 5


def test_later_exposure_has_no_influence_and_stretches_sum_to_the_whole():
    data = hierarchical_dataset()
    config = TrainingConfig(epochs=3000, checkpoint_every=1000)
    parts = unrolled_influence(data, config, exposure_every=300)
    whole = unrolled_influence(data, config)
    assert np.array_equal(parts["exposure"], np.arange(0, 3000, 300))
    for epoch in config.checkpoint_epochs:
        assert not parts.sel(epoch=epoch, exposure=parts["exposure"] >= epoch).any()
    # 3000 epochs' rounding of tangents that grow together with the loss differences they give.
    np.testing.assert_allclose(parts.sum("exposure"), whole, rtol=0, atol=3000 * EPS * float(abs(whole).max()))


def test_small_steps_approach_the_closed_form_of_the_flow():
    """From balanced aligned weights; Euler's method is first order, so half the step leaves half the deviation."""
    data = hierarchical_dataset(levels=2)
    u, s, v = singular_modes(data.syx)
    strengths = np.full(4, 1e-2)
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 4)))[0]
    w1, w2 = frame * np.sqrt(strengths) @ v.T, u * np.sqrt(strengths) @ frame.T
    errors = []
    for lr, epochs in ((0.2, 200), (0.1, 400)):
        tau = 4 * 7 / (2 * lr)
        config = TrainingConfig(lr=lr, epochs=epochs, checkpoint_every=epochs // 4)
        modes = Modes(u, s, v, strengths)
        exact = influence_trajectory(data, config.checkpoint_epochs, tau=tau, g0=modes, formula="sample-weight")
        whole = unrolled_influence(data, config, w1=w1, w2=w2)
        stretch = epochs // 40
        parts = unrolled_influence(data, config, w1=w1, w2=w2, exposure_every=stretch)
        middles = parts["exposure"].values + stretch / 2
        kernel = exposure_kernel(data, config.checkpoint_epochs, middles, tau=tau, g0=modes) * stretch
        errors.append((abs(whole - exact).max(), np.abs(parts.values - kernel.values).max()))
        scale = float(abs(exact).max()), float(abs(kernel).max())
    assert errors[0][0] / errors[1][0] == pytest.approx(2, rel=0.2)
    # First order in the step 1 / tau with s <= 2.7 over about four time constants; the midpoint rule for stretches of
    # a fixed share of tau leaves (s * 5 / 140)^2 / 3 of the kernel beside it.
    assert errors[1][0] < 2.7 / tau * 4 * 2 * scale[0]
    assert errors[1][1] < (2.7 / tau * 4 * 2 + (2.7 * 10 / tau) ** 2) * scale[1]


def test_a_loss_without_curvature_is_carried_too():
    samples = Samples(torch.eye(3, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64))
    model = TorchModel(torch.nn.Linear(3, 1).double(), lambda outputs, targets: (outputs * targets)[:, 0])
    config = TrainingConfig(lr=0.3, epochs=4, checkpoint_every=2)
    with torch.no_grad():
        found = unrolled_influence(samples, config, model=model, exposure_every=1)
    # l_i = w_i + b: one exposure of i moves w_i and b by -0.3 / 3, hence l_j by -0.1 (delta_ij + 1).
    expected = -0.1 * (np.eye(3) + 1)
    np.testing.assert_allclose(found.sel(epoch=4), np.broadcast_to(expected, (4, 3, 3)), atol=4 * EPS)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"exposure_every": 0}, ValueError, "exposure_every must be at least 1"),
        ({"sources": []}, ValueError, "sources is empty"),
        ({"sources": ["sample-1", "sample-1"]}, ValueError, "sources names 'sample-1' twice"),
        ({"sources": ["dog"]}, KeyError, "no sample is called 'dog'"),
        ({"queries": hierarchical_dataset()}, ValueError, "queries have inputs of shape"),
        ({"config": TrainingConfig(hidden=6, sigma=1.0, lr=50.0, epochs=400)}, TrainingDiverged, "not finite at epoch"),
        ({"initial": np.zeros(3)}, ValueError, "initial is a module's"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bad_input_is_refused(change, error, match):
    with pytest.raises(error, match=match):
        unrolled_influence(**({"dataset": general_data(), "config": CONFIG} | change))
