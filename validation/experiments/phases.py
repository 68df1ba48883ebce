r"""Small models whose posteriors are exact by quadrature: chains of layers, and one weight with two ways to fit.

The posterior of n observations is :math:`p(w) \propto \exp(-n L(w))\, \varphi(w)`; `theory.tempered_posterior`
integrates it, so that nothing here is sampled or sketched.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import (
    TemperedPosterior,
    decompose_covariance,
    free_energy,
    hierarchical_structure,
    monomial_learning_coefficient,
    phase_transition,
    phase_weights,
    power_moments,
    tempered_posterior,
    transition_sample_size,
)
from theory.trajectories import labelled_array

__all__ = ["PRIOR_SPREAD", "chain_posterior", "two_fits_posterior"]

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
        "transition": ([_crossing(row, sizes) for row in learned], {"level": coords["level"]}),
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


def _crossing(weight: Float[np.ndarray, " n"], sizes: Float[np.ndarray, " n"]) -> float:
    """Return the size at which a phase weighs one half, linear in log n between the sizes on either side."""
    after = int(np.argmax(weight > 0.5))
    return float(np.exp(np.interp(0.5, weight[after - 1 : after + 1], np.log(sizes[after - 1 : after + 1]))))


# Four observations and one weight v, with two ways to fit them: U has residuals r - b v^2, which do not depend on v to
# first order (a degenerate minimum, of higher loss), V has residuals q - b' v (a regular one). The sum of r b and that
# of q b' vanish, so that v = 0 is the minimum of each. V fits samples 1 and 2 better, 3 worse and 4 as well as U.
_SAMPLES = ("1", "2", "3", "4")
_RESIDUALS_U, _RESIDUALS_V = np.array([0.50, 0.45, 0.25, 0.30]), np.array([0.30, 0.25, 0.45, 0.30])
_PATTERN = np.array([0.5, -0.9, 0.3, 0.1])
_BENDS_U, _SLOPES_V = 0.2 * _PATTERN / _RESIDUALS_U, 6.0 * _PATTERN / _RESIDUALS_V
_CENTRES = (-2.0, 2.0)  # U and V as neighbourhoods on one axis, each 2 wide


def two_fits_posterior(sizes: Float[np.ndarray, " n"]) -> xr.Dataset:
    r"""Return the exact posterior of a model with two phases through a transition of Type A (paper A.2).

    The losses of four samples are :math:`(r_i - b_i v^2)^2 / 2` in U and :math:`(q_i - b'_i v)^2 / 2` in V, v in
    [-1, 1], so that the mean losses have minima of orders 4 and 2, learning coefficients 1/4 and 1/2.

    Parameters
    ----------
    sizes
        Sample sizes n, increasing.

    Returns
    -------
    xarray.Dataset
        dims (n, phase): ``free_energy`` and ``weight``, exact, and ``expansion`` and ``expanded_weight`` from n L +
        lambda log n + C. dims (n, source, query): ``total`` Bayesian influence -(n / 4) Cov(l_i, l_j), split into
        ``within`` and ``between`` phases. dims (phase): ``loss`` and ``learning_coefficient``. No dims: ``transition``
        in closed form and ``exact_transition``. dims (source, query): ``extremal_weight`` of U, where the total
        covariance with the moments of the transition is stationary.
    """

    def losses(w: Weights) -> Float[np.ndarray, "points 4"]:
        v = w - np.where(w < 0, *_CENTRES)
        return np.where(w < 0, (_RESIDUALS_U - _BENDS_U * v**2) ** 2, (_RESIDUALS_V - _SLOPES_V * v) ** 2) / 2

    boxes = [[[centre - 1, centre + 1]] for centre in _CENTRES]
    exact = tempered_posterior(losses, boxes, sizes, points=[[centre] for centre in _CENTRES])
    parts = decompose_covariance(exact.phase_weights, exact.phase_means, exact.phase_covariances)
    scale = -sizes[:, None, None] / len(_SAMPLES)

    minima = np.array([np.mean(_RESIDUALS_U**2), np.mean(_RESIDUALS_V**2)]) / 2
    rates = np.array([np.mean(_BENDS_U**2), np.mean(_SLOPES_V**2)]) / 2
    lambdas = np.array([float(monomial_learning_coefficient([k], [0])[0]) for k in (2, 1)])
    # exp(-n rate v^2k) integrates over the line to twice the half-line's Z; at n = 1 that is the constant C.
    constants = np.array([-np.log(2) - power_moments(rate, k)[0] for rate, k in zip(rates, (2, 1), strict=True)])
    transition = transition_sample_size(minima[1] - minima[0], lambdas[1] - lambdas[0], constants[1] - constants[0])
    exact_transition = _crossing(exact.phase_weights[:, 1], sizes)
    there = int(np.argmin(np.abs(np.log(sizes / exact_transition))))
    stationary = phase_transition(*exact.phase_means[there], *exact.phase_covariances[there])

    phases: dict[str, object] = {"n": sizes, "phase": ["U", "V"]}
    pairs: dict[str, object] = {"n": sizes, "source": _SAMPLES, "query": _SAMPLES}
    expansion = free_energy(sizes[:, None], minima, lambdas, constants=constants)
    expanded_weight = phase_weights(sizes, minima, lambdas, constants=constants)
    arrays: dict[str, tuple[ArrayLike, dict[str, object]]] = {
        "free_energy": (-exact.phase_log_evidences, phases),
        "weight": (exact.phase_weights, phases),
        "expansion": (expansion, phases),
        "expanded_weight": (expanded_weight, phases),
        "total": (scale * parts.total, pairs),
        "within": (scale * parts.within, pairs),
        "between": (scale * parts.between, pairs),
        "loss": (minima, {"phase": phases["phase"]}),
        "learning_coefficient": (lambdas, {"phase": phases["phase"]}),
        "transition": (transition, {}),
        "exact_transition": (exact_transition, {}),
        "extremal_weight": (stationary.position, {"source": _SAMPLES, "query": _SAMPLES}),
    }
    return xr.Dataset({name: labelled_array(value, where, name) for name, (value, where) in arrays.items()})
