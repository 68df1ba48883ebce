r"""The flow of a two-layer linear network in the eigenbasis of its drive, composed of steps in factor form.

With Q = [W_1^T; W_2] and :math:`F = E \Lambda E^T` of `theory.dynamics.linear_networks`, row k of A = E^T Q grows by
:math:`e^{\lambda_k dt/\tau}` and all rows share one factor,

.. math:: A(t + dt) = e^{\Lambda dt/\tau} A \,(I + A^T P(dt) A)^{-1/2} , \qquad
    P_{kk}(dt) = \frac{e^{2 \lambda_k dt/\tau} - 1}{2 \lambda_k} .

A mode without any overlap stays at zero, a bottleneck (fewer hidden units than modes) never inverts a singular matrix,
and nothing overflows. Where no time is asked for in between, one long step replaces the short ones
(`theory.dynamics.graded_step`), so that a late time costs no more than an early one. Of a block of equal eigenvalues
only the directions that carry weight are kept, of which there are no more than hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import exprel

from theory import checks
from theory.dynamics.graded_step import long_step
from theory.dynamics.singular_modes import augmented_eigenbasis, degenerate_blocks

__all__ = ["ModalFlow", "balance"]

# Growth e^{s dt/tau} of the fastest mode in one step. The product Q Q^T is exact for any step; the hidden layer's
# rotation, which it does not see, is second order in the step.
LONGEST_STEP = 0.5
_CHUNK = 2**21  # entries of W yielded at once: 16 MB
_MANY = 8  # steps that one long one is cheaper than
# |A|^2 dt up to which I + A^T P A may be inverted as it is: its condition, and so the digits that one step costs the
# smallest row, stays below exprel(4) times that, some 900.
_SATURATED = 64.0
_TURNED = 1e-8  # what the hidden rotation may differ by, relative, where a step is doubled


class ModalFlow:
    """The rows A = E^T Q of a network in the eigenbasis E of F, on the hidden directions that carry weight.

    Parameters
    ----------
    w1, w2, syx, tau
        As for `theory.linear_network_solution`, of a size near one.
    lam
        The lambda that the layers are balanced to, read off them if not given; what remains of their imbalance is left
        out.

    Examples
    --------
    >>> flow = ModalFlow(0.1 * np.eye(2), 0.1 * np.eye(2), np.diag([3.0, 1.0]), 100.0)
    >>> for times, maps in flow.maps_at(np.array([0.0, 5000.0])):
    ...     print(times, maps[0].diagonal().round(2))
    slice(0, 1, None) [0.01 0.01]
    slice(1, 2, None) [3. 1.]
    """

    def __init__(self, w1: ArrayLike, w2: ArrayLike, syx: ArrayLike, tau: float, lam: float | None = None) -> None:
        syx = checks.matrix("syx", syx)
        first = checks.matrix("w1", w1, (None, syx.shape[1]))
        second = checks.matrix("w2", w2, (syx.shape[0], len(first)))
        self.tau = checks.positive("tau", tau)
        self.shape, self.hidden = syx.shape, len(first)
        values, basis = _flow_eigenbasis(syx, balance(first, second)[0] if lam is None else lam)
        q = np.vstack([first.T, second])
        self.rotation = _row_space(q)
        self.eigenvalues, self.basis, self.start = _moving_part(values, basis, basis.T @ q @ self.rotation)

    def maps_at(self, t: Float[np.ndarray, " t"]) -> Iterator[tuple[slice, Float[np.ndarray, "m o p"]]]:
        """Yield W = W_2 W_1 at increasing finite times, and which of them."""
        p = self.shape[1]
        for times, rows, dt in self._stretches(t, parallel=False):
            grown = np.exp(dt[:, None, None] * self.eigenvalues[:, None]) * rows
            left, right = self.basis[p:] @ grown, self.basis[:p] @ grown
            yield times, left @ np.linalg.solve(self._saturation(rows, dt), np.swapaxes(right, 1, 2))

    def factors_at(
        self, t: Float[np.ndarray, " t"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "m h p"], Float[np.ndarray, "m o h"]]]:
        """Yield W_1 and W_2 at increasing finite times, and which of them."""
        p = self.shape[1]
        for times, rows, dt in self._stretches(t, parallel=True):
            q = self.basis @ self._advanced(rows, dt) @ self.rotation.T
            yield times, np.swapaxes(q[:, :p], 1, 2), q[:, p:]

    def _stretches(
        self, t: Float[np.ndarray, " t"], *, parallel: bool
    ) -> Iterator[tuple[slice, Float[np.ndarray, "n k"], Float[np.ndarray, " m"]]]:
        """Yield times between two anchors, A at the first anchor, and how far each time lies behind it."""
        fastest = max(float(self.eigenvalues[0]), float(np.square(self.start).sum()), np.finfo(float).tiny)
        span = LONGEST_STEP / fastest
        most = max(1, _CHUNK // (self.shape[0] * self.shape[1]))
        scaled = t / self.tau
        anchors = np.floor(np.minimum(scaled / span, 2.0**62)).astype(int)
        rows, here, settled = self.start, 0, False
        for anchor in np.unique(anchors):
            steps = int(anchor) - here
            if steps and not settled:
                before, rows = rows, self._walked(rows, span, steps, parallel=parallel)
                settled = _same_products(before, rows)
            here = int(anchor)
            begin, end = map(int, np.searchsorted(anchors, [anchor, anchor + 1]))
            for first in range(begin, end, most):
                times = slice(first, min(first + most, end))
                yield times, rows, np.clip(scaled[times] - anchor * span, 0.0, span)

    def _walked(
        self, rows: Float[np.ndarray, "n k"], span: float, steps: int, *, parallel: bool
    ) -> Float[np.ndarray, "n k"]:
        """Return the rows `steps` spans later; with `parallel` by steps that the hidden layer's rotation allows."""
        if not parallel and steps > _MANY:
            return long_step(rows, self.eigenvalues, steps * span, parallel=False)
        left, stride, short = steps, 1, 0
        while left > 0:
            stride = min(stride, left)
            try_double = parallel and left > _MANY and (stride > 1 or short >= _MANY) and left >= 2 * stride
            once = self._step(rows, stride * span)
            if not try_double:
                rows, left, short = once, left - stride, short + 1
                continue
            twice, both = self._step(once, stride * span), self._step(rows, 2 * stride * span)
            rows, left, short = twice, left - 2 * stride, 0
            if np.abs(both - twice).max() <= _TURNED * np.abs(twice).max():
                stride *= 2
            else:
                stride = max(1, stride // 2)
        return rows

    def _step(self, rows: Float[np.ndarray, "n k"], dt: float) -> Float[np.ndarray, "n k"]:
        short = float(self.eigenvalues[0]) * dt <= 4 * LONGEST_STEP
        if short and float(np.square(rows).sum()) * dt <= _SATURATED:
            return self._advanced(rows, np.array([dt]))[0]
        return long_step(rows, self.eigenvalues, dt, parallel=True)

    def _saturation(self, rows: Float[np.ndarray, "n k"], dt: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m k k"]:
        accumulated = dt[:, None] * exprel(2 * self.eigenvalues * dt[:, None])
        return np.eye(rows.shape[1]) + (rows.T * accumulated[:, None]) @ rows

    def _advanced(self, rows: Float[np.ndarray, "n k"], dt: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m n k"]:
        values, vectors = np.linalg.eigh(self._saturation(rows, dt))
        shared = (vectors / np.sqrt(values)[:, None]) @ np.swapaxes(vectors, 1, 2)
        return np.exp(dt[:, None] * self.eigenvalues)[:, :, None] * (rows @ shared)

    def limit(self) -> Float[np.ndarray, "o p"]:
        """Return W at infinite time: the modes that the hidden layer has room for, strongest first.

        The column space of e^{Ft} Q_0 tends to the sum over blocks of equal eigenvalues of what a block's rows map the
        common kernel of all stronger blocks to; on it Q Q^T tends to 2 lambda.
        """
        growing = self.eigenvalues > 0
        gram = np.zeros((len(self.eigenvalues),) * 2)
        free = np.eye(self.rotation.shape[1])
        for block in degenerate_blocks(self.eigenvalues[growing], tolerance=0.0):
            rows = self.start[block]
            columns = _column_space(rows @ free, scale=float(np.abs(rows).max()))
            gram[block, block] = 2 * self.eigenvalues[block.start] * columns @ columns.T
            free = free @ (np.eye(free.shape[1]) - _projector(rows @ free, scale=float(np.abs(rows).max())))
        p = self.shape[1]
        return self.basis[p:] @ gram @ self.basis[:p].T


def balance(w1: Float[np.ndarray, "h p"], w2: Float[np.ndarray, "o h"]) -> tuple[float, tuple[float, float]]:
    """Return lambda = tr B / h of B = W_2^T W_2 - W_1 W_1^T and the extreme eigenvalues of B - lambda I.

    What is rounding of B, 64 eps of the squared weights, counts as zero.

    Examples
    --------
    >>> balance(np.diag([1.0, 1.0]), np.diag([2.0, 1.0]))
    (1.5, (-1.5, 1.5))
    """
    imbalance = w2.T @ w2 - w1 @ w1.T
    lam = float(np.trace(imbalance) / len(w1))
    rest = imbalance - lam * np.eye(len(w1))
    rounding = 64 * np.finfo(float).eps * float(np.square(w1).sum() + np.square(w2).sum())
    lam = lam if abs(lam) > rounding else 0.0
    if np.abs(rest).max() <= rounding:
        return lam, (0.0, 0.0)
    values = np.linalg.eigvalsh(rest)
    return lam, (float(values[0]), float(values[-1]))


def _same_products(before: Float[np.ndarray, "n k"], after: Float[np.ndarray, "n k"]) -> bool:
    """Whether no product of two rows changed by more than the rounding of a step; those that underflow do not count.

    The slowest mode that counts as growing, s > 8 eps max(O, P) s_max, changes by a relative 16 eps or more in a step.
    """
    size = np.linalg.norm(before, axis=1)
    change = np.abs(after @ after.T - before @ before.T)
    return bool(
        np.all((change <= 8 * np.finfo(float).eps * np.outer(size, size)) | (np.minimum.outer(size, size) < 1e-160))
    )


def _flow_eigenbasis(
    syx: Float[np.ndarray, "o p"], lam: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
    """Return the eigenvalues of F, descending: +-(s^2 + lambda^2 / 4)^(1/2) and +-lambda / 2, and its eigenvectors."""
    values, basis = augmented_eigenbasis(syx)
    if lam == 0:
        return values, basis
    o, p = syx.shape
    s = values[values > 0]
    r = len(s)
    v, u = np.sqrt(2) * basis[:p, :r], np.sqrt(2) * basis[p:, :r]
    root = np.hypot(s, lam / 2)
    # (cos, sin) of the growing direction (v, u), from whichever of the two forms does not cancel.
    pair = np.stack([s, root + lam / 2] if lam > 0 else [root - lam / 2, s])
    cosine, sine = pair / np.linalg.norm(pair, axis=0)
    still = np.concatenate([np.full(p - r, -lam / 2), np.full(o - r, lam / 2)])
    values = np.concatenate([root, still, -root])
    grown, shrunk = np.vstack([v * cosine, u * sine]), np.vstack([-v * sine, u * cosine])
    basis = np.hstack([grown, basis[:, r : p + o - r], shrunk])
    order = np.argsort(-values, kind="stable")
    return values[order], basis[:, order]


def _moving_part(
    values: Float[np.ndarray, " n"], basis: Float[np.ndarray, "n n"], rows: Float[np.ndarray, "n k"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "n m"], Float[np.ndarray, "m k"]]:
    """Return eigenvalues, basis and rows A without the directions that carry no weight.

    A block of equal eigenvalues has at most k directions that do, k the hidden ones: those its rows span. The rows of
    the others are zero, and stay zero.
    """
    kept_values, kept_basis, kept_rows = [], [], []
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1), len(values)]
    for block in (slice(*ends) for ends in pairwise(edges)):
        columns, own = basis[:, block], rows[block]
        if own.shape[0] > own.shape[1]:
            directions, own = np.linalg.qr(own)
            columns = columns @ directions
        kept_values.append(values[block][: len(own)])
        kept_basis.append(columns)
        kept_rows.append(own)
    return np.concatenate(kept_values), np.hstack(kept_basis), np.vstack(kept_rows)


def _row_space(q: Float[np.ndarray, "n h"]) -> Float[np.ndarray, "h k"]:
    """Return an orthonormal basis of the hidden directions that carry weight; the others never move."""
    _, s, vt = np.linalg.svd(q, full_matrices=False)
    rank = max(1, int(np.sum(s > np.finfo(float).eps * max(q.shape) * s[0])))
    return vt[:rank].T


def _column_space(block: Float[np.ndarray, "m k"], *, scale: float) -> Float[np.ndarray, "m r"]:
    u, s, _ = np.linalg.svd(block, full_matrices=False)
    return u[:, s > 64 * np.finfo(float).eps * max(block.shape) * scale]


def _projector(block: Float[np.ndarray, "m k"], *, scale: float) -> Float[np.ndarray, "k k"]:
    rows = _column_space(block.T, scale=scale)
    return rows @ rows.T
