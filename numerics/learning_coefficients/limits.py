r"""Where the measured learning coefficient is known exactly, and how it tends to the true one.

On a quadratic loss with gradient g_k and curvatures h_k the law of SGLD is Gaussian: with kappa_k = n_beta h_k + gamma

.. math::
    \hat\lambda = n_\beta \sum_k \Bigl[ -\frac{n_\beta g_k^2}{\kappa_k} + \frac{n_\beta^2 h_k g_k^2}{2 \kappa_k^2}
    + \frac{h_k}{2 \kappa_k (1 - \epsilon \kappa_k / 4)} \Bigr] ,

which is :math:`\sum_k \tfrac12 n_\beta h_k / (n_\beta h_k + \gamma)` at a minimum for small steps. On a singular loss
:math:`\hat\lambda = \lambda - (m - 1) / (\log n_\beta + c)` for large n_beta, because Z decays like
:math:`n_\beta^{-\lambda} (\log n_\beta + c)^{m - 1}` and the mean loss is its logarithmic derivative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from numerics.curvature.linear import hessian, idle_eigenvalues, per_sample_gradients
from numerics.curvature.module import hessian_matrix, sample_gradients
from numerics.errors import UnstableStep
from numerics.models.given import check_checkpoints, check_data
from numerics.models.linear import Checkpoints, without_idle_units
from numerics.models.samples import Samples
from numerics.sampling.plan import Data, Weights
from numerics.threads import one_thread
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["Extrapolation", "extrapolate_learning_coefficient", "gaussian_learning_coefficient"]

_GRID = 4000  # values of the correction that are tried
_FINE = {"xatol": 1e-14}


def gaussian_learning_coefficient(
    dataset: Data, checkpoints: Weights, *, n_beta: float, localization: float, step_size: float = 0.0
) -> xr.DataArray:
    """Return what `estimate_learning_coefficient` would give if the loss were quadratic around every checkpoint.

    The comparison tells how much of an estimate is curvature and pull, and how much comes from beyond the second order.

    Parameters
    ----------
    dataset, checkpoints
        Samples, whose mean loss is L, and weights.
    n_beta, localization
        Those of the sampler.
    step_size
        Step of SGLD; 0 for a sampler without a bias of its own.

    Returns
    -------
    xarray.DataArray
        dims (epoch,). NaN where n_beta H + localization is not positive definite, so that no such Gaussian exists.

    Raises
    ------
    UnstableStep
        If the step is unstable at a checkpoint.

    Examples
    --------
    >>> data = Dataset(np.eye(1), np.zeros((1, 1)))
    >>> at = Checkpoints(np.zeros(1), torch.zeros(1, 1, 1), 10 * torch.ones(1, 1, 1))
    >>> round(float(gaussian_learning_coefficient(data, at, n_beta=10.0, localization=10.0)[0]), 4)
    0.495
    """
    check_data(dataset)
    check_checkpoints(checkpoints)
    n_beta = checks.positive("n_beta", n_beta)
    localization = checks.nonnegative_number("localization", localization)
    step_size = checks.nonnegative_number("step_size", step_size)
    values = []
    with one_thread():
        for epoch, (slope, curvature) in zip(checkpoints.epochs, _quadratics(dataset, checkpoints), strict=True):
            kappa = n_beta * curvature + localization
            if kappa.min() <= 0:
                values.append(np.nan)
                continue
            if step_size * kappa.max() >= 4:
                raise UnstableStep(
                    f"step_size {step_size:g} is unstable at epoch {epoch:g}: step x (n_beta lambda_max + localization)"
                    f" is {step_size * kappa.max():.3g}, but must be below 4."
                )
            shift = n_beta * slope / kappa
            spread = 1 / (kappa * (1 - step_size * kappa / 4))
            values.append(n_beta * np.sum(-slope * shift + curvature * (shift**2 + spread) / 2))
    attrs = {"estimator": "Gaussian", "n_beta": n_beta, "localization": localization, "step_size": step_size}
    return labelled_array(values, {"epoch": checkpoints.epochs}, "learning_coefficient", attrs)


def _quadratics(
    dataset: Data, checkpoints: Weights
) -> Iterator[tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]]:
    """Yield the gradient of L in the eigenbasis of its Hessian, and the eigenvalues, for every checkpoint."""
    if not isinstance(checkpoints, Checkpoints):
        checkpoints.check_fits(dataset)
        samples = Samples.of(dataset)
        for t in range(len(checkpoints)):
            model, weights = checkpoints.model_at(t), checkpoints.weights_at(t)
            slope = sample_gradients(model, weights, samples).mean(0)
            yield _in_eigenbasis(slope.cpu(), hessian_matrix(model, weights, samples).cpu())
        return
    if not isinstance(dataset, Dataset):
        raise TypeError(
            "the checkpoints of a linear network go with a theory.Dataset; for Samples of any kind give the network "
            "as a module, see linear_as_module."
        )
    checkpoints.check_fits(dataset)
    for w1, w2 in zip(checkpoints.w1.cpu(), checkpoints.w2.cpu(), strict=True):
        _, first, second = without_idle_units(w1, w2)
        slope = per_sample_gradients(dataset, first, second).mean(0)
        slopes, curvatures = _in_eigenbasis(slope, hessian(dataset, first, second))
        idle = np.tile(idle_eigenvalues(dataset, w1, w2).numpy(), len(w1) - len(first))
        yield np.append(slopes, np.zeros_like(idle)), np.append(curvatures, idle)


def _in_eigenbasis(
    slope: Float[torch.Tensor, " d"], matrix: Float[torch.Tensor, "d d"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    curvatures, basis = torch.linalg.eigh(matrix)
    return (basis.mT @ slope).numpy(), curvatures.numpy()


@dataclass(frozen=True)
class Extrapolation:
    """A learning coefficient in the limit of large n_beta.

    Parameters
    ----------
    learning_coefficient, standard_error
        The limit and its Monte-Carlo error; what the form of the fit leaves out is not in it.
    chi_square, degrees_of_freedom
        Misfit; far above the degrees of freedom the form does not hold yet at the smallest n_beta. With two estimates
        the fit is exact and both are 0.
    """

    learning_coefficient: float
    standard_error: float
    chi_square: float
    degrees_of_freedom: int


def extrapolate_learning_coefficient(
    n_beta: ArrayLike, estimates: ArrayLike, standard_errors: ArrayLike, *, multiplicity: int = 1
) -> Extrapolation:
    r"""Extrapolate estimates at several inverse temperatures and one localisation to infinite n_beta.

    Fits lambda and c by weighted least squares: :math:`\lambda - (m - 1) / (\log n_\beta + c)` for m > 1, and
    :math:`\lambda + c\, n_\beta^{-1/2}` for m = 1, since the poles of the zeta function of a two-layer linear network
    lie 1/2 apart. Where the mean is known exactly (the zero map), estimates at n_beta = 300 and 3000 times gamma^2 miss
    lambda by 3 % as they are, and by less than 1 % extrapolated.

    Parameters
    ----------
    n_beta
        Inverse temperatures, shape (k,), different, k >= 2. A decade and more between them is useful.
    estimates, standard_errors
        Independent estimates and their errors, shape (k,).
    multiplicity
        m, known from theory: over the decades that one can sample, a logarithm and a small power look alike.

    Examples
    --------
    >>> n = np.array([1e2, 1e3, 1e4])
    >>> found = extrapolate_learning_coefficient(n, 2 - 1 / np.log(n), 0.01 * np.ones(3), multiplicity=2)
    >>> round(found.learning_coefficient, 6)
    2.0
    """
    m = checks.integer("multiplicity", multiplicity, at_least=1)
    n, y, error = (
        checks.array(name, value, ndim=1)
        for name, value in (("n_beta", n_beta), ("estimates", estimates), ("standard_errors", standard_errors))
    )
    k = checks.same_length(n_beta=n, estimates=y, standard_errors=error)
    for name, values in (("n_beta", n), ("standard_errors", error)):
        if values.min(initial=1.0) <= 0:
            raise ValueError(f"{name} must be positive, but the smallest is {values.min()}.")
    if len(np.unique(n)) < max(2, k):
        raise ValueError(f"at least two different n_beta are needed, each once, but {n} was given.")
    if m == 1:
        design = np.stack([np.ones(k), n**-0.5], axis=1) / error[:, None]
        covariance = np.linalg.inv(design.T @ design)
        best = covariance @ design.T @ (y / error)
        chi_square = float(np.sum((design @ best - y / error) ** 2))
        return Extrapolation(float(best[0]), float(np.sqrt(covariance[0, 0])), chi_square, k - 2)
    return _logarithmic(np.log(n.max() / n), y, error, m)


def _logarithmic(
    below: Float[np.ndarray, " k"], y: Float[np.ndarray, " k"], error: Float[np.ndarray, " k"], m: int
) -> Extrapolation:
    """Fit lambda - (m - 1) / (log n + c) by its correction x = (m - 1) / (log n_max + c) at the largest n.

    x is between 0, where the estimates do not vary, and where log n + c vanishes at the smallest n. Given x the fit is
    linear. Near x = 0 the estimates depend on lambda - x alone and derivatives do not tell the error; it is half the
    length of the interval of lambda over all (lambda, x) whose chi-square is at most 1 above the least.
    """
    weight = error**-2 / np.sum(error**-2)
    variance = 1 / np.sum(error**-2)

    def given(x: Float[np.ndarray, " g"]) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"]]:
        lifted = y + x[:, None] / (1 - x[:, None] * below / (m - 1))
        value = lifted @ weight
        return value, np.sum(((lifted - value[:, None]) / error) ** 2, axis=1)

    grid = np.linspace(0, (m - 1) / below.max(), _GRID + 1)[:-1]
    least = int(np.argmin(given(grid)[1]))
    around = (grid[max(least - 1, 0)], grid[min(least + 1, _GRID - 1)])
    refined = minimize_scalar(lambda x: given(np.array([x]))[1][0], bounds=around, method="bounded", options=_FINE)
    values, chi_squares = given(np.append(grid, refined.x))
    room = np.sqrt(variance * np.clip(chi_squares[-1] + 1 - chi_squares, 0, None))
    within = chi_squares <= chi_squares[-1] + 1
    length = (values + room)[within].max() - (values - room)[within].min()
    return Extrapolation(float(values[-1]), float(length / 2), float(chi_squares[-1]), len(y) - 2)
