"""Losses and gradients of any torch module for many weights at once, through torch.func."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch.func import grad_and_value, vmap

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.samples import Samples
from numerics.sampling.plan import ChainPlan
from numerics.sampling.targets import Buffer, Target, aligned, functions_of

__all__ = ["ModuleTarget"]


class ModuleTarget(Target):
    """See `Target`; weights are ordered as the module's parameters are."""

    def __init__(self, plan: ChainPlan, start: Float[torch.Tensor, "c d"]) -> None:
        assert isinstance(plan.checkpoints, ModuleCheckpoints)
        self._plan, self._chains, self._size = plan, *start.shape
        self.weights, self.gradient = self.buffer(), self.buffer()
        self.scatter(start, self.weights)
        self._model = plan.checkpoints.model
        self._data = Samples.of(plan.data).like(start)
        self._same = plan.recorded.samples is plan.data
        self._asked = self._data if self._same else Samples.of(plan.recorded.samples).like(start)
        self._beta = start.new_tensor(plan.weights)
        self.recorded = start.new_zeros(self._chains, len(plan.recorded))
        self.mean_loss = start.new_zeros(self._chains)

    def buffer(self) -> Buffer:
        """See `Target.buffer`."""
        return Buffer(self._chains, (aligned(self._size),), self._plan.dtype, self._plan.device)

    def scatter(self, values: Float[torch.Tensor, "c d"], into: Buffer) -> None:
        """See `Target.scatter`."""
        into.parts[0][:, : self._size] = values

    def evaluate(self, *, record: bool, mean_loss: bool, batch: Int[torch.Tensor, "c b"] | None) -> None:
        """See `Target.evaluate`."""
        weights = self.weights.parts[0][:, : self._size]
        if batch is None:
            slopes, (means, losses) = vmap(grad_and_value(self._mean, has_aux=True))(weights)
        else:
            slopes, (means, _) = vmap(grad_and_value(self._batch_mean, has_aux=True))(
                weights, self._data.inputs[batch], self._data.targets[batch], self._beta[batch]
            )
        self.gradient.parts[0][:, : self._size] = slopes
        self.mean_loss = means
        if record:
            if not self._same or batch is not None:
                losses = vmap(lambda w: self._model.losses(w, self._asked))(weights)
            self.recorded[:, : len(self._asked)] = losses
            if self._plan.recorded.functions:
                self.recorded[:, len(self._asked) :] = functions_of(self._plan, vmap(self._model.parameters)(weights))

    def _mean(self, w: Float[torch.Tensor, " d"]) -> tuple[torch.Tensor, torch.Tensor]:
        losses = self._model.losses(w, self._data)
        return (self._beta * losses).mean(), losses

    def _batch_mean(
        self, w: Float[torch.Tensor, " d"], inputs: torch.Tensor, targets: torch.Tensor, beta: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses = self._model.sample_losses(w, inputs, targets)
        return (beta * losses).mean(), losses
