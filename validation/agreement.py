r"""How well two measures of influence agree: correlation, slope, error, timing and sign.

For a reference a and another measure b over the same epochs, sources and queries,

.. math:: \text{slope} = \frac{\langle a, b \rangle}{\langle a, a \rangle}, \qquad
    \text{relative max error} = \frac{\max |a - b|}{\max |a|} .

The slope has no intercept: a lost sign, 1/N or factor 2 shows in it, however high the correlation.

Where the two stand on different epochs, the one with more of them is interpolated linearly at the other's, within the
span of both. The error of that is at most h^2 / 8 times the second derivative over an interval of length h; the
derivative is measured by the distance of every point from the chord of its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from theory import checks
from validation.trajectory_marks import SIGN_THRESHOLD

__all__ = ["Agreement", "agreement", "extremum_epochs", "without_self"]

_INTERPOLATED = 0.05  # of the largest reference value: what a peak read from a plot is worth


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
    n_epochs, n_pairs
        Number of epochs, and of (source, query) trajectories, that were compared: those with an entry in both measures.
    interpolation_error
        Estimated largest error of interpolating one of them at the other's epochs, divided by the largest reference
        value; 0 if nothing had to be interpolated.
    """

    pearson: float
    slope: float
    relative_max_error: float
    extremum_shift: float
    sign_agreement: float
    worst_pearson: float
    worst_slope_error: float
    n_epochs: int
    n_pairs: int
    interpolation_error: float = 0.0


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
    _refuse_without("influence", influence, "source", "query")
    return influence.where(influence["source"] != influence["query"])


def extremum_epochs(influence: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the epochs of the strongest help (minimum) and the strongest harm (maximum) of every trajectory."""
    _refuse_without("influence", influence, "epoch")
    return influence.idxmin("epoch"), influence.idxmax("epoch")


def _refuse_without(name: str, given: object, *dims: str) -> None:
    """Refuse what is no labelled array with these dims."""
    made_by = "theory.trajectories.trajectory(values, epochs, sources, queries)"
    array = checks.instance(name, given, xr.DataArray, made_by=made_by)
    if missing := [dim for dim in dims if dim not in array.indexes]:
        raise ValueError(f"{name} has no labels along {missing[0]}: its dims are {array.dims}; made by {made_by}.")


def agreement(reference: xr.DataArray, measure: xr.DataArray) -> Agreement:
    """Compare two influence arrays on their common sources and queries, at the epochs of the one that has fewer.

    Parameters
    ----------
    reference, measure
        Arrays with dims (epoch, source, query) and labels along each. NaN entries of either are left out.

    Raises
    ------
    TypeError
        If one of them is not an ``xarray.DataArray``.
    ValueError
        If one has other dims, no labels or labels twice; if they share no epoch, source or query; if epochs differ and
        interpolating them would be off by more than 5 % of the largest reference value; if the reference is zero or
        constant on what they share.

    Examples
    --------
    >>> from theory.trajectories import trajectory
    >>> a = trajectory(np.sin(np.arange(9.0)).reshape(9, 1, 1), np.arange(9), ["dog"], ["cat"])
    >>> same = agreement(a, 2 * a)
    >>> round(same.pearson, 12), same.slope, same.sign_agreement, same.n_epochs, same.n_pairs
    (1.0, 2.0, 1.0, 9, 1)
    """
    for name, given in (("reference", reference), ("measure", measure)):
        _refuse_unlabelled(name, given)
    reference, measure = (_real(given.transpose("epoch", "source", "query")) for given in (reference, measure))
    a, b, error = _on_common_epochs(reference, measure)
    a, b = xr.align(a, b, join="inner")
    for dim in ("source", "query"):
        if a.sizes[dim] == 0:
            raise ValueError(
                f"the two measures share no {dim}: the reference has {_some(reference[dim])}, the measure "
                f"{_some(measure[dim])}. Name the samples alike."
            )
    both = a.notnull() & b.notnull()
    a, b = a.where(both), b.where(both)
    x, y = (v.values[both.values] for v in (a, b))
    n_epochs, n_pairs = int(both.any(["source", "query"]).sum()), int(both.any("epoch").sum())
    if x.size < 2 or np.ptp(x) == 0:
        value = f"it is {x[0]:.6g} there" if x.size else "every entry is NaN in one of the two"
        raise ValueError(
            f"the reference is constant where both are known, so there is nothing to compare: {value}. What they share "
            f"is {a.sizes['epoch']} epoch(s) ({_some(a['epoch'])}), {a.sizes['source']} source(s) and "
            f"{a.sizes['query']} query(s)."
        )
    largest = float(np.abs(x).max())
    if error > _INTERPOLATED * largest:
        raise ValueError(
            f"the two measures stand on different epochs, and interpolating them is off by {error / largest:.2g} of "
            f"the reference's largest value; at most {_INTERPOLATED:g} is allowed. Measure both at the same epochs, or "
            "at more."
        )
    pairs = [
        (p, q)
        for p, q in zip(_trajectories(a), _trajectories(b), strict=True)
        if p.size > 1 and np.ptp(p) > 0 and np.ptp(q) > 0
    ]
    return Agreement(
        pearson=_pearson(x, y),
        slope=float(x @ y / (x @ x)),
        relative_max_error=float(np.abs(x - y).max() / largest),
        extremum_shift=_extremum_shift(a, b),
        sign_agreement=_sign_agreement(pairs),
        worst_pearson=min((_pearson(p, q) for p, q in pairs), default=float("nan")),
        worst_slope_error=max((abs(float(p @ q / (p @ p)) - 1) for p, q in pairs), default=float("nan")),
        n_epochs=n_epochs,
        n_pairs=n_pairs,
        interpolation_error=error / largest,
    )


def _refuse_unlabelled(name: str, given: object) -> None:
    """Refuse what cannot be matched by labels; xarray would match it by position, or answer in its own words."""
    if not isinstance(given, xr.DataArray):
        raise TypeError(
            f"{name} must be an xarray.DataArray with dims (epoch, source, query), but {type(given).__name__} was "
            "given; theory.trajectories.trajectory makes one from numbers and names."
        )
    if set(given.dims) != {"epoch", "source", "query"}:
        raise ValueError(f"{name} must have dims (epoch, source, query), but has {given.dims}.")
    if 0 in given.shape:
        raise ValueError(f"{name} is empty: its sizes are {dict(given.sizes)}.")
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, but its dtype is {given.dtype}.")
    for dim in ("epoch", "source", "query"):
        if dim not in given.indexes:
            raise ValueError(
                f"{name} has no labels along {dim}, so that its entries cannot be matched with the other's; give it "
                f"some by assign_coords({dim}=...)."
            )
        if not given.indexes[dim].is_unique:
            raise ValueError(f"{name} has a label twice along {dim}; give every entry one of its own.")
    epochs = given["epoch"].values
    if epochs.dtype.kind not in "iuf" or not np.isfinite(epochs).all():
        raise ValueError(f"{name} must have finite numbers as epochs, but they are {_some(given['epoch'])}.")


def _real(given: xr.DataArray) -> xr.DataArray:
    """Return the array in float64, its epochs in order; infinite entries are refused: no number follows from them."""
    if np.isinf(given.values).any():
        raise ValueError("an influence is infinite; remove that entry, or set it to NaN, which leaves it out.")
    return given.astype(np.float64).sortby("epoch")


def _on_common_epochs(first: xr.DataArray, second: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray, float]:
    """Return both at the epochs of the one that has fewer of them in the span of both, and the error of that."""
    spans = [(float(v["epoch"][0]), float(v["epoch"][-1])) for v in (first, second)]
    start, end = max(s[0] for s in spans), min(s[1] for s in spans)
    inside = [v.sel(epoch=slice(start, end)) for v in (first, second)]
    if start > end or min(v.sizes["epoch"] for v in inside) == 0:
        described = [
            f"{v.sizes['epoch']} from {s[0]:g} to {s[1]:g}" for v, s in zip((first, second), spans, strict=True)
        ]
        raise ValueError(
            f"the two measures share no epoch: the reference has {described[0]}, the measure {described[1]}. Measure "
            "both over the same part of training."
        )
    few = min(inside, key=lambda v: v.sizes["epoch"])["epoch"].values.astype(float)
    errors = []
    aligned = []
    for v in (first, second):
        missing = ~np.isin(few, v["epoch"].values)
        errors.append(_chord_error(v, few[missing]))
        aligned.append(v.interp(epoch=few, assume_sorted=True) if missing.any() else v.sel(epoch=few))
    return aligned[0].assign_coords(epoch=few), aligned[1].assign_coords(epoch=few), max(errors)


def _chord_error(given: xr.DataArray, at: np.ndarray) -> float:
    """Return the estimated error of linear interpolation at these epochs, from the chords of neighbouring points."""
    if at.size == 0:
        return 0.0
    epochs = given["epoch"].values.astype(float)
    if epochs.size < 3:
        return float("inf")  # nothing says how far from a line it is
    values = given.values.reshape(epochs.size, -1)
    left, right = (epochs[1:-1] - epochs[:-2])[:, None], (epochs[2:] - epochs[1:-1])[:, None]
    chord = (right * values[:-2] + left * values[2:]) / (left + right)
    # From f'' to the error in an interval of length h: h^2 / 8 of it; the chord's own distance is left right / 2 of it.
    bent = np.abs(values[1:-1] - chord) * 2 / (left * right)
    bent = np.vstack([bent[:1], bent, bent[-1:]])
    interval = np.clip(np.searchsorted(epochs, at) - 1, 0, epochs.size - 2)
    width = (epochs[interval + 1] - epochs[interval])[:, None]
    largest = np.fmax(bent[interval], bent[interval + 1]) * width**2 / 8
    return float(np.nanmax(largest)) if np.isfinite(largest).any() else float("inf")


def _some(labels: xr.DataArray) -> str:
    shown = [str(value) for value in labels.values[:4]]
    return ", ".join(shown) + (", ..." if labels.size > 4 else "")


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
