r"""The flow of a two-layer linear network from any weights: in closed form if nearly lambda-balanced, else integrated.

Training preserves :math:`B = W_2^T W_2 - W_1 W_1^T`. The closed form solves the flow of layers with
:math:`B = \lambda I`. With :math:`\lambda = \mathrm{tr} B / h` it leaves out the rest, :math:`\Delta = B - \lambda I`,
to first order: in the eigenbasis of :math:`\Delta` hidden unit b has a lambda of its own,
:math:`\lambda + \delta_b`, so that solutions with the largest and the smallest of these show how much it matters.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks
from theory.arithmetic import product
from theory.dynamics.integrated_flow import IntegratedFlow
from theory.dynamics.modal_flow import ModalFlow, balance
from theory.dynamics.singular_modes import degenerate_blocks, singular_modes

__all__ = ["EXACT", "INTEGRATED", "MOST_IMBALANCE", "NetworkFlow"]

EXACT, INTEGRATED = "exact matrix solution", "gradient flow, DOP853 at 1e-10"
MOST_IMBALANCE = 0.01  # of the largest singular value, up to which layers count as nearly lambda-balanced


class NetworkFlow:
    """Layers and maps along the gradient flow, checked and scaled, by the method that their balance allows.

    Parameters
    ----------
    w1, w2, syx, tau
        As for `theory.linear_network_solution`.
    sxx
        Second moment of the inputs, for which there is no closed form; the identity if not given.

    Examples
    --------
    >>> flow = NetworkFlow([[2.0]], [[0.1]], [[3.0]], 1.0)
    >>> flow.method, flow.imbalance
    ('exact matrix solution', 0.0)
    >>> NetworkFlow(np.diag([2.0, 0.1]), np.eye(2), np.eye(2), 1.0).method
    'gradient flow, DOP853 at 1e-10'
    """

    def __init__(
        self, w1: ArrayLike, w2: ArrayLike, syx: ArrayLike, tau: float, sxx: Float[np.ndarray, "p p"] | None = None
    ) -> None:
        syx = checks.matrix("syx", syx)
        first = checks.matrix("w1", w1, (None, syx.shape[1]))
        second = checks.matrix("w2", w2, (syx.shape[0], len(first)))
        self.tau, self.shape, self.hidden = checks.positive("tau", tau), syx.shape, len(first)
        # Weights in units of 2^e, maps in units of 4^e: exact, and no square leaves the range.
        largest = max(np.sqrt(np.abs(syx).max()), np.abs(first).max(), np.abs(second).max())
        self._unit = float(np.ldexp(1.0, int(np.frexp(largest)[1])))
        first, second, syx = first / self._unit, second / self._unit, syx / self._unit / self._unit
        lam, spread = balance(first, second)
        strongest = float(np.linalg.norm(syx, ord=2))
        with np.errstate(divide="ignore", invalid="ignore"):
            self.imbalance = float(np.abs(spread).max() / strongest) if np.any(spread) else 0.0
        self._scaled, self._spread, self._lambda = (first, second, syx), spread, lam
        self._flow: ModalFlow | IntegratedFlow
        if sxx is None and self.imbalance <= MOST_IMBALANCE:
            self._flow, self.method = ModalFlow(first, second, syx, 1.0, lam), EXACT
        else:
            self._flow, self.method = IntegratedFlow(first, second, syx, 1.0, sxx), INTEGRATED

    def maps_at(self, t: Float[np.ndarray, " t"]) -> Iterator[tuple[slice, Float[np.ndarray, "m o p"]]]:
        """Yield W = W_2 W_1 at increasing finite times, and which of them."""
        for piece, maps in self._flow.maps_at(self._clock(t)):
            yield piece, self._maps(maps)

    def factors_at(
        self, t: Float[np.ndarray, " t"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "m h p"], Float[np.ndarray, "m o h"]]]:
        """Yield W_1 and W_2 at increasing finite times, and which of them."""
        for piece, first, second in self._flow.factors_at(self._clock(t)):
            yield piece, first * self._unit, second * self._unit

    def errors_at(self, t: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        """Return the estimated error of the maps (Frobenius norm) from what was left out of the imbalance.

        The distances to the closed forms with lambda + delta_min, with lambda + delta_max, and from the nearest
        balanced layers of the same product, summed. For an integrated flow, 1e-9 of the size of the map: some ten
        steps' error of 1e-10.
        """
        errors = np.empty(len(t))
        if isinstance(self._flow, IntegratedFlow):
            for piece, maps in self._flow.maps_at(self._clock(t)):
                errors[piece] = 1e-9 * np.linalg.norm(self._maps(maps), axis=(1, 2))
            return errors
        if not np.any(self._spread):
            return np.zeros(len(t))
        others = [ModalFlow(*self._scaled, 1.0, self._lambda + delta) for delta in self._spread]
        others.append(ModalFlow(*_balanced(*self._scaled[:2], self._lambda), self._scaled[2], 1.0, self._lambda))
        gathered = [_gathered(flow, self._clock(t)) for flow in (self._flow, *others)]
        distances = [np.linalg.norm(self._maps(maps - gathered[0]), axis=(1, 2)) for maps in gathered[1:]]
        return np.asarray(np.sum(distances, axis=0))

    def limit(self) -> Float[np.ndarray, "o p"]:
        """Return W at infinite time.

        Raises
        ------
        ValueError
            If the flow is integrated and its limit depends on the path: the hidden layer cuts a block of equal singular
            values, or a mode has no overlap with the initial weights.
        """
        if isinstance(self._flow, ModalFlow):
            return self._maps(self._flow.limit())
        first, second, syx = self._scaled
        if not np.any(syx):
            raise ValueError("t must be finite: without a target these layers decay along a path with no closed form.")
        u, s, v = singular_modes(syx)
        kept = min(len(s), self.hidden)
        cut = any(block.start < kept < block.stop for block in degenerate_blocks(s, tolerance=0.0))
        found = ModalFlow(first, second, syx, 1.0, self._lambda).limit()
        best = u[:, :kept] * s[:kept] @ v[:, :kept].T
        if cut or np.abs(found - best).max() > 1e-10 * s[0]:
            raise ValueError(
                "t must be finite: from layers so far from lambda-balanced the limit depends on the path, because the "
                "hidden layer has no room for all modes of one singular value, or a mode has no overlap with the "
                "initial weights. Ask for a late time instead."
            )
        return self._maps(best)

    def _clock(self, t: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        return np.minimum(product(t, self._unit, self._unit, over=(self.tau,)), 1e300)

    def _maps(self, maps: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return checks.representable("the map W_2 W_1", maps * self._unit * self._unit)


def _balanced(
    w1: Float[np.ndarray, "h p"], w2: Float[np.ndarray, "o h"], lam: float
) -> tuple[Float[np.ndarray, "h p"], Float[np.ndarray, "o h"]]:
    """Return (I + X) W_1 and W_2 (I - X), lambda-balanced to first order: X G + G X = Delta, G = Q^T Q."""
    sizes, turn = np.linalg.eigh(w1 @ w1.T + w2.T @ w2)
    rest = turn.T @ (w2.T @ w2 - w1 @ w1.T - lam * np.eye(len(w1))) @ turn
    pairs = sizes[:, None] + sizes
    carried = pairs > 1e-12 * sizes[-1]
    x = turn @ np.where(carried, rest / np.where(carried, pairs, 1.0), 0.0) @ turn.T
    return w1 + x @ w1, w2 - w2 @ x


def _gathered(flow: ModalFlow, t: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t o p"]:
    maps = np.empty((len(t), *flow.shape))
    for piece, some in flow.maps_at(t):
        maps[piece] = some
    return maps
