"""One question of classical influence to a module: its curvature, the gradients of sources and queries, and memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float

from numerics.curvature.derivatives import Derivatives
from numerics.curvature.entry import derivatives_of
from numerics.curvature.gradients import GradientRows, refuse_not_finite
from numerics.curvature.influence_request import InfluenceRequest
from numerics.curvature.memory import refuse_too_large
from numerics.curvature.products import Product
from numerics.curvature.soundness import sound_product
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.queries import Queries
from numerics.models.samples import Samples

__all__ = ["ModuleProblem"]


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
        checkpoints.check_fits(samples[:2])
        derivatives = derivatives_of(
            checkpoints.model_at(0), checkpoints.weights_at(0), samples, request.curvature, max_memory=max_memory
        )
        sources = Queries.of(samples[torch.as_tensor(request.sources)])
        asked = [GradientRows.of(checkpoints, q, max_memory) for q in (sources, Queries.of(request.asked))]
        return cls(request, checkpoints, derivatives, *asked)

    @property
    def engine(self) -> str:
        """The ways in words."""
        found = (self.derivatives.engine.name, self.sources.engine, self.queries.engine)
        return ", ".join(dict.fromkeys(found))

    @property
    def beta(self) -> Float[torch.Tensor, " n"]:
        """Sample weights."""
        return torch.tensor(self.request.sample_weights)

    def at(self, t: int) -> tuple[Derivatives, Float[torch.Tensor, " d"]]:
        """Return derivatives and weights at the t-th checkpoint, after a look at the losses."""
        derivatives, weights = (
            self.derivatives.of(self.checkpoints.model_at(t)),
            self.checkpoints.weights_at(t).double(),
        )
        samples, epoch = self.request.dataset, self.checkpoints.epochs[t]
        refuse_not_finite("loss", derivatives.losses(weights, samples), samples.names, epoch)
        return derivatives, weights

    def product(self, t: int) -> Product:
        """Return the checked product with the curvature at the t-th checkpoint."""
        derivatives, weights = self.at(t)
        where = f" at epoch {self.checkpoints.epochs[t]:g}"
        return sound_product(derivatives, self.request.curvature, weights, self.request.dataset, self.beta, where)
