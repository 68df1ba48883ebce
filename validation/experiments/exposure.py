"""Influence of when a sample is seen: the closed-form kernel and the derivative of the run itself, on one grid."""

from __future__ import annotations

import numpy as np
import xarray as xr

from numerics import TrainingConfig, unrolled_influence
from theory import Dataset, Modes, exposure_kernel

__all__ = ["closed_exposure", "unrolled_exposure"]


def unrolled_exposure(dataset: Dataset, config: TrainingConfig, *, source: str, stretch: int) -> xr.DataArray:
    """Differentiate gradient descent by the weight of `source` in every stretch of epochs.

    Returns
    -------
    xarray.DataArray
        dims (exposure, epoch, query), per epoch of exposure; ``exposure`` is the middle of the stretch.
    """
    parts = unrolled_influence(dataset, config, exposure_every=stretch, sources=[source]).sel(source=source, drop=True)
    return (parts / stretch).assign_coords(exposure=parts["exposure"].values + (stretch - 1) / 2)


def closed_exposure(
    dataset: Dataset, config: TrainingConfig, modes: Modes, *, tau: float, source: str, stretch: int
) -> xr.DataArray:
    """Return the closed-form kernel averaged over the same stretches, by Gauss-Legendre quadrature with 4 nodes.

    Parameters
    ----------
    dataset, config, modes, tau
        The toy model: data, settings of descent, singular modes with initial strengths, time constant.
    source
        Sample that is seen.
    stretch
        Length of a stretch in epochs; checkpoints are multiples of it, so that no stretch contains one.
    """
    starts = np.arange(0, config.epochs, stretch)
    nodes, weights = np.polynomial.legendre.leggauss(4)
    kernels = [
        exposure_kernel(
            dataset, config.checkpoint_epochs, starts + stretch * (1 + x) / 2, tau=tau, g0=modes, sources=[source]
        )
        for x in nodes
    ]
    mean = sum(w / 2 * kernel.values for w, kernel in zip(weights, kernels, strict=True))
    return kernels[0].copy(data=mean).sel(source=source, drop=True).assign_coords(exposure=starts + (stretch - 1) / 2)
