r"""The pairs of measures on a user's own data, to see whether the derivation holds there.

Settings are scaled so that the largest singular value of Y^T X plays the part of the toy model's. With
:math:`c = s_{max} / \sqrt{15}`, weights are of size :math:`c^{1/2}`, gradients of the mean loss
:math:`c^{3/2} / N`, its curvature :math:`c / N`; so

.. math::
    \tau = 1200\, c, \quad \sigma = 10^{-3} c^{1/2}, \quad \gamma = \frac{5000}{c}, \quad
    n_\beta = \frac{1000}{c^2} \frac{N}{8}, \quad a = c^{3/2} \frac8N, \quad \epsilon = \frac{a}{2 \gamma} ,

and training lasts until the slowest mode is learned, at most 40,000 epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from numerics import RMSPropSGLD, TrainingConfig, initial_weights
from theory import Dataset, checks, leave_one_out_trajectory
from validation.experiment import Experiment, Settings
from validation.own_measures import own_measures, own_pairs
from validation.pairs import MATRIX, MEASURES, PAIRS
from validation.registry import Claim, Verdict
from validation.runner import Ledger, run_ledger

__all__ = ["cross_check", "settings_for"]

_TOY = 15**0.5  # largest singular value of the toy model
_SMALLEST_UNIT = 1e-10  # of targets: chains are in float32, whose range ends at 1e38, and square gradients, unit^3
_BURN_IN = 50  # steps; each keeps 1 - eps gamma / 2 = 3/4 of the way from the checkpoint to the mean
_LONGEST = 40_000  # epochs
_LARGEST_HESSIAN = 1200  # dimensions; 101 of them take about 15 seconds


def settings_for(dataset: Dataset, *, seed: int = 0) -> Settings:
    """Return the toy model's settings, scaled to a data set as the module describes.

    Parameters
    ----------
    dataset
        Training set with whitened inputs.
    seed
        Seed of the initial weights and of the sampler.

    Raises
    ------
    ValueError
        If there are fewer than two samples, inputs are not whitened, Y^T X is zero, or the units of the targets are so
        large or small that their powers overflow.

    Examples
    --------
    >>> from theory import hierarchical_dataset
    >>> settings_for(hierarchical_dataset()).training.epochs
    10000
    """
    _refuse_unfit(dataset)
    s = np.linalg.svd(dataset.syx, compute_uv=False)
    s = s[s > 1e-6 * s[0]]
    n, rank = len(dataset), len(s)
    c = float(s[0]) / _TOY
    tau = 1200 * c
    epochs = round(min(10_000 * float(s[0] / s[-1]) / _TOY, _LONGEST) / 100) * 100
    training = TrainingConfig(
        hidden=max(50, 2 * rank),
        sigma=1e-3 * c**0.5,
        lr=n * dataset.n_outputs / (2 * tau),
        epochs=epochs,
        checkpoint_every=epochs // 100,
        seed=seed,
    )
    stability, localization = c**1.5 * 8 / n, 5e3 / c
    sampler = RMSPropSGLD(
        step_size=0.5 * stability / localization,
        n_beta=1e3 / c**2 * n / 8,
        localization=localization,
        stability=stability,
    )
    settings = Settings(training=training, sampler=sampler, burn_in=_BURN_IN, seed=seed)
    return replace(settings, every=2 * (epochs // 100))


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
    >>> data = Dataset(np.eye(2), np.array([[2.0, 0.5, 0.0], [1.0, 0.0, 1.0]]), ("a", "b"))
    >>> half = {"half of it": lambda experiment: experiment.retrained / 2}
    >>> ledger = cross_check(data, replace(settings_for(data), draws=50), measures=half)
    >>> next(str(r.verdict) for r in ledger.pairs if r.pair.measure == "LOO closed form")
    'holds'
    >>> next(r.found.slope for r in ledger.pairs if r.pair.measure == "half of it")
    0.5
    """
    _refuse_unfit(dataset)
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


def _refuse_unfit(dataset: Dataset) -> None:
    """Refuse, before any work, data that cannot be checked."""
    if len(dataset) < 2:
        raise ValueError("the data set has one sample, but influence on another needs two.")
    try:
        checks.whitened(dataset.inputs, needed_by="cross_check")
    except ValueError as error:
        raise ValueError(
            f"{error} validation.whiten(dataset) does it, and validation.save_dataset keeps the result for --data."
        ) from None
    with np.errstate(over="ignore", invalid="ignore"):
        syx = dataset.syx
    largest = float(np.abs(dataset.targets).max())
    if not np.isfinite(syx).all() or largest > 1 / _SMALLEST_UNIT:
        raise ValueError(
            f"the largest target is {largest:.3g}, and its powers overflow; divide all targets by it, which divides "
            "every influence by its square."
        )
    strongest = float(np.linalg.svd(syx, compute_uv=False)[0])
    if strongest <= 64 * np.finfo(float).eps * max(syx.shape) * largest:
        raise ValueError("Y^T X is zero: targets do not depend on the inputs, so there is nothing to learn.")
    if strongest < _SMALLEST_UNIT:
        raise ValueError(
            f"the largest singular value of Y^T X is {strongest:.3g}, and its powers underflow; multiply all targets "
            f"by {1 / strongest:.1g}, which multiplies every influence by its square."
        )
