r"""Leave-one-out in closed form, from the weights a network actually starts from (paper Eq. 3).

If the input x_p has unit length and is orthogonal to the others (one-hot inputs), then without sample p the network
never sees the direction x_p: W_1 x_p stays where it started, and the other directions are still whitened with
:math:`C_{-p} = C - y_p x_p^T`. The exact matrix solution of `theory.linear_networks` then gives both runs,

.. math:: \Delta_{pj}(t) = \ell_j^{D}(t) - \ell_j^{D \setminus p}(t) .
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.linalg import null_space

from theory import checks
from theory.hierarchy import Dataset
from theory.linear_networks import linear_network_factors, linear_network_solution
from theory.trajectories import trajectory

__all__ = ["leave_one_out_trajectory"]


def leave_one_out_trajectory(
    dataset: Dataset,
    epochs: ArrayLike,
    *,
    tau: float,
    w1: ArrayLike,
    w2: ArrayLike,
    epsilon: float = -1.0,
    sources: Sequence[str] | None = None,
) -> xr.DataArray:
    """Return the loss differences of training with every source's weight changed by `epsilon`.

    Parameters
    ----------
    dataset
        Training set with whitened inputs.
    epochs
        Increasing times in epochs, shape (T,).
    tau
        Time constant in epochs, see `time_constant`.
    w1, w2
        The initial weights, shapes (h, P) and (O, h): small, or balanced (W_1 W_1^T = W_2^T W_2). From unbalanced
        weights of size sigma the matrix solution is approximate, with relative error of order sigma^2.
    epsilon
        Change of the sample weight, >= -1 and not 0. At -1, for an input orthogonal to the others, the matrix solution
        is used; any other change leaves the inputs unwhitened, no closed form is known, and the gradient flow is
        integrated to 1e-10 instead. The attribute ``method`` says which.
    sources
        Names of the samples to reweight; all of them if not given.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query): change of the query's loss divided by `epsilon`; at -1 the paper's loss
        difference. Negative = the source helps.

    Examples
    --------
    >>> from theory import hierarchical_dataset
    >>> rng = np.random.default_rng(0)
    >>> w1, w2 = 1e-3 * rng.normal(size=(50, 8)), 1e-3 * rng.normal(size=(15, 50))
    >>> loo = leave_one_out_trajectory(hierarchical_dataset(), [2000, 3000], tau=1200.0, w1=w1, w2=w2)
    >>> bool(loo.sel(source="dog", query="sparrow")[0] < 0 < loo.sel(source="dog", query="sparrow")[1])
    True
    """
    times = checks.times("epochs", epochs)
    if times.ndim != 1 or np.any(np.diff(times) <= 0):
        raise ValueError("epochs must be an increasing list of times.")
    tau = checks.positive("tau", tau)
    epsilon = float(checks.array("epsilon", epsilon, ndim=0))
    if epsilon < -1 or epsilon == 0:
        raise ValueError(f"epsilon must be at least -1 (left out) and not 0, but {epsilon} was given.")
    checks.whitened(dataset.inputs, needed_by="leave_one_out_trajectory")
    first = checks.matrix("w1", w1, (None, dataset.n_inputs))
    second = checks.matrix("w2", w2, (dataset.n_outputs, len(first)))
    names = dataset.names if sources is None else tuple(sources)
    rows = [dataset.index(name) for name in names]

    # A whitened square X is orthogonal, so each sample owns its input direction; without the only one nothing moves.
    closed = epsilon == -1 and len(dataset) == dataset.n_inputs > 1
    solve = _without_sample if closed else _reweighted
    baseline = _losses(linear_network_solution(first, second, dataset.syx, times, tau), dataset)
    if not closed:
        baseline = _losses(_flow(dataset, np.ones(len(dataset)), first, second, times, tau), dataset)
    changed = np.stack([_losses(solve(dataset, p, epsilon, first, second, times, tau), dataset) for p in rows], axis=1)
    attrs = {
        "formula": "leave-one-out" if epsilon == -1 else "finite reweighting",
        "method": "exact matrix solution" if closed else "gradient flow, DOP853 at 1e-10",
        "epsilon": epsilon,
        "tau": tau,
        "long_name": "influence (negative = helps)",
        "units": "loss per sample weight",
    }
    return trajectory((changed - baseline[:, None]) / epsilon, times, names, dataset.names, attrs=attrs)


def _losses(maps: Float[np.ndarray, "t o p"], dataset: Dataset) -> Float[np.ndarray, "t n"]:
    return 0.5 * np.sum((maps @ dataset.inputs.T - dataset.targets.T) ** 2, axis=1)


def _without_sample(
    dataset: Dataset,
    p: int,
    epsilon: float,
    w1: Float[np.ndarray, "h p"],
    w2: Float[np.ndarray, "o h"],
    t: Float[np.ndarray, " t"],
    tau: float,
) -> Float[np.ndarray, "t o p"]:
    x = dataset.inputs[p]
    seen = null_space(x[None])
    layer1, layer2 = linear_network_factors(w1 @ seen, w2, dataset.syx @ seen, t, tau)
    return layer2 @ (layer1 @ seen.T + np.outer(w1 @ x, x))


def _reweighted(
    dataset: Dataset,
    p: int,
    epsilon: float,
    w1: Float[np.ndarray, "h p"],
    w2: Float[np.ndarray, "o h"],
    t: Float[np.ndarray, " t"],
    tau: float,
) -> Float[np.ndarray, "t o p"]:
    weights = np.ones(len(dataset))
    weights[p] += epsilon
    return _flow(dataset, weights, w1, w2, t, tau)


def _flow(
    dataset: Dataset,
    weights: Float[np.ndarray, " n"],
    w1: Float[np.ndarray, "h p"],
    w2: Float[np.ndarray, "o h"],
    t: Float[np.ndarray, " t"],
    tau: float,
) -> Float[np.ndarray, "t o p"]:
    """Integrate Q = [W_1^T; W_2] in the k <= P + O hidden directions that carry weight, which rotate freely."""
    weighted = dataset.inputs.T * weights
    syx, sxx = (weighted @ dataset.targets).T, weighted @ dataset.inputs
    p = len(sxx)
    start = np.linalg.qr(np.hstack([w1, w2.T])).R.T

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        q = state.reshape(start.shape)
        error = (syx - q[p:] @ q[:p].T @ sxx) / tau
        return np.concatenate([error.T @ q[p:], error @ q[:p]]).ravel()

    if t[-1] == 0:
        return (start[p:] @ start[:p].T)[None]
    solution = solve_ivp(velocity, (0, t[-1]), start.ravel(), method="DOP853", t_eval=t, rtol=1e-10, atol=1e-13)
    if not solution.success:
        raise ArithmeticError(f"the gradient flow could not be integrated: {solution.message}")
    q = solution.y.T.reshape(-1, *start.shape)
    return q[:, p:] @ np.swapaxes(q[:, :p], 1, 2)
