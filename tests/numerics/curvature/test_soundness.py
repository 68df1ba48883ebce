"""Second derivatives that contradict finite differences or their symmetry are refused, in both engines, by name."""

import numpy as np
import pytest
import torch
from any_module import Cubed, WrittenNorm, _Cube, make

from numerics import (
    ModuleCheckpoints,
    NotDifferentiable,
    Samples,
    TorchModel,
    WrongDerivative,
    gauss_newton_influence,
    gauss_newton_matrix,
    hessian_influence,
    hessian_matrix,
    hessian_operator,
)
from numerics.curvature import kernels

nn = torch.nn
X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 1, 2, 0, 1, 2])
SAMPLES = Samples(X, Y)
CROSS_ENTROPY = nn.CrossEntropyLoss(reduction="none")


def normed():
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 3)).double()


def plain_hessian(losses, leaves):
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), leaves, create_graph=True)])
    rows = [torch.autograd.grad(s, leaves, retain_graph=True) for s in slope]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def test_torch_has_weight_norm_wrong():
    """Its double backward is not symmetric, and not that of the formula; ours is the formula's."""
    module = normed()
    formula = WrittenNorm(module)
    wrong = plain_hessian(CROSS_ENTROPY(module(X), Y), list(module.parameters()))
    right = plain_hessian(CROSS_ENTROPY(formula(X), Y), list(formula.parameters()))
    assert (wrong - wrong.T).abs().max() > 0.01
    model = TorchModel(module, CROSS_ENTROPY)
    found = hessian_matrix(model, model.initial(), SAMPLES)
    # Sums of fewer than 1000 products of numbers of order 1, in two orders.
    torch.testing.assert_close(found, right, rtol=0, atol=1e-12)
    assert (found - wrong).abs().max() > 0.01


@pytest.mark.parametrize("method", ["dense", "matrix-free"])
def test_what_is_wrong_is_refused_by_the_names_of_its_parameters(monkeypatch, method):
    """Without the elementary operations, weight norm in torch's own way."""
    monkeypatch.setattr(kernels, "_normed", torch._weight_norm)
    model = TorchModel(normed(), CROSS_ENTROPY)
    checkpoints = ModuleCheckpoints(np.array([4.0]), model, model.initial()[None])
    names = "'0.parametrizations.weight.original0', '0.parametrizations.weight.original1'"
    with pytest.raises(
        WrongDerivative, match=rf"the Hessian at epoch 4 as torch has it is wrong: .*{names}.*by up to 0"
    ):
        hessian_influence(SAMPLES, checkpoints, damping=5.0, method=method)
    with pytest.raises(WrongDerivative, match="remove_parametrizations"):
        hessian_operator(model, model.initial(), SAMPLES)


def test_a_second_derivative_that_is_symmetric_and_wrong_is_refused_too():
    """x^3 whose backward pass hides x lacks one term of the Hessian, which stays symmetric."""
    torch.manual_seed(0)
    model = TorchModel(Cubed(_Cube.apply).double(), CROSS_ENTROPY)
    with pytest.raises(WrongDerivative, match=r"along 'first\.weight', 'first\.bias' its product differs"):
        hessian_matrix(model, model.initial(), SAMPLES)
    exact = TorchModel(Cubed(lambda x: x**3).double(), CROSS_ENTROPY)
    found, expected = (gauss_newton_matrix(m, model.initial(), SAMPLES) for m in (model, exact))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)  # G needs no second derivative of the module


class Aside(nn.Module):
    """Takes another way, through an operation whose second derivative is wrong, for one sample in a hundred."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)

    def forward(self, x):
        h = self.first(x)
        return torch.where(x[:, :1] > 9, _Skewed.apply(h), torch.tanh(h))


class _Skewed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h**2

    @staticmethod
    def backward(ctx, slope):
        (h,) = ctx.saved_tensors
        return 2 * h * slope + slope * ((h - h.detach()) @ torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=h.dtype))


def test_an_asymmetry_in_samples_that_were_not_looked_at_is_refused():
    torch.manual_seed(0)
    x = torch.randn(100, 2).double()
    x[50] = 10.0
    model = TorchModel(Aside().double())
    with pytest.raises(WrongDerivative, match="is not symmetric: products that should be equal differ by"):
        hessian_matrix(model, model.initial(), Samples(x, torch.zeros(100, 2).double()))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Hardtanh(), nn.LeakyReLU()])
@pytest.mark.parametrize("bias", [True, False])
def test_kinks_are_no_reason_to_refuse(activation, bias):
    """At a kink itself (units at exactly zero) and near many of them; the Hessian is that of the sides."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 50), activation, nn.Linear(50, 3)).double()
    if bias:
        nn.init.zeros_(module[0].bias)
    x = torch.cat([torch.zeros(3, 4), 1e-7 * torch.randn(30, 4), torch.randn(30, 4)]).double()
    model = TorchModel(module, CROSS_ENTROPY)
    found = hessian_matrix(model, model.initial(), Samples(x, torch.arange(63) % 3))
    assert torch.equal(found.isfinite().all(), torch.tensor(True))


def test_losses_without_curvature_are_not_refused():
    """A Hessian of exactly zero, and one of nothing but rounding: log(exp(f))."""
    for loss in (lambda f, y: (f - y).abs().sum(1), lambda f, y: torch.log(torch.exp(f)).sum(1)):
        model = TorchModel(nn.Linear(4, 2).double(), loss)
        found = hessian_matrix(model, model.initial(), Samples(X, torch.zeros(6, 2).double()))
        assert found.abs().max() < 1e-13


def test_mixed_precision_does_not_reach_float64():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 3)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.first(x)

    model, plain = TorchModel(Mixed(), CROSS_ENTROPY), TorchModel(nn.Linear(4, 3), CROSS_ENTROPY)
    found, expected = (hessian_matrix(m, model.initial(), SAMPLES) for m in (model, plain))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_what_torch_says_never_comes_alone():
    """An operation without any derivative, and outputs that have no samples along their first axis."""

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(4, 2, batch_first=True)

        def forward(self, x):
            return self.layer(x)

    samples = Samples(torch.randn(3, 5, 4).double(), torch.zeros(3, 2).double())
    model = TorchModel(Flat().double(), lambda f, y: (f[0][:, -1] - y).square().sum(1))
    checkpoints = ModuleCheckpoints(np.array([0.0]), model, model.initial()[None])
    with pytest.raises(NotDifferentiable, match="outputs that are real and have the 2 samples along their first axis"):
        gauss_newton_influence(samples, checkpoints, damping=1.0)
    found = hessian_influence(samples, checkpoints, damping=9.0)
    assert found["influence"].attrs["engine"] == "gradients by loop, products by vmap"


def test_the_ways_are_recorded():
    for name, way in (
        ("MLP", "vmap"),
        ("LSTM", "gradients by loop, products by vmap"),
        ("weight norm", "vmap, elementary operations"),
        ("class weights in float32", "vmap"),
        ("no second derivative", "gradients by loop, products by jacobians"),
    ):
        case = make(name, torch.float32)
        found = gauss_newton_influence(case.samples, case.checkpoints, damping=1.0)["influence"].attrs
        assert way in found["engine"], name
        assert found["method"] == "dense"
