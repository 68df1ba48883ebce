"""The labelled arrays that every package returns: influence of a source sample on a query sample over epochs.

One container for closed forms, samplers and retraining, so that any two measures can be subtracted, correlated and
plotted without bookkeeping. It holds no mathematics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

__all__ = ["labelled_array", "trajectory"]


def trajectory(
    values: ArrayLike,
    epochs: ArrayLike,
    sources: Sequence[str],
    queries: Sequence[str],
    *,
    name: str = "influence",
    attrs: Mapping[str, object] | None = None,
) -> xr.DataArray:
    """Label influence values with dims (epoch, source, query).

    Parameters
    ----------
    values
        Influence, shape (epochs, sources, queries). Negative = the source helps the query.
    epochs
        Times in epochs, shape (epochs,).
    sources, queries
        Sample names.
    name
        Name of the array, used by plots.
    attrs
        How the values were made: formula or estimator, hyper-parameters, seed. The package version is added.

    Returns
    -------
    xarray.DataArray
        float64, dims (epoch, source, query).

    Raises
    ------
    ValueError
        If the shape of `values` is not (epochs, sources, queries).

    Examples
    --------
    >>> influence = trajectory(np.zeros((2, 1, 1)), [0, 10], ["dog"], ["cat"], attrs={"formula": "spectral"})
    >>> influence.sel(source="dog", query="cat").shape
    (2,)
    """
    return labelled_array(
        values, {"epoch": np.atleast_1d(np.asarray(epochs)), "source": sources, "query": queries}, name, attrs
    )


def labelled_array(
    values: ArrayLike, coords: Mapping[str, object], name: str, attrs: Mapping[str, object] | None = None
) -> xr.DataArray:
    """Label `values` with `coords` in order, recording `attrs` in a form that netCDF can store.

    Examples
    --------
    >>> labelled_array([1.0, 2.0], {"query": ["dog", "cat"]}, "loss", {"bias": True}).attrs["bias"]
    'True'
    """
    values = np.asarray(values)
    labels = {dim: np.asarray(c) for dim, c in coords.items()}
    wanted = tuple(len(c) for c in labels.values())
    if values.shape != wanted:
        raise ValueError(f"{name} has shape {values.shape}, but its labels {tuple(labels)} need {wanted}.")
    stored = {key: _storable(value) for key, value in (attrs or {}).items()}
    return xr.DataArray(values, coords=labels, name=name, attrs=stored | {"stagewise_version": version("stagewise")})


def _storable(value: object) -> object:
    if isinstance(value, (bool, type(None))):
        return str(value)
    if isinstance(value, (str, int, float, np.generic)):
        return value
    if isinstance(value, (list, tuple, np.ndarray)):
        flat = np.asarray(value)
        return flat.ravel() if flat.dtype.kind in "iuf" else [str(v) for v in flat.ravel()]
    return str(value)
