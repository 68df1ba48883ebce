"""Gradients, Hessian and Gauss-Newton matrix of the loss of any torch module, exact to rounding, in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float

from numerics.curvature.entry import derivatives_of
from numerics.curvature.soundness import sound_matrix
from numerics.models.module import TorchModel
from numerics.models.samples import Samples

__all__ = ["gauss_newton_matrix", "hessian_matrix", "sample_gradients"]


def sample_gradients(
    model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples, *, max_memory: int | None = None
) -> Float[torch.Tensor, "n d"]:
    """Return the gradient of the loss of every sample, shape (n, d), float64.

    Parameters
    ----------
    model, weights, samples
        Module with its loss, flat weights of shape (d,), and n samples.
    max_memory
        Bytes that the work may hold at a time, besides the result; 1 GiB, or a quarter of what is free, if not given.

    Raises
    ------
    NotDifferentiable
        If torch cannot differentiate the module.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(2, 1, bias=False))
    >>> sample_gradients(model, torch.zeros(2), Samples(torch.tensor([[1.0, 2.0]]), torch.ones(1, 1)))
    tensor([[-1., -2.]], dtype=torch.float64)
    """
    return derivatives_of(model, weights, samples, max_memory=max_memory).gradients(weights, samples)


def hessian_matrix(
    model: TorchModel,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    sample_weights: Float[torch.Tensor, " n"] | None = None,
    *,
    max_memory: int | None = None,
) -> Float[torch.Tensor, "d d"]:
    """Return the Hessian of the weighted mean loss, shape (d, d), float64.

    Parameters
    ----------
    model, weights, samples
        Module with its loss, flat weights of shape (d,), and the n samples of the mean.
    sample_weights
        beta, shape (n,); all 1 if not given.
    max_memory
        As for `sample_gradients`.

    Raises
    ------
    NotDifferentiable
        If torch has no second derivative of the module.
    WrongDerivative
        If torch's contradicts its symmetry or finite differences.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(2, 1, bias=False))
    >>> hessian_matrix(model, torch.zeros(2), Samples(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1)))
    tensor([[1., 2.],
            [2., 4.]], dtype=torch.float64)
    """
    return _matrix("hessian", model, weights, samples, sample_weights, max_memory)


def gauss_newton_matrix(
    model: TorchModel,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    sample_weights: Float[torch.Tensor, " n"] | None = None,
    *,
    max_memory: int | None = None,
) -> Float[torch.Tensor, "d d"]:
    """Return the generalised Gauss-Newton matrix of the weighted mean loss, shape (d, d), float64.

    Parameters
    ----------
    model, weights, samples, sample_weights
        As for `hessian_matrix`.
    max_memory
        As for `sample_gradients`.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(2, 1, bias=False))
    >>> gauss_newton_matrix(model, torch.zeros(2), Samples(torch.tensor([[1.0, 2.0]]), torch.ones(1, 1)))
    tensor([[1., 2.],
            [2., 4.]], dtype=torch.float64)
    """
    return _matrix("gauss-newton", model, weights, samples, sample_weights, max_memory)


def _matrix(
    curvature: str,
    model: TorchModel,
    weights: torch.Tensor,
    samples: Samples,
    beta: torch.Tensor | None,
    max_memory: int | None,
) -> torch.Tensor:
    derivatives = derivatives_of(model, weights, samples, curvature, max_memory=max_memory)
    return sound_matrix(derivatives, curvature, weights, samples, beta)
