"""Small modules beside the same losses written out by hand, float64, with their output Hessians in closed form."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from numerics import ModuleCheckpoints, Samples, TorchModel

EPS = np.finfo(float).eps


@dataclass(frozen=True, eq=False)
class Case:
    """A module's checkpoints, samples and other queries, and what they compute, independently of torch.nn.

    ``outputs(w, x)`` returns (n, o); ``losses(f, y)`` returns (n,); ``curved(f, y)`` the Hessian in f, (n, o, o).
    """

    checkpoints: ModuleCheckpoints
    samples: Samples
    queries: Samples
    outputs: Callable
    losses: Callable
    curved: Callable

    def written_losses(self, samples=None):
        samples = self.samples if samples is None else samples
        return lambda w: self.losses(self.outputs(w, samples.inputs), samples.targets)

    def gradients(self, w, samples=None):
        return torch.autograd.functional.jacobian(self.written_losses(samples), w)

    def matrix(self, curvature, w, beta=None):
        """Return the Hessian or Gauss-Newton matrix by autograd of the written loss, not through torch.func."""
        n = len(self.samples)
        beta = torch.ones(n, dtype=w.dtype) if beta is None else beta
        if curvature == "hessian":
            return torch.autograd.functional.hessian(lambda w: (beta * self.written_losses()(w)).sum() / n, w)
        jacobian = torch.autograd.functional.jacobian(lambda w: self.outputs(w, self.samples.inputs), w)
        curved = self.curved(self.outputs(w, self.samples.inputs), self.samples.targets)
        return torch.einsum("n,noa,nop,npb->ab", beta / n, jacobian, curved, jacobian)


def half_squares(f, y):
    return 0.5 * ((f - y) ** 2).sum(1)


def identities(f, y):
    return torch.eye(f.shape[1], dtype=f.dtype).repeat(len(f), 1, 1)


def log_loss(f, y):
    return torch.log(torch.exp(f).sum(1)) - f[torch.arange(len(f)), y]


def log_loss_curved(f, y):
    p = torch.exp(f) / torch.exp(f).sum(1, keepdim=True)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def cauchy(outputs, targets):
    """Losses sum log(1 + r^2), not convex beyond |r| = 1."""
    return torch.log1p((outputs - targets).square()).sum(1)


def cauchy_curved(f, y):
    squares = (f - y) ** 2
    return torch.diag_embed(2 * (1 - squares) / (1 + squares) ** 2)


CROSS_ENTROPY = functools.partial(torch.nn.functional.cross_entropy, reduction="none")


def affine(w, shapes):
    """Split flat weights into arrays of the given shapes."""
    pieces = w.split([int(np.prod(s)) for s in shapes])
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def mlp(w, x, sizes, function):
    a, b, c, d = affine(w, [(sizes[1], sizes[0]), (sizes[1],), (sizes[2], sizes[1]), (sizes[2],)])
    return function(x @ a.T + b) @ c.T + d


def convolution(w, x):
    """Conv1d(1, 3, 2) on 5 points, softplus, Linear(12, 2) without bias, as sums over windows."""
    kernel, bias, last = affine(w, [(3, 2), (3,), (2, 12)])
    windows = torch.stack([x[:, 0, k : k + 2] for k in range(4)], dim=1)
    hidden = torch.log(1 + torch.exp(torch.einsum("nkj,cj->nck", windows, kernel) + bias[:, None]))
    return hidden.reshape(len(x), 12) @ last.T


def embedded(w, x):
    """Embedding(5, 3) of two integers each, summed, tanh, Linear(3, 3)."""
    table, last, bias = affine(w, [(5, 3), (3, 3), (3,)])
    return torch.tanh(table[x[:, 0]] + table[x[:, 1]]) @ last.T + bias


def attended(w, x):
    """One head of attention over four tokens of width 3, averaged, and Linear(3, 3)."""
    query, key, value, last, bias = affine(w, [(3, 3)] * 4 + [(3,)])
    scores = torch.exp((x @ query.T) @ (x @ key.T).mT / 3**0.5)
    weights = scores / scores.sum(-1, keepdim=True)
    return (weights @ (x @ value.T)).mean(1) @ last.T + bias


class Attended(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(3, 3, bias=False) for _ in range(3))
        self.last = torch.nn.Linear(3, 3)

    def forward(self, x):
        heads = (f(x)[:, None] for f in (self.query, self.key, self.value))
        return self.last(torch.nn.functional.scaled_dot_product_attention(*heads)[:, 0].mean(1))


class Embedded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.table(x).sum(1)))


def make(name, *, n=6, m=3, seed=0, checkpoints=2):
    """Return one case with random weights of size 1, samples and queries."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def classes(count):
        return torch.randint(3, (count,), generator=generator)

    if name == "tanh classes":
        module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
        data = [(normal(k, 4), classes(k)) for k in (n, m)]
        parts = CROSS_ENTROPY, lambda w, x: mlp(w, x, (4, 5, 3), torch.tanh), log_loss, log_loss_curved
    elif name == "sigmoid regression":
        module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sigmoid(), torch.nn.Linear(3, 2))
        data = [(normal(k, 2), normal(k, 2)) for k in (n, m)]
        outputs = lambda w, x: mlp(w, x, (2, 3, 2), lambda a: 1 / (1 + torch.exp(-a)))  # noqa: E731
        parts = None, outputs, half_squares, identities
    elif name == "convolution, not convex":
        module = torch.nn.Sequential(
            torch.nn.Conv1d(1, 3, 2), torch.nn.Softplus(), torch.nn.Flatten(), torch.nn.Linear(12, 2, bias=False)
        )
        data = [(normal(k, 1, 5), normal(k, 2)) for k in (n, m)]
        parts = cauchy, convolution, cauchy, cauchy_curved
    elif name == "embedding":
        module = Embedded()
        data = [(torch.randint(5, (k, 2), generator=generator), classes(k)) for k in (n, m)]
        parts = CROSS_ENTROPY, embedded, log_loss, log_loss_curved
    elif name == "attention":
        module = Attended()
        data = [(normal(k, 4, 3), classes(k)) for k in (n, m)]
        parts = CROSS_ENTROPY, attended, log_loss, log_loss_curved
    loss, *written = parts
    model = TorchModel(module.double()) if loss is None else TorchModel(module.double(), loss)
    weights = normal(checkpoints, model.n_parameters)
    samples, queries = Samples(*data[0]), Samples(*data[1], tuple(f"query-{k}" for k in range(m)))
    return Case(ModuleCheckpoints(np.arange(checkpoints) * 10.0, model, weights), samples, queries, *written)


NAMES = ["tanh classes", "sigmoid regression", "convolution, not convex", "embedding", "attention"]
CURVATURES = ["hessian", "gauss-newton"]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def on(device, case):
    """Return the case's checkpoints with weights on a device."""
    run = case.checkpoints
    return ModuleCheckpoints(run.epochs, run.model, run.weights.to(device))
