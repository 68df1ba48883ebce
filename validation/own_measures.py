"""A user's own measures of influence beside ours: checked on entry, compared with retraining and sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from theory import Dataset
from validation.experiments.base import Experiment
from validation.pairs import MEASURES, Measure, Pair
from validation.registry import Way

__all__ = ["own_measures", "own_pairs"]

_DIMS = ("epoch", "source", "query")
_REFERENCES = {
    "LOO retrained": "what leaving the sample out does",
    "derivative retrained": "what a small change of the sample's weight does",
    "BIF": "the instantaneous influence, by sampling",
}


def own_measures(
    given: Mapping[str, xr.DataArray | Callable[[Experiment], xr.DataArray]], dataset: Dataset, epochs: np.ndarray
) -> dict[str, Measure]:
    """Return a user's trajectories as measures, refusing what does not fit before any work.

    Parameters
    ----------
    given
        Arrays, or functions of the experiment, by name.
    dataset
        The data.
    epochs
        Epochs of the checkpoints.

    Raises
    ------
    TypeError
        If one is neither an array with labels nor a function.
    ValueError
        If a name is taken, or an array's dims, samples, epochs or numbers do not fit. What a function returns is
        checked when it is called, and its sentence stands in the report.

    Examples
    --------
    >>> array = xr.DataArray(np.zeros((1, 1, 1)), {"epoch": [5], "source": ["a"], "query": ["b"]})
    >>> own_measures({"mine": array}, Dataset(np.eye(2), np.eye(2), ("a", "b")), np.array([0, 10]))
    Traceback (most recent call last):
    ...
    ValueError: the measure 'mine' shares no epoch with the run: it has 5, and checkpoints are at 0, 10.
    """
    result = {}
    for name, value in given.items():
        if name in MEASURES:
            raise ValueError(f"a measure is called {name!r} already; give yours another name.")
        if isinstance(value, xr.DataArray):
            fitted = _fitted(name, value, dataset, epochs)
            result[name] = Measure(Way.OWN, lambda _, fitted=fitted: fitted)  # type: ignore[misc]
        elif callable(value):
            result[name] = Measure(Way.OWN, _called(name, value))
        else:
            raise TypeError(
                f"the measure {name!r} must be an xarray.DataArray with dims (epoch, source, query), or a function "
                f"that returns one, but it is a {type(value).__name__}."
            )
    return result


def own_pairs(own: Mapping[str, Measure]) -> list[Pair]:
    """Return the pairs of a user's measures with those of ours that answer a question of their own."""
    return [
        Pair(reference, name, "yours", f"against {what}", with_self=True)
        for name in own
        for reference, what in _REFERENCES.items()
    ]


def _called(name: str, function: Callable[[Experiment], xr.DataArray]) -> Callable[[Experiment], xr.DataArray]:
    def compute(experiment: Experiment) -> xr.DataArray:
        try:
            value = function(experiment)
        except Exception as error:  # the user's own code: its error belongs in the table, not in a traceback of ours
            raise ValueError(f"the measure {name!r} raised {type(error).__name__}: {error}") from error
        if not isinstance(value, xr.DataArray):
            raise ValueError(f"the measure {name!r} returned a {type(value).__name__}, not an xarray.DataArray.")
        return _fitted(name, value, experiment.dataset, experiment.epochs)

    return compute


def _fitted(name: str, value: xr.DataArray, dataset: Dataset, epochs: np.ndarray) -> xr.DataArray:
    """Return a trajectory in our order of dims, with those that were selected away put back."""
    where = f"the measure {name!r}"
    missing = [dim for dim in _DIMS if dim not in value.dims and dim not in value.coords]
    if missing or not set(value.dims) <= set(_DIMS):
        raise ValueError(f"{where} has dims {value.dims}, but (epoch, source, query) are needed.")
    array = value.expand_dims([dim for dim in _DIMS if dim not in value.dims]).transpose(*_DIMS)
    if unlabelled := [dim for dim in _DIMS if dim not in array.coords]:
        raise ValueError(f"{where} has no labels along {unlabelled[0]}; give it coordinates, as ours have.")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where} must hold real numbers, but its dtype is {array.dtype}.")
    for dim in _DIMS:
        if not array.indexes[dim].is_unique:
            raise ValueError(f"{where} has a label along {dim} that stands twice.")
    for dim in ("source", "query"):
        if strangers := [str(label) for label in array[dim].values if str(label) not in dataset.names]:
            raise ValueError(f"{where}: {dim} {strangers[0]!r} is no sample; there are {', '.join(dataset.names)}.")
    if array["epoch"].dtype.kind not in "iuf":
        raise ValueError(f"{where} must have numbers as epochs, but they are {array['epoch'].dtype}.")
    if not np.isin(array["epoch"].values, epochs).any():
        have, ours = (", ".join(f"{e:g}" for e in list(some)[:4]) for some in (array["epoch"].values, epochs))
        raise ValueError(f"{where} shares no epoch with the run: it has {have}, and checkpoints are at {ours}.")
    if np.isinf(array.values).any():
        raise ValueError(f"{where} holds an infinite value; use NaN for what is not known.")
    labels = {dim: [str(label) for label in array[dim].values] for dim in ("source", "query")}
    return (
        array.astype(np.float64)
        .assign_coords(labels)
        .drop_vars([str(extra) for extra in array.coords if extra not in _DIMS])
    )
