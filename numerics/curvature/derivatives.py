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

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float

from numerics.curvature import products
from numerics.curvature.kernels import Elementary, differentiable
from numerics.curvature.layout import Layout, mean_over_parts
from numerics.curvature.memory import blocks
from numerics.curvature.products import Product
from numerics.models.module import TorchModel
from numerics.models.samples import Parts, Samples
from numerics.models.trees import Tree, mapped

__all__ = ["Derivatives", "Engine", "as_point", "in_the_mean"]

_CACHE = 2**25  # bytes of one batch of products: larger ones leave the cache and are no faster
_GRAPH = 6  # graphs of one forward pass that a graph of its gradient takes up
_PASS = 4  # those that each vector's way through it takes up


@dataclass(frozen=True)
class Engine:
    """How the derivatives of one model are taken.

    Parameters
    ----------
    gradients, products
        "vmap" (torch.func) or "loop" (plain autograd, one sample or vector after the other), for gradients and
        Jacobians of samples and for products with a curvature; these also by "jacobians" that are made in full.
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

    @classmethod
    def of_gradients(cls, engines: Sequence[Engine], products: Engine | None = None) -> Engine:
        """Return several engines of gradients, and one of products if there are any, as one for the record."""
        gradients = " and ".join(dict.fromkeys(engine.gradients for engine in engines)) or "loop"
        every = engines if products is None else [*engines, products]
        way = gradients if products is None else products.products
        return cls(gradients, way, any(engine.elementary for engine in every))

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
        Any; weights in float64 make it one in float64.
    engine
        How they are taken.
    allowed
        Bytes that the work may hold at a time.
    sample_bytes
        Bytes that the graph of one sample's loss keeps.
    layout
        Shapes of the outputs for one sample; None where they are not needed.
    """

    model: TorchModel
    engine: Engine
    allowed: int
    sample_bytes: int
    layout: Layout | None

    @property
    def n_outputs(self) -> int:
        """Number o of outputs for one sample."""
        assert self.layout is not None
        return self.layout.size

    def of(self, model: TorchModel) -> Derivatives:
        """Return the same for the model of another checkpoint."""
        return dataclasses.replace(self, model=model)

    def kernels(self) -> AbstractContextManager[None]:
        """Return the context in which the model's forward pass runs."""
        return differentiable(self.model.module, Elementary() if self.engine.elementary else None)

    def gradients(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> Float[torch.Tensor, "n d"]:
        """Return the gradient of the loss of every sample."""
        weights = as_point(weights)
        samples = samples.like(weights)
        result = weights.new_empty(len(samples), len(weights))
        for rows in self.gradient_blocks(len(samples)):
            with self.kernels():
                items = _items(samples, rows)
                result[rows] = products.gradient_rows(self._loss_of_one, weights, items, self.engine.gradients)
        return result

    def part_gradients(
        self, weights: Float[torch.Tensor, " d"], parts: Parts, rows: slice
    ) -> Float[torch.Tensor, "m d"]:
        """Return the gradient of the loss of some parts of samples, at once: they are as many as fit into memory."""
        weights = as_point(weights)
        which = torch.as_tensor(parts.part[rows], device=weights.device)
        samples = parts.samples[parts.sample[rows]].like(weights)
        with self.kernels():
            items = (samples.inputs, samples.targets, which)
            return products.gradient_rows(self._loss_of_part, weights, items, self.engine.gradients)

    def losses(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> Float[torch.Tensor, " n"]:
        """Return the loss of every sample."""
        weights = as_point(weights)
        samples = samples.like(weights)
        found = []
        for rows in blocks(len(samples), self.sample_bytes, self.allowed // 2):
            with torch.no_grad(), self.kernels():
                found.append(self.model.evaluated(weights, samples[rows]))
        return torch.cat(found)

    def gradient_blocks(self, count: int, copies: int = 0) -> list[slice]:
        """Return slices of samples whose gradients fit into half the memory, with further copies of them."""
        each = (3 + copies) * 8 * self.model.n_parameters + _GRAPH * self.sample_bytes
        return blocks(count, each, self.allowed // 2)

    def mean_gradient(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> Float[torch.Tensor, " d"]:
        """Return the gradient of the mean loss of a few samples, by plain autograd."""
        block = _Block(samples, in_the_mean(weights, samples, None))
        with self.kernels():
            return products.slope(self._weighted_loss(block), weights)

    def pulled_slopes(
        self, weights: Float[torch.Tensor, " d"], samples: Samples, change: torch.Tensor
    ) -> Float[torch.Tensor, " d"]:
        """Return J^T A c / n for a small change c of the outputs of a few samples, A c by central differences."""
        block = _Block(samples, in_the_mean(weights, samples, None))
        with self.kernels():
            value = self._weighted_loss_of_outputs(block)
            f = self.outputs(weights, samples)
            change_of_slope = products.slope(value, f + change) - products.slope(value, f - change)
            return products.slope(lambda w: (self._outputs(w, samples) * change_of_slope).sum() / 2, weights)

    def outputs(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> Float[torch.Tensor, "n o"]:
        """Return the outputs of a few samples."""
        with torch.no_grad(), self.kernels():
            return self._outputs(weights, samples)

    def jacobians(
        self, weights: Float[torch.Tensor, " d"], samples: Samples
    ) -> Iterator[tuple[slice, Float[torch.Tensor, "n o d"], Float[torch.Tensor, "n o o"]]]:
        """Yield blocks of samples with the Jacobian J_i of their outputs and the Hessian A_i of their loss in these."""
        weights = as_point(weights)
        samples = samples.like(weights)
        for rows in blocks(len(samples), self._jacobian_bytes(), self.allowed // 2):
            inputs, *rest = _items(samples, rows)
            with self.kernels():
                way = self.engine.gradients
                jacobian, values = products.jacobian_rows(self._outputs_of_one, weights, (inputs,), way)
                curved = products.hessians(self._loss_of_outputs, values, tuple(rest), way)
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
        if self.engine.products == "jacobians":
            return self._by_jacobians(weights, samples, beta)

        def of_block(w: torch.Tensor, block: _Block, chunk: int) -> Product:
            def outputs(at: torch.Tensor) -> torch.Tensor:
                return self._outputs(at, block.samples)

            value = self._weighted_loss_of_outputs(block)
            return products.gauss_newton_rows(outputs, value, w, self.engine.products, chunk)

        return self._summed(of_block, weights, samples, beta)

    def _by_jacobians(self, weights: torch.Tensor, samples: Samples, beta: torch.Tensor | None) -> Product:
        """Return the product for a module whose backward pass cannot be differentiated again: J itself is made."""
        mean = in_the_mean(weights, samples, beta)

        def product(vectors: torch.Tensor) -> torch.Tensor:
            total = torch.zeros_like(vectors)
            for rows, jacobian, curved in self.jacobians(weights, samples):
                forward = torch.einsum("n,npo,nod,kd->knp", mean[rows], curved, jacobian, vectors)
                total += torch.einsum("knp,npd->kd", forward, jacobian)
            return total

        return product

    def _summed(
        self,
        of_block: Callable[[torch.Tensor, _Block, int], Product],
        weights: torch.Tensor,
        samples: Samples,
        beta: torch.Tensor | None,
    ) -> Product:
        """Return the sum of the products of blocks of samples; with one block, its graph is built once."""
        weights = as_point(weights)
        samples, mean = samples.like(weights), in_the_mean(weights, samples, beta)
        chunk, slices = self._product_blocks(len(samples), len(weights))

        def made(rows: slice) -> Product:
            return of_block(weights, _Block(samples[rows], mean[rows]), chunk)

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
        return lambda w: block.mean @ self.model.losses(w, block.samples)

    def _weighted_loss_of_outputs(self, block: _Block) -> Callable[[torch.Tensor], torch.Tensor]:
        samples = block.samples
        return lambda f: block.mean @ self._losses_of_outputs(f, samples.targets, samples.present)

    def _losses_of_outputs(self, flat: torch.Tensor, targets: Tree, present: torch.Tensor | None) -> torch.Tensor:
        assert self.layout is not None
        return mean_over_parts(self.model.loss_of_outputs(self.layout.tree(flat), targets), present)

    def _outputs(self, w: torch.Tensor, samples: Samples) -> torch.Tensor:
        assert self.layout is not None
        return self.layout.flat(self.model.outputs(w, samples.inputs))

    def _loss_of_one(
        self, w: torch.Tensor, inputs: Tree, targets: Tree, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        there = None if present is None else present[None]
        return self.model.sample_losses(w, _alone(inputs), _alone(targets), present=there)[0]

    def _loss_of_part(self, w: torch.Tensor, inputs: Tree, targets: Tree, part: torch.Tensor) -> torch.Tensor:
        losses = self.model.loss_of_outputs(self.model.outputs(w, _alone(inputs)), _alone(targets))
        return losses[0].gather(0, part[None])[0]

    def _outputs_of_one(self, w: torch.Tensor, inputs: Tree) -> torch.Tensor:
        assert self.layout is not None
        return self.layout.flat(self.model.outputs(w, _alone(inputs)))[0]

    def _loss_of_outputs(self, flat: torch.Tensor, targets: Tree, present: torch.Tensor | None = None) -> torch.Tensor:
        return self._losses_of_outputs(flat[None], _alone(targets), None if present is None else present[None])[0]


class _Block(NamedTuple):
    samples: Samples
    mean: torch.Tensor


def as_point(weights: Float[torch.Tensor, " d"]) -> Float[torch.Tensor, " d"]:
    """Return weights in float64, without history."""
    return weights.detach().to(torch.float64).contiguous()


def in_the_mean(
    weights: Float[torch.Tensor, " d"], samples: Samples, beta: Float[torch.Tensor, " n"] | None
) -> Float[torch.Tensor, " n"]:
    """Return beta / N in float64 on the device of the weights."""
    beta = torch.ones(len(samples)) if beta is None else beta
    return beta.to(weights.device, torch.float64) / len(samples)


def _items(samples: Samples, rows: slice) -> tuple[Tree, ...]:
    """Return inputs, targets and, if samples have parts, which are present, of some samples."""
    some = samples[rows]
    return (some.inputs, some.targets, *([] if some.present is None else [some.present]))


def _alone(tree: Tree) -> Tree:
    """Return one sample as a batch."""
    return mapped(lambda leaf: leaf[None], tree)
