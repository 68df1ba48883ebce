"""Losses that are not of their own sample alone are refused on entry of every measure, and no others."""

import functools

import numpy as np
import pytest
import torch

from numerics import (
    SGLD,
    ModuleCheckpoints,
    Samples,
    TorchModel,
    TrainingConfig,
    bayesian_influence,
    gradient_kernel,
    hessian_influence,
    leave_one_out,
    sample,
    train,
    unrolled_influence,
)

F = torch.nn.functional


def plain(n=6):
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(n, 3, generator=generator), torch.randn(n, 2, generator=generator))


def contrastive(outputs, targets):
    similar = outputs @ targets.mT
    return F.cross_entropy(similar, torch.arange(len(outputs)), reduction="none")


def images():
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(6, 2, 4, 4, generator=generator), torch.randn(6, 32, generator=generator))


class Dropping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, x):
        return F.dropout(self.linear(x), 0.5)


BROKEN = {
    "mean expanded": (torch.nn.Linear(3, 2), lambda f, y: (f - y).square().mean().expand(len(f)), plain()),
    "broadcast to pairs": (
        torch.nn.Linear(3, 1), lambda f, y: (f - y[:, 0]).square().sum(1), plain(),
    ),
    "contrast": (torch.nn.Linear(3, 2), contrastive, plain()),
    "batch statistics": (
        torch.nn.Sequential(torch.nn.BatchNorm2d(2, track_running_stats=False), torch.nn.Flatten()), None, images(),
    ),
    "normalised by the batch": (torch.nn.Linear(3, 2), lambda f, y: (f / f.std(0) - y).square().sum(1), plain()),
    "softmax over samples": (torch.nn.Linear(3, 2), lambda f, y: -(f.log_softmax(0) * y).sum(1), plain()),
}  # fmt: skip
CONFIG = TrainingConfig(epochs=2, checkpoint_every=1, lr=1e-3)


def model_of(name):
    torch.manual_seed(0)
    module, loss, samples = BROKEN[name]
    return (TorchModel(module) if loss is None else TorchModel(module, loss)), samples


def checkpoints_of(model):
    return ModuleCheckpoints(np.array([0]), model, model.initial()[None])


MEASURES = {
    "train": lambda model, data: train(data, CONFIG, model=model),
    "leave_one_out": lambda model, data: leave_one_out(data, CONFIG, model=model),
    "unrolled_influence": lambda model, data: unrolled_influence(data, CONFIG, model=model),
    "sample": lambda model, data: sample(data, checkpoints_of(model), SGLD(), draws=4),
    "bayesian_influence": lambda model, data: bayesian_influence(data, checkpoints_of(model), SGLD(), draws=4),
    "hessian_influence": lambda model, data: hessian_influence(data, checkpoints_of(model), damping=1.0),
    "gradient_kernel": lambda model, data: gradient_kernel(data, checkpoints_of(model)),
}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", BROKEN)
def test_a_loss_of_the_batch_is_refused(name, measure):
    model, data = model_of(name)
    with pytest.raises(ValueError, match="depends on the other samples of its batch"):
        MEASURES[measure](model, data)


def test_a_random_loss_is_refused():
    with pytest.raises(ValueError, match=r"is random: .* functional dropout"):
        checkpoints_of(TorchModel(Dropping())).check_fits(plain())


def test_outputs_and_targets_of_different_shapes_are_refused_by_the_default_loss():
    """The case that was learned as weights of zero: right are 1, 2, 3."""
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.manual_seed(0)
    model = TorchModel(torch.nn.Linear(3, 1, bias=False).double())
    with pytest.raises(
        ValueError, match=r"outputs have shape \(50, 1\), but targets \(50,\).*reshape the targets to \(50, 1\)"
    ):
        train(Samples(x, y), TrainingConfig(epochs=1), model=model)
    learned = train(Samples(x, y[:, None]), TrainingConfig(epochs=2000, lr=0.1, checkpoint_every=2000), model=model)
    # Exact least squares: descent at this rate contracts the error by at least a half in every ten epochs.
    expected = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(learned.checkpoints.weights_at(-1), expected, rtol=1e-9, atol=0)


KEPT = {
    "least squares": (torch.nn.Linear(3, 2), None, plain()),
    "float64": (torch.nn.Linear(3, 2).double(), None, plain()),
    "running statistics": (
        torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)), None, plain(),
    ),
    "layer norm, deep": (
        torch.nn.Sequential(*[m for _ in range(9) for m in (torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))],
                            torch.nn.Linear(3, 2)), None, plain(),
    ),
    "class weights in float32": (
        torch.nn.Linear(3, 2),
        functools.partial(F.cross_entropy, reduction="none", weight=torch.tensor([1.0, 5.0])),
        Samples(torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])),
    ),
    "a loss module": (
        torch.nn.Linear(3, 2),
        torch.nn.CrossEntropyLoss(reduction="none", weight=torch.tensor([1.0, 5.0])),
        Samples(torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])),
    ),
    "recurrent": (
        torch.nn.GRU(3, 2, batch_first=True), lambda f, y: (f[0][:, -1] - y).square().sum(1),
        Samples(torch.randn(6, 4, 3), torch.randn(6, 2)),
    ),
    "losses of very different size": (torch.nn.Linear(3, 2), lambda f, y: torch.exp(3 * (f - y)).sum(1), plain()),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_of_its_own_sample_is_not_refused(name, seed):
    torch.manual_seed(seed)
    module, loss, samples = KEPT[name]
    model = TorchModel(module) if loss is None else TorchModel(module, loss)
    weights = model.initial() + torch.randn(model.n_parameters).to(model.initial())
    ModuleCheckpoints(np.array([0]), model, weights[None]).check_fits(samples)


def test_a_kind_of_samples_is_tested_once():
    calls = []

    def counted(outputs, targets):
        calls.append(1)
        return (outputs - targets).square().sum(1)

    run = checkpoints_of(TorchModel(torch.nn.Linear(3, 2), counted))
    run.check_fits(plain())
    first = len(calls)
    run.check_fits(plain())
    assert len(calls) == first + 1
