"""Influence of when a sample is seen: the closed-form kernel and the derivative of the run itself, on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from numerics import TrainingConfig, unrolled_influence
from theory import exposure_kernel
from validation.experiments.base import Experiment

__all__ = ["exposure_influence"]

_NODES = 4  # of Gauss-Legendre quadrature in a stretch, in which no mode rises by more than a tenth of its rise


def exposure_influence(
    experiment: Experiment,
    *,
    sources: Sequence[str] | None = None,
    until: int | None = None,
    every: int | None = None,
) -> xr.Dataset:
    """Return the influence of seeing a sample in each stretch between two checkpoints on every later loss.

    Parameters
    ----------
    experiment
        Trained network; its checkpoints are where stretches of exposure begin and end.
    sources
        Samples that are seen, all if not given.
    until, every
        Last epoch of the losses and their spacing, multiples of a stretch; those of the checkpoints if not given. The
        numbers at an epoch do not depend on them.

    Returns
    -------
    xarray.Dataset
        dims (source, exposure, epoch, query), per epoch of exposure; ``exposure`` is the middle of the stretch:
        ``unrolled``, the derivative of gradient descent by the sample's weight in the stretch, and ``closed_form``, the
        kernel averaged over it by quadrature.
    """
    training = experiment.settings.training
    stretch = training.checkpoint_every
    config = replace(training, epochs=until or training.epochs, checkpoint_every=every or stretch)
    unrolled = _unrolled(experiment, config, stretch, sources)
    closed = _closed(experiment, config.checkpoint_epochs, unrolled["exposure"].values, stretch, sources)
    return xr.Dataset({"unrolled": unrolled, "closed_form": closed.assign_coords(exposure=unrolled["exposure"])})


def _unrolled(
    experiment: Experiment, config: TrainingConfig, stretch: int, sources: Sequence[str] | None
) -> xr.DataArray:
    w1, w2 = experiment.initial_weights
    parts = unrolled_influence(
        experiment.dataset, config, exposure_every=stretch, sources=sources, w1=w1, w2=w2
    ).transpose("source", "exposure", "epoch", "query")
    return (parts / stretch).assign_coords(exposure=parts["exposure"].values + (stretch - 1) / 2)


def _closed(
    experiment: Experiment, epochs: np.ndarray, middles: np.ndarray, stretch: int, sources: Sequence[str] | None
) -> xr.DataArray:
    starts = middles - (stretch - 1) / 2
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    kernels = [
        exposure_kernel(
            experiment.dataset,
            epochs,
            starts + stretch * (1 + x) / 2,
            tau=experiment.tau,
            g0=experiment.modes,
            sources=sources,
        )
        for x in nodes
    ]
    mean = sum(w / 2 * kernel.values for w, kernel in zip(weights, kernels, strict=True))
    return kernels[0].copy(data=mean).transpose("source", "exposure", "epoch", "query")
