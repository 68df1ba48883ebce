"""TracIn against descent written by hand, the change of the losses along a gradient flow, and refusals."""

import numpy as np
import pytest
import torch
from module_cases import CROSS_ENTROPY, log_loss, make, mlp

from numerics import (
    Checkpoints,
    ModuleCheckpoints,
    Samples,
    TorchModel,
    gradient_flow,
    initial_weights,
    linear_as_module,
    tracin,
)
from theory import Dataset, hierarchical_dataset

DATA = hierarchical_dataset(levels=2)


def test_every_epoch_of_a_descent_with_changing_rates():
    """Steps on the mean loss by hand, with gradients by autograd of the written loss: the sum is exact."""
    case, epochs = make("tanh classes"), 12
    rates = 0.5 / (1 + np.arange(epochs + 1))
    w, run = case.checkpoints.weights[0], []
    expected = [np.zeros((6, 3))]
    for epoch in range(epochs + 1):
        run.append(w)
        gradients, asked = case.gradients(w), case.gradients(w, case.queries)
        expected.append(expected[-1] - rates[epoch] / 6 * (gradients @ asked.T).numpy())
        w = w - rates[epoch] * gradients.mean(0)
    checkpoints = ModuleCheckpoints(np.arange(epochs + 1), case.checkpoints.model, torch.stack(run))
    traced = tracin(case.samples, checkpoints, lr=rates, rule="left", queries=case.queries)
    # Twelve terms of order 1 with the 2000 EPS of test_module_curvature each.
    np.testing.assert_allclose(traced.values, expected[:-1], rtol=0, atol=1e-11)
    assert traced.dims == ("epoch", "source", "query")


@pytest.mark.parametrize(("rule", "order"), [("left", 1), ("trapezoid", 2)])
def test_over_all_sources_it_is_the_change_of_the_loss_along_the_flow(rule, order):
    """There d l_j / dt = - (1 / tau) sum_i K_ij with 1 / tau = 2 lr / (N O); what is left is the rule's error in h.

    It falls by 2^order at half the spacing, so that err(h/2) = (err(h) - err(h/2)) / (2^order - 1) up to the next
    order: h times the fastest rate 2 s / tau = 0.008 of the flow, 0.04 here, for "left", its square for "trapezoid".
    """
    tau, lr = 4 * 7 / (2 * 0.02), 0.02
    w1, w2 = initial_weights(DATA, hidden=6, sigma=0.1, seed=1)
    fine = gradient_flow(DATA, w1, w2, np.arange(0, 901, 5.0), tau=tau, tolerance=1e-11)
    outputs = fine.maps.numpy()
    losses = 0.5 * ((DATA.targets - DATA.inputs @ outputs.swapaxes(1, 2)) ** 2).sum(2)
    errors = []
    for spacing in (2, 1):
        run = Checkpoints(fine.epochs[::spacing], fine.w1[::spacing], fine.w2[::spacing])
        traced = tracin(DATA, run, lr=lr, rule=rule).values[-1].sum(0)
        errors.append(traced - (losses[-1] - losses[0]))
    coarse, halved = errors
    assert np.abs(halved).max() < 0.1 * np.abs(losses[-1] - losses[0]).max()
    size = np.abs(coarse - halved).max() / (2**order - 1)
    assert np.abs(halved - (coarse - halved) / (2**order - 1)).max() < 0.1 * size


def test_the_rules_between_two_checkpoints():
    """For w^2 / 2, K = w^2 is 9 and 4 at w = 3 and w = 2; rates 0.1 and 0.2 on the loss, for 10 epochs."""
    model = TorchModel(torch.nn.Linear(1, 1, bias=False).double())
    run = ModuleCheckpoints(np.array([5.0, 15.0]), model, torch.tensor([[3.0], [2.0]]).double())
    samples = Samples(torch.tensor([[1.0]]), torch.tensor([[0.0]]))
    for rule, expected in (("left", -10 * 0.9), ("trapezoid", -10 * (0.9 + 0.8) / 2)):
        traced = tracin(samples, run, lr=[0.1, 0.2], rule=rule)
        assert traced.values.ravel() == pytest.approx([0.0, expected], rel=1e-14)
        assert traced.attrs["rule"] == rule


def test_a_linear_network_has_its_rate_on_the_mean_squared_error():
    """2 lr / (N O) there, lr / N for the same network as a module: equal where the module's lr is 2 / O of it."""
    rng = np.random.default_rng(0)
    run = Checkpoints(
        np.array([0.0, 3.0, 8.0]), torch.tensor(rng.normal(size=(3, 5, 4))), torch.tensor(rng.normal(size=(3, 7, 5)))
    )
    others = Dataset(rng.normal(size=(2, 4)), rng.normal(size=(2, 7)))
    settings = {"queries": others, "sources": [DATA.names[2], DATA.names[0]]}
    linear = tracin(DATA, run, lr=0.7, **settings)
    module = tracin(DATA, linear_as_module(run), lr=0.2, **settings)
    # Gradients are sums of fewer than 100 products; 1000 EPS of the largest value.
    np.testing.assert_allclose(linear.values, module.values, rtol=0, atol=2e-13 * np.abs(linear.values).max())
    assert linear["source"].values.tolist() == module["source"].values.tolist() == settings["sources"]
    assert linear.attrs["lr_on"] == "mean squared error"
    assert module.attrs["lr_on"] == "mean loss"
    assert not linear.values[0].any()


def test_a_sample_that_descends_alone_helps_itself():
    """Its loss falls at every step, so the diagonal is negative, as every influence that helps."""
    case = make("tanh classes", n=1, m=1)
    w, run = case.checkpoints.weights[1], []
    for _ in range(5):
        run.append(w)
        w = w - 0.01 * case.gradients(w)[0]
    checkpoints = ModuleCheckpoints(
        np.arange(5), TorchModel(case.checkpoints.model.module, CROSS_ENTROPY), torch.stack(run)
    )
    traced = tracin(case.samples, checkpoints, lr=0.01).values.ravel()
    assert np.all(np.diff(traced) < 0)
    written = [log_loss(mlp(w, case.samples.inputs, (4, 5, 3), torch.tanh), case.samples.targets).item() for w in run]
    assert np.all(np.diff(written) < 0)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"lr": -0.1}, ValueError, "lr must not be negative, but its smallest entry is -0.1"),
        ({"lr": [0.1, 0.2, 0.3]}, ValueError, r"lr has shape \(3,\), but one number or one for each of the 2"),
        ({"lr": np.nan}, ValueError, "lr holds a non-finite value"),
        ({"lr": 0.1, "rule": "right"}, ValueError, "rule must be one of 'left', 'trapezoid', but 'right'"),
        ({"lr": 0.1, "sources": []}, ValueError, "sources is empty"),
        ({"lr": 0.1, "sources": ["cat"]}, KeyError, "no sample is called 'cat'"),
    ],
)
def test_bad_input_is_refused(arguments, error, match):
    case = make("tanh classes")
    with pytest.raises(error, match=match):
        tracin(case.samples, case.checkpoints, **arguments)
