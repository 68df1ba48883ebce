r"""The flow of a two-layer linear network from any weights and for any second moment of the inputs, integrated.

.. math:: \tau \dot W_1 = W_2^T E, \qquad \tau \dot W_2 = E W_1^T, \qquad E = \Sigma_{yx} - W_2 W_1 \Sigma_{xx} .

The state is Q = [W_1^T; W_2] on the k <= P + O hidden directions that carry weight; the others never move.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp

from theory.dynamics.singular_modes import singular_modes

__all__ = ["IntegratedFlow"]

TOLERANCE = 1e-10  # relative error of a step
_SETTLED = 1e-10  # distance from the minimum, relative, at which the flow counts as having arrived


class IntegratedFlow:
    """The layers of a network along its gradient flow, by DOP853.

    Parameters
    ----------
    w1, w2, syx, tau
        As for `theory.linear_network_solution`, checked by the caller and of a size near one.
    sxx
        Second moment of the inputs, shape (P, P); the identity if not given.

    Examples
    --------
    >>> flow = IntegratedFlow(np.array([[2.0]]), np.array([[0.1]]), np.array([[3.0]]), 1.0)
    >>> for times, maps in flow.maps_at(np.array([0.0, 50.0])):
    ...     print(times, maps[0, 0].round(6))
    slice(0, 1, None) [0.2]
    slice(1, 2, None) [3.]
    """

    def __init__(
        self,
        w1: Float[np.ndarray, "h p"],
        w2: Float[np.ndarray, "o h"],
        syx: Float[np.ndarray, "o p"],
        tau: float,
        sxx: Float[np.ndarray, "p p"] | None = None,
    ) -> None:
        self.tau, self.shape, self.hidden, self.syx = tau, syx.shape, len(w1), syx
        self._white = sxx is None
        self.sxx = np.eye(syx.shape[1]) if sxx is None else sxx
        self.rotation, start = np.linalg.qr(np.hstack([w1, w2.T]))
        self.start = start.T

    def maps_at(self, t: Float[np.ndarray, " t"]) -> Iterator[tuple[slice, Float[np.ndarray, "m o p"]]]:
        """Yield W = W_2 W_1 at increasing finite times, and which of them."""
        p = self.shape[1]
        for k, q in enumerate(self._states(t)):
            yield slice(k, k + 1), (q[p:] @ q[:p].T)[None]

    def factors_at(
        self, t: Float[np.ndarray, " t"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "m h p"], Float[np.ndarray, "m o h"]]]:
        """Yield W_1 and W_2 at increasing finite times, and which of them."""
        p = self.shape[1]
        for k, state in enumerate(self._states(t)):
            q = state @ self.rotation.T
            yield slice(k, k + 1), q[None, :p].swapaxes(1, 2), q[None, p:]

    def _goal(self) -> Float[np.ndarray, "o p"]:
        """Return W Sxx at the minimum: the target, or its best map of the hidden rank if inputs are white."""
        if self.hidden >= min(self.shape) or not self._white or not np.any(self.syx):
            return self.syx
        u, s, v = singular_modes(self.syx)
        return u[:, : self.hidden] * s[: self.hidden] @ v[:, : self.hidden].T

    def _states(self, t: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t n k"]:
        p, start = self.shape[1], self.start
        scale = max(float(np.linalg.norm(self.syx)), np.finfo(float).tiny)
        goal = self._goal()

        def error(q: np.ndarray) -> np.ndarray:
            return self.syx - q[p:] @ (q[:p].T @ self.sxx)

        def velocity(_: float, state: np.ndarray) -> np.ndarray:
            q = state.reshape(start.shape)
            e = error(q) / self.tau
            return np.concatenate([e.T @ q[p:], e @ q[:p]]).ravel()

        def arrived(_: float, state: np.ndarray) -> float:
            q = state.reshape(start.shape)
            return float(np.linalg.norm(goal - q[p:] @ (q[:p].T @ self.sxx))) - _SETTLED * scale

        arrived.terminal = True  # type: ignore[attr-defined]
        states = np.broadcast_to(start, (len(t), *start.shape)).copy()
        later = t > 0
        if not later.any() or arrived(0.0, start.ravel()) <= 0:
            return states
        solution = solve_ivp(
            velocity,
            (0, t[-1]),
            start.ravel(),
            method="DOP853",
            t_eval=t[later],
            rtol=TOLERANCE,
            atol=1e-3 * TOLERANCE * np.abs(start).max(),
            events=arrived,
        )
        if not solution.success:
            raise ArithmeticError(f"the gradient flow could not be integrated: {solution.message}")
        first = len(t) - int(later.sum())
        reached = first + len(solution.t)
        if len(solution.t):
            states[first:reached] = solution.y.T.reshape(-1, *start.shape)
        if reached < len(t):
            states[reached:] = solution.y_events[0][0].reshape(start.shape)
        return states
