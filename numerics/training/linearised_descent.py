r"""How small changes of the weights, and covectors on them, pass one epoch of gradient descent.

A step :math:`w \leftarrow w - \eta \sum_i \frac{\beta_i}{N} \nabla \ell_i(w)` carries a change v of the weights, with a
change b of the sample weights, forwards and a covector :math:`\lambda` backwards as

.. math::
    v \leftarrow A v - \frac\eta N \sum_i b_i \nabla \ell_i, \qquad \lambda \leftarrow A \lambda, \qquad
    A = I - \eta \nabla^2 L .

A change of beta_i at this step alone changes what lambda measures after it by
:math:`-\frac\eta N \lambda \cdot \nabla \ell_i`. Many changes or covectors pass at once, all around one run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch.func import jacrev, vmap

from numerics.training.descent import State
from numerics.training.linear_descent import LinearDescent
from numerics.training.module_descent import ModuleDescent

__all__ = ["LinearisedDescent", "LinearisedLinear", "LinearisedModule"]


class LinearisedDescent(ABC):
    """The neighbourhood of one run with all sample weights 1.

    Changes of the weights and covectors on them are both stored as vectors, stacked along the axis `stacked`.
    """

    stacked: int

    @abstractmethod
    def zeros(self, count: int) -> torch.Tensor:
        """Return so many vectors of zeros."""

    @abstractmethod
    def query_gradients(self, state: State) -> torch.Tensor:
        """Return the gradients of the queries' losses, as vectors."""

    @abstractmethod
    def forward(self, state: State, vectors: torch.Tensor) -> torch.Tensor:
        """Return the changes after the step from `state`.

        In the last vectors, one for each source, the weight of that source is also changed by 1.
        """

    @abstractmethod
    def backward(self, state: State, vectors: torch.Tensor) -> tuple[torch.Tensor, Float[torch.Tensor, "m n"]]:
        """Return the covectors before the step from `state`, and what a weight of each source changed there does."""

    def joined(self, vectors: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return all vectors and all others, stacked."""
        return torch.cat([vectors, others], dim=self.stacked)

    def products(self, vectors: torch.Tensor, others: torch.Tensor) -> Float[torch.Tensor, "m k"]:
        """Return the scalar product of every vector with every other."""
        axes = [axis for axis in range(vectors.ndim) if axis != self.stacked]
        return torch.tensordot(vectors, others, dims=(axes, axes))


class LinearisedLinear(LinearisedDescent):
    """Around a two-layer linear network: vectors (P + O, m, k) hold the changes of W_1^T above those of W_2.

    Parameters
    ----------
    descent
        Problem; its first initial state counts.
    sources
        Positions of the samples whose weights change.
    """

    stacked = 1

    def __init__(self, descent: LinearDescent, sources: Sequence[int]) -> None:
        self._descent = descent
        (self._syx,), (self._sxx,), diagonal = descent.moments(np.ones((1, len(descent.samples))))
        self._diagonal = None if diagonal is None else diagonal[0]
        self._inputs = descent.samples.inputs[list(sources)]
        self._targets = descent.samples.targets[list(sources)].mT.contiguous()

    def zeros(self, count: int) -> torch.Tensor:
        """Return so many vectors of zeros."""
        w1, w2 = self._descent.start
        return w1.new_zeros(w1.shape[2] + w2.shape[1], count, w1.shape[1])

    def query_gradients(self, state: State) -> torch.Tensor:
        """Return the gradients of the queries' losses, as vectors."""
        (w1,), (w2,) = state
        x, y = self._descent.queries.inputs, self._descent.queries.targets
        hidden = x @ w1.mT
        error = hidden @ w2.mT - y
        return torch.cat([x.mT[:, :, None] * (error @ w2), error.mT[:, :, None] * hidden])

    def forward(self, state: State, vectors: torch.Tensor) -> torch.Tensor:
        """Return the changes after the step from `state`, the last of them with their source's weight changed too."""
        (w1,), (w2,) = state
        product = w2 @ w1
        force = self._recoil(w1, w2, vectors)[1]
        residual = self._residual(product)[:, :, None]
        force[:, -len(self._inputs) :].addcmul_(residual, self._inputs, value=self._descent.rate)
        return self._carried(w1, w2, product, vectors, force)

    def backward(self, state: State, vectors: torch.Tensor) -> tuple[torch.Tensor, Float[torch.Tensor, "m n"]]:
        """Return the covectors before the step from `state`, and what a weight of each source changed there does."""
        (w1,), (w2,) = state
        product = w2 @ w1
        maps, force = self._recoil(w1, w2, vectors)
        onto_inputs = (maps.flatten(0, 1) @ self._inputs.mT).unflatten(0, maps.shape[:2])
        effect = self._descent.rate * (onto_inputs * self._residual(product)[:, None]).sum(0)
        return self._carried(w1, w2, product, vectors, force), effect

    def _residual(self, product: Float[torch.Tensor, "o p"]) -> Float[torch.Tensor, "o n"]:
        return torch.addmm(self._targets, product, self._inputs.mT, alpha=-1)

    def _recoil(
        self, w1: Float[torch.Tensor, "k p"], w2: Float[torch.Tensor, "o k"], vectors: Float[torch.Tensor, "po m k"]
    ) -> tuple[Float[torch.Tensor, "o m p"], Float[torch.Tensor, "o m p"]]:
        """Return the change dW of the end-to-end map that each vector makes, and of Syx - W Sxx, which is -dW Sxx."""
        p = w1.shape[1]
        maps = vectors[p:] @ w1 + (vectors[:p] @ w2.mT).permute(2, 1, 0)
        return maps, -maps @ self._sxx if self._diagonal is None else maps * -self._diagonal

    def _carried(
        self,
        w1: Float[torch.Tensor, "k p"],
        w2: Float[torch.Tensor, "o k"],
        product: Float[torch.Tensor, "o p"],
        vectors: Float[torch.Tensor, "po m k"],
        force: Float[torch.Tensor, "o m p"],
    ) -> Float[torch.Tensor, "po m k"]:
        """Return the vectors after the step in which Syx - W Sxx changes by `force`."""
        p, o, m = w1.shape[1], len(w2), vectors.shape[1]
        error = self._syx - product @ self._sxx
        first, second = vectors[:p].flatten(1), vectors[p:].flatten(1)
        after = torch.empty_like(vectors)
        torch.addmm(first, error.mT, second, out=after[:p].view(first.shape))
        torch.addmm(second, error, first, out=after[p:].view(second.shape))
        after[:p].view(p * m, -1).addmm_(force.permute(2, 1, 0).reshape(p * m, o), w2)
        after[p:].view(o * m, -1).addmm_(force.reshape(o * m, p), w1.mT)
        return after


class LinearisedModule(LinearisedDescent):
    """Around a torch module: vectors (m, d), each carried by differentiating the gradient at its copy of the weights.

    Parameters
    ----------
    descent
        Problem; its first initial state counts.
    sources
        Positions of the samples whose weights change.
    """

    stacked = 0

    def __init__(self, descent: ModuleDescent, sources: Sequence[int]) -> None:
        self._descent, self._sources = descent, list(sources)
        (weights,) = descent.start
        n = len(descent.samples)
        self._exposure = torch.eye(n, dtype=weights.dtype, device=weights.device)[self._sources] / n

    def zeros(self, count: int) -> torch.Tensor:
        """Return so many vectors of zeros."""
        (weights,) = self._descent.start
        return weights.new_zeros(count, weights.shape[1])

    def query_gradients(self, state: State) -> torch.Tensor:
        """Return the gradients of the queries' losses, as vectors."""
        return jacrev(lambda w: self._descent.model.losses(w, self._descent.queries))(state[0][0])

    def forward(self, state: State, vectors: torch.Tensor) -> torch.Tensor:
        """Return the changes after the step from `state`, the last of them with their source's weight changed too."""
        with torch.enable_grad():
            copies, _, losses, slope = self._along(state, vectors)
            exposed = (losses[-len(self._exposure) :] * self._exposure).sum()
            (turned,) = torch.autograd.grad(slope + exposed, copies, materialize_grads=True)
        return torch.sub(vectors, turned, alpha=self._descent.rate)

    def backward(self, state: State, vectors: torch.Tensor) -> tuple[torch.Tensor, Float[torch.Tensor, "m n"]]:
        """Return the covectors before the step from `state`, and what a weight of each source changed there does."""
        with torch.enable_grad():
            copies, share, _, slope = self._along(state, vectors)
            turned, effect = torch.autograd.grad(slope, (copies, share), materialize_grads=True)
        rate = self._descent.rate
        return torch.sub(vectors, turned, alpha=rate), effect[:, self._sources] * (-rate / effect.shape[1])

    def _along(
        self, state: State, vectors: Float[torch.Tensor, "m d"]
    ) -> tuple[
        Float[torch.Tensor, "m d"], Float[torch.Tensor, "m n"], Float[torch.Tensor, "m n"], Float[torch.Tensor, ""]
    ]:
        """Return copies of the weights and of beta / N, their losses, and the slope of L along each vector, summed.

        The slope's derivative by the copies is the Hessian of L times the vectors.
        """
        model, samples = self._descent.model, self._descent.samples
        copies = state[0].expand(len(vectors), -1).detach().requires_grad_()
        losses = vmap(lambda w: model.losses(w, samples))(copies)
        share = torch.full_like(losses, 1 / len(samples)).requires_grad_()
        (gradient,) = torch.autograd.grad((losses * share).sum(), copies, create_graph=True)
        return copies, share, losses, (gradient * vectors).sum()
