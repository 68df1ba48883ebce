r"""Descent with sample weights: its settings, its steps, and what any network must do to take part.

.. math:: w \leftarrow w - \eta\, \nabla L_B(w; \beta), \qquad L_B(w; \beta) = \frac1{|B|} \sum_{i \in B} \beta_i
    \ell_i(w) ,

or with momentum, Adam and the like. B is all samples, or a mini-batch of an order that is drawn from the seed alone: a
sample of weight 0 keeps its place in it, so that runs with and without it differ by that sample alone. Runs that differ
in their initial weights or sample weights advance side by side in one batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.devices import usable_device
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.given import check_data, check_model_given
from numerics.models.linear import Checkpoints
from numerics.models.queries import Queries
from numerics.models.samples import Samples
from numerics.training.optimisers import SGD, Optimiser
from numerics.training.schedules import Schedule
from theory import checks

__all__ = [
    "Descent",
    "State",
    "Step",
    "TrainingConfig",
    "batch_order",
    "check_training",
    "copied",
    "distinct_seeds",
    "joined",
    "on_cpu",
    "repeated",
]

# Weights of several runs, then what the optimiser remembers of them: tensors whose first axis is the run.
State = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of gradient descent; the defaults are the paper's (C.1): full batches, no momentum.

    Parameters
    ----------
    hidden
        Hidden units h of a linear network.
    sigma
        Standard deviation of a linear network's initial weights, >= 0.
    lr
        Learning rate, > 0: of a linear network on the mean squared error, of a module on L.
    epochs
        Number of passes over the training set, >= 1.
    checkpoint_every
        Weights are kept every so many epochs, and at the last one.
    seed
        Seed of a linear network's initial weights, and of the order of mini-batches.
    device
        Where a linear network is trained, as torch names it. A module stays where its parameters are.
    batch_size
        Samples a step, >= 1, in an order drawn afresh for every epoch (see `batch_order`); an epoch's last batch may be
        smaller, and counts as one step. All samples in one step if not given.
    optimiser
        `SGD`, `Adam` or `AdamW`, or a subclass of `Optimiser`; plain gradient descent if not given.
    schedule
        ``schedule(t, T)``, the factor >= 0 on the learning rate at step t of T in all (`CosineDecay`, `LinearDecay`,
        `StepDecay` or any function); 1 if not given.
    max_memory
        Bytes that the evaluation of losses and gradients may take, about; samples are evaluated in chunks that fit.

    Examples
    --------
    >>> TrainingConfig(lr=1e-3, optimiser=SGD(momentum=0.9), batch_size=32, epochs=20).steps(n_samples=100)
    80
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
    batch_size: int | None = None
    optimiser: Optimiser = field(default_factory=SGD)
    schedule: Schedule | None = None
    max_memory: float = 2e9

    def __post_init__(self) -> None:
        checks.integer("hidden", self.hidden, at_least=1)
        checks.nonnegative_number("sigma", self.sigma)
        checks.positive("lr", self.lr)
        checks.integer("epochs", self.epochs, at_least=1)
        checks.integer("checkpoint_every", self.checkpoint_every, at_least=1)
        checks.integer("seed", self.seed, at_least=0)
        checks.positive("max_memory", self.max_memory)
        if self.batch_size is not None:
            checks.integer("batch_size", self.batch_size, at_least=1)
        if not isinstance(self.optimiser, Optimiser):
            raise TypeError(
                "optimiser must be SGD(...), Adam(...), AdamW(...) or an Optimiser of your own, but "
                f"{self.optimiser!r} was given; train with any other in a function of your own, fit=."
            )
        if self.schedule is not None and not callable(self.schedule):
            raise TypeError(f"schedule must be a function of a step and their number, but {self.schedule!r} was given.")
        usable_device(self.device)

    @property
    def checkpoint_epochs(self) -> Int[np.ndarray, " t"]:
        """Epochs at which weights are kept, 0 and the last one included."""
        return np.unique(np.append(np.arange(0, self.epochs, self.checkpoint_every), self.epochs))

    def batches(self, n_samples: int) -> bool:
        """Return whether a step sees fewer than all samples."""
        return self.batch_size is not None and self.batch_size < n_samples

    def steps(self, n_samples: int) -> int:
        """Return the number of steps of a run on so many samples."""
        return self.epochs * (-(-n_samples // self.batch_size) if self.batch_size is not None else 1)

    def rate(self, count: int, steps: int) -> float:
        """Return the learning rate of step number `count` of `steps`, refusing a schedule that returns none."""
        if self.schedule is None:
            return self.lr
        factor = self.schedule(count, steps)
        if not (isinstance(factor, (int, float, np.number)) and np.isfinite(factor) and factor >= 0):
            raise ValueError(
                f"the schedule must return a number that is not negative, but it returned {factor!r} for step {count} "
                f"of {steps}."
            )
        return self.lr * float(factor)


def batch_order(n_samples: int, batch_size: int, epoch: int, seed: int = 0) -> list[Int[np.ndarray, " b"]]:
    """Return the positions of the samples in every mini-batch of an epoch, as `train` takes them.

    The order depends on nothing else: not on sample weights, on the epochs before or on other runs.

    Examples
    --------
    >>> [batch.tolist() for batch in batch_order(5, 2, epoch=0)]
    [[2, 4], [3, 0], [1]]
    """
    for name, value, least in (("n_samples", n_samples, 1), ("batch_size", batch_size, 1), ("epoch", epoch, 0)):
        checks.integer(name, value, at_least=least)
    order = np.random.default_rng([checks.integer("seed", seed, at_least=0), epoch]).permutation(n_samples)
    return [order[k : k + batch_size] for k in range(0, n_samples, batch_size)]


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a run: its number from the start, its learning rate, and its samples.

    Parameters
    ----------
    count, rate
        Number of the step, from 0, and its learning rate.
    batch
        Positions of its samples for every initial state, shape (starts, b); None for all samples in all.
    """

    count: int
    rate: float
    batch: Int[np.ndarray, "starts b"] | None = None


class Descent(ABC):
    """How the runs of one problem start, move, and what their losses are.

    Parameters
    ----------
    samples
        Training set, in the dtype and on the device of the state.
    queries
        What is asked of the weights.
    weights
        Initial weights of as many runs as there are initial states.
    config
        Settings.
    seeds
        Seed of the order of mini-batches for every initial state.
    """

    engine: str  # how runs are evaluated, in words

    def __init__(
        self, samples: Samples, queries: Queries, weights: State, config: TrainingConfig, seeds: Sequence[int]
    ) -> None:
        self.samples, self.queries, self.config, self.seeds = samples, queries, config, tuple(seeds)
        self.n_weights = len(weights)
        memory = tuple(torch.zeros_like(w) for _ in range(config.optimiser.memories) for w in weights)
        self.start: State = (*weights, *memory)
        self.n_steps = config.steps(len(samples))
        self.batched = config.batches(len(samples))
        # The same step every time, and a plain one: no order, no memory, no schedule.
        self.plain = not self.batched and config.schedule is None and config.optimiser == SGD()
        self._only = (Step(0, config.lr),)

    def steps(self, epoch: int) -> Sequence[Step]:
        """Return the steps of an epoch."""
        if self.plain:
            return self._only
        if not self.batched:
            return (Step(epoch, self.config.rate(epoch, self.n_steps)),)
        size = self.config.batch_size or len(self.samples)
        orders = [batch_order(len(self.samples), size, epoch, seed) for seed in self.seeds]
        first = epoch * len(orders[0])
        return [
            Step(first + k, self.config.rate(first + k, self.n_steps), np.stack(batch))
            for k, batch in enumerate(zip(*orders, strict=True))
        ]

    def mover(self, state: State, beta: Float[np.ndarray, "runs n"]) -> Callable[[Step], None]:
        """Return a function that takes one step of `state` in place with sample weights `beta`."""
        if self.plain:
            return self.plain_mover(state, beta)
        gradient = self.gradient(beta)
        weights, memories = self.weights(state), self.memories(state)

        def move(step: Step) -> None:
            for w, g, memory in zip(weights, gradient(weights, step.batch), memories, strict=True):
                self.config.optimiser.step(w, g, memory, step.rate, step.count)

        return move

    def weights(self, state: State) -> State:
        """Return the weights of a state, without what the optimiser remembers."""
        return state[: self.n_weights]

    def memories(self, state: State) -> list[State]:
        """Return what the optimiser remembers of each tensor of weights."""
        return [state[k + self.n_weights :: self.n_weights] for k in range(self.n_weights)]

    @abstractmethod
    def plain_mover(self, state: State, beta: Float[np.ndarray, "runs n"]) -> Callable[[Step], None]:
        """Return a function that takes one step of plain full-batch gradient descent in place."""

    @abstractmethod
    def gradient(
        self, beta: Float[np.ndarray, "runs n"]
    ) -> Callable[[State, Int[np.ndarray, "starts b"] | None], State]:
        """Return the gradient of the training loss as a function of weights and batch, for sample weights `beta`."""

    @abstractmethod
    def losses(self, state: State) -> Float[torch.Tensor, "runs m"]:
        """Return what is asked, of every run."""

    @abstractmethod
    def checkpoints(self, epochs: np.ndarray, states: State) -> Checkpoints | ModuleCheckpoints:
        """Return what a run from the first initial weights passed through; `states` has an epoch where runs were."""

    @abstractmethod
    def threads(self) -> AbstractContextManager[None]:
        """Return the context in which to step."""


def check_training(dataset: object, config: object, model: object) -> None:
    """Refuse a data set, settings or a model that are something else, before anything of them is used.

    Raises
    ------
    TypeError
        If one is.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> check_training(hierarchical_dataset(), 200, None)
    Traceback (most recent call last):
    ...
    TypeError: config must be a TrainingConfig, made by TrainingConfig(...), but int was given.
    """
    check_data(dataset)
    check_model_given(model)
    if config is not None:
        checks.instance("config", config, TrainingConfig, made_by="TrainingConfig(...)")


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
