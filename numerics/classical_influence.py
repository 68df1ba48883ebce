r"""Classical influence along training: damped inverse Hessian or Gauss-Newton matrix at every checkpoint (paper C.4).

.. math:: I_{ij} = -\frac{1}{N}\, \nabla \ell_j^T (H + \lambda I)^{-1} \nabla \ell_i ,

negative = sample i helps query j. The Hessian is indefinite for most of training, so it is factorised as a symmetric
matrix, never by Cholesky or conjugate gradients, and its inertia is reported. Two structures make it cheap. Gradients
and Hessian live in the hidden directions that carry weight, at most P + O of them; the other directions decouple. And
one tridiagonal form T = Q^T H Q serves every damping constant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.linalg import eigvalsh_tridiagonal, lapack, solve_banded

from numerics.curvature import hessian, idle_eigenvalues, per_sample_gradients
from numerics.networks import Checkpoints
from numerics.training import one_thread, without_idle_units
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array, trajectory

__all__ = ["IndefiniteCurvature", "gauss_newton_influence", "gradient_kernel", "hessian_influence"]


class IndefiniteCurvature(ArithmeticError):
    """H + damping is singular to rounding: an eigenvalue of H cancels the damping, or the damping is too small."""


def gradient_kernel(dataset: Dataset, checkpoints: Checkpoints) -> xr.DataArray:
    """Return the gradient kernel K_ij = grad l_i . grad l_j at every checkpoint.

    Parameters
    ----------
    dataset, checkpoints
        Samples and weights.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query). -K is the instantaneous influence up to a positive factor: the strong-localization
        limit of the Bayesian influence and the strong-damping limit of the classical one.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=200))
    >>> bool((gradient_kernel(hierarchical_dataset(), run.checkpoints).sel(source="dog", query="dog") > 0).all())
    True
    """
    checkpoints.check_fits(dataset)
    with one_thread():
        gradients = per_sample_gradients(dataset, checkpoints.w1, checkpoints.w2)
        kernel = gradients @ gradients.mT
    attrs = {"estimator": "gradient kernel"}
    return trajectory(kernel.numpy(), checkpoints.epochs, dataset.names, dataset.names, name="kernel", attrs=attrs)


def hessian_influence(
    dataset: Dataset,
    checkpoints: Checkpoints,
    *,
    damping: ArrayLike | None = None,
    relative_damping: ArrayLike | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Return the damped-Hessian influence at every checkpoint and damping constant.

    Parameters
    ----------
    dataset, checkpoints
        Samples, whose mean loss is L, and weights.
    damping
        Damping constants lambda, >= 0, one or several.
    relative_damping
        Instead of `damping`: constants c, >= 0; lambda = c times the largest absolute eigenvalue of each checkpoint's
        Hessian, as the paper does with c from 1e-3 to 10.
    progress
        Called with the number of checkpoints done after each.

    Returns
    -------
    xarray.Dataset
        ``influence``
            dims (damping, epoch, source, query); the coordinate holds the constants given.
        ``max_abs_eigenvalue``, ``min_eigenvalue``, ``negative_eigenvalues``
            dims (epoch): of the Hessian over all parameters; the last is the number of eigenvalues below minus the
            rounding error.
        ``smallest_damped``
            dims (damping, epoch): min |eigenvalue + lambda|. Where ``min_eigenvalue`` < -lambda the matrix inverted is
            indefinite and no local posterior corresponds to it.

    Raises
    ------
    IndefiniteCurvature
        If H + lambda I is singular to rounding at a checkpoint.
    ValueError
        If a damping constant is negative, both or none of the two kinds are given, or shapes do not fit.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500))
    >>> result = hessian_influence(hierarchical_dataset(), run.checkpoints, relative_damping=[0.1, 10.0])
    >>> bool(result["influence"].sel(damping=10.0, epoch=1500, source="dog", query="cat") < 0)
    True
    """
    constants, relative = _constants(damping, relative_damping)
    checkpoints.check_fits(dataset)
    n, epochs = len(dataset), checkpoints.epochs
    influence = np.empty((len(constants), len(epochs), n, n))
    largest, lowest, negative = np.empty(len(epochs)), np.empty(len(epochs)), np.empty(len(epochs), dtype=np.int64)
    closest = np.empty((len(constants), len(epochs)))
    with one_thread():
        for t, (w1, w2) in enumerate(zip(checkpoints.w1, checkpoints.w2, strict=True)):
            _, reduced1, reduced2 = without_idle_units(w1, w2)
            tridiagonal = _Tridiagonal(
                hessian(dataset, reduced1, reduced2).numpy(), per_sample_gradients(dataset, reduced1, reduced2).numpy()
            )
            # Where there are idle directions, their eigenvalues are also among the reduced ones: (a v^T, -+u a^T) with
            # W_1^T a = alpha v and W_2 a = +-alpha u leaves W as it is. So they only add to the count.
            eigenvalues = tridiagonal.eigenvalues
            idle = idle_eigenvalues(dataset, w1, w2).numpy()
            copies = len(w1) - len(reduced1)
            largest[t], lowest[t] = np.abs(eigenvalues).max(), eigenvalues.min()
            rounding = np.finfo(float).eps * len(eigenvalues) * largest[t]
            negative[t] = (eigenvalues < -rounding).sum() + copies * (idle < -rounding).sum()
            for d, constant in enumerate(constants):
                shift = constant * largest[t] if relative else constant
                closest[d, t] = np.abs(eigenvalues + shift).min()
                _refuse_singular("H", closest[d, t], rounding, epochs[t], constant, relative)
                influence[d, t] = -tridiagonal.inverse_form(shift) / n
            if progress is not None:
                progress(t + 1)
    return xr.Dataset(
        {
            "influence": _labelled(influence, constants, dataset, epochs, "damped Hessian", relative),
            "max_abs_eigenvalue": ("epoch", largest),
            "min_eigenvalue": ("epoch", lowest),
            "negative_eigenvalues": ("epoch", negative),
            "smallest_damped": (("damping", "epoch"), closest),
        }
    )


def gauss_newton_influence(
    dataset: Dataset,
    checkpoints: Checkpoints,
    *,
    damping: ArrayLike | None = None,
    relative_damping: ArrayLike | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Return the damped Gauss-Newton influence at every checkpoint and damping constant.

    The Gauss-Newton matrix J^T J / N has rank N O at most. Its dual J J^T = A x I + B x D, with A = X W_1^T W_1 X^T,
    B = X X^T and D = W_2 W_2^T, falls into O matrices A + d B of size N in the eigenbasis of D, and the influence is
    - sum_o (r_io r_jo) [K_o (K_o + N lambda)^{-1}]_ij with r the residuals in that basis.

    Parameters
    ----------
    dataset, checkpoints
        Samples, whose mean loss is L, and weights.
    damping
        Damping constants lambda, > 0, one or several.
    relative_damping
        Instead of `damping`: constants c, > 0, in units of each checkpoint's largest eigenvalue.
    progress
        Called once with the number of checkpoints, which all go in one batch.

    Returns
    -------
    xarray.Dataset
        The variables of `hessian_influence`. ``min_eigenvalue`` is 0 and ``smallest_damped`` the damping itself:
        scaling W_1 up and W_2 down changes no output, so the Gauss-Newton matrix is always singular.

    Raises
    ------
    IndefiniteCurvature
        If a damping is below the rounding error of the largest eigenvalue.
    ValueError
        If a damping constant is not positive, both or none of the two kinds are given, shapes do not fit, or the
        weights are zero at a checkpoint and the damping is relative to them.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500))
    >>> result = gauss_newton_influence(hierarchical_dataset(), run.checkpoints, relative_damping=0.1)
    >>> bool(result["influence"].sel(damping=0.1, epoch=1500, source="dog", query="dog") < 0)
    True
    """
    constants, relative = _constants(damping, relative_damping)
    if constants.min() == 0:
        raise ValueError(
            "the Gauss-Newton matrix is singular, so its damping must be positive, but 0.0 was given; use a small "
            "positive constant."
        )
    checkpoints.check_fits(dataset)
    n = len(dataset)
    with one_thread():
        x, y = torch.tensor(dataset.inputs), torch.tensor(dataset.targets)
        hidden = x @ checkpoints.w1.mT
        gains, basis = torch.linalg.eigh(checkpoints.w2 @ checkpoints.w2.mT)
        residual = (hidden @ checkpoints.w2.mT - y) @ basis
        dual = (hidden @ hidden.mT)[:, None] + gains[:, :, None, None] * (x @ x.mT)
        values, vectors = torch.linalg.eigh(dual)
        values = values.clamp(min=0)
        largest = values.amax((1, 2)) / n
        shifts = torch.tensor(constants)[:, None] * (largest if relative else torch.ones_like(largest))
        if relative and not (largest > 0).all():
            epoch = checkpoints.epochs[int((largest == 0).nonzero()[0])]
            raise ValueError(
                f"the Gauss-Newton matrix is zero at epoch {epoch:g}, so a damping relative to it is zero too; give "
                "an absolute damping."
            )
        rounding = np.finfo(float).eps * n * dataset.n_outputs * largest
        for constant, row in zip(constants.tolist(), shifts.tolist(), strict=True):
            for shift, noise, epoch in zip(row, rounding.tolist(), checkpoints.epochs.tolist(), strict=True):
                _refuse_singular("the Gauss-Newton matrix", shift, noise, epoch, constant, relative)
        shrunk = values / (values + n * shifts[:, :, None, None])
        resolvent = torch.einsum("toik,dtok,tojk->dtoij", vectors, shrunk, vectors)
        influence = -torch.einsum("tio,tjo,dtoij->dtij", residual, residual, resolvent)
    epochs = checkpoints.epochs
    if progress is not None:
        progress(len(epochs))
    return xr.Dataset(
        {
            "influence": _labelled(influence.numpy(), constants, dataset, epochs, "damped Gauss-Newton", relative),
            "max_abs_eigenvalue": ("epoch", largest.numpy()),
            "min_eigenvalue": ("epoch", np.zeros(len(epochs))),
            "negative_eigenvalues": ("epoch", np.zeros(len(epochs), dtype=np.int64)),
            "smallest_damped": (("damping", "epoch"), shifts.numpy()),
        }
    )


class _Tridiagonal:
    """Householder form T = Q^T H Q of a symmetric matrix of size 2 or more, with Q^T applied to the rows given."""

    def __init__(self, h: Float[np.ndarray, "d d"], rows: Float[np.ndarray, "n d"]) -> None:
        size = len(h)
        work = int(lapack.dsytrd_lwork(size, lower=1)[0])
        packed, self._diagonal, self._beside, scales, info = lapack.dsytrd(h, lower=1, lwork=work)
        columns = np.asfortranarray(rows.T)
        block = np.asfortranarray(columns[1:])
        columns[1:], _, flag = lapack.dormqr("L", "T", packed[1:, :-1], scales, block, lwork=64 * len(rows))
        if info or flag:
            raise ArithmeticError(f"LAPACK could not tridiagonalise the Hessian (info = {info or flag}).")
        self._columns = columns
        self.eigenvalues = eigvalsh_tridiagonal(self._diagonal, self._beside)

    def inverse_form(self, shift: float) -> Float[np.ndarray, "n n"]:
        """Return rows (H + shift I)^{-1} rows^T by an LU factorisation with pivoting, which suits an indefinite T."""
        banded = np.zeros((3, len(self._diagonal)))
        banded[0, 1:] = banded[2, :-1] = self._beside
        banded[1] = self._diagonal + shift
        solved = self._columns.T @ solve_banded((1, 1), banded, self._columns)
        return (solved + solved.T) / 2


def _constants(damping: ArrayLike | None, relative_damping: ArrayLike | None) -> tuple[np.ndarray, bool]:
    given = [(n, c) for n, c in (("damping", damping), ("relative_damping", relative_damping)) if c is not None]
    if len(given) != 1:
        raise ValueError("give either damping or relative_damping, and not both.")
    name, value = given[0]
    constants = np.atleast_1d(checks.nonnegative(name, value))
    if constants.ndim != 1 or constants.size == 0:
        raise ValueError(f"{name} must be a number or a list of numbers, but its shape is {constants.shape}.")
    return constants, name == "relative_damping"


def _refuse_singular(
    matrix: str, smallest: float, rounding: float, epoch: float, constant: float, relative: bool
) -> None:
    if smallest <= rounding:
        kind = "relative damping" if relative else "damping"
        raise IndefiniteCurvature(
            f"{matrix} + damping is singular at epoch {epoch:g}: with {kind} {constant:g} its smallest absolute "
            f"eigenvalue is {smallest:.3g}. Choose another damping."
        )


def _labelled(
    influence: np.ndarray, constants: np.ndarray, dataset: Dataset, epochs: np.ndarray, estimator: str, relative: bool
) -> xr.DataArray:
    coords = {"damping": constants, "epoch": epochs, "source": dataset.names, "query": dataset.names}
    attrs = {
        "estimator": estimator,
        "damping": "relative to the largest absolute eigenvalue" if relative else "absolute",
        "long_name": "influence (negative = helps)",
        "units": "loss per sample weight",
    }
    return labelled_array(influence, coords, "influence", attrs)
