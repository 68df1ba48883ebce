"""The outlook on a model: what it says works does, what does not says why, and its times are of the right size."""

import time

import pytest
import torch

from numerics import Samples, TorchModel, TrainingConfig, check_model, train

MEASURES = {
    "train",
    "leave_one_out",
    "unrolled_influence",
    "bayesian_influence",
    "estimate_learning_coefficient",
    "hessian_influence",
    "gauss_newton_influence",
    "gradient_kernel",
    "tracin",
}


def small():
    torch.manual_seed(0)
    return TorchModel(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))), Samples(
        torch.randn(20, 3), torch.randn(20, 2)
    )


def test_every_measure_of_a_plain_network_works():
    outlook = check_model(*small())
    assert {row.measure for row in outlook.rows} == MEASURES
    assert all(row.works and row.reason == "" and row.seconds > 0 and row.memory > 0 for row in outlook.rows)
    table = str(outlook)
    assert "Sequential: 26 weights, 20 samples" in table
    assert all(measure in table for measure in MEASURES)


def test_times_grow_with_the_job_and_are_of_the_right_size():
    model, samples = small()
    short, long = (check_model(model, samples, epochs=epochs)["train"].seconds for epochs in (300, 3000))
    begin = time.process_time()
    train(samples, TrainingConfig(epochs=300, checkpoint_every=300, lr=1e-3), model=model)
    taken = time.process_time() - begin
    # Two measurements on a shared machine; a lost factor (samples, epochs, runs) would be 20 and more.
    assert 1 / 12 < short / taken < 12
    assert 3 < long / short < 30


def test_a_measure_that_does_not_work_says_why():
    class OnlyOnce(torch.nn.Module):
        """Has a gradient, and no second one."""

        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)

        def forward(self, x):
            return Flat.apply(self.linear(x))

    class Flat(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return grad

    _, samples = small()
    outlook = check_model(TorchModel(OnlyOnce()), samples)
    row = outlook["hessian_influence"]
    assert outlook["train"].works
    assert not row.works
    assert row.reason
    assert row.reason in str(outlook)


def test_bad_input_is_refused():
    model, samples = small()
    with pytest.raises(ValueError, match="draws must be at least 1"):
        check_model(model, samples, draws=0)
    with pytest.raises(KeyError, match="no measure is called 'x'; there are train"):
        check_model(model, samples)["x"]
    with pytest.raises(ValueError, match=r"cannot evaluate inputs of shape \(20, 2\)"):
        check_model(model, Samples(samples.targets, samples.inputs))
    with pytest.raises(TypeError, match="model"):
        check_model(model.module, samples)
