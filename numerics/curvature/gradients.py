r"""Gradients of what is asked at the checkpoints of a module, in float64 and in blocks, refused where not finite.

.. math:: g_i(t) = \nabla \ell_i(w_t) , \qquad K_{ij}(t) = g_i(t) \cdot g_j(t) .
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int

from numerics.curvature.derivatives import Derivatives, Engine
from numerics.curvature.entry import derivatives_of
from numerics.curvature.memory import allowed_bytes, refuse_too_large
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.module import TorchModel
from numerics.models.queries import Queries, Query
from numerics.models.samples import Parts, Samples

__all__ = ["GradientRows", "module_kernel", "refuse_losses_not_finite"]

Placed: TypeAlias = tuple[slice, torch.Tensor]


@dataclass(frozen=True, eq=False)
class GradientRows:
    """Gradients of everything that is asked, at any checkpoint.

    Parameters
    ----------
    checkpoints
        The module's.
    about
        Queries about samples, each with the derivatives of its measure; or parts with those of their losses.
    asked
        The same and functions of the parameters.
    allowed
        Bytes that the work may hold at a time.
    shared
        Whether the gradient of a part is that of its share in its sample's loss, as of sources, or its own.
    """

    checkpoints: ModuleCheckpoints
    about: tuple[tuple[Query | Parts, Derivatives], ...]
    asked: Queries | Parts
    allowed: int
    shared: bool = False

    @classmethod
    def of(
        cls,
        checkpoints: ModuleCheckpoints,
        asked: Queries | Parts,
        max_memory: int | None,
        *,
        shared: bool = False,
    ) -> GradientRows:
        """Return what gives the gradients, by the fastest ways that work at the first checkpoint."""
        model, weights = checkpoints.model_at(0), checkpoints.weights_at(0)
        about: list[tuple[Query | Parts, Derivatives]] = []
        for query in (Query(asked.samples),) if isinstance(asked, Parts) else asked.about:
            derivatives = derivatives_of(query.on(model), weights, query.samples, max_memory=max_memory)
            refuse_losses_not_finite(checkpoints, derivatives, query)
            about.append((asked if isinstance(asked, Parts) else query, derivatives))
        if isinstance(asked, Parts):
            _refuse_other_parts(model, weights, asked)
        return cls(checkpoints, tuple(about), asked, allowed_bytes(max_memory, weights.device), shared)

    def __len__(self) -> int:
        """Return how many gradients there are at a checkpoint."""
        return len(self.asked)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each gradient is of, for sentences."""
        if isinstance(self.asked, Queries):
            return self.asked.names
        return tuple(f"{name}, part {part}" for name, part in self.asked.labels)

    @property
    def engines(self) -> list[Engine]:
        """How they are taken; functions of the parameters by plain autograd."""
        return [found.engine for _, found in self.about]

    def blocks(self, t: int, copies: int = 0) -> Iterator[tuple[slice, Float[torch.Tensor, "n d"]]]:
        """Yield the gradients at the t-th checkpoint with their places, in blocks that fit into memory with copies."""
        model, weights = self.checkpoints.model_at(t), self.checkpoints.weights_at(t).double()
        epoch, first = self.checkpoints.epochs[t], 0
        for item, derivatives in self.about:
            at = derivatives.of(model if isinstance(item, Parts) else item.on(model))
            for rows in at.gradient_blocks(len(item), copies):
                if isinstance(item, Parts):
                    gradients, what = self._of_parts(at, weights, item, rows), "loss"
                else:
                    gradients, what = at.gradients(weights, item.samples[rows]), item.measured
                refuse_not_finite(f"gradient of the {what}", gradients.sum(1), self.names[first:][rows], epoch)
                yield slice(first + rows.start, first + rows.stop), gradients
            first += len(item)
        if isinstance(self.asked, Parts):
            return
        for k, name in enumerate(self.asked.functions):
            yield slice(first + k, first + k + 1), self._of_function(model, weights, name, t)

    def held(self, t: int, basis: Float[torch.Tensor, "d k"] | None = None) -> Callable[[], Iterable[Placed]]:
        """Return what gives the blocks, in a basis if one is given: from memory if all fit, else computed again."""

        def computed() -> Iterator[Placed]:
            for rows, gradients in self.blocks(t):
                yield rows, gradients if basis is None else gradients @ basis

        size = self.checkpoints.model_at(t).n_parameters if basis is None else basis.shape[1]
        if 8 * len(self) * size > self.allowed // 2:
            return computed
        kept = list(computed())
        return lambda: kept

    def _of_parts(self, at: Derivatives, weights: torch.Tensor, parts: Parts, rows: slice) -> torch.Tensor:
        gradients = at.part_gradients(weights, parts, rows)
        return gradients * torch.tensor(parts.share[rows]).to(gradients)[:, None] if self.shared else gradients

    def _of_function(self, model: TorchModel, weights: torch.Tensor, name: str, t: int) -> torch.Tensor:
        assert isinstance(self.asked, Queries)
        alone = Queries((), {name: self.asked.functions[name]})
        at = weights.detach().requires_grad_()
        value = alone.values(model, at)[0]
        (gradient,) = torch.autograd.grad(value, at, materialize_grads=True)
        refuse_not_finite("gradient of the query", gradient.sum()[None], (name,), self.checkpoints.epochs[t])
        return gradient[None]


def module_kernel(
    samples: Samples,
    asked: Queries | Parts,
    checkpoints: ModuleCheckpoints,
    sources: Int[np.ndarray, " n"] | Parts,
    max_memory: int | None,
) -> tuple[Float[np.ndarray, "t n q"], str]:
    """Return the gradient kernel of the samples at the positions `sources` with every query, and by which ways."""
    refuse_too_large(
        len(checkpoints) * len(sources) * len(asked),
        f"a kernel of {len(checkpoints)} checkpoints x {len(sources)} sources x {len(asked)} queries",
        "name fewer of them by sources= and queries=",
    )
    few = GradientRows.of(
        checkpoints, sources if isinstance(sources, Parts) else Queries.of(samples[sources]), max_memory, shared=True
    )
    many = GradientRows.of(checkpoints, asked, max_memory)
    kernel = np.empty((len(checkpoints), len(few), len(many)))
    for t in range(len(checkpoints)):
        held = many.held(t)
        for rows, gradients in few.blocks(t):
            for columns, others in held():
                kernel[t, rows, columns] = (gradients @ others.mT).cpu().numpy()
    return kernel, Engine.of_gradients([*few.engines, *many.engines]).name


def _refuse_other_parts(model: TorchModel, weights: torch.Tensor, parts: Parts) -> None:
    """Refuse parts that the loss does not have."""
    with torch.no_grad():
        losses = model.part_losses(weights, parts.samples[:1].like(weights))
    Parts(parts.samples[:1], parts.names).flattened(losses)


def refuse_losses_not_finite(checkpoints: ModuleCheckpoints, derivatives: Derivatives, query: Query) -> None:
    """Refuse a loss, or what else is measured, that is not finite at any checkpoint, before the work."""
    for t, epoch in enumerate(checkpoints.epochs):
        at, weights = derivatives.of(query.on(checkpoints.model_at(t))), checkpoints.weights_at(t)
        refuse_not_finite(query.measured, at.losses(weights, query.samples), query.names, epoch)


def refuse_not_finite(what: str, values: Float[torch.Tensor, " n"], names: tuple[str, ...], epoch: float) -> None:
    """Refuse a value that is not finite, naming its sample."""
    finite = torch.isfinite(values)
    if not finite.all():
        name = names[int((~finite).nonzero()[0])]
        raise ValueError(
            f"the {what} of sample {name!r} is not finite at epoch {epoch:g}; leave out the sample or the checkpoint."
        )
