"""Outputs of any structure as rows of numbers, one row a sample, and back."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from numerics.errors import NotDifferentiable

__all__ = ["Layout", "mean_over_parts"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Shapes of the outputs for one sample, and the structure that holds them.

    Examples
    --------
    >>> outputs = {"mean": torch.zeros(5, 2), "spread": torch.ones(5, 2, 3)}
    >>> layout = Layout.of(outputs, 5)
    >>> layout.size, layout.flat(outputs).shape, layout.tree(layout.flat(outputs))["spread"].shape
    (8, torch.Size([5, 8]), torch.Size([5, 2, 3]))
    """

    spec: TreeSpec
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, outputs: Any, count: int) -> Layout:
        """Return the layout of the outputs for so many samples.

        Raises
        ------
        NotDifferentiable
            If an output is not real, or has not the samples along its first axis.
        """
        leaves, spec = tree_flatten(outputs)
        for leaf in leaves:
            if not (isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.shape[:1] == (count,)):
                what = f"shape {tuple(leaf.shape)}" if isinstance(leaf, torch.Tensor) else type(leaf).__name__
                raise NotDifferentiable(
                    f"the Gauss-Newton matrix needs outputs that are real and have the {count} samples along their "
                    f"first axis, but one has {what}; give TorchModel a call= that returns what the loss reads."
                )
        return cls(spec, tuple(tuple(leaf.shape[1:]) for leaf in leaves))

    @property
    def size(self) -> int:
        """Number o of outputs for one sample."""
        return sum(map(prod, self.shapes))

    def flat(self, outputs: Any) -> Float[torch.Tensor, "n o"]:
        """Return outputs as rows."""
        rows = [leaf.reshape(len(leaf), -1) for leaf in tree_flatten(outputs)[0]]
        return rows[0] if len(rows) == 1 else torch.cat(rows, 1)

    def tree(self, rows: Float[torch.Tensor, "n o"]) -> Any:
        """Return rows as outputs."""
        pieces = rows.split([prod(shape) for shape in self.shapes], 1)
        leaves = [piece.reshape(len(rows), *shape) for piece, shape in zip(pieces, self.shapes, strict=True)]
        return tree_unflatten(leaves, self.spec)


def mean_over_parts(losses: torch.Tensor, present: torch.Tensor | None) -> Float[torch.Tensor, " n"]:
    """Return the loss of each sample: the mean of those of its parts that are present.

    Examples
    --------
    >>> mean_over_parts(torch.tensor([[1.0, 3.0]]), torch.tensor([[True, False]]))
    tensor([1.])
    """
    if losses.ndim == 1:
        return losses
    if present is None:
        return losses.mean(1)
    return torch.where(present, losses, torch.zeros_like(losses)).sum(1) / present.sum(1)
