r"""Influence of leaving a sample out briefly, exactly and by the gradient kernel (paper C.5).

Without sample i during [t, t + D) the summed loss of query j changes by

.. math::
    \sum_{k < D} \bigl[\ell_j(t + k) - \ell_j^{\setminus i}(t + k)\bigr]
    \approx -\frac{D (D - 1)}{2 \tau} K_{ij}(t), \qquad
    K_{ij} = (x_i \cdot x_j)\, r_i^T W_2 W_2^T r_j + (r_i \cdot r_j)\, x_i^T W_1^T W_1 x_j ,

K the inner product of the two gradients at the window's start and r = W x - y. Brief ablation is therefore the
instantaneous influence, as the Bayesian one is at strong localization, and not the accumulated one of leave-one-out.

The window starts from the exact matrix solution. Inside it there is none: without sample i the layers that are trained,
W_1 off the direction x_i and W_2, are not balanced once x_i has been learned (their difference is W_1 x_i x_i^T W_1^T;
using it all the same is 5 % off), so the window's flow is integrated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks
from theory.dynamics.network_flow import NetworkFlow
from theory.hierarchy import Dataset, checked_dataset
from theory.influence.leave_one_out import flow_losses
from theory.trajectories import trajectory

__all__ = ["brief_ablation_trajectory"]

METHODS = ("exact", "kernel")


def brief_ablation_trajectory(
    dataset: Dataset,
    starts: ArrayLike,
    *,
    tau: float,
    w1: ArrayLike,
    w2: ArrayLike,
    window: int = 100,
    method: str = "exact",
    sources: Sequence[str] | None = None,
) -> xr.DataArray:
    """Return the summed loss difference of leaving every source out during a window, for every start.

    Parameters
    ----------
    dataset
        Training set with whitened inputs, X^T X = I.
    starts
        Increasing epochs at which windows start, shape (T,).
    tau
        Time constant in epochs, see `time_constant`.
    w1, w2
        The initial weights of the run, shapes (h, P) and (O, h); see `linear_network_solution`. From small or balanced
        ones the windows start from the matrix solution, from others the run to them is integrated; the attributes
        ``method`` and ``imbalance`` tell.
    window
        Length D in epochs, >= 1.
    method
        "exact" integrates the flow on every window to 1e-10; "kernel" takes the gradients at its start for constant,
        with a relative error of order s_max D / tau.
    sources
        Names of the samples to leave out; all of them if not given.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query), epoch being the start: sum over the window of the loss with the source minus the
        loss without. Negative = the source helps.

    Examples
    --------
    >>> from theory import hierarchical_dataset
    >>> rng = np.random.default_rng(0)
    >>> w1, w2 = 1e-3 * rng.normal(size=(50, 8)), 1e-3 * rng.normal(size=(15, 50))
    >>> data = hierarchical_dataset()
    >>> brief = brief_ablation_trajectory(data, [1600, 3000], tau=1200.0, w1=w1, w2=w2, sources=["dog"])
    >>> early, late = brief.sel(source="dog", query="sparrow").values
    >>> bool(early < 0 < late)
    True
    """
    checked_dataset(dataset)
    times = checks.increasing("starts", starts)
    tau, window = checks.positive("tau", tau), checks.integer("window", window, at_least=1)
    method = checks.choice("method", method, METHODS)
    checks.whitened(dataset.inputs, needed_by="brief_ablation_trajectory")
    names, rows = dataset.chosen(sources)
    flow = NetworkFlow(w1, w2, dataset.syx, tau)
    values = np.empty((len(times), len(names), len(dataset)))
    for piece, *layers in flow.factors_at(times):
        if method == "kernel":
            values[piece] = -window * (window - 1) / (2 * tau) * _kernel(dataset, rows, *layers)
        else:
            ablated = [
                _ablated(dataset, rows, first, second, window, tau) for first, second in zip(*layers, strict=True)
            ]
            values[piece] = ablated
    attrs = {
        "formula": f"brief ablation, {method}",
        "method": flow.method,
        "imbalance": flow.imbalance,
        "window": window,
        "tau": tau,
        "long_name": "integrated influence (negative = helps)",
        "units": "loss x epochs",
    }
    return trajectory(values, times, names, dataset.names, name="integrated influence", attrs=attrs)


def _ablated(
    dataset: Dataset,
    rows: list[int],
    w1: Float[np.ndarray, "h p"],
    w2: Float[np.ndarray, "o h"],
    window: int,
    tau: float,
) -> Float[np.ndarray, "n m"]:
    """Return summed losses of a window that starts from these layers, less those without each of the sources."""
    steps = np.arange(window, dtype=np.float64)
    weights = np.ones((len(rows) + 1, len(dataset)))
    weights[1 + np.arange(len(rows)), rows] = 0.0
    runs = (flow_losses(dataset, beta, w1, w2, steps, tau, dataset) for beta in weights)
    with_all, *without = (losses.sum(axis=0) for losses in runs)
    return with_all - np.stack(without)


def _kernel(
    dataset: Dataset, rows: list[int], w1: Float[np.ndarray, "t h p"], w2: Float[np.ndarray, "t o h"]
) -> Float[np.ndarray, "t n m"]:
    hidden = w1 @ dataset.inputs.T
    residual = w2 @ hidden - dataset.targets.T
    back = np.swapaxes(w2, 1, 2) @ residual
    overlaps = dataset.inputs[rows] @ dataset.inputs.T
    by_back, by_residual, by_hidden = (np.swapaxes(a[..., rows], 1, 2) @ a for a in (back, residual, hidden))
    return overlaps * by_back + by_residual * by_hidden
