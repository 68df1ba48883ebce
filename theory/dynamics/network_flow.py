r"""The flow of a two-layer linear network from any weights: in closed form if nearly lambda-balanced, else integrated.

Training preserves :math:`B = W_2^T W_2 - W_1 W_1^T`. The closed form solves the flow of layers with
:math:`B = \lambda I`; with :math:`\lambda = \mathrm{tr} B / h` it leaves out the rest :math:`\Delta = B - \lambda I`,
which adds :math:`-\tfrac12 J Q \Delta` to :math:`\tau \dot Q`, J = diag(I, -I). Where :math:`\Delta` is more than a
ten-thousandth of the largest singular value the flow is integrated; in between the two are mixed, so that the answer is
continuous in the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks
from theory.arithmetic import product
from theory.dynamics.integrated_flow import IntegratedFlow
from theory.dynamics.modal_flow import ModalFlow, balance
from theory.dynamics.singular_modes import degenerate_blocks, singular_modes

__all__ = ["EXACT", "INTEGRATED", "LEAST_INTEGRATED", "MOST_IMBALANCE", "NetworkFlow"]

EXACT, INTEGRATED = "exact matrix solution", "gradient flow, DOP853 at 1e-10"
MOST_IMBALANCE = 1e-4  # of the largest singular value, up to which the closed form alone is used
LEAST_INTEGRATED = 3e-4  # from which the integrated flow alone is
_LONGEST_COMPARED = 5000.0  # time, in units of tau over the largest singular value, up to which the two are compared


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
        self._scaled, self._lambda, self._sxx = (first, second, syx), lam, sxx
        if sxx is None:
            share = (self.imbalance - MOST_IMBALANCE) / (LEAST_INTEGRATED - MOST_IMBALANCE)
            self._share = float(np.clip(share, 0.0, 1.0))
        else:
            self._share = 1.0
        self._compared = _LONGEST_COMPARED / max(strongest, 1e-300)
        self.method = EXACT if self._share == 0 else INTEGRATED

    @cached_property
    def _closed(self) -> ModalFlow:
        return ModalFlow(*self._scaled, 1.0, self._lambda)

    @cached_property
    def _integrated(self) -> IntegratedFlow:
        return IntegratedFlow(*self._scaled, 1.0, self._sxx)

    def maps_at(self, t: Float[np.ndarray, " t"]) -> Iterator[tuple[slice, Float[np.ndarray, "m o p"]]]:
        """Yield W = W_2 W_1 at increasing finite times, and which of them."""
        clock = self._clock(t)
        for piece, maps in self._mixed(lambda flow: flow.maps_at(clock)):
            yield piece, self._maps(maps)

    def factors_at(
        self, t: Float[np.ndarray, " t"]
    ) -> Iterator[tuple[slice, Float[np.ndarray, "m h p"], Float[np.ndarray, "m o h"]]]:
        """Yield W_1 and W_2 at increasing finite times, and which of them."""
        clock = self._clock(t)
        for piece, *layers in self._mixed(lambda flow: flow.factors_at(clock)):
            yield piece, layers[0] * self._unit, layers[1] * self._unit

    def _mixed(self, run: Callable[[ModalFlow | IntegratedFlow], Iterator[Any]]) -> Iterator[Any]:
        """Yield what a run of either flow does, or of both in the shares of each; one that is not used is not made."""
        if self._share in (0.0, 1.0):
            yield from run(self._integrated if self._share else self._closed)
            return
        integrated = run(self._integrated)
        for piece, *arrays in run(self._closed):
            others = [next(integrated)[1:] for _ in range(piece.start, piece.stop)]  # one time each
            both = zip(arrays, zip(*others, strict=True), strict=True)
            yield piece, *[(1 - self._share) * one + self._share * np.concatenate(other) for one, other in both]

    def errors_at(self, t: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        """Return the estimated error of the maps (Frobenius norm) from what was left out of the imbalance.

        The distance to the integrated flow, in the share that the closed form has, up to the time 5000 tau / s_max;
        later it is not known (nan). An integrated flow has 1e-9 of the size of the map: some ten steps' error of 1e-10.
        """
        if not self.imbalance and not self._share:
            return np.zeros(len(t))
        clock = self._clock(t)
        compared = clock <= (np.inf if self._share == 1 else self._compared)
        errors = np.full(len(t), np.nan)
        maps = _gathered(self._integrated, clock[compared])
        errors[compared] = 1e-9 * np.linalg.norm(maps, axis=(1, 2))
        if self._share < 1:
            left_out = np.linalg.norm(_gathered(self._closed, clock[compared]) - maps, axis=(1, 2))
            errors[compared] += (1 - self._share) * left_out
        return errors * self._unit * self._unit

    def limit(self) -> Float[np.ndarray, "o p"]:
        """Return W at infinite time.

        Raises
        ------
        ValueError
            If the flow is integrated and its limit depends on the path: the hidden layer cuts a block of equal singular
            values, or a mode has no overlap with the initial weights.
        """
        if self.method == EXACT:
            return self._maps(self._closed.limit())
        if not np.any(self._scaled[2]):
            raise ValueError("t must be finite: without a target these layers decay along a path with no closed form.")
        u, s, v = singular_modes(self._scaled[2])
        kept = min(len(s), self.hidden)
        cut = any(block.start < kept < block.stop for block in degenerate_blocks(s, tolerance=0.0))
        found = self._closed.limit()
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


def _gathered(flow: ModalFlow | IntegratedFlow, t: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t o p"]:
    maps = np.empty((len(t), *flow.shape))
    for piece, some in flow.maps_at(t):
        maps[piece] = some
    return maps
