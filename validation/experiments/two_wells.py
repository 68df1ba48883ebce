r"""One weight with two ways to fit, a flat well and a sharp one, whose posterior through their transition is exact.

Sample i has the loss

.. math::
    l_i(w) = e_i + f_i (w + 1)^4 \;\; (w < 0, \text{ phase } U), \qquad
    l_i(w) = s_i (w - 1)^2 \;\; (w > 0, \text{ phase } V),

so that U has the learning coefficient 1/4 and the mean loss of e, V has 1/2 and 0.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import special

from theory import (
    TemperedPosterior,
    decompose_covariance,
    free_energy,
    monomial_learning_coefficient,
    phase_transition,
    phase_weights,
    tempered_posterior,
    transition_sample_size,
)
from theory.trajectories import labelled_array
from validation.experiments.layer_chains import crossing

__all__ = [
    "BOXES",
    "GAP",
    "SIZES",
    "free_energy_constant",
    "mixed_losses",
    "sizes_through_transition",
    "two_phases",
    "two_wells",
    "two_wells_transition",
]

GAP = 1e-3  # keeps the jump between the two formulas out of both boxes
BOXES = [[[-3.0, -GAP]], [[GAP, 3.0]]]
SIZES = 200  # sample sizes through the transition; neighbours differ by 2 %

# Six samples that differ in what each phase costs them and in how curved their losses are: V fits 1 to 3 better, 5 and
# 6 worse, 4 as well as U does. Covariances within the phases differ enough to move peaks of influence, or leave none.
_IN_U = np.array([0.17, 0.12, 0.05, 0.02, -0.01, -0.05])
_FLAT = np.array([0.5, 1.5, 2.0, 0.2, 1.0, 0.8])
_SHARP = np.array([4.0, 12.0, 3.0, 15.0, 6.0, 8.0])
_SAMPLES = tuple("123456")

Points = Float[np.ndarray, "points 1"]


def _losses(points: Points, in_u: ArrayLike, flat: ArrayLike, sharp: ArrayLike) -> Float[np.ndarray, "p n"]:
    u = in_u + np.asarray(flat) * (points + 1) ** 4
    return np.asarray(np.where(points < 0, u, np.asarray(sharp) * (points - 1) ** 2))


def free_energy_constant(power: int, scale: float) -> float:
    """Return the order-one term of the free energy of scale |w - w*|^power under a density of 1 an unit of length."""
    return -float(np.log(2 * special.gamma(1 + 1 / power)) - np.log(scale) / power)


@cache
def two_wells(excess: float) -> TemperedPosterior:
    """Return the posterior of one sample whose loss in U is higher by `excess`, at n = 10 to 1e5.

    A second "sample" of weight 0 is 1 in U and 0 in V; ``n_beta`` is 2 n.
    """

    def losses(points: Points) -> Float[np.ndarray, "points 2"]:
        return np.concatenate([_losses(points, [excess], [1.0], [1.0]), points < 0], axis=1)

    sizes = 2 * np.geomspace(10, 1e5, 120)
    return tempered_posterior(losses, BOXES, sizes, sample_weights=[1.0, 0.0], points=[[-1.0], [1.0]])


def mixed_losses(points: Points) -> Float[np.ndarray, "points 6"]:
    """Return the losses of the six samples."""
    return _losses(points, _IN_U, _FLAT, _SHARP)


def sizes_through_transition(count: int = SIZES) -> Float[np.ndarray, " n"]:
    """Return sample sizes from far below to far above the transition of the six samples' posterior."""
    return np.geomspace(10, 400, count)


@cache
def two_phases(count: int = SIZES) -> TemperedPosterior:
    """Return the exact posterior of the six samples at that many sample sizes across the transition."""
    return tempered_posterior(mixed_losses, BOXES, sizes_through_transition(count), points=[[-1.0], [1.0]])


def two_wells_transition(count: int = SIZES) -> xr.Dataset:
    r"""Return what the posterior of the six samples goes through, a transition of Type A (paper A.2).

    Parameters
    ----------
    count
        Number of sample sizes n.

    Returns
    -------
    xarray.Dataset
        dims (n, phase): ``free_energy`` and ``weight``, exact, and ``expansion`` and ``expanded_weight`` from n L +
        lambda log n + C. dims (n, source, query): ``total`` Bayesian influence -(n / 6) Cov(l_i, l_j), split into
        ``within`` and ``between`` phases. dims (phase): ``loss`` and ``learning_coefficient``. No dims: ``transition``
        in closed form and ``exact_transition``. dims (source, query): ``extremal_weight`` of U, where the total
        covariance with the moments of the transition is stationary.
    """
    exact, sizes = two_phases(count), sizes_through_transition(count)
    parts = decompose_covariance(exact.phase_weights, exact.phase_means, exact.phase_covariances)
    scale = -sizes[:, None, None] / len(_SAMPLES)

    minima = np.array([_IN_U.mean(), 0.0])
    lambdas = np.array([float(monomial_learning_coefficient([k], [0])[0]) for k in (2, 1)])
    constants = np.array([free_energy_constant(4, _FLAT.mean()), free_energy_constant(2, _SHARP.mean())])
    transition = transition_sample_size(minima[1] - minima[0], lambdas[1] - lambdas[0], constants[1] - constants[0])
    exact_transition = crossing(exact.phase_weights[:, 1], sizes)
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
