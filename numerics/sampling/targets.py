"""What a sampler needs to know of a model: losses and gradients of a batch of chains, in buffers that never move."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from numerics.sampling.plan import ChainPlan
from numerics.sampling.rules import Parts

__all__ = ["Buffer", "Target", "functions_of"]


@dataclass(frozen=True, eq=False)
class Buffer:
    """Numbers for every weight of every chain.

    Parameters
    ----------
    parts
        Matrices with a row for each chain.
    together
        The same memory for chains that share their settings: matrices whose rows need not be chains.
    """

    parts: Parts
    together: Parts


class Target(ABC):
    """Losses and gradients of a batch of chains. One target serves one batch after the other.

    Attributes
    ----------
    weights, gradient
        Buffers of the weights and of the gradient of the mean loss L.
    recorded
        Recorded numbers of the last `evaluate`, shape (c, m).
    mean_loss
        L at the last `evaluate` that was asked for it, shape (c,).
    """

    weights: Buffer
    gradient: Buffer
    recorded: Float[torch.Tensor, "c m"]
    mean_loss: Float[torch.Tensor, " c"]

    @abstractmethod
    def load(self, values: Float[torch.Tensor, "c d"], states: Mapping[str, torch.Tensor]) -> None:
        """Take over weights, ordered as a module's parameters are, and what else a checkpoint holds, by name."""

    @abstractmethod
    def noise(self, block: Float[torch.Tensor, "c s d"]) -> list[Buffer]:
        """Lay out normal numbers of consecutive steps as the weights are, a buffer for each step."""

    @abstractmethod
    def evaluate(self, *, record: bool, mean_loss: bool, batch: Int[torch.Tensor, "c b"] | None) -> None:
        """Compute the gradient at the weights, from the samples in `batch` if given, and what else is asked for."""


def functions_of(plan: ChainPlan, parameters: dict[str, torch.Tensor]) -> Float[torch.Tensor, "c f"]:
    """Return the plan's further observables for batched parameters, shape (c, f)."""
    columns = []
    for name, function in plan.recorded.functions.items():
        values = torch.vmap(function)(parameters)
        if values.ndim != 1:
            raise ValueError(
                f"observable {name!r} must return one number, but it returned shape {tuple(values.shape[1:])}."
            )
        columns.append(values)
    return torch.stack(columns, dim=1)
