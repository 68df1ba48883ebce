r"""Losses and gradients of a module for many weights or many samples at once, by the fastest way that is right for it.

torch.func's vmap evaluates a whole batch in one call, but not every module: recurrent layers have no batching rule, and
some code asks for the value of a number or writes into a tensor of its own. Which way works is tried when a model and
its samples first meet, on two weights and two samples, and held against plain autograd; what works neither way is
refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch.func import grad, vmap

from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from numerics.models.trees import described, leaves, mapped

__all__ = ["Ways", "losses_for_weights", "sample_gradients_in_dtype", "ways_of"]

Way = Literal["vmap", "loop"]

# What torch.func says of a module that it cannot handle, and what modules say of tensors they did not expect.
_REFUSALS = (
    RuntimeError,
    ValueError,
    TypeError,
    NotImplementedError,
    IndexError,
    KeyError,
    AttributeError,
    UserWarning,
)


@dataclass(frozen=True)
class Ways:
    """How a module is evaluated: for many weights at once, and for gradients of many samples at once.

    Parameters
    ----------
    weights, samples
        "vmap", all in one call, or "loop", one after the other by plain autograd.
    """

    weights: Way
    samples: Way

    def __str__(self) -> str:
        """Return the ways in words, for attributes."""
        return f"weights by {self.weights}, samples by {self.samples}"


def ways_of(model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples) -> Ways:
    """Return the fastest right ways to evaluate the model on samples of this kind; tried once.

    Raises
    ------
    ValueError
        If the module cannot be evaluated or differentiated at all; the sentence names it and says why.

    Examples
    --------
    >>> two = Samples(torch.ones(2, 3, 1), torch.ones(2, 3, 1))
    >>> ways_of(TorchModel(torch.nn.Linear(1, 1)), torch.ones(2), two)
    Ways(weights='vmap', samples='vmap')
    >>> model = TorchModel(torch.nn.RNN(1, 1), lambda out, y: (out[0] - y).square().sum((1, 2)))
    >>> ways_of(model, model.initial(), two)
    Ways(weights='loop', samples='loop')
    """
    trees = (samples.inputs, samples.targets)
    kind = (weights.dtype, weights.device, *((n, tuple(v.shape[1:]), v.dtype) for n, v in leaves("", trees)))
    if kind not in model.known_ways:
        model.known_ways[kind] = _tried(model, weights.detach(), samples[: min(2, len(samples))].like(weights))
    return model.known_ways[kind]


def losses_for_weights(
    model: TorchModel, samples: Samples, way: Way
) -> Callable[[Float[torch.Tensor, "c d"]], Float[torch.Tensor, "c n"]]:
    """Return the function that gives the losses of all samples for every row of weights; autograd goes through it.

    Examples
    --------
    >>> samples = Samples(torch.ones(2, 1), torch.ones(2, 1))
    >>> losses_for_weights(TorchModel(torch.nn.Linear(1, 1)), samples, "vmap")(torch.zeros(3, 2))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    if way == "vmap":
        return vmap(lambda w: model.losses(w, samples))
    return lambda weights: torch.stack([model.losses(w, samples) for w in weights])


def sample_gradients_in_dtype(
    model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples, way: Way, *, chunk: int | None = None
) -> Float[torch.Tensor, "n d"]:
    """Return the gradient of the loss of every sample in the dtype of the weights, at most `chunk` of them in one call.

    Examples
    --------
    >>> model, samples = TorchModel(torch.nn.Linear(1, 1)), Samples(torch.ones(2, 1), torch.ones(2, 1))
    >>> sample_gradients_in_dtype(model, torch.zeros(2), samples, "vmap")
    tensor([[-1., -1.],
            [-1., -1.]])
    """
    if way == "loop":
        return torch.stack([_gradient(partial(_loss_alone, model, samples[[i]]), weights) for i in range(len(samples))])

    def loss(w: torch.Tensor, inputs: object, targets: object, present: torch.Tensor | None) -> torch.Tensor:
        inputs, targets = mapped(lambda v: v[None], (inputs, targets))
        return model.sample_losses(w, inputs, targets, None, None if present is None else present[None])[0]

    axes = (None, 0, 0, None if samples.present is None else 0)
    each = vmap(grad(loss), axes, chunk_size=chunk)
    return each(weights, samples.inputs, samples.targets, samples.present)


def _loss_alone(model: TorchModel, sample: Samples, weights: torch.Tensor) -> torch.Tensor:
    return model.losses(weights, sample)[0]


@torch.enable_grad()
def _gradient(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    leaf = at.detach().clone().requires_grad_()
    value = function(leaf)
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (slope,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return torch.zeros_like(leaf) if slope is None else slope


def _tried(model: TorchModel, weights: torch.Tensor, samples: Samples) -> Ways:
    name = type(model.module).__name__
    try:
        reference = _gradient(lambda w: model.losses(w, samples).sum(), weights)
        alone = sample_gradients_in_dtype(model, weights, samples, "loop")
    except _REFUSALS as error:
        raise ValueError(
            f"{name} cannot be differentiated for inputs of {described(samples.inputs)} with targets of "
            f"{described(samples.targets)}: {error}"
        ) from error
    both, evaluate = torch.stack([weights, weights]), losses_for_weights(model, samples, "vmap")
    with torch.no_grad():
        values = torch.stack([model.losses(weights, samples)] * 2)

    def slopes() -> torch.Tensor:
        leaf = both.clone().requires_grad_()
        with torch.enable_grad():
            losses = evaluate(leaf)
            if not losses.requires_grad:  # a measure such as accuracy, of which values alone are asked
                return torch.zeros_like(leaf)
            return torch.autograd.grad(losses.sum(), leaf)[0]

    by_weights = _works(lambda: evaluate(both), values) and _works(slopes, torch.stack([reference, reference]))
    by_samples = _works(lambda: sample_gradients_in_dtype(model, weights, samples, "vmap"), alone)
    return Ways("vmap" if by_weights else "loop", "vmap" if by_samples else "loop")


def _works(attempt: Callable[[], torch.Tensor], reference: torch.Tensor) -> bool:
    """Return whether an attempt ends, without fallback, in the reference."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*performance drop")
            found = attempt()
    except _REFUSALS:
        return False
    # Two orders of the same sums of products: apart by rounding, of which the square root leaves room for any length.
    root = torch.finfo(reference.dtype).eps ** 0.5
    return bool(((found - reference).abs() <= root * reference.abs().max().clamp(min=1e-30)).all())
