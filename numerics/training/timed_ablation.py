r"""Influence of a sample while it is left out for a while only: retraining from every checkpoint of one run.

.. math:: \sum_{u = t}^{t + D - 1} \ell_j(u) - \ell_j^{(\beta_i = 0 \text{ from } t)}(u) .
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.models.module import TorchModel
from numerics.models.queries import Asked
from numerics.models.samples import Samples
from numerics.training.descent import Descent, State, TrainingConfig, copied, joined, repeated
from numerics.training.initial import warn_if_trained
from numerics.training.reweighting import changed_weights, described, labelled, source_names, weight_change
from numerics.training.train import descend, descent_of, recorded_settings, refuse_not_finite
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["timed_ablation"]


def timed_ablation(
    dataset: Dataset | Samples,
    config: TrainingConfig | None = None,
    *,
    window: int = 100,
    every: int = 200,
    epsilon: float = -1.0,
    sources: Sequence[str] | None = None,
    queries: Asked = None,
    model: TorchModel | None = None,
    initial: ArrayLike | torch.Tensor | None = None,
    seeds: Sequence[int] | None = None,
    w1: ArrayLike | torch.Tensor | None = None,
    w2: ArrayLike | torch.Tensor | None = None,
) -> xr.DataArray:
    """Change every source's weight during ``[t, t + window)`` only, for every start t, and sum the loss difference.

    Parameters
    ----------
    dataset, config, epsilon, sources, queries, model, initial, seeds, w1, w2
        As for `leave_one_out`.
    window
        Length D of the ablation in epochs.
    every
        A window starts every so many epochs, from epoch 0 to the last that fits. Under plain full-batch descent all
        windows advance in one batch, which holds the weights of (sources + 1) x windows x seeds runs; otherwise one
        window after the other, each from the state that the optimiser had.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query), with `seeds` (seed, epoch, source, query), where epoch is the start t: the sum
        over the D epochs of the window of the loss difference divided by `epsilon` (paper Fig. 11, integrated loss
        difference).

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> timed_ablation(hierarchical_dataset(), TrainingConfig(epochs=600), window=50).epoch.values
    array([  0, 200, 400])
    """
    epsilon = weight_change(epsilon)
    window = checks.integer("window", window, at_least=1)
    every = checks.integer("every", every, at_least=1)
    names = source_names(dataset, sources)
    config = config or TrainingConfig()
    if model is not None and initial is None and seeds is None:
        warn_if_trained(model, Samples.of(dataset))
    descent = descent_of(dataset, config, queries=queries, model=model, initial=initial, seeds=seeds, w1=w1, w2=w2)
    if window > config.epochs:
        raise ValueError(f"a window of {window} epochs does not fit into a run of {config.epochs} epochs.")
    starts = np.arange(0, config.epochs - window + 1, every)
    kept: list[State] = []
    unchanged = np.ones(len(dataset))
    descend(descent, [unchanged], ["baseline"], config, starts, keep=lambda state: kept.append(copied(state)))

    rows = [unchanged, *changed_weights(descent.samples, [[name] for name in names], epsilon)]
    summed = _summed(descent, kept, starts, rows, window)
    losses = summed.cpu().numpy().reshape(len(starts), -1, len(rows), len(descent.queries))
    refuse_not_finite(losses, ["baseline", *names], descent, config, starts + window)
    values = (losses[:, :, 1:] - losses[:, :, :1]) / epsilon
    attrs = {
        "estimator": "timed ablation",
        **described(descent.queries),
        "window": window,
        "epsilon": epsilon,
        **recorded_settings(config, model),
    }
    return labelled("integrated influence", values, starts, {"source": names}, descent.queries.names, seeds, attrs)


def _summed(
    descent: Descent,
    kept: Sequence[State],
    starts: Int[np.ndarray, " t"],
    rows: Sequence[Float[np.ndarray, " n"]],
    window: int,
) -> Float[torch.Tensor, "runs m"]:
    """Return the losses summed over the window from every start: all in one batch if every epoch has the same step."""
    if not descent.plain and len(kept) > 1:
        return torch.cat([_summed(descent, [state], starts[k : k + 1], rows, window) for k, state in enumerate(kept)])
    state = repeated(joined(kept), len(rows))
    move = descent.mover(state, np.tile(np.stack(rows), (len(state[0]) // len(rows), 1)))
    with descent.threads():
        summed = descent.losses(state).double()
        for epoch in range(int(starts[0]), int(starts[0]) + window - 1):
            for step in descent.steps(epoch):
                move(step)
            summed += descent.losses(state)
    return summed
