"""Moments over blocks of draws against numpy on the draws themselves: divisors, means and batch means."""

from unittest.mock import Mock

import numpy as np
import pytest

from numerics.sampling.block_moments import BlockMoments
from numerics.sampling.plan import ChainPlan

CHAINS, N = 3, 4


def moments_of(draws, block):
    """Stream draws (chain, draw, loss) of one checkpoint block by block."""
    chains, count, columns = draws.shape
    plan = Mock(spec=ChainPlan, block=block, draws=count, recorded=list(range(columns)), total=chains)
    moments = BlockMoments(plan, slice(0, columns), slice(0, columns))
    for first in range(0, count, block):
        moments.record(slice(0, chains), first, draws[:, first : first + block])
    return moments.pooled(chains)


def some_draws(count, seed=0):
    random = np.random.default_rng(seed)
    apart = random.normal(size=(CHAINS, 1, 1))  # so that a mean of each chain is not the grand mean
    return random.normal(size=(CHAINS, count, N)) @ random.normal(size=(N, N)) + apart + 10.0


@pytest.mark.parametrize(("count", "block"), [(6, 1), (12, 4), (11, 4)])
def test_covariances_are_numpys(count, block):
    draws = some_draws(count)
    found = moments_of(draws, block)
    flat = draws.reshape(-1, N)
    # sums of 36 products about a mean of 10: 1e-13 of the largest entry
    np.testing.assert_allclose(found.covariance[0], np.cov(flat.T), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found.within[0], np.mean([np.cov(c.T) for c in draws], axis=0), rtol=1e-11, atol=1e-12)
    for variance in (found.source_variance, found.query_variance):
        np.testing.assert_allclose(variance[0], flat.var(axis=0, ddof=1), rtol=1e-11)


@pytest.mark.parametrize(("count", "block"), [(4, 2), (6, 1), (12, 4)])
def test_the_error_is_that_of_the_mean_of_equal_blocks(count, block):
    """The standard deviation, with divisor B - 1, of the means of products over B equal blocks, over sqrt(B)."""
    draws = some_draws(count, seed=1)
    centred = draws - draws.reshape(-1, N).mean(axis=0)
    products = np.einsum("cdi,cdj->cdij", centred, centred).reshape(-1, block, N, N).mean(axis=1)
    total = draws.shape[0] * count
    expected = products.std(axis=0, ddof=1) / np.sqrt(len(products)) * total / (total - 1)
    np.testing.assert_allclose(moments_of(draws, block).error[0], expected, rtol=1e-10)


def test_a_short_last_block_counts_by_its_length():
    """Weights w_b / n in the mean and, squared, in the variance of it; B / (B - 1) for the mean that was fitted."""
    draws, block = some_draws(11, seed=2), 4
    centred = draws - draws.reshape(-1, N).mean(axis=0)
    pieces = [c[first : first + block] for c in centred for first in range(0, 11, block)]
    shares = np.array([len(piece) for piece in pieces]) / 33
    products = np.stack([piece.T @ piece / len(piece) for piece in pieces])
    mean = np.einsum("b,bij->ij", shares, products)
    variance = np.einsum("b,bij->ij", shares**2, (products - mean) ** 2) * len(pieces) / (len(pieces) - 1)
    np.testing.assert_allclose(moments_of(draws, block).error[0], np.sqrt(variance) * 33 / 32, rtol=1e-10)


def test_the_error_of_independent_draws_is_their_spread():
    """Over many repetitions the mean squared error of the covariance of normal numbers is the mean squared estimate.

    Each of 400 squared errors has about twice its mean as standard deviation, 2 / 20 = 10 % of the mean; four of those.
    With divisor B for B - 1 at nine blocks the ratio would move by 11 %, with that of one chain by 40 %.
    """
    random = np.random.default_rng(3)
    found = [moments_of(random.normal(size=(CHAINS, 9, N)), 3) for _ in range(400)]
    estimates = np.mean([np.square(f.error[0]) for f in found], axis=0)
    errors = np.var([f.covariance[0] for f in found], axis=0)
    off = ~np.eye(N, dtype=bool)
    # six different pairs: the mean over them is known to 10 % / sqrt(6)
    assert estimates[off].mean() / errors[off].mean() == pytest.approx(1.0, abs=0.16)
