r"""Exact posteriors of a chain of linear layers on the semantic tree, by quadrature: regular if short, else singular.

The posterior of n observations is :math:`p(w) \propto \exp(-n L(w))\, \varphi(w)`; `theory.tempered_posterior`
integrates it, so that nothing here is sampled or sketched.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import TemperedPosterior, hierarchical_structure, tempered_posterior
from theory.trajectories import labelled_array

__all__ = ["PRIOR_SPREAD", "chain_posterior", "crossing"]

Weights = Float[np.ndarray, "points 1"]
PRIOR_SPREAD = 0.2  # standard deviation of each layer's weight in the chains
_GRID = 240  # weights at which densities are drawn


def chain_posterior(depth: int, sizes: Float[np.ndarray, " n"]) -> xr.Dataset:
    r"""Return the exact posterior of a linear chain of `depth` equal layers for each level of the semantic tree.

    The mode of strength g = w^depth and singular value s has the loss :math:`(s - g)^2 / (2 N)`; the weight w of each
    layer has a normal prior around zero. One layer is a regular model. From three layers on w = 0 is a degenerate
    critical point, which the prior turns into a phase of its own beside w = s^(1/depth).

    Parameters
    ----------
    depth
        Odd number of layers.
    sizes
        Sample sizes n, increasing.

    Returns
    -------
    xarray.Dataset
        With dims (level, n): ``strength`` and ``deviation``, posterior mean and standard deviation of g / s;
        ``bernstein_von_mises``, the deviation (N / n)^(1/2) / s of a regular model in the limit; ``learned``, weight
        of the phase g > s / 2. dims (level): ``transition``, the size at which the two phases weigh the same. dims
        (level, n, relative_weight): ``density`` of w, over its largest value at each n, where w is relative_weight
        times s^(1/depth).
    """
    tree = hierarchical_structure()
    values = tree.values[np.unique(tree.levels, return_index=True)[1]]
    n_samples = len(tree.values)
    posteriors = [_chain_mode(depth, s, n_samples, sizes) for s in values]
    coords: dict[str, object] = {"level": np.arange(len(values)), "n": sizes}
    learned = np.stack([p.phase_weights[:, 1] for p in posteriors])
    grid = np.linspace(-0.5, 1.5, _GRID)
    density = [_chain_density(depth, s, n_samples, sizes, grid) for s in values]
    arrays: dict[str, tuple[ArrayLike, dict[str, object]]] = {
        "strength": (np.stack([p.mean[:, 1] for p in posteriors]), coords),
        "deviation": (np.sqrt([p.covariance[:, 1, 1] for p in posteriors]), coords),
        "bernstein_von_mises": (np.sqrt(n_samples / sizes) / values[:, None], coords),
        "learned": (learned, coords),
        "transition": ([crossing(row, sizes) for row in learned], {"level": coords["level"]}),
        "density": (np.stack(density), coords | {"relative_weight": grid}),
    }
    attrs = {"depth": depth, "prior_spread": PRIOR_SPREAD}
    labelled = {name: labelled_array(value, where, name, attrs) for name, (value, where) in arrays.items()}
    return xr.Dataset(labelled).assign_coords(value=("level", values))


def _chain_losses(depth: int, s: float, n_samples: int) -> Callable[[Weights], Float[np.ndarray, "points 2"]]:
    """Return the mode's loss and, as a second one that gets no weight, its relative strength g / s."""

    def losses(w: Weights) -> Float[np.ndarray, "points 2"]:
        return np.concatenate([(s - w**depth) ** 2 / (2 * n_samples), w**depth / s], axis=1)

    return losses


def _log_prior(w: Weights) -> Float[np.ndarray, " points"]:
    return -(w[:, 0] ** 2) / (2 * PRIOR_SPREAD**2)


def _chain_mode(depth: int, s: float, n_samples: int, sizes: Float[np.ndarray, " n"]) -> TemperedPosterior:
    edge, limit = (s / 2) ** (1 / depth), 2 * s ** (1 / depth)
    boxes = [[[-limit, edge]], [[edge, limit]]]
    losses = _chain_losses(depth, s, n_samples)
    return tempered_posterior(losses, boxes, 2 * sizes, log_prior=_log_prior, sample_weights=[1.0, 0.0])


def _chain_density(
    depth: int, s: float, n_samples: int, sizes: Float[np.ndarray, " n"], grid: Float[np.ndarray, " g"]
) -> Float[np.ndarray, "n g"]:
    w = grid[:, None] * s ** (1 / depth)
    log_density = _log_prior(w) - sizes[:, None] * _chain_losses(depth, s, n_samples)(w)[:, 0]
    return np.exp(log_density - log_density.max(axis=1, keepdims=True))


def crossing(weight: Float[np.ndarray, " n"], sizes: Float[np.ndarray, " n"]) -> float:
    """Return the size at which a phase weighs one half, linear in log n between the sizes on either side."""
    after = int(np.argmax(weight > 0.5))
    return float(np.exp(np.interp(0.5, weight[after - 1 : after + 1], np.log(sizes[after - 1 : after + 1]))))
