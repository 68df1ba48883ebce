r"""MINRES for a symmetric, possibly indefinite matrix, many right-hand sides and many shifts at once.

Minimise over the Krylov space of M and g (Paige and Saunders 1975)

.. math:: \| (M + \lambda I) x - g \| .

That space does not depend on lambda, so one Lanczos recurrence serves every damping constant (Jegerlehner 1996), and
right-hand sides go through each product as one block. Conjugate gradients would break down here: M + lambda I is
indefinite for most of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator

from numerics.curvature.operators import CurvatureOperator
from numerics.curvature.products import Product
from numerics.errors import SolveNotConverged
from numerics.models.checkpoints import refuse_masked
from theory import checks

__all__ = ["DampedSolution", "damped_solve"]

_NUMBERS = 2**25  # numbers that the recurrences of one block of right-hand sides may hold, 256 MiB


@dataclass(frozen=True, eq=False)
class DampedSolution:
    """Solutions x of (M + lambda) x = g.

    Parameters
    ----------
    values
        x, shape (constants, right-hand sides, d), on the device of the gradients.
    residuals
        |(M + lambda) x - g| / |g| by one more product, shape (constants, right-hand sides); 0 where g is zero.
    iterations
        Products with M of each block of right-hand sides, the largest.
    """

    values: torch.Tensor
    residuals: np.ndarray
    iterations: int


def damped_solve(
    operator: LinearOperator,
    gradients: Float[torch.Tensor, "k d"],
    damping: ArrayLike,
    *,
    rtol: float = 1e-8,
    max_iterations: int = 2000,
    names: Sequence[str] | None = None,
) -> DampedSolution:
    """Solve (M + lambda) x = g for every gradient and every damping constant, with residuals that were measured.

    Parameters
    ----------
    operator
        Symmetric M of size d: `hessian_operator`, `gauss_newton_operator`, or any other scipy ``LinearOperator``.
    gradients
        Right-hand sides g, shape (k, d), float64.
    damping
        Constants lambda, shape (m,).
    rtol
        Largest residual accepted, relative to |g|.
    max_iterations
        Products allowed for one block of right-hand sides, of the order of the condition number where M + lambda is
        indefinite: an eigenvalue close to -lambda is found by no Krylov space sooner.
    names
        Names of the right-hand sides, for the sentence of a refusal.

    Raises
    ------
    SolveNotConverged
        If a residual stays above `rtol`; no such solution is returned.
    TypeError, ValueError
        If the gradients are not float64, or sizes do not fit.

    Examples
    --------
    >>> from scipy.sparse.linalg import aslinearoperator
    >>> indefinite = aslinearoperator(np.diag([-1.0, 0.0, 3.0]))
    >>> damped_solve(indefinite, torch.ones(1, 3, dtype=torch.float64), [0.5]).values
    tensor([[[-2.0000,  2.0000,  0.2857]]], dtype=torch.float64)
    """
    checks.instance("operator", operator, LinearOperator, made_by="hessian_operator(...) or aslinearoperator(matrix)")
    checks.instance("gradients", gradients, torch.Tensor, made_by="sample_gradients(...)")
    if gradients.ndim != 2 or not len(gradients) or not bool(torch.isfinite(gradients).all()):
        raise ValueError(
            f"gradients must be finite numbers of shape (k, d) with k at least 1, but have shape "
            f"{tuple(gradients.shape)}{'' if gradients.ndim != 2 or not len(gradients) else ' and hold others'}."
        )
    if gradients.dtype != torch.float64:
        raise TypeError(f"gradients must be float64, but are {gradients.dtype}; convert them by gradients.double().")
    refuse_masked("damping", damping)
    constants = np.atleast_1d(checks.array("damping", damping))
    rtol = checks.positive("rtol", rtol)
    size = operator.shape[0]
    if tuple(operator.shape) != (size, gradients.shape[1]):
        raise ValueError(
            f"the operator has shape {tuple(operator.shape)}, but gradients of {gradients.shape[1]} parameters need a "
            "square one of that size."
        )
    limit = checks.integer("max_iterations", max_iterations, at_least=1)
    product = _rows_product(operator)
    shifts = torch.tensor(constants).to(gradients)
    solved, residuals, iterations = [], [], 0
    for block in gradients.split(max(1, _NUMBERS // (3 * len(constants) * size))):
        # The recurrence's own residual drifts from the true one by rounding, so it is taken to half the tolerance.
        values, steps = _shifted_minres(product, block, shifts, rtol / 2, limit)
        left = torch.stack([product(x) + shift * x - block for x, shift in zip(values, shifts, strict=True)])
        norms = block.norm(dim=1)
        solved.append(values)
        residuals.append(left.norm(dim=2) / torch.where(norms > 0, norms, 1))
        iterations = max(iterations, steps)
    measured = torch.cat(residuals, dim=1).cpu().numpy()
    if not np.all(measured <= rtol):
        d, k = (int(i) for i in np.argwhere(~(measured <= rtol))[0])
        which = f"right-hand side {k}" if names is None else repr(names[k])
        raise SolveNotConverged(
            f"MINRES left a residual of {measured[d, k]:.2g} (rtol = {rtol:.2g}) for {which} with damping "
            f"{constants[d]:.4g} after {iterations} iterations; allow more by max_iterations, accept a larger rtol, or "
            "choose another damping: an eigenvalue may lie close to its negative."
        )
    return DampedSolution(torch.cat(solved, dim=1), measured, iterations)


def _rows_product(operator: LinearOperator) -> Product:
    if isinstance(operator, CurvatureOperator):
        return operator.rows_product

    def product(rows: torch.Tensor) -> torch.Tensor:
        return torch.tensor(np.asarray(operator.matmat(rows.cpu().numpy().T)).T).to(rows)

    return product


def _shifted_minres(
    product: Product, rhs: Float[torch.Tensor, "k d"], shifts: Float[torch.Tensor, " m"], rtol: float, limit: int
) -> tuple[Float[torch.Tensor, "m k d"], int]:
    """Run the recurrences until every residual estimate is below rtol |g| or the limit is reached.

    Lanczos gives the columns (b_k, a_k + lambda, b_{k+1}) of a tridiagonal matrix. Two old rotations and a new one turn
    each into (far, near, pivot) of a triangular matrix R; the directions w are the columns of V R^{-1}.
    """
    norms = rhs.norm(dim=1)
    v, v_old, beta = rhs / _nonzero(norms)[:, None], torch.zeros_like(rhs), torch.zeros_like(norms)
    x = rhs.new_zeros(len(shifts), *rhs.shape)
    w, w_old = torch.zeros_like(x), torch.zeros_like(x)
    eta = norms.repeat(len(shifts), 1)  # signed norm of each residual
    cosine, cosine_old = torch.ones_like(eta), torch.ones_like(eta)
    sine, sine_old = torch.zeros_like(eta), torch.zeros_like(eta)
    for iteration in range(limit):
        active = eta.abs() > rtol * norms
        if not active.any():
            return x, iteration
        ahead = product(v) - beta[:, None] * v_old
        alpha = (ahead * v).sum(1)
        ahead -= alpha[:, None] * v
        beta_ahead = ahead.norm(dim=1)

        diagonal = alpha + shifts[:, None]
        far, middle = sine_old * beta, cosine_old * beta
        near, pivot = cosine * middle + sine * diagonal, cosine * diagonal - sine * middle
        length = _nonzero(torch.hypot(pivot, beta_ahead))
        cosine_old, sine_old, cosine, sine = cosine, sine, pivot / length, beta_ahead / length

        w, w_old = (v - near[..., None] * w - far[..., None] * w_old) / length[..., None], w
        x += torch.where(active, cosine * eta, 0)[..., None] * w
        eta = torch.where(active, -sine * eta, eta)
        v, v_old, beta = ahead / _nonzero(beta_ahead)[:, None], v, beta_ahead
    return x, limit


def _nonzero(lengths: torch.Tensor) -> torch.Tensor:
    return torch.where(lengths > 0, lengths, 1)
