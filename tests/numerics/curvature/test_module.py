"""Gradients, Hessian and Gauss-Newton matrix of modules against autograd of the loss written out by hand."""

import copy

import numpy as np
import pytest
import torch
from module_cases import CROSS_ENTROPY, CURVATURES, DEVICES, EPS, NAMES, make
from numpy.testing import assert_allclose

from numerics import Samples, TorchModel, gauss_newton_matrix, hessian_matrix, sample_gradients

MATRICES = {"hessian": hessian_matrix, "gauss-newton": gauss_newton_matrix}

# A derivative here is a sum of at most some 1000 products of numbers of order 1, evaluated twice in different order:
# 2000 EPS = 4e-13 of the largest entry. The bar of the project is 1e-10.
ROUNDING = 2000 * EPS


def assert_same(found, expected):
    assert found.dtype == torch.float64
    found, expected = found.cpu().numpy(), expected.numpy()
    assert_allclose(found, expected, rtol=1e-10, atol=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_matrices_are_those_of_autograd(curvature, name, weighted, device):
    case = make(name)
    beta = torch.tensor([0.0, 1.0, 2.5, 1.0, 0.3, 1.0]) if weighted else None
    for w in case.checkpoints.weights:
        found = MATRICES[curvature](case.checkpoints.model, w.to(device), case.samples, beta)
        assert_same(found, case.matrix(curvature, w, None if beta is None else beta.double()))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_autograd(name):
    case = make(name)
    for w in case.checkpoints.weights:
        assert_same(sample_gradients(case.checkpoints.model, w, case.queries), case.gradients(w, case.queries))


@pytest.mark.parametrize("memory", [1, 20_000])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_the_work_do_not_change_it(name, memory):
    """One sample and one vector at a time, or a few, in the place of all at once."""
    case = make(name)
    model, w = case.checkpoints.model, case.checkpoints.weights[0]
    for curvature, matrix in MATRICES.items():
        assert_same(matrix(model, w, case.samples, max_memory=memory), case.matrix(curvature, w))
    assert_same(sample_gradients(model, w, case.samples, max_memory=memory), case.gradients(w))


def test_float32_weights_are_used_in_float64():
    """Weights that float32 holds exactly give the same matrix to the bit, buffers in float32 included."""
    case = make("tanh classes")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    module.train()(torch.randn(20, 4))  # running statistics
    model = TorchModel(module, CROSS_ENTROPY)
    assert {b.dtype for b in model.module.buffers()} == {torch.float32, torch.int64}
    single = Samples(case.samples.inputs.float(), case.samples.targets)
    double = Samples(single.inputs.double(), single.targets)
    exact = TorchModel(copy.deepcopy(module).double(), CROSS_ENTROPY)
    for matrix in (*MATRICES.values(), sample_gradients):
        found = matrix(model, model.initial(), single)
        assert found.dtype == torch.float64
        assert torch.equal(found, matrix(exact, exact.initial(), double))
    assert {b.dtype for b in model.module.buffers()} == {torch.float32, torch.int64}


def test_views_that_are_not_contiguous_are_read_right():
    case = make("tanh classes")
    w = case.checkpoints.weights[0]
    spread = torch.stack([w, -w], dim=1)[:, 0]
    turned = Samples(case.samples.inputs.T.contiguous().T, case.samples.targets)
    assert not spread.is_contiguous()
    assert not turned.inputs.is_contiguous()
    for curvature, matrix in MATRICES.items():
        assert_same(matrix(case.checkpoints.model, spread, turned), case.matrix(curvature, w))


@pytest.mark.parametrize("curvature", CURVATURES)
def test_outputs_of_any_shape(curvature):
    """A module that returns (n, 2, 2), and one number a sample without an axis of its own."""
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(5, 3)))
    square = TorchModel(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Unflatten(1, (2, 2))).double())
    y = torch.tensor(rng.normal(size=(5, 2, 2)))
    w = torch.tensor(rng.normal(size=16))
    # Linear in its weights: the Hessian of half the squared error is the mean of (x, 1)(x, 1)^T for every output, and
    # the Gauss-Newton matrix the same.
    second = x.T @ x / 5
    expected = torch.kron(torch.eye(4, dtype=torch.float64), second)
    assert_same(MATRICES[curvature](square, w, Samples(x, y))[:12, :12], expected)
    flat = TorchModel(torch.nn.Sequential(torch.nn.Linear(3, 1, bias=False), torch.nn.Flatten(0)).double(), half)
    assert_same(MATRICES[curvature](flat, w[:3], Samples(x, y[:, 0, 0])), second)


def half(outputs, targets):
    return 0.5 * (outputs - targets).square()
