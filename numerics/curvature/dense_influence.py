r"""Damped influence of any torch module by an eigendecomposition of its curvature at every checkpoint.

.. math:: I_{ij} = -\frac{1}{N}\, \nabla \ell_j^T (M + \lambda I)^{-1} \nabla \ell_i , \qquad M = H \text{ or } G .

One decomposition serves every damping constant. Where the Gauss-Newton matrix G has fewer dimensions than there are
parameters, it is taken in an orthonormal basis of the span of the rows of J: G vanishes outside, and the gradients of
the sources, sums of rows of J, lie inside, whatever is asked of them. Woodbury's identity solves in the same space, but
subtracts numbers of size 1 / lambda and needs losses that are convex in the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from numerics.curvature.derivatives import in_the_mean
from numerics.curvature.module_problem import ModuleProblem
from numerics.curvature.products import Product
from numerics.errors import SolveNotConverged

__all__ = ["dense_influence", "dense_numbers"]

_EPS = np.finfo(float).eps
_TERMS = 100  # roundings for each term of a sum: those of eigh and of both ways to a product, with room to spare


def dense_numbers(problem: ModuleProblem) -> int:
    """Return how many numbers the matrix to factorise, or the rows that span it, hold."""
    size = problem.derivatives.model.n_parameters
    return size * (size if problem.request.curvature == "hessian" else min(size, _rank_bound(problem)))


def dense_influence(problem: ModuleProblem) -> xr.Dataset:
    """Answer by one eigendecomposition of the curvature at every checkpoint."""
    request, damping, epochs = problem.request, problem.request.damping, problem.checkpoints.epochs
    n, m = len(problem.sources), len(problem.queries)
    influence, residual = np.empty((len(damping), len(epochs), n, m)), np.empty((len(damping), len(epochs), n))
    largest, lowest, negative = np.empty(len(epochs)), np.empty(len(epochs)), np.empty(len(epochs), dtype=np.int64)
    closest = np.empty((len(damping), len(epochs)))
    for t, epoch in enumerate(epochs):
        spectrum = _spectrum(problem, t)
        values, vectors = spectrum.values, spectrum.vectors
        every = torch.cat([values, values.new_zeros(spectrum.zeros)]).cpu().numpy()
        largest[t], lowest[t] = np.abs(every).max(), every.min()
        rounding = _EPS * len(values) * largest[t]
        negative[t] = (every < -rounding).sum()
        shifts = damping.shifts(request.matrix, largest[t], epoch)
        closest[:, t] = np.abs(every + shifts[:, None]).min(1)
        damping.refuse_singular(request.matrix, closest[:, t], rounding, epoch)
        columns = torch.tensor(shifts).to(values)[:, None, None]
        projected = problem.queries.held(t, vectors)
        for rows, gradients in problem.sources.blocks(t, copies=2 * len(damping)):
            solved = (gradients @ vectors) / (values + columns)
            for others, queries in projected():
                influence[:, t, rows, others] = -(solved @ queries.mT).cpu().numpy() / len(request.dataset)
            for d, shift in enumerate(shifts.tolist()):
                solution = solved[d] @ vectors.mT
                left = (spectrum.product(solution) + shift * solution - gradients).norm(dim=1)
                norms = gradients.norm(dim=1)
                norms = torch.where(norms > 0, norms, 1)
                residual[d, t, rows] = (left / norms).cpu().numpy()
                bound = _EPS * _TERMS * _terms(problem) * (largest[t] + shift) * solution.norm(dim=1) / norms
                _refuse_residual(problem, residual[d, t, rows], bound.cpu().numpy(), rows.start, epoch)
        request.report(t + 1)
    return request.answer(
        epochs,
        "dense",
        problem.engine,
        influence=influence,
        residual=residual,
        largest=largest,
        lowest=lowest,
        closest=closest,
        negative=negative,
    )


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """Eigenvalues (k,) and eigenvectors (d, k), further eigenvalues of zero, and products with the rows of a block.

    The further ones belong to directions in which no source has a part.
    """

    values: torch.Tensor
    vectors: torch.Tensor
    zeros: int
    product: Product


def _spectrum(problem: ModuleProblem, t: int) -> _Spectrum:
    derivatives, w = problem.at(t)
    curvature, samples, beta = problem.request.curvature, problem.request.dataset, problem.beta
    if curvature == "hessian" or _rank_bound(problem) >= len(w):
        return _decomposed(problem.matrix(t), problem, t)
    product = problem.product(t)
    batches = list(derivatives.jacobians(w, samples))
    basis = torch.linalg.qr(torch.cat([jacobian.flatten(0, 1) for _, jacobian, _ in batches]).mT).Q
    inside = basis.new_zeros(basis.shape[1], basis.shape[1])
    mean = in_the_mean(w, samples, beta)
    for part, jacobian, curved in batches:
        reduced = jacobian @ basis
        inside += reduced.flatten(0, 1).mT @ (mean[part, None, None] * curved @ reduced).flatten(0, 1)
    found = _decomposed(inside, problem, t)
    return _Spectrum(found.values, basis @ found.vectors, len(w) - len(found.values), product)


def _decomposed(matrix: Float[torch.Tensor, "k k"], problem: ModuleProblem, t: int) -> _Spectrum:
    if not torch.isfinite(matrix).all():
        raise ValueError(
            f"{problem.request.matrix} is not finite at epoch {problem.checkpoints.epochs[t]:g}: the loss or the "
            "module has no second derivative there."
        )
    values, vectors = torch.linalg.eigh(matrix)
    return _Spectrum(values, vectors, 0, lambda rows: rows @ matrix)


def _refuse_residual(problem: ModuleProblem, residual: np.ndarray, bound: np.ndarray, first: int, epoch: float) -> None:
    """Refuse what rounding does not explain."""
    if np.any(residual > bound):
        k = int(np.argmax(residual > bound))
        raise SolveNotConverged(
            f"the eigendecomposition of {problem.request.matrix} at epoch {epoch:g} left a residual of "
            f"{residual[k]:.2g} for {problem.sources.names[first + k]!r}, where rounding leaves {bound[k]:.2g}. "
            "The matrix is symmetric and agrees with finite differences, so LAPACK is at fault; use "
            "method='matrix-free'."
        )


def _terms(problem: ModuleProblem) -> int:
    """Return the length of the longest sums in a product."""
    found = problem.derivatives
    return found.model.n_parameters + len(problem.request.dataset) * (found.sample_bytes // 8)


def _rank_bound(problem: ModuleProblem) -> int:
    """Return the number N O of rows of J."""
    return len(problem.request.dataset) * problem.derivatives.n_outputs
