r"""Exact training of a two-layer linear network from lambda-balanced initial weights, of any shape.

With whitened inputs and layers that satisfy :math:`W_2^T W_2 - W_1 W_1^T = \lambda I`, which training preserves,
:math:`Q = [W_1^T; W_2]` and
:math:`F = [[-\tfrac{\lambda}{2} I, \Sigma_{yx}^T], [\Sigma_{yx}, \tfrac{\lambda}{2} I]]`, the gradient flow is
:math:`\tau \dot Q = F Q - Q Q^T Q / 2`, whose solution (Fukumizu 1998; Braun et al. 2022; for square layers with
lambda not 0, Dominé et al. 2025) is

.. math::
    Q Q^T(t) = e^{F t/\tau} Q_0 \,(I + Q_0^T P(t) Q_0)^{-1} Q_0^T e^{F t/\tau}, \qquad
    P(t) = \int_0^t e^{2 F u/\tau} \frac{du}{\tau} .

Evaluated as printed this loses every digit after a few tau, because exponentials of order e^{2 s t/tau} cancel;
`theory.dynamics.modal_flow` composes it of steps in factor form, and `theory.dynamics.network_flow` decides whether it
holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks
from theory.dynamics.network_flow import NetworkFlow

__all__ = ["LinearNetworkRun", "linear_network_factors", "linear_network_run", "linear_network_solution"]


@dataclass(frozen=True, eq=False)
class LinearNetworkRun:
    """Maps of a two-layer linear network along its gradient flow, how they were found, and how far to trust them.

    Parameters
    ----------
    maps
        W(t), shape (*t.shape, O, P).
    method
        "exact matrix solution" or "gradient flow, DOP853 at 1e-10"; the latter also where the two are mixed.
    imbalance
        Norm of W_2^T W_2 - W_1 W_1^T - lambda I over the largest singular value of the target; 0 if it is rounding.
    errors
        Error of each map in the Frobenius norm, shape t.shape. For the matrix solution that of the imbalance, which it
        leaves out: its distance to the integrated flow, and 0 without one; nan where that was not integrated, after
        5000 tau / s_max, and at infinite times. For an integrated flow 1e-9 of the map.
    """

    maps: Float[np.ndarray, "*t o p"]
    method: str
    imbalance: float
    errors: Float[np.ndarray, "*t"]


def linear_network_solution(
    w1: ArrayLike, w2: ArrayLike, syx: ArrayLike, t: ArrayLike, tau: float
) -> Float[np.ndarray, "*t o p"]:
    """Return the end-to-end maps W(t) = W_2 W_1 of the gradient flow with whitened inputs.

    Parameters
    ----------
    w1, w2
        Initial weights, shapes (h, P) and (O, h). The solution is exact if they are lambda-balanced,
        B = W_2^T W_2 - W_1 W_1^T = lambda I for any lambda (0: balanced); lambda is read off them as tr B / h. A rest
        B - lambda I of up to 1e-4 of the largest singular value s_max is left out, with a relative error of order
        |B - lambda I| / s_max: 1e-7 for balanced weights that passed through float32, h sigma^2 for random ones of
        size sigma. From 3e-4 on the flow is integrated; in between the two are mixed, so that the answer is continuous
        in the weights. `linear_network_run` says which, and measures the error.
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
        If shapes do not fit, an entry is not finite, a time is negative, tau is not positive, or an infinite time is
        asked for from unbalanced layers whose limit depends on the path.

    Notes
    -----
    Every best map of rank below the target's is a saddle. Weights that lie exactly on the stable manifold of one, such
    as W_1 = W_2 = 0, a mode with zero overlap, or opposed layers W_2 = -W_1^T, run into it and stay: a mode without
    overlap never grows, and the limit at infinite time is the saddle's map. An overlap of relative size eps, which
    rounding of generic coordinates leaves, grows by e^{s t/tau} as any other does, so that such a run leaves the saddle
    at about t = 36 tau / s, as gradient descent in double precision would. Near a saddle a small overlap is resolved
    relative to itself: how long the plateau lasts is as accurate as the overlap given.

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
    return _maps(NetworkFlow(w1, w2, syx, tau), t)


def linear_network_run(w1: ArrayLike, w2: ArrayLike, syx: ArrayLike, t: ArrayLike, tau: float) -> LinearNetworkRun:
    """Return what `linear_network_solution` does, with the method, the imbalance of the weights and an error estimate.

    Parameters
    ----------
    w1, w2, syx, t, tau
        As for `linear_network_solution`.

    Examples
    --------
    >>> printed = np.array([[0.333333, 0.0], [0.0, 0.25]])
    >>> run = linear_network_run(printed, np.diag([1 / 3, 0.25]), np.diag([3.0, 1.0]), [1.0], tau=1.0)
    >>> run.method, bool(run.errors[0] < 1e-6)
    ('exact matrix solution', True)
    >>> linear_network_run(np.diag([2.0, 0.1]), np.eye(2), np.diag([3.0, 1.0]), [1.0], tau=1.0).method
    'gradient flow, DOP853 at 1e-10'
    """
    t = checks.times("t", t, allow_infinite=True)
    flow = NetworkFlow(w1, w2, syx, tau)
    distinct, position = np.unique(t, return_inverse=True)
    errors = np.full(len(distinct), np.nan)
    finite = distinct[np.isfinite(distinct)]
    errors[: len(finite)] = flow.errors_at(finite)
    return LinearNetworkRun(_maps(flow, t), flow.method, flow.imbalance, np.asarray(errors[position.reshape(t.shape)]))


def _maps(flow: NetworkFlow, t: Float[np.ndarray, "*t"]) -> Float[np.ndarray, "*t o p"]:
    distinct, position = np.unique(t, return_inverse=True)
    finite = distinct[np.isfinite(distinct)]
    maps = np.empty((len(distinct), *flow.shape))
    for piece, some in flow.maps_at(finite):
        maps[piece] = some
    if len(finite) < len(distinct):
        maps[-1] = flow.limit()
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
    distinct, position = np.unique(t, return_inverse=True)
    flow = NetworkFlow(w1, w2, syx, tau)
    first = np.empty((len(distinct), flow.hidden, flow.shape[1]))
    second = np.empty((len(distinct), flow.shape[0], flow.hidden))
    for piece, some, others in flow.factors_at(distinct):
        first[piece], second[piece] = some, others
    position = position.reshape(t.shape)
    return first[position], second[position]
