r"""How well two measures of influence agree: correlation, slope, error, timing and sign.

For a reference a and another measure b over the same epochs, sources and queries,

.. math:: \text{slope} = \frac{\langle a, b \rangle}{\langle a, a \rangle}, \qquad
    \text{relative max error} = \frac{\max |a - b|}{\max |a|} .

The slope has no intercept: a lost sign, 1/N or factor 2 shows in it, however high the correlation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from validation.trajectory_marks import SIGN_THRESHOLD

__all__ = ["Agreement", "agreement", "extremum_epochs", "without_self"]


@dataclass(frozen=True)
class Agreement:
    r"""Agreement of a measure with a reference.

    Parameters
    ----------
    pearson
        Correlation over all epochs, sources and queries.
    slope
        Least-squares slope of the measure on the reference through the origin; 1 means the same scale.
    relative_max_error
        Largest difference divided by the largest reference value.
    extremum_shift
        Median over (source, query) of the distance in epochs between the two measures' extrema, the larger of the
        one for the maximum and the one for the minimum.
    sign_agreement
        Share of equal signs where both values exceed 2 % of their own trajectory's largest.
    worst_pearson, worst_slope_error
        Smallest correlation and largest \|slope - 1\| of a single (source, query) trajectory.
    """

    pearson: float
    slope: float
    relative_max_error: float
    extremum_shift: float
    sign_agreement: float
    worst_pearson: float
    worst_slope_error: float


def without_self(influence: xr.DataArray) -> xr.DataArray:
    """Return the trajectories with those of a sample on itself set to NaN, which `agreement` leaves out.

    Examples
    --------
    >>> from theory.trajectories import trajectory
    >>> two = trajectory(np.ones((1, 2, 2)), [0], ["dog", "cat"], ["dog", "cat"])
    >>> without_self(two).values[0]
    array([[nan,  1.],
           [ 1., nan]])
    """
    return influence.where(influence["source"] != influence["query"])


def extremum_epochs(influence: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the epochs of the strongest help (minimum) and the strongest harm (maximum) of every trajectory."""
    return influence.idxmin("epoch"), influence.idxmax("epoch")


def agreement(reference: xr.DataArray, measure: xr.DataArray) -> Agreement:
    """Compare two influence arrays on their common epochs, sources and queries.

    Parameters
    ----------
    reference, measure
        Arrays with dims (epoch, source, query). NaN entries of either are left out.

    Raises
    ------
    ValueError
        If they share no epoch, source or query, or the reference is zero or constant throughout.

    Examples
    --------
    >>> from theory.trajectories import trajectory
    >>> a = trajectory(np.sin(np.arange(9.0)).reshape(9, 1, 1), np.arange(9), ["dog"], ["cat"])
    >>> same = agreement(a, 2 * a)
    >>> round(same.pearson, 12), same.slope, same.sign_agreement
    (1.0, 2.0, 1.0)
    """
    a, b = xr.align(reference, measure, join="inner")
    if a.size == 0:
        raise ValueError("the two measures share no epoch, source or query, so they cannot be compared.")
    both = a.notnull() & b.notnull()
    a, b = a.where(both), b.where(both)
    x, y = (v.values[both.values] for v in (a, b))
    if x.size < 2 or np.ptp(x) == 0:
        raise ValueError("the reference is constant on the common entries, so there is nothing to compare.")
    pairs = [
        (p, q)
        for p, q in zip(_trajectories(a), _trajectories(b), strict=True)
        if p.size > 1 and np.ptp(p) > 0 and np.ptp(q) > 0
    ]
    return Agreement(
        pearson=_pearson(x, y),
        slope=float(x @ y / (x @ x)),
        relative_max_error=float(np.abs(x - y).max() / np.abs(x).max()),
        extremum_shift=_extremum_shift(a, b),
        sign_agreement=_sign_agreement(pairs),
        worst_pearson=min((_pearson(p, q) for p, q in pairs), default=float("nan")),
        worst_slope_error=max((abs(float(p @ q / (p @ p)) - 1) for p, q in pairs), default=float("nan")),
    )


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _trajectories(influence: xr.DataArray) -> list[np.ndarray]:
    columns = influence.transpose("epoch", "source", "query").values.reshape(influence.sizes["epoch"], -1).T
    return [column[np.isfinite(column)] for column in columns]


def _extremum_shift(a: xr.DataArray, b: xr.DataArray) -> float:
    columns = [v.transpose("epoch", "source", "query").values.reshape(v.sizes["epoch"], -1) for v in (a, b)]
    measured = np.isfinite(columns[0]).any(axis=0)
    if not measured.any():
        return float("nan")
    epochs = a["epoch"].values.astype(float)
    first, second = (c[:, measured] for c in columns)
    shifts = [
        np.median(np.abs(epochs[extreme(first, axis=0)] - epochs[extreme(second, axis=0)]))
        for extreme in (np.nanargmin, np.nanargmax)
    ]
    return float(max(shifts))


def _sign_agreement(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    same, counted = 0, 0
    for p, q in pairs:
        clear = (np.abs(p) > SIGN_THRESHOLD * np.abs(p).max()) & (np.abs(q) > SIGN_THRESHOLD * np.abs(q).max())
        same += int(np.sum(np.sign(p[clear]) == np.sign(q[clear])))
        counted += int(clear.sum())
    return same / counted if counted else float("nan")
