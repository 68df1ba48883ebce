r"""Two phases of a posterior: where the covariance of losses is extremal, whether it peaks, and where its sign flips.

As the weight p of phase U goes from 0 to 1 the total covariance of a pair of losses is

.. math:: T(p) = p\, \mathrm{Cov}_U + (1 - p)\, \mathrm{Cov}_V + p (1 - p)\, d_i d_j, \qquad d = \mu_U - \mu_V ,

a quadratic, whose extremum lies at 1/2, as the paper has it, only where the covariances within the phases agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from theory import checks

__all__ = ["PhaseTransition", "phase_transition"]


@dataclass(frozen=True, eq=False)
class PhaseTransition:
    """Total covariance T(p) of each pair of observables as the weight p of phase U goes from 0 (all V) to 1 (all U).

    T(p) = p Cov_U + (1 - p) Cov_V + p (1 - p) D_ij, with D_ij = d_i d_j and d = mu_U - mu_V.

    Parameters
    ----------
    position
        Stationary point 1/2 + (Cov_U - Cov_V) / (2 D), nan where T is linear (D = 0). The paper's 1/2 is right only
        where the covariances within the phases agree.
    value
        T at the stationary point, also where that lies outside (0, 1); nan where T is linear.
    is_maximum, is_minimum
        D > 0 and D < 0.
    inside
        Whether the stationary point lies in (0, 1): |Cov_U - Cov_V| < |D|.
    peaks
        Whether |T| is larger at an interior extremum than at both ends: the stationary point is inside and
        sign(D) (Cov_U + Cov_V) + (|D| - |Cov_U - Cov_V|)^2 / (4 |D|) > 0.
    sign_flips
        Weights in (0, 1) at which T changes its sign, ascending, nan where there is none; last axis of length 2.
        Ends of opposite sign give one. Ends of one sign give two if D has the other sign and
        |D| > (sqrt|Cov_U| + sqrt|Cov_V|)^2, else none. With one end zero there is one if D has the sign opposite to the
        other end and is larger in size. With both zero there is none.
    """

    position: Float[np.ndarray, "*batch d d"]
    value: Float[np.ndarray, "*batch d d"]
    is_maximum: Bool[np.ndarray, "*batch d d"]
    is_minimum: Bool[np.ndarray, "*batch d d"]
    inside: Bool[np.ndarray, "*batch d d"]
    peaks: Bool[np.ndarray, "*batch d d"]
    sign_flips: Float[np.ndarray, "*batch d d 2"]


def phase_transition(mean_u: ArrayLike, mean_v: ArrayLike, cov_u: ArrayLike, cov_v: ArrayLike) -> PhaseTransition:
    """Return where each covariance of a two-phase posterior is extremal, whether it peaks, and where its sign flips.

    Parameters
    ----------
    mean_u, mean_v
        Expected losses in phases U and V, shape (..., d).
    cov_u, cov_v
        Covariances within the phases, shape (..., d, d). Leading axes broadcast.

    Returns
    -------
    PhaseTransition
        For every pair of observables; its docstring has the exact conditions.

    Raises
    ------
    ValueError
        As for `decompose_covariance`.

    Examples
    --------
    >>> found = phase_transition([2.0], [0.0], [[1.0]], [[3.0]])
    >>> found.position, found.value, found.peaks
    (array([[0.25]]), array([[3.25]]), array([[ True]]))
    """
    mean_u, cov_u = _moments("mean_u", mean_u, "cov_u", cov_u)
    mean_v, cov_v = _moments("mean_v", mean_v, "cov_v", cov_v)
    if mean_u.shape[-1] != mean_v.shape[-1]:
        raise ValueError(f"mean_u has {mean_u.shape[-1]} observables but mean_v has {mean_v.shape[-1]}.")
    checks.broadcast(mean_u=mean_u, mean_v=mean_v)
    with np.errstate(over="ignore", invalid="ignore"):
        d = mean_u - mean_v
        checks.representable("(mean_u - mean_v)^2 plus the covariances", d * d + _largest(cov_u) + _largest(cov_v))
    jump, u, v = checks.broadcast(mean_jump=d[..., :, None] * d[..., None, :], cov_u=cov_u, cov_v=cov_v)
    change, size = u - v, np.abs(jump)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        position = np.where(jump == 0, np.nan, 0.5 + change / jump / 2)
        value = np.where(jump == 0, np.nan, (u + v) / 2 + (jump + change / jump * change) / 4)
        room = size - np.abs(change)
        excess = np.sign(jump) * (u + v) + room * (room / size) / 4
    inside = room > 0
    return PhaseTransition(
        position, value, jump > 0, jump < 0, inside, inside & (excess > 0), _sign_flips(u, u + v + jump, v)
    )


def _largest(cov: Float[np.ndarray, "*batch d d"]) -> float:
    return float(np.abs(cov).max(initial=0.0))


def _sign_flips(u: np.ndarray, b: np.ndarray, v: np.ndarray) -> Float[np.ndarray, "*batch 2"]:
    """Solve u p^2 + b p q + v q^2 = 0 with q = 1 - p for simple roots p / q > 0."""
    double = 2 * np.sqrt(np.abs(u)) * np.sqrt(np.abs(v))
    opposite = np.sign(u) * np.sign(v) < 0
    gap = np.abs(b) - double
    root = np.where(opposite, np.hypot(b, double), np.sqrt(np.maximum(gap, 0)) * np.sqrt(np.abs(b) + double))
    larger = -(b + np.copysign(root, b)) / 2  # the sum that does not cancel; the roots are larger / u and v / larger
    simple = opposite | (gap > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        flips = [
            np.where(simple & (np.sign(top) * np.sign(bottom) > 0), top / (top + bottom), np.nan)
            for top, bottom in ((larger, u), (v, larger))
        ]
    return np.sort(np.stack(flips, axis=-1), axis=-1)


def _moments(
    mean_name: str, mean: ArrayLike, cov_name: str, cov: ArrayLike
) -> tuple[Float[np.ndarray, "*m d"], Float[np.ndarray, "*c d d"]]:
    mean, cov = checks.array(mean_name, mean), checks.covariances(cov_name, cov)
    if mean.ndim == 0 or mean.shape[-1] != cov.shape[-1]:
        raise ValueError(f"{mean_name} has shape {mean.shape}, but {cov_name} has shape {cov.shape}.")
    return mean, cov
