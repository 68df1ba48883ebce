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

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from numerics import RMSPropSGLD, TrainingConfig
from theory import Dataset, checks
from validation.experiment import Experiment, Settings
from validation.pairs import MATRIX, MEASURES, PAIRS
from validation.registry import Verdict
from validation.runner import Ledger, run_ledger

__all__ = ["cross_check", "settings_for"]

_TOY = 15**0.5  # largest singular value of the toy model
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
        If inputs are not whitened, or Y^T X is zero.

    Examples
    --------
    >>> from theory import hierarchical_dataset
    >>> settings_for(hierarchical_dataset()).training.epochs
    10000
    """
    _refuse_unwhitened(dataset)
    s = np.linalg.svd(dataset.syx, compute_uv=False)
    if s[0] == 0:
        raise ValueError("Y^T X is zero: targets do not depend on the inputs, so there is nothing to learn.")
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
    >>> data = Dataset(np.eye(2), np.array([[2.0, 0.5, 0.0], [1.0, 0.0, 1.0]]), ("a", "b"))
    >>> ledger = cross_check(data, replace(settings_for(data), draws=50))
    >>> next(str(r.verdict) for r in ledger.pairs if r.pair.measure == "LOO closed form")
    'holds'
    """
    _refuse_unwhitened(dataset)
    if len(dataset) < 2:
        raise ValueError("the data set has one sample, but influence on another needs two.")
    settings = settings_for(dataset) if settings is None else settings
    left_out = too_large(dataset, settings)
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


def too_large(dataset: Dataset, settings: Settings, limit: int = _LARGEST_HESSIAN) -> set[str]:
    """Return the names of the measures that need a Hessian, if it is too large to be inverted at every checkpoint."""
    side = dataset.n_inputs + dataset.n_outputs
    if min(settings.training.hidden, side) * side <= limit:
        return set()
    return {name for name in MEASURES if name.startswith("Hessian")}


def _refuse_unwhitened(dataset: Dataset) -> None:
    try:
        checks.whitened(dataset.inputs, needed_by="cross_check")
    except ValueError as error:
        raise ValueError(
            f"{error} validation.whiten(dataset) does it, and validation.save_dataset keeps the result for --data."
        ) from None
