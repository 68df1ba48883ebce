r"""The gradient flow that gradient descent discretises, integrated by an adaptive Runge-Kutta method.

.. math::
    \tau \dot W_1 = W_2^T (\Sigma_{yx} - W_2 W_1 \Sigma_{xx}), \qquad
    \tau \dot W_2 = (\Sigma_{yx} - W_2 W_1 \Sigma_{xx}) W_1^T .
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from numerics.models.checkpoints import refuse_masked
from numerics.models.linear import Checkpoints
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["gradient_flow"]


def gradient_flow(
    dataset: Dataset,
    w1: ArrayLike,
    w2: ArrayLike,
    epochs: ArrayLike,
    *,
    tau: float,
    weights: ArrayLike | None = None,
    tolerance: float = 1e-10,
) -> Checkpoints:
    """Integrate the weighted gradient flow from given weights with DOP853.

    Parameters
    ----------
    dataset
        Training set; inputs need not be whitened.
    w1, w2
        Initial weights, shapes (h, P) and (O, h).
    epochs
        Increasing times in epochs at which weights are kept.
    tau
        Time constant N O / (2 lr) in epochs.
    weights
        Sample weights beta, shape (N,), of any sign (finite differences need both sides of 0); 1 if not given.
    tolerance
        Relative error per step; the absolute one is a thousandth of it.

    Returns
    -------
    Checkpoints
        Weights at `epochs`.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> data = hierarchical_dataset(levels=1)
    >>> run = gradient_flow(data, 0.1 * np.ones((2, 2)), 0.1 * np.ones((3, 2)), [0.0, 1e5], tau=100.0)
    >>> bool(abs(run.maps[-1].numpy().sum(0) - data.targets.sum(1)).max() < 2.0)
    True
    """
    for name, value in (("epochs", epochs), ("w1", w1), ("w2", w2), ("weights", weights)):
        refuse_masked(name, value)
    checks.instance("dataset", dataset, Dataset, made_by="theory.Dataset or hierarchical_dataset()")
    epochs = checks.increasing("epochs", np.atleast_1d(checks.plain("epochs", epochs)))
    first = checks.matrix("w1", w1, (None, dataset.n_inputs))
    second = checks.matrix("w2", w2, (dataset.n_outputs, len(first)))
    tau = checks.positive("tau", tau)
    tolerance = checks.positive(
        "tolerance", tolerance
    )  # the integrator would try for ever to keep one that is no number
    if tolerance >= 1:
        raise ValueError(f"tolerance is relative and must be below 1, but {tolerance:g} was given.")
    beta = np.ones(len(dataset)) if weights is None else checks.array("weights", weights, ndim=1)
    if beta.shape != (len(dataset),):
        raise ValueError(f"weights has shape {beta.shape}, but the data set has {len(dataset)} samples.")
    syx = (dataset.targets * beta[:, None]).T @ dataset.inputs
    sxx = (dataset.inputs * beta[:, None]).T @ dataset.inputs

    def layers(state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return state[: first.size].reshape(first.shape), state[first.size :].reshape(second.shape)

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        a, b = layers(state)
        error = (syx - b @ a @ sxx) / tau
        return np.concatenate([(b.T @ error).ravel(), (error @ a.T).ravel()])

    start = np.concatenate([first.ravel(), second.ravel()])
    if epochs[-1] == 0:
        states = start[None]
    else:
        solution = solve_ivp(
            velocity,
            (0.0, epochs[-1]),
            start,
            method="DOP853",
            t_eval=epochs,
            rtol=tolerance,
            atol=tolerance / 1000,
        )
        if not solution.success:
            raise ArithmeticError(f"the gradient flow could not be integrated: {solution.message}")
        states = solution.y.T
    w1s, w2s = zip(*(layers(state) for state in states), strict=True)
    return Checkpoints(epochs, torch.tensor(np.stack(w1s)), torch.tensor(np.stack(w2s)))
