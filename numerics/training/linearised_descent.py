r"""How small changes of the weights, and covectors on them, pass one step of descent.

A step :math:`(w, m) \leftarrow F(w, m, g), \; g = \sum_i \frac{\beta_i}{|B|} \nabla \ell_i(w)`, with what the
optimiser remembers in m, carries changes (v, u) of weights and memory, with a change b of the sample weights, as

.. math::
    (v, u) \leftarrow F_w v + F_m u + F_g \Bigl( \nabla^2 L_B v + \sum_i \frac{b_i}{|B|} \nabla \ell_i \Bigr) ,

and covectors :math:`\lambda` backwards by its transpose; for plain gradient descent
:math:`v \leftarrow (I - \eta \nabla^2 L) v - \frac\eta N \sum_i b_i \nabla \ell_i`. A change of beta_i at this step
alone changes what lambda measures after it by :math:`\frac1{|B|} (F_g^T \lambda) \cdot \nabla \ell_i`. Many changes
or covectors pass at once, all around one run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float

from numerics.curvature.entry import derivatives_of, few
from numerics.curvature.kernels import Elementary, differentiable
from numerics.curvature.soundness import sound_product
from numerics.models.queries import Query
from numerics.models.samples import Parts, Samples
from numerics.training.descent import State, Step
from numerics.training.linear_descent import LinearDescent
from numerics.training.module_descent import ModuleDescent
from numerics.training.module_losses import ModuleLosses
from numerics.training.optimisers import Jacobian
from numerics.training.part_weights import part_positions
from theory.hierarchy import Dataset

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
    def forward(self, state: State, vectors: torch.Tensor, step: Step) -> torch.Tensor:
        """Return the changes after a step from `state`.

        In the last vectors, one for each source, the weight of that source is also changed by 1.
        """

    @abstractmethod
    def backward(
        self, state: State, vectors: torch.Tensor, step: Step
    ) -> tuple[torch.Tensor, Float[torch.Tensor, "m n"]]:
        """Return the covectors before a step from `state`, and what a weight of each source changed there does."""

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
        (asked,) = self._descent.queries.about
        x, y = asked.samples.inputs, asked.samples.targets
        hidden = x @ w1.mT
        error = hidden @ w2.mT - y
        return torch.cat([x.mT[:, :, None] * (error @ w2), error.mT[:, :, None] * hidden])

    def forward(self, state: State, vectors: torch.Tensor, step: Step) -> torch.Tensor:
        """Return the changes after a step from `state`, the last of them with their source's weight changed too."""
        (w1,), (w2,) = state
        product = w2 @ w1
        force = self._recoil(w1, w2, vectors)[1]
        residual = self._residual(product)[:, :, None]
        force[:, -len(self._inputs) :].addcmul_(residual, self._inputs, value=self._descent.rate)
        return self._carried(w1, w2, product, vectors, force)

    def backward(
        self, state: State, vectors: torch.Tensor, step: Step
    ) -> tuple[torch.Tensor, Float[torch.Tensor, "m n"]]:
        """Return the covectors before a step from `state`, and what a weight of each source changed there does."""
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
    """Around a torch module: vectors (m, 1 + memories, d) hold the changes of the weights, then of each memory.

    Each is carried by differentiating the gradient at its copy of the weights, in chunks that fit into the memory and
    kernels that have right second derivatives.

    Parameters
    ----------
    descent
        Problem; its first initial state counts.
    sources
        Positions of the samples whose weights change.

    Raises
    ------
    WrongDerivative, NotDifferentiable
        If a second derivative by torch is missing, or contradicts finite differences, near the initial weights.
    """

    stacked = 0
    _share: torch.Tensor

    def __init__(self, descent: ModuleDescent, sources: Sequence[int]) -> None:
        self._descent = descent
        start, model, samples = descent.start[0], descent.model, descent.samples
        self._sources = torch.tensor(list(sources), device=start.device)
        self._forces: ModuleLosses | None = None
        generator = torch.Generator(start.device).manual_seed(0)
        noise = torch.randn(start.shape[1], generator=generator, device=start.device).to(start)
        # Also a little away: what is wrong may vanish where biases are zero.
        moved = start[0] + 0.1 * start[0].square().mean().sqrt() * noise
        derivatives = derivatives_of(model, start[0], samples, "hessian")
        for weights, where in ((start[0], " at the initial weights"), (moved, " near the initial weights")):
            sound_product(derivatives, "hessian", weights, few(samples, 8), None, where)
        mode = Elementary(float64=False)
        with torch.no_grad(), differentiable(model.module, mode):
            model.losses(start[0], samples[:1])
        self._replaces = bool(mode.changed)

    @classmethod
    def of_parts(cls, descent: ModuleDescent, dataset: Dataset | Samples, parts: Parts) -> LinearisedModule:
        """Return the neighbourhood where the weights of parts of samples change.

        A part's own loss is that of its sample with no other part present.
        """
        part_positions(dataset, parts)  # refuses what is not there
        result = cls(descent, [dataset.index(name) for name, _ in parts.labels])
        start = descent.start[0]
        alone = Query(parts).samples.like(start)
        result._forces = ModuleLosses(descent.model, alone, start[0], descent.config.max_memory)
        result._share = torch.tensor(parts.share).to(start)[:, None] * descent.scale
        return result

    def _force(self, state: State, step: Step) -> Float[torch.Tensor, "sources d"]:
        """Return the gradient by which the weight of each part pulls at a step."""
        assert self._forces is not None
        n = len(self._descent.samples) if step.batch is None else step.batch.shape[1]
        inside = self._exposure(step, len(self._sources)).sum(1, keepdim=True)
        return self._forces.gradients(state[0][0]) * self._share * inside / n

    def _kernels(self) -> AbstractContextManager[None]:
        mode = Elementary(float64=False) if self._replaces else None
        return differentiable(self._descent.model.module, mode)

    def zeros(self, count: int) -> torch.Tensor:
        """Return so many vectors of zeros."""
        weights = self._descent.start[0]
        return weights.new_zeros(count, len(self._descent.start), weights.shape[1])

    def query_gradients(self, state: State) -> torch.Tensor:
        """Return the gradients of the queries, as vectors: what the optimiser remembers does not enter."""
        vectors = self.zeros(len(self._descent.queries))
        vectors[:, 0] = self._descent.query_gradients(state[0][0])
        return vectors

    def forward(self, state: State, vectors: torch.Tensor, step: Step) -> torch.Tensor:
        """Return the changes after a step from `state`, the last of them with their source's weight changed too."""
        after, seen = torch.empty_like(vectors), self._exposure(step, len(vectors))
        force: torch.Tensor | None = None
        if self._forces is not None:
            force = seen.new_zeros(len(vectors), vectors.shape[2])
            force[len(vectors) - len(self._sources) :] = self._force(state, step)
            seen = torch.zeros_like(seen)
        jacobian = self._jacobian(state, step)
        for part, rows in self._chunks(len(vectors), seen.shape[1]):
            with torch.enable_grad(), self._kernels():
                copies, _, losses, slope = self._along(state, vectors[part, 0], step, rows)
                exposed = (losses * seen[part, rows]).sum() / seen.shape[1]
                (turned,) = torch.autograd.grad(slope + exposed, copies, materialize_grads=True)
            if force is not None and rows.start == 0:
                turned = turned + force[part]
            before = vectors[part].unbind(1)
            for out, (*own, by_gradient) in zip(after[part].unbind(1), jacobian, strict=True):
                if rows.start == 0:
                    out.copy_(_combined(own, before))
                out.copy_(_combined([1.0, by_gradient], [out, turned]))
        return after

    def backward(
        self, state: State, vectors: torch.Tensor, step: Step
    ) -> tuple[torch.Tensor, Float[torch.Tensor, "m n"]]:
        """Return the covectors before a step from `state`, and what a weight of each source changed there does."""
        before, seen = torch.empty_like(vectors), self._exposure(step, len(self._sources))
        effects = vectors.new_zeros(len(vectors), len(self._sources))
        *columns, by_gradient = zip(*self._jacobian(state, step), strict=True)
        if self._forces is not None:
            seen = torch.zeros_like(seen)
            effects += _combined(by_gradient, vectors.unbind(1)) @ self._force(state, step).mT
        for part, rows in self._chunks(len(vectors), seen.shape[1]):
            after = vectors[part].unbind(1)
            with torch.enable_grad(), self._kernels():
                copies, share, _, slope = self._along(state, _combined(by_gradient, after), step, rows)
                turned, effect = torch.autograd.grad(slope, (copies, share), materialize_grads=True)
            effects[part].addmm_(effect, seen[:, rows].mT, alpha=1 / seen.shape[1])
            if rows.start == 0:
                for out, column in zip(before[part].unbind(1), columns, strict=True):
                    out.copy_(_combined(column, after))
            before[part, 0] += turned
        return before, effects

    def _chunks(self, vectors: int, samples: int) -> Iterator[tuple[slice, slice]]:
        # A graph of second derivatives holds the first's several times over.
        return self._descent.training.chunks(vectors, samples, graphs=4)

    def _exposure(self, step: Step, count: int) -> Float[torch.Tensor, "m b"]:
        """Return which sample of the step each of the last vectors has a weight of."""
        weights, n = self._descent.start[0], len(self._descent.samples)
        positions = np.arange(n) if step.batch is None else step.batch[0]
        rows = torch.as_tensor(positions, device=weights.device)
        seen = (self._sources[:, None] == rows).to(weights)
        return torch.cat([seen.new_zeros(count - len(seen), seen.shape[1]), seen]) if count > len(seen) else seen

    def _jacobian(self, state: State, step: Step) -> Jacobian:
        """Return the derivatives of the optimiser's step, its gradient evaluated only if they depend on it."""
        optimiser, weights = self._descent.config.optimiser, state[0]
        gradient = weights
        if not optimiser.linear:
            ones = np.ones((1, len(self._descent.samples)))
            (gradient,) = self._descent.gradient(ones)((weights,), None if step.batch is None else step.batch[:1])
        return optimiser.jacobian(weights, gradient, state[1:], step.rate, step.count)

    def _along(
        self, state: State, vectors: Float[torch.Tensor, "m d"], step: Step, part: slice
    ) -> tuple[
        Float[torch.Tensor, "m d"], Float[torch.Tensor, "m b"], Float[torch.Tensor, "m b"], Float[torch.Tensor, ""]
    ]:
        """Return copies of the weights and of beta / |B|, their losses, and the slope of L along each vector, summed.

        The slope's derivative by the copies is the Hessian of L times the vectors; by the shares, that of the losses.
        """
        training, n = self._descent.training, len(self._descent.samples)
        copies = state[0].expand(len(vectors), -1).detach().requires_grad_()
        losses = self._descent.scale * training.of(copies, part if step.batch is None else step.batch[0][part])
        share = torch.full_like(losses, 1 / (n if step.batch is None else step.batch.shape[1])).requires_grad_()
        (gradient,) = torch.autograd.grad((losses * share).sum(), copies, create_graph=True)
        return copies, share, losses, (gradient * vectors).sum()


def _combined(coefficients: Sequence[float | torch.Tensor], tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of tensors, each times a number or times a tensor of numbers."""
    total: torch.Tensor | None = None
    for coefficient, tensor in zip(coefficients, tensors, strict=True):
        if isinstance(coefficient, torch.Tensor):
            total = coefficient * tensor if total is None else torch.addcmul(total, coefficient, tensor)
        elif coefficient == 0:
            continue
        elif total is None:
            total = tensor if coefficient == 1 else coefficient * tensor
        else:
            total = torch.add(total, tensor, alpha=coefficient)
    return torch.zeros_like(tensors[0]) if total is None else total
