r"""Full-batch gradient descent with sample weights: its settings, and what any network must do to take part.

.. math:: w \leftarrow w - \eta\, \nabla L(w; \beta), \qquad L(w; \beta) = \frac1N \sum_i \beta_i \ell_i(w) .

Runs that differ in their initial weights or sample weights advance side by side in one batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.linear import Checkpoints
from numerics.models.samples import Samples
from theory import checks

__all__ = [
    "Descent",
    "State",
    "TrainingConfig",
    "copied",
    "distinct_seeds",
    "joined",
    "on_cpu",
    "repeated",
]

# Weights of several runs: tensors whose first axis is the run.
State = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of gradient descent; the defaults are the paper's (C.1).

    Parameters
    ----------
    hidden
        Hidden units h of a linear network.
    sigma
        Standard deviation of a linear network's initial weights, >= 0.
    lr
        Learning rate, > 0: of a linear network on the mean squared error, of a module on L.
    epochs
        Number of epochs, >= 1.
    checkpoint_every
        Weights are kept every so many epochs, and at the last one.
    seed
        Seed of a linear network's initial weights.
    device
        Where a linear network is trained, as torch names it. A module stays where its parameters are.

    Examples
    --------
    >>> TrainingConfig(lr=0.0)
    Traceback (most recent call last):
    ...
    ValueError: lr must be a positive number, but 0.0 was given.
    """

    hidden: int = 50
    sigma: float = 1e-3
    lr: float = 5e-2
    epochs: int = 10_000
    checkpoint_every: int = 100
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        checks.integer("hidden", self.hidden, at_least=1)
        checks.nonnegative("sigma", self.sigma)
        checks.positive("lr", self.lr)
        checks.integer("epochs", self.epochs, at_least=1)
        checks.integer("checkpoint_every", self.checkpoint_every, at_least=1)
        checks.integer("seed", self.seed, at_least=0)
        try:
            torch.empty(0, device=self.device)
        except (AssertionError, RuntimeError) as error:  # how torch says that a device is unknown or absent
            raise ValueError(f'device {self.device!r} cannot be used; try "cpu". torch says: {error}') from error

    @property
    def checkpoint_epochs(self) -> Int[np.ndarray, " t"]:
        """Epochs at which weights are kept, 0 and the last one included."""
        return np.unique(np.append(np.arange(0, self.epochs, self.checkpoint_every), self.epochs))


class Descent(ABC):
    """How the runs of one problem start, move, and what their losses are.

    Parameters
    ----------
    samples, queries
        Training set and the samples whose losses are asked for, in the dtype and on the device of the state.
    start
        Initial state of as many runs as there are initial weights.
    """

    def __init__(self, samples: Samples, queries: Samples, start: State) -> None:
        self.samples, self.queries, self.start = samples, queries, start

    @abstractmethod
    def step(self, state: State, beta: Float[np.ndarray, "runs n"]) -> Callable[[], None]:
        """Return a function that advances `state` in place by one epoch with sample weights `beta`."""

    @abstractmethod
    def losses(self, state: State) -> Float[torch.Tensor, "runs m"]:
        """Return the loss of every query in every run."""

    @abstractmethod
    def checkpoints(self, epochs: np.ndarray, states: State) -> Checkpoints | ModuleCheckpoints:
        """Return what a run from the first initial weights passed through; `states` has an epoch where runs were."""

    @abstractmethod
    def threads(self) -> AbstractContextManager[None]:
        """Return the context in which to step."""


def repeated(state: State, times: int) -> State:
    """Return a copy of the state with every run `times` times, one after the other."""
    return tuple(weights.repeat_interleave(times, dim=0) for weights in state)


def copied(state: State) -> State:
    """Return the state in memory of its own."""
    return tuple(weights.clone() for weights in state)


def joined(states: Sequence[State]) -> State:
    """Return several states as one, their runs one after the other."""
    return tuple(torch.cat(parts) for parts in zip(*states, strict=True))


def distinct_seeds(seeds: Sequence[int]) -> list[int]:
    """Return the seeds, refusing none or one that stands twice."""
    result = [checks.integer("every seed", seed, at_least=0) for seed in seeds]
    if len(result) != len(set(result)) or not result:
        raise ValueError(f"seeds must be distinct, and at least one, but {list(seeds)} were given.")
    return result


def on_cpu(value: ArrayLike | torch.Tensor) -> ArrayLike:
    """Return an array or tensor as something numpy reads."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
