"""One question of classical influence to a module: its curvature, the gradients of sources and queries, and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float

from numerics.curvature.derivatives import Derivatives, Engine
from numerics.curvature.entry import derivatives_of
from numerics.curvature.gradients import GradientRows, refuse_losses_not_finite
from numerics.curvature.influence_request import InfluenceRequest
from numerics.curvature.memory import refuse_too_large
from numerics.curvature.products import Product
from numerics.curvature.soundness import sound_matrix, sound_product
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.queries import Queries, Query
from numerics.models.samples import Parts, Samples

__all__ = ["ModuleProblem"]

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class ModuleProblem:
    """What an engine for modules needs.

    Parameters
    ----------
    request
        What is asked.
    checkpoints
        The module's.
    derivatives
        Of the losses of the data set.
    sources, queries
        Their gradients.
    """

    request: InfluenceRequest[Samples]
    checkpoints: ModuleCheckpoints
    derivatives: Derivatives
    sources: GradientRows
    queries: GradientRows

    @classmethod
    def of(
        cls, request: InfluenceRequest[Samples], checkpoints: ModuleCheckpoints, max_memory: int | None
    ) -> ModuleProblem:
        """Return the problem; refuse what the module cannot read, torch cannot differentiate or memory cannot hold."""
        n, m = len(request.sources), len(request.asked)
        refuse_too_large(
            len(request.damping) * len(checkpoints) * n * m,
            f"an influence of {len(request.damping)} dampings x {len(checkpoints)} checkpoints x {n} sources x {m} "
            "queries",
            "name fewer of them by sources= and queries=",
        )
        samples = request.dataset
        derivatives = derivatives_of(
            checkpoints.model_at(0), checkpoints.weights_at(0), samples, request.curvature, max_memory=max_memory
        )
        refuse_losses_not_finite(checkpoints, derivatives, Query(samples))
        sources = request.sources
        return cls(
            request,
            checkpoints,
            derivatives,
            GradientRows.of(
                checkpoints,
                sources if isinstance(sources, Parts) else Queries.of(samples[sources]),
                max_memory,
                shared=True,
            ),
            GradientRows.of(checkpoints, request.asked, max_memory),
        )

    @property
    def engine(self) -> str:
        """The ways in words."""
        own = self.derivatives.engine
        every = [
            *([own] if self.request.curvature == "gauss-newton" else []),
            *self.sources.engines,
            *self.queries.engines,
        ]
        return Engine.of_gradients(every, own).name

    @property
    def beta(self) -> Float[torch.Tensor, " n"]:
        """Sample weights."""
        return torch.tensor(self.request.sample_weights)

    def at(self, t: int) -> tuple[Derivatives, Float[torch.Tensor, " d"]]:
        """Return derivatives and weights at the t-th checkpoint."""
        return self.derivatives.of(self.checkpoints.model_at(t)), self.checkpoints.weights_at(t).double()

    def product(self, t: int) -> Product:
        """Return the checked product with the curvature at the t-th checkpoint."""
        return self._checked(sound_product, t)

    def matrix(self, t: int) -> Float[torch.Tensor, "d d"]:
        """Return the checked curvature at the t-th checkpoint."""
        return self._checked(sound_matrix, t)

    def _checked(self, make: Callable[..., Made], t: int) -> Made:
        derivatives, weights = self.at(t)
        where, request = f" at epoch {self.checkpoints.epochs[t]:g}", self.request
        try:
            return make(derivatives, request.curvature, weights, request.dataset, self.beta, where)
        except ValueError:
            for _ in self.sources.blocks(t):  # names the sample if its gradient is not finite either
                pass
            raise
