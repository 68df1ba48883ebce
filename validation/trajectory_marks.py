r"""Peaks and sign flips of influence over training, and where two measures agree in sign, as labelled data.

A value has a clear sign where it stands out of its own trajectory and of its error e,

.. math:: |I(t)| > \max\bigl(0.02 \max_u |I(u)|,\; 2\, e(t)\bigr) .
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise

import numpy as np
import xarray as xr

from theory import checks

__all__ = ["SIGN_THRESHOLD", "clear_signs", "epoch_runs", "peaks", "sign_agreement", "sign_flips"]

SIGN_THRESHOLD = 0.02  # a value below this share of its trajectory's largest has no sign worth comparing
_STANDARD_ERRORS = 2.0  # nor has one within so many of its standard errors


def peaks(influence: xr.DataArray) -> xr.Dataset:
    """Return where every trajectory helps and harms most.

    Parameters
    ----------
    influence
        dims (epoch, ...), such as (epoch, source, query); negative = helps. NaN entries are left out.

    Returns
    -------
    xarray.Dataset
        Without the dim epoch: ``help_epoch`` and ``help``, epoch and value of the minimum, NaN if the trajectory is
        never negative; ``harm_epoch`` and ``harm``, the same of the maximum, NaN if it is never positive;
        ``help_inside`` and ``harm_inside``, false where the extremum stands at the first or last epoch, beyond which
        it may go on.

    Raises
    ------
    TypeError, ValueError
        If `influence` is no labelled array, or has no epochs.

    Examples
    --------
    >>> line = xr.DataArray([0.0, -2.0, 1.0, 0.5], {"epoch": [0, 100, 200, 300]})
    >>> found = peaks(line)
    >>> float(found["help_epoch"]), float(found["harm_epoch"]), float(found["harm"])
    (100.0, 200.0, 1.0)
    """
    _refuse_unfit(influence)
    found = {}
    first, last = influence["epoch"].values[[0, -1]]
    for word, sign in (("help", -1), ("harm", 1)):
        signed = (sign * influence).fillna(-np.inf)
        value = sign * signed.max("epoch")
        epoch = signed.idxmax("epoch").astype(float)
        there = sign * value > 0
        found[f"{word}_epoch"] = epoch.where(there & np.isfinite(value))
        found[word] = value.where(there & np.isfinite(value))
        found[f"{word}_inside"] = found[f"{word}_epoch"].notnull() & (epoch != first) & (epoch != last)
    return xr.Dataset(found)


def clear_signs(influence: xr.DataArray, error: xr.DataArray | None = None) -> xr.DataArray:
    """Return -1 where a value clearly helps, 1 where it clearly harms and 0 where its sign is not clear.

    Parameters
    ----------
    influence
        dims (epoch, ...).
    error
        Standard errors in the same units, of the same dims or fewer; none if not given.

    Examples
    --------
    >>> line = xr.DataArray([0.01, -2.0, 1.0, 0.5], {"epoch": [0, 100, 200, 300]})
    >>> clear_signs(line, xr.full_like(line, 0.3)).values
    array([ 0., -1.,  1.,  0.])
    """
    _refuse_unfit(influence)
    size = abs(influence)
    clear = size > SIGN_THRESHOLD * size.max("epoch")
    if error is not None:
        clear = clear & (size > _STANDARD_ERRORS * error)
    signs = xr.where(clear, np.sign(influence), 0.0)
    return signs.transpose(*influence.dims).rename("sign").drop_attrs()


def sign_flips(influence: xr.DataArray, error: xr.DataArray | None = None) -> xr.Dataset:
    """Return when every trajectory changes from clearly helping to clearly harming, or back.

    Parameters
    ----------
    influence
        dims (epoch, ...); negative = helps.
    error
        Standard errors in the same units: noise within two of them makes no flip.

    Returns
    -------
    xarray.Dataset
        dims of `influence` with ``flip`` in place of ``epoch``, as many as the trajectory with the most flips has, NaN
        beyond. ``epoch``: the crossing, linear between neighbours; ``before`` and ``after``: the last epoch of the
        clear sign before and the first after; ``to``: 1 if it begins to harm, -1 if it begins to help.

    Examples
    --------
    >>> line = xr.DataArray([-1.0, -1.0, 1.0, 2.0], {"epoch": [0, 100, 200, 300]})
    >>> flips = sign_flips(line)
    >>> flips["epoch"].values, flips["to"].values
    (array([150.]), array([1.]))
    """
    signs = clear_signs(influence, error)
    epochs = influence["epoch"].values.astype(float)
    others = [dim for dim in influence.dims if dim != "epoch"]
    values = influence.transpose(*others, "epoch").values.reshape(-1, len(epochs))
    rows = signs.transpose(*others, "epoch").values.reshape(-1, len(epochs))
    found = [list(_flips(epochs, v, s)) for v, s in zip(values, rows, strict=True)]
    most = max(map(len, found), default=0)
    table = np.full((len(found), most, 4), np.nan)
    for row, flips in zip(table, found, strict=True):
        if flips:
            row[: len(flips)] = flips
    shape = (*(influence.sizes[dim] for dim in others), most)
    coords = {dim: influence[dim] for dim in others if dim in influence.coords}
    names = ("epoch", "before", "after", "to")
    return xr.Dataset({name: ((*others, "flip"), table[..., k].reshape(shape)) for k, name in enumerate(names)}, coords)


def _flips(epochs: np.ndarray, values: np.ndarray, signs: np.ndarray) -> Iterator[tuple[float, float, float, float]]:
    clear = np.flatnonzero(signs)
    for a, b in pairwise(clear):
        if signs[a] == signs[b]:
            continue
        between = np.sign(values[a : b + 1])
        crossings = a + np.flatnonzero(between[:-1] * between[1:] < 0)
        # One crossing of neighbours is where it flips; several are noise, and a straight line is as good.
        i, j = (crossings[0], crossings[0] + 1) if len(crossings) == 1 else (a, b)
        share = abs(values[i]) / (abs(values[i]) + abs(values[j]))
        yield epochs[i] + share * (epochs[j] - epochs[i]), epochs[a], epochs[b], signs[b]


def sign_agreement(
    measures: Mapping[str, xr.DataArray], errors: Mapping[str, xr.DataArray] | None = None
) -> xr.Dataset:
    """Return, for every two measures, at which share of the epochs where both signs are clear they are the same.

    Parameters
    ----------
    measures
        Two or more by name, dims (epoch, ...) with the same others; they are compared at the epochs that all share.
    errors
        Standard errors of some of them, in the measure's units.

    Returns
    -------
    xarray.Dataset
        ``share``, dims (pair, ...), NaN where no epoch is clear in both; ``clear``, the number of such epochs;
        ``opposite``, dims (pair, epoch, ...), true where both signs are clear and differ. Coordinates ``first`` and
        ``second`` of pair name the measures.

    Raises
    ------
    ValueError
        If there are fewer than two measures, or they share no epoch or label.

    Examples
    --------
    >>> line = xr.DataArray([-1.0, -1.0, 1.0, 2.0], {"epoch": [0, 100, 200, 300]})
    >>> found = sign_agreement({"a": line, "b": xr.full_like(line, 1.0)})
    >>> float(found["share"][0]), found["epoch"].values[found["opposite"][0]]
    (0.5, array([  0, 100]))
    """
    checks.instance("measures", measures, Mapping, made_by="{name: influence}")
    if len(measures) < 2:
        raise ValueError(f"signs of {len(measures)} measure cannot be compared; give two or more.")
    signs = {name: clear_signs(measure, (errors or {}).get(name)) for name, measure in measures.items()}
    aligned = dict(zip(signs, xr.align(*signs.values(), join="inner"), strict=True))
    if any(array.size == 0 for array in aligned.values()):
        raise ValueError(f"the measures {', '.join(measures)} share no epoch or label, so signs cannot be compared.")
    pairs = list(combinations(aligned, 2))
    product = xr.concat([aligned[a] * aligned[b] for a, b in pairs], "pair")
    clear, opposite = product != 0, product < 0
    count = clear.sum("epoch")
    return xr.Dataset(
        {"share": 1 - opposite.sum("epoch") / count.where(count > 0), "clear": count, "opposite": opposite}
    ).assign_coords(first=("pair", [a for a, _ in pairs]), second=("pair", [b for _, b in pairs]))


def epoch_runs(marked: xr.DataArray) -> list[tuple[float, float]]:
    """Return first and last epoch of every unbroken run of true entries, dims (epoch,).

    Examples
    --------
    >>> epoch_runs(xr.DataArray([True, True, False, True], {"epoch": [0, 100, 200, 300]}))
    [(0.0, 100.0), (300.0, 300.0)]
    """
    epochs = marked["epoch"].values.astype(float)
    edges = np.diff(np.concatenate([[0], marked.values.astype(int), [0]]))
    return [
        (float(epochs[a]), float(epochs[b - 1]))
        for a, b in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0), strict=True)
    ]


def _refuse_unfit(influence: object) -> None:
    if not isinstance(influence, xr.DataArray):
        raise TypeError(
            f"influence is a {type(influence).__name__}; give a labelled array with the dim epoch (an "
            "xarray.DataArray), as theory and numerics return."
        )
    if "epoch" not in influence.dims or "epoch" not in influence.coords or influence.sizes["epoch"] == 0:
        raise ValueError(
            f"influence has dims {influence.dims}; its trajectories need a labelled dim epoch with at least one entry."
        )
