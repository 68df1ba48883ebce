r"""Gaussian limit of the local posterior and the influence of quadratic losses under it.

For losses of second order, l_i = c_i + g_i (w - w*) + (w - w*) H_i (w - w*) / 2, the local posterior
:math:`p \propto \exp(-n_\beta L - \frac\gamma2 |w - w^*|^2)` is Gaussian with

.. math::
    \Sigma = (n_\beta H + \gamma I)^{-1}, \quad \langle w \rangle - w^* = -\Sigma\, n_\beta \nabla L, \quad
    \mathrm{Cov}(l_i, l_j) = g_i^T \Sigma g_j + \tfrac12 \mathrm{tr}(H_i \Sigma H_j \Sigma) ,

gradients taken at the mean. `theory.posteriors.sampler_laws` has what samplers of finite step make of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks

__all__ = ["GaussianInfluence", "gaussian_influence", "quadratic_loss_covariance", "symmetric_hessians", "symmetrised"]


@dataclass(frozen=True, eq=False)
class GaussianInfluence:
    """Gaussian local posterior and the covariance of N quadratic losses under it.

    Parameters
    ----------
    mean_shift
        Posterior mean minus w*, shape (d,).
    weight_covariance
        Sigma, shape (d, d).
    gradients_at_mean
        Shape (N, d).
    first_order, second_order
        g_i^T Sigma g_j and tr(H_i Sigma H_j Sigma) / 2, shape (N, N).
    n_beta
        Sample size times inverse temperature.
    """

    mean_shift: np.ndarray
    weight_covariance: np.ndarray
    gradients_at_mean: np.ndarray
    first_order: np.ndarray
    second_order: np.ndarray
    n_beta: float

    @property
    def covariance(self) -> Float[np.ndarray, "n n"]:
        """Covariance of the losses, exact for quadratic ones."""
        return self.first_order + self.second_order

    @property
    def influence(self) -> Float[np.ndarray, "n n"]:
        """Bayesian influence -(n_beta / N) Cov(l_i, l_j); negative where one sample helps the other."""
        return -self.n_beta / len(self.covariance) * self.covariance


def gaussian_influence(
    gradients: ArrayLike, hessians: ArrayLike, n_beta: float, localization: float
) -> GaussianInfluence:
    """Return the local posterior of quadratic losses and its influence, exactly.

    Parameters
    ----------
    gradients
        Gradients of the N losses at w*, shape (N, d).
    hessians
        Hessians of the losses, shape (N, d, d), or their mean, shape (d, d), which then stands for each of them.
    n_beta, localization
        n beta and gamma >= 0.

    Raises
    ------
    ValueError
        If gamma <= -n_beta times the smallest eigenvalue of the mean Hessian: the posterior cannot be normalised.

    Examples
    --------
    >>> result = gaussian_influence([[1.0], [-1.0]], [[1.0]], n_beta=8.0, localization=2.0)
    >>> result.weight_covariance, result.influence.round(3)
    (array([[0.1]]), array([[-0.42,  0.38], [ 0.38, -0.42]]))
    """
    gradients = checks.matrix("gradients", gradients)
    n, d = gradients.shape
    hessians = symmetric_hessians(hessians, n, d)
    n_beta = checks.positive("n_beta", n_beta)
    localization = float(checks.nonnegative("localization", checks.array("localization", localization, ndim=0)))
    eigenvalues, vectors = np.linalg.eigh(hessians.mean(axis=0))
    with np.errstate(over="ignore"):
        precision = checks.representable("n_beta H + gamma", n_beta * eigenvalues + localization)
    if precision[0] <= d * np.finfo(float).eps * np.abs(precision).max():
        rounding = d * np.finfo(float).eps * np.abs(precision).max()
        needed, given = checks.told_apart(float(rounding - n_beta * eigenvalues[0]), localization)
        raise ValueError(
            f"the smallest eigenvalue of the mean Hessian is {eigenvalues[0]:.6g}, so at n_beta = {n_beta:.6g} the "
            f"local posterior exists only for a localization above {needed}, but {given} was given."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        covariance = (vectors / precision) @ vectors.T
        shift = -covariance @ (n_beta * gradients.mean(axis=0))
        at_mean = gradients + hessians @ shift
        first, second = _loss_covariance_parts(at_mean, hessians, covariance)
    checks.representable("the covariance of the losses", first + second)
    return GaussianInfluence(shift, covariance, at_mean, first, second, n_beta)


def quadratic_loss_covariance(
    gradients: ArrayLike, hessians: ArrayLike, weight_covariance: ArrayLike
) -> Float[np.ndarray, "n n"]:
    """Return Cov(l_i, l_j) of quadratic losses under Gaussian weights.

    With the covariance of a `StationaryLaw` it is what a sampler with finite step converges to.

    Parameters
    ----------
    gradients
        Gradients at the mean of the weights, shape (N, d).
    hessians
        Shape (N, d, d), or (d, d) for all alike.
    weight_covariance
        Symmetric, shape (d, d).

    Examples
    --------
    >>> quadratic_loss_covariance([[0.0]], [[1.0]], [[3.0]])
    array([[4.5]])
    """
    gradients = checks.matrix("gradients", gradients)
    n, d = gradients.shape
    covariance = symmetrised("weight_covariance", checks.matrix("weight_covariance", weight_covariance, (d, d)))
    with np.errstate(over="ignore", invalid="ignore"):
        first, second = _loss_covariance_parts(gradients, symmetric_hessians(hessians, n, d), covariance)
        return checks.representable("the covariance of the losses", first + second)


def _loss_covariance_parts(
    gradients: Float[np.ndarray, "n d"], hessians: Float[np.ndarray, "n d d"], covariance: Float[np.ndarray, "d d"]
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    turned = hessians @ covariance
    flat, flat_transposed = turned.reshape(len(turned), -1), turned.swapaxes(1, 2).reshape(len(turned), -1)
    return gradients @ covariance @ gradients.T, flat @ flat_transposed.T / 2


def symmetric_hessians(hessians: ArrayLike, n: int, d: int) -> Float[np.ndarray, "n d d"]:
    """Return one symmetric Hessian a loss; a single one stands for all."""
    hessians = checks.array("hessians", hessians)
    if hessians.shape not in ((d, d), (n, d, d)):
        raise ValueError(f"hessians has shape {hessians.shape}, but {(n, d, d)} or {(d, d)} is needed.")
    return np.broadcast_to(symmetrised("hessians", hessians), (n, d, d))


def symmetrised(name: str, value: np.ndarray) -> np.ndarray:
    """Return the symmetric part of matrices that are symmetric to 1e-8, as automatic differentiation leaves them."""
    asymmetry = float(np.abs(value - value.swapaxes(-1, -2)).max())
    if asymmetry > 1e-8 * np.abs(value).max():
        raise ValueError(f"{name} must be symmetric, but differs from its transpose by {asymmetry:.3g}.")
    return (value + value.swapaxes(-1, -2)) / 2
