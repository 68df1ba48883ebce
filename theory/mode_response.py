r"""First-order response of the learned map to a changed sample, as kernels in the basis of singular modes.

Every formula of `theory.influence` has the form dW = U dM V^T + perpendicular parts, where for a sample with mode
coordinates :math:`\psi = U^T y`, :math:`\alpha = V^T x`

.. math::
    dM_{ab} = P_{ab} \psi_a \alpha_b + N_{ab} \alpha_a \psi_b - Z_{ab} \alpha_a \alpha_b ,

dW also gains :math:`y_\perp (L \circ \alpha)^T V^T` and :math:`U (L \circ \psi - R \circ \alpha) x_\perp^T`. The
kernels P, N, Z (r x r) and L, R (r) depend on time, on the singular values and on the initial strengths only.

Notation: h = 2 t / tau, D_a = e^{-h s_a} + g0_a phi_a, phi_a = (1 - e^{-h s_a}) / s_a, so that g_a = g0_a / D_a.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import exprel, factorial

__all__ = ["ResponseKernels", "logistic_denominator", "response_kernels"]

FORMULAS = ("paper-P1", "paper-P2", "spectral", "fixed-init", "sample-weight")


@dataclass(frozen=True, eq=False)
class ResponseKernels:
    """Kernels P, N, Z (T, k, k) and L, R (T, k) of k modes at T times, in this order, and strengths g (T, k)."""

    target_input: Float[np.ndarray, "t k k"]
    input_target: Float[np.ndarray, "t k k"]
    input_input: Float[np.ndarray, "t k k"]
    target_perp: Float[np.ndarray, "t k"]
    input_perp: Float[np.ndarray, "t k"]
    strengths: Float[np.ndarray, "t k"]


def response_kernels(
    formula: str, t: Float[np.ndarray, " t"], s: Float[np.ndarray, " k"], g0: Float[np.ndarray, " k"], tau: float
) -> ResponseKernels:
    """Return the kernels of one formula at sorted times `t` for modes with values `s` (descending) and strengths `g0`.

    Modes with exactly equal `s` form a degenerate block. See `theory.influence_trajectory` for the formulas.
    """
    denominator = logistic_denominator(t, s, g0, tau)
    g = g0 / denominator
    symmetric = _symmetric_kernel(t, s, g0, tau)
    pair_sum = g[:, :, None] + g[:, None, :]
    skew = pair_sum / (s[:, None] + s)
    zero, no_perp = np.zeros_like(symmetric), np.zeros_like(g)
    if formula in ("paper-P1", "paper-P2"):
        forward, backward = _printed_kernels(formula, s, g, symmetric, skew)
        return ResponseKernels(forward, backward, zero, no_perp, no_perp, g)
    perp = g / s
    if formula != "spectral":
        skew = skew * -np.expm1(-(s[:, None] + s) * t[:, None, None] / tau)
        perp = perp * -np.expm1(-s * t[:, None] / tau)
    forward, backward = (symmetric + skew) / 2, (symmetric - skew) / 2
    if formula != "sample-weight":
        return ResponseKernels(forward, backward, zero, perp, no_perp, g)
    input_input, input_perp = _input_kernels(t, s, g0, tau, decay_now=denominator, g_now=g)
    return ResponseKernels(forward, backward, input_input, perp, input_perp, g)


def _printed_kernels(
    formula: str,
    s: Float[np.ndarray, " k"],
    g: Float[np.ndarray, "t k"],
    symmetric: Float[np.ndarray, "t k k"],
    skew: Float[np.ndarray, "t k k"],
) -> tuple[Float[np.ndarray, "t k k"], Float[np.ndarray, "t k k"]]:
    """Return P and N of paper Eqs. 50-58: single-term rotations between blocks, symmetric and skew parts within."""
    gap = s[:, None] - s
    within = gap == 0
    if formula == "paper-P1":
        between = symmetric, np.zeros_like(symmetric)
    else:
        safe = np.where(within, 1.0, gap)
        between = -g[:, None, :] / safe, g[:, :, None] / safe
    return (
        np.where(within, (symmetric + skew) / 2, between[0]),
        np.where(within, (symmetric - skew) / 2, between[1]),
    )


def logistic_denominator(
    t: Float[np.ndarray, "*time"], s: Float[np.ndarray, " k"], g0: Float[np.ndarray, " k"], tau: float
) -> Float[np.ndarray, "*time k"]:
    """Return D = e^{-2 s t / tau} + g0 phi of the logistic law g = g0 / D, shape (..., k)."""
    exponent = -2 * t[..., None] * s / tau
    return np.exp(exponent) - g0 * np.expm1(exponent) / s


def _symmetric_kernel(
    t: Float[np.ndarray, " t"], s: Float[np.ndarray, " k"], g0: Float[np.ndarray, " k"], tau: float
) -> Float[np.ndarray, "t k k"]:
    r"""Return :math:`H_{ab}(t) \int_0^t (g_a + g_b) / H_{ab}\, du / \tau` in closed form.

    Here H_ab = g_a g_b e^{-(s_a + s_b) t / tau}. The integral is elementary,

        [g0_a (e^{-h s_b} - e^{-h m}) + g0_b (e^{-h m} - e^{-h s_a}) + g0_a g0_b (phi_b - phi_a)]

    over (s_a - s_b) D_a D_b, with m = (s_a + s_b) / 2; each difference is written as a divided difference, so nothing
    cancels however close the singular values are. For equal strengths it is the divided difference
    (g_a - g_b) / (s_a - s_b), on the diagonal dg/ds.
    """
    h = (2 * t / tau)[:, None, None]
    high, low = np.maximum(s[:, None], s), np.minimum(s[:, None], s)
    first = np.where(s[:, None] >= s, g0[:, None], g0[None, :])
    second = np.where(s[:, None] >= s, g0[None, :], g0[:, None])
    half_gap = h * (high - low) / 2
    linear = h / 2 * exprel(-half_gap) * (first * np.exp(-h * low) + second * np.exp(-h * low - half_gap))
    quadratic = first * second * h**2 * _exp_second_difference(-h * high, -h * low)
    d = logistic_denominator(t, s, g0, tau)
    return (linear + quadratic) / (d[:, :, None] * d[:, None, :])


def _exp_second_difference(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return the divided difference exp[a, b, 0] for a <= b <= 0 without cancellation.

    For a < -1 the recursion (exp[b, 0] - exp[a, b]) / -a loses at most a factor 4; nearer zero the Taylor series
    sum_n c_n(a, b) / (n + 2)! is used, c_n the complete homogeneous polynomial; 18 terms leave 1 / 19! of 1/2.
    """
    recursion = (exprel(b) - np.exp(b) * exprel(a - b)) / np.where(a < -1, -a, 1.0)
    near_a, near_b = np.maximum(a, -1.0), np.maximum(b, -1.0)
    series, complete, power = np.full_like(a, 0.5), np.ones_like(a), np.ones_like(a)
    for n in range(1, 19):
        power = power * near_b
        complete = near_a * complete + power
        series = series + complete / factorial(n + 2)
    return np.where(a < -1, recursion, series)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_CHUNK = 2**20  # array elements evaluated at once: about 8 MB, which stays in cache


def _input_kernels(
    t: Float[np.ndarray, " t"],
    s: Float[np.ndarray, " k"],
    g0: Float[np.ndarray, " k"],
    tau: float,
    *,
    decay_now: Float[np.ndarray, "t k"],
    g_now: Float[np.ndarray, "t k"],
) -> tuple[Float[np.ndarray, "t k k"], Float[np.ndarray, "t k"]]:
    r"""Return Z (T, k, k) and R (T, k), the part of the response that comes from the changed input moment.

    With :math:`\lambda_{ab} = (s_a + s_b) / \tau` they are the decaying convolutions

        Z_ab = 1/2 int e^{-lambda (t - u)} { (g0_a D_b + g0_b D_a)^2 / (D_a D_b)(u) / (D_a D_b)(t)
                                             + (g_a + g_b)(t) (g_a - g_b)(u) } du / tau,
        R_a  = g_a(t) int e^{-s_a (t - u) / tau} g_a(u) du / tau.
    """
    k = len(s)

    def integrands(u: Float[np.ndarray, "*time"]) -> Float[np.ndarray, "*time rows k"]:
        d = logistic_denominator(u, s, g0, tau)
        g = g0 / d
        cross = g0[:, None] * d[..., None, :]
        growing = (cross + np.swapaxes(cross, -1, -2)) ** 2 / (d[..., :, None] * d[..., None, :])
        difference = g[..., :, None] - g[..., None, :]
        return np.concatenate([growing, difference, g[..., None, :]], axis=-2)

    pair_rate = (s[:, None] + s) / tau
    rates = np.concatenate([pair_rate, pair_rate, s[None, :] / tau])
    convolved = _convolve(integrands, rates, t, longest_panel=0.5 * tau / max(s.max(), g0.max())) / tau
    growing, difference, own = convolved[:, :k], convolved[:, k : 2 * k], convolved[:, 2 * k]
    symmetric = growing / (decay_now[:, :, None] * decay_now[:, None, :])
    skew = (g_now[:, :, None] + g_now[:, None, :]) * difference
    return (symmetric + skew) / 2, g_now * own


def _convolve(
    integrands: Callable[[np.ndarray], np.ndarray],
    rates: Float[np.ndarray, "rows k"],
    t: Float[np.ndarray, " t"],
    *,
    longest_panel: float,
) -> Float[np.ndarray, "t rows k"]:
    """Return int_0^t e^{-rates (t - u)} f(u) du at sorted times `t` by Gauss-Legendre panels and an exact recursion.

    The integrands are analytic except for poles at imaginary distance pi tau / (2 s) or real distance tau / (2 g0).
    A panel of at most half of tau / max(s, g0) with 8 nodes therefore converges like rho^-16 with rho >= 5, below eps.
    """
    panels = np.ceil(np.diff(t, prepend=0.0) / longest_panel).astype(int)
    edges = [np.linspace(a, b, n + 1)[1:] for a, b, n in zip(np.append(0.0, t[:-1]), t, panels, strict=True)]
    right = np.concatenate(edges)
    left = np.append(0.0, right[:-1])[: len(right)]
    panels_until = np.cumsum(panels)
    convolved = np.zeros((len(t), *rates.shape))
    running = np.zeros(rates.shape)
    chunk = max(1, _CHUNK // (len(_NODES) * rates.size))
    for first in range(0, len(right), chunk):
        a, b = left[first : first + chunk, None], right[first : first + chunk, None]
        u = (a + b) / 2 + (b - a) / 2 * _NODES
        weighted = integrands(u) * np.exp(-rates * (b - u)[..., None, None]) * ((b - a) / 2 * _WEIGHTS)[..., None, None]
        gains, fades = weighted.sum(axis=1), np.exp(-rates * (b - a)[..., None])
        for i, (gain, fade) in enumerate(zip(gains, fades, strict=True), start=first + 1):
            running = fade * running + gain
            convolved[panels_until == i] = running
    return convolved
