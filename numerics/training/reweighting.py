"""Whose weight changes, by how much, and how the influence of it is named: what all ways of reweighting share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from numerics.curvature.influence_request import plain_labels, with_parts
from numerics.models.queries import Queries
from numerics.models.samples import Samples
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["changed_weights", "described", "labelled", "weight_change"]


def described(queries: Queries) -> dict[str, object]:
    """Return the name and units of an influence: only on losses is negative known to help."""
    if queries.measured == "loss":
        return {"long_name": "influence (negative = helps)", "units": "loss per sample weight"}
    return {"long_name": f"influence on {queries.measured}", "units": f"{queries.measured} per sample weight"}


def changed_weights(
    samples: Dataset | Samples, groups: Sequence[Sequence[str]], epsilon: float
) -> list[Float[np.ndarray, " n"]]:
    """Return the sample weights with those of each group in turn changed from 1."""
    changed = [np.ones(len(samples)) for _ in groups]
    for weights, group in zip(changed, groups, strict=True):
        weights[[samples.index(name) for name in group]] += epsilon
    return changed


def labelled(
    name: str,
    values: Float[np.ndarray, "t seeds runs m"],
    epochs: np.ndarray,
    runs: Mapping[str, Sequence[Any]],
    queries: Sequence[str],
    seeds: Sequence[int] | None,
    attrs: dict[str, object],
) -> xr.DataArray:
    """Return values with their names, pairs (sample, part) as a MultiIndex; with a dimension of seeds if several."""
    coords = {"epoch": epochs, **plain_labels(runs), "query": queries}
    if seeds is None:
        return with_parts(labelled_array(values[:, 0], coords, name, attrs), runs)
    attrs = {key: value for key, value in attrs.items() if key != "seed"}
    array = labelled_array(np.swapaxes(values, 0, 1), {"seed": list(seeds), **coords}, name, attrs)
    return with_parts(array, runs)


def weight_change(epsilon: float) -> float:
    """Return the change of a sample weight, refusing one below -1 and 0."""
    epsilon = float(checks.array("epsilon", epsilon, ndim=0))
    if epsilon < -1 or epsilon == 0:
        raise ValueError(f"epsilon must be at least -1 (left out) and not 0, but {epsilon} was given.")
    return epsilon
