"""Training and retraining of torch modules against torch's own optimiser, and against linear networks."""

import functools

import numpy as np
import pytest
import torch

from numerics import (
    LinearNetwork,
    ModuleCheckpoints,
    Samples,
    TorchModel,
    TrainingConfig,
    TrainingDiverged,
    initial_weights,
    leave_one_out,
    retrain,
    timed_ablation,
    train,
)
from theory import Dataset, hierarchical_dataset

EPS = np.finfo(float).eps
CROSS_ENTROPY = functools.partial(torch.nn.functional.cross_entropy, reduction="none")
CONFIG = TrainingConfig(lr=0.3, epochs=30, checkpoint_every=10)


def classes(n=6, seed=0, name="s"):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return Samples(inputs, torch.randint(3, (n,), generator=generator), tuple(f"{name}{i}" for i in range(n)))


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()


MODEL = TorchModel(network(), CROSS_ENTROPY)
DATA, OTHERS = classes(), classes(3, seed=5, name="q")


def torch_reference(module, samples, asked, schedule, config=CONFIG):
    """Train with torch.optim.SGD on the weighted mean cross-entropy; return losses of `asked` at every epoch."""
    optimiser = torch.optim.SGD(module.parameters(), lr=config.lr)
    history = []
    for epoch in range(config.epochs + 1):
        with torch.no_grad():
            history.append(CROSS_ENTROPY(module(asked.inputs), asked.targets).numpy())
        optimiser.zero_grad()
        (torch.tensor(schedule(epoch)) * CROSS_ENTROPY(module(samples.inputs), samples.targets)).mean().backward()
        if epoch < config.epochs:
            optimiser.step()
    return np.array(history), torch.cat([p.detach().flatten() for p in module.parameters()])


# 30 epochs of a few hundred operations on numbers of order one, in another order.
ROUNDING = 30 * 100 * EPS


@pytest.mark.parametrize("changing", [False, True])
def test_training_is_torch_sgd_on_the_weighted_mean(changing):
    rng = np.random.default_rng(0)
    weights = rng.uniform(0, 2, size=(30, 6)) if changing else rng.uniform(0, 2, size=6)
    run = train(DATA, CONFIG, model=MODEL, weights=weights, queries=OTHERS)
    row = (lambda epoch: weights[min(epoch, 29)]) if changing else (lambda epoch: weights)
    losses, last = torch_reference(network(), DATA, OTHERS, row)
    np.testing.assert_allclose(run.losses, losses[[0, 10, 20, 30]], rtol=0, atol=ROUNDING)
    assert isinstance(run.checkpoints, ModuleCheckpoints)
    np.testing.assert_allclose(run.checkpoints.weights[-1], last, rtol=0, atol=ROUNDING)
    assert list(run.losses["query"].values) == ["q0", "q1", "q2"]
    assert "hidden" not in run.losses.attrs
    assert run.losses.attrs["n_parameters"] == 43


def test_leaving_out_is_the_difference_of_two_runs():
    found = leave_one_out(DATA, CONFIG, model=MODEL, sources=["s4", "s1"], queries=OTHERS, epsilon=-0.5)
    baseline, _ = torch_reference(network(), DATA, OTHERS, lambda _: np.ones(6))
    for name, row in (("s4", 4), ("s1", 1)):
        changed, _ = torch_reference(network(), DATA, OTHERS, lambda _, row=row: 1 - 0.5 * (np.arange(6) == row))
        expected = ((changed - baseline) / -0.5)[[0, 10, 20, 30]]
        np.testing.assert_allclose(found.sel(source=name), expected, rtol=0, atol=4 * ROUNDING)


def test_timed_ablation_is_the_summed_difference_over_its_window():
    found = timed_ablation(DATA, CONFIG, model=MODEL, window=4, every=13, sources=["s2"], queries=OTHERS)
    assert np.array_equal(found["epoch"], [0, 13, 26])
    baseline, _ = torch_reference(network(), DATA, OTHERS, lambda _: np.ones(6))
    for start in (0, 13, 26):
        rows = lambda epoch, start=start: np.where((np.arange(6) == 2) & (start <= epoch < start + 4), 0.0, 1.0)  # noqa: E731
        ablated, _ = torch_reference(network(), DATA, OTHERS, rows)
        expected = (baseline - ablated)[start : start + 4].sum(0)
        np.testing.assert_allclose(found.sel(epoch=start, source="s2"), expected, rtol=0, atol=4 * ROUNDING)


def test_a_linear_network_as_a_module_takes_the_same_steps():
    data = Dataset(np.random.default_rng(0).normal(size=(5, 3)), np.random.default_rng(1).normal(size=(5, 4)))
    linear = TrainingConfig(hidden=6, sigma=0.3, lr=0.1, epochs=30, checkpoint_every=10, seed=3)
    w1, w2 = initial_weights(data, hidden=6, sigma=0.3, seed=3)
    model = TorchModel(LinearNetwork(w1, w2))
    module = TrainingConfig(lr=2 * 0.1 / 4, epochs=30, checkpoint_every=10)
    ours, theirs = train(data, linear), train(data, module, model=model)
    np.testing.assert_allclose(theirs.losses, ours.losses, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(theirs.checkpoints.weights[:, :18], ours.checkpoints.w1.flatten(1), atol=ROUNDING)
    np.testing.assert_allclose(theirs.checkpoints.weights[:, 18:], ours.checkpoints.w2.flatten(1), atol=ROUNDING)
    for measure in (leave_one_out, functools.partial(timed_ablation, window=6, every=7)):
        np.testing.assert_allclose(measure(data, module, model=model), measure(data, linear), rtol=0, atol=6 * ROUNDING)


def test_seeds_are_those_of_torch_and_leave_its_generator_alone():
    model = TorchModel(network().float(), CROSS_ENTROPY)
    before = torch.get_rng_state()
    losses = retrain(DATA, {"all": np.ones(6)}, CONFIG, model=model, seeds=[3, 8])
    assert torch.equal(torch.get_rng_state(), before)
    assert losses.dims == ("seed", "epoch", "run", "query")
    for seed in (3, 8):
        torch.manual_seed(seed)  # layers that are built draw in the order of the module
        module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
        samples = Samples(DATA.inputs.float(), DATA.targets)
        ones = lambda _: np.ones(6, dtype=np.float32)  # noqa: E731
        expected, _ = torch_reference(module, samples, samples, ones)
        # float32
        np.testing.assert_allclose(losses.sel(seed=seed, run="all"), expected[[0, 10, 20, 30]], rtol=0, atol=1e-5)


def test_initial_weights_may_be_given():
    start = TorchModel(network(4)).initial()
    losses, _ = torch_reference(network(4), DATA, DATA, lambda _: np.ones(6))
    held = start.clone()
    alone = train(DATA, CONFIG, model=MODEL, initial=start).losses
    np.testing.assert_allclose(alone, losses[[0, 10, 20, 30]], rtol=0, atol=ROUNDING)
    assert torch.equal(start, held)
    # A view with gaps, as an array, for each of two seeds
    spread = np.repeat(np.stack([start.numpy(), np.zeros(43)]), 2, axis=1)[:, ::2]
    several = retrain(DATA, {"all": np.ones(6)}, CONFIG, model=MODEL, initial=spread, seeds=[0, 1])
    np.testing.assert_allclose(several.sel(seed=0, run="all"), alone, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(several.sel(seed=1, epoch=0), np.log(3), rtol=1e-12)


def test_the_users_module_and_modes_are_left_alone():
    module = network().train()
    model = TorchModel(module, CROSS_ENTROPY)
    before = model.initial()
    with torch.no_grad():
        train(DATA, CONFIG, model=model)
    assert torch.equal(model.initial(), before)
    assert torch.equal(torch.cat([p.detach().flatten() for p in module.parameters()]), before)
    assert module.training


def test_divergence_names_the_run():
    steep = TorchModel(torch.nn.Linear(4, 1, bias=False).double())
    samples = Samples(DATA.inputs, 100 * torch.ones(6, 1, dtype=torch.float64), DATA.names)
    with pytest.raises(TrainingDiverged, match=r"loss of run baseline is not finite at epoch 500 with lr=30\.0"):
        leave_one_out(samples, TrainingConfig(lr=30.0, epochs=1000, checkpoint_every=500), model=steep)


def test_timed_ablation_may_diverge_in_its_window_alone():
    """L = w^2 / 2 of one sample and its negative hold each other; without one, w doubles every epoch."""
    samples = Samples(torch.zeros(2, 1).double(), torch.tensor([[1.0], [-1.0]]).double(), ("pull", "push"))
    model = TorchModel(torch.nn.Linear(1, 1).double(), lambda out, sign: (sign * out.square())[:, 0] / 2)
    config = TrainingConfig(lr=2.0, epochs=1100, checkpoint_every=1100)
    with pytest.raises(TrainingDiverged, match="loss of run pull is not finite at epoch 1100"):
        timed_ablation(samples, config, window=1100, model=model, initial=[0.0, 1.0])


class Custom(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(4, 3))

    def forward(self, inputs):
        return inputs.to(self.w) @ self.w


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"w1": np.ones((2, 2)), "w2": np.ones((2, 2))}, ValueError, "w1 and w2 are a linear network's"),
        ({"initial": np.zeros(5)}, ValueError, r"initial has shape \(5,\), but the module has 43 parameters: \(43,\)"),
        ({"initial": np.full(43, np.nan)}, ValueError, "initial holds a non-finite value"),
        ({"initial": np.array(["a"] * 43)}, TypeError, "initial must be an array of real numbers"),
        ({"seeds": [0, 1], "initial": np.zeros(43)}, ValueError, r"\(2, 43\) is needed"),
        ({"seeds": []}, ValueError, "seeds must be distinct, and at least one"),
        ({"seeds": [1, 1]}, ValueError, r"seeds must be distinct, and at least one, but \[1, 1\]"),
        ({"seeds": [-1]}, ValueError, "every seed must be at least 0"),
        ({"model": TorchModel(Custom(), CROSS_ENTROPY), "seeds": [0]}, ValueError, r"layer '' \(Custom\) holds"),
        ({"model": TorchModel(torch.nn.Linear(3, 3))}, ValueError, r"cannot evaluate inputs of shape \(6, 4\)"),
        ({"queries": hierarchical_dataset()}, ValueError, r"cannot evaluate inputs of shape \(8, 8\)"),
        ({"model": None}, TypeError, "a linear network needs a theory.Dataset"),
        (
            {"model": TorchModel(torch.nn.Linear(4, 1), lambda out, target: torch.log(target - 1.0) + out[:, 0])},
            ValueError,
            "the loss of sample 's.' is not finite",
        ),
    ],
)
def test_bad_input_is_refused(change, error, match):
    with pytest.raises(error, match=match):
        leave_one_out(**({"dataset": DATA, "config": CONFIG, "model": MODEL} | change))
