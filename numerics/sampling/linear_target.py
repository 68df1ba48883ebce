"""Losses and gradients of many two-layer linear networks at once, by batched products in place.

Layers are stored as W_1^T and W_2, so that both gradients are products with wide rows. Matrix products round
differently at different alignments: inputs and outputs are padded with rows of zeros until every chain's matrices start
at a multiple of 64 bytes, in float32 and in float64, so that a chain's bits do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd

import numpy as np
import torch
from jaxtyping import Float, Int

from numerics.models.linear import Checkpoints
from numerics.sampling.plan import STEPS_OF_NOISE, ChainPlan
from numerics.sampling.targets import Buffer, Target, functions_of
from theory.hierarchy import Dataset

__all__ = ["LinearTarget"]

Pairs = list[tuple[torch.Tensor, torch.Tensor]]

_DRAWS_TOGETHER = 16  # whose losses are worked out in one go
_VECTOR = 64  # numbers a vector loop takes at once; a row of whole vectors has no tail that rounds differently


class LinearTarget(Target):
    """See `Target`; weights, and so the noise, are ordered W_1 (h, P) row by row, then W_2 (O, h) row by row.

    Parameters
    ----------
    plan
        What to run.
    chains
        Number of chains c.
    """

    def __init__(self, plan: ChainPlan, chains: int) -> None:
        assert isinstance(plan.checkpoints, Checkpoints)
        assert isinstance(plan.data, Dataset)
        self._plan, self._chains = plan, chains
        self._hidden, self._inputs = plan.checkpoints.w1.shape[1:]
        self._outputs = plan.checkpoints.w2.shape[1]
        self._p, self._o = (_aligned_rows(rows, self._hidden) for rows in (self._inputs, self._outputs))
        sizes = [chains * rows * self._hidden for rows in (self._p, self._o)]
        flats = self._new(2 + STEPS_OF_NOISE, -(-sum(sizes) // _VECTOR) * _VECTOR)
        first, second = flats[:, : sum(sizes)].split(sizes, dim=1)
        parts = [part.view(len(flats), chains, -1) for part in (first, second)]
        self.weights, self.gradient, *self._normals = (
            Buffer([part[k] for part in parts], [flat[None]]) for k, flat in enumerate(flats)
        )
        first = first.view(len(flats), chains, self._p, self._hidden)
        second = second.view(len(flats), chains, self._o, self._hidden)
        # Where numbers that are ordered as weights are go, with a last axis for each of theirs.
        self._places = (first[:, :, : self._inputs].mT, second[:, :, : self._outputs])
        self._w1t, self._w2, self._slope1, self._slope2 = first[0], second[0], first[1], second[1]
        self._dloss = self._new(chains, self._o, self._p)
        # Maps W of draws whose losses are worked out together, and one more for steps that are not recorded.
        self._maps = self._new(_DRAWS_TOGETHER + 1, chains, self._o, self._p)
        # Views made once: at few chains, making them takes as long as using them.
        self._w1, self._dloss_t, self._places_of_maps = self._w1t.mT, self._dloss.mT, self._maps.unbind()

        data, asked = plan.data, plan.recorded.first
        assert isinstance(asked, Dataset)
        beta = plan.weights / len(data)
        second_moment = (data.inputs.T * beta) @ data.inputs
        self._syx = self._padded(-(data.targets.T * beta) @ data.inputs, self._o, self._p)
        self._sxx = self._padded(second_moment, self._p, self._p).repeat(chains, 1, 1)
        # W Sxx = W / N for whitened data and W X^T = W for one-hot inputs in order: the toy data has both.
        self._scale = float(second_moment[0, 0])
        self._white = np.array_equal(second_moment, self._scale * np.eye(len(second_moment)))
        self._recorder = _Errors(self, asked)
        self._trainer = _Errors(self, data, beta)
        self._kept = self._first = 0  # maps whose losses are not worked out yet, and the draw of the first of them
        self.mean_loss = self._new(chains)

    def load(self, values: Float[torch.Tensor, "c d"], states: Mapping[str, torch.Tensor]) -> None:
        """See `Target.load`."""
        for place, numbers in self._pairs(values[None], (slice(0, 1), slice(None))):
            place.copy_(numbers)

    def noise(self, block: Float[torch.Tensor, "c s d"]) -> list[Buffer]:
        """See `Target.noise`."""
        self._drawn: Callable[[slice], Pairs] = lambda chains: self._pairs(
            block[chains].transpose(0, 1), (slice(2, None), chains)
        )
        self._moves: dict[int, Pairs] = {}
        return self._normals

    def lay(self, chains: slice) -> None:
        """See `Target.lay`."""
        if chains.start not in self._moves:
            self._moves[chains.start] = self._drawn(chains)
        for place, numbers in self._moves[chains.start]:
            place.copy_(numbers)

    def _pairs(self, values: Float[torch.Tensor, "k c d"], where: tuple[slice, slice]) -> Pairs:
        """Return, for either layer, a place in the buffers and the numbers that go there."""
        first, second = values.split([self._hidden * self._inputs, self._hidden * self._outputs], dim=-1)
        shaped = first.unflatten(-1, (self._hidden, self._inputs)), second.unflatten(-1, (self._outputs, self._hidden))
        return [(place[where], numbers) for place, numbers in zip(self._places, shaped, strict=True)]

    def record_into(self, block: Float[torch.Tensor, "c b m"]) -> None:
        """See `Target.record_into`."""
        self._block, self._kept = block, 0

    def evaluate(self, *, draw: int | None, mean_loss: bool, batch: Int[torch.Tensor, "c b"] | None) -> None:
        """See `Target.evaluate`."""
        if self._kept == _DRAWS_TOGETHER:
            self.complete()
        ends = torch.bmm(self._w2, self._w1, out=self._places_of_maps[self._kept])
        if draw is not None:
            if self._kept == 0:
                self._first = draw
            self._kept += 1
            if self._plan.recorded.functions:
                named = {"w1": self._places[0][0], "w2": self._places[1][0]}
                self._block[:, draw, len(self._recorder) :] = functions_of(self._plan, named)
        if mean_loss:
            self.mean_loss = self._trainer.weighted_sum(ends)
        if batch is not None:
            self._trainer.batch_gradient(ends, batch, self._dloss)
        elif self._white:
            torch.add(self._syx, ends, alpha=self._scale, out=self._dloss)
        else:
            torch.bmm(ends, self._sxx, out=self._dloss).add_(self._syx)
        torch.bmm(self._dloss_t, self._w2, out=self._slope1)
        torch.bmm(self._dloss, self._w1t, out=self._slope2)

    def complete(self) -> None:
        """See `Target.complete`."""
        if self._kept:
            losses = self._recorder.losses(self._maps[: self._kept])
            self._block[:, self._first : self._first + self._kept, : len(self._recorder)] = losses.transpose(0, 1)
            self._kept = 0

    def _new(self, *shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=self._plan.dtype, device=self._plan.device)

    def _padded(self, matrix: np.ndarray, rows: int, columns: int) -> torch.Tensor:
        result = self._new(rows, columns)
        result[: matrix.shape[0], : matrix.shape[1]] = torch.tensor(matrix)
        return result


class _Errors:
    """Residuals W x - y of some samples with their weights, for every chain of a target."""

    def __init__(self, target: LinearTarget, data: Dataset, beta: np.ndarray | None = None) -> None:
        self._count = len(data)
        size, chains = _aligned_rows(len(data), target._o), target._chains
        self._y = target._padded(data.targets.T, target._o, size)
        self._one_hot = np.array_equal(data.inputs, np.eye(data.n_inputs)) and size == target._p
        self._x = target._padded(data.inputs.T, target._p, size).repeat(1 if self._one_hot else chains, 1, 1)
        self._beta = target._padded(np.ones((1, len(data))) if beta is None else beta[None], 1, size)
        self._halves = target._new(1, 1, target._o) + 0.5

    def __len__(self) -> int:
        return self._count

    def _errors(self, ends: Float[torch.Tensor, "*k o p"]) -> Float[torch.Tensor, "*k o m"]:
        return (ends if self._one_hot else torch.bmm(ends, self._x)) - self._y

    def losses(self, ends: Float[torch.Tensor, "k c o p"]) -> Float[torch.Tensor, "k c m"]:
        """Return the losses 1/2 |y_i - W x_i|^2 for maps W."""
        return self._padded_losses(ends)[..., : self._count]

    def weighted_sum(self, ends: Float[torch.Tensor, "c o p"]) -> Float[torch.Tensor, " c"]:
        """Return sum_i beta_i l_i."""
        losses = self._padded_losses(ends[None])[0, :, None]
        return torch.bmm(losses, self._beta.mT.expand(len(losses), -1, -1))[:, 0, 0]

    def _padded_losses(self, ends: Float[torch.Tensor, "k c o p"]) -> Float[torch.Tensor, "k c m"]:
        errors = self._errors(ends) if self._one_hot else torch.stack([self._errors(w) for w in ends])
        squares = errors.square_().flatten(0, 1)
        # Products, because the order in which torch.sum adds depends on the number of chains.
        losses = torch.bmm(self._halves.expand(len(squares), -1, -1), squares)
        return losses[:, 0].unflatten(0, ends.shape[:2])

    def batch_gradient(
        self, ends: Float[torch.Tensor, "c o p"], batch: Int[torch.Tensor, "c b"], out: Float[torch.Tensor, "c o p"]
    ) -> None:
        """Write the gradient by W of the mean weighted loss, estimated from the samples in `batch`."""
        chosen = ends.new_zeros(len(ends), self._y.shape[1]).scatter_(1, batch, self._count / batch.shape[1])
        errors = self._errors(ends) * (chosen * self._beta)[:, None]
        if self._one_hot:
            out.copy_(errors)
        else:
            torch.bmm(errors, self._x.mT, out=out)


def _aligned_rows(rows: int, columns: int) -> int:
    """Return the least number of rows, a multiple of 8, whose matrix of `columns` fills whole lines of 16 numbers."""
    unit = max(8, 16 // gcd(16, columns))
    return -(-rows // unit) * unit
