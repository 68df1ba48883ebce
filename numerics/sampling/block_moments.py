"""Covariances of recorded numbers over blocks of draws, streamed in float64, and kept in a file if asked."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from numerics.errors import StoreMismatch
from numerics.sampling.plan import ChainPlan

__all__ = ["BlockMoments", "Pooled"]


class Pooled(NamedTuple):
    """Covariances of every (setting, checkpoint), the first axis t, and what belongs to them."""

    covariance: Float[np.ndarray, "t n m"]
    within: Float[np.ndarray, "t n m"]
    error: Float[np.ndarray, "t n m"]
    source_variance: Float[np.ndarray, "t n"]
    query_variance: Float[np.ndarray, "t m"]


class BlockMoments:
    """Means and co-moments over blocks of draws, for every chain.

    Parameters
    ----------
    plan
        What runs.
    sources, queries
        Columns of what is recorded.
    store
        File that holds the moments of finished chains, read if it exists.
    """

    def __init__(
        self, plan: ChainPlan, sources: slice, queries: slice, store: str | os.PathLike[str] | None = None
    ) -> None:
        self._block, self._draws = plan.block, plan.draws
        self._sources, self._queries = sources, queries
        columns, count = len(plan.recorded), -(-plan.draws // plan.block)
        n, m = sources.stop - sources.start, queries.stop - queries.start
        self._means = np.empty((plan.total, count, columns))
        self._moments = np.empty((plan.total, count, n, m))
        self._squares = np.empty((plan.total, count, columns))
        self._done = np.zeros(plan.total, dtype=bool)
        self._store = None if store is None else Path(store)
        if self._store is not None:
            self._key = f"{plan.fingerprint()}-{plan.draws}-{sources}-{queries}"
            if self._store.exists():
                self._read(self._store)

    @property
    def done_chains(self) -> list[int]:
        """Chains that the store held already."""
        return [int(chain) for chain in np.flatnonzero(self._done)]

    def record(self, rows: slice, first_draw: int, values: Float[np.ndarray, "chains draws m"]) -> None:
        """Reduce one block; blocks of one batch of chains arrive in order and touch no other batch's rows."""
        block = first_draw // self._block
        mean = values.mean(axis=1)
        centred = values - mean[:, None]
        self._means[rows, block] = mean
        self._moments[rows, block] = np.swapaxes(centred[..., self._sources], 1, 2) @ centred[..., self._queries]
        self._squares[rows, block] = np.square(centred).sum(axis=1)

    def finished(self, rows: slice) -> None:
        """Take chains for done, and write the store."""
        self._done[rows] = True
        if self._store is not None:
            partial = self._store.with_name(f"{self._store.name}.partial")
            with partial.open("wb") as file:
                moments = {"means": self._means, "moments": self._moments, "squares": self._squares}
                np.savez(file, allow_pickle=False, key=np.array(self._key), done=self._done, **moments)
            os.replace(partial, self._store)

    def _read(self, store: Path) -> None:
        try:
            with np.load(store) as saved:
                key = str(saved["key"])
                if key == self._key:
                    self._done, self._means = saved["done"], saved["means"]
                    self._moments, self._squares = saved["moments"], saved["squares"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{store} is not a store of Bayesian influence, or is damaged: delete it or name another file."
            ) from error
        if key != self._key:
            raise StoreMismatch(
                f"{store} holds the chains of a call with other arguments; name another file, or repeat that call."
            )

    def pooled(self, chains: int) -> Pooled:
        """Return the covariances over all draws of the `chains` chains of each checkpoint.

        The mean product over block b about the grand mean is its own co-moment over its length plus the product of
        its mean's deviations; the spread of these over blocks gives the standard error of their average.
        """
        per_chain = self._means.shape[1]
        means, moments, squares = (
            a.reshape(-1, chains * per_chain, *a.shape[2:]) for a in (self._means, self._moments, self._squares)
        )
        sizes = np.full(per_chain, float(self._block))
        sizes[-1] = self._draws - self._block * (per_chain - 1)
        weights = np.tile(sizes, chains)
        total = weights.sum()
        deviation = means - np.einsum("b,tbm->tm", weights / total, means)[:, None]
        products = moments / weights[:, None, None] + self._products(deviation)
        average = np.einsum("b,tbij->tij", weights / total, products)
        spread = np.einsum("b,tbij->tij", (weights / total) ** 2, np.square(products - average[:, None]))
        blocks = len(weights)
        error = np.sqrt(spread * blocks / (blocks - 1)) if blocks > 1 else np.full_like(spread, np.nan)
        variance = (squares.sum(axis=1) + np.einsum("b,tbm->tm", weights, np.square(deviation))) / (total - 1)
        unbiased = total / (total - 1)
        return Pooled(
            unbiased * average,
            self._within(sizes, moments.reshape(len(means), chains, per_chain, *moments.shape[2:]), chains),
            unbiased * error,
            variance[:, self._sources],
            variance[:, self._queries],
        )

    def _products(self, deviation: Float[np.ndarray, "*t columns"]) -> Float[np.ndarray, "*t n m"]:
        return deviation[..., self._sources, None] * deviation[..., None, self._queries]

    def _within(self, sizes: np.ndarray, moments: np.ndarray, chains: int) -> Float[np.ndarray, "t n m"]:
        """Return the mean over chains of the covariance about each chain's own mean; NaN for chains of one draw."""
        if self._draws < 2:
            return np.full((len(moments), *moments.shape[3:]), np.nan)
        means = self._means.reshape(-1, chains, *self._means.shape[1:])
        deviation = means - np.einsum("b,tcbm->tcm", sizes / self._draws, means)[:, :, None]
        own = moments.sum(axis=2) + np.einsum("b,tcbij->tcij", sizes, self._products(deviation))
        return own.mean(axis=1) / (self._draws - 1)
