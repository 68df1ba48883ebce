"""Argument checks shared by every package: bad input is refused before any work, in a sentence.

Each function returns the checked value in the form the mathematics needs (float64 arrays, Python floats), so a caller
writes ``c = matrix("c", c)`` once and works with ``c`` afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

__all__ = [
    "array",
    "broadcast",
    "choice",
    "covariances",
    "function",
    "increasing",
    "instance",
    "integer",
    "matrix",
    "names",
    "nonnegative",
    "plain",
    "positive",
    "representable",
    "same_length",
    "simplex",
    "symmetric",
    "times",
    "told_apart",
    "whitened",
]

T = TypeVar("T")

_EPS = float(np.finfo(float).eps)


def array(name: str, value: object, *, ndim: int | None = None) -> Float[np.ndarray, "..."]:
    """Return `value` as a finite float64 array, optionally of `ndim` dimensions.

    Raises
    ------
    TypeError
        If `value` is not numeric and real.
    ValueError
        If an entry is NaN, infinite or masked, rows differ in length, or the number of dimensions is not `ndim`.

    Examples
    --------
    >>> array("s", [3, 1])
    array([3., 1.])
    >>> array("s", [3, float("nan")])
    Traceback (most recent call last):
    ...
    ValueError: s holds a non-finite value (nan at index (1,)); remove or impute it first.
    """
    result = plain(name, value)
    if result.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of real numbers, but its dtype is {result.dtype}.")
    with np.errstate(over="ignore"):  # what overflows here is refused below as infinite
        result = result.astype(np.float64, copy=False)
    if ndim is not None and result.ndim != ndim:
        remedy = "; reshape(-1, 1) makes a column of it" if (ndim, result.ndim) == (2, 1) else ""
        raise ValueError(f"{name} must have {ndim} dimension(s), but its shape is {result.shape}{remedy}.")
    bad = ~np.isfinite(result)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} holds a non-finite value ({result[where]} at index {where}); remove or impute it first."
        )
    return result


def plain(name: str, value: object) -> np.ndarray:
    """Return `value` as a numpy array of its own dtype, refusing masked entries and rows of different lengths.

    What lies under a mask is not data. numpy hands it out all the same, from a masked array as from a list of them.

    Examples
    --------
    >>> plain("losses", np.ma.masked_equal([1.0, -999.0], -999.0))
    Traceback (most recent call last):
    ...
    ValueError: losses holds a masked entry (at index (1,)); remove or impute it first.
    """
    if (where := _masked_index(value)) is not None:
        raise ValueError(f"{name} holds a masked entry (at index {where}); remove or impute it first.")
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} must be a rectangular array, but its rows have different lengths or shapes."
        ) from None
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} must be an array of numbers, but {type(value).__name__} was given: {error}.") from None


def _masked_index(value: object) -> tuple[int, ...] | None:
    """Return where the first masked entry of an array, or of a nested list of arrays, lies."""
    if isinstance(value, np.ma.MaskedArray):
        masked = np.argwhere(np.ma.getmaskarray(value))
        return tuple(int(i) for i in masked[0]) if len(masked) else None
    if isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            if not isinstance(entry, (float, int)) and (inner := _masked_index(entry)) is not None:
                return (i, *inner)
    return None


def representable(name: str, value: Any) -> Any:
    """Return a computed `value`, refusing what left the range of doubles on the way.

    Examples
    --------
    >>> representable("Y^T X", np.array([np.inf]))
    Traceback (most recent call last):
    ...
    ValueError: Y^T X leaves the range of doubles (1e308); rescale what it is computed from.
    """
    if not np.isfinite(value).all():
        raise ValueError(f"{name} leaves the range of doubles (1e308); rescale what it is computed from.")
    return value


def broadcast(**arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the named arrays broadcast against each other.

    Examples
    --------
    >>> broadcast(t=np.zeros(3), s=np.zeros(2))
    Traceback (most recent call last):
    ...
    ValueError: t (3,), s (2,) do not broadcast: their shapes must agree from the last axis on, or be 1 there.
    """
    try:
        return tuple(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        listing = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
        raise ValueError(
            f"{listing} do not broadcast: their shapes must agree from the last axis on, or be 1 there."
        ) from None


def told_apart(*values: float) -> tuple[str, ...]:
    """Return numbers in the fewest digits, six at least, in which those that differ look different.

    Examples
    --------
    >>> told_apart(0.25, 0.25 + 1e-12)
    ('0.25', '0.250000000001')
    """
    for digits in range(6, 18):
        printed = tuple(f"{value:.{digits}g}" for value in values)
        if len(set(printed)) == len(set(values)):
            break
    return printed


def instance(name: str, value: object, kind: type[T] | tuple[type[T], ...], *, made_by: str) -> T:
    """Return `value` if it is a `kind`, or one of several, which is `made_by` what the sentence tells.

    Examples
    --------
    >>> instance("law", 3.0, dict, made_by="dict()")
    Traceback (most recent call last):
    ...
    TypeError: law must be a dict, made by dict(), but float was given.
    """
    if not isinstance(value, kind):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise TypeError(f"{name} must be a {kinds}, made by {made_by}, but {type(value).__name__} was given.")
    return value


def function(name: str, value: object) -> Callable[..., Any]:
    """Return `value` if it can be called.

    Examples
    --------
    >>> function("losses", 3.0)
    Traceback (most recent call last):
    ...
    TypeError: losses must be a function, but float was given.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function, but {type(value).__name__} was given.")
    return value


def names(name: str, value: object) -> tuple[str, ...]:
    """Return sample names as a tuple; a single string is refused, for it would be taken letter by letter.

    Examples
    --------
    >>> names("sources", "dog")
    Traceback (most recent call last):
    ...
    TypeError: sources must be a list of names, but the string 'dog' was given; write ['dog'].
    """
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a list of names, but the string {value!r} was given; write [{value!r}].")
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of names, but {type(value).__name__} was given.")
    found = plain(name, list(value))
    if found.ndim != 1 or (found.size and found.dtype.kind != "U"):
        raise TypeError(f"{name} must be a list of names, but it is an array of {found.dtype} of shape {found.shape}.")
    return tuple(str(entry) for entry in found)


def matrix(
    name: str, value: object, shape: tuple[int | None, int | None] = (None, None)
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


def nonnegative_number(name: str, value: object) -> float:
    """Return the finite scalar `value` as a float, refusing negative numbers.

    Examples
    --------
    >>> nonnegative_number("localization", [1.0])
    Traceback (most recent call last):
    ...
    ValueError: localization must have 0 dimension(s), but its shape is (1,).
    """
    return float(nonnegative(name, array(name, value, ndim=0)))


def share(name: str, value: object, *, below_one: bool = False) -> float:
    """Return the scalar `value` as a float, refusing what lies outside [0, 1], or [0, 1).

    Examples
    --------
    >>> share("decay", 1.0, below_one=True)
    Traceback (most recent call last):
    ...
    ValueError: decay must be in [0, 1), but 1.0 was given.
    """
    result = float(array(name, value, ndim=0))
    if not 0 <= result <= 1 or (below_one and result == 1):
        raise ValueError(f"{name} must be in [0, 1{')' if below_one else ']'}, but {result} was given.")
    return result


def nonnegative(name: str, value: object) -> Float[np.ndarray, "..."]:
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


def times(name: str, value: object, *, allow_infinite: bool = False) -> Float[np.ndarray, "..."]:
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
    result = plain(name, value)
    if allow_infinite and result.dtype.kind == "f":
        nonnegative(name, np.where(np.isposinf(result), 0.0, result))
        return result.astype(np.float64, copy=False)
    return nonnegative(name, result)


def increasing(name: str, value: object) -> Float[np.ndarray, " t"]:
    """Return times as a list that increases from each to the next and is not empty.

    Examples
    --------
    >>> increasing("epochs", [0, 5, 5])
    Traceback (most recent call last):
    ...
    ValueError: epochs must be an increasing list of times.
    """
    result = times(name, value)
    if result.ndim != 1 or np.any(np.diff(result) <= 0):
        raise ValueError(f"{name} must be an increasing list of times.")
    if result.size == 0:
        raise ValueError(f"{name} is empty; give at least one time.")
    return result


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
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(map(repr, options))}, but {type(value).__name__} was given.")
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
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = float(np.abs(inputs.T @ inputs - np.eye(inputs.shape[1])).max())
    if not deviation <= 64 * _EPS * max(inputs.shape):
        raise ValueError(
            f"{needed_by} needs whitened inputs (X^T X = I), but X^T X differs from I by {deviation:.3g}; whiten them "
            "first, for example with inputs @ scipy.linalg.inv(scipy.linalg.sqrtm(inputs.T @ inputs))."
        )


def simplex(name: str, value: object) -> Float[np.ndarray, "*batch k"]:
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


def covariances(name: str, value: object) -> Float[np.ndarray, "*batch d d"]:
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
