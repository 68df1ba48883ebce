"""The derivative of runs with batches, momentum, decay, Adam and schedules: autograd through the run, retraining."""

import functools

import numpy as np
import pytest
import torch

from numerics import (
    SGD,
    Adam,
    AdamW,
    CosineDecay,
    LinearNetwork,
    NotDifferentiable,
    Optimiser,
    Query,
    Samples,
    TorchModel,
    TrainingConfig,
    batch_order,
    initial_weights,
    leave_one_out,
    log_odds,
    train,
    unrolled_influence,
)
from numerics.training.train import descent_of
from numerics.training.unrolled_influence import backward_sweep, differentiable, forward_sweep, neighbourhood
from theory import Dataset

EPS = np.finfo(float).eps
CROSS_ENTROPY = functools.partial(torch.nn.functional.cross_entropy, reduction="none")
EPOCHS, N, EVERY = 6, 7, 2


def sgd(w, g, memory, rate, t, momentum=0.0, nesterov=False, decay=0.0):
    g = g + decay * w
    b = momentum * memory[0] + g
    return w - rate * (g + momentum * b if nesterov else b), [b, None]


def adam(w, g, memory, rate, t, betas=(0.9, 0.999), eps=1e-8, decay=0.0, decoupled=False):
    if decoupled:
        w = w * (1 - rate * decay)
    else:
        g = g + decay * w
    m = betas[0] * memory[0] + (1 - betas[0]) * g
    s = betas[1] * memory[1] + (1 - betas[1]) * g * g
    return w - rate * (m / (1 - betas[0] ** (t + 1))) / ((s / (1 - betas[1] ** (t + 1))).sqrt() + eps), [m, s]


RULES = {
    "SGD": (SGD(), sgd, 0.1),
    "momentum": (SGD(momentum=0.8, weight_decay=0.05), functools.partial(sgd, momentum=0.8, decay=0.05), 0.05),
    "nesterov": (SGD(0.7, True, 0.1), functools.partial(sgd, momentum=0.7, nesterov=True, decay=0.1), 0.05),
    "Adam": (Adam(eps=0.05), functools.partial(adam, eps=0.05), 0.02),
    "Adam with decay": (
        Adam((0.8, 0.95), 0.02, 0.1),
        functools.partial(adam, betas=(0.8, 0.95), eps=0.02, decay=0.1),
        0.02,
    ),
    "AdamW": (AdamW(), functools.partial(adam, decay=0.01, decoupled=True), 0.002),
}
SCHEDULE = CosineDecay(warmup=3)


def settings(rule, batch_size):
    return TrainingConfig(
        hidden=4, sigma=0.4, lr=RULES[rule][2], epochs=EPOCHS, checkpoint_every=EVERY, seed=3,
        batch_size=batch_size, optimiser=RULES[rule][0], schedule=SCHEDULE,
    )  # fmt: skip


def module_problem():
    generator = torch.Generator().manual_seed(1)

    def samples(n, name):
        inputs = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        return Samples(inputs, torch.randint(3, (n,), generator=generator), tuple(f"{name}{i}" for i in range(n)))

    data, queries = samples(N, "train-"), samples(2, "test-")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()

    def each(state, inputs, targets):
        a, c, b, d = state
        return CROSS_ENTROPY(torch.tanh(inputs @ a.T + c) @ b.T + d, targets)

    start = [p.detach().clone().requires_grad_() for p in module.parameters()]
    return data, queries, {"model": TorchModel(module, CROSS_ENTROPY)}, start, each, 1.0


def linear_problem():
    rng = np.random.default_rng(0)
    data = Dataset(rng.normal(size=(N, 3)), rng.normal(size=(N, 4)))
    queries = Dataset(rng.normal(size=(2, 3)), rng.normal(size=(2, 4)))
    start = [w.clone().requires_grad_() for w in initial_weights(data, hidden=4, sigma=0.4, seed=3)]

    def each(state, inputs, targets):
        return 0.5 * (targets - inputs @ state[0].T @ state[1].T).square().sum(1)

    return data, queries, {}, start, each, 2 / 4


PROBLEMS = {"module": module_problem(), "linear": linear_problem()}


def by_autograd(case, rule, batch_size):
    """Differentiate the run as one expression: shape (epoch of exposure, checkpoint, source, query)."""
    data, queries, _, start, each, scale = PROBLEMS[case]
    x, y, xq, yq = (v for s in (data, queries) for v in (Samples.of(s).inputs, Samples.of(s).targets))
    per_epoch = -(-N // (batch_size or N))

    def losses(beta):
        state, memory = start, [[torch.zeros_like(w)] * 2 for w in start]
        kept = []
        for epoch in range(EPOCHS + 1):
            if epoch % EVERY == 0:
                kept.append(each(state, xq, yq))
            if epoch == EPOCHS:
                break
            batches = batch_order(N, batch_size, epoch, 3) if batch_size else [np.arange(N)]
            for k, batch in enumerate(batches):
                t = epoch * per_epoch + k
                risk = scale * (beta[epoch][batch] * each(state, x[batch], y[batch])).mean()
                gradients = torch.autograd.grad(risk, state, create_graph=True)
                rate = RULES[rule][2] * SCHEDULE(t, EPOCHS * per_epoch)
                moved = [RULES[rule][1](w, g, m, rate, t) for w, g, m in zip(state, gradients, memory, strict=True)]
                state, memory = [w for w, _ in moved], [m for _, m in moved]
        return torch.stack(kept)

    jacobian = torch.autograd.functional.jacobian(losses, torch.ones(EPOCHS, N, dtype=torch.float64))
    return jacobian.permute(2, 0, 3, 1).numpy()


def bound(rule, scale):
    """Return what 18 steps of a hundred roundings come to, amplified by 1 / eps where Adam divides by small roots."""
    amplification = 1e4 if rule == "AdamW" else 10.0
    return 18 * 100 * EPS * amplification * scale


@pytest.mark.parametrize("batch_size", [3, None])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", PROBLEMS)
def test_it_is_the_derivative_that_autograd_finds_through_the_run(case, rule, batch_size):
    data, queries, keywords, *_ = PROBLEMS[case]
    config, expected = settings(rule, batch_size), by_autograd(case, rule, batch_size)
    scale = np.abs(expected).max()
    assert scale > 1e-3
    every = unrolled_influence(data, config, queries=queries, exposure_every=1, **keywords)
    np.testing.assert_allclose(every, expected, rtol=0, atol=bound(rule, scale))
    descent = differentiable(descent_of(data, config, queries=queries, **keywords))
    for sweep in (forward_sweep, backward_sweep):
        found = sweep(descent, neighbourhood(descent, [4, 1]), config, np.array([0, 4]), 2)
        parts = np.add.reduceat(expected, [0, 4], axis=0)[:, :, [4, 1]]
        np.testing.assert_allclose(found, parts, rtol=0, atol=bound(rule, scale))


@pytest.mark.parametrize("rule", ["momentum", "nesterov", "Adam", "AdamW"])
@pytest.mark.parametrize("case", PROBLEMS)
def test_it_is_the_limit_of_retraining(case, rule):
    """Central differences extrapolated to step 0 (Romberg); the last correction bounds the error of the result.

    Adam divides by roots of gradients that nearly vanish, so that only small changes of weight are in its linear range.
    """
    data, queries, keywords, *_ = PROBLEMS[case]
    config, first = settings(rule, 3), 1e-3 if "Adam" in rule else 0.1
    found = unrolled_influence(data, config, queries=queries, **keywords)

    def central(step):
        sides = [leave_one_out(data, config, epsilon=side * step, queries=queries, **keywords) for side in (1, -1)]
        return (sides[0] + sides[1]) / 2

    rough, middle, fine = (central(first / 2**k) for k in range(3))
    once, again = (4 * middle - rough) / 3, (4 * fine - middle) / 3
    correction = (again - once) / 15
    rounding = bound(rule, 10) / (first / 4)  # losses of order 10 and their roundings, divided by the smallest step
    assert abs(correction).max() < 1e-3 * abs(found).max()
    assert abs(found - again - correction).max() <= abs(correction).max() + rounding


@pytest.mark.parametrize("max_memory", [1.0, 1e4])
def test_small_memory_changes_roundings_only(max_memory):
    data, queries, keywords, *_ = PROBLEMS["module"]
    for stretch in (None, 1):
        config = settings("momentum", 3)
        tight = TrainingConfig(**{**vars(config), "max_memory": max_memory})
        plenty, scarce = (
            unrolled_influence(data, c, queries=queries, exposure_every=stretch, **keywords) for c in (config, tight)
        )
        np.testing.assert_allclose(scarce, plenty, rtol=0, atol=bound("momentum", 1.0))


class Choosy(torch.nn.Module):
    """Takes a branch by the numbers it sees, which torch.func cannot batch over weights."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, inputs):
        outputs = self.module(inputs)
        return outputs if float(outputs.detach().sum()) > -1e9 else -outputs


def test_modules_that_cannot_be_batched_are_differentiated_in_turn():
    data, queries, keywords, *_ = PROBLEMS["module"]
    choosy = TorchModel(Choosy(keywords["model"].module), CROSS_ENTROPY)
    for stretch in (None, 1):
        config = settings("momentum", 3)
        found = unrolled_influence(data, config, queries=queries, exposure_every=stretch, model=choosy)
        expected = unrolled_influence(data, config, queries=queries, exposure_every=stretch, **keywords)
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound("momentum", 1.0))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("case", PROBLEMS)
def test_anything_may_be_asked(case, plain):
    """A measure of outputs and a function of the weights, against central differences (error step^2, roundings)."""
    data, _, keywords, *_ = PROBLEMS[case]
    others = Samples(torch.eye(3, dtype=torch.float64), torch.tensor([0, 2, 1]), ("a", "b", "c"))
    asked = [Query(others, log_odds), {"size": lambda p: sum(v.square().sum() for v in p.values())}]
    config = settings("momentum", 3)
    if plain:
        config = TrainingConfig(hidden=4, sigma=0.4, lr=0.1, epochs=6, checkpoint_every=2, seed=3)
    found = unrolled_influence(data, config, queries=asked, **keywords)
    assert list(found["query"].values) == ["a", "b", "c", "size"]
    assert found.attrs["long_name"] == "influence on log_odds, function of the parameters"
    step = 1e-3
    sides = [leave_one_out(data, config, epsilon=side * step, queries=asked, **keywords) for side in (1, -1)]
    scale = float(abs(found).max())
    np.testing.assert_allclose(found, sum(sides) / 2, rtol=0, atol=10 * step**2 * scale + 1e-12 / step)
    for name in ("a", "size"):
        assert abs(found.sel(query=name)).max() > 1e-3


def test_a_linear_network_with_momentum_is_the_module_it_is():
    data, queries, *_ = PROBLEMS["linear"]
    w1, w2 = initial_weights(data, hidden=4, sigma=0.4, seed=3)
    config = TrainingConfig(hidden=4, sigma=0.4, lr=0.1, epochs=8, checkpoint_every=4, seed=3, optimiser=SGD(0.9))
    scaled = TrainingConfig(lr=2 * 0.1 / 4, epochs=8, checkpoint_every=4, optimiser=SGD(0.9))
    linear = unrolled_influence(data, config, queries=queries)
    module = unrolled_influence(data, scaled, queries=queries, model=TorchModel(LinearNetwork(w1, w2)))
    np.testing.assert_allclose(linear, module, rtol=0, atol=bound("momentum", 1.0))


class Signs(Optimiser):
    """Steps of the size of the rate."""

    @property
    def memories(self):
        return 0

    def step(self, weights, gradient, memory, rate, count):
        weights.sub_(gradient.sign(), alpha=rate)


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_rule_without_derivative_is_refused_by_name_before_any_step(case):
    data, _, keywords, *_ = PROBLEMS[case]
    config = TrainingConfig(hidden=4, lr=0.01, epochs=3, optimiser=Signs())
    assert train(data, config, **keywords).losses.shape == (2, N)
    done = []
    with pytest.raises(NotDifferentiable, match="Signs has no derivative, so a run with it cannot be unrolled"):
        unrolled_influence(data, config, progress=done.append, **keywords)
    assert done == []
