r"""Moments of a posterior's phases from draws, with standard errors, and exactly for Gaussian phases.

The standard errors are those of the infinitesimal jackknife: an estimate with influence function :math:`\psi` over n
draws has

.. math:: \mathrm{se} = \Bigl(\sum_s \psi_s^2 / (n (n - 1))\Bigr)^{1/2} .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks
from theory.posteriors.mixtures import decompose_moments

__all__ = ["SampledMixture", "quadratic_loss_moments", "sampled_decomposition"]

_CHUNK_ENTRIES = 2**21  # 16 MiB of products of losses at a time


@dataclass(frozen=True, eq=False)
class SampledMixture:
    """Estimate of a mixture's moments and of its split covariance from n draws.

    Parameters
    ----------
    weights, means, covariances
        Moments of the components, shapes (K,), (K, d), (K, d, d); covariances divide by the weight (ddof = 0).
    within, between, total
        Estimates, shape (d, d); `total` is their sum and the covariance of all draws with ddof = 0.
    within_error, between_error, total_error
        Standard errors for independent draws, to first order in 1 / sqrt(n).
    """

    weights: Float[np.ndarray, " k"]
    means: Float[np.ndarray, "k d"]
    covariances: Float[np.ndarray, "k d d"]
    within: Float[np.ndarray, "d d"]
    between: Float[np.ndarray, "d d"]
    total: Float[np.ndarray, "d d"]
    within_error: Float[np.ndarray, "d d"]
    between_error: Float[np.ndarray, "d d"]
    total_error: Float[np.ndarray, "d d"]


def sampled_decomposition(losses: ArrayLike, phases: ArrayLike) -> SampledMixture:
    r"""Estimate the covariance within and between phases, with standard errors, from draws of a posterior.

    With responsibilities r_k of a draw x, estimates have the influence functions
    :math:`\psi_{within} = \sum_k r_k (x - \mu_k)(x - \mu_k)^T - \text{within}`,
    :math:`\psi_{total} = (x - \mu)(x - \mu)^T - \text{total}` and their difference for between; the standard error is
    :math:`(\sum \psi^2 / (n (n - 1)))^{1/2}`. Draws of a chain are correlated: thin them to about their effective
    number first.

    Parameters
    ----------
    losses
        Losses of d samples at n >= 2 draws, shape (n, d).
    phases
        Either the phase of each draw, whole numbers 0..K-1 of shape (n,), each phase at least once; or responsibilities
        of shape (n, K), each row on the simplex, each column with a positive entry.

    Raises
    ------
    ValueError
        If the shapes do not fit, there are fewer than two draws, or a phase has no draw.
    TypeError
        If labels are not whole numbers.

    Examples
    --------
    >>> sampled = sampled_decomposition([[0.0], [2.0], [5.0], [7.0]], [0, 0, 1, 1])
    >>> sampled.within, sampled.between, sampled.total
    (array([[1.]]), array([[6.25]]), array([[7.25]]))
    """
    losses = checks.matrix("losses", losses)
    n, d = losses.shape
    if n < 2:
        raise ValueError("losses has one draw, but a covariance needs at least two.")
    share = _responsibilities(phases, n)
    mass = share.sum(axis=0)
    if mass.min() == 0:
        raise ValueError(
            f"phase {int(mass.argmin())} has no draw, so it has no mean; number the phases that occur 0..K-1."
        )
    origin = losses.mean(axis=0)
    x = losses - origin
    x -= x.mean(axis=0)  # a second pass removes what rounding left of a large offset
    unit = np.ldexp(1.0, int(np.frexp(np.abs(x).max())[1]))  # so that no fourth power leaves the range
    x /= unit
    means = share.T @ x / mass[:, None]
    rooted = np.sqrt(share).T[:, :, None] * (x - means[:, None])
    covariances = np.swapaxes(rooted, 1, 2) @ rooted / mass[:, None, None]
    weights = mass / mass.sum()
    parts = decompose_moments(weights, means, covariances)
    squares = np.zeros((3, d, d))
    step = max(1, _CHUNK_ENTRIES // d**2)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        total = x[rows, :, None] * x[rows, None, :] - parts.total
        within = np.einsum("kni,knj->nij", rooted[:, rows], rooted[:, rows]) - parts.within
        for square, influence in zip(squares, (within, total - within, total), strict=True):
            square += np.sum(influence**2, axis=0)
    errors = np.sqrt(squares / n / (n - 1))
    scaled = (covariances, parts.within, parts.between, parts.total, *errors)
    with np.errstate(over="ignore"):
        squared = [checks.representable("the covariance of the losses", a * unit * unit) for a in scaled]
    return SampledMixture(weights, origin + unit * means, *squared)


def quadratic_loss_moments(
    component_means: ArrayLike,
    component_covariances: ArrayLike,
    hessians: ArrayLike,
    gradients: ArrayLike,
    constants: ArrayLike,
) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, "k n n"]]:
    r"""Return mean and covariance of quadratic losses in each Gaussian component of a mixture over weights, exactly.

    For :math:`l_i(w) = \tfrac12 w^T H_i w + b_i^T w + c_i` and w ~ N(m, S), with :math:`g_i = H_i m + b_i`,

    .. math::
        E\, l_i = l_i(m) + \tfrac12 \mathrm{tr}(H_i S), \qquad
        \mathrm{Cov}(l_i, l_j) = g_i^T S g_j + \tfrac12 \mathrm{tr}(H_i S H_j S) .

    Parameters
    ----------
    component_means, component_covariances
        m (K, p) and S (K, p, p) of the components in weight space; S may be singular.
    hessians, gradients, constants
        H (n, p, p) symmetric, b (n, p) and c (n,): Hessian, gradient at w = 0 and value at w = 0 of each loss.

    Returns
    -------
    tuple of numpy.ndarray
        Means (K, n) and covariances (K, n, n) for `decompose_covariance`.

    Raises
    ------
    ValueError
        If the shapes do not fit, an S is not a covariance, or an H is asymmetric.

    Examples
    --------
    >>> means, covariances = quadratic_loss_moments([[1.0]], [[[2.0]]], [[[1.0]]], [[0.0]], [0.0])
    >>> means, covariances.round(12)
    (array([[1.5]]), array([[[4.]]]))
    """
    m = checks.matrix("component_means", component_means)
    s = checks.covariances("component_covariances", component_covariances)
    b = checks.matrix("gradients", gradients, (None, m.shape[1]))
    c, h = checks.array("constants", constants, ndim=1), checks.array("hessians", hessians, ndim=3)
    p = m.shape[1]
    for name, value, shape in (
        ("component_covariances", s, (len(m), p, p)),
        ("hessians", h, (len(b), p, p)),
        ("constants", c, (len(b),)),
    ):
        if value.shape != shape:
            raise ValueError(f"{name} has shape {value.shape}, but {shape} is needed.")
    checks.symmetric("hessians", h)
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]  # S = R R^T makes both terms Gram matrices
    slope = np.einsum("npq,kq->knp", h, m)
    curvature = np.einsum("kpa,npq,kqb->knab", root, h, root, optimize=True)
    means = np.einsum("knp,kp->kn", slope / 2 + b, m) + c + np.trace(curvature, axis1=2, axis2=3) / 2
    features = np.concatenate([(slope + b) @ root, curvature.reshape(*curvature.shape[:2], p * p) / np.sqrt(2)], axis=2)
    with np.errstate(over="ignore", invalid="ignore"):
        moments = means, features @ np.swapaxes(features, 1, 2)
    return checks.representable("the mean of a loss", moments[0]), checks.representable("a covariance", moments[1])


def _responsibilities(phases: ArrayLike, n: int) -> Float[np.ndarray, "n k"]:
    value = checks.plain("phases", phases)
    if value.ndim not in (1, 2) or len(value) != n:
        raise ValueError(f"phases has shape {value.shape}, but ({n},) or ({n}, phases) is needed for {n} draws.")
    if value.ndim == 2:
        return checks.simplex("phases", value)
    if value.dtype.kind not in "iu":
        raise TypeError(f"phases must hold whole numbers if it has one axis, but its dtype is {value.dtype}.")
    found = np.unique(value)
    if not np.array_equal(found, np.arange(len(found))):
        raise ValueError(f"phases must use every number from 0 to K - 1, but it holds {found}.")
    return np.eye(len(found))[value]
