"""Training by mini-batches with any optimiser against loops over torch.optim, and influence from it."""

import copy
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
    Query,
    Samples,
    TorchModel,
    TrainingConfig,
    batch_order,
    initial_weights,
    leave_one_out,
    margin,
    retrain,
    timed_ablation,
    train,
)
from theory import Dataset

EPS = np.finfo(float).eps
CROSS_ENTROPY = functools.partial(torch.nn.functional.cross_entropy, reduction="none")
OPTIMISERS = {
    "SGD": (SGD(), torch.optim.SGD, {}),
    "momentum": (SGD(0.9, True, 0.02), torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.02}),
    # A large eps: steps depend smoothly on gradients that nearly vanish, so that roundings are not amplified.
    "Adam": (Adam(eps=1e-3, weight_decay=0.1), torch.optim.Adam, {"eps": 1e-3, "weight_decay": 0.1}),
    "AdamW": (AdamW(eps=1e-3, weight_decay=0.1), torch.optim.AdamW, {"eps": 1e-3, "weight_decay": 0.1}),
}
# At most 12 epochs of 3 steps, each a few hundred operations on numbers of order one, amplified by 1 / eps of Adam.
ROUNDING = 36 * 100 * EPS * 1e3


def config(optimiser="momentum", **changes):
    settings = {"lr": 0.05, "epochs": 12, "checkpoint_every": 4, "batch_size": 3, "schedule": CosineDecay(2), "seed": 7}
    return TrainingConfig(optimiser=OPTIMISERS[optimiser][0], **(settings | changes))


def classes(n=8, seed=0, name="s"):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return Samples(inputs, torch.randint(3, (n,), generator=generator), tuple(f"{name}{i}" for i in range(n)))


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()


MODEL = TorchModel(network(), CROSS_ENTROPY)
DATA, OTHERS = classes(), classes(3, seed=5, name="q")


def torch_loop(module, risk, settings, optimiser, measure, n):
    """Train with torch.optim on the batches of `batch_order`; return what is measured at every epoch."""
    _, theirs, keywords = OPTIMISERS[optimiser]
    optimiser = theirs(module.parameters(), lr=settings.lr, **keywords)
    steps = settings.epochs * -(-n // (settings.batch_size or n))
    factor = settings.schedule or (lambda t, T: 1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: factor(t, steps))
    history = []
    for epoch in range(settings.epochs):
        history.append(measure(module))
        batches = batch_order(n, settings.batch_size, epoch, settings.seed) if settings.batch_size else [range(n)]
        for batch in batches:
            optimiser.zero_grad()
            risk(module, list(batch), epoch).backward()
            optimiser.step()
            scheduler.step()
    history.append(measure(module))
    return np.array(history)


@torch.no_grad()
def losses(module, samples=OTHERS):
    return CROSS_ENTROPY(module(samples.inputs), samples.targets).numpy()


def weighted(beta):
    """Return the mean weighted loss of a batch, for weights of shape (n,) or (epochs, n)."""

    def risk(module, batch, epoch):
        row = torch.tensor(np.broadcast_to(beta, (12, 8))[epoch][batch])
        return (row * CROSS_ENTROPY(module(DATA.inputs[batch]), DATA.targets[batch])).mean()

    return risk


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("batch_size", [3, None])
def test_a_module_is_trained_as_by_torch(optimiser, batch_size):
    beta = np.random.default_rng(0).uniform(0, 2, size=(12, 8))
    settings = config(optimiser, batch_size=batch_size)
    found = train(DATA, settings, model=MODEL, weights=beta, queries=OTHERS)
    expected = torch_loop(network(), weighted(beta), settings, optimiser, losses, 8)
    np.testing.assert_allclose(found.losses, expected[[0, 4, 8, 12]], rtol=0, atol=ROUNDING)
    assert np.abs(expected[-1] - expected[0]).max() > 0.05
    assert found.losses.attrs.get("optimiser") == (None if optimiser == "SGD" else repr(settings.optimiser))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("batch_size", [3, None])
def test_a_linear_network_is_trained_as_by_torch(optimiser, batch_size):
    rng = np.random.default_rng(0)
    data = Dataset(rng.normal(size=(8, 3)), rng.normal(size=(8, 4)))
    settings = config(optimiser, batch_size=batch_size, hidden=9, sigma=0.3)
    x, y = torch.tensor(data.inputs), torch.tensor(data.targets)
    beta = rng.uniform(0, 2, size=8)

    def risk(module, batch, _):
        errors = torch.nn.functional.mse_loss(module(x[batch]), y[batch], reduction="none")
        return (torch.tensor(beta)[batch, None] * errors).mean()

    @torch.no_grad()
    def half_squares(module):
        return 0.5 * (module(x) - y).square().sum(1).numpy()

    module = LinearNetwork(*initial_weights(data, hidden=9, sigma=0.3, seed=7))
    expected = torch_loop(module, risk, settings, optimiser, half_squares, 8)
    found = train(data, settings, weights=beta)
    np.testing.assert_allclose(found.losses, expected[[0, 4, 8, 12]], rtol=0, atol=20 * ROUNDING)
    np.testing.assert_allclose(found.checkpoints.w1[-1], module.w1.detach(), rtol=0, atol=20 * ROUNDING)


@pytest.mark.parametrize("optimiser", ["momentum", "AdamW"])
def test_a_sample_left_out_keeps_its_place_in_the_order(optimiser):
    settings = config(optimiser)
    found = leave_one_out(DATA, settings, model=MODEL, sources=["s4", "s1"], queries=OTHERS)
    baseline = torch_loop(network(), weighted(np.ones(8)), settings, optimiser, losses, 8)
    for name, row in (("s4", 4), ("s1", 1)):
        without = torch_loop(network(), weighted(1.0 * (np.arange(8) != row)), settings, optimiser, losses, 8)
        expected = (baseline - without)[[0, 4, 8, 12]]
        np.testing.assert_allclose(found.sel(source=name), expected, rtol=0, atol=4 * ROUNDING)
    # Every batch that does not hold the sample takes the same step: nothing differs before its first batch.
    first = next(k for k, batch in enumerate(batch_order(8, 3, 0, 7)) if 4 in batch)
    assert first > 0
    early = config(optimiser, epochs=1, checkpoint_every=1)
    kept, left = (train(DATA, early, model=MODEL, weights=w).checkpoints.weights[-1] for w in _with_and_without(4))
    assert not torch.equal(kept, left)


def _with_and_without(row):
    return np.ones(8), 1.0 * (np.arange(8) != row)


@pytest.mark.parametrize("optimiser", ["momentum", "AdamW"])
def test_timed_ablation_goes_on_from_the_state_of_the_optimiser(optimiser):
    settings = config(optimiser)
    found = timed_ablation(DATA, settings, model=MODEL, window=3, every=4, sources=["s2"], queries=OTHERS)
    assert np.array_equal(found["epoch"], [0, 4, 8])
    baseline = torch_loop(network(), weighted(np.ones(8)), settings, optimiser, losses, 8)
    for start in (0, 4, 8):
        beta = np.ones((12, 8))
        beta[start : start + 3, 2] = 0.0
        ablated = torch_loop(network(), weighted(beta), settings, optimiser, losses, 8)
        expected = (baseline - ablated)[start : start + 3].sum(0)
        np.testing.assert_allclose(found.sel(epoch=start, source="s2"), expected, rtol=0, atol=6 * ROUNDING)


def test_the_order_is_drawn_from_the_seed_and_the_epoch_alone():
    batches = batch_order(10, 4, epoch=3, seed=5)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(np.concatenate(batches)) == list(range(10))
    again = batch_order(10, 4, epoch=3, seed=5)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    for other in (batch_order(10, 4, epoch=4, seed=5), batch_order(10, 4, epoch=3, seed=6)):
        assert not np.array_equal(np.concatenate(other), np.concatenate(batches))


def test_runs_of_several_seeds_have_orders_of_their_own():
    data = Dataset(np.random.default_rng(0).normal(size=(8, 3)), np.random.default_rng(1).normal(size=(8, 4)))
    for keywords in ({}, {"model": TorchModel(torch.nn.Linear(3, 4).double())}):
        settings = config("momentum", hidden=5, sigma=0.3)
        together = leave_one_out(data, settings, seeds=[4, 9], sources=["sample-1"], **keywords)
        for seed in (4, 9):
            alone = leave_one_out(data, config(hidden=5, sigma=0.3), seeds=[seed], sources=["sample-1"], **keywords)
            np.testing.assert_allclose(together.sel(seed=seed), alone.sel(seed=seed), rtol=0, atol=ROUNDING)
    # The same initial weights in another order of batches are another run.
    model, start = TorchModel(network(), CROSS_ENTROPY), TorchModel(network()).initial()
    runs = retrain(DATA, {"all": np.ones(8)}, config(), model=model, initial=torch.stack([start] * 2), seeds=[1, 2])
    assert abs(runs.sel(seed=1) - runs.sel(seed=2)).max() > 1e-4


def test_a_batch_of_everything_is_a_full_batch():
    whole = train(DATA, config(batch_size=None), model=MODEL).losses
    np.testing.assert_array_equal(train(DATA, config(batch_size=8), model=MODEL).losses, whole)
    np.testing.assert_array_equal(train(DATA, config(batch_size=100), model=MODEL).losses, whole)


@pytest.mark.parametrize("batch_size", [3, None])
def test_small_memory_changes_roundings_only(batch_size):
    few = {"batch_size": batch_size, "epochs": 2, "checkpoint_every": 1}
    plenty = leave_one_out(DATA, config(**few), model=MODEL, queries=OTHERS)
    for max_memory in (1.0, 2e4):
        tight = config(max_memory=max_memory, **few)
        found = leave_one_out(DATA, tight, model=MODEL, queries=OTHERS)
        np.testing.assert_allclose(found, plenty, rtol=0, atol=ROUNDING)


class Choosy(torch.nn.Module):
    """Takes a branch by the numbers it sees, which torch.func cannot batch over weights."""

    def __init__(self):
        super().__init__()
        self.layer = network()

    def forward(self, inputs):
        outputs = self.layer(inputs)
        return outputs if float(outputs.detach().sum()) > -1e9 else -outputs


def test_modules_that_cannot_be_batched_are_trained_in_turn():
    choosy = TorchModel(Choosy(), CROSS_ENTROPY)
    for measure in (leave_one_out, functools.partial(timed_ablation, window=3, every=4)):
        found = measure(DATA, config(), model=choosy, queries=OTHERS)
        expected = measure(DATA, config(), model=MODEL, queries=OTHERS)
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("linear", [False, True])
def test_anything_can_be_asked_of_the_runs(linear):
    rng = np.random.default_rng(0)
    data = Dataset(rng.normal(size=(8, 4)), rng.normal(size=(8, 3)))
    asked = [
        OTHERS if not linear else Query(Dataset(OTHERS.inputs.numpy(), rng.normal(size=(3, 3)), OTHERS.names)),
        Query(OTHERS, margin, ("m0", "m1", "m2")),
        {"size": lambda parameters: sum(p.square().sum() for p in parameters.values())},
    ]
    keywords = {} if linear else {"model": MODEL}
    settings = config("momentum", hidden=5, sigma=0.3)
    found = retrain(data if linear else DATA, {"all": np.ones(8)}, settings, queries=asked, **keywords)
    assert list(found["query"].values) == ["q0", "q1", "q2", "m0", "m1", "m2", "size"]
    assert found.attrs["long_name"] == "loss, margin, function of the parameters"
    run = train(data if linear else DATA, settings, **keywords)
    last = run.checkpoints.maps[-1] if linear else run.checkpoints.weights[-1]
    outputs = OTHERS.inputs @ last.T if linear else MODEL.outputs(last, OTHERS.inputs)
    expected = margin(outputs, OTHERS.targets)
    np.testing.assert_allclose(found.sel(query=["m0", "m1", "m2"])[-1, 0], expected, rtol=0, atol=ROUNDING)
    size = run.checkpoints.flat[-1].square().sum()
    np.testing.assert_allclose(found.sel(query="size")[-1, 0], size, rtol=1e-10)


def test_fifty_thousand_samples_of_a_small_net():
    """One epoch and a few of its samples left out, with little memory; the difference is that of two loops of torch."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50_000, 8, generator=generator, dtype=torch.float64)
    data = Samples(inputs, (inputs.sum(1) > 0).long())
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).double()
    model = TorchModel(module, CROSS_ENTROPY)
    settings = TrainingConfig(lr=0.1, epochs=1, checkpoint_every=1, batch_size=500, max_memory=2e6)
    found = leave_one_out(data, settings, model=model, sources=["sample-31"], queries=data[:4])
    ends = []
    for beta in (torch.ones(50_000), (torch.arange(50_000) != 31).double()):
        net = copy.deepcopy(module)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        for batch in batch_order(50_000, 500, epoch=0):
            optimiser.zero_grad()
            (beta[batch] * CROSS_ENTROPY(net(data.inputs[batch]), data.targets[batch])).mean().backward()
            optimiser.step()
        with torch.no_grad():
            ends.append(CROSS_ENTROPY(net(data.inputs[:4]), data.targets[:4]).numpy())
    # A hundred steps of a few hundred operations on numbers of order one.
    np.testing.assert_allclose(found[-1, 0], ends[0] - ends[1], rtol=0, atol=100 * 100 * EPS)
    assert abs(found[-1, 0]).max() > 1e-6
