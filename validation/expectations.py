r"""What descent, finite differences and sampling add to a closed form: lateness, fits, lags, and the Gaussian limit.

Descent learns late: Euler's method reaches half of a mode :math:`\ln(s / 8 g_0) / 4` epochs after the flow does. The
mode of the local posterior is ahead: it lies :math:`-(n\beta / \gamma) \nabla L` from the checkpoint, where training
arrives :math:`n\beta\, O / (2\, lr\, \gamma)` epochs later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.interpolate import CubicSpline

from numerics import Checkpoints
from numerics.curvature.linear import hessian, per_sample_gradients
from theory import (
    Dataset,
    leave_one_out_trajectory,
    linear_network_factors,
    quadratic_loss_covariance,
    stationary_law,
)
from theory.trajectories import trajectory
from validation.agreement import agreement
from validation.experiments.base import Experiment, kept

__all__ = [
    "Fit",
    "delays",
    "fit",
    "five_points",
    "flow_derivative",
    "gaussian_limit",
    "lag",
    "late",
    "lateness_of",
    "lost_growth",
    "posterior_lead",
    "root_mean_error",
    "smooth",
    "solved_kernel",
]


def delays(experiment: Experiment) -> tuple[float, float]:
    """Return by how many epochs descent learns the least and the most late mode after the flow, see `Experiment.delay`.

    Examples
    --------
    >>> from validation import ToyExperiment
    >>> [round(delay, 1) for delay in delays(ToyExperiment())]
    [2.0, 2.5]
    """
    modes = experiment.modes
    found = np.log(modes.values / (8 * modes.initial_strengths)) / 4
    return float(found.min()), float(found.max())


def late(experiment: Experiment, solve: Callable[[np.ndarray], xr.DataArray]) -> tuple[xr.DataArray, xr.DataArray]:
    """Return a closed form as descent would have it, for the least and the most late mode.

    Parameters
    ----------
    solve
        The closed form at given epochs, dims (epoch, source, query).
    """
    epochs = experiment.epochs
    first, last = (np.maximum(epochs - delay, 0.0) for delay in delays(experiment))
    both = solve(np.union1d(first, last))
    least, most = (both.sel(epoch=earlier).assign_coords(epoch=epochs) for earlier in (first, last))
    return least, most


def lateness_of(least: xr.DataArray, most: xr.DataArray) -> tuple[float, float]:
    """Return the largest |slope - 1| and 1 - Pearson of a pair that the two delays leave between them.

    Modes have delays of their own, and so have the runs with and without a sample: a factor 2.
    """
    found = agreement(least, most)
    return 2 * found.worst_slope_error, 2 * (1 - found.worst_pearson)


def lost_growth(experiment: Experiment) -> float:
    """Return by what part descent grows slower than the flow at most: ln(1 + s / tau) is s / tau (1 - s / (2 tau)).

    A mode with another s, as without a sample, loses another part, so that differences of runs change by it too.
    """
    return float(experiment.modes.values[0]) / (2 * experiment.tau)


@kept
def flow_derivative(experiment: Experiment) -> xr.DataArray:
    """Return the derivative of the weighted gradient flow by every sample weight: a central difference at 1 +- 1e-3.

    It starts from the actual initial weights, so it has what decoupled modes leave out, and knows nothing of descent.
    """
    w1, w2 = experiment.initial_weights
    up, down = (
        leave_one_out_trajectory(
            experiment.dataset, experiment.epochs, tau=experiment.tau, w1=w1, w2=w2, epsilon=sign * 1e-3
        )
        for sign in (1, -1)
    )
    return (up + down) / 2


def solved_kernel(experiment: Experiment, delay: float = 0.0) -> xr.DataArray:
    """Return the gradient kernel of the exact matrix solution's layers, `delay` epochs before every checkpoint.

    K_ij = (r_i . r_j) (W_1 x_i) . (W_1 x_j) + (x_i . x_j) (W_2^T r_i) . (W_2^T r_j) with r = W x - y.
    """
    data = experiment.dataset
    epochs = np.maximum(experiment.epochs - delay, 0.0)
    w1, w2 = linear_network_factors(*experiment.initial_weights, data.syx, epochs, experiment.tau)
    hidden = data.inputs @ np.swapaxes(w1, 1, 2)
    left = hidden @ np.swapaxes(w2, 1, 2) - data.targets
    back = left @ w2
    gram = [a @ np.swapaxes(a, 1, 2) for a in (left, hidden, back)]
    values = gram[0] * gram[1] + (data.inputs @ data.inputs.T) * gram[2]
    return trajectory(values, experiment.epochs, data.names, data.names, name="kernel")


@dataclass(frozen=True)
class Fit:
    """A weighted least-squares fit of one number.

    Parameters
    ----------
    value, error
        The number and its standard error, from the errors of the data alone.
    chi_square
        Sum of squared residuals in units of those errors.
    freedom
        Data less fitted numbers.
    """

    value: float
    error: float
    chi_square: float
    freedom: int

    @property
    def spread(self) -> float:
        """Half-width of chi-square over its degrees of freedom: three of its standard deviations."""
        return 3 * float(np.sqrt(2 / self.freedom))


def fit(shape: np.ndarray, measured: np.ndarray, error: np.ndarray) -> Fit:
    """Return the slope of `measured` on `shape` through the origin.

    Examples
    --------
    >>> found = fit(np.array([1.0, 2.0]), np.array([2.0, 4.0]), np.array([0.1, 0.1]))
    >>> round(found.value, 12), round(found.error, 3), round(found.chi_square, 12), found.freedom
    (2.0, 0.045, 0.0, 1)
    """
    weights = 1 / np.square(error)
    size = float(np.sum(weights * np.square(shape)))
    slope = float(np.sum(weights * shape * measured)) / size
    return Fit(slope, size**-0.5, float(np.sum(weights * np.square(measured - slope * shape))), len(shape) - 1)


def lag(
    shape: Callable[[np.ndarray], np.ndarray], epochs: np.ndarray, measured: np.ndarray, error: np.ndarray, reach: float
) -> Fit:
    """Return by how many epochs `measured` follows `shape`, its size free, with the standard error of the shift.

    The chi-square of each shift is that of `fit`; it rises by 1 one standard error away from its minimum.

    Parameters
    ----------
    shape
        Curve at any epoch.
    epochs, measured, error
        The data.
    reach
        Largest shift that is tried, in epochs.

    Examples
    --------
    >>> at = np.arange(0.0, 100.0, 5.0)
    >>> found = lag(lambda t: np.exp(-((t - 50) / 20) ** 2), at, np.exp(-((at - 53) / 20) ** 2), np.full(20, 0.01), 20)
    >>> round(found.value, 1)
    3.0
    """
    shifts = np.linspace(-reach, reach, 401)
    fits = [fit(shape(epochs - shift), measured, error) for shift in shifts]
    chi = np.array([f.chi_square for f in fits])
    k = int(np.clip(chi.argmin(), 1, len(shifts) - 2))
    near = chi <= chi[k] + max(4.0, chi[k - 1 : k + 2].max() - chi[k])
    near[k - 1 : k + 2] = True
    curve = np.polyfit(shifts[near], chi[near], 2)
    place = float(np.clip(-curve[1] / (2 * curve[0]), -reach, reach)) if curve[0] > 0 else float(shifts[k])
    spread = float(curve[0] ** -0.5) if curve[0] > 0 else reach
    return Fit(place, spread, float(chi[k]), len(epochs) - 2)


def root_mean_error(bayesian: xr.Dataset, source: str, queries: list[str]) -> np.ndarray:
    """Return the standard error of the covariance of `source` with the mean loss of `queries`, at every epoch.

    Entries of one checkpoint share their draws, so errors of a mean are not means of errors. Of Gaussian losses with
    covariance S, that of losses i and a mean g has the variance (S_ii S_gg + S_ig^2) over the number of independent
    draws, and this number is what the stated errors of the queries imply.
    """
    covariance, stated = bayesian["covariance"], bayesian["standard_error"]
    own = covariance.sel(source=source, query=source).values
    cross = covariance.sel(source=source, query=queries).values
    block = covariance.sel(source=queries, query=queries).values
    each = own[:, None] * np.diagonal(block, axis1=1, axis2=2) + cross**2
    per_draw = (stated.sel(source=source, query=queries).values ** 2 / each).mean(axis=1)
    return np.asarray(np.sqrt(per_draw * (own * block.mean(axis=(1, 2)) + cross.mean(axis=1) ** 2)))


def posterior_lead(experiment: Experiment) -> float:
    """Return by how many epochs the mode of the local posterior is ahead of its checkpoint, to first order."""
    sampler, lr = experiment.settings.sampler, experiment.settings.training.lr
    return sampler.n_beta * experiment.dataset.n_outputs / (2 * lr * sampler.localization)


@kept
def gaussian_limit(experiment: Experiment, every: int) -> xr.DataArray:
    """Return the covariance of losses of the quadratic expansion at the posterior's mode, at some checkpoints.

    The hidden units can be rotated so that only P + O of them carry weight; the gradients live there, and every other
    unit adds the same trace of blocks -r x^T between its two layers. The law is that of SGLD at the sampler's step over
    its stability constant, which Algorithm 1 tends to where its gradients are small against that constant.

    Parameters
    ----------
    every
        One checkpoint of so many.
    """
    data, sampler = experiment.dataset, experiment.settings.sampler
    run = experiment.checkpoints
    epochs = run.epochs[::every]
    step = sampler.step_size / sampler.stability
    values = [_covariance(data, run.at([epoch]), sampler.n_beta, sampler.localization, step) for epoch in epochs]
    return trajectory(np.stack(values), epochs, data.names, data.names, name="Gaussian limit")


def _covariance(data: Dataset, run: Checkpoints, n_beta: float, pull: float, step: float) -> np.ndarray:
    w1, w2 = run.w1[0].double(), run.w2[0].double()
    hidden = w1.shape[0]
    frame = torch.linalg.qr(torch.cat([w1, w2.mT], dim=1))[0]  # (h, min(h, P + O))
    w1, w2 = frame.mT @ w1, w2 @ frame
    anchor = torch.cat([w1.flatten(), w2.flatten()]).numpy()
    mode = anchor.copy()
    for _ in range(4):
        a, b = _layers(mode, w1, w2)
        precision = n_beta * hessian(data, a, b).numpy() + pull * np.eye(len(mode))
        force = n_beta * per_sample_gradients(data, a, b).numpy().mean(axis=0) + pull * (mode - anchor)
        mode = mode - np.linalg.solve(precision, force)
    a, b = _layers(mode, w1, w2)
    single = [Dataset(data.inputs[[i]], data.targets[[i]]) for i in range(len(data))]
    own = np.stack([hessian(one, a, b).numpy() for one in single])
    gradients = per_sample_gradients(data, a, b).numpy()
    law = stationary_law(n_beta * own.mean(axis=0) + pull * np.eye(len(mode)), step)
    carried = quadratic_loss_covariance(gradients, own, law.covariance)
    # a unit without weights: its Hessian for sample i is that of a network of one unit on the residuals
    left = data.targets - data.inputs @ (b @ a).mT.numpy()
    zero = torch.zeros(1, data.n_inputs, dtype=w1.dtype), torch.zeros(data.n_outputs, 1, dtype=w1.dtype)
    idle = np.stack([hessian(Dataset(data.inputs[[i]], left[[i]]), *zero).numpy() for i in range(len(data))])
    rest = stationary_law(n_beta * idle.mean(axis=0) + pull * np.eye(idle.shape[1]), step)
    extra = quadratic_loss_covariance(np.zeros((len(data), idle.shape[1])), idle, rest.covariance)
    return np.asarray(carried + (hidden - frame.shape[1]) * extra)


def _layers(flat: np.ndarray, w1: torch.Tensor, w2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = np.split(flat, [w1.numel()])
    return torch.tensor(first).reshape(w1.shape), torch.tensor(second).reshape(w2.shape)


def five_points(values: Callable[[float], np.ndarray], step: float) -> tuple[np.ndarray, float]:
    """Return the derivative from values at -2, -1, 1, 2 steps, and its error relative to it.

    The error step^4 f^(5) / 30 is a sixteenth of the same at twice the step, so a fifteenth of the difference of the
    two estimates it; rounding adds the values' last digits over the step.
    """
    at = {k: values(k * step) for k in (-4, -2, -1, 1, 2, 4)}
    fine, coarse = ((8 * (at[k] - at[-k]) - (at[2 * k] - at[-2 * k])) / (12 * k * step) for k in (1, 2))
    rounding = float(np.finfo(float).eps * np.linalg.norm(at[1])) / step
    return fine, float((np.linalg.norm(coarse - fine) / 15 + rounding) / np.linalg.norm(fine))


def smooth(array: xr.DataArray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a cubic spline through a trajectory, constant before its first and after its last epoch."""
    epochs = array["epoch"].values.astype(float)
    spline = CubicSpline(epochs, array.values)
    return lambda t: np.asarray(spline(np.clip(t, epochs[0], epochs[-1])))
