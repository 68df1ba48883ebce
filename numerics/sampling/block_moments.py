"""Covariances of recorded numbers over blocks of draws, streamed in float64, and kept in a file if asked."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from numerics.errors import StoreMismatch
from numerics.sampling.plan import ChainPlan
from numerics.stores import whole_file

__all__ = ["BlockMoments", "Pooled"]

# What zipfile and numpy raise at a file of which bits have changed; among RuntimeErrors, that it says it is encrypted.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error)


class Pooled(NamedTuple):
    """Covariances of every (setting, checkpoint), the first axis t, and what belongs to them."""

    covariance: Float[np.ndarray, "t n m"]
    within: Float[np.ndarray, "t n m"]
    error: Float[np.ndarray, "t n m"]
    source_variance: Float[np.ndarray, "t n"]
    query_variance: Float[np.ndarray, "t m"]
    r_hat: Float[np.ndarray, "t n m"]
    ess: Float[np.ndarray, "t n m"]


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
        self._half = (count + 1) // 2  # blocks of the first half of a chain
        self._fourth = np.zeros((plan.total, 2, n, m))
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
        squares = np.square(centred)
        self._squares[rows, block] = squares.sum(axis=1)
        half = int(block >= self._half)
        self._fourth[rows, half] += np.swapaxes(squares[..., self._sources], 1, 2) @ squares[..., self._queries]

    def finished(self, rows: slice) -> None:
        """Take chains for done, and write the store."""
        self._done[rows] = True
        if self._store is not None:
            with whole_file(self._store) as file:
                moments: dict[str, Any] = {
                    "means": self._means,
                    "moments": self._moments,
                    "squares": self._squares,
                    "fourth": self._fourth,
                }
                np.savez(file, key=np.array(self._key), done=self._done, **moments)

    def _read(self, store: Path) -> None:
        try:
            with store.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                key = str(saved["key"])
                if key == self._key:
                    self._done, self._means = saved["done"], saved["means"]
                    self._moments, self._squares = saved["moments"], saved["squares"]
                    self._fourth = saved["fourth"]
        except _DAMAGE as error:
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
        its mean's deviations; the spread of these over blocks gives the standard error of their average. Where a chain
        never moves, or there are fewer than four draws (two are equally far from their mean, so that their products
        agree whatever they are), nothing is known of the error: NaN.
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
        error = np.sqrt(spread * blocks / (blocks - 1)) if min(blocks, total) > 3 else np.full_like(spread, np.nan)
        error[self._still(means, squares, chains)] = np.nan
        variance = (squares.sum(axis=1) + np.einsum("b,tbm->tm", weights, np.square(deviation))) / (total - 1)
        unbiased = total / (total - 1)
        return Pooled(
            unbiased * average,
            self._within(sizes, moments.reshape(len(means), chains, per_chain, *moments.shape[2:]), chains),
            unbiased * error,
            variance[:, self._sources],
            variance[:, self._queries],
            *self._convergence(deviation, products, error, sizes, chains),
        )

    def _still(
        self, means: Float[np.ndarray, "t b columns"], squares: Float[np.ndarray, "t b columns"], chains: int
    ) -> Bool[np.ndarray, "t n m"]:
        """Return whether some chain never moves in the source or in the query."""
        own = [a.reshape(len(a), chains, -1, a.shape[-1]) for a in (means, squares)]
        still = ((own[1] == 0) & (own[0] == own[0][:, :, :1])).all(axis=2).any(axis=1)
        return np.asarray(still[:, self._sources, None] | still[:, None, self._queries])

    def _convergence(
        self,
        deviation: Float[np.ndarray, "t b columns"],
        products: Float[np.ndarray, "t b n m"],
        error: Float[np.ndarray, "t n m"],
        sizes: np.ndarray,
        chains: int,
    ) -> tuple[Float[np.ndarray, "t n m"], Float[np.ndarray, "t n m"]]:
        r"""Return R-hat over the halves of all chains, and the effective number, of products of deviations.

        With a, b the deviations from the means of a block and d, e those of the means themselves, a product is
        (a + d)(b + e) and the mean of its square :math:`\overline{a^2 b^2} + e^2 \overline{a^2} + d^2 \overline{b^2}
        + 4 d e \overline{ab} + d^2 e^2`, up to third moments within a block, which are left out.
        """
        unknown = np.full_like(error, np.nan)
        if len(sizes) < 2:
            return unknown, unknown
        first, second = slice(0, self._half), slice(self._half, None)
        halves = [(part, sizes[part] / sizes[part].sum()) for part in (first, second)]

        def averaged(values: Float[np.ndarray, "t b n m"]) -> Float[np.ndarray, "t c 2 n m"]:
            own = values.reshape(len(error), chains, -1, *values.shape[2:])
            return np.stack([np.einsum("b,tcb...->tc...", share, own[:, :, part]) for part, share in halves], axis=2)

        shape = products.shape
        variance = self._squares.reshape(len(error), -1, self._squares.shape[-1]) / np.tile(sizes, chains)[:, None]
        mixed = self._moments.reshape(shape) / np.tile(sizes, chains)[:, None, None]
        d, e = deviation[..., self._sources, None], deviation[..., None, self._queries]
        a, b = variance[..., self._sources, None], variance[..., None, self._queries]
        draws = np.array([sizes[part].sum() for part, _ in halves])
        fourth = self._fourth.reshape(len(error), chains, 2, *shape[2:]) / draws[:, None, None]
        square = fourth + averaged(e**2 * a + d**2 * b + 4 * d * e * mixed + (d * e) ** 2)
        means = averaged(products)
        within = np.maximum(square - means**2, 0).mean(axis=(1, 2))
        between = means.reshape(len(error), 2 * chains, *shape[2:]).var(axis=1, ddof=1)
        known = np.isfinite(error) & (within > 0) & (error > 0)
        n = float(draws.mean())
        ratio = np.divide(between, within, out=unknown.copy(), where=known)
        ess = np.divide(within, np.square(error), out=unknown, where=known)
        return np.sqrt(ratio + (n - 1) / n), np.minimum(ess, float(sizes.sum()) * chains)

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
