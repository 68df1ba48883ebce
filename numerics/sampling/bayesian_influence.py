r"""Bayesian influence: the covariance of losses under the local posterior of a checkpoint (paper Eq. 4, Algorithm 1).

.. math:: I_{ij} = \frac{\partial\, E[\ell_j]}{\partial \beta_i} = -\frac{n_\beta}{N} \mathrm{Cov}(\ell_i, \ell_j) ,

negative = sample i helps query j. Losses stream from the chains into block means and block co-moments in float64, so
memory does not grow with the number of draws.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from numerics.curvature.memory import refuse_too_large
from numerics.models.given import check_checkpoints, check_data
from numerics.models.samples import Parts, Samples
from numerics.sampling.block_moments import BlockMoments
from numerics.sampling.chains import run_chains
from numerics.sampling.plan import Data, Items, Labels, Observable, Recorded, Weights, labels_of
from numerics.sampling.sample import check_items, label, make_plan, plan_attributes
from numerics.sampling.samplers import Sampler
from numerics.sampling.settings import ChainSettings
from numerics.sampling.trust import trust
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["bayesian_influence"]

_MOMENTS = 2**31  # bytes that co-moments of blocks may take before there are fewer blocks a chain


def bayesian_influence(
    dataset: Data,
    checkpoints: Weights,
    sampler: Sampler | Sequence[Sampler] | None = None,
    *,
    chains: int = 4,
    draws: int = 1000,
    burn_in: int = 0,
    thin: int = 1,
    weights: ArrayLike | None = None,
    batch_size: int | None = None,
    sources: Items | None = None,
    queries: Items | Mapping[str, Observable] | None = None,
    keep_draws: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    r"""Estimate the Bayesian influence of every source on every query at every checkpoint.

    Parameters
    ----------
    dataset, checkpoints, sampler, chains, draws, burn_in, thin, weights, batch_size
        As for `sample`. With a single chain the standard error sees only what varies within it.
    sources
        Samples whose weight changes; the training set if not given. A sample that is not in the training set has weight
        0 there, and its influence is that of introducing it. Of `Parts`, the weight of each part changes, which enters
        the loss of its sample by its share 1 / k_i.
    queries
        Samples, or `Parts` of samples, whose losses are asked for, or functions of the parameters by name (see
        `sample`); the sources if not given.
    seed, dtype, device, workers, progress
        As for `sample`.
    keep_draws
        Whether the draws are returned too; they take memory for every draw of every chain.
    store
        File to which every finished batch of chains is written. Where it exists, a call with the same arguments goes on
        from it, with the same bits.

    Returns
    -------
    xarray.Dataset
        dims ([setting,] epoch, source, query); parts have a MultiIndex, (source_name, source_part) or (query_name,
        query_part):

        ``influence``
            -(n_beta / N) Cov(l_i, l_j); of a part of sample i, -(n_beta / (N k_i)) Cov(l_ik, l_j).
        ``covariance``
            Covariance over all draws of all chains of a checkpoint, divided by (draws - 1).
        ``within_chain_covariance``
            Mean over chains of the covariance within each, which does not see what differs between chains.
        ``correlation``
            Pearson correlation of ``covariance`` (normalised BIF); NaN where a loss does not vary.
        ``standard_error``
            Monte-Carlo standard error of ``covariance`` by batch means: 32 blocks a chain (fewer, but 2 at least, where
            their co-moments would take more than 2 GB), whose means are nearly independent when a block is long against
            the autocorrelation time. `covariance_diagnostics` asks ArviZ. NaN where a chain never moves, and of
            fewer than four draws.
        ``r_hat``, ``ess``
            Split R-hat and effective number of draws, of the products of deviations that are averaged; NaN where
            nothing is known. `trust` sums them up, and the attribute ``trust`` holds its sentence.
        ``draws``
            If asked for: what was recorded, dims ([setting,] epoch, chain, draw, sample).

    Raises
    ------
    SamplerDiverged
        If a chain leaves the finite numbers; never averaged silently.
    UnstableStep
        If the step size is outside the stable range at some checkpoint.
    StoreMismatch
        If `store` is of another call.
    ValueError
        If an argument does not fit.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500))
    >>> bif = bayesian_influence(hierarchical_dataset(), run.checkpoints, chains=2, draws=200)
    >>> bool(bif["influence"].sel(epoch=1500, source="dog", query="cat") < 0)
    True
    """
    check_data(dataset)
    check_checkpoints(checkpoints)
    first = dataset if sources is None else sources
    for data in (first, queries):
        if isinstance(data, (Dataset, Samples, Parts)):
            check_items(data, checkpoints)
    recorded, columns, query_names = _recorded(first, queries)
    settings = ChainSettings(chains, draws, burn_in, thin, weights, batch_size, seed, dtype, device)
    plan = make_plan(dataset, recorded, checkpoints, sampler, settings)
    if draws * chains < 2:
        raise ValueError("a covariance needs at least 2 draws; raise draws or chains.")
    pairs = len(first) * (columns.stop - columns.start)
    refuse_too_large(
        2 * plan.total * pairs,
        f"the co-moments of {len(first)} sources x {columns.stop - columns.start} queries in {plan.total} chains",
        "name fewer of them by sources= and queries=, or measure a few checkpoints at a time",
    )
    blocks = int(np.clip(_MOMENTS // (8 * plan.total * pairs), 2, -(-draws // plan.block)))
    plan = replace(plan, block=-(-draws // blocks))
    moments = BlockMoments(plan, slice(0, len(first)), columns, store)
    kept = np.empty((plan.total, draws, len(recorded))) if keep_draws else None

    def record(rows: slice, first_draw: int, values: np.ndarray) -> None:
        moments.record(rows, first_draw, values)
        if kept is not None:
            kept[rows, first_draw : first_draw + values.shape[1]] = values

    acceptance = run_chains(
        plan, record, workers=workers, progress=progress, finished=moments.finished, skip=moments.done_chains
    )
    pooled = moments.pooled(chains)
    spread = np.sqrt(pooled.source_variance[:, :, None] * pooled.query_variance[:, None, :])
    blank = np.full_like(pooled.covariance, np.nan)
    correlation = np.divide(pooled.covariance, spread, out=blank, where=spread > 0)
    n_beta = np.repeat([s.n_beta for s in plan.samplers], len(checkpoints))[:, None, None]
    attrs = plan_attributes(plan, acceptance)
    help_sign = {"long_name": "influence (negative = helps)", "units": "loss per sample weight"}
    tail = {"source": labels_of(first), "query": query_names}
    share = first.share[:, None] if isinstance(first, Parts) else 1.0
    several = not (sampler is None or isinstance(sampler, Sampler))

    def labelled(values: np.ndarray, name: str, more: Mapping[str, object] | None = None) -> xr.DataArray:
        return label(plan, values, tail, name, attrs | dict(more or {}), several=several)

    result = {
        "influence": labelled(-n_beta / len(dataset) * share * pooled.covariance, "influence", help_sign),
        "covariance": labelled(pooled.covariance, "covariance"),
        "within_chain_covariance": labelled(pooled.within, "within-chain covariance"),
        "correlation": labelled(correlation, "correlation"),
        "standard_error": labelled(pooled.error, "standard error"),
        "r_hat": labelled(pooled.r_hat, "split R-hat"),
        "ess": labelled(pooled.ess, "effective draws"),
    }
    attrs["trust"] = str(trust(xr.Dataset({name: result[name] for name in ("r_hat", "ess")}), chains=chains))
    if kept is not None:
        chain_tail = {"chain": np.arange(chains), "draw": np.arange(draws), "sample": recorded.labels}
        result["draws"] = label(plan, kept, chain_tail, "loss", attrs, several=several)
    return xr.Dataset(result, attrs=labelled_array(0.0, {}, "settings", attrs).attrs)


def _recorded(first: Items, queries: Items | Mapping[str, Observable] | None) -> tuple[Recorded, slice, Labels]:
    """Return what to record, which columns of it are queries, and their labels."""
    n = len(first)
    if queries is None:
        return Recorded(first), slice(0, n), labels_of(first)
    if isinstance(queries, Mapping):
        if not queries:
            raise ValueError("queries holds no function; give at least one, or leave it out.")
        return Recorded(first, functions=queries), slice(n, n + len(queries)), tuple(queries)
    columns = slice(n, n + len(queries))
    if isinstance(first, Dataset) and isinstance(queries, Dataset):
        both = Dataset(np.vstack([first.inputs, queries.inputs]), np.vstack([first.targets, queries.targets]))
        return Recorded(both), columns, queries.names
    return Recorded(first, queries), columns, labels_of(queries)
