r"""Mode strengths of deep linear networks with balanced layers (Saxe et al. 2014).

In a chain of L balanced layers each mode's layer weight w = g^{1/L} grows independently,

.. math:: \tau \dot g = L\, g^{2 - 2/L} (s - g), \qquad
    t(g) = \frac{\tau}{L} \int_{g_0}^{g} \frac{dx}{x^{2 - 2/L} (s - x)} ,

which has closed form for the time a strength is reached; L = 2 is the logistic law of `theory.dynamics.saxe`. Initial
strengths delay a mode by g_0^{2/L - 1} for L > 2 and by ln(1 / g_0) for L = 2, so depth sharpens the stages.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import hyp2f1

from theory import checks

__all__ = ["deep_mode_strength", "deep_mode_time"]


def deep_mode_time(g: ArrayLike, s: ArrayLike, g0: ArrayLike, tau: float, *, depth: int) -> Float[np.ndarray, "..."]:
    """Return the epoch at which a mode of a balanced chain reaches the strength `g`.

    Parameters
    ----------
    g
        Strengths to reach, g0 <= g < s.
    s, g0
        Singular values and initial strengths, 0 < g0 < s; the three broadcast.
    tau
        Time constant in epochs, see `time_constant`.
    depth
        Number of layers L >= 1.

    Returns
    -------
    numpy.ndarray
        Times in epochs, broadcast shape.

    Raises
    ------
    ValueError
        If a strength lies outside [g0, s).

    Examples
    --------
    >>> from theory import half_rise_time
    >>> two = deep_mode_time(1.5, s=3.0, g0=1e-6, tau=1200.0, depth=2)
    >>> bool(np.isclose(two, half_rise_time(3.0, 1e-6, tau=1200.0), rtol=1e-14))
    True
    """
    g, s, g0 = np.broadcast_arrays(*(checks.nonnegative(n, v) for n, v in (("g", g), ("s", s), ("g0", g0))))
    tau, depth = checks.positive("tau", tau), checks.integer("depth", depth, at_least=1)
    if np.any(g0 <= 0) or np.any(g < g0) or np.any(g >= s):
        raise ValueError("deep_mode_time needs 0 < g0 <= g < s: a mode never falls below its start nor reaches s.")
    if depth == 2:
        return np.asarray(tau / (2 * s) * (np.log(g / g0) + np.log((s - g0) / (s - g))))
    elapsed = _primitive(np.asarray(g / s), depth) - _primitive(np.asarray(g0 / s), depth)
    return np.asarray(tau / depth * s ** (2 / depth - 2) * elapsed)


def deep_mode_strength(
    t: ArrayLike, s: ArrayLike, g0: ArrayLike, tau: float, *, depth: int
) -> Float[np.ndarray, "..."]:
    """Return the strength at time `t` of a mode of a balanced chain, by inverting `deep_mode_time`.

    Parameters
    ----------
    t
        Times in epochs, >= 0, finite; `t`, `s` and `g0` broadcast.
    s, g0, tau, depth
        As for `deep_mode_time`.

    Returns
    -------
    numpy.ndarray
        g(t), to relative accuracy 1e-12; a mode closer to s than that has the value s.

    Examples
    --------
    >>> from theory import mode_strength
    >>> deep = deep_mode_strength([0.0, 2500.0, 3000.0], s=3.0, g0=1e-6, tau=1200.0, depth=2)
    >>> bool(np.allclose(deep, mode_strength([0.0, 2500.0, 3000.0], 3.0, 1e-6, 1200.0), rtol=1e-12))
    True
    """
    t, s, g0 = np.broadcast_arrays(checks.times("t", t), checks.nonnegative("s", s), checks.nonnegative("g0", g0))
    tau, depth = checks.positive("tau", tau), checks.integer("depth", depth, at_least=1)
    if np.any(g0 <= 0) or np.any(g0 >= s):
        raise ValueError("deep_mode_strength needs 0 < g0 < s: a mode that starts at zero is never learned.")
    # Bisection in the logit of g / s, in which every t(g) is monotone and well scaled at both ends.
    low, high = np.log(g0 / (s - g0)), np.full(s.shape, 36.0)  # 1 - g / s = 2e-16
    high = np.maximum(high, low)
    for _ in range(80):
        middle = (low + high) / 2
        g = _from_logit(np.asarray(middle), s, g0)
        early = (g < s) & (deep_mode_time(np.where(g < s, g, g0), s, g0, tau, depth=depth) < t)
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return _from_logit(np.asarray((low + high) / 2), s, g0)


def _from_logit(logit: np.ndarray, s: np.ndarray, g0: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(s / (1 + np.exp(-logit)), g0))


def _primitive(x: np.ndarray, depth: int) -> np.ndarray:
    """Return a primitive of x^{2/L - 2} / (1 - x) on (0, 1), depth not 2.

    x^b / b 2F1(1, b; 1 + b; x) with b = 2/L - 1. One step of the recursion in b leaves the function's own term small
    at small x, where x^b / b rules.
    """
    b = 2 / depth - 1
    return np.asarray(x**b / b + x ** (b + 1) / (b + 1) * hyp2f1(1, b + 1, b + 2, x))
