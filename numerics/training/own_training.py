"""A user's own training function: called with sample weights and a seed, and what it returns checked and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from numerics.errors import TrainingDiverged
from numerics.models.checkpoints import ModuleCheckpoints, increasing_epochs
from numerics.models.linear import Checkpoints, linear_as_module
from numerics.models.queries import Queries
from numerics.training.module_losses import ModuleLosses
from numerics.training.train import TrainingRun

__all__ = ["Fit", "Outcome", "OwnTraining"]

# fit(sample_weights, seed) returns checkpoints or losses.
Fit = Callable[[np.ndarray, int], Any]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one run gave: the queries along its epochs.

    Parameters
    ----------
    epochs
        Shape (t,).
    values
        Shape (t, m).
    names
        Names of the queries.
    """

    epochs: Float[np.ndarray, " t"]
    values: Float[np.ndarray, "t m"]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class OwnTraining:
    """Runs of a user's training function.

    Parameters
    ----------
    fit
        ``fit(sample_weights, seed)`` trains from the start and returns `ModuleCheckpoints`, `Checkpoints` or a
        `TrainingRun`, whose queries are evaluated here; or the losses themselves, as a mapping of epochs to arrays of
        shape (m,) or as an xarray.DataArray with dims (epoch, query).
    queries
        What is asked.
    max_memory
        Bytes that the evaluation of queries may take, about.
    """

    fit: Fit
    queries: Queries
    max_memory: float = 2e9

    def __call__(self, name: str, beta: Float[np.ndarray, "*epochs n"], seed: int) -> Outcome:
        """Train once and return what came of it.

        Raises
        ------
        TypeError, ValueError
            If `fit` returned something else than it should.
        TrainingDiverged
            If a loss is not finite.
        """
        try:
            returned = self.fit(beta.copy(), seed)
        except Exception as error:
            error.add_note(f"It was raised by fit in run {name!r} with seed {seed}.")
            raise
        if isinstance(returned, TrainingRun):
            returned = returned.checkpoints
        if isinstance(returned, Checkpoints):
            returned = linear_as_module(returned)
        if isinstance(returned, ModuleCheckpoints):
            outcome = self._measured(returned)
        elif isinstance(returned, xr.DataArray):
            outcome = self._array(name, returned)
        elif isinstance(returned, Mapping) and returned:
            outcome = self._mapping(name, returned)
        else:
            raise TypeError(
                f"fit returned {_kind(returned)} for run {name!r}; it must return ModuleCheckpoints or Checkpoints, "
                "from which the queries are evaluated, or losses: {epoch: array of losses}, or an xarray.DataArray "
                "with dims (epoch, query)."
            )
        bad = np.argwhere(~np.isfinite(outcome.values))
        if len(bad):
            epoch, query = outcome.epochs[bad[0][0]], outcome.names[bad[0][1]]
            raise TrainingDiverged(
                f"fit returned a loss of {query!r} that is not finite, at epoch {epoch:g} of {name}."
            )
        return outcome

    def _measured(self, run: ModuleCheckpoints) -> Outcome:
        """Evaluate the queries at every checkpoint, one at a time."""
        for query in self.queries.about:
            ModuleCheckpoints(run.epochs[:1], query.on(run.model), run.at(run.epochs[:1]).flat).check_fits(
                query.samples
            )
        rows = []
        with torch.no_grad():
            for t in range(len(run)):
                model, weights = run.model_at(t), run.weights_at(t)
                row = []
                for query in self.queries.about:
                    samples = query.samples.like(weights)
                    row.append(
                        ModuleLosses(query.on(model), samples, weights, self.max_memory).losses(weights[None])[0]
                    )
                row += self.queries.function_values(model.parameters_of(weights))
                rows.append(torch.cat(row).double().cpu().numpy())
        return Outcome(np.asarray(run.epochs, dtype=np.float64), np.stack(rows), self.queries.names)

    def _array(self, name: str, losses: xr.DataArray) -> Outcome:
        if set(losses.dims) != {"epoch", "query"} or "epoch" not in losses.coords:
            raise ValueError(
                f"fit returned an array with dims {losses.dims} for run {name!r}; dims (epoch, query) and a coordinate "
                "epoch are needed."
            )
        values = losses.transpose("epoch", "query")
        if "query" in losses.coords:
            names = tuple(str(query) for query in losses["query"].values)
        else:
            names = self._names(name, values.shape[1])
        return Outcome(_epochs(name, losses["epoch"].values), _numbers(name, values.values), names)

    def _mapping(self, name: str, losses: Mapping[Any, Any]) -> Outcome:
        epochs = _epochs(name, list(losses))
        rows = [_numbers(name, row) for row in losses.values()]
        shapes = {row.shape for row in rows}
        if len(shapes) != 1 or rows[0].ndim != 1:
            raise ValueError(
                f"fit returned losses of shapes {', '.join(map(str, sorted(shapes)))} for run {name!r}; every epoch "
                "needs one loss for each query."
            )
        return Outcome(epochs, np.stack(rows), self._names(name, len(rows[0])))

    def _names(self, name: str, count: int) -> tuple[str, ...]:
        if count != len(self.queries):
            raise ValueError(
                f"fit returned {count} losses an epoch for run {name!r}, but there are {len(self.queries)} queries; "
                "give queries= for those that it measures, or return an xarray.DataArray that names them."
            )
        return self.queries.names


def _epochs(name: str, epochs: Sequence[Any] | np.ndarray) -> Float[np.ndarray, " t"]:
    try:
        return increasing_epochs(np.asarray(epochs, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"fit returned losses by {list(epochs)} for run {name!r}, which are no epochs: {error}"
        ) from error


def _numbers(name: str, values: Any) -> Float[np.ndarray, "..."]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"fit returned losses that are no numbers for run {name!r}: {error}") from error


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
