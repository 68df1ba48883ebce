r"""Gradients, Hessian and Gauss-Newton matrix of a two-layer linear network's mean loss, in closed form.

For :math:`L = \frac{1}{2N} \| Y^T - W_2 W_1 X^T \|^2` and :math:`E = Y^T X - W_2 W_1 X^T X` the Hessian acts on a
direction (A, B) of (W_1, W_2) as

.. math::
    N H_A = W_2^T (B W_1 + W_2 A) X^T X - B^T E, \qquad
    N H_B = (B W_1 + W_2 A) X^T X W_1^T - E A^T ,

and the Gauss-Newton matrix is the same without E. Parameters are ordered W_1 row by row, then W_2 row by row.
"""

from __future__ import annotations

import torch
from jaxtyping import Float

from theory.hierarchy import Dataset

__all__ = ["gauss_newton", "hessian", "idle_eigenvalues", "per_sample_gradients"]


def per_sample_gradients(
    dataset: Dataset, w1: Float[torch.Tensor, "*t h p"], w2: Float[torch.Tensor, "*t o h"]
) -> Float[torch.Tensor, "*t n parameters"]:
    """Return the gradient of every l_i = 1/2 |y_i - W x_i|^2, shape (..., N, h P + O h).

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> w1, w2 = torch.ones(3, 4, dtype=torch.float64), torch.ones(7, 3, dtype=torch.float64)
    >>> per_sample_gradients(hierarchical_dataset(levels=2), w1, w2).shape
    torch.Size([4, 33])
    """
    x, y = _samples(dataset, w1)
    hidden = x @ w1.mT  # (..., N, h)
    residual = hidden @ w2.mT - y  # (..., N, O)
    first = (residual @ w2)[..., :, None] * x[:, None, :]
    second = residual[..., :, None] * hidden[..., None, :]
    return torch.cat([first.flatten(-2), second.flatten(-2)], dim=-1)


def hessian(
    dataset: Dataset, w1: Float[torch.Tensor, "h p"], w2: Float[torch.Tensor, "o h"]
) -> Float[torch.Tensor, "parameters parameters"]:
    """Return the Hessian of the mean loss L, shape (h P + O h, h P + O h).

    Examples
    --------
    >>> import numpy as np
    >>> from theory.hierarchy import Dataset
    >>> one = Dataset(np.array([[1.0]]), np.array([[2.0]]))
    >>> hessian(one, torch.tensor([[1.0]]).double(), torch.tensor([[1.0]]).double())
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.float64)
    """
    x, y = _samples(dataset, w1)
    error = (y.mT - w2 @ (w1 @ x.mT)) @ x
    return _second_derivative(x, w1, w2, error)


def gauss_newton(
    dataset: Dataset, w1: Float[torch.Tensor, "h p"], w2: Float[torch.Tensor, "o h"]
) -> Float[torch.Tensor, "parameters parameters"]:
    """Return the Gauss-Newton matrix (1/N) J^T J, J the Jacobian of all outputs, shape (h P + O h, h P + O h).

    Examples
    --------
    >>> import numpy as np
    >>> from theory.hierarchy import Dataset
    >>> one = Dataset(np.array([[1.0]]), np.array([[2.0]]))
    >>> gauss_newton(one, torch.tensor([[1.0]]).double(), torch.tensor([[1.0]]).double())
    tensor([[1., 1.],
            [1., 1.]], dtype=torch.float64)
    """
    x, _ = _samples(dataset, w1)
    return _second_derivative(x, w1, w2, w1.new_zeros(len(w2), w1.shape[1]))


def idle_eigenvalues(
    dataset: Dataset, w1: Float[torch.Tensor, "h p"], w2: Float[torch.Tensor, "o h"]
) -> Float[torch.Tensor, " p+o"]:
    """Return the Hessian's eigenvalues in one hidden direction that carries no weight, shape (P + O,).

    There the Hessian is -[[0, E^T], [E, 0]] / N, with eigenvalues +-sigma(E) / N and zeros; each of the idle
    directions, h minus the dimension of span(W_1 columns, W_2 rows), contributes them once.

    Examples
    --------
    >>> import numpy as np
    >>> from theory.hierarchy import Dataset
    >>> one = Dataset(np.array([[1.0]]), np.array([[2.0]]))
    >>> idle_eigenvalues(one, torch.zeros(2, 1).double(), torch.zeros(1, 2).double())
    tensor([-2.,  2.], dtype=torch.float64)
    """
    x, y = _samples(dataset, w1)
    sigma = torch.linalg.svdvals((y.mT - w2 @ (w1 @ x.mT)) @ x) / len(dataset)
    still = sigma.new_zeros(w1.shape[1] + len(w2) - 2 * len(sigma))
    return torch.cat([-sigma, still, sigma.flip(0)])


def _samples(dataset: Dataset, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(dataset.inputs).to(like), torch.tensor(dataset.targets).to(like)


def _second_derivative(
    x: Float[torch.Tensor, "n p"],
    w1: Float[torch.Tensor, "h p"],
    w2: Float[torch.Tensor, "o h"],
    error: Float[torch.Tensor, "o p"],
) -> Float[torch.Tensor, "parameters parameters"]:
    sxx = x.mT @ x
    first = torch.kron(w2.mT @ w2, sxx)
    second = torch.kron(torch.eye(len(w2)).to(w1), w1 @ sxx @ w1.mT)
    unit = torch.eye(len(w1)).to(w1)
    across = torch.einsum("ou,pv->upov", w2, sxx @ w1.mT) - torch.einsum("uv,op->upov", unit, error)
    across = across.reshape(first.shape[0], second.shape[0])
    return torch.cat([torch.cat([first, across], 1), torch.cat([across.mT, second], 1)]) / len(x)
