r"""How far draws can be trusted: R-hat, effective sample size and Monte-Carlo standard error, by ArviZ.

For a covariance the quantity averaged is the product of deviations from the means over all chains,

.. math:: p_s = (\ell_{i,s} - \bar\ell_i)(\ell_{j,s} - \bar\ell_j) ,

so an entry of the Bayesian influence has the R-hat, effective sample size and standard error of the mean of p.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from jaxtyping import Float

from theory.trajectories import labelled_array

__all__ = ["covariance_diagnostics", "diagnose"]

_MEASURES = {
    "r_hat": "rank-normalised split R-hat",
    "ess_bulk": "effective draws for the mean of ranks",
    "ess_tail": "effective draws for the 5 % and 95 % quantiles",
    "mcse_mean": "standard error of the mean",
}


def diagnose(draws: xr.DataArray) -> xr.Dataset:
    """Return convergence diagnostics of everything recorded.

    Parameters
    ----------
    draws
        What `sample` returns, dims (..., chain, draw, sample), with at least 4 draws a chain.

    Returns
    -------
    xarray.Dataset
        ``r_hat`` (rank-normalised split R-hat; near 1 when chains agree, NaN where nothing varies), ``ess_bulk``,
        ``ess_tail`` (effective numbers of draws over all chains) and ``mcse_mean`` (standard error of the mean), dims
        (..., sample).

    Raises
    ------
    ValueError
        If a dimension is missing or there are fewer than 4 draws.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(1, 4, 500, 2))
    >>> draws = xr.DataArray(noise, dims=("epoch", "chain", "draw", "sample"))
    >>> bool((abs(diagnose(draws)["r_hat"] - 1) < 0.01).all())
    True
    """
    ordered = _ordered(draws)
    others = ordered.dims[:-3]
    values = ordered.values.astype(np.float64)
    found = _diagnose(values.reshape(-1, *values.shape[-3:]))
    coords = {dim: ordered.coords[dim] for dim in (*others, "sample") if dim in ordered.coords}
    shape = (*values.shape[:-3], values.shape[-1])
    return xr.Dataset(
        {
            name: xr.DataArray(
                column.reshape(shape), dims=(*others, "sample"), coords=coords, attrs={"long_name": words}
            )
            for (name, words), column in zip(_MEASURES.items(), found, strict=True)
        },
        attrs=draws.attrs,
    )


def covariance_diagnostics(draws: xr.DataArray) -> xr.Dataset:
    """Return convergence diagnostics of the covariance of every pair of recorded numbers.

    Parameters
    ----------
    draws
        What `sample` returns, or ``draws`` of `bayesian_influence`, dims (epoch, chain, draw, sample), with at least 4
        draws a chain.

    Returns
    -------
    xarray.Dataset
        The variables of `diagnose` with dims (epoch, source, query). ``mcse_mean`` is the standard error of the
        covariance, from the effective number of products of deviations: independent of the batch means behind the
        ``standard_error`` of `bayesian_influence`, and slower by orders of magnitude.

    Raises
    ------
    ValueError
        If a dimension is missing or there are fewer than 4 draws.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(1, 4, 500, 2))
    >>> draws = xr.DataArray(noise, dims=("epoch", "chain", "draw", "sample"))
    >>> bool((covariance_diagnostics(draws)["mcse_mean"] < 0.05).all())
    True
    """
    ordered = _ordered(draws)
    if ordered.dims[:-3] != ("epoch",):
        raise ValueError(
            f"covariances are diagnosed for draws with dims (epoch, chain, draw, sample), but these have "
            f"{ordered.dims}; select a setting first."
        )
    names = ordered.coords["sample"].values if "sample" in ordered.coords else np.arange(ordered.sizes["sample"])
    epochs = ordered.coords["epoch"].values if "epoch" in ordered.coords else np.arange(ordered.sizes["epoch"])
    m = len(names)
    upper = np.triu_indices(m)
    result = np.empty((len(_MEASURES), len(epochs), m, m))
    for t, values in enumerate(ordered.values.astype(np.float64)):
        deviation = values - values.mean(axis=(0, 1))
        found = _diagnose((deviation[..., upper[0]] * deviation[..., upper[1]])[None])
        for k, column in enumerate(found):
            result[k, t][upper] = column
            result[k, t].T[upper] = column
    coords = {"epoch": epochs, "source": names, "query": names}
    return xr.Dataset(
        {
            name: labelled_array(values, coords, name, {"long_name": words})
            for (name, words), values in zip(_MEASURES.items(), result, strict=True)
        },
        attrs=draws.attrs,
    )


def _ordered(draws: xr.DataArray) -> xr.DataArray:
    missing = [dim for dim in ("chain", "draw", "sample") if dim not in draws.dims]
    if missing:
        raise ValueError(
            f"draws have dims {draws.dims}, but {', '.join(missing)} is needed too; give what sample returns."
        )
    if draws.sizes["draw"] < 4:
        raise ValueError(
            f"diagnostics split chains in halves and need at least 4 draws, but there are {draws.sizes['draw']}."
        )
    return draws.transpose(..., "chain", "draw", "sample")


def _diagnose(values: Float[np.ndarray, "t c d m"]) -> Float[np.ndarray, "4 t*m"]:
    """Return the measures of every column, flattened."""
    axes = {"chain_axis": 1, "draw_axis": 2}
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing varies: NaN, as documented
        columns = [
            array_stats.rhat(values, method="rank", **axes),
            array_stats.ess(values, method="bulk", **axes),
            array_stats.ess(values, method="tail", prob=(0.05, 0.95), **axes),
            array_stats.mcse(values, method="mean", **axes),
        ]
    return np.stack([np.asarray(column).ravel() for column in columns])
