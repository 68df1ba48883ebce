r"""Curvature of a module's loss as a linear operator, and its extreme eigenvalues, without ever forming the matrix.

The products are those of `numerics.curvature.derivatives`, one vector or a block at a time:

.. math::
    H v = \nabla_w (v \cdot \nabla L) , \qquad G v = \frac1N \sum_i \beta_i J_i^T A_i (J_i v) .

Lanczos' method (ARPACK, through scipy) finds the two ends of the spectrum. What lies between them, and so the number of
negative eigenvalues, is out of its reach.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from numerics.curvature.entry import derivatives_of
from numerics.curvature.products import Product
from numerics.curvature.soundness import sound_product
from numerics.errors import SolveNotConverged
from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from theory import checks

__all__ = ["CurvatureOperator", "extreme_eigenvalues", "gauss_newton_operator", "hessian_operator"]

_SUBSPACE = 40  # of Lanczos' method; curvature has tight clusters of eigenvalues at both ends, and 20 often stall
ACCURACY = 1e-6  # of the extreme eigenvalues, relative to the largest absolute one


class CurvatureOperator(LinearOperator):
    """A symmetric scipy ``LinearOperator`` in float64 whose products run on the device of the weights.

    Parameters
    ----------
    product
        Multiplies the rows of a block (k, d).
    like
        Any float64 tensor on the device; of shape (d,).
    """

    def __init__(self, product: Product, like: Float[torch.Tensor, " d"]) -> None:
        super().__init__(np.dtype(np.float64), (len(like), len(like)))
        self.rows_product, self.device = product, like.device

    def _matmat(self, columns: np.ndarray) -> np.ndarray:
        rows = torch.tensor(columns.T, dtype=torch.float64, device=self.device)
        return self.rows_product(rows).cpu().numpy().T

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        return self._matmat(vector.reshape(-1, 1))[:, 0]

    def _adjoint(self) -> CurvatureOperator:
        return self


def hessian_operator(
    model: TorchModel,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    sample_weights: Float[torch.Tensor, " n"] | None = None,
    *,
    max_memory: int | None = None,
) -> CurvatureOperator:
    """Return the Hessian of the weighted mean loss as an operator.

    Parameters
    ----------
    model, weights, samples, sample_weights, max_memory
        As for `hessian_matrix`.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(2, 1, bias=False))
    >>> hessian_operator(model, torch.zeros(2), Samples(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1))) @ [1.0, 0.0]
    array([1., 2.])
    """
    derivatives = derivatives_of(model, weights, samples, "hessian", max_memory=max_memory)
    return CurvatureOperator(sound_product(derivatives, "hessian", weights, samples, sample_weights), weights)


def gauss_newton_operator(
    model: TorchModel,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    sample_weights: Float[torch.Tensor, " n"] | None = None,
    *,
    max_memory: int | None = None,
) -> CurvatureOperator:
    """Return the generalised Gauss-Newton matrix of the weighted mean loss as an operator.

    Parameters
    ----------
    model, weights, samples, sample_weights, max_memory
        As for `hessian_matrix`.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(2, 1, bias=False))
    >>> gauss_newton_operator(model, torch.zeros(2), Samples(torch.ones(3, 2), torch.zeros(3, 1))) @ [1.0, 0.0]
    array([1., 1.])
    """
    derivatives = derivatives_of(model, weights, samples, "gauss-newton", max_memory=max_memory)
    return CurvatureOperator(sound_product(derivatives, "gauss-newton", weights, samples, sample_weights), weights)


def extreme_eigenvalues(operator: LinearOperator) -> tuple[float, float]:
    """Return the lowest and the highest eigenvalue of a symmetric operator, to 1e-6 of the largest absolute one.

    The bound is that of the residual; a well separated eigenvalue is found to 1e-10 and better.

    Raises
    ------
    SolveNotConverged
        If Lanczos' method does not get there.

    Examples
    --------
    >>> from scipy.sparse.linalg import aslinearoperator
    >>> lowest, highest = extreme_eigenvalues(aslinearoperator(np.diag([-1.0, 0.5, 3.0])))
    >>> round(lowest, 12), round(highest, 12)
    (-1.0, 3.0)
    """
    checks.instance("operator", operator, LinearOperator, made_by="hessian_operator(...) or aslinearoperator(matrix)")
    size = operator.shape[0]
    if size <= 2 * _SUBSPACE:
        values = np.linalg.eigvalsh(operator @ np.eye(size))
        return float(values[0]), float(values[-1])
    start = np.random.default_rng(0).normal(size=size)
    if not np.any(operator @ start):
        return 0.0, 0.0
    settings = {"k": 1, "v0": start, "ncv": _SUBSPACE, "return_eigenvectors": False}
    try:
        rough = abs(eigsh(operator, which="LM", tol=0.1, **settings)[0])
        # ARPACK's tolerance is relative to each eigenvalue. Seen from 3 |rough| below, none is near zero.
        raised = LinearOperator(operator.shape, matvec=lambda v: operator @ v + 3 * rough * v, dtype=np.float64)
        ends = [eigsh(raised, which=end, tol=ACCURACY / 5, **settings)[0] - 3 * rough for end in ("SA", "LA")]
    except ArpackNoConvergence as error:
        raise SolveNotConverged(
            f"the extreme eigenvalues of a curvature matrix of size {size} did not converge; use method='dense' if "
            "that many numbers squared fit into memory."
        ) from error
    return float(ends[0]), float(ends[1])
