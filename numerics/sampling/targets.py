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
    mean_loss
        L at the last `evaluate` that was asked for it, shape (c,).
    """

    weights: Buffer
    gradient: Buffer
    mean_loss: Float[torch.Tensor, " c"]

    @abstractmethod
    def load(self, values: Float[torch.Tensor, "c d"], states: Mapping[str, torch.Tensor]) -> None:
        """Take over weights, ordered as a module's parameters are, and what else a checkpoint holds, by name."""

    @abstractmethod
    def noise(self, block: Float[torch.Tensor, "c s d"]) -> list[Buffer]:
        """Return where normal numbers of consecutive steps lie as the weights do, a buffer for each step of `block`."""

    def lay(self, chains: slice) -> None:  # noqa: B027 - nothing to do where the numbers are used where they are
        """Bring new numbers of some chains in the block last given to `noise` to its buffers."""

    @abstractmethod
    def record_into(self, block: Float[torch.Tensor, "c b m"]) -> None:
        """Take a block of draws, into which the next evaluations record."""

    @abstractmethod
    def evaluate(self, *, draw: int | None, mean_loss: bool, batch: Int[torch.Tensor, "c b"] | None) -> None:
        """Compute the gradient at the weights, from the samples in `batch` if given, and what else is asked for.

        With `draw`, counted from 0 in each block, what is recorded goes there, at the latest when `complete` is called.
        """

    def complete(self) -> None:  # noqa: B027 - nothing to do where draws are recorded at once
        """Make sure that all draws are in the block."""


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
