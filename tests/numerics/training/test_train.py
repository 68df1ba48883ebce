"""Gradient descent and retraining against torch's own loss and optimiser, and the flow they discretise."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from numerics import (
    Checkpoints,
    Samples,
    TorchModel,
    TrainingConfig,
    TrainingDiverged,
    gradient_flow,
    initial_weights,
    leave_one_out,
    per_sample_losses,
    timed_ablation,
    train,
    training,
    unrolled_influence,
)
from theory import Dataset, hierarchical_dataset

EPS = np.finfo(float).eps
SMALL = TrainingConfig(hidden=6, sigma=0.3, lr=0.1, epochs=30, checkpoint_every=10, seed=3)


def general_data(n=5, p=3, o=4):
    """Return inputs that are neither one-hot nor whitened, so that every matrix product matters."""
    rng = np.random.default_rng(0)
    return Dataset(rng.normal(size=(n, p)), rng.normal(size=(n, o)))


def torch_reference(data, config, weights, schedule=None):
    """Run the same training with torch.nn, torch's mean squared error and torch.optim.SGD."""
    w1, w2 = initial_weights(data, hidden=config.hidden, sigma=config.sigma, seed=config.seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(data.n_inputs, config.hidden, bias=False),
        torch.nn.Linear(config.hidden, data.n_outputs, bias=False),
    ).double()
    with torch.no_grad():
        net[0].weight.copy_(w1)
        net[1].weight.copy_(w2)
    x, y = torch.tensor(data.inputs), torch.tensor(data.targets)
    optimiser = torch.optim.SGD(net.parameters(), lr=config.lr)
    history = []
    for epoch in range(config.epochs + 1):
        beta = torch.tensor(weights if schedule is None else schedule(epoch))
        error = torch.nn.functional.mse_loss(net(x), y, reduction="none")
        history.append(0.5 * error.sum(1).detach().numpy())
        optimiser.zero_grad()
        (beta[:, None] * error).mean().backward()
        optimiser.step()
    return np.array(history)


@pytest.mark.parametrize("data", [hierarchical_dataset(levels=2), general_data()], ids=["one-hot", "general"])
@pytest.mark.parametrize("ablated", [None, 1])
def test_training_is_torch_sgd_on_the_mean_squared_error(data, ablated):
    weights = np.ones(len(data))
    if ablated is not None:
        weights[ablated] = 0.0
    run = train(data, SMALL, weights=weights)
    reference = torch_reference(data, SMALL, weights)
    # 30 steps, each a handful of products of order-one numbers; the run is not chaotic (losses fall)
    assert np.allclose(run.losses.values, reference[[0, 10, 20, 30]], rtol=1e-12)
    assert run.losses.dims == ("epoch", "query")
    assert list(run.losses["query"].values) == list(data.names)
    assert np.array_equal(run.checkpoints.epochs, [0, 10, 20, 30])
    assert np.allclose(per_sample_losses(run.checkpoints.maps, data).numpy(), run.losses.values, rtol=1e-13)


def test_every_epoch_can_be_kept_and_the_last_one_always_is():
    config = TrainingConfig(hidden=4, sigma=0.1, epochs=7, checkpoint_every=3)
    run = train(general_data(), config)
    assert np.array_equal(run.checkpoints.epochs, [0, 3, 6, 7])


def test_leave_one_out_is_the_difference_of_two_runs():
    data = general_data()
    difference = leave_one_out(data, SMALL, sources=["sample-4", "sample-2"])
    baseline = torch_reference(data, SMALL, np.ones(5))[[0, 10, 20, 30]]
    for name, row in (("sample-4", 4), ("sample-2", 2)):
        without = torch_reference(data, SMALL, np.where(np.arange(5) == row, 0.0, 1.0))[[0, 10, 20, 30]]
        assert np.allclose(difference.sel(source=name).values, baseline - without, rtol=0, atol=1e-12)
    assert difference.attrs["epsilon"] == -1.0


def test_small_reweighting_is_scaled_to_a_derivative():
    data = general_data()
    up, down = (leave_one_out(data, SMALL, epsilon=e) for e in (1e-4, -1e-4))
    # both one-sided quotients approach the derivative: they differ by epsilon times the second derivative, O(1)
    assert np.allclose(up.values, down.values, rtol=0, atol=1e-2 * np.abs(up.values).max())
    baseline = torch_reference(data, SMALL, np.ones(5))
    raised = torch_reference(data, SMALL, np.array([1 + 1e-4, 1, 1, 1, 1]))
    # differences of losses known to about 30 eps, divided by 1e-4
    assert np.allclose(up.values[:, 0], ((raised - baseline) / 1e-4)[[0, 10, 20, 30]], rtol=0, atol=1e-9)


def test_timed_ablation_is_the_summed_difference_over_its_window():
    data, config = general_data(), TrainingConfig(hidden=6, sigma=0.3, lr=0.1, epochs=30, checkpoint_every=7, seed=3)
    summed = timed_ablation(data, config, window=5, every=12)
    assert np.array_equal(summed["epoch"], [0, 12, 24])
    baseline = torch_reference(data, config, np.ones(5))
    for start in (0, 12, 24):

        def schedule(epoch, start=start):
            return np.where((np.arange(5) == 3) & (start <= epoch < start + 5), 0.0, 1.0)

        ablated = torch_reference(data, config, None, schedule)
        expected = (baseline - ablated)[start : start + 5].sum(0)
        assert np.allclose(summed.sel(epoch=start, source="sample-3").values, expected, rtol=0, atol=1e-12)


def test_brief_ablation_follows_the_gradient_kernel():
    """Two epochs: the loss moves by rate * K_ij (theory.md 4 with D = 2), to first order in the step."""
    data = general_data()
    config = TrainingConfig(hidden=6, sigma=0.3, lr=1e-6, epochs=2, seed=3)
    summed = timed_ablation(data, config, window=2, every=1).isel(epoch=0).values
    w1, w2 = initial_weights(data, hidden=6, sigma=0.3, seed=3)
    gradients = []
    for i in range(5):
        a, b = w1.clone().requires_grad_(), w2.clone().requires_grad_()
        x, y = torch.tensor(data.inputs[i]), torch.tensor(data.targets[i])
        (0.5 * (y - b @ a @ x).square().sum()).backward()
        gradients.append(torch.cat([a.grad.ravel(), b.grad.ravel()]))
    kernel = torch.stack(gradients) @ torch.stack(gradients).T
    # the step is 1e-6 * 2 / 20 = 1e-7 times gradients of size 10: curvature enters at 1e-6 relative, rounding at 1e-9
    assert np.allclose(summed, -1e-6 * 2 / 20 * kernel.numpy(), rtol=1e-4, atol=1e-12)


def test_descent_approaches_the_flow_linearly_in_the_step():
    data = hierarchical_dataset(levels=2)
    w1, w2 = initial_weights(data, hidden=6, sigma=0.1, seed=1)
    deviations = []
    for lr, epochs in ((0.04, 200), (0.02, 400)):
        tau = 4 * 7 / (2 * lr)
        config = TrainingConfig(hidden=6, lr=lr, epochs=epochs, checkpoint_every=epochs // 4)
        descent = train(data, config, w1=w1.numpy(), w2=w2.numpy()).checkpoints
        flow = gradient_flow(data, w1.numpy(), w2.numpy(), descent.epochs, tau=tau)
        deviations.append(float((flow.maps - descent.maps).abs().max()))
    # Euler's method: halving the step halves the error, up to its next order (a few per cent at these steps)
    assert deviations[0] / deviations[1] == pytest.approx(2.0, rel=0.1)


def test_weighted_flow_matches_weighted_descent():
    data, weights = general_data(), np.array([1.0, 0.0, 2.0, 1.0, 1.0])
    w1, w2 = initial_weights(data, hidden=6, sigma=0.3, seed=3)
    config = TrainingConfig(hidden=6, lr=1e-4, epochs=2000, checkpoint_every=2000)
    descent = train(data, config, weights=weights, w1=w1.numpy(), w2=w2.numpy()).checkpoints
    flow = gradient_flow(data, w1.numpy(), w2.numpy(), [0.0, 2000.0], tau=20 / (2 * 1e-4), weights=weights)
    assert torch.allclose(flow.w1[-1], descent.w1[-1], atol=1e-4)
    assert torch.allclose(flow.w2[-1], descent.w2[-1], atol=1e-4)


def test_same_seed_same_bits_whatever_the_batch():
    data = hierarchical_dataset()
    config = TrainingConfig(epochs=50, checkpoint_every=25)
    alone = leave_one_out(data, config, sources=["cat"])
    together = leave_one_out(data, config)
    assert np.array_equal(alone.sel(source="cat"), together.sel(source="cat"))
    assert np.array_equal(train(data, config).losses, train(data, config).losses)
    other = train(data, TrainingConfig(epochs=50, checkpoint_every=25, seed=1))
    assert not np.array_equal(train(data, config).losses, other.losses)


def test_initial_weights_may_be_views_tensors_or_of_another_dtype():
    data = general_data()
    w1, w2 = initial_weights(data, hidden=6, sigma=0.3, seed=3)
    expected = train(data, SMALL).losses
    spread = np.repeat(w1.numpy(), 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(train(data, SMALL, w1=spread, w2=w2.T.contiguous().T).losses, expected)
    single = train(data, SMALL, w1=w1.float(), w2=w2.float()).losses
    # float32 weights, trained in float64: relative 6e-8 at the start, which 30 steps do not amplify tenfold
    np.testing.assert_allclose(single, expected, rtol=1e-6)


class Placement(torch.overrides.TorchFunctionMode):
    """Note every tensor that descent makes without saying where, and every one that leaves without passing the CPU."""

    MADE = ("tensor", "zeros", "ones", "empty", "full", "eye", "arange", "linspace", "randn", "rand", "as_tensor")
    CODE = tuple(path.stem for path in Path(training.__file__).parent.glob("*.py"))

    def __init__(self):
        self.astray, self.brought = set(), []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        code = sys._getframe(1).f_code
        result = function(*arguments, **(keywords or {}))
        name = getattr(function, "__name__", "")
        if name == "cpu":
            self.brought.append(result)
        if Path(code.co_filename).stem in self.CODE:
            nowhere = name in self.MADE and "device" not in (keywords or {})
            left = name == "numpy" and not any(arguments[0] is tensor for tensor in self.brought)
            if nowhere or left:
                self.astray.add(f"{name} in {code.co_name}")
        return result


def test_every_tensor_is_made_where_the_weights_are():
    """What a second device would show, on a machine without one: nothing relies on the CPU being the default."""
    data, config = general_data(), TrainingConfig(hidden=6, epochs=20, checkpoint_every=10)
    model = TorchModel(torch.nn.Linear(3, 4))
    w1, w2 = initial_weights(data, hidden=6)
    with Placement() as placement:
        for keywords in ({"w1": w1.numpy(), "w2": w2.numpy()}, {"model": model}):
            schedule = np.tile([1.0, 0.0, 1.0, 1.0, 2.0], (20, 1))
            train(data, config, weights=schedule, **keywords)
            leave_one_out(data, config, **keywords)
            timed_ablation(data, config, window=4, every=8, **keywords)
            for stretch in (None, 1):
                unrolled_influence(data, config, exposure_every=stretch, **keywords)
    # Given weights come as arrays, and are moved before anything is done with them.
    assert placement.astray == {"tensor in _initial_layers"}


def test_threads_are_restored():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    train(general_data(), SMALL)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_progress_reports_epochs_done():
    seen = []
    train(general_data(), SMALL, progress=seen.append)
    assert seen == [10, 20, 30]


def test_a_run_that_diverges_is_not_finished():
    seen = []
    with pytest.raises(TrainingDiverged):
        train(
            general_data(),
            TrainingConfig(hidden=6, sigma=1.0, lr=50.0, epochs=10_000, checkpoint_every=200),
            progress=seen.append,
        )
    assert seen == []


def test_only_data_sets_train_linear_networks():
    with pytest.raises(TypeError, match=r"a linear network needs a theory\.Dataset, but Samples were given"):
        leave_one_out(Samples(torch.ones(2, 3), torch.ones(2, 4)), SMALL)


def test_divergence_is_named():
    with pytest.raises(TrainingDiverged, match=r"loss of run 0 is not finite at epoch 200 with lr=50\.0"):
        train(general_data(), TrainingConfig(hidden=6, sigma=1.0, lr=50.0, epochs=400, checkpoint_every=200))


def test_checkpoints_by_epoch():
    run = train(general_data(), SMALL).checkpoints
    assert np.array_equal(run.at([10, 30]).epochs, [10, 30])
    assert torch.equal(run.at(20).w1[0], run.w1[2])
    with pytest.raises(ValueError, match="epoch 15 was not saved; the saved epochs are"):
        run.at(15)
    with pytest.raises(ValueError, match="epoch 99 was not saved"):
        run.at(99)
    with pytest.raises(ValueError, match="maps 3 inputs to 4 outputs, but the data set has 8 inputs and 15 outputs"):
        run.check_fits(hierarchical_dataset())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda d: TrainingConfig(lr=-1.0), "lr must be a positive"),
        (lambda d: TrainingConfig(hidden=0), "hidden must be at least 1"),
        (lambda d: TrainingConfig(sigma=-1e-3), "sigma must not be negative"),
        (lambda d: TrainingConfig(epochs=0), "epochs must be at least 1"),
        (lambda d: TrainingConfig(checkpoint_every=0), "checkpoint_every must be at least 1"),
        (lambda d: TrainingConfig(seed=-1), "seed must be at least 0"),
        (lambda d: TrainingConfig(device="abacus"), "device 'abacus' cannot be used"),
        (lambda d: train(d, SMALL, w1=np.full((2, 3), 1e200), w2=np.ones((4, 2))), "'sample-0' is not finite at the"),
        (lambda d: train(d, SMALL, initial=np.ones(3)), "initial is a module's"),
        (lambda d: train(d, SMALL, weights=np.ones((3, 5))), r"give \(5,\), or \(30, 5\) to change them"),
        (lambda d: train(d, SMALL, weights=np.ones(3)), r"weights has shape \(3,\), but the data set has 5"),
        (lambda d: train(d, SMALL, weights=-np.ones(5)), "weights must not be negative"),
        (lambda d: train(d, SMALL, w1=np.ones((2, 3))), "give both w1 and w2 or neither"),
        (lambda d: train(d, SMALL, w1=np.ones((2, 3)), w2=np.ones((4, 3))), r"w2 has shape \(4, 3\)"),
        (lambda d: train(d, SMALL, w1=np.ones((2, 4)), w2=np.ones((4, 2))), r"w1 has shape \(2, 4\)"),
        (lambda d: leave_one_out(d, SMALL, epsilon=0.0), "epsilon must be at least -1"),
        (lambda d: leave_one_out(d, SMALL, epsilon=-1.5), "epsilon must be at least -1"),
        (lambda d: timed_ablation(d, SMALL, window=31), "a window of 31 epochs does not fit into a run of 30"),
        (lambda d: timed_ablation(d, SMALL, window=0), "window must be at least 1"),
        (lambda d: timed_ablation(d, SMALL, window=5, every=0), "every must be at least 1"),
        (lambda d: gradient_flow(d, np.ones((2, 3)), np.ones((4, 2)), [0.0, -1.0], tau=1.0), "must not be negative"),
        (lambda d: gradient_flow(d, np.ones((2, 3)), np.ones((4, 2)), [1.0], tau=0.0), "tau must be a positive"),
        (
            lambda d: gradient_flow(d, np.ones((2, 3)), np.ones((4, 2)), [1.0], tau=1.0, weights=np.ones(2)),
            r"weights has shape \(2,\)",
        ),
        (lambda d: Checkpoints(np.array([1, 0]), torch.ones(2, 1, 1), torch.ones(2, 1, 1)), "strictly increasing"),
        (lambda d: Checkpoints(np.array([0]), torch.ones(1, 2, 1), torch.ones(1, 1, 3)), r"w1 has shape \(1, 2, 1\)"),
        (
            lambda d: Checkpoints(np.array([0, 5]), torch.tensor([[[1.0]], [[torch.nan]]]), torch.ones(2, 1, 1)),
            "w1 is not finite at epoch 5",
        ),
    ],
)
def test_bad_input_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(general_data())
