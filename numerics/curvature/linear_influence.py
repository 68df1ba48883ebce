r"""Damped influence of two-layer linear networks by their own structure: the fast path of `numerics.hessian_influence`.

.. math:: I_{ij} = -\frac{1}{N}\, \nabla \ell_j^T (H + \lambda I)^{-1} \nabla \ell_i .

Hessian: gradients and curvature live in the hidden directions that carry weight, at most P + O of them; the other
directions decouple. One tridiagonal form T = Q^T H Q of what is left serves every damping constant.

Gauss-Newton: the matrix J^T J / N has rank N O at most. Its dual J J^T = A x I + B x D, with A = X W_1^T W_1 X^T,
B = X X^T and D = W_2 W_2^T, falls into O matrices K_o = A + d_o B of size N in the eigenbasis of D, and the influence
is - sum_o (r_io r_jo) [K_o (K_o + N lambda)^{-1}]_ji with r the residuals in that basis; the rows of the K_o on the
left belong to queries.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from scipy.linalg import eigvalsh_tridiagonal, lapack, solve_banded

from numerics.curvature.influence_request import InfluenceRequest
from numerics.curvature.linear import hessian, idle_eigenvalues, per_sample_gradients
from numerics.models.linear import Checkpoints, without_idle_units
from numerics.threads import one_thread
from theory.hierarchy import Dataset

__all__ = ["linear_gauss_newton_influence", "linear_hessian_influence", "linear_kernel"]


def linear_kernel(
    dataset: Dataset, queries: Dataset, checkpoints: Checkpoints, sources: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "t n q"]:
    """Return the gradient kernel of the samples at the positions `sources` with every query."""
    with one_thread():
        rows, asked = (per_sample_gradients(data, checkpoints.w1, checkpoints.w2) for data in (dataset, queries))
        return (rows[:, sources] @ asked.mT).cpu().numpy()


def linear_hessian_influence(request: InfluenceRequest[Dataset], checkpoints: Checkpoints) -> xr.Dataset:
    """Answer by the reduced Hessian, one checkpoint after the other."""
    dataset, sources, damping, epochs = request.dataset, request.sources, request.damping, checkpoints.epochs
    influence = np.empty((len(damping), len(epochs), len(sources), len(request.asked)))
    residual = np.empty((len(damping), len(epochs), len(sources)))
    largest, lowest, negative = np.empty(len(epochs)), np.empty(len(epochs)), np.empty(len(epochs), dtype=np.int64)
    closest = np.empty((len(damping), len(epochs)))
    # Samples scaled by sqrt(beta) have the losses beta l.
    scale = np.sqrt(request.sample_weights)[:, None]
    weighted = Dataset(scale * dataset.inputs, scale * dataset.targets, dataset.names)
    with one_thread():
        for t, (w1, w2) in enumerate(zip(checkpoints.w1, checkpoints.w2, strict=True)):
            _, reduced1, reduced2 = without_idle_units(w1, w2)
            rows = per_sample_gradients(dataset, reduced1, reduced2)
            if request.queries is not None:
                rows = torch.cat([rows[sources], per_sample_gradients(request.queries, reduced1, reduced2)])
            form = _Tridiagonal(hessian(weighted, reduced1, reduced2).cpu().numpy(), rows.cpu().numpy())
            # Where there are idle directions, their eigenvalues are also among the reduced ones: (a v^T, -+u a^T) with
            # W_1^T a = alpha v and W_2 a = +-alpha u leaves W as it is. So they only add to the count.
            eigenvalues = form.eigenvalues
            idle = idle_eigenvalues(weighted, w1, w2).cpu().numpy()
            copies = len(w1) - len(reduced1)
            largest[t], lowest[t] = np.abs(eigenvalues).max(), eigenvalues.min()
            rounding = np.finfo(float).eps * len(eigenvalues) * largest[t]
            negative[t] = (eigenvalues < -rounding).sum() + copies * (idle < -rounding).sum()
            shifts = damping.shifts(request.matrix, largest[t], epochs[t])
            closest[:, t] = np.abs(eigenvalues + shifts[:, None]).min(1)
            damping.refuse_singular(request.matrix, closest[:, t], rounding, epochs[t])
            if request.queries is None:
                solve, against = form.columns[:, sources], form.columns
            else:
                solve, against = form.columns[:, : len(sources)], form.columns[:, len(sources) :]
            for d, shift in enumerate(shifts):
                solved, residual[d, t] = form.solve(shift, solve)
                influence[d, t] = -solved.T @ against / len(dataset)
            request.report(t + 1)
    return request.answer(
        epochs,
        "linear network",
        "closed form",
        influence=influence,
        residual=residual,
        largest=largest,
        lowest=lowest,
        closest=closest,
        negative=negative,
    )


def linear_gauss_newton_influence(request: InfluenceRequest[Dataset], checkpoints: Checkpoints) -> xr.Dataset:
    """Answer by the dual of the Gauss-Newton matrix, all checkpoints in one batch; sample weights must be 1."""
    matrix, damping, sources, epochs = request.matrix, request.damping, request.sources, checkpoints.epochs
    n, n_outputs = len(request.dataset), request.dataset.n_outputs
    w1, w2 = checkpoints.w1, checkpoints.w2
    with one_thread():
        gains, basis = torch.linalg.eigh(w2 @ w2.mT)

        def seen(data: Dataset) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            x, y = torch.tensor(data.inputs).to(w1), torch.tensor(data.targets).to(w1)
            hidden = x @ w1.mT
            return x, hidden, (hidden @ w2.mT - y) @ basis

        x, hidden, residuals = seen(request.dataset)
        asked_x, asked_hidden, asked_residuals = seen(request.asked)
        dual = (hidden @ hidden.mT)[:, None] + gains[:, :, None, None] * (x @ x.mT)
        values, vectors = torch.linalg.eigh(dual)
        values = values.clamp(min=0)
        largest = (values.amax((1, 2)) / n).cpu().numpy()
        shifts = np.stack([damping.shifts(matrix, top, epoch) for top, epoch in zip(largest, epochs, strict=True)], 1)
        for t, epoch in enumerate(epochs):
            damping.refuse_singular(matrix, shifts[:, t], np.finfo(float).eps * n * n_outputs * largest[t], epoch)
        damped = values + n * torch.tensor(shifts).to(values)[..., None, None]
        if request.queries is None:
            left = vectors * values[..., None, :]
        else:
            between = (asked_hidden @ hidden.mT)[:, None] + gains[:, :, None, None] * (asked_x @ x.mT)
            left = between @ vectors
        chosen = torch.as_tensor(sources, device=w1.device)
        response = torch.einsum("toqk,dtok,tojk->dtojq", left, 1 / damped, vectors[..., chosen, :])
        influence = -torch.einsum("tjo,tqo,dtojq->dtjq", residuals[:, chosen], asked_residuals, response)

        # x_j = N J^T z_j leaves J^T rho_j with rho = (K + N lambda) z - e_j r_j, of squared norm rho^T K rho.
        solved = torch.einsum("toik,dtok,tojk->dtoij", vectors, 1 / damped, vectors[..., chosen, :])
        rho = dual @ solved + n * torch.tensor(shifts).to(values)[..., None, None, None] * solved
        rho[..., chosen, torch.arange(len(sources), device=w1.device)] -= 1
        parts = residuals[:, chosen].square().mT  # of every output in the squared norm of a gradient
        squares = ((rho * (dual @ rho)).sum(-2) * parts).sum(2)
        norms = (torch.diagonal(dual, dim1=-2, dim2=-1)[..., chosen] * parts).sum(1)
        residual = (squares.clamp(min=0) / torch.where(norms > 0, norms, 1)).sqrt()
    request.report(len(epochs))
    return request.answer(
        epochs,
        "linear network",
        "closed form",
        influence=influence.cpu().numpy(),
        residual=residual.cpu().numpy(),
        largest=largest,
        lowest=np.zeros(len(epochs)),
        closest=shifts,
        negative=np.zeros(len(epochs), dtype=np.int64),
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
        self.columns = columns
        self.eigenvalues = eigvalsh_tridiagonal(self._diagonal, self._beside)

    def solve(
        self, shift: float, columns: Float[np.ndarray, "d n"]
    ) -> tuple[Float[np.ndarray, "d n"], Float[np.ndarray, " n"]]:
        """Return (T + shift I)^{-1} columns by an LU factorisation with pivoting, which suits an indefinite T.

        The second value is the residual of every column relative to its norm.
        """
        banded = np.zeros((3, len(self._diagonal)))
        banded[0, 1:] = banded[2, :-1] = self._beside
        banded[1] = self._diagonal + shift
        solved = solve_banded((1, 1), banded, columns)
        left = banded[1][:, None] * solved - columns
        left[1:] += self._beside[:, None] * solved[:-1]
        left[:-1] += self._beside[:, None] * solved[1:]
        norms = np.linalg.norm(columns, axis=0)
        return solved, np.linalg.norm(left, axis=0) / np.where(norms > 0, norms, 1)
