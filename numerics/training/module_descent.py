r"""Descent of any torch module on the mean of its weighted losses.

.. math:: w \leftarrow w - \eta \nabla \frac1N \sum_i \beta_i \ell_i(w) .

A linear network given as a module takes the steps of `LinearDescent` if its learning rate is 2 / O times as large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch.func import jacrev

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.module import TorchModel
from numerics.models.queries import Queries
from numerics.models.samples import Samples
from numerics.models.slopes import check_gradients
from numerics.training.descent import Descent, State, Step, TrainingConfig
from numerics.training.initial import initial_weights_of
from numerics.training.module_losses import ModuleLosses

__all__ = ["ModuleDescent"]


class ModuleDescent(Descent):
    """Descent of any torch module. The state is the flat weights, (runs, d), in the module's dtype and on its device.

    Parameters
    ----------
    model
        The module and its loss for every sample.
    samples, queries
        Training set, and what is asked.
    config
        Settings.
    initial
        Initial weights, shape (d,), or (seeds, d) with `seeds`; those the module holds if neither is given.
    seeds
        A run for each: of initial weights drawn by the module's layers themselves, if none are given.
    scale
        Factor on L.

    Raises
    ------
    ValueError
        If the model cannot read the samples, or a weight or loss is not finite at the start.
    """

    def __init__(
        self,
        model: TorchModel,
        samples: Samples,
        queries: Queries,
        config: TrainingConfig,
        *,
        initial: ArrayLike | torch.Tensor | None = None,
        seeds: Sequence[int] | None = None,
        scale: float = 1.0,
    ) -> None:
        weights = initial_weights_of(model, initial, seeds)
        seeds = [config.seed] if seeds is None else seeds
        super().__init__(samples.like(weights), queries.like(weights), (weights,), config, seeds)
        self.model, self.scale = model, scale
        about = [(query.on(model), query.samples) for query in self.queries.about]
        for run in weights:
            for one, asked in [(model, self.samples), *about]:
                ModuleCheckpoints(np.array([0.0]), one, run[None]).check_fits(asked)
        check_gradients(model, weights[0], self.samples)
        self.training = ModuleLosses(model, self.samples, weights[0], config.max_memory)
        self.engine = f"weights by {self.training.engine}"
        self._asked = [ModuleLosses(one, asked, weights[0], config.max_memory) for one, asked in about]

    def plain_mover(self, state: State, beta: Float[np.ndarray, "runs n"]) -> Callable[[Step], None]:
        """Return a function that takes one step of plain full-batch gradient descent in place."""
        (weights,), gradient = state, self.gradient(beta)

        def move(step: Step) -> None:
            weights.sub_(gradient((weights,), None)[0], alpha=step.rate)

        return move

    def gradient(
        self, beta: Float[np.ndarray, "runs n"]
    ) -> Callable[[State, Int[np.ndarray, "starts b"] | None], State]:
        """Return the gradient of L as a function of weights and batch."""
        start, runs = self.start[0], len(beta) // len(self.seeds)
        share = torch.tensor(self.scale * beta / len(self.samples), dtype=start.dtype, device=start.device)
        weighted = torch.tensor(self.scale * beta, dtype=start.dtype, device=start.device)

        def gradient(weights: State, batch: Int[np.ndarray, "starts b"] | None) -> State:
            if batch is None:
                return (self.training.gradient(weights[0], share),)
            parts = []
            for positions, own, beta in zip(batch, weights[0].split(runs), weighted.split(runs), strict=True):
                rows = torch.as_tensor(positions, device=start.device)
                parts.append(self.training.gradient(own, beta[:, rows] / len(positions), positions))
            return (torch.cat(parts) if len(parts) > 1 else parts[0],)

        return gradient

    def losses(self, state: State) -> Float[torch.Tensor, "runs m"]:
        """Return what is asked, of every run."""
        columns = [asked.losses(state[0]) for asked in self._asked]
        if self.queries.functions:
            columns.append(torch.stack([self._functions(run) for run in state[0]]))
        return torch.cat(columns, 1) if len(columns) > 1 else columns[0]

    def query_gradients(self, weights: Float[torch.Tensor, " d"]) -> Float[torch.Tensor, "m d"]:
        """Return the gradient of everything asked, at the weights of one run."""
        for asked in self._asked:
            check_gradients(asked.model, weights, asked.samples)
        rows = [asked.gradients(weights) for asked in self._asked]
        if self.queries.functions:
            rows.append(jacrev(self._functions)(weights))
        return torch.cat(rows) if len(rows) > 1 else rows[0]

    def _functions(self, weights: Float[torch.Tensor, " d"]) -> Float[torch.Tensor, " f"]:
        return torch.cat(self.queries.function_values(self.model.parameters_of(weights)))

    def checkpoints(self, epochs: np.ndarray, states: State) -> ModuleCheckpoints:
        """Return what a run passed through."""
        return ModuleCheckpoints(epochs, self.model, states[0])

    def threads(self) -> AbstractContextManager[None]:
        """Return a context that leaves threads as they are: a module may be large enough to use them."""
        return nullcontext()
