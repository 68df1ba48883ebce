r"""Descent of two-layer linear networks on torch's mean squared error with sample weights beta.

.. math:: W \leftarrow W - \eta \nabla \frac{1}{N O} \sum_i \beta_i \| y_i - W_2 W_1 x_i \|^2 .
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from numerics.models.checkpoints import refuse_masked
from numerics.models.linear import Checkpoints, initial_weights, without_idle_units
from numerics.models.samples import Samples
from numerics.threads import one_thread
from numerics.training.descent import Descent, State, TrainingConfig, distinct_seeds, on_cpu
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["LinearDescent"]


class LinearDescent(Descent):
    """Descent of two-layer linear networks in the hidden directions that carry weight.

    The state is W_1 (runs, k, P) and W_2 (runs, O, k), float64 on the config's device.

    Parameters
    ----------
    dataset, queries
        Training set and the samples whose losses are asked for.
    config
        Settings; also those of initial weights that are drawn.
    seeds
        Seeds of the initial weights, a run for each; the config's if not given.
    w1, w2
        Initial weights instead, shapes (h, P) and (O, h).
    """

    def __init__(
        self,
        dataset: Dataset,
        queries: Dataset,
        config: TrainingConfig,
        *,
        seeds: Sequence[int] | None = None,
        w1: ArrayLike | torch.Tensor | None = None,
        w2: ArrayLike | torch.Tensor | None = None,
    ) -> None:
        if (queries.n_inputs, queries.n_outputs) != (dataset.n_inputs, dataset.n_outputs):
            raise ValueError(
                f"queries have {queries.n_inputs} inputs and {queries.n_outputs} outputs, but the training set has "
                f"{dataset.n_inputs} and {dataset.n_outputs}."
            )
        first, second = (layer.to(config.device) for layer in _initial_layers(dataset, config, seeds, w1, w2))
        self.rotation, *reduced = without_idle_units(first, second)
        super().__init__(Samples.of(dataset).like(first), Samples.of(queries).like(first), tuple(reduced))
        self.rate = 2 * config.lr / dataset.targets.size

    def step(self, state: State, beta: Float[np.ndarray, "runs n"]) -> Callable[[], None]:
        """Return a function that advances `state` in place by one epoch with sample weights `beta`."""
        w1, w2 = state
        syx, sxx, diagonal = self.moments(beta)
        product, error = (w1.new_empty(len(w1), *syx.shape[1:]) for _ in range(2))
        gradient1 = torch.empty_like(w1)

        def advance() -> None:
            torch.bmm(w2, w1, out=product)
            if diagonal is None:
                torch.baddbmm(syx, product, sxx, alpha=-1, out=error)
            else:
                torch.addcmul(syx, product, diagonal, value=-1, out=error)
            torch.bmm(w2.mT, error, out=gradient1)
            w2.baddbmm_(error, w1.mT)
            w1.add_(gradient1)

        return advance

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

    def losses(self, state: State) -> Float[torch.Tensor, "runs m"]:
        """Return the loss of every query in every run."""
        w1, w2 = state
        outputs = torch.bmm(w2, w1) @ self.queries.inputs.mT
        return 0.5 * outputs.sub_(self.queries.targets.mT).square_().sum(1)

    def checkpoints(self, epochs: np.ndarray, states: State) -> Checkpoints:
        """Return what a run from the first initial weights passed through, in all hidden directions."""
        w1, w2 = states
        return Checkpoints(epochs, self.rotation[0] @ w1, w2 @ self.rotation[0].mT)

    def threads(self) -> AbstractContextManager[None]:
        """Return a context with one thread."""
        return one_thread()


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
