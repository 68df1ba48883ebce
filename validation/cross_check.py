"""The pairs of measures on a user's own data, to see whether the derivation holds there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import xarray as xr

from numerics import initial_weights
from theory import Dataset, leave_one_out_trajectory
from validation.experiments.base import Experiment, Settings
from validation.experiments.scaled_settings import refuse_unfit, settings_for
from validation.own_measures import own_measures, own_pairs
from validation.pairs import MATRIX, MEASURES, PAIRS
from validation.registry import Claim, Verdict
from validation.runner import Ledger, run_ledger

__all__ = ["cross_check"]

_LARGEST_HESSIAN = 1200  # dimensions; 101 of them take about 15 seconds


def cross_check(
    dataset: Dataset,
    settings: Settings | None = None,
    *,
    measures: Mapping[str, xr.DataArray | Callable[[Experiment], xr.DataArray]] | None = None,
    notes: Sequence[str] = (),
    claims: Sequence[Claim] = (),
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
    measures
        Your own trajectories by name: an array with dims (epoch, source, query), of any of the run's epochs and of the
        data's samples, or a function that makes one of the `Experiment`. They are compared with retraining, with its
        derivative and with the Bayesian influence, and stand in the table of correlations.
    notes
        Sentences for the head of the report, such as what was read from a file.
    claims
        Your own claims, see `validation.load_claims`; they are measured on these data.
    started, finished
        As for `run_ledger`.

    Returns
    -------
    Ledger
        The pairs of the toy model's report with what was found, verdicts where bounds follow from the data
        (`validation.bounds`), the correlation of every two measures, and the strongest influences by name.
        `validation.page.write_html` makes a report of it.

    Raises
    ------
    ValueError
        If there are fewer than two samples, inputs are not whitened, nothing can be learned, numbers would overflow, or
        a measure of your own does not fit the data.
    TypeError
        If a measure of your own is neither an array nor a function.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import numpy as np
    >>> data = Dataset(np.eye(2), np.array([[2.0, 0.5, 0.0], [1.0, 0.0, 1.0]]), ("a", "b"))
    >>> half = {"half of it": lambda experiment: experiment.retrained / 2}
    >>> ledger = cross_check(data, replace(settings_for(data), draws=50), measures=half)
    >>> next(str(r.verdict) for r in ledger.pairs if r.pair.measure == "LOO closed form")
    'holds'
    >>> next(r.found.slope for r in ledger.pairs if r.pair.measure == "half of it")
    0.5
    """
    refuse_unfit(dataset)
    settings = settings_for(dataset) if settings is None else settings
    refuse_unsolvable(dataset, settings)
    own = own_measures(measures or {}, dataset, settings.training.checkpoint_epochs)
    left_out = too_large(dataset, settings)
    pairs = [pair for pair in PAIRS if not {pair.reference, pair.measure} & left_out] + own_pairs(own)
    names = f"{len(dataset)} samples, {dataset.n_inputs} inputs, {dataset.n_outputs} outputs"
    return run_ledger(
        f"Cross-check of {names}",
        Experiment(dataset, settings, started),
        pairs=pairs,
        claims=claims,
        measures=[*(name for name in MATRIX if name not in left_out), *own],
        own=own,
        notes=notes,
        strongest=12,
        general_only=True,
        started=started,
        finished=finished,
    )


def too_large(dataset: Dataset, settings: Settings, limit: int = _LARGEST_HESSIAN) -> set[str]:
    """Return the names of the measures that need a Hessian, if it is too large to be inverted at every checkpoint."""
    side = dataset.n_inputs + dataset.n_outputs
    if min(settings.training.hidden, side) * side <= limit:
        return set()
    return {name for name in MEASURES if name.startswith("Hessian")}


def refuse_unsolvable(dataset: Dataset, settings: Settings) -> None:
    """Refuse data of which no closed form is known once a sample is left out, which is seen before any training."""
    training, tau = settings.training, Experiment(dataset, settings).tau
    w1, w2 = initial_weights(dataset, hidden=training.hidden, sigma=training.sigma, seed=training.seed)
    for name in dataset.names:
        try:
            leave_one_out_trajectory(dataset, [0.0], tau=tau, w1=w1.numpy(), w2=w2.numpy(), sources=[name])
        except ValueError as error:
            raise ValueError(
                f"without sample {name!r} too little is left to learn for initial weights of this size, so that "
                f"leave-one-out has no closed form; scale its targets down, leave it out, or give settings with a "
                f"smaller sigma. In detail: {error}"
            ) from None
