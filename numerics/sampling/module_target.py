"""Losses and gradients of any torch module for many weights, through torch.func or one chain after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch.func import grad_and_value, vmap

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.evaluation import ways_of
from numerics.models.samples import Samples
from numerics.models.trees import Tree, mapped
from numerics.sampling.plan import ChainPlan
from numerics.sampling.targets import Buffer, Target, aligned, functions_of

__all__ = ["ModuleTarget"]

State = dict[str, torch.Tensor]


class ModuleTarget(Target):
    """See `Target`; weights are ordered as the module's parameters are.

    Parameters
    ----------
    plan, start
        As for `Target`.
    states
        Frozen parameters and buffers of every chain's checkpoint by name, each of shape (c, ...).
    """

    def __init__(
        self, plan: ChainPlan, start: Float[torch.Tensor, "c d"], states: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        assert isinstance(plan.checkpoints, ModuleCheckpoints)
        self._plan, self._chains, self._size = plan, *start.shape
        self.weights, self.gradient = self.buffer(), self.buffer()
        self.scatter(start, self.weights)
        self._model = plan.checkpoints.model.to(start)
        self._states = {
            name: value.to(start.device, start.dtype if value.is_floating_point() else value.dtype)
            for name, value in (states or {}).items()
        }
        self._data = Samples.of(plan.data).like(start)
        self._same = plan.recorded.samples is plan.data
        self._asked = self._data if self._same else Samples.of(plan.recorded.samples).like(start)
        self._beta = start.new_tensor(plan.weights)
        self._loop = ways_of(self._model, start[0], self._data).weights == "loop"
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
            slopes, (means, losses) = self._slopes(self._mean)(weights, self._states)
        else:
            few = self._data
            trees = (few.inputs, few.targets, self._beta, *(() if few.present is None else (few.present,)))
            drawn = mapped(lambda v: v[batch], trees)
            slopes, (means, _) = self._slopes(self._batch_mean)(weights, self._states, *drawn)
        self.gradient.parts[0][:, : self._size] = slopes
        self.mean_loss = means
        if record:
            if not self._same or batch is not None:
                losses = self._each(lambda w, state: self._model.losses(w, self._asked, state))(weights, self._states)
            self.recorded[:, : len(self._asked)] = losses
            if self._plan.recorded.functions:
                named = vmap(self._model.parameters_of)(weights)
                self.recorded[:, len(self._asked) :] = functions_of(self._plan, named)

    def _each(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function of chains made from a function of one chain."""
        if not self._loop:
            return vmap(function)

        def looped(*trees: Tree) -> Any:
            return torch.stack([function(*_row(trees, c)) for c in range(self._chains)])

        return looped

    def _slopes(self, mean: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Callable[..., Any]:
        """Return the function that gives gradients, means and losses of all chains."""
        if not self._loop:
            return vmap(grad_and_value(mean, has_aux=True))

        def looped(*trees: Tree) -> Any:
            found = []
            for c in range(self._chains):
                w, *rest = _row(trees, c)
                leaf = w.detach().requires_grad_()
                with torch.enable_grad():
                    value, losses = mean(leaf, *rest)
                    (slope,) = torch.autograd.grad(value, leaf)
                found.append((slope, value.detach(), losses.detach()))
            slopes, values, losses = (torch.stack(part) for part in zip(*found, strict=True))
            return slopes, (values, losses)

        return looped

    def _mean(self, w: Float[torch.Tensor, " d"], state: State) -> tuple[torch.Tensor, torch.Tensor]:
        losses = self._model.losses(w, self._data, state)
        return (self._beta * losses).mean(), losses

    def _batch_mean(
        self,
        w: Float[torch.Tensor, " d"],
        state: State,
        inputs: Tree,
        targets: Tree,
        beta: torch.Tensor,
        present: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses = self._model.sample_losses(w, inputs, targets, state, present)
        return (beta * losses).mean(), losses


def _row(trees: tuple[Tree, ...], c: int) -> Tree:
    return mapped(lambda v: v[c], trees)
