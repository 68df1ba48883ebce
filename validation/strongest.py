"""The strongest influences on a data set by name: who helps or harms whom most, when, retrained and in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from validation.agreement import without_self
from validation.experiments.base import Experiment

__all__ = ["Extreme", "strongest_influences"]


@dataclass(frozen=True)
class Extreme:
    """The largest influence of one sample on another along training.

    Parameters
    ----------
    source, query
        Names of the samples.
    retrained, epoch
        Leave-one-out by retraining where it is largest in size, and the epoch; negative = the source helps.
    solved, solved_epoch
        The same of the closed form: its extremum of the same sign. NaN where there is no closed form.
    """

    source: str
    query: str
    retrained: float
    epoch: float
    solved: float
    solved_epoch: float

    @property
    def helps(self) -> bool:
        """Whether the source helps the query most, rather than harms it."""
        return self.retrained < 0


def strongest_influences(experiment: Experiment, count: int = 12) -> tuple[Extreme, ...]:
    """Return the pairs of different samples with the largest leave-one-out influence, the largest first.

    Examples
    --------
    >>> from numerics import TrainingConfig
    >>> from theory import hierarchical_dataset
    >>> from validation import Settings
    >>> tree = Experiment(hierarchical_dataset(), Settings(training=TrainingConfig(epochs=3000)))
    >>> first = strongest_influences(tree, count=1)[0]
    >>> first.helps, first.epoch == first.solved_epoch
    (True, True)
    """
    measured = without_self(experiment.retrained)
    try:
        solved = without_self(experiment.closed_leave_one_out)
    except (ValueError, ArithmeticError):  # said in the table of pairs; what is retrained stands without it
        solved = xr.full_like(measured, np.nan)
    size = abs(measured).max("epoch").stack(pair=("source", "query")).dropna("pair")
    chosen = size.isel(pair=np.argsort(-size.values, kind="stable")[:count])
    return tuple(_extreme(measured, solved, *pair) for pair in chosen["pair"].values)


def _extreme(measured: xr.DataArray, solved: xr.DataArray, source: str, query: str) -> Extreme:
    lines = [array.sel(source=source, query=query) for array in (measured, solved)]
    epoch = float(abs(lines[0]).idxmax("epoch"))
    sign = 1.0 if float(lines[0].sel(epoch=epoch)) > 0 else -1.0
    retrained = float(lines[0].sel(epoch=epoch))
    if bool(lines[1].isnull().all()):
        return Extreme(str(source), str(query), retrained, epoch, float("nan"), float("nan"))
    solved_epoch = float((sign * lines[1]).idxmax("epoch"))
    return Extreme(str(source), str(query), retrained, epoch, float(lines[1].sel(epoch=solved_epoch)), solved_epoch)
