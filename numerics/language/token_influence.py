r"""Influence between single tokens, any block of pairs on request, and how few draws are behind it (paper 4).

.. math:: I_{ij} = -\frac{n_\beta}{N J} \mathrm{Cov}(\ell_i, \ell_j)

A pair needs independent draws of its own, where a mean over classes borrows strength from all pairs: with relaxation
times of the order of the chain, :math:`\epsilon \gamma T / 2 < 1`, a handful of effective draws is all there is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from jaxtyping import Float
from numpy.typing import ArrayLike

from numerics.language.class_influence import deviations
from numerics.language.token_draws import TokenDraws, as_token_draws
from numerics.language.token_groups import token_places
from theory.trajectories import labelled_array

__all__ = ["token_influence"]

_PAIRS_TOGETHER = 2**22  # products of deviations held at once: 32 MB


def token_influence(
    draws: TokenDraws | xr.DataArray | np.ndarray,
    sources: ArrayLike,
    queries: ArrayLike,
    *,
    names: Sequence[str] | None = None,
) -> xr.Dataset:
    """Return the correlation and covariance of the losses of every pair of a source and a query token.

    Parameters
    ----------
    draws
        What `sample_tokens` returns, or an array with dims (epoch, chain, draw, sequence, position); at least 4 draws.
    sources, queries
        Tokens as (sequence, position), shape (m, 2) and (k, 2).
    names
        Names of all N J tokens, for labels; "3:17" for position 17 of sequence 3 if not given.

    Returns
    -------
    xarray.Dataset
        ``correlation``, ``covariance`` over all draws, ``correlation_within`` and ``covariance_within`` about chain
        means, ``effective_draws`` of the product of deviations and ``covariance_error``, its standard error; dims
        (epoch, source, query). Correlation is NaN for a token whose loss does not vary.

    Raises
    ------
    ValueError
        If a token is not there, or there are too few draws.

    Examples
    --------
    >>> losses = np.random.default_rng(0).normal(size=(1, 4, 250, 1, 3))
    >>> found = token_influence(losses, [[0, 0]], [[0, 0], [0, 2]])
    >>> found["correlation"].sel(query="0:0").round(12).item(), bool((found["effective_draws"] > 500).all())
    (1.0, True)
    """
    found = as_token_draws(draws)
    if found.draws < 4:
        raise ValueError(f"effective draws need at least 4 draws a chain, but there are {found.draws}.")
    rows, columns = (
        token_places(name, value, found.shape) for name, value in (("sources", sources), ("queries", queries))
    )
    label = [f"{i}:{k}" for i, k in np.ndindex(found.shape)] if names is None else list(names)
    if len(label) != found.tokens:
        raise ValueError(f"{len(label)} names were given for {found.tokens} tokens.")
    measured: list[dict[str, np.ndarray]] = []
    for epoch in found.epochs:
        chains = found.at(float(epoch))
        a, b = (deviations(chains, places) for places in (rows, columns))
        own_a, own_b = (x - x.mean(axis=2, keepdims=True) for x in (a, b))
        count = found.chains * found.draws
        covariance, correlation = _moments(a, b, max(count - 1, 1))
        within, within_correlation = _moments(own_a, own_b, found.chains * (found.draws - 1))
        effective, error = _effective(a, b)
        measured.append(
            {
                "correlation": correlation,
                "covariance": covariance,
                "correlation_within": within_correlation,
                "covariance_within": within,
                "effective_draws": effective,
                "covariance_error": error,
            }
        )
    coords = {"epoch": found.epochs, "source": [label[k] for k in rows], "query": [label[k] for k in columns]}
    return xr.Dataset(
        {
            name: labelled_array(np.stack([entry[name] for entry in measured]), coords, name, found.attrs)
            for name in measured[0]
        },
        attrs=dict(found.attrs),
    )


def _moments(
    a: Float[np.ndarray, "m c s"], b: Float[np.ndarray, "k c s"], free: int
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "m k"]]:
    covariance = a.reshape(len(a), -1) @ b.reshape(len(b), -1).T / free
    spread = [np.sqrt(np.square(x).sum(axis=(1, 2)) / free) for x in (a, b)]
    scale = np.outer(*spread)
    return covariance, np.divide(covariance, scale, out=np.full_like(scale, np.nan), where=scale > 0)


def _effective(
    a: Float[np.ndarray, "m c s"], b: Float[np.ndarray, "k c s"]
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "m k"]]:
    """Return effective draws of the products of deviations and the standard error of their mean, by ArviZ."""
    step = max(1, _PAIRS_TOGETHER // (b.size + 1))
    effective, error = [], []
    for first in range(0, len(a), step):
        products = a[first : first + step, None] * b
        with np.errstate(invalid="ignore", divide="ignore"):  # a loss that does not vary: NaN
            count = np.asarray(array_stats.ess(products, chain_axis=2, draw_axis=3, method="mean"))
            effective.append(count)
            error.append(products.std(axis=(2, 3), ddof=1) / np.sqrt(count))
    return np.concatenate(effective), np.concatenate(error)
