r"""First-order response of the learned map to a changed sample, as kernels in the basis of singular modes.

Every formula of `theory.influence.trajectory` has the form dW = U dM V^T + perpendicular parts, where for a sample with
mode coordinates :math:`\psi = U^T y`, :math:`\alpha = V^T x`

.. math::
    dM_{ab} = P_{ab} \psi_a \alpha_b + N_{ab} \alpha_a \psi_b - Z_{ab} \alpha_a \alpha_b ,

dW also gains :math:`y_\perp (L \circ \alpha)^T V^T` and :math:`U (L \circ \psi - R \circ \alpha) x_\perp^T`. The
kernels P, N, Z (r x r) and L, R (r) depend on time, on the singular values and on the initial strengths only.

Notation: h = 2 t / tau, D_a = e^{-h s_a} + g0_a phi_a, phi_a = (1 - e^{-h s_a}) / s_a, so that g_a = g0_a / D_a.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

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
    formula: str,
    t: Float[np.ndarray, " t"],
    s: Float[np.ndarray, " k"],
    g0: Float[np.ndarray, " k"],
    tau: float,
    *,
    piece: int,
) -> Iterator[ResponseKernels]:
    """Yield the kernels of one formula at sorted times `t`, `piece` times after another.

    The modes have values `s` (descending) and strengths `g0`; those with exactly equal `s` form a degenerate block. See
    `theory.influence_trajectory` for the formulas.
    """
    convolutions = _convolutions(t, s, g0, tau)
    for first in range(0, len(t), piece):
        yield _kernels(formula, t[first : first + piece], s, g0, tau, convolutions)


def _kernels(
    formula: str,
    t: Float[np.ndarray, " t"],
    s: Float[np.ndarray, " k"],
    g0: Float[np.ndarray, " k"],
    tau: float,
    convolutions: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> ResponseKernels:
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
    input_input, input_perp = _input_kernels(t, s, g0, tau, denominator, convolutions)
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
    near = a >= -1
    result = (exprel(b) - np.exp(b) * exprel(a - b)) / np.where(near, 1.0, -a)
    a, b = a[near], b[near]
    series, complete, power = np.full_like(a, 0.5), np.ones_like(a), np.ones_like(a)
    for n in range(1, 19):
        power = power * b
        complete = a * complete + power
        series = series + complete / factorial(n + 2)
    result[near] = series
    return result


# Gauss-Legendre panels of length tau / s_max and tau / (2 g0_max) at most: the integrands have poles at imaginary
# distance pi tau / (2 s), or at tau / (2 g0) before the start, so 12 nodes converge like rho^-24 with rho >= 5.8.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_CHUNK = 2**20  # array elements evaluated at once: about 8 MB, which stays in cache


def _input_kernels(
    t: Float[np.ndarray, " t"],
    s: Float[np.ndarray, " k"],
    g0: Float[np.ndarray, " k"],
    tau: float,
    decay: Float[np.ndarray, "t k"],
    convolutions: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[Float[np.ndarray, "t k k"], Float[np.ndarray, "t k"]]:
    r"""Return Z (T, k, k) and R (T, k), the part of the response that comes from the changed input moment.

    With :math:`\lambda_{ab} = (s_a + s_b) / \tau` they are the decaying convolutions

        Z_ab = 1/2 int e^{-lambda (t - u)} { (g0_a D_b + g0_b D_a)^2 / (D_a D_b)(u) / (D_a D_b)(t)
                                             + (g_a + g_b)(t) (g_a - g_b)(u) } du / tau,
        R_a  = g_a(t) int e^{-s_a (t - u) / tau} g_a(u) du / tau.

    The square is 2 g0_a g0_b + g0_a^2 D_b / D_a + g0_b^2 D_a / D_b, whose first term integrates at sight.
    """
    k = len(s)
    ratio, mass, own = np.empty((len(t), k, k)), np.empty((len(t), k, k)), np.empty((len(t), k))
    for i, convolved in enumerate(islice(convolutions, len(t))):
        ratio[i], mass[i], own[i] = convolved
    g = g0 / decay
    rate = (s[:, None] + s) / tau
    even = 2 * np.outer(g0, g0) * -np.expm1(-rate * t[:, None, None]) / rate + ratio + np.swapaxes(ratio, 1, 2)
    symmetric = even / (decay[:, :, None] * decay[:, None, :])
    skew = (g[:, :, None] + g[:, None, :]) * (mass - np.swapaxes(mass, 1, 2))
    return (symmetric + skew) / (2 * tau), g * own / tau


def _convolutions(
    t: Float[np.ndarray, " t"], s: Float[np.ndarray, " k"], g0: Float[np.ndarray, " k"], tau: float
) -> Iterator[tuple[Float[np.ndarray, "k k"], Float[np.ndarray, "k k"], Float[np.ndarray, " k"]]]:
    """Yield, at each of the sorted times, int_0^t e^{-lambda (t - u)} f(u) du of g0_a^2 D_b / D_a, of g_a, and R's.

    The recursion from panel to panel is exact. On a panel the first two are products over a and b of functions of one
    mode, so that their quadrature is a product of matrices.
    """
    longest = tau / max(s.max(), 2 * g0.max())
    panels = np.ceil(np.diff(t, prepend=0.0) / longest).astype(int)
    edges = [np.linspace(a, b, n + 1)[1:] for a, b, n in zip(np.append(0.0, t[:-1]), t, panels, strict=True)]
    gains = _panel_gains(np.concatenate([[0.0], *edges]), s, g0, tau)
    ratio, mass, own = np.zeros((len(s), len(s))), np.zeros((len(s), len(s))), np.zeros(len(s))
    for count in panels:
        for fade, ratio_gain, mass_gain, own_gain in islice(gains, count):
            pair_fade = np.outer(fade, fade)
            ratio, mass, own = pair_fade * ratio + ratio_gain, pair_fade * mass + mass_gain, fade * own + own_gain
        yield ratio, mass, own


def _panel_gains(
    edges: Float[np.ndarray, " e"], s: Float[np.ndarray, " k"], g0: Float[np.ndarray, " k"], tau: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield e^{-s (b - a) / tau} of each panel [a, b] and what its interior adds to the three convolutions at b."""
    chunk = max(1, _CHUNK // (len(s) * max(len(s), len(_NODES))))
    left, right = edges[:-1, None], edges[1:, None]
    for first in range(0, len(right), chunk):
        a, b = left[first : first + chunk], right[first : first + chunk]
        u = (a + b) / 2 + (b - a) / 2 * _NODES
        d = logistic_denominator(u, s, g0, tau)
        fade = np.exp(-s * (b - u)[..., None] / tau)
        strength = fade * g0 / d * ((b - a) / 2 * _WEIGHTS)[..., None]
        ratio_gain = np.swapaxes(g0 * strength, 1, 2) @ (fade * d)
        mass_gain = np.swapaxes(strength, 1, 2) @ fade
        yield from zip(np.exp(-s * (b - a) / tau), ratio_gain, mass_gain, strength.sum(axis=1), strict=True)
