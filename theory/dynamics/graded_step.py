r"""A step of any length of the modal flow, where the rows to be orthogonalised differ by any power of e.

With the rows :math:`M_k = P_{kk}^{1/2} A_k` and :math:`[M; I] = Q R`, orthonormal columns in Q,

.. math:: A(t + dt) = e^{\Lambda dt} A R^{-1} = e^{\Lambda dt} P^{-1/2} Q_M , \qquad
    e^{2 \lambda dt} / P = \frac{2 \lambda}{1 - e^{-2 \lambda dt}} ,

up to a rotation of the hidden units. Nothing on the right grows, but the rows of M do, like e^{lambda dt}: they are
kept with the logarithms of their sizes, and Householder's reflections with pivoting of rows and columns leave in each
row an error relative to that row (Cox and Higham 1998). So a small overlap keeps its digits beside one e^{1000} times
as large.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import exprel

__all__ = ["long_step"]

_EPS = float(np.finfo(float).eps)


def long_step(
    rows: Float[np.ndarray, "n k"], eigenvalues: Float[np.ndarray, " n"], dt: float, *, parallel: bool
) -> Float[np.ndarray, "n k"]:
    """Return the rows after the time `dt`.

    With `parallel` the hidden units are turned as the symmetric root (I + A^T P A)^{-1/2} turns them, else arbitrarily.

    Examples
    --------
    >>> long_step(np.array([[1e-9]]), np.array([2.0]), 1e6, parallel=True).round(12)
    array([[2.]])
    """
    k = rows.shape[1]
    passed = dt * exprel(-2 * np.abs(eigenvalues) * dt)  # P without its growth
    sizes = np.abs(rows).max(axis=1)
    moving = np.flatnonzero(sizes > 0)
    top = max(float(eigenvalues[moving].max(initial=0.0)), 0.0)
    logs = (np.maximum(eigenvalues[moving], 0.0) - top) * dt + np.log(passed[moving]) / 2 + np.log(sizes[moving])
    scaled = np.vstack([rows[moving] / sizes[moving, None], np.eye(k)])
    factor, triangle, triangle_logs, order = _graded_qr(scaled, np.concatenate([logs, np.full(k, -top * dt)]))
    factor = factor[: len(moving)]
    if parallel:
        factor = (factor @ _polar_factor(triangle, triangle_logs))[:, np.argsort(order)]
    result = np.zeros_like(rows)
    result[moving] = (np.exp(np.minimum(eigenvalues, 0.0) * dt) / np.sqrt(passed))[moving, None] * factor
    return result


def _graded_qr(
    rows: Float[np.ndarray, "m k"], logs: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "k k"], Float[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Return Q, R, the logarithms of the sizes of R's rows, and the order of the columns, of rows e^{logs} `rows`."""
    b, logs = rows.copy(), logs.copy()
    m, k = b.shape
    place, order = np.arange(m), np.arange(k)
    triangle, triangle_logs = np.zeros((k, k)), np.empty(k)
    reflectors, factors = np.zeros((m, k)), np.empty(k)
    for j in range(k):
        rest = b[j:, j:]
        largest = np.abs(rest).max(axis=1)
        with np.errstate(divide="ignore"):
            level = logs[j:] + np.log(largest)
        top = level.max()
        relative = rest * (np.exp(level - top) / np.where(largest > 0, largest, 1.0))[:, None]
        column = j + int(np.argmax(np.square(relative).sum(axis=0)))
        row = j + int(np.argmax(np.abs(relative[:, column - j])))
        relative[:, [0, column - j]] = relative[:, [column - j, 0]]
        relative[[0, row - j]] = relative[[row - j, 0]]
        for array in (b.T, order, triangle.T):
            array[[j, column]] = array[[column, j]]
        for array in (b, logs, place, reflectors):
            array[[j, row]] = array[[row, j]]
        v = relative[:, 0].copy()
        size = np.linalg.norm(v)
        v[0] += np.copysign(size, v[0])
        reflectors[j:, j], factors[j] = v, 2 / (v @ v)
        along = factors[j] * (v @ relative)
        triangle[j, j:] = relative[0] - v[0] * along
        triangle_logs[j] = top
        b[j + 1 :, j + 1 :] -= b[j + 1 :, j : j + 1] * along[1:]
        b[j + 1 :, j] = 0.0
    q = np.eye(m, k)
    for j in reversed(range(k)):
        v = reflectors[j:, j]
        q[j:, j:] -= np.outer(factors[j] * v, v @ q[j:, j:])
    result = np.empty_like(q)
    result[place] = q
    return result, triangle, triangle_logs, order


def _polar_factor(triangle: Float[np.ndarray, "k k"], logs: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k k"]:
    """Return the orthogonal U of R = U H, H = (R^T R)^{1/2}, by Jacobi rotations of R's rows e^{logs} `triangle`.

    One-sided rotations find the small singular vectors of graded rows to all their digits (Demmel and Veselic 1992).
    """
    rows, logs, turn = triangle.copy(), logs.copy(), np.eye(len(triangle))
    for _ in range(60):
        sizes = np.linalg.norm(rows, axis=1)
        rows, logs = rows / sizes[:, None], logs + np.log(sizes)
        overlaps = np.abs(np.tril(rows @ rows.T, -1))
        if overlaps.max(initial=0.0) <= 4 * _EPS * len(rows):
            break
        for j, i in np.argwhere(overlaps > _EPS):
            if logs[j] > logs[i]:
                i, j = j, i
            ratio = np.exp(logs[j] - logs[i])
            large, small, shared = rows[i] @ rows[i], rows[j] @ rows[j] * ratio**2, rows[i] @ rows[j]
            if abs(shared) <= _EPS:  # an earlier turn of this round has seen to it
                continue
            tangent = 2 * shared / (large - small + np.hypot(large - small, 2 * shared * ratio))  # over the ratio
            cosine = 1 / np.hypot(1.0, tangent * ratio)
            rows[[i, j]] = cosine * (rows[i] + tangent * ratio**2 * rows[j]), cosine * (rows[j] - tangent * rows[i])
            turn[:, [i, j]] = turn[:, [i, j]] @ (cosine * np.array([[1, -tangent * ratio], [tangent * ratio, 1]]))
    return turn @ rows
