"""Response of the learned map U g(S) V^T to one sample's weight in Y^T X, over training: printed and exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from theory import mode_strength, paper_svd_response, spectral_derivative
from theory.trajectories import labelled_array
from validation.experiments.base import Experiment

__all__ = ["FORMULAS", "map_response", "strength_and_slope"]

FORMULAS = ("spectral", "paper-P1", "paper-P2")

_Function = Callable[[np.ndarray], np.ndarray]


def map_response(
    experiment: Experiment, formula: str, *, source: str = "dog", epochs: ArrayLike | None = None
) -> xr.DataArray:
    """Return dW(t) / d beta of the source, dims (epoch, output, input), one strength g0 for all modes.

    Parameters
    ----------
    experiment
        Data, time constant and mean initial strength.
    formula
        One of `FORMULAS`: the exact spectral derivative, or the printed dW = U (A G + G' dS + G B) V^T with the
        rotations of paper Eqs. 50-51 as read in P1 or P2.
    source
        Sample whose weight changes.
    epochs
        Those of the checkpoints if not given.

    Raises
    ------
    ValueError
        If there is no such formula.
    """
    if formula not in FORMULAS:
        raise ValueError(f"There is no formula {formula!r} for the response of the map; use {', '.join(FORMULAS)}.")
    data = experiment.dataset
    times = experiment.epochs if epochs is None else np.asarray(epochs)
    i = data.index(source)
    change = np.outer(data.targets[i], data.inputs[i])
    entries = [_response(data.syx, change, formula, *strength_and_slope(experiment, float(t))) for t in times]
    coords = {"epoch": times, "output": np.arange(data.n_outputs), "input": np.arange(data.n_inputs)}
    return labelled_array(np.stack(entries), coords, "response of the map", {"formula": formula, "source": source})


def strength_and_slope(experiment: Experiment, t: float) -> tuple[_Function, _Function]:
    """Return g(s) at one epoch with the mean initial strength, and its derivative.

    Examples
    --------
    >>> from theory import hierarchical_dataset
    >>> strength, slope = strength_and_slope(Experiment(hierarchical_dataset()), 2000.0)
    >>> s, step = np.array([2.0]), 1e-6
    >>> bool(abs((strength(s + step) - strength(s - step)) / (2 * step) / slope(s) - 1) < 1e-7)
    True
    """
    g0, tau = experiment.mean_strength, experiment.tau

    def strength(s: np.ndarray) -> np.ndarray:
        return mode_strength(t, s, g0, tau)

    def slope(s: np.ndarray) -> np.ndarray:
        g, decay = mode_strength(t, s, g0, tau), np.exp(-2 * s * t / tau)
        # differentiate 1/g = 1/s + e^{-2st/tau} (1/g0 - 1/s)
        return g**2 * ((1 - decay) / s**2 + 2 * t / tau * decay * (1 / g0 - 1 / s))

    return strength, slope


def _response(c: np.ndarray, change: np.ndarray, formula: str, strength: _Function, slope: _Function) -> np.ndarray:
    if formula == "spectral":
        return spectral_derivative(c, change, strength, slope)
    response = paper_svd_response(c, change, formula.removeprefix("paper-"))
    g = strength(response.s)
    return np.asarray(
        response.du * g @ response.v.T
        + response.u * (slope(response.s) * response.ds) @ response.v.T
        + response.u * g @ response.dv.T
    )
