r"""Phases of a tempered posterior: free energies, their crossings, and exact posteriors by quadrature.

A phase with loss L, learning coefficient :math:`\lambda` and multiplicity m has the local free energy (Watanabe 2009;
paper Eq. 10)

.. math:: F(n) = n L + \lambda \log n - (m - 1) \log\log n + C .

`tempered_posterior` integrates :math:`p(w) \propto \exp(-n_\beta L(w))` itself over boxes of one or two dimensions, so
that what the expansion says of weights and influence can be checked without sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float
from numpy.polynomial import chebyshev, legendre
from numpy.typing import ArrayLike
from scipy import special

from theory import checks

__all__ = [
    "Crossing",
    "TemperedPosterior",
    "free_energy",
    "phase_weights",
    "power_moments",
    "product_moments",
    "tempered_posterior",
    "transition_sample_size",
    "type_b_transition",
]

_GAUSS_NODES, _GAUSS_WEIGHTS = legendre.leggauss(80)
_ORDER = 12  # Clenshaw-Curtis intervals a cell and axis; every other node makes the embedded rule of the error estimate
_START = 4  # cells an axis before refinement
_MOST_SPREAD = 20.0  # a cell over which the density varies by more than e^20 is split whatever its error estimate


def free_energy(
    n: ArrayLike,
    losses: ArrayLike,
    lambdas: ArrayLike,
    *,
    multiplicities: ArrayLike = 1.0,
    constants: ArrayLike = 0.0,
) -> Float[np.ndarray, "..."]:
    """Return F = n L + lambda log n - (m - 1) log log n + C, all arguments broadcast (paper Eq. 10).

    Parameters
    ----------
    n
        Sample size times inverse temperature, >= 1; > 1 where a multiplicity exceeds 1.
    losses, lambdas
        Loss at the minimum of the phase and local learning coefficient (>= 0).
    multiplicities, constants
        m >= 1 and the term of order one.

    Examples
    --------
    >>> free_energy(np.e, [0.0, 1.0], [2.0, 0.5]).round(4)
    array([2.    , 3.2183])
    """
    n, losses, lambdas, multiplicities, constants = _expansion(n, losses, lambdas, multiplicities, constants)
    return n * losses + _slow_terms(n, lambdas, multiplicities, constants)


def phase_weights(
    n: ArrayLike,
    losses: ArrayLike,
    lambdas: ArrayLike,
    *,
    multiplicities: ArrayLike = 1.0,
    constants: ArrayLike = 0.0,
) -> Float[np.ndarray, "... phases"]:
    """Return the posterior weights exp(-F_k) / sum_l exp(-F_l) of competing phases.

    Parameters
    ----------
    n
        Sample sizes of any shape, 1 <= n <= 1e300.
    losses, lambdas, multiplicities, constants
        As for `free_energy`; the last axis runs over the phases, scalars hold for all of them.

    Returns
    -------
    numpy.ndarray
        Shape ``n.shape + (phases,)``, on the simplex.

    Examples
    --------
    >>> phase_weights([1.0, 1e300], [1.0, 0.0], [0.0, 1.0], constants=[-1.0, 0.0])
    array([[0.5, 0.5],
           [0. , 1. ]])
    """
    n = np.asarray(checks.array("n", n))[..., None]
    n, losses, lambdas, multiplicities, constants = _expansion(n, losses, lambdas, multiplicities, constants)
    with np.errstate(over="ignore"):  # an excess that overflows is a weight of zero
        excess = n * (losses - losses.min(axis=-1, keepdims=True))
    return special.softmax(-(excess + _slow_terms(n, lambdas, multiplicities, constants)), axis=-1)


def _expansion(n: ArrayLike, *terms: ArrayLike) -> tuple[np.ndarray, ...]:
    names = ("losses", "lambdas", "multiplicities", "constants")
    n = checks.array("n", n)
    values = [checks.array(name, value) for name, value in zip(names, terms, strict=True)]
    checks.nonnegative("lambdas", values[1])
    if n.size and n.min() < 1:
        raise ValueError(f"n must be at least 1, but {n.min()} was given: the expansion holds for large n.")
    if values[2].size and values[2].min() < 1:
        raise ValueError(f"a multiplicity is at least 1, but {values[2].min()} was given.")
    n, *values = np.broadcast_arrays(n, *values)
    if np.any((n == 1) & (values[2] > 1)):
        raise ValueError("log log n has no value at n = 1; give n > 1 where a multiplicity exceeds 1.")
    return n, *values


def _slow_terms(n: np.ndarray, lambdas: np.ndarray, multiplicities: np.ndarray, constants: np.ndarray) -> np.ndarray:
    log_n = np.log(n)
    return lambdas * log_n - special.xlogy(multiplicities - 1, log_n) + constants


def transition_sample_size(
    delta_loss: ArrayLike, delta_lambda: ArrayLike, delta_constant: ArrayLike = 0.0
) -> Float[np.ndarray, "..."]:
    r"""Return the sample size at which a complex phase V overtakes a simple phase U (Type A transition, paper A.2).

    With c = -delta_loss / delta_lambda the free energies cross where :math:`\log n = n c`. The root that matters is
    :math:`n_* = e^{-W_{-1}(-c)} > e`, after which V wins for good. The other one, :math:`e^{-W_0(-c)}` in (1, e), lies
    where the expansion means nothing (there V would lose its lead because log n outgrows n c) and is rejected. A
    difference of constants shifts the condition to :math:`\log n + \delta C / \delta\lambda = n c`.

    Parameters
    ----------
    delta_loss, delta_lambda, delta_constant
        V minus U of loss (< 0), learning coefficient (> 0) and order-one term of the free energy; they broadcast.

    Returns
    -------
    numpy.ndarray
        n*, relative error a few eps times n* c / (n* c - 1), the condition number; infinite beyond 1e308. In an array,
        nan marks pairs without transition.

    Raises
    ------
    ValueError
        If a sign is wrong, or if scalars are given and c >= exp(delta_constant / delta_lambda - 1), 1/e without
        constants: then V wins at every n.

    Examples
    --------
    >>> n = transition_sample_size(-0.1, 1.0)
    >>> float(n.round(4)), bool(np.isclose(np.log(n) / n, 0.1))
    (35.7715, True)
    """
    delta_loss, delta_lambda, delta_constant = np.broadcast_arrays(
        checks.array("delta_loss", delta_loss),
        checks.array("delta_lambda", delta_lambda),
        checks.array("delta_constant", delta_constant),
    )
    if np.any(delta_loss >= 0) or np.any(delta_lambda <= 0):
        raise ValueError(
            "a Type A transition trades complexity for loss: it needs delta_loss < 0 and delta_lambda > 0, but the "
            f"largest delta_loss is {delta_loss.max()} and the smallest delta_lambda is {delta_lambda.min()}; exchange "
            "the phases, or use type_b_transition for equal losses."
        )
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        c, shift = -delta_loss / delta_lambda, delta_constant / delta_lambda
        excess = shift - (np.log(c) + 1)
        n = np.where(np.isposinf(excess), np.inf, _larger_root(excess) / c)
    if n.ndim == 0 and np.isnan(n):
        raise ValueError(
            f"c = -delta_loss / delta_lambda = {c:.6g} is not below {np.exp(shift - 1):.6g}, so the phase of lower "
            "loss has the lower free energy at every n and there is no transition."
        )
    return n


def _larger_root(excess: np.ndarray) -> np.ndarray:
    """Return y > 1 with y - 1 - log y = excess, nan where excess <= 0; that is -W_{-1}(-exp(-1 - excess))."""
    excess = np.where(excess > 0, excess, np.nan)
    u = excess + np.sqrt(2 * excess)  # above the root, so that Newton's iteration on a convex function decreases to it
    for _ in range(12):
        u = u - (u - np.log1p(u) - excess) * (1 + u) / u
    return 1 + u


@dataclass(frozen=True)
class Crossing:
    """Outcome of a competition between phases of equal loss.

    Parameters
    ----------
    winner
        "U", "V" or "tie": the phase of lower free energy for n to infinity.
    log_n
        The values of log n > 0 at which the order changes, ascending. Those of order one say little: the free energies
        are expansions for large n.
    """

    winner: str
    log_n: tuple[float, ...]


def type_b_transition(delta_lambda: float, delta_multiplicity: float = 0.0, delta_constant: float = 0.0) -> Crossing:
    r"""Return who wins between phases of equal loss, and where the order changes (Type B transition, paper A.2).

    With x = log n, F_V - F_U = delta_lambda x - delta_multiplicity log x + delta_constant: the smaller learning
    coefficient wins in the end, then the larger multiplicity, then the smaller constant. A constant in favour of the
    more complex phase delays that to :math:`x = -\delta C / \delta\lambda`.

    Parameters
    ----------
    delta_lambda, delta_multiplicity, delta_constant
        V minus U of learning coefficient, multiplicity and order-one term.

    Examples
    --------
    >>> type_b_transition(-0.5, delta_constant=3.0)
    Crossing(winner='V', log_n=(6.0,))
    >>> type_b_transition(0.0, delta_multiplicity=1.0).winner
    'V'
    """
    slope = float(checks.array("delta_lambda", delta_lambda, ndim=0))
    bend = float(checks.array("delta_multiplicity", delta_multiplicity, ndim=0))
    constant = float(checks.array("delta_constant", delta_constant, ndim=0))
    leading = next((term for term in (slope, -bend, constant) if term != 0), 0.0)
    winner = "tie" if leading == 0 else "V" if leading < 0 else "U"
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if slope == 0:
            roots = [float(np.exp(np.float64(constant) / bend))] if bend else []
        elif bend == 0:
            roots = [-constant / slope]
        else:
            ratio, shift = bend / slope, constant / slope
            level = np.asarray(np.log(abs(ratio)) - shift / ratio)  # x = |ratio| y
            if ratio < 0:  # y + log y = -shift/|ratio| - log|ratio|
                roots = [-ratio * float(special.wrightomega(-level))]
            else:  # y - log y = level
                larger = float(_larger_root(level - 1))
                smaller = -float(np.real(special.lambertw(-np.exp(-level))))
                roots = [] if np.isnan(larger) else [ratio * smaller, ratio * larger]
    return Crossing(winner, tuple(root for root in roots if root > 0))


def product_moments(
    n: ArrayLike,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    r"""Return log Z, E[nK] and Var(nK) of K = w_1^2 w_2^2 on the unit square with uniform prior.

    .. math::
        Z = {}_2F_2(\tfrac12, \tfrac12; \tfrac32, \tfrac32; -n)
          = \frac{\sqrt\pi}{4 \sqrt n} (\log n + \gamma_E + 2 \log 2) + O(e^{-n} n^{-2}) ,

    so lambda = 1/2 and m = 2. One weight is integrated in closed form; over the other one the incomplete gamma function
    that remains is integrated by Gauss-Legendre quadrature for n <= 64, and beyond that through its limit, which is
    exact to rounding there.

    Parameters
    ----------
    n
        Sample sizes >= 0 of any shape, up to 1e300.

    Examples
    --------
    >>> log_z, mean, variance = product_moments([0.0, 1e300])
    >>> log_z[0], (mean[1] < 0.5), (0.5 - mean[1] < 2e-3)
    (np.float64(0.0), np.True_, np.True_)
    """
    n = checks.nonnegative("n", n)
    a = np.sqrt(n)
    moments = []
    for power in range(3):  # integral of (nK)^power exp(-nK)
        s = power + 0.5
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = special.gamma(s) * (np.log(a) - special.digamma(s) / 2) / (2 * a)
        v = np.minimum(a, 8.0)[..., None] * (1 + _GAUSS_NODES) / 2
        # gamma(s, v^2) / (2v) = v^(2 power) M(s, s+1, -v^2) / (2s), which has no quotient of small numbers
        within = (v ** (2 * power) * special.hyp1f1(s, s + 1, -(v**2)) / (2 * s)) @ _GAUSS_WEIGHTS / 2
        moments.append(np.where(a > 8, beyond, within))
    z, first, second = moments
    return np.log(z), first / z, second / z - (first / z) ** 2


def power_moments(
    n: ArrayLike, k: int, *, bound: float = np.inf
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    r"""Return log Z, E[nK] and Var(nK) of K = w^{2k} with Lebesgue measure on [0, bound].

    On the half-line E[nK] = Var(nK) = 1/(2k) = lambda at every n. On the symmetric interval only Z changes: it doubles.

    Parameters
    ----------
    n
        Sample sizes > 0 of any shape.
    k
        Half the power, >= 1.
    bound
        Upper limit, positive, may be infinite.

    Examples
    --------
    >>> power_moments(100.0, k=2)[1:]
    (array(0.25), array(0.25))
    """
    n, k = checks.nonnegative("n", n), checks.integer("k", k, at_least=1)
    if np.any(n == 0):
        raise ValueError("n must be positive: at n = 0 the half-line has no normalised posterior.")
    if not bound > 0:
        raise ValueError(f"bound must be positive (or infinite), but {bound} was given.")
    s = 1 / (2 * k)
    x = n * float(bound) ** (2 * k)
    mass, first, second = (special.gammainc(s + power, x) for power in range(3))
    mean = s * first / mass
    log_z = special.gammaln(1 + s) - s * np.log(n) + np.log(mass)
    return np.asarray(log_z), np.asarray(mean), np.asarray(s * (s + 1) * second / mass - mean**2)


@dataclass(frozen=True, eq=False)
class TemperedPosterior:
    """Exact posterior expectations of m losses, in total and within K phases; shapes start with that of `n_beta`.

    Parameters
    ----------
    n_beta
        Sample size times inverse temperature.
    phase_log_evidences, phase_means, phase_covariances
        log Z_k (..., K), E[l | k] (..., K, m) and Cov(l_i, l_j | k) (..., K, m, m).
    errors
        Estimated error of log Z_k, of means in standard deviations and of covariances in their products, (..., K).
    """

    n_beta: np.ndarray
    phase_log_evidences: np.ndarray
    phase_means: np.ndarray
    phase_covariances: np.ndarray
    errors: np.ndarray

    @property
    def free_energy(self) -> Float[np.ndarray, "..."]:
        """F = -log Z over all phases."""
        return -np.asarray(special.logsumexp(self.phase_log_evidences, axis=-1))

    @property
    def phase_weights(self) -> Float[np.ndarray, "... phases"]:
        """Posterior weights of the phases."""
        return special.softmax(self.phase_log_evidences, axis=-1)

    @property
    def mean(self) -> Float[np.ndarray, "... m"]:
        """Posterior expectation of each loss."""
        return np.einsum("...k,...ki->...i", self.phase_weights, self.phase_means)

    @property
    def covariance(self) -> Float[np.ndarray, "... m m"]:
        """Posterior covariance of the losses: within the phases plus between them."""
        weights, off = self.phase_weights, self.phase_means - self.mean[..., None, :]
        return np.einsum("...k,...kij->...ij", weights, self.phase_covariances) + np.einsum(
            "...k,...ki,...kj->...ij", weights, off, off
        )

    @property
    def influence(self) -> Float[np.ndarray, "... m m"]:
        """Bayesian influence -(n_beta / m) Cov(l_i, l_j): derivative of E[l_j] with respect to the weight of i."""
        return -self.n_beta[..., None, None] / self.phase_means.shape[-1] * self.covariance


def tempered_posterior(
    losses: Callable[[np.ndarray], np.ndarray],
    boxes: ArrayLike,
    n_beta: ArrayLike,
    *,
    log_prior: Callable[[np.ndarray], np.ndarray] | None = None,
    sample_weights: ArrayLike | None = None,
    points: ArrayLike | None = None,
    rtol: float = 1e-8,
    max_cells: int = 20_000,
) -> TemperedPosterior:
    r"""Return the posterior :math:`p \propto \varphi(w) \exp(-n_\beta \frac1m \sum_i \beta_i l_i(w))` by quadrature.

    Every box is covered by cells with tensor Clenshaw-Curtis rules, halved where the embedded rule disagrees, and where
    the log density could rise between nodes, by as much as it varies over the nodes, to a level that counts. Cells
    therefore thin out geometrically away from a peak, and a peak of width :math:`n^{-1/2}` costs of order log n cells.
    Structure of the losses finer than the first mesh, 48 intervals an axis, must be announced through `points`.

    Parameters
    ----------
    losses
        Takes weights (points, d), returns the m losses (points, m); d is 1 or 2.
    boxes
        One box a phase, shape (K, d, 2) with lower and upper limits; disjoint.
    n_beta
        Sample size times inverse temperature, >= 0, any shape.
    log_prior
        Takes weights (points, d), returns log prior density up to a constant (points,), finite; uniform if not given.
    sample_weights
        beta_i, shape (m,), all one if not given.
    points
        Weights (p, d) on which cell edges are placed, for example known minima.
    rtol
        Error allowed in log Z_k, and in moments relative to standard deviations.
    max_cells
        Most cells for one box.

    Raises
    ------
    ValueError
        If a box is empty or overlaps another, a shape is wrong, a loss is not finite, or n_beta times the loss at the
        peak is so large that its rounding exceeds `rtol`.
    RuntimeError
        If the tolerance is not reached with `max_cells` cells.

    Examples
    --------
    >>> result = tempered_posterior(lambda w: w**2 / 2, [[[-8.0, 8.0]]], 4.0)
    >>> result.mean.round(6), result.covariance.round(6)
    (array([0.125]), array([[0.03125]]))
    """
    boxes = _checked_boxes(boxes)
    n_beta = checks.nonnegative("n_beta", n_beta)
    rtol, max_cells = checks.positive("rtol", rtol), checks.integer("max_cells", max_cells, at_least=1)
    d = boxes.shape[1]
    points = np.empty((0, d)) if points is None else checks.matrix("points", points, (None, d))
    if sample_weights is not None:
        sample_weights = checks.array("sample_weights", sample_weights, ndim=1)

    def evaluate(scale: float, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = _checked_values("losses", losses(w), len(w), 2)
        beta = np.ones(values.shape[1]) if sample_weights is None else sample_weights
        if beta.shape != values.shape[1:]:
            raise ValueError(f"sample_weights has shape {beta.shape}, but there are {values.shape[1]} losses.")
        log_density = -scale / len(beta) * (values @ beta)
        if log_prior is not None:
            log_density = log_density + _checked_values("log_prior", log_prior(w), len(w), 1)
        return values, log_density

    parts = [
        [_integrate(box, partial(evaluate, scale), points, rtol, max_cells) for box in boxes]
        for scale in n_beta.ravel().tolist()
    ]
    stacked = [np.array([[phase[i] for phase in row] for row in parts]) for i in range(4)]
    log_z, means, covariances, errors = (a.reshape(n_beta.shape + a.shape[1:]) for a in stacked)
    return TemperedPosterior(n_beta, log_z, means, covariances, errors)


def _checked_boxes(boxes: ArrayLike) -> Float[np.ndarray, "k d 2"]:
    boxes = checks.array("boxes", boxes, ndim=3)
    if len(boxes) == 0 or boxes.shape[1] not in (1, 2) or boxes.shape[2] != 2:
        raise ValueError(
            f"boxes must have shape (phases, 1 or 2 dimensions, 2 limits), but its shape is {boxes.shape}."
        )
    if np.any(boxes[..., 0] >= boxes[..., 1]):
        raise ValueError("every box needs a lower limit below its upper limit.")
    overlap = np.minimum(boxes[:, None, :, 1], boxes[:, :, 1]) - np.maximum(boxes[:, None, :, 0], boxes[:, :, 0])
    pairs = np.argwhere(np.triu(np.all(overlap > 0, axis=-1), 1))
    if len(pairs):
        raise ValueError(f"boxes {pairs[0][0]} and {pairs[0][1]} overlap; phases must be disjoint.")
    return boxes


def _checked_values(name: str, values: ArrayLike, n_points: int, ndim: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != ndim or len(values) != n_points:
        wanted = f"({n_points}, m)" if ndim == 2 else f"({n_points},)"
        raise ValueError(f"{name} returned shape {values.shape} for {n_points} points; {wanted} is needed.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is not finite everywhere in the boxes; shrink the boxes to where it is.")
    return values


def _rules(d: int) -> tuple[Float[np.ndarray, "q d"], Float[np.ndarray, " q"], Float[np.ndarray, "q d"]]:
    """Return nodes on [0, 1]^d, weights, and the weights' differences from the rule with fewer nodes along one axis."""

    def clenshaw_curtis(order: int) -> Float[np.ndarray, " q"]:
        k = np.arange(order + 1)
        moments = np.where(k % 2 == 0, 1 / (1 - k**2 + (k == 1)), 0.0)
        return np.linalg.solve(chebyshev.chebvander(np.cos(np.pi * k / order), order).T, moments)

    nodes = (1 + np.cos(np.pi * np.arange(_ORDER + 1) / _ORDER)) / 2
    fine = clenshaw_curtis(_ORDER)
    change = fine.copy()
    change[::2] -= clenshaw_curtis(_ORDER // 2)
    if d == 1:
        return nodes[:, None], fine, change[:, None]
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    changes = np.stack([np.outer(change, fine).ravel(), np.outer(fine, change).ravel()], axis=-1)
    return grid, np.outer(fine, fine).ravel(), changes


def _integrate(
    box: Float[np.ndarray, "d 2"],
    evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    points: Float[np.ndarray, "p d"],
    rtol: float,
    max_cells: int,
) -> tuple[float, Float[np.ndarray, " m"], Float[np.ndarray, "m m"], float]:
    d = len(box)
    nodes, fine, changes = _rules(d)

    def values_in(lower: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w = lower[:, None] + width[:, None] * nodes
        values, log_density = evaluate(w.reshape(-1, d))
        return values.reshape(len(w), len(nodes), -1), log_density.reshape(len(w), len(nodes))

    lower, width = _first_cells(box, points)
    values, log_density = values_in(lower, width)
    while True:
        top = log_density.max()
        log_volume = np.log(width).sum(axis=1)
        mass = np.exp(log_density - top + log_volume[:, None])
        z = float(np.sum(mass @ fine))
        share = mass * fine / z
        origin = values.reshape(-1, values.shape[-1])[log_density.argmax()]
        off = np.einsum("cq,cqi->i", share, values - origin)
        centred = values - origin - off
        covariance = np.einsum("cq,cqi,cqj->ij", share, centred, centred, optimize=True)
        # a loss that varies by its rounding only cannot be resolved relative to its own standard deviation
        rounding = np.finfo(float).eps * np.abs(origin) / rtol
        smallest = 1e-100 * np.abs(centred).max(axis=(0, 1)) + np.finfo(float).tiny  # squares must not overflow
        scaled = centred / np.maximum(np.sqrt(np.diag(covariance)), np.maximum(rounding, smallest))
        monitors = (mass / z)[..., None] * np.concatenate([np.ones_like(scaled[..., :1]), (1 + scaled) ** 2], axis=-1)
        errors = np.abs(np.einsum("cqf,qa->caf", monitors, changes)).max(axis=-1)
        error = float(errors.sum())

        highest = log_density.max(axis=1)
        spread = highest - log_density.min(axis=1)
        counts = highest + spread + log_volume > top + np.log(z) + np.log(rtol) - np.log(1e3 * len(width))
        unresolved = counts & (spread > _MOST_SPREAD)
        if error <= rtol and not unresolved.any():
            break
        # standard deviations, and with them the error estimates, mean nothing before the peak is resolved
        split = unresolved if unresolved.any() else errors.sum(axis=1) > rtol / (2 * len(width))
        if len(width) + split.sum() > max_cells:
            raise RuntimeError(
                f"the quadrature needs more than {max_cells} cells: its error estimate is {error:.2g}, not {rtol:.2g}; "
                "give minima as points, narrower boxes, a larger rtol or more cells."
            )
        variation = np.stack(
            [np.ptp(log_density.reshape(-1, *[_ORDER + 1] * d), axis=1 + a).reshape(len(width), -1) for a in range(d)],
            axis=1,
        ).max(axis=-1)
        axis = np.where(unresolved[:, None], variation, errors).argmax(axis=1)[split]
        half = np.where(np.arange(d) == axis[:, None], width[split] / 2, width[split])
        second = lower[split] + np.where(half < width[split], half, 0.0)
        new_lower, new_width = np.concatenate([lower[split], second]), np.concatenate([half, half])
        new_values, new_log_density = values_in(new_lower, new_width)
        lower, width = np.concatenate([lower[~split], new_lower]), np.concatenate([width[~split], new_width])
        values = np.concatenate([values[~split], new_values])
        log_density = np.concatenate([log_density[~split], new_log_density])
    noise = 4 * np.finfo(float).eps * abs(top)
    if noise > rtol:
        raise ValueError(
            f"the log density at its peak is {top:.3g}, so rounding alone makes it wrong by {noise:.2g}, more than "
            f"rtol = {rtol:.2g}; subtract the smallest loss from the losses, or raise rtol."
        )
    return float(top + np.log(z)), origin + off, covariance, error + noise


def _first_cells(
    box: Float[np.ndarray, "d 2"], points: Float[np.ndarray, "p d"]
) -> tuple[Float[np.ndarray, "c d"], Float[np.ndarray, "c d"]]:
    lowers, widths = [], []
    for axis, (low, high) in enumerate(box):
        inside = points[(points[:, axis] > low) & (points[:, axis] < high), axis]
        edges = np.unique(np.concatenate([np.linspace(low, high, _START + 1), inside]))
        lowers.append(edges[:-1])
        widths.append(np.diff(edges))
    return tuple(  # type: ignore[return-value]
        np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, len(box)) for sides in (lowers, widths)
    )
