r"""Descent of two-layer linear networks on torch's mean squared error with sample weights beta.

.. math:: W \leftarrow W - \eta \nabla \frac{1}{N O} \sum_i \beta_i \| y_i - W_2 W_1 x_i \|^2 .
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.models.checkpoints import refuse_masked
from numerics.models.linear import Checkpoints, LinearNetwork, initial_weights, without_idle_units
from numerics.models.module import TorchModel
from numerics.models.queries import Queries
from numerics.models.samples import Samples
from numerics.threads import one_thread
from numerics.training.descent import Descent, State, Step, TrainingConfig, distinct_seeds, on_cpu
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["LinearDescent"]


class LinearDescent(Descent):
    """Descent of two-layer linear networks in the hidden directions that carry weight.

    The state is W_1 (runs, k, P) and W_2 (runs, O, k), float64 on the config's device, and what the optimiser remembers
    of them. Adam treats every weight by itself, so that no hidden direction is idle for it.

    Parameters
    ----------
    dataset, queries
        Training set, and what is asked.
    config
        Settings; also those of initial weights that are drawn.
    seeds
        Seeds of the initial weights and of the order of mini-batches, a run for each; the config's if not given.
    w1, w2
        Initial weights instead, shapes (h, P) and (O, h).
    """

    def __init__(
        self,
        dataset: Dataset,
        queries: Queries,
        config: TrainingConfig,
        *,
        seeds: Sequence[int] | None = None,
        w1: ArrayLike | torch.Tensor | None = None,
        w2: ArrayLike | torch.Tensor | None = None,
    ) -> None:
        first, second = (layer.to(config.device) for layer in _initial_layers(dataset, config, seeds, w1, w2))
        self.rotation: torch.Tensor | None = None
        weights: State = (first.contiguous(), second.contiguous())
        if config.optimiser.linear:
            self.rotation, *reduced = without_idle_units(first, second)
            weights = tuple(reduced)
        asked = _checked(queries.like(first), dataset)
        seeds = [config.seed] if seeds is None else seeds
        super().__init__(Samples.of(dataset).like(first), asked, weights, config, seeds)
        self.engine = "products of a linear network"
        self.rate = 2 * config.lr / dataset.targets.size
        self.model = TorchModel(LinearNetwork(first[0], second[0]))

    def plain_mover(self, state: State, beta: Float[np.ndarray, "runs n"]) -> Callable[[Step], None]:
        """Return a function that takes one step of plain full-batch gradient descent in place."""
        w1, w2 = state
        syx, sxx, diagonal = self.moments(beta)
        product, error = (w1.new_empty(len(w1), *syx.shape[1:]) for _ in range(2))
        gradient1 = torch.empty_like(w1)

        def move(_: Step) -> None:
            torch.bmm(w2, w1, out=product)
            if diagonal is None:
                torch.baddbmm(syx, product, sxx, alpha=-1, out=error)
            else:
                torch.addcmul(syx, product, diagonal, value=-1, out=error)
            torch.bmm(w2.mT, error, out=gradient1)
            w2.baddbmm_(error, w1.mT)
            w1.add_(gradient1)

        return move

    def moments(
        self, beta: Float[np.ndarray, "runs n"]
    ) -> tuple[
        Float[torch.Tensor, "runs o p"], Float[torch.Tensor, "runs p p"], Float[torch.Tensor, "runs 1 p"] | None
    ]:
        """Return Syx and Sxx of the weighted data, scaled by the rate once and for all, and Sxx's diagonal if alone."""
        x, y = self.samples.inputs, self.samples.targets
        weighted = self.rate * torch.tensor(beta, device=x.device)[:, :, None] * x
        syx, sxx = y.mT @ weighted, x.mT @ weighted
        diagonal = torch.diagonal(sxx, dim1=1, dim2=2).contiguous()
        alone = bool((sxx == torch.diag_embed(diagonal)).all())
        return syx, sxx, diagonal[:, None] if alone else None

    def gradient(
        self, beta: Float[np.ndarray, "runs n"]
    ) -> Callable[[State, Int[np.ndarray, "starts b"] | None], State]:
        """Return the gradient of the mean squared error as a function of weights and batch."""
        x, y = self.samples.inputs, self.samples.targets
        share = torch.tensor(beta, device=x.device).unflatten(0, (len(self.seeds), -1))  # (starts, runs, n)
        everything = np.tile(np.arange(len(x)), (len(self.seeds), 1))

        def moments(positions: Int[np.ndarray, "starts b"]) -> tuple[torch.Tensor, torch.Tensor]:
            batch = torch.as_tensor(positions, device=x.device)
            weighted = share.gather(2, batch[:, None].expand(-1, share.shape[1], -1))[..., None] * x[batch][:, None]
            weighted *= 2 / (batch.shape[1] * y.shape[1])
            return (
                (y[batch].mT[:, None] @ weighted).flatten(0, 1),
                (x[batch].mT[:, None] @ weighted).flatten(0, 1),
            )

        always = None if self.batched else moments(everything)

        def gradient(weights: State, batch: Int[np.ndarray, "starts b"] | None) -> State:
            w1, w2 = weights
            syx, sxx = moments(everything if batch is None else batch) if always is None else always
            error = (w2 @ w1) @ sxx - syx
            return w2.mT @ error, error @ w1.mT

        return gradient

    def losses(self, state: State) -> Float[torch.Tensor, "runs m"]:
        """Return what is asked, of every run."""
        w1, w2 = self.weights(state)
        columns = []
        for query in self.queries.about:
            outputs = torch.bmm(w2, w1) @ query.samples.inputs.mT
            if query.measure is None:
                columns.append(0.5 * outputs.sub_(query.samples.targets.mT).square_().sum(1))
            else:
                measure, targets = query.on(self.model).loss_of_outputs, query.samples.targets
                columns.append(torch.vmap(lambda o: measure(o, targets))(outputs.mT))  # noqa: B023
        if self.queries.functions:
            columns.append(torch.vmap(self._functions)(*self.all_hidden(w1, w2)))
        return torch.cat(columns, 1) if len(columns) > 1 else columns[0]

    def _functions(self, w1: Float[torch.Tensor, "h p"], w2: Float[torch.Tensor, "o h"]) -> Float[torch.Tensor, " f"]:
        return torch.cat(self.queries.function_values({"w1": w1, "w2": w2}))

    def all_hidden(
        self, w1: Float[torch.Tensor, "runs k p"], w2: Float[torch.Tensor, "runs o k"]
    ) -> tuple[Float[torch.Tensor, "runs h p"], Float[torch.Tensor, "runs o h"]]:
        """Return the weights in all hidden directions."""
        if self.rotation is None:
            return w1, w2
        rotation = self.rotation.repeat_interleave(len(w1) // len(self.rotation), dim=0)
        return rotation @ w1, w2 @ rotation.mT

    def checkpoints(self, epochs: np.ndarray, states: State) -> Checkpoints:
        """Return what a run from the first initial weights passed through, in all hidden directions."""
        w1, w2 = self.weights(states)
        if self.rotation is None:
            return Checkpoints(epochs, w1, w2)
        return Checkpoints(epochs, self.rotation[0] @ w1, w2 @ self.rotation[0].mT)

    def threads(self) -> AbstractContextManager[None]:
        """Return a context with one thread."""
        return one_thread()

    @property
    def fast(self) -> bool:
        """Whether plain steps and losses of samples are all there is, which `LinearisedLinear` differentiates."""
        about = self.queries.about
        return self.plain and len(about) == 1 and about[0].measure is None and not self.queries.functions


def _checked(queries: Queries, dataset: Dataset) -> Queries:
    """Refuse queries whose samples the network cannot read."""
    for query in queries.about:
        inputs, targets = (tuple(value.shape) for value in (query.samples.inputs, query.samples.targets))
        if len(inputs) != 2 or inputs[1] != dataset.n_inputs:
            raise ValueError(f"queries have inputs of shape {inputs}, but the network reads (n, {dataset.n_inputs}).")
        if query.measure is None and targets != (len(query), dataset.n_outputs):
            raise ValueError(
                f"queries have targets of shape {targets}, but the network has {dataset.n_outputs} outputs: "
                f"{(len(query), dataset.n_outputs)} is needed for its loss."
            )
    return queries


def _initial_layers(
    dataset: Dataset,
    config: TrainingConfig,
    seeds: Sequence[int] | None,
    w1: ArrayLike | torch.Tensor | None,
    w2: ArrayLike | torch.Tensor | None,
) -> tuple[Float[torch.Tensor, "runs h p"], Float[torch.Tensor, "runs o h"]]:
    if (w1 is None) != (w2 is None):
        raise ValueError("give both w1 and w2 or neither; one layer alone does not start a network.")
    if w1 is None or w2 is None:
        drawn = [
            initial_weights(dataset, hidden=config.hidden, sigma=config.sigma, seed=seed)
            for seed in ([config.seed] if seeds is None else distinct_seeds(seeds))
        ]
        first, second = (torch.stack(layer) for layer in zip(*drawn, strict=True))
        return first, second
    if seeds is not None:
        raise ValueError("give seeds, which draw the initial weights, or w1 and w2, which are them, not both.")
    refuse_masked("w1", w1)
    refuse_masked("w2", w2)
    one = checks.matrix("w1", on_cpu(w1), (None, dataset.n_inputs))
    two = checks.matrix("w2", on_cpu(w2), (dataset.n_outputs, len(one)))
    return torch.tensor(one[None]), torch.tensor(two[None])
