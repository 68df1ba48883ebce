"""The pairs of measures on a user's own data, to see whether the derivation holds there."""

from __future__ import annotations

from collections.abc import Callable

from theory import Dataset
from validation.experiments.base import Experiment, Settings
from validation.experiments.scaled_settings import refuse_unwhitened, settings_for
from validation.pairs import MATRIX, MEASURES, PAIRS
from validation.registry import Verdict
from validation.runner import Ledger, run_ledger

__all__ = ["cross_check"]

_LARGEST_HESSIAN = 1200  # dimensions; 101 of them take about 15 seconds


def cross_check(
    dataset: Dataset,
    settings: Settings | None = None,
    *,
    started: Callable[[str], object] = lambda _: None,
    finished: Callable[[str, Verdict, float], object] = lambda *_: None,
) -> Ledger:
    """Compare closed forms, sampling and retraining on a data set, pair by pair.

    Parameters
    ----------
    dataset
        Training set with whitened inputs, X^T X = I, and the samples' names; see `whiten`.
    settings
        Settings of training and sampling; `settings_for` the data if not given.
    started, finished
        As for `run_ledger`.

    Returns
    -------
    Ledger
        The pairs of the toy model's report with what was found, verdicts where theory bounds the agreement for any
        data, the correlation of every two measures, and the strongest influences by name. `validation.page.write_html`
        makes a report of it.

    Raises
    ------
    ValueError
        If inputs are not whitened; the sentence says how to whiten them. If there are fewer than two samples.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import numpy as np
    >>> data = Dataset(np.eye(2), np.array([[2.0, 0.5, 0.0], [1.0, 0.0, 1.0]]), ("a", "b"))
    >>> ledger = cross_check(data, replace(settings_for(data), draws=50))
    >>> next(str(r.verdict) for r in ledger.pairs if r.pair.measure == "LOO closed form")
    'holds'
    """
    refuse_unwhitened(dataset)
    if len(dataset) < 2:
        raise ValueError("the data set has one sample, but influence on another needs two.")
    settings = settings_for(dataset) if settings is None else settings
    left_out = _too_large(dataset, settings)
    pairs = [pair for pair in PAIRS if not {pair.reference, pair.measure} & left_out]
    names = f"{len(dataset)} samples, {dataset.n_inputs} inputs, {dataset.n_outputs} outputs"
    experiment = Experiment(dataset, settings, started)
    return run_ledger(
        f"Cross-check of {names}",
        experiment,
        pairs=pairs,
        measures=[name for name in MATRIX if name not in left_out],
        strongest=12,
        general_only=True,
        started=started,
        finished=finished,
    )


def _too_large(dataset: Dataset, settings: Settings) -> set[str]:
    """Return the names of the measures that need a Hessian, if it is too large to be inverted at every checkpoint."""
    side = dataset.n_inputs + dataset.n_outputs
    if min(settings.training.hidden, side) * side <= _LARGEST_HESSIAN:
        return set()
    return {name for name in MEASURES if name.startswith("Hessian")}
