r"""The derivatives of a model's losses at given weights: gradients, Hessian and Gauss-Newton matrix, in bounded memory.

With outputs f_i(w), losses l_i(w) = l(f_i, y_i) and L = (1/N) sum_i beta_i l_i,

.. math::
    H = \frac1N \sum_i \beta_i \nabla^2 \ell_i , \qquad
    G = \frac1N \sum_i \beta_i J_i^T A_i J_i , \quad J_i = \frac{\partial f_i}{\partial w}, \;
    A_i = \frac{\partial^2 \ell}{\partial f^2} ;

G is the generalised Gauss-Newton matrix (Schraudolph 2002), J^T J / N for half the squared error. Everything is
computed in float64 on the device of the weights, whatever their dtype.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch.utils._pytree import tree_map

from numerics.curvature import products
from numerics.curvature.kernels import Elementary, differentiable
from numerics.curvature.memory import blocks
from numerics.curvature.products import Product
from numerics.models.module import TorchModel
from numerics.models.samples import Samples

__all__ = ["Derivatives", "Engine", "in_double", "in_the_mean"]

_CACHE = 2**25  # bytes of one batch of products: larger ones leave the cache and are no faster
_GRAPH = 4  # graphs of one forward pass that a graph of its gradient takes up
_PASS = 2  # those that each vector's way through it takes up


@dataclass(frozen=True)
class Engine:
    """How the derivatives of one model are taken.

    Parameters
    ----------
    gradients, products
        "vmap" (torch.func) or "loop" (plain autograd, one sample or vector after the other), for gradients and
        Jacobians of samples and for products with a curvature.
    elementary
        Whether the forward pass runs in `numerics.curvature.kernels.Elementary`.

    Examples
    --------
    >>> Engine("loop", "vmap").name
    'gradients by loop, products by vmap'
    """

    gradients: str = "vmap"
    products: str = "vmap"
    elementary: bool = False

    @property
    def name(self) -> str:
        """The ways in words, as results record them."""
        same = self.gradients == self.products
        ways = self.gradients if same else f"gradients by {self.gradients}, products by {self.products}"
        return f"{ways}, elementary operations" if self.elementary else ways


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Derivatives of one model by one engine, a block of samples at a time.

    Parameters
    ----------
    model
        In float64; see `in_double`.
    engine
        How they are taken.
    allowed
        Bytes that the work may hold at a time.
    sample_bytes
        Bytes that the graph of one sample's loss keeps.
    output_shape
        Shape of the outputs for one sample.
    """

    model: TorchModel
    engine: Engine
    allowed: int
    sample_bytes: int
    output_shape: tuple[int, ...]

    @property
    def n_outputs(self) -> int:
        """Number o of outputs for one sample."""
        return prod(self.output_shape)

    def of(self, model: TorchModel) -> Derivatives:
        """Return the same for the model of another checkpoint."""
        return dataclasses.replace(self, model=in_double(model))

    def kernels(self) -> AbstractContextManager[None]:
        """Return the context in which the model's forward pass runs."""
        return differentiable(self.model.module, Elementary() if self.engine.elementary else None)

    def gradients(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> Float[torch.Tensor, "n d"]:
        """Return the gradient of the loss of every sample."""
        weights, samples = weights.double(), samples.like(weights.double())
        result = weights.new_empty(len(samples), len(weights))
        for rows in self.gradient_blocks(len(samples)):
            with self.kernels():
                items = _items(samples, rows)
                result[rows] = products.gradient_rows(self._loss_of_one, weights, items, self.engine.gradients)
        return result

    def losses(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> Float[torch.Tensor, " n"]:
        """Return the loss of every sample."""
        weights = weights.double()
        samples = samples.like(weights)
        found = []
        for rows in blocks(len(samples), self.sample_bytes, self.allowed // 2):
            with torch.no_grad(), self.kernels():
                found.append(self.model.sample_losses(weights, *_items(samples, rows)))
        return torch.cat(found)

    def gradient_blocks(self, count: int, copies: int = 0) -> list[slice]:
        """Return slices of samples whose gradients fit into half the memory, with further copies of them."""
        each = (3 + copies) * 8 * self.model.n_parameters + _GRAPH * self.sample_bytes
        return blocks(count, each, self.allowed // 2)

    def mean_gradient(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> Float[torch.Tensor, " d"]:
        """Return the gradient of the mean loss of a few samples, by plain autograd."""
        block = _Block(*_items(samples, slice(None)), in_the_mean(weights, samples, None))
        with self.kernels():
            return products.slope(self._weighted_loss(block), weights)

    def pulled_slopes(
        self, weights: Float[torch.Tensor, " d"], samples: Samples, change: torch.Tensor
    ) -> Float[torch.Tensor, " d"]:
        """Return J^T A c / n for a small change c of the outputs of a few samples, A c by central differences."""
        block = _Block(*_items(samples, slice(None)), in_the_mean(weights, samples, None))
        with self.kernels():
            value = self._weighted_loss_of_outputs(block)
            f = self.outputs(weights, samples)
            change_of_slope = products.slope(value, f + change) - products.slope(value, f - change)
            return products.slope(lambda w: (self.model.outputs(w, block.inputs) * change_of_slope).sum() / 2, weights)

    def outputs(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> torch.Tensor:
        """Return the outputs of a few samples."""
        with torch.no_grad(), self.kernels():
            return self.model.outputs(weights, samples.inputs)

    def jacobians(
        self, weights: Float[torch.Tensor, " d"], samples: Samples
    ) -> Iterator[tuple[slice, Float[torch.Tensor, "n o d"], Float[torch.Tensor, "n o o"]]]:
        """Yield blocks of samples with the Jacobian J_i of their outputs and the Hessian A_i of their loss in these."""
        weights, samples = weights.double(), samples.like(weights.double())
        for rows in blocks(len(samples), self._jacobian_bytes(), self.allowed // 2):
            inputs, targets = _items(samples, rows)
            with self.kernels():
                way = self.engine.gradients
                jacobian, values = products.jacobian_rows(self._outputs_of_one, weights, (inputs,), way)
                curved = products.hessians(self._loss_of_outputs, values, (targets,), way)
            yield rows, jacobian, curved

    def takes_jacobians(self) -> bool:
        """Return whether the Jacobian of one sample is no larger than a product with the identity, and fits."""
        return self.n_outputs <= self.model.n_parameters and self._jacobian_bytes() <= self.allowed // 2

    def _jacobian_bytes(self) -> int:
        return self.n_outputs * (4 * 8 * self.model.n_parameters + _PASS * self.sample_bytes + 4 * 8 * self.n_outputs)

    def gauss_newton_matrix(
        self, weights: Float[torch.Tensor, " d"], samples: Samples, beta: Float[torch.Tensor, " n"] | None
    ) -> Float[torch.Tensor, "d d"]:
        """Return G from Jacobians."""
        result = torch.zeros(len(weights), len(weights), dtype=torch.float64, device=weights.device)
        mean = in_the_mean(weights, samples, beta)
        for rows, jacobian, curved in self.jacobians(weights, samples):
            inner = mean[rows, None, None] * curved @ jacobian
            result += jacobian.flatten(0, 1).mT @ inner.flatten(0, 1)
        return result

    def hessian_product(
        self, weights: Float[torch.Tensor, " d"], samples: Samples, beta: Float[torch.Tensor, " n"] | None
    ) -> Product:
        """Return the function that multiplies the rows of a block (k, d) by H."""

        def of_block(w: torch.Tensor, block: _Block, chunk: int) -> Product:
            value = self._weighted_loss(block)
            return products.hessian_rows(value, w, self.engine.products, chunk)

        return self._summed(of_block, weights, samples, beta)

    def gauss_newton_product(
        self, weights: Float[torch.Tensor, " d"], samples: Samples, beta: Float[torch.Tensor, " n"] | None
    ) -> Product:
        """Return the function that multiplies the rows of a block (k, d) by G."""

        def of_block(w: torch.Tensor, block: _Block, chunk: int) -> Product:
            def outputs(at: torch.Tensor) -> torch.Tensor:
                return self.model.outputs(at, block.inputs)

            value = self._weighted_loss_of_outputs(block)
            return products.gauss_newton_rows(outputs, value, w, self.engine.products, chunk)

        return self._summed(of_block, weights, samples, beta)

    def _summed(
        self,
        of_block: Callable[[torch.Tensor, _Block, int], Product],
        weights: torch.Tensor,
        samples: Samples,
        beta: torch.Tensor | None,
    ) -> Product:
        """Return the sum of the products of blocks of samples; with one block, its graph is built once."""
        weights = weights.double()
        samples, mean = samples.like(weights), in_the_mean(weights, samples, beta)
        chunk, slices = self._product_blocks(len(samples), len(weights))

        def made(rows: slice) -> Product:
            return of_block(weights, _Block(*_items(samples, rows), mean[rows]), chunk)

        if len(slices) == 1:
            with self.kernels():
                return made(slices[0])

        def product(vectors: torch.Tensor) -> torch.Tensor:
            total = torch.zeros_like(vectors)
            for rows in slices:
                with self.kernels():
                    total += made(rows)(vectors)
            return total

        return product

    def _product_blocks(self, count: int, size: int) -> tuple[int, list[slice]]:
        """Return how many vectors go through a product at a time, and slices of samples."""
        if self.engine.products == "loop":
            return 1, blocks(count, (_GRAPH + _PASS) * self.sample_bytes, self.allowed // 2)
        quick = _CACHE // max(count * self.sample_bytes, 8 * size)
        fit = self.allowed // (2 * max(8 * 8 * size, _PASS * self.sample_bytes)) - _GRAPH // _PASS
        chunk = max(1, min(128, max(4, quick), fit))
        return chunk, blocks(count, (_GRAPH + _PASS * chunk) * self.sample_bytes, self.allowed // 2)

    def _weighted_loss(self, block: _Block) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda w: block.mean @ self.model.sample_losses(w, block.inputs, block.targets)

    def _weighted_loss_of_outputs(self, block: _Block) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda f: block.mean @ self.model.loss(f, block.targets)

    def _loss_of_one(self, w: torch.Tensor, inputs: Any, targets: Any) -> torch.Tensor:
        return self.model.sample_losses(w, _alone(inputs), _alone(targets))[0]

    def _outputs_of_one(self, w: torch.Tensor, inputs: Any) -> torch.Tensor:
        return self.model.outputs(w, _alone(inputs)).flatten()

    def _loss_of_outputs(self, flat: torch.Tensor, targets: Any) -> torch.Tensor:
        return self.model.loss(flat.reshape(1, *self.output_shape), _alone(targets))[0]


class _Block(NamedTuple):
    inputs: Any
    targets: Any
    mean: torch.Tensor


def in_double(model: TorchModel) -> TorchModel:
    """Return the model with its parameters and buffers in float64."""
    held = [*model.module.parameters(), *model.module.buffers()]
    if not any(v.is_floating_point() and v.dtype != torch.float64 for v in held):
        return model
    return dataclasses.replace(model, module=copy.deepcopy(model.module).double())


def in_the_mean(
    weights: Float[torch.Tensor, " d"], samples: Samples, beta: Float[torch.Tensor, " n"] | None
) -> Float[torch.Tensor, " n"]:
    """Return beta / N in float64 on the device of the weights."""
    beta = torch.ones(len(samples)) if beta is None else beta
    return beta.to(weights.device, torch.float64) / len(samples)


def _items(samples: Samples, rows: slice) -> tuple[Any, Any]:
    """Return inputs and targets of some samples."""
    return tree_map(lambda leaf: leaf[rows], samples.inputs), tree_map(lambda leaf: leaf[rows], samples.targets)


def _alone(tree: Any) -> Any:
    """Return one sample as a batch."""
    return tree_map(lambda leaf: leaf[None], tree)
