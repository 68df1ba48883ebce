"""A network of two weights, y = w2 w1 x, on three samples that it cannot fit: posterior by quadrature and by chains.

With its pull towards the start the posterior has no Gaussian limit there (n_beta times the smallest curvature is
-2.1, the pull 2), so that it is far from quadratic on its own scale.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from numerics import MALA, Checkpoints, Sampler, bayesian_influence
from theory import Dataset, TemperedPosterior, tempered_posterior

__all__ = [
    "DATA",
    "EXACT",
    "N_BETA",
    "PULL",
    "QUADRATURE",
    "exact_posterior",
    "network",
    "sampled_influence",
    "sampled_losses",
]

DATA = Dataset(np.array([[1.0], [0.5], [-1.0]]), np.array([[1.0], [0.8], [0.2]]), ("a", "b", "c"))
_START = np.array([0.9, 0.7])
N_BETA, PULL = 30.0, 2.0
QUADRATURE = 1e-7  # relative tolerance of the integrals
EXACT = MALA(step_size=0.05, n_beta=N_BETA, localization=PULL)
_CHAINS, _DRAWS, _BURN_IN = 64, 2000, 300


def _losses(points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 3"]:
    outputs = np.outer(points[:, 0] * points[:, 1], DATA.inputs[:, 0])
    return np.asarray(0.5 * (DATA.targets[:, 0] - outputs) ** 2)


@cache
def exact_posterior(*weights: float) -> TemperedPosterior:
    """Return the exact posterior with the given sample weights, all 1 if none is given."""
    return tempered_posterior(
        _losses,
        [[[-6.0, 8.0], [-6.0, 8.0]]],
        N_BETA,
        log_prior=lambda points: -PULL / 2 * np.sum((points - _START) ** 2, axis=1),
        sample_weights=list(weights) or None,
        points=[_START],
        rtol=QUADRATURE,
    )


def network() -> Checkpoints:
    """Return the network at the start, towards which the posterior is pulled."""
    first, second = (torch.tensor(w).reshape(1, 1, 1) for w in _START)
    return Checkpoints(np.zeros(1), first, second)


@cache
def sampled_influence(
    sampler: Sampler = EXACT, *, seed: int = 0, weights: tuple[float, ...] | None = None
) -> xr.Dataset:
    """Return the Bayesian influence of the three samples by chains, with the given sample weights, all 1 if none."""
    return bayesian_influence(
        DATA,
        network(),
        sampler,
        weights=None if weights is None else np.array(weights),
        chains=_CHAINS,
        draws=_DRAWS,
        burn_in=_BURN_IN,
        seed=seed,
        dtype=torch.float64,
        keep_draws=True,
    ).isel(epoch=0)


def sampled_losses(seed: int = 0) -> xr.DataArray:
    """Return the losses along the same chains, dims (chain, draw, sample)."""
    return sampled_influence(seed=seed)["draws"]
