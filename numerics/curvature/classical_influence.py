r"""Classical influence along training: damped inverse Hessian or Gauss-Newton matrix at every checkpoint (paper C.4).

.. math:: I_{ij} = -\frac{1}{N}\, \nabla \ell_j^T (M + \lambda I)^{-1} \nabla \ell_i , \qquad K_{ij} = \nabla \ell_i
    \cdot \nabla \ell_j ,

negative = sample i helps query j. M is the curvature of the weighted mean loss. The Hessian is indefinite for most of
training, so it is factorised as a symmetric matrix or solved by MINRES, never by Cholesky or conjugate gradients, and
its inertia is reported. Linear networks take the shortcuts of `numerics.curvature.linear_influence`, every other module
`numerics.curvature.dense_influence` or, if large, `numerics.curvature.matrix_free_influence`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import xarray as xr
from numpy.typing import ArrayLike

from numerics.curvature.dense_influence import dense_influence, dense_numbers
from numerics.curvature.gradients import check_finite, module_kernel
from numerics.curvature.influence_request import Damping, InfluenceRequest, source_positions
from numerics.curvature.linear_influence import linear_gauss_newton_influence, linear_hessian_influence, linear_kernel
from numerics.curvature.matrix_free_influence import matrix_free_influence
from numerics.errors import IndefiniteCurvature
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.linear import Checkpoints, linear_as_module
from numerics.models.samples import Samples
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import trajectory

__all__ = ["IndefiniteCurvature", "gauss_newton_influence", "gradient_kernel", "hessian_influence"]

_DENSE_NUMBERS = 2**24  # of the largest matrix that is factorised without being asked for: 4096 x 4096


def gradient_kernel(
    dataset: Dataset | Samples,
    checkpoints: Checkpoints | ModuleCheckpoints,
    *,
    sources: Sequence[str] | None = None,
    queries: Dataset | Samples | None = None,
) -> xr.DataArray:
    """Return the gradient kernel K_ij = grad l_i . grad l_j at every checkpoint.

    Parameters
    ----------
    dataset, checkpoints, sources, queries
        As for `hessian_influence`.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query). -K is the instantaneous influence up to a positive factor: the strong-localization
        limit of the Bayesian influence and the strong-damping limit of the classical one. `tracin` sums it over time.

    Raises
    ------
    ValueError
        As `hessian_influence`.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=200))
    >>> bool((gradient_kernel(hierarchical_dataset(), run.checkpoints).sel(source="dog", query="dog") > 0).all())
    True
    """
    positions = source_positions(dataset, sources)
    asked = dataset if queries is None else queries
    if isinstance(checkpoints, Checkpoints):
        read = _reader(checkpoints)
        kernel = linear_kernel(read(dataset), read(asked), checkpoints, positions)
    else:
        kernel = module_kernel(Samples.of(dataset), Samples.of(asked), _of_module(checkpoints), positions)
    names = [dataset.names[i] for i in positions]
    attrs = {"estimator": "gradient kernel"}
    return trajectory(kernel, checkpoints.epochs, names, asked.names, name="kernel", attrs=attrs)


def hessian_influence(
    dataset: Dataset | Samples,
    checkpoints: Checkpoints | ModuleCheckpoints,
    *,
    damping: ArrayLike | None = None,
    relative_damping: ArrayLike | None = None,
    sources: Sequence[str] | None = None,
    queries: Dataset | Samples | None = None,
    weights: ArrayLike | None = None,
    method: str | None = None,
    rtol: float = 1e-8,
    max_iterations: int = 2000,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Return the damped-Hessian influence at every checkpoint and damping constant.

    Parameters
    ----------
    dataset
        The N samples whose mean loss L is curved; sources are among them.
    checkpoints
        Weights of a linear network or of any module. Those in float32 are used in float64, on their device.
    damping
        Damping constants lambda, >= 0, one or several; all are answered from one factorisation or Krylov space.
    relative_damping
        Instead of `damping`: constants c, >= 0; lambda = c times the largest absolute eigenvalue of each checkpoint's
        Hessian, as the paper does with c from 1e-3 to 10.
    sources
        Names of the samples whose influence is asked for; all if not given.
    queries
        Samples whose loss is asked for, seen in training or not; those of `dataset` if not given.
    weights
        Sample weights beta of L at the checkpoints, shape (N,), >= 0; all 1 if not given. A sample of weight 0 is
        unseen, and its influence is that of adding it.
    method
        "dense" or "matrix-free". If not given, dense up to 4096 parameters (a matrix of 2^24 numbers) and for linear
        networks of any size, which reduce to their P + O hidden directions that carry weight.
    rtol, max_iterations
        Largest residual accepted by the matrix-free solver, and products with H allowed for it. Tens suffice where the
        damping exceeds the negative eigenvalues; inside a dense spectrum no iterative solver is fast.
    progress
        Called with the number of checkpoints done after each.

    Returns
    -------
    xarray.Dataset
        ``influence``
            dims (damping, epoch, source, query); the coordinate holds the constants given.
        ``residual``
            |(H + lambda) x - g| / |g| of the solve for every source, dims (damping, epoch, source). Matrix-free with
            fewer queries than sources: of every query, dims (damping, epoch, query). In a linear network: measured
            in the coordinates in which H is tridiagonal.
        ``max_abs_eigenvalue``, ``min_eigenvalue``
            dims (epoch): of the Hessian over all parameters. Matrix-free: by Lanczos' method, to 1e-6 of the largest,
            and a relative damping with them.
        ``negative_eigenvalues``
            dims (epoch): the number of eigenvalues below minus the rounding error. Missing if matrix-free, which
            cannot know it.
        ``smallest_damped``
            dims (damping, epoch): min |eigenvalue + lambda|. Where ``min_eigenvalue`` < -lambda the matrix inverted is
            indefinite and no local posterior corresponds to it; there it is NaN if matrix-free.

    Raises
    ------
    IndefiniteCurvature
        If H + lambda I is singular to rounding at a checkpoint.
    SolveNotConverged
        If the matrix-free solver does not reach `rtol`.
    ValueError
        If a damping constant is negative, both or none of the two kinds are given, a loss or derivative is not finite,
        or shapes, names or weights do not fit.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500))
    >>> result = hessian_influence(hierarchical_dataset(), run.checkpoints, relative_damping=[0.1, 10.0])
    >>> bool(result["influence"].sel(damping=10.0, epoch=1500, source="dog", query="cat") < 0)
    True
    """
    constants = Damping.of(damping, relative_damping)
    request = InfluenceRequest.of("hessian", dataset, sources, queries, weights, constants, progress)
    _check_method(method)
    if isinstance(checkpoints, Checkpoints) and method != "matrix-free":
        return linear_hessian_influence(request.read(_reader(checkpoints)), checkpoints)
    return _of_any_module(request.read(Samples.of), _of_module(checkpoints), method, rtol, max_iterations)


def gauss_newton_influence(
    dataset: Dataset | Samples,
    checkpoints: Checkpoints | ModuleCheckpoints,
    *,
    damping: ArrayLike | None = None,
    relative_damping: ArrayLike | None = None,
    sources: Sequence[str] | None = None,
    queries: Dataset | Samples | None = None,
    weights: ArrayLike | None = None,
    method: str | None = None,
    rtol: float = 1e-8,
    max_iterations: int = 2000,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Return the damped Gauss-Newton influence at every checkpoint and damping constant.

    The matrix is that of `gauss_newton_matrix`. It has rank N O at most, O the outputs of a sample, and where that is
    less than the number of parameters it is factorised in the span of the rows of J.

    Parameters
    ----------
    dataset, checkpoints, damping, relative_damping, sources, queries, weights, rtol, max_iterations
        As for `hessian_influence`, with the Gauss-Newton matrix in the place of H. Damping must be positive where
        that is singular: in every linear network, and if there are more parameters than outputs of all samples.
    method
        "dense" or "matrix-free". If not given, dense where d min(d, N O) <= 2^24, d the number of
        parameters, and for linear networks of any size with weights 1.
    progress
        Called with the number of checkpoints done: after each, or once for a linear network, whose checkpoints all go
        in one batch.

    Returns
    -------
    xarray.Dataset
        The variables of `hessian_influence`. In a linear network ``min_eigenvalue`` is 0 and ``smallest_damped`` the
        damping itself: scaling W_1 up and W_2 down changes no output.

    Raises
    ------
    IndefiniteCurvature
        If a damping is below the rounding error of the largest eigenvalue, or an eigenvalue cancels it.
    SolveNotConverged
        As `hessian_influence`.
    ValueError
        As `hessian_influence`; also if the matrix is zero at a checkpoint and the damping is relative to it.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500))
    >>> result = gauss_newton_influence(hierarchical_dataset(), run.checkpoints, relative_damping=0.1)
    >>> bool(result["influence"].sel(damping=0.1, epoch=1500, source="dog", query="dog") < 0)
    True
    """
    constants = Damping.of(damping, relative_damping)
    request = InfluenceRequest.of("gauss-newton", dataset, sources, queries, weights, constants, progress)
    _check_method(method)
    if isinstance(checkpoints, Checkpoints):
        if constants.constants.min() == 0:
            raise ValueError(
                "the Gauss-Newton matrix is singular, so its damping must be positive, but 0.0 was given; use a small "
                "positive constant."
            )
        linear = request.read(_reader(checkpoints))
        if method != "matrix-free" and (request.sample_weights == 1).all():
            return linear_gauss_newton_influence(linear, checkpoints)
        method = method or "dense"
    return _of_any_module(request.read(Samples.of), _of_module(checkpoints), method, rtol, max_iterations)


def _of_any_module(
    request: InfluenceRequest[Samples],
    checkpoints: ModuleCheckpoints,
    method: str | None,
    rtol: float,
    max_iterations: int,
) -> xr.Dataset:
    check_finite(checkpoints, request.dataset, request.asked)
    if method == "dense" or (method is None and dense_numbers(request, checkpoints) <= _DENSE_NUMBERS):
        return dense_influence(request, checkpoints)
    return matrix_free_influence(request, checkpoints, rtol=rtol, max_iterations=max_iterations)


def _check_method(method: str | None) -> None:
    if method is not None:
        checks.choice("method", method, ("dense", "matrix-free"))


def _reader(checkpoints: Checkpoints) -> Callable[[Dataset | Samples], Dataset]:
    """Return what makes of data the matrices that a linear network reads, or refuses them."""

    def read(data: Dataset | Samples) -> Dataset:
        if isinstance(data, Samples):
            if not (isinstance(data.inputs, torch.Tensor) and isinstance(data.targets, torch.Tensor)):
                raise TypeError("a linear network reads inputs and targets that are one tensor each.")
            data = Dataset(data.inputs.cpu().numpy(), data.targets.cpu().numpy(), data.names)
        checkpoints.check_fits(data)
        return data

    return read


def _of_module(checkpoints: Checkpoints | ModuleCheckpoints) -> ModuleCheckpoints:
    return linear_as_module(checkpoints) if isinstance(checkpoints, Checkpoints) else checkpoints
