r"""Singular modes of a two-layer linear network learned from small weights (Saxe et al. 2014; paper Eq. 30).

With whitened inputs and aligned, balanced weights W(t) = U G(t) V^T, each mode obeys the logistic equation

.. math:: \tau \dot g = 2 g (s - g), \qquad g(t) = \frac{s\, g_0}{s\, e^{-2st/\tau} - g_0\, \mathrm{expm1}(-2st/\tau)} .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import exprel

from theory import checks
from theory.arithmetic import product
from theory.dynamics.singular_modes import degenerate_blocks, singular_modes

__all__ = [
    "Modes",
    "aligned_modes",
    "half_rise_time",
    "initial_mode_strength",
    "mode_strength",
    "time_constant",
]


@dataclass(frozen=True, eq=False)
class Modes:
    """Singular modes of a target map with the strengths a network starts from.

    Parameters
    ----------
    left, values, right
        Thin singular value decomposition C = U S V^T with positive singular values in descending order: U (O, r),
        s (r,), V (P, r).
    initial_strengths
        g0 of each mode, shape (r,), positive.

    Raises
    ------
    ValueError
        If the shapes do not fit, the values are not positive and descending, or a strength is not positive.

    Examples
    --------
    >>> Modes(np.eye(2), np.array([3.0, 1.0]), np.eye(2), np.array([1e-6, 1e-6])).values
    array([3., 1.])
    """

    left: np.ndarray
    values: np.ndarray
    right: np.ndarray
    initial_strengths: np.ndarray

    def __post_init__(self) -> None:
        values = checks.array("values", self.values, ndim=1)
        if values.size == 0:
            raise ValueError("values is empty: a map without modes has nothing to learn.")
        left = checks.matrix("left", self.left, (None, len(values)))
        right = checks.matrix("right", self.right, (None, len(values)))
        strengths = checks.array("initial_strengths", self.initial_strengths, ndim=1)
        if values.min() <= 0 or np.any(np.diff(values) > 0):
            raise ValueError(f"values must be positive and descending, but they are {values}.")
        if strengths.shape != values.shape:
            raise ValueError(f"initial_strengths has shape {strengths.shape}, but there are {len(values)} modes.")
        if strengths.min() <= 0:
            raise ValueError(
                f"every initial strength must be positive, but the smallest is {strengths.min()}: a mode that starts "
                "at zero is never learned."
            )
        for key, value in (("left", left), ("values", values), ("right", right), ("initial_strengths", strengths)):
            object.__setattr__(self, key, value)


def time_constant(n_samples: int, n_outputs: int, lr: float) -> float:
    """Return tau = N O / (2 lr) in epochs, which turns gradient descent on torch's mean squared error into the flow.

    Parameters
    ----------
    n_samples, n_outputs
        N and O, the numbers over which the mean squared error averages.
    lr
        Learning rate, positive.

    Examples
    --------
    >>> time_constant(n_samples=8, n_outputs=15, lr=5e-2)
    1200.0
    """
    n_samples = checks.integer("n_samples", n_samples, at_least=1)
    n_outputs = checks.integer("n_outputs", n_outputs, at_least=1)
    lr = checks.positive("lr", lr)
    try:
        tau = float(product(n_samples, n_outputs, 0.5, over=(lr,)))
    except (TypeError, OverflowError):  # a whole number that no double holds
        tau = np.inf
    if not 0 < tau < np.inf:
        raise ValueError(
            f"N O / (2 lr) leaves the range of doubles at n_samples = {n_samples}, n_outputs = {n_outputs} and "
            f"lr = {lr}; give a learning rate that a training run could use."
        )
    return tau


def mode_strength(t: ArrayLike, s: ArrayLike, g0: ArrayLike, tau: float) -> Float[np.ndarray, "..."]:
    """Return the mode strength g(t) that starts at g0 and grows to s (paper Eq. 30).

    Parameters
    ----------
    t
        Times in epochs, >= 0; may be infinite.
    s
        Singular values, >= 0. At s = 0 the logistic law becomes g0 / (1 + 2 g0 t / tau).
    g0
        Initial strengths, >= 0. `t`, `s` and `g0` broadcast.
    tau
        Time constant in epochs, see `time_constant`.

    Returns
    -------
    numpy.ndarray
        g(t) with the broadcast shape. Relative error a few eps, times 1 + 2 s t / tau while the mode rises (the
        condition of e^{-2st/tau}); no growing exponential is formed and no intermediate result overflows.

    Examples
    --------
    >>> mode_strength([0.0, np.inf], s=3.0, g0=0.5, tau=1200.0)
    array([0.5, 3. ])
    """
    t = checks.times("t", t, allow_infinite=True)
    s, g0 = checks.nonnegative("s", s), checks.nonnegative("g0", g0)
    tau = checks.positive("tau", tau)
    t, s, g0 = checks.broadcast(t=t, s=s, g0=g0)
    with np.errstate(all="ignore"):
        x = np.where(s > 0, product(2.0, s, t, over=(tau,)), 0.0)
        # (1 - e^{-x}) / s; for small x in the form that holds at s = 0 and keeps its digits at subnormal s
        early = x < 1
        saturation = np.where(early, product(2.0, t, exprel(-x), over=(tau,)), product(-np.expm1(-x), over=(s,)))
        weighted = np.where(early, product(2.0, t, g0, exprel(-x), over=(tau,)), product(g0, -np.expm1(-x), over=(s,)))
        denominator = np.exp(-x) + weighted
        grown = g0 / denominator
        # the same over g0, where the denominator over- or underflows
        over_g0 = 1 / (np.exp(-(x + np.log(g0))) + saturation)
        grown = np.where((denominator > 1e-280) & (denominator < np.inf), grown, over_g0)
    return np.where(g0 > 0, grown, 0.0)


def half_rise_time(s: ArrayLike, g0: ArrayLike, tau: float) -> Float[np.ndarray, "..."]:
    """Return the epoch tau / (2 s) ln(s / g0 - 1) at which a mode reaches half its singular value.

    Parameters
    ----------
    s, g0
        Singular values and initial strengths, 0 < g0 <= s / 2; they broadcast.
    tau
        Time constant in epochs.

    Returns
    -------
    numpy.ndarray
        Times in epochs, relative error a few eps up to g0 = s / 2, where they are 0; infinite beyond 1e308.

    Raises
    ------
    ValueError
        If a mode starts above half its singular value.

    Examples
    --------
    >>> t = half_rise_time(3.0, 1e-6, tau=1200.0)
    >>> round(float(mode_strength(t, 3.0, 1e-6, tau=1200.0)), 12)
    1.5
    """
    s, g0 = checks.broadcast(s=checks.nonnegative("s", s), g0=checks.nonnegative("g0", g0))
    tau = checks.positive("tau", tau)
    if np.any(g0 <= 0) or np.any(g0 > s / 2):
        raise ValueError(
            "half_rise_time needs 0 < g0 <= s / 2: a mode above half its singular value never rises to it."
        )
    with np.errstate(over="ignore"):
        beyond = (s - 2 * g0) / g0  # s - 2 g0 is exact near s / 2, where the logarithm vanishes with it
        logarithm = np.where(np.isfinite(beyond), np.log1p(beyond), np.log(s) - np.log(g0))
    return product(0.5, tau, logarithm, over=(s,))


def initial_mode_strength(w1: ArrayLike, w2: ArrayLike, u: ArrayLike, v: ArrayLike) -> Float[np.ndarray, " r"]:
    r"""Return the effective initial strength g0_k = |W_1 v_k + W_2^T u_k|^2 / 4 of each mode.

    From small unbalanced weights the growing combination of the two layers is :math:`(W_1 v + W_2^T u)/2`; the product
    u^T W_2 W_1 v, which the paper's Eq. 30 suggests, also counts the decaying one and may even be negative.

    Parameters
    ----------
    w1, w2
        Initial weights, shapes (h, P) and (O, h).
    u, v
        Singular vectors, shapes (O, r) and (P, r).

    Returns
    -------
    numpy.ndarray
        Shape (r,), >= 0; mean h sigma^2 / 2 for independent N(0, sigma^2) weights.

    Examples
    --------
    >>> initial_mode_strength([[0.2]], [[0.2]], [[1.0]], [[1.0]])
    array([0.04])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        strengths = np.sum(_growing_overlap(w1, w2, u, v) ** 2, axis=0)
    return checks.representable("|W_1 v + W_2^T u|^2 / 4", strengths)


def aligned_modes(w1: ArrayLike, w2: ArrayLike, syx: ArrayLike, *, deflate: bool = False) -> Modes:
    """Return the singular modes of `syx` with each degenerate block rotated to the basis the network grows in.

    Singular vectors inside a block of equal singular values are arbitrary; growth from the actual initial weights is
    decoupled in the basis where A^T A, A = (W_1 V + W_2^T U) / 2, is diagonal within the block. Singular values that
    differ by rounding only (relative 8 eps max(O, P)) count as equal and are replaced by their mean.

    Between blocks the columns of A are not orthogonal either. Once a faster mode has saturated, a slower one has lost
    the part of its column along the faster one's: by the exact matrix solution, what grows to its singular value is
    the rest. With `deflate` the initial strengths are those of the rest (A's columns after Gram-Schmidt, fastest
    first), which predicts when a mode is learned; without, those of the whole column, which predicts its size before
    any mode has saturated.

    Parameters
    ----------
    w1, w2
        Initial weights, shapes (h, P) and (O, h).
    syx
        Input-output correlation, shape (O, P), not zero. Modes with zero singular value are left out.
    deflate
        Whether to take out of each mode's overlap what it shares with faster modes.

    Returns
    -------
    Modes
        Basis and effective initial strengths, strongest first inside each block.

    Examples
    --------
    >>> modes = aligned_modes([[0.1, 0.0]], [[0.0], [0.1]], np.eye(2))
    >>> modes.values, modes.initial_strengths.round(4)
    (array([1., 1.]), array([0.005, 0.   ]))
    """
    syx = checks.matrix("syx", syx)
    u, s, v = singular_modes(syx)
    growing = _growing_overlap(w1, w2, u, v)
    strengths = np.empty_like(s)
    for block in degenerate_blocks(s, tolerance=0.0):
        if deflate and block.start:
            faster = np.linalg.qr(growing[:, : block.start]).Q
            for _ in range(2):  # twice is enough for orthogonality to rounding (Kahan and Parlett)
                growing[:, block] -= faster @ (faster.T @ growing[:, block])
        _, overlaps, turned = np.linalg.svd(growing[:, block], full_matrices=True)
        squared = np.zeros(block.stop - block.start)
        with np.errstate(over="ignore"):
            squared[: len(overlaps)] = overlaps**2
        strengths[block], rotation = np.maximum(squared, np.finfo(float).tiny), turned.T
        u[:, block], v[:, block] = u[:, block] @ rotation, v[:, block] @ rotation
    return Modes(u, s, v, checks.representable("|W_1 v + W_2^T u|^2 / 4", strengths))


def _growing_overlap(w1: ArrayLike, w2: ArrayLike, u: ArrayLike, v: ArrayLike) -> Float[np.ndarray, "h r"]:
    u, v = checks.matrix("u", u), checks.matrix("v", v)
    if u.shape[1] != v.shape[1]:
        raise ValueError(f"u has {u.shape[1]} columns but v has {v.shape[1]}; give one of each a mode.")
    w1 = checks.matrix("w1", w1, (None, len(v)))
    w2 = checks.matrix("w2", w2, (len(u), len(w1)))
    with np.errstate(over="ignore", invalid="ignore"):
        return checks.representable("W_1 v + W_2^T u", (w1 @ v + w2.T @ u) / 2)
