"""Learning coefficients measured by sampling at singular minima of small linear networks, against Aoyagi's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from numerics import MALA, Checkpoints, estimate_learning_coefficient, extrapolate_learning_coefficient
from theory import Dataset, learning_coefficient
from theory.trajectories import labelled_array

__all__ = ["CoefficientSettings", "measured_coefficients", "singular_minimum"]

Case = tuple[tuple[int, int, int], int]


@dataclass(frozen=True)
class CoefficientSettings:
    """Settings of the measurement of learning coefficients.

    Parameters
    ----------
    cases
        Widths (inputs, hidden, outputs) and rank of the map to be learned.
    n_betas
        Two inverse temperatures, from which the limit is extrapolated; the cheap first one is given longer chains.
    lengths
        Length of the chains at each, in relaxation times 2 / step of the slowest direction.
    chains
        Chains of each case and temperature.
    seed
        Seed of the sampler.
    """

    cases: tuple[Case, ...] = (
        ((2, 2, 2), 0),
        ((2, 2, 2), 1),
        ((3, 2, 3), 1),
        ((4, 2, 3), 1),
        ((4, 3, 4), 0),
        ((4, 3, 4), 1),
        ((4, 3, 4), 2),
        ((5, 3, 5), 0),
    )
    n_betas: tuple[float, float] = (100.0, 1000.0)
    lengths: tuple[float, float] = (4.0, 0.5)
    chains: int = 32  # side by side: a sixth more time than 12, and errors smaller by 12 ^ 0.5 / 32 ^ 0.5 = 0.6
    seed: int = 0


def measured_coefficients(
    settings: CoefficientSettings, *, device: str = "cpu", progress: Callable[[int], object] | None = None
) -> xr.Dataset:
    """Estimate the learning coefficient of every case by MALA at two temperatures, and extrapolate.

    Parameters
    ----------
    settings
        See `CoefficientSettings`.
    device
        Where chains run.
    progress
        Called with 1 after each case.

    Returns
    -------
    xarray.Dataset
        dims (case): ``exact`` and ``multiplicity`` (Aoyagi 2024), ``extrapolated`` and ``extrapolated_error``; dims
        (case, n_beta): ``estimate``, ``standard_error``, ``r_hat``.
    """
    rows: dict[str, list[ArrayLike]] = {}
    for widths, rank in settings.cases:
        exact, multiplicity = learning_coefficient(widths, rank)
        runs = [_estimate(widths, rank, k, settings, device) for k in range(len(settings.n_betas))]
        values, errors, r_hats = (
            np.array([float(run[name]) for run in runs]) for name in ("learning_coefficient", "standard_error", "r_hat")
        )
        limit = extrapolate_learning_coefficient(np.array(settings.n_betas), values, errors, multiplicity=multiplicity)
        row: dict[str, ArrayLike] = {
            "exact": float(exact),
            "multiplicity": multiplicity,
            "extrapolated": limit.learning_coefficient,
            "extrapolated_error": limit.standard_error,
            "estimate": values,
            "standard_error": errors,
            "r_hat": r_hats,
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
        if progress is not None:
            progress(1)
    labels = ["-".join(map(str, widths)) + f", rank {rank}" for widths, rank in settings.cases]
    by_case: dict[str, object] = {"case": labels}
    both = by_case | {"n_beta": list(settings.n_betas)}
    arrays = {
        name: labelled_array(np.array(v), both if np.array(v).ndim == 2 else by_case, name) for name, v in rows.items()
    }
    return xr.Dataset(arrays, attrs={"chains": settings.chains, "seed": settings.seed})


def singular_minimum(widths: tuple[int, int, int], rank: int) -> tuple[Dataset, Checkpoints]:
    """Return data with mean loss 1/2 |W2 W1 - W*|^2, W* of the given rank, at the balanced minimum of least norm.

    Examples
    --------
    >>> data, at = singular_minimum((3, 2, 4), 1)
    >>> data.targets.shape, float(at.maps.sum())
    ((3, 4), 1.0)
    """
    p, h, o = widths
    target = np.zeros((o, p))
    w1, w2 = torch.zeros(1, h, p), torch.zeros(1, o, h)
    for k in range(rank):
        target[k, k] = w1[0, k, k] = w2[0, k, k] = 1
    inputs = np.sqrt(p) * np.eye(p)  # so that the mean over samples of |W x - y|^2 is |W - W*|^2
    return Dataset(inputs, inputs @ target.T), Checkpoints(np.zeros(1), w1, w2)


def _estimate(
    widths: tuple[int, int, int], rank: int, k: int, settings: CoefficientSettings, device: str
) -> xr.Dataset:
    """Estimate at the balanced minimum of least norm, the most singular one.

    The pull of 1 lets the weights spread by 1 along the minima. Curvatures on the way are the squares of the layers'
    largest singular values, about (sqrt(h) + sqrt(max(P, O)))^2 for normal entries, and 2 more of the map itself.
    Chains burn in for 1.5 relaxation times of the slowest direction.
    """
    p, h, o = widths
    n_beta = settings.n_betas[k]
    steepest = (np.sqrt(h) + np.sqrt(max(p, o))) ** 2 + 2 * (rank > 0)
    step = 4.0 / (n_beta * steepest + 1)
    thin = max(1, int(settings.lengths[k] * 2 / step / 1000))
    return estimate_learning_coefficient(
        *singular_minimum(widths, rank),
        MALA(step, n_beta, localization=1.0),
        chains=settings.chains,
        draws=max(4, int(settings.lengths[k] * 2 / step / thin)),
        burn_in=int(1.5 * 2 / step),
        thin=thin,
        seed=len(settings.n_betas) * settings.seed + k,
        device=device,
    ).isel(epoch=0)
