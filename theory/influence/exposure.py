r"""Influence of *when* a sample is seen: the kernel whose integral over exposure times is the influence of its weight.

Let the weight of sample i rise by :math:`\delta\beta_i(u)` at time u only. The loss of query j at time t changes by

.. math:: \int_0^t \kappa_{ij}(u, t)\, \delta\beta_i(u)\, du, \qquad \int_0^t \kappa_{ij}(u, t)\, du = I_{ij}(t) ,

with I the sample-weight influence. In the basis of singular modes, for aligned balanced weights and whitened inputs,
the perturbation :math:`F(u) = (\psi - G(u) \alpha)\, \alpha^T` at time u has reached the map at time t as

.. math::
    \tau\, dM_{ab} = \frac{H_{ab}(t)}{H_{ab}(u)} (g_a + g_b)(u)\, F^{sym}_{ab}(u)
    + (g_a + g_b)(t)\, e^{-(s_a + s_b)(t - u)/\tau}\, F^{skew}_{ab}(u), \qquad
    H_{ab} = g_a g_b e^{-(s_a + s_b) t / \tau} ,

and the parts outside the modes as :math:`g_a(t) e^{-s_a (t - u)/\tau}` times theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks
from theory.arithmetic import product
from theory.dynamics.saxe import Modes
from theory.hierarchy import Dataset, checked_dataset
from theory.influence.mode_response import logistic_denominator
from theory.influence.trajectory import ModeCoordinates, Scaled, in_modes, in_units, resolve_modes
from theory.trajectories import labelled_array

__all__ = ["exposure_kernel"]

_CHUNK = 2**21  # array elements of dW held at once: 16 MB


def exposure_kernel(
    dataset: Dataset,
    epochs: ArrayLike,
    exposures: ArrayLike,
    *,
    tau: float,
    g0: ArrayLike | Modes,
    sources: Sequence[str] | None = None,
    queries: Dataset | None = None,
) -> xr.DataArray:
    """Return the influence of exposure to every source at one time on every query's loss at another.

    Parameters
    ----------
    dataset
        Training set with whitened inputs, X^T X = I.
    epochs
        Increasing times t at which the loss is asked for, shape (T,), >= 0.
    exposures
        Increasing times u of exposure, shape (E,), >= 0.
    tau
        Time constant in epochs, see `time_constant`.
    g0
        Initial mode strengths, as for `influence_trajectory` with formula "sample-weight".
    sources
        Names of the samples; all of them if not given.
    queries
        Samples whose loss is asked for; the training set if not given.

    Returns
    -------
    xarray.DataArray
        dims (exposure, epoch, source, query), in units of loss per sample weight and epoch of exposure; 0 where the
        exposure is later than the epoch. Negative = seeing the source at that time helps.

    Raises
    ------
    ValueError
        If times are negative or do not increase, inputs are not whitened, or shapes do not fit.

    Examples
    --------
    Seeing dog while animals part from plants helps sparrow for a while, and by epoch 10000 hardly matters.

    >>> from theory import hierarchical_dataset
    >>> kernel = exposure_kernel(hierarchical_dataset(), [1800, 10000], [1500], tau=1200.0, g0=2.5e-5)
    >>> early, late = kernel.sel(source="dog", query="sparrow").values[0]
    >>> bool(early < 0), bool(abs(late) < 1e-3 * abs(early))
    (True, True)
    """
    checked_dataset(dataset)
    t, u = checks.increasing("epochs", epochs), checks.increasing("exposures", exposures)
    tau = checks.positive("tau", tau)
    checks.whitened(dataset.inputs, needed_by="exposure_kernel")
    asked = dataset.asked(queries)
    modes = resolve_modes(dataset, g0, "sample-weight")
    names, rows = dataset.chosen(sources)
    scaled, from_start = in_units(modes, t, tau), in_units(modes, u, tau).times
    source = in_modes(modes, dataset, rows, scaled.unit)
    query = in_modes(modes, asked, list(range(len(asked))), scaled.unit)

    values = np.zeros((len(u), len(t), len(names), len(asked)))
    r = len(modes.values)
    piece = max(1, _CHUNK // (len(names) * r * max(r, len(asked))))
    for k, exposure in enumerate(u):
        for begin in range(int(np.searchsorted(t, exposure)), len(t), piece):
            later = slice(begin, begin + piece)
            values[k, later] = _propagate(scaled, source, query, float(from_start[k]), scaled.times[later])
    values = checks.representable("the influence", product(values, scaled.unit, scaled.unit, scaled.unit, over=(tau,)))
    attrs = {
        "formula": "exposure kernel",
        "tau": tau,
        "g0": modes.initial_strengths,
        "long_name": "influence (negative = helps)",
        "units": "loss per sample weight and epoch",
    }
    coords = {"exposure": u, "epoch": t, "source": names, "query": asked.names}
    return labelled_array(values, coords, "exposure influence", attrs)


def _propagate(
    modes: Scaled, source: ModeCoordinates, query: ModeCoordinates, u: float, t: Float[np.ndarray, " t"]
) -> Float[np.ndarray, "t n m"]:
    """Return the kernel from one exposure time to later times, for tau = 1."""
    s, g0 = modes.values, modes.strengths
    before, after = logistic_denominator(np.array(u), s, g0, 1.0), logistic_denominator(t, s, g0, 1.0)
    g_u, g_t = g0 / before, g0 / after
    decay = np.exp(-s * (t[:, None] - u))
    grown = decay * before / after  # sqrt of H(t) / H(u), mode by mode
    symmetric = (g_u[:, None] + g_u) * grown[:, :, None] * grown[:, None, :]
    skew = (g_t[:, :, None] + g_t[:, None, :]) * decay[:, :, None] * decay[:, None, :]

    error = source.psi - g_u * source.alpha
    force = error[:, :, None] * source.alpha[:, None, :]
    mirrored = np.swapaxes(force, 1, 2)
    response = symmetric[:, None] * (force + mirrored) / 2 + skew[:, None] * (force - mirrored) / 2
    residual = g_t[:, None] * query.alpha - query.psi
    influence = np.einsum("tiaj,tja->tij", response @ query.alpha.T, residual, optimize=True)
    outside = g_t * decay
    left = np.einsum("ia,ta,ja->tij", source.alpha, outside, query.alpha, optimize=True)
    right = np.einsum("ia,ta,tja->tij", error, outside, residual, optimize=True)
    influence -= left * (source.target_perp @ query.target_perp.T)
    influence += right * (source.input_perp @ query.input_perp.T)
    return influence
