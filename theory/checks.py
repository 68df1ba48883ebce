"""Argument checks shared by every package: bad input is refused before any work, in a sentence.

Each function returns the checked value in the form the mathematics needs (float64 arrays, Python floats), so a caller
writes ``c = matrix("c", c)`` once and works with ``c`` afterwards.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

__all__ = [
    "array",
    "choice",
    "covariances",
    "integer",
    "matrix",
    "nonnegative",
    "positive",
    "same_length",
    "simplex",
    "symmetric",
    "times",
    "whitened",
]

_EPS = float(np.finfo(float).eps)


def array(name: str, value: ArrayLike, *, ndim: int | None = None) -> Float[np.ndarray, "..."]:
    """Return `value` as a finite float64 array, optionally of `ndim` dimensions.

    Raises
    ------
    TypeError
        If `value` is not numeric and real.
    ValueError
        If an entry is NaN or infinite, or the number of dimensions is not `ndim`.

    Examples
    --------
    >>> array("s", [3, 1])
    array([3., 1.])
    >>> array("s", [3, float("nan")])
    Traceback (most recent call last):
    ...
    ValueError: s holds a non-finite value (nan at index (1,)); remove or impute it first.
    """
    result = np.asarray(value)
    if result.dtype == object or result.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of real numbers, but its dtype is {result.dtype}.")
    result = result.astype(np.float64, copy=False)
    if ndim is not None and result.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), but its shape is {result.shape}.")
    bad = ~np.isfinite(result)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} holds a non-finite value ({result[where]} at index {where}); remove or impute it first."
        )
    return result


def matrix(
    name: str, value: ArrayLike, shape: tuple[int | None, int | None] = (None, None)
) -> Float[np.ndarray, "rows columns"]:
    """Return `value` as a finite float64 matrix; ``None`` in `shape` leaves that side free.

    Raises
    ------
    ValueError
        If it is not a matrix, is empty, or has another shape.

    Examples
    --------
    >>> matrix("w1", [[1, 2]], (None, 3))
    Traceback (most recent call last):
    ...
    ValueError: w1 has shape (1, 2), but (any, 3) is needed.
    """
    result = array(name, value, ndim=2)
    if 0 in result.shape:
        raise ValueError(f"{name} is empty: its shape is {result.shape}.")
    if any(want is not None and have != want for have, want in zip(result.shape, shape, strict=True)):
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"{name} has shape {result.shape}, but ({wanted}) is needed.")
    return result


def positive(name: str, value: float) -> float:
    """Return the finite scalar `value` as a float, refusing zero and negative numbers.

    Examples
    --------
    >>> positive("tau", -1)
    Traceback (most recent call last):
    ...
    ValueError: tau must be a positive number, but -1.0 was given.
    """
    result = float(array(name, value, ndim=0))
    if result <= 0:
        raise ValueError(f"{name} must be a positive number, but {result} was given.")
    return result


def nonnegative(name: str, value: ArrayLike) -> Float[np.ndarray, "..."]:
    """Return `value` as a finite float64 array without negative entries.

    Examples
    --------
    >>> nonnegative("damping", [1e-3, -0.5])
    Traceback (most recent call last):
    ...
    ValueError: damping must not be negative, but its smallest entry is -0.5.
    """
    result = array(name, value)
    if result.size and result.min() < 0:
        raise ValueError(f"{name} must not be negative, but its smallest entry is {result.min()}.")
    return result


def times(name: str, value: ArrayLike, *, allow_infinite: bool = False) -> Float[np.ndarray, "..."]:
    """Return times as float64 array of any shape, refusing negative ones (and infinite ones unless allowed).

    Examples
    --------
    >>> times("t", [0, -3])
    Traceback (most recent call last):
    ...
    ValueError: t must not be negative, but its smallest entry is -3.0.
    >>> times("t", float("inf"), allow_infinite=True)
    array(inf)
    """
    result = np.asarray(value)
    if allow_infinite and result.dtype.kind == "f":
        nonnegative(name, np.where(np.isposinf(result), 0.0, result))
        return result.astype(np.float64, copy=False)
    return nonnegative(name, value)


def integer(name: str, value: int, *, at_least: int) -> int:
    """Return `value` as an int no smaller than `at_least`.

    Examples
    --------
    >>> integer("levels", 0, at_least=1)
    Traceback (most recent call last):
    ...
    ValueError: levels must be at least 1, but 0 was given.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, but {value!r} was given.")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, but {value} was given.")
    return int(value)


def choice(name: str, value: str, options: tuple[str, ...]) -> str:
    """Return `value` if it is one of `options`.

    Examples
    --------
    >>> choice("formula", "paper", ("paper-P1", "spectral"))
    Traceback (most recent call last):
    ...
    ValueError: formula must be one of 'paper-P1', 'spectral', but 'paper' was given.
    """
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, but {value!r} was given.")
    return value


def same_length(**sized: np.ndarray) -> int:
    """Return the common length of the named arrays' first axes.

    Examples
    --------
    >>> same_length(inputs=np.eye(2), targets=np.eye(3))
    Traceback (most recent call last):
    ...
    ValueError: inputs (2), targets (3) must have the same number of rows.
    """
    lengths = {name: len(value) for name, value in sized.items()}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name} ({n})" for name, n in lengths.items())
        raise ValueError(f"{listing} must have the same number of rows.")
    return next(iter(lengths.values()))


def whitened(inputs: Float[np.ndarray, "n p"], *, needed_by: str) -> None:
    """Refuse inputs X whose second moment X^T X is not the identity.

    The tolerance is the rounding error of forming X^T X from unit-norm columns: ``64 eps`` times the number of rows.

    Examples
    --------
    >>> whitened(np.array([[2.0, 0.0], [0.0, 1.0]]), needed_by="the Saxe solution")
    Traceback (most recent call last):
    ...
    ValueError: the Saxe solution needs whitened inputs (X^T X = I), but X^T X differs from I by 3; whiten them first, \
for example with inputs @ scipy.linalg.inv(scipy.linalg.sqrtm(inputs.T @ inputs)).
    """
    deviation = float(np.abs(inputs.T @ inputs - np.eye(inputs.shape[1])).max())
    if deviation > 64 * _EPS * max(inputs.shape):
        raise ValueError(
            f"{needed_by} needs whitened inputs (X^T X = I), but X^T X differs from I by {deviation:.3g}; whiten them "
            "first, for example with inputs @ scipy.linalg.inv(scipy.linalg.sqrtm(inputs.T @ inputs))."
        )


def simplex(name: str, value: ArrayLike) -> Float[np.ndarray, "*batch k"]:
    """Return weights on the simplex along the last axis; a sum of K numbers may be off 1 by K eps.

    Examples
    --------
    >>> simplex("weights", [0.5, 0.4])
    Traceback (most recent call last):
    ...
    ValueError: weights must sum to 1, but the sum is off by 0.1; divide by the sum in double precision.
    """
    result = nonnegative(name, value)
    if result.ndim == 0 or result.shape[-1] == 0:
        raise ValueError(f"{name} must hold a weight for each component, but its shape is {result.shape}.")
    off = float(np.abs(result.sum(axis=-1) - 1).max(initial=0.0))
    if off > _EPS * result.shape[-1]:
        raise ValueError(
            f"{name} must sum to 1, but the sum is off by {off:.3g}; divide by the sum in double precision."
        )
    return result


def covariances(name: str, value: ArrayLike) -> Float[np.ndarray, "*batch d d"]:
    """Return matrices that are symmetric and positive semidefinite up to rounding, 64 d eps of the largest entry.

    Examples
    --------
    >>> covariances("cov_u", [[1.0, 0.0], [0.0, -1.0]])
    Traceback (most recent call last):
    ...
    ValueError: cov_u must be positive semidefinite, but has the eigenvalue -1.
    """
    result = array(name, value)
    if result.ndim < 2 or result.shape[-1] != result.shape[-2] or result.shape[-1] == 0:
        raise ValueError(f"{name} must hold square matrices, but its shape is {result.shape}.")
    tolerance = symmetric(name, result)
    smallest = np.linalg.eigvalsh(result)[..., 0]
    if np.any(smallest < -tolerance):
        raise ValueError(f"{name} must be positive semidefinite, but has the eigenvalue {smallest.min():.3g}.")
    return result


def symmetric(name: str, value: Float[np.ndarray, "*batch d d"]) -> Float[np.ndarray, "*batch"]:
    """Refuse matrices that are not symmetric; return what counts as rounding in each, 64 d eps of the largest entry.

    Examples
    --------
    >>> symmetric("hessians", np.array([[1.0, 2.0], [0.0, 1.0]]))
    Traceback (most recent call last):
    ...
    ValueError: hessians must be symmetric, but mirrored entries differ by 2; use (x + x^T) / 2.
    """
    tolerance = 64 * _EPS * value.shape[-1] * np.abs(value).max(axis=(-2, -1))
    skew = np.abs(value - np.swapaxes(value, -1, -2)).max(axis=(-2, -1))
    if np.any(skew > tolerance):
        raise ValueError(
            f"{name} must be symmetric, but mirrored entries differ by {skew.max():.3g}; use (x + x^T) / 2."
        )
    return np.asarray(tolerance)
