"""Singular modes of a matrix where values may be degenerate or zero: equal up to rounding is made exactly equal."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks

__all__ = ["augmented_eigenbasis", "degenerate_blocks", "singular_modes"]


def degenerate_blocks(s: ArrayLike, *, tolerance: float) -> list[slice]:
    """Split descending singular values into runs whose neighbours differ by at most `tolerance` times the largest.

    Examples
    --------
    >>> degenerate_blocks([3.0, 1.0, 1.0 - 1e-15], tolerance=1e-12)
    [slice(0, 1, None), slice(1, 3, None)]
    """
    s = checks.nonnegative("s", checks.array("s", s, ndim=1))
    if np.any(np.diff(s) > 0):
        raise ValueError(f"singular values must be in descending order, but they are {s}.")
    if s.size == 0:
        return []
    starts = np.flatnonzero(np.diff(s, prepend=np.inf) < -_tolerance(tolerance) * s[0])
    return [slice(int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(s)], strict=True)]


def _tolerance(value: float) -> float:
    return float(checks.nonnegative("tolerance", checks.array("tolerance", value, ndim=0)))


def singular_modes(
    syx: Float[np.ndarray, "o p"],
) -> tuple[Float[np.ndarray, "o r"], Float[np.ndarray, " r"], Float[np.ndarray, "p r"]]:
    """Return U, s, V of the modes with positive singular value, values equal up to rounding made exactly equal."""
    u, s, vt = np.linalg.svd(syx, full_matrices=False)
    tolerance = 8 * np.finfo(float).eps * max(syx.shape)
    rank = int(np.sum(s > tolerance * s[0]))
    if rank == 0:
        raise ValueError("syx is zero, so there is no mode to learn.")
    u, s, v = u[:, :rank], s[:rank], vt[:rank].T.copy()
    for block in degenerate_blocks(s, tolerance=tolerance):
        s[block] = s[block].mean()
    return u, s, v


def augmented_eigenbasis(
    c: Float[np.ndarray, "o p"], tolerance: float | None = None
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
    """Return eigenvalues, descending, and eigenvectors (v; u) of [[0, C^T], [C, 0]], n = P + O.

    Singular values whose neighbours differ by at most `tolerance` times the largest are made exactly equal, and those
    below 8 eps max(O, P) of it exactly zero.

    Examples
    --------
    >>> augmented_eigenbasis(np.diag([3.0, 1.0]))[0]
    array([ 3.,  1., -1., -3.])
    """
    u, s, vt = np.linalg.svd(c, full_matrices=True)
    rounding = 8 * np.finfo(float).eps * max(c.shape)
    relative = rounding if tolerance is None else max(rounding, _tolerance(tolerance))
    rank = int(np.sum(s > rounding * s[0]))
    s, v = s[:rank], vt.T
    for block in degenerate_blocks(s, tolerance=relative):
        s[block] = s[block].mean()
    grown = np.vstack([v[:, :rank], u[:, :rank]]) / np.sqrt(2)
    shrunk = np.vstack([v[:, :rank], -u[:, :rank]]) / np.sqrt(2)
    still_v = np.vstack([v[:, rank:], np.zeros((len(u), v.shape[1] - rank))])
    still_u = np.vstack([np.zeros((len(v), u.shape[1] - rank)), u[:, rank:]])
    still = np.zeros(still_v.shape[1] + still_u.shape[1])
    return np.concatenate([s, still, -s[::-1]]), np.hstack([grown, still_v, still_u, shrunk[:, ::-1]])
