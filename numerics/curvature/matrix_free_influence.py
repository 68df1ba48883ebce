r"""Damped influence of any torch module by products with its curvature alone.

.. math:: I_{ij} = -\frac{1}{N}\, \nabla \ell_j^T (M + \lambda I)^{-1} \nabla \ell_i , \qquad M = H \text{ or } G .

MINRES, which does not need M + lambda I to be positive, solves for the sources or for the queries, whichever are fewer,
and for every damping constant at once; gradients of the others stream.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from numerics.curvature.gradients import gradients_at, pieces
from numerics.curvature.influence_request import InfluenceRequest
from numerics.curvature.minres import damped_solve
from numerics.curvature.operators import ACCURACY, extreme_eigenvalues, gauss_newton_operator, hessian_operator
from numerics.errors import SolveNotConverged
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.samples import Samples

__all__ = ["matrix_free_influence"]


def matrix_free_influence(
    request: InfluenceRequest[Samples],
    checkpoints: ModuleCheckpoints,
    *,
    rtol: float,
    max_iterations: int,
) -> xr.Dataset:
    """Answer by MINRES on products with the curvature, for the sources or the queries, whichever are fewer."""
    damping, samples, epochs = request.damping, request.dataset, checkpoints.epochs
    few, many, solved_for = samples[request.sources], request.asked, "source"
    if len(many) < len(few):
        few, many, solved_for = many, few, "query"
    influence = np.empty((len(damping), len(epochs), len(few), len(many)))
    residual = np.empty((len(damping), len(epochs), len(few)))
    largest, lowest, closest = np.empty(len(epochs)), np.empty(len(epochs)), np.empty((len(damping), len(epochs)))
    beta = torch.tensor(request.sample_weights)
    for t, epoch in enumerate(epochs):
        make = hessian_operator if request.curvature == "hessian" else gauss_newton_operator
        operator = make(checkpoints.model_at(t), checkpoints.weights_at(t), samples, beta)
        lowest[t], highest = extreme_eigenvalues(operator)
        largest[t] = max(abs(lowest[t]), abs(highest))
        shifts = damping.shifts(request.matrix, largest[t], epoch)
        known = lowest[t] + shifts > ACCURACY * largest[t]
        closest[:, t] = np.where(known, lowest[t] + shifts, np.nan)
        if shifts.min() == 0 and abs(lowest[t]) <= ACCURACY * largest[t]:
            damping.refuse_singular(request.matrix, shifts, 0.0, epoch)
        try:
            solution = damped_solve(
                operator,
                gradients_at(checkpoints, t, few),
                shifts,
                rtol=rtol,
                max_iterations=max_iterations,
                names=few.names,
            )
        except SolveNotConverged as error:
            raise SolveNotConverged(
                f"at epoch {epoch:g} {error} Dampings above {max(0.0, -lowest[t]):.3g} leave no negative eigenvalue."
            ) from error
        residual[:, t] = solution.residuals
        for rows in pieces(len(many), checkpoints):
            gradients = gradients_at(checkpoints, t, many[rows])
            influence[:, t, :, rows] = -(solution.values @ gradients.mT).cpu().numpy() / len(samples)
        request.report(t + 1)
    return request.answer(
        epochs,
        "matrix-free",
        influence=influence if solved_for == "source" else influence.swapaxes(2, 3),
        residual=residual,
        largest=largest,
        lowest=lowest,
        closest=closest,
        solved_for=solved_for,
    )
