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

__all__ = ["refuse_unwhitened", "settings_for"]

_TOY = 15**0.5  # largest singular value of the toy model
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
        If inputs are not whitened, or Y^T X is zero.

    Examples
    --------
    >>> from theory import hierarchical_dataset
    >>> settings_for(hierarchical_dataset()).training.epochs
    10000
    """
    refuse_unwhitened(dataset)
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
    return replace(Settings(training=training, sampler=sampler, seed=seed), every=2 * (epochs // 100))


def refuse_unwhitened(dataset: Dataset) -> None:
    """Raise a ValueError that says how to whiten, if inputs are not whitened."""
    try:
        checks.whitened(dataset.inputs, needed_by="cross_check")
    except ValueError as error:
        raise ValueError(
            f"{error} validation.whiten(dataset) does it, and validation.save_dataset keeps the result for --data."
        ) from None
