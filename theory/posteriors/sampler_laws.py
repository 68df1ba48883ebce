r"""Stationary laws of discretised Langevin samplers on a quadratic, and of one with a preconditioner that adapts.

A sampler of diagonal step G on a Gaussian of precision A converges not to :math:`A^{-1}` but to

.. math:: \Sigma = (A - \tfrac14 A G A)^{-1} ,

and one whose step follows the gradient at once, as paper Algorithm 1, not to p but to p / G.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks
from theory.posteriors.local_posterior import symmetric_hessians, symmetrised
from theory.posteriors.quadrature import tempered_posterior

__all__ = [
    "AdaptiveLimit",
    "StationaryLaw",
    "adaptive_limit",
    "covariance_standard_error",
    "loss_autocorrelation_times",
    "stationary_law",
]


@dataclass(frozen=True, eq=False)
class StationaryLaw:
    r"""Stationary Gaussian of a Langevin chain on a quadratic, in the modes in which the chain decouples.

    Parameters
    ----------
    modes
        Matrix M, shape (d, d), with w - <w> = M z for independent unit autoregressive processes z_a.
    autocorrelations
        Their lag-one autocorrelations rho_a = 1 - s_a / 2, ascending, shape (d,).
    drifts
        The s_a themselves, which short steps round off from the autocorrelations.
    """

    modes: np.ndarray
    autocorrelations: np.ndarray
    drifts: np.ndarray

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """Stationary covariance of the weights."""
        return self.modes @ self.modes.T

    @property
    def autocorrelation_times(self) -> Float[np.ndarray, " d"]:
        """Integrated autocorrelation times (1 + rho) / (1 - rho) of the modes, in steps."""
        return 4 / self.drifts - 1


def stationary_law(precision: ArrayLike, step: ArrayLike) -> StationaryLaw:
    r"""Return the stationary law of w <- w - G A (w - mu) / 2 + G^{1/2} xi, xi ~ N(0, I), G diagonal and fixed.

    In y = G^{-1/2} (w - mu) the chain has the symmetric drift S = G^{1/2} A G^{1/2} with eigenvalues s_a, and

    .. math::
        \Sigma = G^{1/2} \left(S - \tfrac14 S^2\right)^{-1} G^{1/2} = \left(A - \tfrac14 A G A\right)^{-1} ,

    which exists if and only if every s_a < 4. For SGLD with step eps on eigenvalue h: s = eps h, the variance is
    1 / (h (1 - eps h / 4)) and the autocorrelation 1 - eps h / 2.

    Parameters
    ----------
    precision
        A = n_beta H + gamma I, symmetric positive definite, shape (d, d).
    step
        G: the step eps of SGLD, or d steps of a frozen diagonal preconditioner.

    Raises
    ------
    ValueError
        If A is not positive definite or a step is not positive, or if the chain diverges; the sentence names the
        factor by which to shorten the steps.

    Examples
    --------
    >>> law = stationary_law(np.diag([1.0, 2.0]), 0.5)
    >>> law.covariance.diagonal() * [1.0 * (1 - 0.5 / 4), 2.0 * (1 - 1.0 / 4)]
    array([1., 1.])
    """
    precision = checks.matrix("precision", precision)
    d = len(precision)
    precision = symmetrised("precision", checks.matrix("precision", precision, (d, d)))
    step = checks.array("step", step)
    if step.shape not in ((), (d,)):
        raise ValueError(f"step has shape {step.shape}, but one step or {d} of them are needed.")
    if step.min() <= 0:
        raise ValueError(f"every step must be positive, but the smallest is {step.min()}.")
    root = np.sqrt(np.broadcast_to(step, d))
    s, vectors = np.linalg.eigh(root[:, None] * precision * root)
    if s[0] <= d * np.finfo(float).eps * np.abs(s).max():
        raise ValueError(
            "precision must be positive definite, but its smallest eigenvalue is "
            f"{np.linalg.eigvalsh(precision)[0]:.6g}; raise the localization."
        )
    if s[-1] >= 4:
        largest, factor = (checks.told_apart(float(x), y)[0] for x, y in ((s[-1], 4.0), (s[-1] / 4, 1.0)))
        raise ValueError(
            f"the chain diverges: step times precision has eigenvalue {largest}, but it must be below 4; shorten the "
            f"steps by a factor of more than {factor}."
        )
    s, vectors = s[::-1], vectors[:, ::-1]
    return StationaryLaw(root[:, None] * vectors / np.sqrt(s * (1 - s / 4)), 1 - s / 2, s)


def loss_autocorrelation_times(
    gradients: ArrayLike, hessians: ArrayLike, law: StationaryLaw
) -> Float[np.ndarray, " n"]:
    r"""Return the integrated autocorrelation time of each quadratic loss along a chain.

    The mean of T draws of l_i has variance tau_i Var(l_i) / T for T >> tau_i. Linear parts decay as rho_a, quadratic
    ones as rho_a rho_b.

    Parameters
    ----------
    gradients
        Gradients at the mean of the weights, shape (N, d).
    hessians
        Shape (N, d, d), or (d, d) for all alike.
    law
        Stationary law of the chain.

    Returns
    -------
    numpy.ndarray
        In steps, shape (N,); nan for a loss that does not vary.

    Examples
    --------
    >>> loss_autocorrelation_times([[1.0], [0.0]], [[[0.0]], [[1.0]]], stationary_law([[1.0]], 0.4)).round(6)
    array([9.      , 4.555556])
    """
    law = _checked_law(law)
    gradients = checks.matrix("gradients", gradients, (None, len(law.modes)))
    hessians = symmetric_hessians(hessians, *gradients.shape)
    along, curved = gradients @ law.modes, law.modes.T @ hessians @ law.modes
    # a loss in its own units: its scale does not count, and its fourth power could leave the range
    unit = np.maximum(np.abs(along).max(axis=1), np.abs(curved).max(axis=(1, 2)))
    unit = np.where(unit > 0, unit, 1.0)
    linear = (along / unit[:, None]) ** 2
    quadratic = (curved / unit[:, None, None]) ** 2 / 2
    summed = linear @ law.autocorrelation_times + np.einsum("nab,ab->n", quadratic, _pair_times(law))
    variance = linear.sum(axis=1) + quadratic.sum(axis=(1, 2))
    return np.divide(summed, variance, out=np.full(len(gradients), np.nan), where=variance > 0)


def covariance_standard_error(gradients: ArrayLike, law: StationaryLaw, draws: int) -> Float[np.ndarray, "n n"]:
    """Return the standard error of the sample covariance of losses from one chain, to leading order in 1 / draws.

    Losses count as linear on the scale of the posterior, as under strong localization.

    Parameters
    ----------
    gradients
        Gradients at the mean of the weights, shape (N, d).
    law
        Stationary law of the chain.
    draws
        Number of consecutive steps used, many autocorrelation times.

    Examples
    --------
    >>> covariance_standard_error([[1.0]], stationary_law([[1.0]], 2.0), draws=200)
    array([[0.2]])
    """
    law = _checked_law(law)
    along = checks.matrix("gradients", gradients, (None, len(law.modes))) @ law.modes
    draws = checks.integer("draws", draws, at_least=2)
    unit = np.abs(along).max(axis=1)
    along = along / np.where(unit > 0, unit, 1.0)[:, None]
    times = _pair_times(law)
    # sum over lags k of c_ii(k) c_jj(k) + c_ij(k)^2, c_ij(k) = sum_a along_ia along_ja rho_a^|k|
    own = along**2 @ times @ (along**2).T
    products = along[:, None] * along
    crossed = np.einsum("ija,ab,ijb->ij", products, times, products, optimize=True)
    with np.errstate(over="ignore"):
        errors = np.sqrt((own + crossed) / draws) * unit[:, None] * unit
    return checks.representable("the standard error", errors)


def _checked_law(law: StationaryLaw) -> StationaryLaw:
    return checks.instance("law", law, StationaryLaw, made_by="stationary_law(precision, step)")


def _pair_times(law: StationaryLaw) -> Float[np.ndarray, "d d"]:
    """Return (1 + rho_a rho_b) / (1 - rho_a rho_b), whose denominator would cancel at short steps."""
    s = law.drifts
    lost = (s[:, None] + s) / 2 - s[:, None] * s / 4
    return (2 - lost) / lost


@dataclass(frozen=True)
class AdaptiveLimit:
    """First two moments of a one-dimensional posterior and of the law a fast preconditioner samples in its place.

    Parameters
    ----------
    mean, variance
        Of the limit law, which is proportional to p / G.
    posterior_mean, posterior_variance
        Of p.
    """

    mean: float
    variance: float
    posterior_mean: float
    posterior_variance: float

    @property
    def variance_ratio(self) -> float:
        """Variance sampled over variance wanted."""
        return self.variance / self.posterior_variance


def adaptive_limit(
    log_posterior: Callable[[np.ndarray], np.ndarray],
    loss_gradient: Callable[[np.ndarray], np.ndarray],
    damping: float,
    bounds: tuple[float, float],
) -> AdaptiveLimit:
    r"""Return the law of paper Algorithm 1 in one dimension when V follows the squared gradient at once.

    With a step :math:`G(w) \propto 1 / (|\nabla L(w)| + a)` that depends on w and no divergence term, the stationary
    equation (G q)' = -U' G q of dw = -G U'/2 dt + G^{1/2} dB gives q proportional to p / G. It is the limit of small
    steps at any fixed decay rate b < 1, for V then follows the slow weights; V that remembers longer than the weights
    take to move (b close to 1 at finite steps) is biased less.

    Parameters
    ----------
    log_posterior
        log p up to a constant, vectorised: shape (points,) to (points,).
    loss_gradient
        What the preconditioner squares (the paper leaves open whether n_beta is in it), vectorised likewise.
    damping
        a > 0, in units of that gradient.
    bounds
        Finite limits that hold all but a negligible part of p.

    Examples
    --------
    >>> limit = adaptive_limit(lambda w: -50 * w**2, lambda w: w, 0.1, (-2.0, 2.0))
    >>> round(limit.variance_ratio, 4)
    1.4438
    """
    checks.function("log_posterior", log_posterior), checks.function("loss_gradient", loss_gradient)
    damping = checks.positive("damping", damping)
    limits = checks.array("bounds", bounds, ndim=1)
    if limits.shape != (2,):
        raise ValueError(f"bounds must be two numbers, a lower and an upper limit, but its shape is {limits.shape}.")

    def moments(log_density: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        law = tempered_posterior(
            lambda w: w, limits.reshape(1, 1, 2), 0.0, log_prior=lambda w: log_density(w[:, 0]), sample_weights=[0.0]
        )
        return law.mean.item(), law.covariance.item()

    limit = moments(lambda w: log_posterior(w) + np.log(np.abs(loss_gradient(w)) + damping))
    return AdaptiveLimit(*limit, *moments(log_posterior))
