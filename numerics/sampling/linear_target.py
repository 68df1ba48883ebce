"""Losses and gradients of many two-layer linear networks at once, by batched products in place.

Layers are stored as W_1^T and W_2, so that both gradients are products with wide rows. Matrix products round
differently at different alignments: inputs and outputs are padded with rows of zeros until every chain's matrices start
at a multiple of 64 bytes, in float32 and in float64, so that a chain's bits do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

import numpy as np
import torch
from jaxtyping import Float, Int

from numerics.models.linear import Checkpoints
from numerics.sampling.plan import STEPS_OF_NOISE, ChainPlan
from numerics.sampling.targets import Buffer, Target, functions_of
from theory.hierarchy import Dataset

__all__ = ["LinearTarget"]

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
        self._map, self._dloss = self._new(2, chains, self._o, self._p)
        # Views made once: at few chains, making them takes as long as using them.
        self._w1, self._dloss_t = self._w1t.mT, self._dloss.mT

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
        self.recorded = self._new(chains, len(plan.recorded))
        self._recorded = self.recorded[:, : len(asked)]
        self.mean_loss = self._new(chains)

    def load(self, values: Float[torch.Tensor, "c d"], states: Mapping[str, torch.Tensor]) -> None:
        """See `Target.load`."""
        self._lay(values[None], slice(0, 1))

    def noise(self, block: Float[torch.Tensor, "c s d"]) -> list[Buffer]:
        """See `Target.noise`."""
        self._lay(block.transpose(0, 1), slice(2, None))
        return self._normals

    def _lay(self, values: Float[torch.Tensor, "k c d"], buffers: slice) -> None:
        first, second = values.split([self._hidden * self._inputs, self._hidden * self._outputs], dim=-1)
        self._places[0][buffers] = first.unflatten(-1, (self._hidden, self._inputs))
        self._places[1][buffers] = second.unflatten(-1, (self._outputs, self._hidden))

    def evaluate(self, *, record: bool, mean_loss: bool, batch: Int[torch.Tensor, "c b"] | None) -> None:
        """See `Target.evaluate`."""
        torch.bmm(self._w2, self._w1, out=self._map)
        if record:
            self._recorded.copy_(self._recorder.losses())
            if self._plan.recorded.functions:
                named = {"w1": self._places[0][0], "w2": self._places[1][0]}
                self.recorded[:, len(self._recorder) :] = functions_of(self._plan, named)
        if mean_loss:
            self.mean_loss = self._trainer.weighted_sum()
        if batch is not None:
            self._trainer.batch_gradient(batch, self._dloss)
        elif self._white:
            torch.add(self._syx, self._map, alpha=self._scale, out=self._dloss)
        else:
            torch.bmm(self._map, self._sxx, out=self._dloss).add_(self._syx)
        torch.bmm(self._dloss_t, self._w2, out=self._slope1)
        torch.bmm(self._dloss, self._w1t, out=self._slope2)

    def _new(self, *shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=self._plan.dtype, device=self._plan.device)

    def _padded(self, matrix: np.ndarray, rows: int, columns: int) -> torch.Tensor:
        result = self._new(rows, columns)
        result[: matrix.shape[0], : matrix.shape[1]] = torch.tensor(matrix)
        return result


class _Errors:
    """Residuals W x - y of some samples with their weights, for every chain of a target."""

    def __init__(self, target: LinearTarget, data: Dataset, beta: np.ndarray | None = None) -> None:
        self._target, self._count = target, len(data)
        size, chains = _aligned_rows(len(data), target._o), target._chains
        self._y = target._padded(data.targets.T, target._o, size)
        self._one_hot = np.array_equal(data.inputs, np.eye(data.n_inputs)) and size == target._p
        self._x = target._padded(data.inputs.T, target._p, size).repeat(1 if self._one_hot else chains, 1, 1)
        self._beta = target._padded(np.ones((1, len(data))) if beta is None else beta[None], 1, size)
        self._residual, self._squares = target._new(2, chains, target._o, size)
        self._halves = target._new(chains, 1, target._o) + 0.5
        self._losses = target._new(chains, 1, size)
        self._real = self._losses[:, 0, : self._count]

    def __len__(self) -> int:
        return self._count

    def _errors(self) -> Float[torch.Tensor, "c o m"]:
        ends = self._target._map
        predicted = ends if self._one_hot else torch.bmm(ends, self._x, out=self._residual)
        return torch.sub(predicted, self._y, out=self._residual)

    def losses(self) -> Float[torch.Tensor, "c m"]:
        """Return the losses 1/2 |y_i - W x_i|^2."""
        errors = self._errors()
        torch.mul(errors, errors, out=self._squares)
        # Products, because the order in which torch.sum adds depends on the number of chains.
        torch.bmm(self._halves, self._squares, out=self._losses)
        return self._real

    def weighted_sum(self) -> Float[torch.Tensor, " c"]:
        """Return sum_i beta_i l_i."""
        self.losses()
        return torch.bmm(self._losses, self._beta.mT.expand(len(self._losses), -1, -1))[:, 0, 0]

    def batch_gradient(self, batch: Int[torch.Tensor, "c b"], out: Float[torch.Tensor, "c o p"]) -> None:
        """Write the gradient by W of the mean weighted loss, estimated from the samples in `batch`."""
        chosen = torch.zeros_like(self._losses[:, 0]).scatter_(1, batch, self._count / batch.shape[1])
        errors = self._errors() * (chosen * self._beta)[:, None]
        if self._one_hot:
            out.copy_(errors)
        else:
            torch.bmm(errors, self._x.mT, out=out)


def _aligned_rows(rows: int, columns: int) -> int:
    """Return the least number of rows, a multiple of 8, whose matrix of `columns` fills whole lines of 16 numbers."""
    unit = max(8, 16 // gcd(16, columns))
    return -(-rows // unit) * unit
