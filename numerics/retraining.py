r"""Influence measured by retraining with changed sample weights: leave-one-out and brief ablation (paper C.3, C.5).

.. math:: \Delta_{ij}(t) = \frac{\ell_j^{(\beta_i = 1 + \epsilon)}(t) - \ell_j(t)}{\epsilon},
    \qquad \epsilon = -1: \; \ell_j^{D}(t) - \ell_j^{D \setminus i}(t) .

Negative = sample i helps query j, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from numerics.networks import per_sample_losses
from numerics.training import TrainingConfig, gradient_step, one_thread, train, train_batch, without_idle_units
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import trajectory

__all__ = ["leave_one_out", "timed_ablation"]


def leave_one_out(
    dataset: Dataset,
    config: TrainingConfig | None = None,
    *,
    epsilon: float = -1.0,
    sources: Sequence[str] | None = None,
    w1: ArrayLike | None = None,
    w2: ArrayLike | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Retrain with every source's weight changed by `epsilon`, all in one batch from the same initial weights.

    Parameters
    ----------
    dataset
        Training set, whose samples are also the queries.
    config
        Settings of gradient descent; the paper's if not given.
    epsilon
        Change of the sample weight, >= -1 and not 0. -1 leaves the sample out.
    sources
        Names of the samples to reweight; all of them if not given.
    w1, w2, progress
        As for `train`.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query): the change of the query's loss divided by `epsilon`, so that small `epsilon`
        approach the derivative and -1 gives the paper's loss difference.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> difference = leave_one_out(hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500))
    >>> bool(difference.sel(source="dog", query="cat")[-1] < 0)
    True
    """
    config = config or TrainingConfig()
    epsilon = _weight_change(epsilon)
    names = dataset.names if sources is None else tuple(sources)
    weights = np.ones((len(names) + 1, len(dataset)))
    for run, name in enumerate(names, start=1):
        weights[run, dataset.index(name)] += epsilon
    baseline, *changed = train_batch(dataset, config, weights, w1=w1, w2=w2, progress=progress)
    values = np.stack([(run.losses.values - baseline.losses.values) / epsilon for run in changed], axis=1)
    attrs = {"estimator": "retraining", "epsilon": epsilon, **asdict(config)}
    return trajectory(values, config.checkpoint_epochs, names, dataset.names, attrs=attrs)


def timed_ablation(
    dataset: Dataset,
    config: TrainingConfig | None = None,
    *,
    window: int = 100,
    every: int = 200,
    epsilon: float = -1.0,
    sources: Sequence[str] | None = None,
    w1: ArrayLike | None = None,
    w2: ArrayLike | None = None,
) -> xr.DataArray:
    """Change every source's weight during ``[t, t + window)`` only, for every start t, and sum the loss difference.

    Parameters
    ----------
    dataset, config, epsilon, sources, w1, w2
        As for `leave_one_out`.
    window
        Length D of the ablation in epochs.
    every
        A window starts every so many epochs, from epoch 0 to the last that fits.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query), where epoch is the start t: the sum over the D epochs of the window of the loss
        difference divided by `epsilon` (paper Fig. 11, integrated loss difference).

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> timed_ablation(hierarchical_dataset(), TrainingConfig(epochs=600), window=50).epoch.values
    array([  0, 200, 400])
    """
    config = config or TrainingConfig()
    epsilon = _weight_change(epsilon)
    window = checks.integer("window", window, at_least=1)
    every = checks.integer("every", every, at_least=1)
    if window > config.epochs:
        raise ValueError(f"a window of {window} epochs does not fit into a run of {config.epochs} epochs.")
    names = dataset.names if sources is None else tuple(sources)
    starts = np.arange(0, config.epochs - window + 1, every)
    baseline = train(dataset, _reaching(config, starts, every), w1=w1, w2=w2).checkpoints.at(starts)

    weights = np.ones((len(names) + 1, len(dataset)))
    for run, name in enumerate(names, start=1):
        weights[run, dataset.index(name)] += epsilon
    summed = torch.zeros(len(starts), len(weights), len(dataset), dtype=torch.float64)
    with one_thread():
        for k in range(len(starts)):
            _, reduced1, reduced2 = without_idle_units(baseline.w1[k], baseline.w2[k])
            first, second = reduced1.repeat(len(weights), 1, 1), reduced2.repeat(len(weights), 1, 1)
            step = gradient_step(dataset, torch.tensor(weights), config.lr, first, second)
            for _ in range(window):
                summed[k] += per_sample_losses(second @ first, dataset)
                step()
    values = ((summed[:, 1:] - summed[:, :1]) / epsilon).numpy()
    attrs = {"estimator": "timed ablation", "window": window, "epsilon": epsilon, **asdict(config)}
    return trajectory(values, starts, names, dataset.names, name="integrated influence", attrs=attrs)


def _weight_change(epsilon: float) -> float:
    epsilon = float(checks.array("epsilon", epsilon, ndim=0))
    if epsilon < -1 or epsilon == 0:
        raise ValueError(f"epsilon must be at least -1 (left out) and not 0, but {epsilon} was given.")
    return epsilon


def _reaching(config: TrainingConfig, starts: np.ndarray, every: int) -> TrainingConfig:
    """Return settings that stop at the last start and keep the weights at every start."""
    settings = asdict(config) | {"epochs": max(int(starts[-1]), 1), "checkpoint_every": every}
    return TrainingConfig(**settings)
