r"""Gradients, Hessian and Gauss-Newton matrix of the loss of any torch module, exact to rounding.

With outputs f_i(w), losses l_i(w) = l(f_i, y_i) and L = (1/N) sum_i beta_i l_i,

.. math::
    H = \frac1N \sum_i \beta_i \nabla^2 \ell_i , \qquad
    G = \frac1N \sum_i \beta_i J_i^T A_i J_i , \quad J_i = \frac{\partial f_i}{\partial w}, \;
    A_i = \frac{\partial^2 \ell}{\partial f^2} ;

G is the generalised Gauss-Newton matrix (Schraudolph 2002), J^T J / N for half the squared error. Everything is
computed in float64 on the device of the weights, whatever their dtype, and in reverse mode: the product with the
Hessian is the pull-back of the gradient, which is twice as fast here as the usual forward over reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch.func import grad, jacrev, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from numerics.models.evaluation import sample_gradients_in_dtype, ways_of
from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from numerics.models.trees import Tree, mapped

__all__ = ["gauss_newton_matrix", "hessian_matrix", "sample_gradients"]

Product = Callable[[torch.Tensor], torch.Tensor]

# Vectors x samples x parameters of one batch of products: larger batches leave the cache and are no faster.
_BATCH = 2**22
# Fused attention has no second derivative; the kernel written in elementary operations has.
_ATTENTION = SDPBackend.MATH
_NUMBERS = 2**25  # numbers that a batch of gradients or Jacobians may hold, 256 MiB


def in_double(
    model: TorchModel, weights: Float[torch.Tensor, "*t d"]
) -> tuple[TorchModel, Float[torch.Tensor, "*t d"]]:
    """Return the model with its buffers, and the weights, in float64 on the device of the weights."""
    double = weights.to(torch.float64).contiguous()
    return model.to(double), double


@sdpa_kernel(_ATTENTION)
def sample_gradients(
    model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples
) -> Float[torch.Tensor, "n d"]:
    """Return the gradient of the loss of every sample, shape (n, d), float64.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(2, 1, bias=False))
    >>> sample_gradients(model, torch.zeros(2), Samples(torch.tensor([[1.0, 2.0]]), torch.ones(1, 1)))
    tensor([[-1., -2.]], dtype=torch.float64)
    """
    model, weights = in_double(model, weights)
    samples = samples.like(weights)

    way = ways_of(model, weights, samples).samples
    return sample_gradients_in_dtype(model, weights, samples, way, chunk=max(1, _NUMBERS // len(weights)))


def output_derivatives(
    model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples
) -> Iterator[tuple[slice, Float[torch.Tensor, "n o d"], Float[torch.Tensor, "n o o"]]]:
    """Yield batches of samples with the Jacobian J_i of their outputs and the Hessian A_i of their loss in these."""
    model, weights = in_double(model, weights)
    samples = samples.like(weights)

    def output(w: torch.Tensor, x: Tree) -> tuple[torch.Tensor, torch.Tensor]:
        result = model.outputs(w, mapped(lambda v: v[None], x))
        return result.flatten(), result

    def loss(f: torch.Tensor, y: Tree) -> torch.Tensor:
        return model.loss_of_outputs(f, mapped(lambda v: v[None], y))[0]

    size = max(1, _NUMBERS // (n_outputs(model, weights, samples) * len(weights)))
    for first in range(0, len(samples), size):
        rows = slice(first, first + size)
        with sdpa_kernel(_ATTENTION):
            few = samples[rows]
            jacobian, values = vmap(jacrev(output, has_aux=True), (None, 0))(weights, few.inputs)
            curved = vmap(jacrev(jacrev(loss)))(values, few.targets)
        yield rows, jacobian, curved.reshape(len(values), jacobian.shape[1], -1)


def n_outputs(model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples) -> int:
    """Return the number of outputs for one sample."""
    with torch.no_grad():
        return model.outputs(weights, samples[:1].like(weights).inputs).numel()


def hessian_matrix(
    model: TorchModel,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    sample_weights: Float[torch.Tensor, " n"] | None = None,
) -> Float[torch.Tensor, "d d"]:
    """Return the Hessian of the weighted mean loss, shape (d, d), float64.

    Parameters
    ----------
    model, weights, samples
        Module with its loss, flat weights of shape (d,), and the n samples of the mean.
    sample_weights
        beta, shape (n,); all 1 if not given.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(2, 1, bias=False))
    >>> hessian_matrix(model, torch.zeros(2), Samples(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1)))
    tensor([[1., 2.],
            [2., 4.]], dtype=torch.float64)
    """
    product = hessian_product(model, weights, samples, sample_weights)
    return product(torch.eye(len(weights), dtype=torch.float64, device=weights.device))


def gauss_newton_matrix(
    model: TorchModel,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    sample_weights: Float[torch.Tensor, " n"] | None = None,
) -> Float[torch.Tensor, "d d"]:
    """Return the generalised Gauss-Newton matrix of the weighted mean loss, shape (d, d), float64.

    Parameters
    ----------
    model, weights, samples, sample_weights
        As for `hessian_matrix`.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(2, 1, bias=False))
    >>> gauss_newton_matrix(model, torch.zeros(2), Samples(torch.tensor([[1.0, 2.0]]), torch.ones(1, 1)))
    tensor([[1., 2.],
            [2., 4.]], dtype=torch.float64)
    """
    result = torch.zeros(len(weights), len(weights), dtype=torch.float64, device=weights.device)
    beta = in_the_mean(weights, samples, sample_weights)
    for rows, jacobian, curved in output_derivatives(model, weights, samples):
        inner = beta[rows, None, None] * curved @ jacobian
        result += jacobian.flatten(0, 1).mT @ inner.flatten(0, 1)
    return result


def in_the_mean(
    weights: Float[torch.Tensor, " d"], samples: Samples, sample_weights: Float[torch.Tensor, " n"] | None
) -> Float[torch.Tensor, " n"]:
    """Return beta / N in float64 on the device of the weights."""
    if sample_weights is None:
        sample_weights = torch.ones(len(samples))
    return sample_weights.to(weights.device, torch.float64) / len(samples)


@sdpa_kernel(_ATTENTION)
def hessian_product(
    model: TorchModel,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    sample_weights: Float[torch.Tensor, " n"] | None = None,
) -> Product:
    """Return the function that multiplies the rows of a block (k, d) by the Hessian; the graph is built once."""
    model, weights = in_double(model, weights)
    samples, beta = samples.like(weights), in_the_mean(weights, samples, sample_weights)
    product = _pull_back(grad(lambda w: beta @ model.losses(w, samples)), weights)
    return vmap(product, chunk_size=_chunk(samples, weights))


@sdpa_kernel(_ATTENTION)
def gauss_newton_product(
    model: TorchModel,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    sample_weights: Float[torch.Tensor, " n"] | None = None,
) -> Product:
    """Return the function that multiplies the rows of a block (k, d) by the Gauss-Newton matrix.

    J v is the pull-back of the map u -> J^T u, which is linear, so that no forward mode is needed.
    """
    model, weights = in_double(model, weights)
    samples, beta = samples.like(weights), in_the_mean(weights, samples, sample_weights)

    def outputs(w: torch.Tensor) -> torch.Tensor:
        return model.outputs(w, samples.inputs)

    values = outputs(weights)
    push_forward = _pull_back(lambda u: _pull_back(outputs, weights)(u), torch.zeros_like(values))
    curved = _pull_back(grad(lambda f: beta @ model.loss_of_outputs(f, samples.targets)), values)
    pull_back = _pull_back(outputs, weights)

    def product(v: torch.Tensor) -> torch.Tensor:
        return pull_back(curved(push_forward(v)))

    return vmap(product, chunk_size=_chunk(samples, weights))


def _pull_back(function: Product, at: torch.Tensor) -> Product:
    """Return u -> J^T u, J the Jacobian of `function` at a point; the graph is built once."""
    pull_back = vjp(function, at)[1]
    return lambda u: pull_back(u)[0]


def _chunk(samples: Samples, weights: torch.Tensor) -> int:
    return min(128, max(4, _BATCH // (len(samples) * len(weights))))
