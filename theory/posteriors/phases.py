r"""Phases of a posterior: free energies, their crossings, and singular models with exact moments.

A phase with loss L, learning coefficient :math:`\lambda` and multiplicity m has the local free energy (Watanabe 2009;
paper Eq. 10)

.. math:: F(n) = n L + \lambda \log n - (m - 1) \log\log n + C .

`theory.posteriors.quadrature` integrates the posterior itself, so that what the expansion says of weights and influence
can be checked without sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre
from numpy.typing import ArrayLike
from scipy import special

from theory import checks
from theory.arithmetic import product

__all__ = [
    "Crossing",
    "free_energy",
    "phase_weights",
    "power_moments",
    "product_moments",
    "transition_sample_size",
    "type_b_transition",
]

_GAUSS_NODES, _GAUSS_WEIGHTS = legendre.leggauss(80)


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
    with np.errstate(over="ignore", invalid="ignore"):
        return checks.representable("the free energy", n * losses + _slow_terms(n, lambdas, multiplicities, constants))


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
    sizes = np.asarray(checks.array("n", n))[..., None]
    sizes, loss, slope, power, offset = _expansion(sizes, losses, lambdas, multiplicities, constants)
    with np.errstate(over="ignore", invalid="ignore"):
        energy = sizes * loss + _slow_terms(sizes, slope, power, offset)
        if energy.size:
            checks.representable("the free energy of every phase", energy.min(axis=-1))
            # Term by term relative to the winner: what a phase shares with it would cost digits and counts for nothing.
            winner = energy.argmin(axis=-1)[..., None]
            terms = (a - np.take_along_axis(a, winner, axis=-1) for a in (loss, slope, power, offset))
            loss, slope, power, offset = terms
            energy = sizes * loss + _slow_terms(sizes, slope, 1 + power, offset)
    return special.softmax(-energy, axis=-1)


def _expansion(n: ArrayLike, *terms: ArrayLike) -> tuple[np.ndarray, ...]:
    names = ("losses", "lambdas", "multiplicities", "constants")
    n = checks.array("n", n)
    values = [checks.array(name, value) for name, value in zip(names, terms, strict=True)]
    checks.nonnegative("lambdas", values[1])
    if n.size and n.min() < 1:
        raise ValueError(f"n must be at least 1, but {n.min()} was given: the expansion holds for large n.")
    if values[2].size and values[2].min() < 1:
        raise ValueError(f"a multiplicity is at least 1, but {values[2].min()} was given.")
    n, *values = checks.broadcast(n=n, **dict(zip(names, values, strict=True)))
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
        n*, relative error a few eps times n* c / (n* c - 1), the condition number; infinite beyond 1e308. In an array
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
    delta_loss, delta_lambda, delta_constant = checks.broadcast(
        delta_loss=checks.array("delta_loss", delta_loss),
        delta_lambda=checks.array("delta_lambda", delta_lambda),
        delta_constant=checks.array("delta_constant", delta_constant),
    )
    if np.any(delta_loss >= 0) or np.any(delta_lambda <= 0):
        raise ValueError(
            "a Type A transition trades complexity for loss: it needs delta_loss < 0 and delta_lambda > 0, but the "
            f"largest delta_loss is {delta_loss.max()} and the smallest delta_lambda is {delta_lambda.min()}; exchange "
            "the phases, or use type_b_transition for equal losses."
        )
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        c, shift = -delta_loss / delta_lambda, delta_constant / delta_lambda
        representable = (c > 0) & (c < np.inf)
        log_c = np.where(representable, np.log(c), np.log(-delta_loss) - np.log(delta_lambda))
        root = _larger_root(np.asarray(shift - (log_c + 1)))
        n = np.where(representable, root / c, product(root, delta_lambda, over=(-delta_loss,)))
        n = np.where(np.isposinf(shift), product(delta_constant, over=(-delta_loss,)), n)  # log n counts for nothing
    if n.ndim == 0 and np.isnan(n):
        raise ValueError(
            f"c = -delta_loss / delta_lambda {_relation(float(c), float(log_c), float(shift))}, so the phase of lower "
            "loss has the lower free energy at every n and there is no transition."
        )
    return n


def _relation(c: float, log_c: float, shift: float) -> str:
    """Say in which digits, or logarithms, c is not below exp(shift - 1)."""
    with np.errstate(over="ignore", under="ignore"):
        limit = float(np.exp(shift - 1))
    if 0 < limit < np.inf and 0 < c < np.inf and c != limit:
        return "= {} is not below {}".format(*checks.told_apart(c, limit))
    return "has the logarithm {}, which is not below {}".format(*checks.told_apart(log_c, shift - 1))


def _larger_root(excess: np.ndarray) -> np.ndarray:
    """Return y > 1 with y - 1 - log y = excess, nan where excess <= 0; that is -W_{-1}(-exp(-1 - excess))."""
    excess = np.where(excess > 0, excess, np.nan)
    u = excess + np.sqrt(2) * np.sqrt(
        excess
    )  # above the root, so that Newton's iteration on a convex function decreases to it
    for _ in range(12):
        u = u - (u - np.log1p(u) - excess) * (1 + u) / u
    return np.asarray(1 + u)


def _smaller_root(excess: float) -> float:
    """Return y < 1 with y - 1 - log y = excess > 0, from z = -log y, in which Newton's iteration decreases to it."""
    z = min(1 + excess, excess + np.sqrt(2 * excess))
    for _ in range(12):
        z -= (z + np.expm1(-z) - excess) / -np.expm1(-z)
    return float(np.exp(-z))


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
                larger = float(_larger_root(np.asarray(level - 1)))
                roots = [] if np.isnan(larger) else [ratio * _smaller_root(float(level - 1)), ratio * larger]
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
    # 1 - Z to all its digits where it is small, from the moments 1 / (2k + 1)^2 of K^k
    order = np.arange(1, 24)
    few = np.minimum(n, 1.0)[..., None] ** order
    below = (few * ((-1.0) ** order / (special.factorial(order) * (2 * order + 1) ** 2))).sum(axis=-1)
    return (
        np.asarray(np.where(n < 1, np.log1p(below), np.log(z))),
        np.asarray(first / z),
        np.asarray(second / z - (first / z) ** 2),
    )


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
    limit = checks.times("bound", bound, allow_infinite=True)
    if limit.ndim or not limit > 0:
        raise ValueError(f"bound must be positive (or infinite), but {bound} was given.")
    s = 1 / (2 * k)
    with np.errstate(over="ignore", under="ignore"):
        x = (n**s * limit) ** (2 * k)
    few = x < 1e-20  # the posterior is all but uniform, and ratios of the masses would be of numbers that underflow
    mass, first, second = (special.gammainc(s + power, np.where(few, 1.0, x)) for power in range(3))
    small = np.where(few, x, 0.0)
    mean = np.where(few, small * s / (s + 1) * (1 - small / (s + 1) / (s + 2)), s * first / mass)
    late = np.where(few, 0.0, mean)
    spread = np.where(few, small * small * s / (s + 1) ** 2 / (s + 2), s * (s + 1) * second / mass - late**2)
    with np.errstate(invalid="ignore"):
        log_z = np.where(
            few, np.log(limit) - small * s / (s + 1), special.gammaln(1 + s) - s * np.log(n) + np.log(mass)
        )
    return np.asarray(log_z), np.asarray(mean), np.asarray(spread)
