"""What a sampler needs to know of a model: losses and gradients of a batch of chains, in buffers that never move."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int

from numerics.sampling.plan import ChainPlan
from numerics.sampling.rules import Parts

__all__ = ["Buffer", "Target", "aligned"]

_VECTOR = 64  # numbers a vector loop takes at once; a row of whole vectors has no tail that rounds differently


def aligned(size: int) -> int:
    """Return the least multiple of a whole vector that holds `size` numbers."""
    return -(-size // _VECTOR) * _VECTOR


class Buffer:
    """Numbers for every weight of every chain, in one flat tensor made of parts with a row for each chain.

    Parameters
    ----------
    chains
        Number of chains c.
    widths
        Numbers a chain in each part.
    dtype, device
        Of the tensor, which starts as zeros.
    """

    def __init__(self, chains: int, widths: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        sizes = [chains * width for width in widths]
        self.flat = torch.zeros(aligned(sum(sizes)), dtype=dtype, device=device)
        pieces = self.flat[: sum(sizes)].split(sizes)
        self.parts: Parts = [piece.view(chains, width) for piece, width in zip(pieces, widths, strict=True)]

    @property
    def together(self) -> Parts:
        """The buffer as a single row."""
        return [self.flat[None]]


class Target(ABC):
    """Losses and gradients of a batch of chains.

    Parameters
    ----------
    plan
        What to run.
    start
        Weights of the chains, shape (c, d), ordered as a module's parameters are.

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
    def buffer(self) -> Buffer:
        """Return a buffer of zeros with the layout of the weights."""

    @abstractmethod
    def scatter(self, values: Float[torch.Tensor, "c d"], into: Buffer) -> None:
        """Lay out one number for every weight as the buffers are."""

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
