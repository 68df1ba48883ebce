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

from numerics.curvature.gradients import gradients_at
from numerics.curvature.influence_request import InfluenceRequest
from numerics.curvature.module import (
    Product,
    gauss_newton_matrix,
    gauss_newton_product,
    hessian_matrix,
    in_the_mean,
    n_outputs,
    output_derivatives,
)
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.samples import Samples

__all__ = ["dense_influence", "dense_numbers"]


def dense_numbers(request: InfluenceRequest[Samples], checkpoints: ModuleCheckpoints) -> int:
    """Return how many numbers the matrix to factorise, or the rows that span it, hold."""
    size = checkpoints.model.n_parameters
    return size * (size if request.curvature == "hessian" else min(size, _rank_bound(request, checkpoints)))


def dense_influence(request: InfluenceRequest[Samples], checkpoints: ModuleCheckpoints) -> xr.Dataset:
    """Answer by one eigendecomposition of the curvature at every checkpoint."""
    damping, samples, epochs = request.damping, request.dataset, checkpoints.epochs
    n, m = len(request.sources), len(request.asked)
    influence, residual = np.empty((len(damping), len(epochs), n, m)), np.empty((len(damping), len(epochs), n))
    largest, lowest, negative = np.empty(len(epochs)), np.empty(len(epochs)), np.empty(len(epochs), dtype=np.int64)
    closest = np.empty((len(damping), len(epochs)))
    for t, epoch in enumerate(epochs):
        gradients = gradients_at(checkpoints, t, samples)
        asked = gradients if request.queries is None else gradients_at(checkpoints, t, request.queries)
        spectrum = (
            _hessian_spectrum(request, checkpoints, t)
            if request.curvature == "hessian"
            else _gauss_newton_spectrum(request, checkpoints, t)
        )
        values, vectors = spectrum.values, spectrum.vectors
        every = torch.cat([values, values.new_zeros(spectrum.zeros)]).cpu().numpy()
        largest[t], lowest[t] = np.abs(every).max(), every.min()
        rounding = np.finfo(float).eps * len(values) * largest[t]
        negative[t] = (every < -rounding).sum()
        shifts = damping.shifts(request.matrix, largest[t], epoch)
        closest[:, t] = np.abs(every + shifts[:, None]).min(1)
        damping.refuse_singular(request.matrix, closest[:, t], rounding, epoch)
        gradients = gradients[torch.as_tensor(request.sources, device=gradients.device)]
        norms = gradients.norm(dim=1)
        norms = torch.where(norms > 0, norms, 1)
        sources, queries = gradients @ vectors, asked @ vectors
        for d, shift in enumerate(shifts.tolist()):
            solved = sources / (values + shift)
            influence[d, t] = -(solved @ queries.mT).cpu().numpy() / len(samples)
            solved = solved @ vectors.mT
            left = spectrum.product(solved) + shift * solved - gradients
            residual[d, t] = (left.norm(dim=1) / norms).cpu().numpy()
        request.report(t + 1)
    return request.answer(
        epochs,
        "dense",
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


def _hessian_spectrum(request: InfluenceRequest[Samples], checkpoints: ModuleCheckpoints, t: int) -> _Spectrum:
    matrix = hessian_matrix(
        checkpoints.model_at(t), checkpoints.weights_at(t), request.dataset, torch.tensor(request.sample_weights)
    )
    return _decomposed(matrix, request, checkpoints.epochs[t])


def _gauss_newton_spectrum(request: InfluenceRequest[Samples], checkpoints: ModuleCheckpoints, t: int) -> _Spectrum:
    model, w, samples = checkpoints.model_at(t), checkpoints.weights_at(t), request.dataset
    beta = torch.tensor(request.sample_weights)
    if _rank_bound(request, checkpoints) >= len(w):
        return _decomposed(gauss_newton_matrix(model, w, samples, beta), request, checkpoints.epochs[t])
    batches = list(output_derivatives(model, w, samples))
    basis = torch.linalg.qr(torch.cat([jacobian.flatten(0, 1) for _, jacobian, _ in batches]).mT).Q
    inside = basis.new_zeros(basis.shape[1], basis.shape[1])
    mean = in_the_mean(w, samples, beta)
    for part, jacobian, curved in batches:
        reduced = jacobian @ basis
        inside += reduced.flatten(0, 1).mT @ (mean[part, None, None] * curved @ reduced).flatten(0, 1)
    found = _decomposed(inside, request, checkpoints.epochs[t])
    product = gauss_newton_product(model, w, samples, beta)
    return _Spectrum(found.values, basis @ found.vectors, len(w) - len(found.values), product)


def _decomposed(matrix: Float[torch.Tensor, "k k"], request: InfluenceRequest[Samples], epoch: float) -> _Spectrum:
    if not torch.isfinite(matrix).all():
        raise ValueError(
            f"{request.matrix} is not finite at epoch {epoch:g}: the loss or the module has no second derivative there."
        )
    values, vectors = torch.linalg.eigh(matrix)
    return _Spectrum(values, vectors, 0, lambda rows: rows @ matrix)


def _rank_bound(request: InfluenceRequest[Samples], checkpoints: ModuleCheckpoints) -> int:
    """Return the number N O of rows of J."""
    return len(request.dataset) * n_outputs(checkpoints.model_at(0), checkpoints.weights_at(0), request.dataset)
