"""Gradients that are not those of the losses are refused on entry of what uses them, and no others."""

import numpy as np
import pytest
import torch

from numerics import (
    SGLD,
    ModuleCheckpoints,
    NotDifferentiable,
    Query,
    Samples,
    TorchModel,
    TrainingConfig,
    WrongDerivative,
    bayesian_influence,
    gradient_kernel,
    hessian_influence,
    leave_one_out,
    sample,
    tracin,
    train,
    unrolled_influence,
)
from numerics.models.slopes import check_gradients

nn = torch.nn
F = nn.functional
DTYPES = [torch.float64, torch.float32]


class Net(nn.Module):
    def __init__(self, function, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last, self.function = nn.Linear(4, 6), nn.Linear(6, 3), function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


class ThroughRound(torch.autograd.Function):
    """A straight-through estimator: rounds, and says its derivative is 1."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, slope):
        return slope


class BadCube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] ** 2 * slope  # 3


def scaled_without_grad(h):
    with torch.no_grad():
        size = h.norm(dim=1, keepdim=True)
    return h / size


def changed_in_place(h):
    g = torch.tanh(h) * 3
    g.data.clamp_(-1, 1)
    return g


def by_numpy(h):
    return torch.tanh(h) * torch.as_tensor(np.cos(h.detach().numpy()))


def mixture(h):
    """Keep the two largest of six units, as experts are chosen: it jumps, but its slope is right between jumps."""
    most = h.topk(2, dim=1)
    return torch.zeros_like(h).scatter(1, most.indices, torch.tanh(most.values))


HIDDEN = {
    "detached factor": lambda h: torch.tanh(h) * torch.sigmoid(h).detach(),
    "a small detached term": lambda h: torch.tanh(h) + 0.01 * h.square().detach(),
    "straight-through": ThroughRound.apply,
    "straight-through by detach": lambda h: h + (torch.round(h) - h).detach(),
    "backward pass of one's own": BadCube.apply,
    "no_grad": scaled_without_grad,
    ".data": changed_in_place,
    "numpy": by_numpy,
}
ZERO = {
    "round": torch.round,
    "sign": torch.sign,
    "comparison": lambda h: (h > 0).to(h),
    "argmax": lambda h: F.one_hot(h.argmax(1), 6).to(h),
}
RIGHT = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "max pooling": lambda h: F.max_pool1d(h, 2).repeat(1, 2),
    "sort": lambda h: h.sort(1).values,
    "mask": lambda h: (h > 0).to(h) * h,
    "mixture of experts": mixture,
    "infinite slope at 0": lambda h: torch.sign(h) * h.abs().sqrt(),
    "continuous though it rounds": lambda h: torch.sin(2 * torch.pi * (h - torch.floor(h))),
    "in float32 within": lambda h: torch.tanh(h.float()).to(h.dtype),
    "in bfloat16 within": lambda h: torch.tanh(h.bfloat16()).to(h.dtype),
    "layer norm": lambda h: F.layer_norm(h, (6,)),
}


def data(n=9, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(n, 4, generator=generator).to(dtype), torch.randint(3, (n,), generator=generator))


def cross_entropy(f, y):
    return F.cross_entropy(f, y, reduction="none")


def model_of(function, dtype=torch.float64, seed=0, **options):
    return TorchModel(Net(function, seed).to(dtype), cross_entropy, **options)


def check(model, samples=None):
    check_gradients(model, model.initial(), samples or data())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", HIDDEN)
def test_gradients_that_are_wrong_in_part_are_refused(name, dtype):
    for seed in range(3):
        with pytest.raises(WrongDerivative, match=r"of Net is wrong: along 'first.weight', 'first.bias' the losses"):
            check(model_of(HIDDEN[name], dtype, seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ZERO)
def test_gradients_that_are_silently_zero_are_refused(name, dtype):
    for seed in range(3):
        with pytest.raises(NotDifferentiable, match=r"change with 'first.weight', but .* gradient of it is zero"):
            check(model_of(ZERO[name], dtype, seed))


def test_an_operation_that_jumps_beside_others_is_named():
    with pytest.raises(NotDifferentiable, match=r"jump where the weights change.*\(there is round between the two\)"):
        check(model_of(lambda h: torch.tanh(h) + torch.round(2 * h)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RIGHT)
def test_no_false_alarm(name, dtype):
    for seed in range(2 if name in ("infinite slope at 0", "continuous though it rounds") else 5):
        check(model_of(RIGHT[name], dtype, seed))


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("width", [2, 300])
def test_no_false_alarm_of_many_kinks_at_any_scale(width, scale):
    for seed in range(3):
        torch.manual_seed(seed)
        layers = [nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)]
        model = TorchModel(nn.Sequential(*layers).double(), cross_entropy)
        check_gradients(model, scale * model.initial(), data())


def test_at_a_minimum_too():
    """Where residuals vanish, so does what a loss hides: it is looked for beside the weights that are given."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    module = nn.Linear(4, 1, bias=False).double()
    fitted = Samples(x, (x @ module.weight.T).detach())
    half = TorchModel(module, lambda f, y: ((f - y) * (f - y).detach())[:, 0])
    with pytest.raises(WrongDerivative):
        check(half, fitted)


def test_what_torch_says_is_part_of_a_sentence():
    def changed(h):
        g = torch.tanh(h)
        with torch.no_grad():
            g *= 1 + h.abs()
        return g

    with pytest.raises(
        NotDifferentiable, match=r"Net cannot be differentiated for inputs of .* modified by an inplace"
    ):
        check(model_of(changed))


def test_not_finite():
    roots = model_of(lambda h: torch.where(h > 100, h, (h - h).sqrt()))
    with pytest.raises(NotDifferentiable, match=r"gradient of Net is not finite although .* sqrt at 0"):
        check(roots)


def checkpoints(model):
    return ModuleCheckpoints(np.array([0]), model, model.initial()[None])


CONFIG = TrainingConfig(epochs=2, checkpoint_every=1, lr=1e-3)
MEASURES = {
    "train": lambda m, d: train(d, CONFIG, model=m),
    "leave_one_out": lambda m, d: leave_one_out(d, CONFIG, model=m),
    "unrolled_influence": lambda m, d: unrolled_influence(d, CONFIG, model=m),
    "sample": lambda m, d: sample(d, checkpoints(m), SGLD(1e-6), draws=4),
    "bayesian_influence": lambda m, d: bayesian_influence(d, checkpoints(m), SGLD(1e-6), draws=4),
    "gradient_kernel": lambda m, d: gradient_kernel(d, checkpoints(m)),
    "tracin": lambda m, d: tracin(d, checkpoints(m), lr=0.1),
    "hessian_influence": lambda m, d: hessian_influence(d, checkpoints(m), damping=1.0),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_asks(measure):
    with pytest.raises(WrongDerivative, match="the gradient of Net is wrong"):
        MEASURES[measure](model_of(HIDDEN["no_grad"]), data())


def test_said_to_be_meant():
    """A straight-through network trains by its surrogate, with torch's own steps."""
    model = model_of(ThroughRound.apply, surrogate_gradients=True)
    run = train(data(), TrainingConfig(epochs=3, checkpoint_every=3, lr=0.1), model=model)
    assert run.losses.attrs["gradients"] == "surrogate"
    module = Net(ThroughRound.apply).double()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        cross_entropy(module(data().inputs), data().targets).mean().backward()
        optimiser.step()
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    # Three steps on sums of nine terms, in another order.
    torch.testing.assert_close(run.checkpoints.weights[-1], expected, rtol=1e-13, atol=1e-14)


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).double()


def test_queries_need_a_gradient_only_where_it_is_used():
    model, samples = model_of(torch.tanh), data()
    asked = Query(samples, accuracy)
    config = TrainingConfig(epochs=40, checkpoint_every=20, lr=0.5)
    found = train(samples, config, model=model, queries=asked)
    for t in range(3):
        outputs = model.outputs(found.checkpoints.weights[t], samples.inputs)
        np.testing.assert_array_equal(found.losses[t], accuracy(outputs, samples.targets))
    assert leave_one_out(samples, config, model=model, queries=asked, sources=["sample-0"]).shape == (3, 1, 9)
    with pytest.raises(NotDifferentiable, match="gradient of it is zero"):
        unrolled_influence(samples, config, model=model, queries=asked)
    with pytest.raises(NotDifferentiable, match="gradient of it is zero"):
        gradient_kernel(samples, checkpoints(model), queries=asked)


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.last = nn.Embedding(4, 3, padding_idx=0), nn.Linear(3, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.table(x)).mean(1))


def test_the_row_of_padding_is_fixed_in_training_and_refused_in_sampling():
    ids = torch.tensor([[1, 2, 0], [3, 0, 0], [2, 2, 1]])
    samples, model = Samples(ids, torch.tensor([0, 1, 2])), TorchModel(Bag().double(), cross_entropy)
    run = train(samples, TrainingConfig(epochs=5, checkpoint_every=5, lr=0.5), model=model)
    assert torch.equal(run.checkpoints.weights[-1][:3], model.initial()[:3])
    with pytest.raises(NotDifferentiable, match=r"the row of 'table.weight' at padding_idx, which a sampler moves"):
        sample(samples, checkpoints(model), SGLD(1e-6), draws=4)
    whole = Samples(ids.clamp(min=1), samples.targets)
    sample(whole, checkpoints(model), SGLD(1e-6), draws=4)


def test_once_for_a_model_and_a_kind_of_samples():
    class Counting(Net):
        calls = 0

        def forward(self, x):
            Counting.calls += 1
            return super().forward(x)

    model = TorchModel(Counting(torch.tanh).double(), cross_entropy)
    check(model)
    first = Counting.calls
    check(model)
    assert Counting.calls == first
