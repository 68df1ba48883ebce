r"""Influence of a sample while it is left out for a while only: retraining from every checkpoint of one run.

.. math:: \sum_{u = t}^{t + D - 1} \ell_j(u) - \ell_j^{(\beta_i = 0 \text{ from } t)}(u) .
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.curvature.memory import refuse_too_large
from numerics.models.given import named_samples
from numerics.models.module import TorchModel
from numerics.models.queries import Asked
from numerics.models.samples import Samples
from numerics.training.descent import Descent, State, TrainingConfig, check_training, copied, joined, repeated
from numerics.training.initial import warn_if_trained
from numerics.training.own_training import Fit
from numerics.training.reweighting import changed_weights, described, labelled, weight_change
from numerics.training.runs import Problem, Results
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
    fit: Fit | None = None,
    epochs: int | None = None,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    repeat: bool = True,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Change every source's weight during ``[t, t + window)`` only, for every start t, and sum the loss difference.

    Parameters
    ----------
    dataset, config, epsilon, sources, queries, model, initial, seeds, w1, w2, repeat, progress
        As for `leave_one_out`; sources are names.
    fit, epochs
        Your own training, as for `leave_one_out`, and the number of epochs it takes. It is given weights of shape
        (epochs, N), row e for the steps from epoch e to e + 1, and returns its checkpoints or losses at every epoch of
        the windows.
    executor, store
        As for `leave_one_out`: every source and window is then a run of its own, from the start.
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
    check_training(dataset, config, model)
    epsilon = weight_change(epsilon)
    window = checks.integer("window", window, at_least=1)
    every = checks.integer("every", every, at_least=1)
    names = named_samples(dataset, sources)
    if fit is not None or executor is not None or store is not None:
        problem = Problem(dataset, config, queries, model, initial, seeds, w1, w2, fit)
        starts = _starts(length := _length(problem, epochs), window, every)
        refuse_too_large(
            (1 + len(starts) * len(names)) * length * len(dataset),
            f"weights of {len(dataset)} samples at {length} epochs for {len(starts)} windows x {len(names)} sources",
            "name fewer sources, or lay windows farther apart by every=",
        )
        runs = _windows(dataset, names, starts, length, window, epsilon)
        if fit is None:  # every epoch of a window is summed, however far checkpoints are apart
            problem = replace(problem, config=replace(config or TrainingConfig(), checkpoint_every=1))
        found = problem.run(runs, executor=executor, store=store, repeat=repeat, progress=progress)
        return _of_runs(problem, found, names, starts, window, epsilon)
    if epochs is not None:
        raise ValueError("epochs is the length of fit; that of our own training is config.epochs.")
    config = config or TrainingConfig()
    if model is not None and initial is None and seeds is None:
        warn_if_trained(model, Samples.of(dataset))
    descent = descent_of(dataset, config, queries=queries, model=model, initial=initial, seeds=seeds, w1=w1, w2=w2)
    starts = _starts(config.epochs, window, every)
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
        "engine": descent.engine,
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


def _starts(epochs: int, window: int, every: int) -> Int[np.ndarray, " t"]:
    if window > epochs:
        raise ValueError(f"a window of {window} epochs does not fit into a run of {epochs} epochs.")
    return np.arange(0, epochs - window + 1, every)


def _length(problem: Problem, epochs: int | None) -> int:
    """Return how many epochs a run takes."""
    if problem.fit is None:
        if epochs is not None:
            raise ValueError("epochs is the length of fit; that of our own training is config.epochs.")
        return (problem.config or TrainingConfig()).epochs
    if epochs is None:
        raise ValueError("fit alone does not say how many epochs it takes, in which windows are laid; give epochs=.")
    return checks.integer("epochs", epochs, at_least=1)


def _windows(
    dataset: Dataset | Samples,
    names: Sequence[str],
    starts: Int[np.ndarray, " t"],
    length: int,
    window: int,
    epsilon: float,
) -> dict[str, Float[np.ndarray, "epochs n"]]:
    """Return the weights of a run without changes, then of one for every window and source."""
    runs = {"baseline": np.ones((length, len(dataset)))}
    for start in starts:
        for name, row in zip(names, changed_weights(dataset, [[name] for name in names], epsilon), strict=True):
            runs[f"{name} from epoch {start}"] = beta = np.ones((length, len(dataset)))
            beta[start : start + window] = row
    return runs


def _of_runs(
    problem: Problem, found: Results, names: Sequence[str], starts: Int[np.ndarray, " t"], window: int, epsilon: float
) -> xr.DataArray:
    """Sum what runs from the start give within their windows."""
    values = np.empty((len(starts), found.values.shape[1], len(names), len(found.names)))
    for k, start in enumerate(starts):
        inside = np.isin(found.epochs, np.arange(start, start + window))
        if inside.sum() != window:
            raise ValueError(
                f"fit returned losses at {inside.sum()} of the {window} epochs from epoch {start} on; the window needs "
                "each of them."
            )
        losses, first = found.values[inside].sum(0), 1 + k * len(names)
        values[k] = (losses[:, first : first + len(names)] - losses[:, :1]) / epsilon
    attrs: dict[str, object] = {"estimator": "timed ablation", **described(problem.asked), "window": window}
    attrs |= {"epsilon": epsilon, **found.attrs}
    return labelled("integrated influence", values, starts, {"source": names}, found.names, problem.seeds, attrs)
