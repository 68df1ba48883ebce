r"""How far draws can be trusted: R-hat, effective sample size and Monte-Carlo standard error, by ArviZ.

For a covariance the quantity averaged is the product of deviations from the means over all chains,

.. math:: p_s = (\ell_{i,s} - \bar\ell_i)(\ell_{j,s} - \bar\ell_j) ,

so an entry of the Bayesian influence has the R-hat, effective sample size and standard error of the mean of p.

Where nothing can be known, because a value is not finite or a chain never moves, every number is NaN and ``reason``
says why: a chain that stands still has no autocorrelation, and its draws count for nothing.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import rankdata

from theory import checks
from theory.trajectories import labelled_array

__all__ = ["covariance_diagnostics", "diagnose"]

_MEASURES = {
    "r_hat": "rank-normalised split R-hat",
    "ess_bulk": "effective draws for the mean of ranks",
    "ess_tail": "effective draws for the 5 % and 95 % quantiles",
    "mcse_mean": "standard error of the mean",
}
_REASON = ("reason", "why nothing is known")


def diagnose(draws: xr.DataArray) -> xr.Dataset:
    """Return convergence diagnostics of everything recorded.

    Parameters
    ----------
    draws
        What `sample` returns, dims (..., chain, draw, sample), with at least 4 draws a chain.

    Returns
    -------
    xarray.Dataset
        dims (..., sample): ``r_hat`` (rank-normalised split R-hat; near 1 when chains, and the halves of every chain,
        agree), ``ess_bulk``, ``ess_tail`` (effective numbers of draws over all chains), ``mcse_mean`` (standard error
        of the mean), and ``reason``: empty, or why the other four are NaN. `trust` sums them up.

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
    found, reasons = _diagnose(values.reshape(-1, *values.shape[-3:]), _chain_names(ordered))
    coords = {dim: ordered.coords[dim] for dim in (*others, "sample") if dim in ordered.coords}
    shape = (*values.shape[:-3], values.shape[-1])
    named = [*zip(_MEASURES.items(), found, strict=True), (_REASON, reasons)]
    return xr.Dataset(
        {
            name: xr.DataArray(
                column.reshape(shape), dims=(*others, "sample"), coords=coords, attrs={"long_name": words}
            )
            for (name, words), column in named
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
    reasons = np.full((len(epochs), m, m), "", dtype=object)
    for t, values in enumerate(ordered.values.astype(np.float64)):
        with np.errstate(invalid="ignore"):  # a value that is not finite is reported with its reason
            deviation = values - values.mean(axis=(0, 1))
            products = (deviation[..., upper[0]] * deviation[..., upper[1]])[None]
        found, why = _diagnose(products, _chain_names(ordered))
        # A product moves as long as one of its two factors does, but a chain that is stuck in one tells nothing of it.
        own = _reasons(values[None], _chain_names(ordered))
        why = np.where(own[upper[0]] != "", own[upper[0]], np.where(own[upper[1]] != "", own[upper[1]], why))
        found[:, why != ""] = np.nan
        for matrix, column in (*zip(result[:, t], found, strict=True), (reasons[t], why)):
            matrix[upper] = column
            matrix.T[upper] = column
    coords = {"epoch": epochs, "source": names, "query": names}
    named = [*zip(_MEASURES.items(), result, strict=True), (_REASON, reasons.astype(str))]
    return xr.Dataset(
        {name: labelled_array(values, coords, name, {"long_name": words}) for (name, words), values in named},
        attrs=draws.attrs,
    )


def _ordered(draws: xr.DataArray) -> xr.DataArray:
    checks.instance("draws", draws, xr.DataArray, made_by="sample(...)")
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


def _chain_names(draws: xr.DataArray) -> list[str]:
    labels = draws.coords["chain"].values if "chain" in draws.coords else np.arange(draws.sizes["chain"])
    return [str(label) for label in labels]


def _diagnose(values: Float[np.ndarray, "t c d m"], chains: list[str]) -> tuple[Float[np.ndarray, "4 t*m"], np.ndarray]:
    """Return the measures of every column, flattened, and the reason of those that are NaN."""
    axes = {"chain_axis": 1, "draw_axis": 2}
    reasons = _reasons(values, chains)
    with np.errstate(invalid="ignore", divide="ignore"):  # what cannot be known is NaN, with its reason
        columns = [
            array_stats.rhat(values, method="rank", **axes) if values.shape[1] > 1 else _split_r_hat(values[:, 0]),
            array_stats.ess(values, method="bulk", **axes),
            array_stats.ess(values, method="tail", prob=(0.05, 0.95), **axes),
            array_stats.mcse(values, method="mean", **axes),
        ]
    found = np.stack([np.asarray(column, dtype=np.float64).ravel() for column in columns])
    found[:, reasons != ""] = np.nan
    return found, reasons


def _reasons(values: Float[np.ndarray, "t c d m"], chains: list[str]) -> np.ndarray:
    """Return why nothing is known of every column, flattened; empty where something is."""
    finite = np.isfinite(values).all(axis=2)
    still = (values == values[:, :, :1]).all(axis=2) & finite
    reasons = np.full((len(values), values.shape[-1]), "", dtype=object)
    for t, k in np.argwhere((still | ~finite).any(axis=1)):
        if not finite[t, :, k].all():
            chain, draw = np.argwhere(~np.isfinite(values[t, :, :, k]))[0]
            reasons[t, k] = f"not finite: {values[t, chain, draw, k]} in chain {chains[chain]}, draw {draw}"
        elif still[t, :, k].all():
            reasons[t, k] = "no chain moves"
        else:
            stuck = [chains[c] for c in np.flatnonzero(still[t, :, k])]
            reasons[t, k] = f"{len(stuck)} of {len(chains)} chains never move: {', '.join(stuck)}"
    return reasons.ravel().astype(str)


def _split_r_hat(values: Float[np.ndarray, "t d m"]) -> Float[np.ndarray, "t m"]:
    """Return the rank-normalised R-hat of the two halves of a single chain, which ArviZ leaves open."""
    half = values.shape[1] // 2
    halves = np.stack([values[:, :half], values[:, -half:]], axis=1)
    folded = np.abs(halves - np.median(halves, axis=(1, 2), keepdims=True))

    def r_hat(pieces: Float[np.ndarray, "t c d m"]) -> Float[np.ndarray, "t m"]:
        ranks = rankdata(pieces.reshape(len(pieces), -1, pieces.shape[-1]), axis=1).reshape(pieces.shape)
        scores = ndtri((ranks - 0.375) / (2 * half + 0.25))
        return np.asarray(array_stats.rhat(scores, method="identity", chain_axis=1, draw_axis=2))

    return np.maximum(r_hat(halves), r_hat(folded))
