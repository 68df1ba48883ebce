r"""Covariance of losses under a posterior that is a mixture of phases (law of total covariance, paper 2.3).

.. math::
    \mathrm{Cov} = \underbrace{\sum_k \pi_k \mathrm{Cov}_k}_{\text{within}}
    + \underbrace{\sum_{k < l} \pi_k \pi_l\, (\mu_k - \mu_l)(\mu_k - \mu_l)^T}_{\text{between}} .

Written with differences of means, the between term keeps its digits whatever offset the means share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory import checks

__all__ = [
    "MixtureCovariance",
    "decompose_covariance",
    "decompose_moments",
    "total_covariance_gradient",
    "total_covariance_hessian",
]

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class MixtureCovariance:
    """Covariance of d observables under a mixture, split by the law of total covariance.

    Parameters
    ----------
    within, between, total
        Mean covariance within the components, covariance of the component means, and their sum, shape (..., d, d).
    between_root
        One row sqrt(pi_k pi_l) (mu_k - mu_l) a pair k < l, shape (..., pairs, d); between = root^T root.
    """

    within: Float[np.ndarray, "*batch d d"]
    between: Float[np.ndarray, "*batch d d"]
    total: Float[np.ndarray, "*batch d d"]
    between_root: Float[np.ndarray, "*batch pairs d"]

    @property
    def between_rank(self) -> Int[np.ndarray, "*batch"]:
        """Numerical rank of the between term, at most K - 1; counted on its root, so eps and not sqrt(eps) resolves it.

        A row of the root is off by at most 3 eps of itself: singular values of the root below 4 eps max(pairs, d) times
        the largest are taken for rounding.
        """
        root = self.between_root
        values = np.linalg.svd(root, compute_uv=False)
        largest = values.max(axis=-1, initial=0.0, keepdims=True)
        return np.asarray(np.sum(values > 4 * EPS * max(root.shape[-2:]) * largest, axis=-1))


def decompose_covariance(weights: ArrayLike, means: ArrayLike, covariances: ArrayLike) -> MixtureCovariance:
    """Return the covariance within and between the components of a mixture, and their sum (paper 2.3).

    Parameters
    ----------
    weights
        pi, shape (..., K), on the simplex (corners included); the sum may be off 1 by K eps, the rounding of K numbers
        divided by their sum.
    means
        mu_k of d observables, shape (..., K, d).
    covariances
        Cov_k, shape (..., K, d, d), symmetric and positive semidefinite up to rounding (64 d eps of the largest entry).
        Leading axes of the three broadcast.

    Raises
    ------
    ValueError
        If the shapes do not fit, the weights leave the simplex, or a covariance is asymmetric or indefinite.

    Examples
    --------
    >>> parts = decompose_covariance([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]], [np.eye(2), np.eye(2)])
    >>> parts.between
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    >>> int(parts.between_rank)
    1
    """
    return decompose_moments(*_components(weights, means, covariances))


def total_covariance_gradient(
    weights: ArrayLike, means: ArrayLike, covariances: ArrayLike
) -> Float[np.ndarray, "*batch k d d"]:
    r"""Return the derivative of the total covariance as the weights move towards each component.

    Along e_k - pi, which stays on the simplex, with m_k = mu_k - mean,

    .. math:: G_k = \mathrm{Cov}_k - \text{within} + m_k m_k^T - \text{between}, \qquad \sum_k \pi_k G_k = 0 .

    The derivative along any tangent v of the simplex is :math:`\sum_k v_k G_k`.

    Parameters
    ----------
    weights, means, covariances
        As for `decompose_covariance`.

    Returns
    -------
    numpy.ndarray
        G, shape (..., K, d, d).

    Examples
    --------
    >>> total_covariance_gradient([1.0, 0.0], [[0.0], [2.0]], [[[1.0]], [[4.0]]])[:, 0, 0]
    array([0., 7.])
    """
    pi, mu, cov = _components(weights, means, covariances)
    centred = _centred(pi, mu)
    # differences first, so that nothing is lost near a corner, where Cov_k is nearly the mean covariance
    excess = np.stack(
        [np.einsum("...l,...lij->...ij", pi, cov[..., k : k + 1, :, :] - cov) for k in range(cov.shape[-3])], axis=-3
    )
    between = decompose_moments(pi, mu, cov).between[..., None, :, :]
    with np.errstate(over="ignore", invalid="ignore"):
        gradient = excess + (centred[..., :, None] * centred[..., None, :] - between)
    return checks.representable("the derivative of the total covariance", gradient)


def total_covariance_hessian(weights: ArrayLike, means: ArrayLike) -> Float[np.ndarray, "*batch k k d d"]:
    r"""Return the second derivative of the total covariance in the weights, along e_k - pi and e_l - pi.

    The total is quadratic in the weights, so with G from `total_covariance_gradient` and H from here

    .. math::
        T(\pi + \textstyle\sum_k a_k (e_k - \pi)) = T + \sum_k a_k G_k + \tfrac12 \sum_{kl} a_k a_l H_{kl}, \qquad
        H_{kl} = -(m_k m_l^T + m_l m_k^T)

    exactly. Within-phase covariances do not enter.

    Parameters
    ----------
    weights, means
        As for `decompose_covariance`.

    Returns
    -------
    numpy.ndarray
        H, shape (..., K, K, d, d).

    Examples
    --------
    >>> total_covariance_hessian([0.5, 0.5], [[0.0], [2.0]])[:, :, 0, 0]
    array([[-2.,  2.],
           [ 2., -2.]])
    """
    centred = _centred(*_weights_and_means(weights, means))
    with np.errstate(over="ignore"):
        outer = centred[..., :, None, :, None] * centred[..., None, :, None, :]
        return checks.representable("the second derivative", -(outer + np.swapaxes(outer, -1, -2)))


def decompose_moments(
    pi: Float[np.ndarray, "*b k"], mu: Float[np.ndarray, "*m k d"], cov: Float[np.ndarray, "*c k d d"]
) -> MixtureCovariance:
    """Return what `decompose_covariance` does of moments that are known to be in order."""
    first, second = np.triu_indices(pi.shape[-1], 1)
    with np.errstate(over="ignore", invalid="ignore"):
        shares = np.sqrt(pi[..., first]) * np.sqrt(pi[..., second])  # the product of both could underflow
        root = shares[..., None] * (mu[..., first, :] - mu[..., second, :])
        between = np.einsum("...pi,...pj->...ij", root, root)
        within = np.einsum("...k,...kij->...ij", pi, cov)
        total = checks.representable("the total covariance", within + between)
    return MixtureCovariance(within, between, total, root)


def _centred(pi: Float[np.ndarray, "*b k"], mu: Float[np.ndarray, "*m k d"]) -> Float[np.ndarray, "*n k d"]:
    return np.einsum("...l,...kld->...kd", pi, mu[..., :, None, :] - mu[..., None, :, :])


def _components(
    weights: ArrayLike, means: ArrayLike, covariances: ArrayLike
) -> tuple[Float[np.ndarray, "*b k"], Float[np.ndarray, "*m k d"], Float[np.ndarray, "*c k d d"]]:
    pi, mu = _weights_and_means(weights, means)
    cov = checks.covariances("covariances", covariances)
    if cov.shape[-3:] != (*mu.shape[-2:], mu.shape[-1]):
        raise ValueError(
            f"covariances has shape {cov.shape}, but (..., {mu.shape[-2]}, {mu.shape[-1]}, {mu.shape[-1]}) is needed."
        )
    return _broadcast(pi, mu.shape[:-2], cov.shape[:-3]), mu, cov


def _weights_and_means(
    weights: ArrayLike, means: ArrayLike
) -> tuple[Float[np.ndarray, "*b k"], Float[np.ndarray, "*m k d"]]:
    pi, mu = checks.simplex("weights", weights), checks.array("means", means)
    if mu.ndim < 2 or mu.shape[-2] != pi.shape[-1] or mu.shape[-1] == 0:
        raise ValueError(f"means has shape {mu.shape}, but (..., {pi.shape[-1]}, observables) is needed.")
    return _broadcast(pi, mu.shape[:-2]), mu


def _broadcast(pi: Float[np.ndarray, "*b k"], *batches: tuple[int, ...]) -> Float[np.ndarray, "*m k"]:
    try:
        batch = np.broadcast_shapes(pi.shape[:-1], *batches)
    except ValueError:
        raise ValueError(
            f"the leading axes {(pi.shape[:-1], *batches)} of weights and moments do not broadcast."
        ) from None
    return np.broadcast_to(pi, (*batch, pi.shape[-1]))
