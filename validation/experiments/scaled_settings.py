r"""The toy model's settings scaled to any whitened data, with its largest singular value in the part of the toy's.

With :math:`c = s_{max} / \sqrt{15}`, weights are of size :math:`c^{1/2}`, gradients of the mean loss
:math:`c^{3/2} / N`, its curvature :math:`c / N`; so

.. math::
    \tau = 1200\, c, \quad \sigma = 10^{-3} c^{1/2}, \quad \gamma = \frac{5000}{c}, \quad
    n_\beta = \frac{1000}{c^2} \frac{N}{8}, \quad a = c^{3/2} \frac8N, \quad \epsilon = \frac{a}{2 \gamma} ,

and training lasts until the slowest mode is learned, at most 40,000 epochs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from numerics import RMSPropSGLD, TrainingConfig
from theory import Dataset, checks
from validation.experiments.base import Settings

__all__ = ["refuse_unfit", "settings_for"]

_TOY = 15**0.5  # largest singular value of the toy model
_SMALLEST_UNIT = 1e-10  # of targets: chains are in float32, whose range ends at 1e38, and square gradients, unit^3
_BURN_IN = 50  # steps; each keeps 1 - eps gamma / 2 = 3/4 of the way from the checkpoint to the mean
_LONGEST = 40_000  # epochs


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
    checks.instance("dataset", dataset, Dataset, made_by="theory.Dataset(inputs, targets)")
    refuse_unfit(dataset)
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


def refuse_unfit(dataset: Dataset) -> None:
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
