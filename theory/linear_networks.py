r"""Exact training of a two-layer linear network from lambda-balanced initial weights, of any shape.

With whitened inputs and layers that satisfy :math:`W_2^T W_2 - W_1 W_1^T = \lambda I`, which training preserves,
:math:`Q = [W_1^T; W_2]` and
:math:`F = [[-\tfrac{\lambda}{2} I, \Sigma_{yx}^T], [\Sigma_{yx}, \tfrac{\lambda}{2} I]]`, the gradient flow is
:math:`\tau \dot Q = F Q - Q Q^T Q / 2`, whose solution (Fukumizu 1998; Braun et al. 2022; for square layers with
lambda not 0, Dominé et al. 2025) is

.. math::
    Q Q^T(t) = e^{F t/\tau} Q_0 \,(I + Q_0^T P(t) Q_0)^{-1} Q_0^T e^{F t/\tau}, \qquad
    P(t) = \int_0^t e^{2 F u/\tau} \frac{du}{\tau} .

Evaluated as printed this loses every digit after a few tau, because exponentials of order e^{2 s t/tau} cancel. Here
the flow is composed of short steps in factor form, in the eigenbasis of F: row k of A = E^T Q grows by
e^{lambda_k dt/tau}, and all rows share the factor (I + A^T P A)^{-1/2}. A mode without any overlap stays at zero,
a bottleneck (fewer hidden units than modes) never inverts a singular matrix, and nothing overflows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import exprel

from theory import checks
from theory.saxe import degenerate_blocks
from theory.svd_response import augmented_eigenbasis

__all__ = ["linear_network_factors", "linear_network_solution"]

# Growth e^{s dt/tau} of the fastest mode in one step. The product Q Q^T is exact for any step; the hidden layer's
# rotation, which it does not see, is second order in the step.
LONGEST_STEP = 0.5


def linear_network_solution(
    w1: ArrayLike, w2: ArrayLike, syx: ArrayLike, t: ArrayLike, tau: float
) -> Float[np.ndarray, "*t o p"]:
    """Return the end-to-end maps W(t) = W_2 W_1 of the gradient flow with whitened inputs.

    Parameters
    ----------
    w1, w2
        Initial weights, shapes (h, P) and (O, h). The solution is exact if they are lambda-balanced,
        W_2^T W_2 - W_1 W_1^T = lambda I for any lambda (0: balanced); lambda is read off them. Layers that are not
        count as balanced, with a relative error of order |W_2^T W_2 - W_1 W_1^T| / s_max: h sigma^2 for random weights
        of size sigma.
    syx
        Input-output correlation Y^T X, shape (O, P), of any rank; zero singular values and h below the rank are
        allowed.
    t
        Times in epochs of any shape, >= 0, in any order; infinity gives the limit.
    tau
        Time constant in epochs, see `time_constant`.

    Returns
    -------
    numpy.ndarray
        W(t), shape (*t.shape, O, P).

    Raises
    ------
    ValueError
        If shapes do not fit, an entry is not finite, a time is negative, tau is not positive, or the layers are
        neither lambda-balanced nor nearly balanced (imbalance above a tenth of the largest singular value).

    Examples
    --------
    >>> w = np.eye(2) * 0.1
    >>> linear_network_solution(w, w, np.diag([3.0, 1.0]), [0, np.inf], tau=100.0).round(2)
    array([[[0.01, 0.  ],
            [0.  , 0.01]],
    <BLANKLINE>
           [[3.  , 0.  ],
            [0.  , 1.  ]]])
    """
    t = checks.times("t", t, allow_infinite=True)
    flow = _ModalFlow(w1, w2, syx, tau)
    distinct, position = np.unique(t, return_inverse=True)
    finite = distinct[np.isfinite(distinct)]
    maps = flow.maps_at(finite)
    if len(finite) < len(distinct):
        maps = np.concatenate([maps, flow.limit()[None]])
    return maps[position.reshape(t.shape)]


def linear_network_factors(
    w1: ArrayLike, w2: ArrayLike, syx: ArrayLike, t: ArrayLike, tau: float
) -> tuple[Float[np.ndarray, "*t h p"], Float[np.ndarray, "*t o h"]]:
    """Return both layers W_1(t) and W_2(t) of the flow that `linear_network_solution` solves.

    Parameters
    ----------
    w1, w2, syx, tau
        As for `linear_network_solution`.
    t
        Finite times in epochs of any shape, >= 0.

    Returns
    -------
    tuple of numpy.ndarray
        Shapes (*t.shape, h, P) and (*t.shape, O, h). Products of layers are exact; the rotation of the hidden layer,
        common to both, is accurate to second order in steps of tau / (2 s_max).

    Examples
    --------
    >>> w = np.eye(2) * 0.1
    >>> layer1, layer2 = linear_network_factors(w, w, np.diag([3.0, 1.0]), [0.0, 5000.0], tau=100.0)
    >>> (layer1[1] ** 2).round(6)
    array([[3., 0.],
           [0., 1.]])
    """
    t = checks.times("t", t)
    flow = _ModalFlow(w1, w2, syx, tau)
    distinct, position = np.unique(t, return_inverse=True)
    q = flow.basis @ flow.rows_at(distinct) @ flow.rotation.T
    q = q[position.reshape(t.shape)]
    p = flow.n_inputs
    return np.swapaxes(q[..., :p, :], -1, -2).copy(), q[..., p:, :].copy()


class _ModalFlow:
    """The rows A = E^T Q of a network in the eigenbasis E of F, on the hidden directions that carry weight."""

    def __init__(self, w1: ArrayLike, w2: ArrayLike, syx: ArrayLike, tau: float) -> None:
        syx = checks.matrix("syx", syx)
        first = checks.matrix("w1", w1, (None, syx.shape[1]))
        second = checks.matrix("w2", w2, (syx.shape[0], len(first)))
        self.tau = checks.positive("tau", tau)
        self.n_inputs = syx.shape[1]
        self.eigenvalues, self.basis = _flow_eigenbasis(syx, _lambda_of(first, second, syx))
        q = np.vstack([first.T, second])
        self.rotation = _row_space(q)
        self.start = self.basis.T @ q @ self.rotation

    def maps_at(self, t: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t o p"]:
        """Return W = W_2 W_1 at increasing finite times."""
        p, out = self.n_inputs, np.empty((len(t), len(self.basis) - self.n_inputs, self.n_inputs))
        for times, rows, dt in self._stretches(t):
            grown = np.exp(dt[:, None, None] * self.eigenvalues[:, None]) * rows
            left, right = self.basis[p:] @ grown, self.basis[:p] @ grown
            out[times] = left @ np.linalg.solve(self._saturation(rows, dt), np.swapaxes(right, 1, 2))
        return out

    def rows_at(self, t: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t n k"]:
        """Return A at increasing finite times."""
        out = np.empty((len(t), *self.start.shape))
        for times, rows, dt in self._stretches(t):
            out[times] = self._advanced(rows, dt)
        return out

    def _stretches(
        self, t: Float[np.ndarray, " t"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "n k"], Float[np.ndarray, " m"]]]:
        """Yield the times between two anchors, A at the first anchor, and how far each time lies behind it."""
        fastest = max(float(self.eigenvalues[0]), float(np.square(self.start).sum()), np.finfo(float).tiny)
        span = LONGEST_STEP / fastest
        scaled = t / self.tau
        anchors = np.floor(np.minimum(scaled / span, 2.0**62)).astype(int)
        rows, here, settled = self.start, 0, False
        for anchor in np.unique(anchors):
            for _ in range(0 if settled else int(anchor) - here):
                before, rows = rows, self._advanced(rows, np.array([span]))[0]
                if settled := _same_rows(before, rows):
                    break
            here = int(anchor)
            times = slice(*np.searchsorted(anchors, [anchor, anchor + 1]))
            yield times, rows, np.clip(scaled[times] - anchor * span, 0.0, span)

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
        p = self.n_inputs
        return self.basis[p:] @ gram @ self.basis[:p].T


def _same_rows(before: Float[np.ndarray, "n k"], after: Float[np.ndarray, "n k"]) -> bool:
    """Whether no row changed by more than the rounding of a step; rows whose products underflow do not count.

    The slowest mode that counts as growing, s > 8 eps max(O, P) s_max, changes by a relative 16 eps or more in a step.
    """
    change, size = np.abs(after - before).max(axis=1), np.abs(before).max(axis=1)
    return bool(np.all((change <= 8 * np.finfo(float).eps * size) | (size < 1e-160)))


def _lambda_of(w1: Float[np.ndarray, "h p"], w2: Float[np.ndarray, "o h"], syx: Float[np.ndarray, "o p"]) -> float:
    """Return lambda if W_2^T W_2 - W_1 W_1^T = lambda I up to rounding, and 0 if the difference is small."""
    size = float(np.square(w1).sum() + np.square(w2).sum())
    imbalance = w2.T @ w2 - w1 @ w1.T
    value = float(np.trace(imbalance) / len(w1))
    rounding = 64 * np.finfo(float).eps * size
    if np.abs(imbalance - value * np.eye(len(w1))).max() <= rounding:
        return value if abs(value) > rounding else 0.0
    excess, strongest = (float(np.linalg.norm(m, ord=2)) for m in (imbalance, syx))
    if excess > 0.1 * strongest:
        raise ValueError(
            f"the layers are not lambda-balanced: W_2^T W_2 - W_1 W_1^T has norm {excess:.3g}, more than a tenth of "
            f"the largest singular value {strongest:.3g} of syx, and no closed form is known. Integrate the flow with "
            "numerics.gradient_flow, or start from balanced or small weights."
        )
    return 0.0


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
