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
from typing import Any

import torch
import xarray as xr
from numpy.typing import ArrayLike

from numerics.curvature.dense_influence import dense_influence, dense_numbers
from numerics.curvature.gradients import module_kernel
from numerics.curvature.influence_request import (
    Damping,
    InfluenceRequest,
    parts_of,
    plain_labels,
    query_labels,
    source_labels,
    source_positions,
    with_parts,
)
from numerics.curvature.linear_influence import linear_gauss_newton_influence, linear_hessian_influence, linear_kernel
from numerics.curvature.matrix_free_influence import matrix_free_influence
from numerics.curvature.module_problem import ModuleProblem
from numerics.errors import IndefiniteCurvature
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.given import check_checkpoints, check_data
from numerics.models.linear import Checkpoints, linear_as_module
from numerics.models.queries import Asked, Queries
from numerics.models.samples import Parts, Samples
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import trajectory

__all__ = ["IndefiniteCurvature", "gauss_newton_influence", "gradient_kernel", "hessian_influence"]

_DENSE_NUMBERS = 2**24  # of the largest matrix that is factorised without being asked for: 4096 x 4096


def gradient_kernel(
    dataset: Dataset | Samples,
    checkpoints: Checkpoints | ModuleCheckpoints,
    *,
    sources: Sequence[str] | Parts | None = None,
    queries: Asked | Parts = None,
    max_memory: int | None = None,
) -> xr.DataArray:
    """Return the gradient kernel K_ij = grad l_i . grad l_j at every checkpoint.

    Parameters
    ----------
    dataset, checkpoints, sources, queries, max_memory
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
    check_data(dataset)
    check_checkpoints(checkpoints)
    found = parts_of(dataset, sources) if isinstance(sources, Parts) else source_positions(dataset, sources)
    attrs = {"estimator": "gradient kernel"}
    asked: Any
    if isinstance(checkpoints, Checkpoints) and not isinstance(found, Parts) and _of_losses(queries):
        read, asked = _reader(checkpoints), dataset if queries is None else queries
        kernel, engine = linear_kernel(read(dataset), read(asked), checkpoints, found), "closed form"
    else:
        asked = queries if isinstance(queries, Parts) else Queries.of(queries, dataset)
        kernel, engine = module_kernel(Samples.of(dataset), asked, _of_module(checkpoints), found, max_memory)
        attrs["query_measure"] = "loss" if isinstance(asked, Parts) else asked.measured
    labels = {"source": source_labels(dataset, found), "query": query_labels(asked)}
    plain = plain_labels(labels)
    result = trajectory(
        kernel,
        checkpoints.epochs,
        plain["source"],
        plain["query"],
        name="kernel",
        attrs=attrs | {"engine": engine},
    )
    return with_parts(result, labels)


def hessian_influence(
    dataset: Dataset | Samples,
    checkpoints: Checkpoints | ModuleCheckpoints,
    *,
    damping: ArrayLike | None = None,
    relative_damping: ArrayLike | None = None,
    sources: Sequence[str] | Parts | None = None,
    queries: Asked | Parts = None,
    weights: ArrayLike | None = None,
    method: str | None = None,
    rtol: float = 1e-8,
    max_iterations: int = 2000,
    max_memory: int | None = None,
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
        Names of the samples whose influence is asked for, or `Parts` of samples of `dataset`, whose weights enter the
        loss of their sample by their share 1 / k_i; all samples if not given.
    queries
        What is asked: samples, seen in training or not, for their losses; a `Query` for any other measure of the
        outputs; functions of the parameters by name; or a list of these. Or `Parts` of samples, for their own losses.
        The losses of `dataset` if not given. Parts have a MultiIndex, ("query_name", "query_part") say.
    weights
        Sample weights beta of L at the checkpoints, shape (N,), >= 0; all 1 if not given. A sample of weight 0 is
        unseen, and its influence is that of adding it.
    method
        "dense" or "matrix-free". If not given, dense up to 4096 parameters (a matrix of 2^24 numbers) and for linear
        networks of any size, which reduce to their P + O hidden directions that carry weight.
    rtol, max_iterations
        Largest residual accepted by the matrix-free solver, and products with H allowed for it. Tens suffice where the
        damping exceeds the negative eigenvalues; inside a dense spectrum no iterative solver is fast.
    max_memory
        Bytes that the work of a module may hold at a time, besides the result and a dense matrix: samples go through it
        in blocks. 1 GiB, or a quarter of what is free, if not given.
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
        If the matrix-free solver does not reach `rtol`, or the dense one leaves more than rounding.
    NotDifferentiable
        If torch has no derivative of the module that is needed.
    WrongDerivative
        If a second derivative by torch contradicts its symmetry or finite differences.
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
    check_data(dataset)
    check_checkpoints(checkpoints)
    constants = Damping.of(damping, relative_damping)
    request = InfluenceRequest.of("hessian", dataset, sources, queries, weights, constants, progress)
    _check_method(method)
    if isinstance(checkpoints, Checkpoints) and method != "matrix-free" and _of_losses(queries, sources):
        return linear_hessian_influence(request.read(_reader(checkpoints)), checkpoints)
    return _of_any_module(request, _of_module(checkpoints), method, rtol, max_iterations, max_memory)


def gauss_newton_influence(
    dataset: Dataset | Samples,
    checkpoints: Checkpoints | ModuleCheckpoints,
    *,
    damping: ArrayLike | None = None,
    relative_damping: ArrayLike | None = None,
    sources: Sequence[str] | Parts | None = None,
    queries: Asked | Parts = None,
    weights: ArrayLike | None = None,
    method: str | None = None,
    rtol: float = 1e-8,
    max_iterations: int = 2000,
    max_memory: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Return the damped Gauss-Newton influence at every checkpoint and damping constant.

    The matrix is that of `gauss_newton_matrix`. It has rank N O at most, O the outputs of a sample, and where that is
    less than the number of parameters it is factorised in the span of the rows of J.

    Parameters
    ----------
    dataset, checkpoints, damping, relative_damping, sources, queries, weights, rtol, max_iterations, max_memory
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
    SolveNotConverged, NotDifferentiable, WrongDerivative
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
    check_data(dataset)
    check_checkpoints(checkpoints)
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
        if method != "matrix-free" and (request.sample_weights == 1).all() and _of_losses(queries, sources):
            return linear_gauss_newton_influence(linear, checkpoints)
        method = method or "dense"
    return _of_any_module(request, _of_module(checkpoints), method, rtol, max_iterations, max_memory)


def _of_any_module(
    request: InfluenceRequest[Dataset | Samples],
    checkpoints: ModuleCheckpoints,
    method: str | None,
    rtol: float,
    max_iterations: int,
    max_memory: int | None,
) -> xr.Dataset:
    problem = ModuleProblem.of(request.of_module(), checkpoints, max_memory)
    if method == "dense" or (method is None and dense_numbers(problem) <= _DENSE_NUMBERS):
        return dense_influence(problem)
    return matrix_free_influence(problem, rtol=rtol, max_iterations=max_iterations)


def _of_losses(queries: Asked | Parts, sources: Sequence[str] | Parts | None = None) -> bool:
    """Return whether the losses of samples are asked, which linear networks have shortcuts for."""
    return not isinstance(sources, Parts) and (queries is None or isinstance(queries, (Dataset, Samples)))


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
