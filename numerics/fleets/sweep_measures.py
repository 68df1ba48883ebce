"""What a sweep says of a setting's draws: agreement with leave-one-out (paper Fig. 6) or a learning coefficient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from numerics.fleets.sweep_grid import SweepGrid
from numerics.learning_coefficients.estimate import coefficient_of_draws, losses_at_checkpoints
from numerics.sampling.plan import Data, Weights
from numerics.sampling.samplers import Sampler
from theory import checks

__all__ = ["LearningCoefficientError", "LeaveOneOutCorrelation", "SweepMeasure"]


class SweepMeasure(ABC):
    """A frozen dataclass that judges the draws of one setting; your own must be importable where workers run."""

    @abstractmethod
    def check(self, dataset: Data, checkpoints: Weights, grid: SweepGrid) -> None:
        """Refuse, in a sentence and before any work, what the measure cannot judge."""

    @abstractmethod
    def blank(self, dataset: Data, checkpoints: Weights) -> xr.Dataset:
        """Return what `evaluate` returns with NaN everywhere, for settings that cannot be sampled."""

    @abstractmethod
    def evaluate(self, losses: xr.DataArray, sampler: Sampler, dataset: Data, checkpoints: Weights) -> xr.Dataset:
        """Return numbers of any dimensions from losses (epoch, chain, draw, sample) of the training set."""


@dataclass(frozen=True, eq=False)
class LeaveOneOutCorrelation(SweepMeasure):
    """Pearson correlation of the Bayesian influence with a leave-one-out trajectory.

    Gives ``correlation``, over all epochs and all pairs of different samples, and ``pair_correlation`` (source, query),
    over the epochs of each pair. NaN where one of the two does not vary.

    Parameters
    ----------
    reference
        Leave-one-out loss differences, dims (epoch, source, query), at every epoch of the checkpoints, as
        `leave_one_out` returns them; sources and queries are samples of the training set.

    Examples
    --------
    >>> from numerics import TrainingConfig, leave_one_out
    >>> from theory import hierarchical_dataset
    >>> LeaveOneOutCorrelation(leave_one_out(hierarchical_dataset(), TrainingConfig(epochs=200))).reference.sizes
    Frozen({'epoch': 3, 'source': 8, 'query': 8})
    """

    reference: xr.DataArray

    def check(self, dataset: Data, checkpoints: Weights, grid: SweepGrid) -> None:
        """See `SweepMeasure.check`."""
        if set(self.reference.dims) != {"epoch", "source", "query"}:
            raise ValueError(
                f"the leave-one-out reference has dims {self.reference.dims}, but epoch, source and query are needed."
            )
        have = self.reference["epoch"].values
        if missing := [epoch for epoch in checkpoints.epochs if epoch not in have]:
            raise ValueError(
                f"the leave-one-out reference has no epoch {missing[0]:g}, at which there is a checkpoint; sweep over "
                "checkpoints.at(...) the epochs of both."
            )
        for side in ("source", "query"):
            if strangers := [str(name) for name in self.reference[side].values if name not in dataset.names]:
                raise ValueError(f"the leave-one-out reference's {side} {strangers[0]!r} is not in the data set.")
        if not np.isfinite(self.reference.values).all():
            raise ValueError(
                "the leave-one-out reference holds a value that is not finite; leave out its epoch or pair."
            )
        if len(checkpoints) < 2:
            raise ValueError("a correlation along training needs at least 2 checkpoints, but 1 was given.")
        if min(grid.chains) * min(grid.draws) < 2:
            raise ValueError("a covariance needs at least 2 draws; raise draws or chains.")

    def blank(self, dataset: Data, checkpoints: Weights) -> xr.Dataset:
        """See `SweepMeasure.blank`."""
        return self._labelled(np.nan, np.full((self.reference.sizes["source"], self.reference.sizes["query"]), np.nan))

    def evaluate(self, losses: xr.DataArray, sampler: Sampler, dataset: Data, checkpoints: Weights) -> xr.Dataset:
        """See `SweepMeasure.evaluate`."""
        reference = self.reference.sel(epoch=checkpoints.epochs).transpose("epoch", "source", "query")
        rows, columns = ([dataset.names.index(name) for name in reference[side].values] for side in ("source", "query"))
        covariance = _covariances(losses.transpose("epoch", "sample", "chain", "draw").values)
        influence = -sampler.n_beta / len(dataset) * covariance[:, rows][:, :, columns]
        pairs = [
            [_pearson(influence[:, i, j], reference.values[:, i, j]) for j in range(len(columns))]
            for i in range(len(rows))
        ]
        different: Bool[np.ndarray, "i j"] = np.array(rows)[:, None] != np.array(columns)
        return self._labelled(
            _pearson(influence[:, different], reference.values[:, different]), np.array(pairs, dtype=np.float64)
        )

    def _labelled(self, overall: float, pairs: Float[np.ndarray, "i j"]) -> xr.Dataset:
        names = {side: [str(name) for name in self.reference[side].values] for side in ("source", "query")}
        return xr.Dataset({"correlation": overall, "pair_correlation": (("source", "query"), pairs)}, coords=names)


@dataclass(frozen=True, eq=False)
class LearningCoefficientError(SweepMeasure):
    """Distance of the measured learning coefficient from its exact value, at every checkpoint.

    Gives ``learning_coefficient``, ``standard_error``, ``r_hat`` and ``relative_error`` (estimate / exact - 1), dims
    (epoch,). Burn in, and take few checkpoints: the diagnostics take longer than the draws.

    Parameters
    ----------
    exact
        The learning coefficient, > 0.

    Examples
    --------
    >>> LearningCoefficientError(exact=60.0)
    LearningCoefficientError(exact=60.0)
    """

    exact: float

    def __post_init__(self) -> None:
        checks.positive("exact", self.exact)

    def check(self, dataset: Data, checkpoints: Weights, grid: SweepGrid) -> None:
        """See `SweepMeasure.check`."""
        if min(grid.draws) < 4:
            raise ValueError(
                f"a learning coefficient needs at least 4 draws, because diagnostics compare halves of chains, but "
                f"draws holds {min(grid.draws)}."
            )

    def blank(self, dataset: Data, checkpoints: Weights) -> xr.Dataset:
        """See `SweepMeasure.blank`."""
        nothing = ("epoch", np.full(len(checkpoints), np.nan))
        names = ("learning_coefficient", "standard_error", "r_hat", "relative_error")
        return xr.Dataset(dict.fromkeys(names, nothing), coords={"epoch": checkpoints.epochs})

    def evaluate(self, losses: xr.DataArray, sampler: Sampler, dataset: Data, checkpoints: Weights) -> xr.Dataset:
        """See `SweepMeasure.evaluate`."""
        found = coefficient_of_draws(losses, losses_at_checkpoints(dataset, checkpoints), np.ones(len(dataset)))
        found["relative_error"] = found["learning_coefficient"] / self.exact - 1
        return found[["learning_coefficient", "standard_error", "r_hat", "relative_error"]].drop_attrs()


def _covariances(losses: Float[np.ndarray, "t n c d"]) -> Float[np.ndarray, "t n n"]:
    """Return covariances over all draws of all chains; without BLAS, whose sums depend on the number of threads."""
    result = []
    for values in losses.reshape(*losses.shape[:2], -1).astype(np.float64):
        centred = values - values.mean(axis=1, keepdims=True)
        result.append(np.einsum("ik,jk->ij", centred, centred) / (centred.shape[1] - 1))
    return np.stack(result)


def _pearson(x: Float[np.ndarray, "*s"], y: Float[np.ndarray, "*s"]) -> float:
    """Return the correlation of all entries, NaN where one of the two does not vary."""
    x, y = x.ravel() - x.mean(), y.ravel() - y.mean()
    spread = np.sqrt(np.sum(x**2) * np.sum(y**2))
    return float(np.sum(x * y) / spread) if spread > 0 else float("nan")
