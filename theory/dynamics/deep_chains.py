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
from theory.arithmetic import product

__all__ = ["deep_mode_strength", "deep_mode_time"]

_NODES, _WEIGHTS = (a / 2 for a in np.polynomial.legendre.leggauss(16))


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
        Times in epochs, broadcast shape; relative error some ten eps, also where g hardly differs from g0 or from s.
        Infinite beyond 1e308.

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
    g, s, g0 = checks.broadcast(**{n: checks.nonnegative(n, v) for n, v in (("g", g), ("s", s), ("g0", g0))})
    tau, depth = checks.positive("tau", tau), checks.integer("depth", depth, at_least=1)
    if np.any(g0 <= 0) or np.any(g < g0) or np.any(g >= s):
        raise ValueError("deep_mode_time needs 0 < g0 <= g < s: a mode never falls below its start nor reaches s.")
    return _elapsed(g, s, g0, tau, depth)


def _elapsed(g: np.ndarray, s: np.ndarray, g0: np.ndarray, tau: float, depth: int) -> np.ndarray:
    r"""Return t(g), which with y = x / s is tau / L s^{-c} times the integral of y^{-c} / (1 - y), c = 2 - 2/L.

    Of this, 1 / (1 - y) integrates to log((s - g0) / (s - g)), and the rest has no singularity at y = 1.
    """
    g, s, g0 = np.asarray(g), np.asarray(s), np.asarray(g0)
    rise = g - g0
    late = _log_ratio(s - g0, s - g, rise)
    rest = 0.0 if depth == 1 else _log_ratio(g, g0, rise) if depth == 2 else _regular_part(g, s, g0, depth)
    root = _root(s, depth)
    return product(tau, late + rest, root, root, over=(float(depth), s, s))


def _log_ratio(high: ArrayLike, low: ArrayLike, difference: ArrayLike) -> np.ndarray:
    """Return log(high / low), in the form that keeps a small difference."""
    with np.errstate(over="ignore"):
        ratio = np.divide(difference, low)
        return np.asarray(np.where(np.isfinite(ratio), np.log1p(ratio), np.log(high) - np.log(low)))


def _root(x: np.ndarray, depth: int) -> np.ndarray:
    """Return x^{1/L}; the exponent is not a double, and its rounding would count log(x) times over."""
    mantissa, exponent = np.frexp(x)
    whole, part = np.divmod(exponent, depth)
    return np.asarray(np.ldexp(mantissa ** (1 / depth) * 2.0 ** (part / depth), whole))


def _regular_part(g: np.ndarray, s: np.ndarray, g0: np.ndarray, depth: int) -> np.ndarray:
    r"""Return the integral of (y^{-c} - 1) / (1 - y) from g0 / s to g / s, depth above 2.

    Up to y = 1/2 it is the difference of the primitive y^b / b 2F1(1, b; 1 + b; y) + log(1 - y), b = 1 - c = 2/L - 1,
    of which one step of the recursion in b leaves the function's own term small at small y. Beyond, and where start and
    end are within a factor e, so that the difference would cancel, it is integrated over u = log y.
    """
    b = 2 / depth - 1
    width = _log_ratio(g, g0, g - g0)

    def primitive(y: np.ndarray) -> np.ndarray:
        power = _root(y, depth) ** 2  # y^{b + 1}
        return power / y / b + power / (b + 1) * hyp2f1(1, b + 1, b + 2, y) + np.log1p(-y)

    result = np.empty(g.shape)
    near = width < 1
    result[near] = _integral(g0[near] / s[near], width[near], depth)
    start, end = g0[~near] / s[~near], g[~near] / s[~near]
    middle = np.minimum(end, 0.5)
    result[~near] = primitive(middle) - primitive(start) + _integral(middle, np.log(end / middle), depth)
    return result


def _integral(y: np.ndarray, width: np.ndarray, depth: int) -> np.ndarray:
    """Integrate (y^{-c} - 1) / (1 - y) from y over widths of at most 1 in log y; poles at 2 pi i leave (4 pi)^-32."""
    b = 2 / depth - 1
    further = width[..., None] * (_NODES + 0.5)
    u = np.minimum(np.log(y)[..., None] + further, -1e-300)
    return _root(y, depth) ** 2 / y * width * ((np.exp(b * further) * np.expm1((1 - b) * u) / np.expm1(u)) @ _WEIGHTS)


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
        g(t), with relative error a few ten eps times 1 + kappa, kappa = (t / g) dg/dt the condition of the problem: how
        many times shorter the rise is than the wait for it. A mode closer to s than 1e-16 of it has the value s.

    Examples
    --------
    >>> from theory import mode_strength
    >>> deep = deep_mode_strength([0.0, 2500.0, 3000.0], s=3.0, g0=1e-6, tau=1200.0, depth=2)
    >>> bool(np.allclose(deep, mode_strength([0.0, 2500.0, 3000.0], 3.0, 1e-6, 1200.0), rtol=1e-12))
    True
    """
    t, s, g0 = checks.broadcast(t=checks.times("t", t), s=checks.nonnegative("s", s), g0=checks.nonnegative("g0", g0))
    tau, depth = checks.positive("tau", tau), checks.integer("depth", depth, at_least=1)
    if np.any(g0 <= 0) or np.any(g0 >= s):
        raise ValueError("deep_mode_strength needs 0 < g0 < s: a mode that starts at zero is never learned.")
    # Bisection in the logit of g / s, in which every t(g) is monotone and well scaled at both ends.
    low = np.log(g0) - np.log(s - g0)
    high = np.maximum(low, 36.0)  # 1 - g / s = 2e-16
    for _ in range(80):
        middle = np.asarray((low + high) / 2)
        g = _from_logit(middle, s, g0)
        early = (g < s) & (_elapsed(np.where(g < s, g, g0), s, g0, tau, depth) < t)
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return _from_logit(np.asarray((low + high) / 2), s, g0)


def _from_logit(logit: np.ndarray, s: np.ndarray, g0: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(np.maximum(np.where(logit < -700, s * np.exp(logit), s / (1 + np.exp(-logit))), g0))
