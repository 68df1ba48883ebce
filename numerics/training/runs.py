"""Many runs with other sample weights: in one batch, or each by itself on any executor, kept in a folder when done."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from numerics.errors import FitWarning
from numerics.executors import run_tasks
from numerics.models.digest import digest
from numerics.models.module import TorchModel
from numerics.models.queries import Asked, Queries
from numerics.models.samples import Samples
from numerics.stores import ResultStore
from numerics.training.descent import TrainingConfig, check_training, distinct_seeds
from numerics.training.initial import initial_weights_of, warn_if_trained
from numerics.training.linear_descent import LinearDescent
from numerics.training.module_descent import ModuleDescent
from numerics.training.own_training import Fit, Outcome, OwnTraining
from numerics.training.part_weights import PartWeights
from numerics.training.train import descend, descent_of, recorded_settings, sample_weights
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["Problem", "Results"]

Weights = Float[np.ndarray, "..."]  # (n,) or (epochs, n)
REPEAT = "the first run, repeated"


@dataclass(frozen=True, eq=False)
class Results:
    """What all runs gave.

    Parameters
    ----------
    epochs, names
        Epochs, shape (t,), and names of the queries.
    values
        Shape (t, seeds, runs, m).
    attrs
        Settings that they depend on.
    """

    epochs: np.ndarray
    names: tuple[str, ...]
    values: Float[np.ndarray, "t seeds runs m"]
    attrs: dict[str, object]


@dataclass(frozen=True, eq=False)
class OurTraining:
    """One run of our own training at a time, wherever it is called."""

    dataset: Dataset | Samples
    config: TrainingConfig
    queries: Queries
    model: TorchModel | None
    w1: ArrayLike | torch.Tensor | None
    w2: ArrayLike | torch.Tensor | None
    initial: Mapping[int, torch.Tensor]  # of a module, by the seed
    seeded: bool
    parts: PartWeights | None = None

    def __call__(self, name: str, beta: Weights, seed: int) -> Outcome:
        """Train once and return what came of it."""
        given = None if self.model is None else self.initial[seed][None]
        dataset, queries = self.dataset, self.queries
        model = self.model
        if self.parts is not None:
            assert model is not None
            dataset, queries = self.parts.weighted(beta), self.parts.queries(queries)
            model, beta = self.parts.model(model), np.ones(len(dataset))
        descent = descent_of(
            dataset,
            self.config,
            queries=queries,
            model=model,
            initial=given,
            seeds=[seed] if self.seeded or self.model is not None else None,
            w1=self.w1,
            w2=self.w2,
        )
        epochs = self.config.checkpoint_epochs
        values = descend(descent, [beta], [name], self.config, epochs)[:, 0, 0]
        return Outcome(epochs.astype(np.float64), values, self.queries.names)


@dataclass(frozen=True, eq=False)
class Problem:
    """What is trained, how, and what is asked; parameters as for `leave_one_out`."""

    dataset: Dataset | Samples
    config: TrainingConfig | None = None
    queries: Asked = None
    model: TorchModel | None = None
    initial: ArrayLike | torch.Tensor | None = None
    seeds: Sequence[int] | None = None
    w1: ArrayLike | torch.Tensor | None = None
    w2: ArrayLike | torch.Tensor | None = None
    fit: Fit | None = None
    parts: PartWeights | None = None  # if weights are those of parts

    def __post_init__(self) -> None:
        check_training(self.dataset, self.config, self.model)
        object.__setattr__(self, "queries", Queries.of(self.queries, self.dataset))
        if self.seeds is not None:
            object.__setattr__(self, "seeds", distinct_seeds(self.seeds))
        if self.fit is None:
            return
        if not callable(self.fit):
            raise TypeError(f"fit must be a function of sample weights and a seed, but {self.fit!r} was given.")
        ours = {name: getattr(self, name) for name in ("config", "model", "initial", "w1", "w2")}
        if given := [name for name, value in ours.items() if value is not None]:
            raise ValueError(
                f"fit trains by itself, so {', '.join(given)} would not be used; leave that out, and let fit use what "
                "it needs."
            )

    @property
    def asked(self) -> Queries:
        """What is asked, in one form."""
        assert isinstance(self.queries, Queries)
        return self.queries

    def checked(self, name: str, beta: ArrayLike) -> Weights:
        """Return sample weights, shape (N,) or (epochs, N); a `fit` alone knows how many epochs it has."""
        if self.fit is None:
            return sample_weights(name, beta, len(self.dataset), self.config or TrainingConfig())
        result = checks.nonnegative(name, beta)
        if result.ndim not in (1, 2) or result.shape[-1] != len(self.dataset):
            raise ValueError(
                f"{name} has shape {result.shape}, but the data set has {len(self.dataset)} samples: give "
                f"({len(self.dataset)},), or (epochs, {len(self.dataset)})."
            )
        return result

    def run(
        self,
        runs: Mapping[str, Weights],
        *,
        executor: Executor | None = None,
        store: str | os.PathLike[str] | None = None,
        repeat: bool = True,
        progress: Callable[[int], object] | None = None,
    ) -> Results:
        """Train with every set of sample weights from every seed."""
        if self.fit is None and self.model is not None and self.initial is None and self.seeds is None:
            warn_if_trained(self.model, Samples.of(self.dataset))
        if self.fit is None and self.parts is None and executor is None and store is None:
            return self._side_by_side(runs, progress)
        return self._one_by_one(runs, executor, store, repeat and self.fit is not None, progress)

    def _side_by_side(self, runs: Mapping[str, Weights], progress: Callable[[int], object] | None) -> Results:
        config = self.config or TrainingConfig()
        descent = self._descent(config)
        epochs = config.checkpoint_epochs
        values = descend(descent, list(runs.values()), list(runs), config, epochs, progress=progress)
        attrs = {"engine": descent.engine, **recorded_settings(config, self.model)}
        return Results(epochs, self.asked.names, values, attrs)

    def _one_by_one(
        self,
        runs: Mapping[str, Weights],
        executor: Executor | None,
        store: str | os.PathLike[str] | None,
        repeat: bool,
        progress: Callable[[int], object] | None,
    ) -> Results:
        seeds, train, engine = self._trainer()
        tasks = [(name, beta, seed) for seed in seeds for name, beta in runs.items()]
        if repeat:
            tasks.append((REPEAT, tasks[0][1], seeds[0]))
        call = partial(_task, train)
        if isinstance(executor, ProcessPoolExecutor):
            _check_sendable(call)
        kept = None if store is None else ResultStore(store, self._configuration(train), "retraining")
        keys = [digest((beta, seed, self._start(train, seed), name == REPEAT)) for name, beta, seed in tasks]
        found: dict[int, Outcome] = {}

        def finished(number: int, outcome: Outcome) -> None:
            found[number] = outcome
            first = found[min(found)]
            _check_alike(tasks[min(found)][0], first, tasks[number][0], outcome)
            if progress is not None:
                progress(len(found))

        for number, key in enumerate(keys):
            if kept is not None and (result := kept.read(key)) is not None:
                finished(number, _outcome(result))
        missing = [number for number in range(len(tasks)) if number not in found]

        def computed(position: int, outcome: Outcome) -> None:
            number = missing[position]
            if kept is not None:
                kept.write(keys[number], _dataset(outcome))
            finished(number, outcome)

        _run(call, [tasks[number] for number in missing], computed, executor)
        outcomes = [found[number] for number in range(len(tasks))]
        shape = (len(seeds), len(runs))
        values = np.stack([outcome.values for outcome in outcomes[: len(seeds) * len(runs)]])
        values = np.moveaxis(values.reshape(*shape, *values.shape[1:]), 2, 0)
        attrs: dict[str, object] = {"training": "fit"} if self.fit is not None else {"engine": engine}
        if self.fit is None:
            attrs |= recorded_settings(self.config or TrainingConfig(), self.model)
        if repeat:
            attrs["repeat_difference"] = float(np.abs(outcomes[-1].values - outcomes[0].values).max())
        if self.fit is not None:
            _warn_of_blindness(runs, values)
        if repeat:
            _warn_of_noise(values, float(np.abs(outcomes[-1].values - outcomes[0].values).max()))
        return Results(_whole(outcomes[0].epochs), outcomes[0].names, values, attrs)

    def _trainer(self) -> tuple[list[int], OurTraining | OwnTraining, str]:
        """Return the seeds, what trains once, and how."""
        if self.fit is not None:
            return list(self.seeds or [0]), OwnTraining(self.fit, self.asked), "fit"
        config = self.config or TrainingConfig()
        seeds = [config.seed] if self.seeds is None else list(self.seeds)
        starts = {}
        if self.model is not None:  # drawn here: torch's generator, which layers draw from, is one for all threads
            starts = dict(zip(seeds, initial_weights_of(self.model, self.initial, self.seeds), strict=True))
        engine = self._descent(config).engine  # what is wrong is refused before any work
        train = OurTraining(
            self.dataset, config, self.asked, self.model, self.w1, self.w2, starts, self.seeds is not None, self.parts
        )
        return seeds, train, engine

    def _descent(self, config: TrainingConfig) -> LinearDescent | ModuleDescent:
        return descent_of(
            self.dataset,
            config,
            queries=self.queries,
            model=self.model,
            initial=self.initial,
            seeds=self.seeds,
            w1=self.w1,
            w2=self.w2,
        )

    def _start(self, train: OurTraining | OwnTraining, seed: int) -> object:
        return train.initial.get(seed) if isinstance(train, OurTraining) else None

    def _configuration(self, train: OurTraining | OwnTraining) -> dict[str, str]:
        """Return what must agree for runs to belong together, in words or as a digest."""
        shared = {
            "training set": digest(self.dataset),
            "queries": digest(self.queries),
            "version of stagewise": version("stagewise"),
        }
        if isinstance(train, OwnTraining):
            return {"fit": digest(train.fit), **shared}
        settings = {f.name: getattr(train.config, f.name) for f in fields(train.config) if f.name != "max_memory"}
        model = None if self.model is None else digest(self.model)
        return {
            "settings": digest(settings),
            "model": model or "two-layer linear network",
            "initial weights": digest((self.w1, self.w2)),
            "parts": "" if self.parts is None else digest(self.parts.parts.names),
            **shared,
        }


def _task(train: OurTraining | OwnTraining, task: tuple[str, Weights, int]) -> Outcome:
    return train(*task)


def _run(
    function: Callable[[tuple[str, Weights, int]], Outcome],
    tasks: Sequence[tuple[str, Weights, int]],
    finished: Callable[[int, Outcome], object],
    executor: Executor | None,
) -> None:
    """Do all tasks: in an executor, or here, one after the other."""
    if executor is not None:
        run_tasks(function, tasks, finished, executor)
        return
    for number, task in enumerate(tasks):
        finished(number, function(task))


def _check_sendable(call: object) -> None:
    try:
        pickle.dumps(call)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"the training cannot be sent to worker processes: {error}. Define fit, module, loss and queries at the "
            "top level of a module, or give an executor of threads."
        ) from error


def _check_alike(first: str, outcome: Outcome, name: str, other: Outcome) -> None:
    if not np.array_equal(outcome.epochs, other.epochs):
        raise ValueError(
            f"fit returned other epochs for run {name!r} ({_shown(other.epochs)}) than for {first!r} "
            f"({_shown(outcome.epochs)}); all runs must be measured at the same ones."
        )
    if outcome.names != other.names:
        raise ValueError(f"fit returned other queries for run {name!r} than for {first!r}.")


def _shown(epochs: np.ndarray) -> str:
    return ", ".join(f"{epoch:g}" for epoch in epochs[:5]) + (", ..." if len(epochs) > 5 else "")


def _warn_of_blindness(runs: Mapping[str, Weights], values: Float[np.ndarray, "t seeds runs m"]) -> None:
    betas = list(runs.values())
    if any(not np.array_equal(beta, betas[0]) for beta in betas) and (values == values[:, :, :1]).all():
        warnings.warn(
            "fit gave the same losses for all sample weights; does it multiply the loss of every sample by its weight?",
            FitWarning,
            stacklevel=5,
        )


def _warn_of_noise(values: Float[np.ndarray, "t seeds runs m"], noise: float) -> None:
    """Warn if two runs that should be one differ by a hundredth of what the sample weights change, or of the losses."""
    effect = float(np.abs(values - values[:, :, :1]).max())
    if noise > 0.01 * (effect or float(np.abs(values).max())):
        warnings.warn(
            f"two runs of fit with the same sample weights and seed differ by up to {noise:.3g}, where other sample "
            f"weights change the losses by up to {effect:.3g}: influences of that size are chance. Let every random "
            "number of fit come from its seed (initial weights, order of batches, dropout, augmentation).",
            FitWarning,
            stacklevel=5,
        )


def _whole(epochs: Float[np.ndarray, " t"]) -> np.ndarray:
    """Return epochs as whole numbers if they are."""
    return epochs.astype(np.int64) if (epochs == np.round(epochs)).all() else epochs


def _dataset(outcome: Outcome) -> xr.Dataset:
    coords = {"epoch": outcome.epochs, "query": list(outcome.names)}
    return xr.Dataset({"values": (("epoch", "query"), outcome.values)}, coords=coords)


def _outcome(stored: xr.Dataset) -> Outcome:
    names = tuple(str(name) for name in stored["query"].values)
    return Outcome(stored["epoch"].values.astype(np.float64), stored["values"].values.astype(np.float64), names)
