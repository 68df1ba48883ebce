r"""Bayesian influence: the covariance of losses under the local posterior of a checkpoint (paper Eq. 4, Algorithm 1).

.. math:: I_{ij} = \frac{\partial\, E[\ell_j]}{\partial \beta_i} = -\frac{n_\beta}{N} \mathrm{Cov}(\ell_i, \ell_j) ,

negative = sample i helps query j. Losses stream from the chains into block means and block co-moments in float64, so
memory does not grow with the number of draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from numerics.chains import ChainPlan, run_chains
from numerics.networks import Checkpoints
from numerics.samplers import RMSPropSGLD, Sampler, StepSizeWarning
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["bayesian_influence", "sample"]

_BLOCKS = 32  # blocks a chain, the batch means of the standard error


def sample(
    dataset: Dataset,
    checkpoints: Checkpoints,
    sampler: Sampler | None = None,
    *,
    chains: int = 4,
    draws: int = 1000,
    burn_in: int = 0,
    thin: int = 1,
    observables: Dataset | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Draw the losses of samples under the local posterior of every checkpoint.

    Parameters
    ----------
    dataset
        Training set, whose mean loss is sampled at full batch.
    checkpoints
        Weights at which chains start and to which they are pulled.
    sampler
        Algorithm and hyper-parameters; `RMSPropSGLD()` if not given.
    chains, draws
        Chains per checkpoint and draws per chain. The first draw is the checkpoint itself, as in Algorithm 1, unless
        there is a burn-in.
    burn_in, thin
        Steps before the first draw, and steps from one draw to the next.
    observables
        Samples whose losses are recorded; the training set if not given.
    seed
        The same seed gives the same bits on the same machine for every chain, whatever runs beside it.
    dtype
        torch.float32 or torch.float64.
    workers
        Threads over batches of chains; as many as this process may use cores if not given.
    progress
        Called with the number of chains of each finished batch.

    Returns
    -------
    xarray.DataArray
        Losses 1/2 |y - W x|^2, dims (epoch, chain, draw, sample), in the dtype asked for. All draws are held in
        memory; `bayesian_influence` streams.

    Raises
    ------
    SamplerDiverged
        If a chain leaves the finite numbers; it names checkpoint, chain and draw.
    ValueError
        If the step size is outside the stable range at some checkpoint, or an argument does not fit.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=200))
    >>> dict(sample(hierarchical_dataset(), run.checkpoints, chains=2, draws=5).sizes)
    {'epoch': 3, 'chain': 2, 'draw': 5, 'sample': 8}
    """
    asked = dataset if observables is None else observables
    plan = _plan(dataset, asked, checkpoints, sampler, chains, draws, burn_in, thin, seed, dtype, dataset_first=False)
    kept = np.empty((plan.total, draws, len(asked)), np.float64 if dtype == torch.float64 else np.float32)

    def record(rows: slice, first_draw: int, losses: Float[np.ndarray, "chains draws m"]) -> None:
        kept[rows, first_draw : first_draw + losses.shape[1]] = losses

    run_chains(plan, record, workers=workers, progress=progress)
    coords = {
        "epoch": checkpoints.epochs,
        "chain": np.arange(chains),
        "draw": np.arange(draws),
        "sample": asked.names,
    }
    values = kept.reshape(len(checkpoints), chains, draws, len(asked))
    return labelled_array(values, coords, "loss", _attributes(plan))


def bayesian_influence(
    dataset: Dataset,
    checkpoints: Checkpoints,
    sampler: Sampler | None = None,
    *,
    chains: int = 4,
    draws: int = 1000,
    burn_in: int = 0,
    thin: int = 1,
    queries: Dataset | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    r"""Estimate the Bayesian influence of every training sample on every query at every checkpoint.

    Parameters
    ----------
    dataset, checkpoints, sampler, chains, draws, burn_in, thin, seed, dtype, workers, progress
        As for `sample`. With a single chain the standard error sees only what varies within it.
    queries
        Samples whose loss is asked for; the training set if not given.

    Returns
    -------
    xarray.Dataset
        dims (epoch, source, query):

        ``influence``
            -(n_beta / N) Cov(l_i, l_j).
        ``covariance``
            Covariance over all draws of all chains of a checkpoint, divided by (draws - 1).
        ``correlation``
            Pearson correlation (normalised BIF); NaN where a loss does not vary.
        ``standard_error``
            Monte-Carlo standard error of ``covariance`` by batch means: 32 blocks a chain, whose means are nearly
            independent when a block is long against the autocorrelation time.

    Raises
    ------
    SamplerDiverged
        If a chain leaves the finite numbers; never averaged silently.
    ValueError
        If the step size is outside the stable range at some checkpoint, or an argument does not fit.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500))
    >>> bif = bayesian_influence(hierarchical_dataset(), run.checkpoints, chains=2, draws=200)
    >>> bool(bif["influence"].sel(epoch=1500, source="dog", query="cat") < 0)
    True
    """
    asked = dataset if queries is None else queries
    plan = _plan(dataset, asked, checkpoints, sampler, chains, draws, burn_in, thin, seed, dtype, dataset_first=True)
    if draws * chains < 2:
        raise ValueError("a covariance needs at least 2 draws; raise draws or chains.")
    n, m = len(dataset), len(asked)
    blocks = _BlockMoments(plan, n, m if queries is not None else 0)
    run_chains(plan, blocks.record, workers=workers, progress=progress)
    covariance, error, source_variance, query_variance = blocks.pooled(len(checkpoints))
    spread = np.sqrt(source_variance[:, :, None] * query_variance[:, None, :])
    correlation = np.divide(covariance, spread, out=np.full_like(covariance, np.nan), where=spread > 0)
    coords = {"epoch": checkpoints.epochs, "source": dataset.names, "query": asked.names}
    attrs = _attributes(plan)
    help_sign = {"long_name": "influence (negative = helps)", "units": "loss per sample weight"}
    return xr.Dataset(
        {
            "influence": labelled_array(-plan.sampler.n_beta / n * covariance, coords, "influence", attrs | help_sign),
            "covariance": labelled_array(covariance, coords, "covariance", attrs),
            "correlation": labelled_array(correlation, coords, "correlation", attrs),
            "standard_error": labelled_array(error, coords, "standard error", attrs),
        },
        attrs=labelled_array(0.0, {}, "settings", attrs).attrs,
    )


class _BlockMoments:
    """Means and co-moments of losses over blocks of draws, for every chain, in float64."""

    def __init__(self, plan: ChainPlan, sources: int, extra_queries: int) -> None:
        self._block, self._draws = plan.block, plan.draws
        self._sources = slice(0, sources)
        self._queries = slice(sources, sources + extra_queries) if extra_queries else self._sources
        columns, count = len(plan.observables[0]), -(-plan.draws // plan.block)
        self._means = np.empty((plan.total, count, columns))
        self._moments = np.empty((plan.total, count, sources, extra_queries or sources))
        self._squares = np.empty((plan.total, count, columns))

    def record(self, rows: slice, first_draw: int, losses: Float[np.ndarray, "chains draws m"]) -> None:
        """Reduce one block; blocks of one batch of chains arrive in order and touch no other batch's rows."""
        block = first_draw // self._block
        mean = losses.mean(axis=1)
        centred = losses - mean[:, None]
        self._means[rows, block] = mean
        self._moments[rows, block] = np.swapaxes(centred[..., self._sources], 1, 2) @ centred[..., self._queries]
        self._squares[rows, block] = np.square(centred).sum(axis=1)

    def pooled(self, checkpoints: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return covariance (T, n, m), its standard error, and the variances of sources (T, n) and queries (T, m).

        The mean product over block b about the grand mean is its own co-moment over its length plus the product of
        its mean's deviations; the spread of these over blocks gives the standard error of their average.
        """
        sizes = np.full(self._means.shape[1], self._block)
        sizes[-1] = self._draws - self._block * (len(sizes) - 1)
        means, moments, squares = (
            a.reshape(checkpoints, -1, *a.shape[2:]) for a in (self._means, self._moments, self._squares)
        )
        weights = np.tile(sizes, means.shape[1] // len(sizes)).astype(float)
        total = weights.sum()
        deviation = means - np.einsum("b,tbm->tm", weights / total, means)[:, None]
        products = moments / weights[:, None, None] + np.einsum(
            "tbi,tbj->tbij", deviation[..., self._sources], deviation[..., self._queries]
        )
        average = np.einsum("b,tbij->tij", weights / total, products)
        spread = np.einsum("b,tbij->tij", (weights / total) ** 2, np.square(products - average[:, None]))
        blocks = len(weights)
        error = np.sqrt(spread * blocks / (blocks - 1)) if blocks > 1 else np.full_like(spread, np.nan)
        variance = (squares.sum(axis=1) + np.einsum("b,tbm->tm", weights, np.square(deviation))) / (total - 1)
        unbiased = total / (total - 1)
        return unbiased * average, unbiased * error, variance[:, self._sources], variance[:, self._queries]


def _plan(
    dataset: Dataset,
    asked: Dataset,
    checkpoints: Checkpoints,
    sampler: Sampler | None,
    chains: int,
    draws: int,
    burn_in: int,
    thin: int,
    seed: int,
    dtype: torch.dtype,
    *,
    dataset_first: bool,
) -> ChainPlan:
    checkpoints.check_fits(dataset)
    checkpoints.check_fits(asked)
    sampler = RMSPropSGLD() if sampler is None else sampler
    checks.integer("chains", chains, at_least=1)
    checks.integer("draws", draws, at_least=1)
    checks.integer("burn_in", burn_in, at_least=0)
    checks.integer("thin", thin, at_least=1)
    checks.integer("seed", seed, at_least=0)
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, but {dtype} was given.")
    _check_steps(sampler, dataset, checkpoints)
    inputs, targets = asked.inputs, asked.targets
    if dataset_first and asked is not dataset:
        inputs, targets = np.vstack([dataset.inputs, inputs]), np.vstack([dataset.targets, targets])
    block = -(-draws // _BLOCKS)
    return ChainPlan(dataset, (inputs, targets), checkpoints, sampler, chains, draws, burn_in, thin, block, seed, dtype)


def _check_steps(sampler: Sampler, dataset: Dataset, checkpoints: Checkpoints) -> None:
    """Refuse a step that is unstable at some checkpoint; warn once where it may be.

    The Hessian of L is the Gauss-Newton matrix plus a part with eigenvalues +-sigma(R) / N, R = Y^T X - W X^T X. The
    former's largest eigenvalue is that of A + max(D) B over N (A = X W_1^T W_1 X^T, B = X X^T, D = W_2 W_2^T), so both
    together bound the largest eigenvalue of the Hessian on either side.
    """
    n = len(dataset)
    x, y = torch.tensor(dataset.inputs), torch.tensor(dataset.targets)
    hidden_outputs = checkpoints.w1 @ x.T
    output_gain = torch.linalg.eigvalsh(checkpoints.w2 @ checkpoints.w2.mT)[:, -1]
    dual = hidden_outputs.mT @ hidden_outputs + output_gain[:, None, None] * (x @ x.T)
    gauss_newton = torch.linalg.eigvalsh(dual)[:, -1] / n
    residual = (y.T - checkpoints.maps @ x.T) @ x
    remainder = torch.linalg.matrix_norm(residual, ord=2) / n
    slopes = (checkpoints.w2.mT @ residual / n, residual @ checkpoints.w1.mT / n)
    low, high = gauss_newton - remainder, gauss_newton + remainder
    # Five standard deviations of a gradient entry around the checkpoint's own: the weights spread by at most
    # localization^(-1/2) in each direction and the gradient by lambda times that.
    spread = high * 5 / np.sqrt(sampler.localization) if sampler.localization else torch.full_like(high, torch.inf)
    largest_gradient = torch.stack([slope.abs().amax((1, 2)) for slope in slopes]).amax(0) + spread
    doubts = [
        sampler.check_step((float(a), float(b)), float(g), float(epoch))
        for a, b, g, epoch in zip(low, high, largest_gradient, checkpoints.epochs, strict=True)
    ]
    if found := [doubt for doubt in doubts if doubt]:
        where = f" (and at {len(found) - 1} more checkpoints)" if len(found) > 1 else ""
        warnings.warn(found[0] + where, StepSizeWarning, stacklevel=4)


def _attributes(plan: ChainPlan) -> dict[str, object]:
    return {
        "estimator": type(plan.sampler).__name__,
        **asdict(plan.sampler),
        "chains": plan.chains,
        "draws": plan.draws,
        "burn_in": plan.burn_in,
        "thin": plan.thin,
        "seed": plan.seed,
        "dtype": str(plan.dtype).removeprefix("torch."),
    }
