r"""Influence measured by retraining with changed sample weights: one or a group left out, for good or for a while.

.. math:: \Delta_{ij}(t) = \frac{\ell_j^{(\beta_i = 1 + \epsilon)}(t) - \ell_j(t)}{\epsilon},
    \qquad \epsilon = -1: \; \ell_j^{D}(t) - \ell_j^{D \setminus i}(t) .

Negative = sample i helps query j, as everywhere (paper C.3, C.5). All runs advance in one batch, those of several seeds
included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.models.module import TorchModel
from numerics.models.queries import Asked, Queries
from numerics.models.samples import Samples
from numerics.training.descent import Descent, State, TrainingConfig, copied, joined, repeated
from numerics.training.train import descend, descent_of, recorded_settings, refuse_not_finite, sample_weights
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["leave_group_out", "leave_one_out", "retrain", "timed_ablation"]


def leave_one_out(
    dataset: Dataset | Samples,
    config: TrainingConfig | None = None,
    *,
    epsilon: float = -1.0,
    sources: Sequence[str] | None = None,
    queries: Asked = None,
    model: TorchModel | None = None,
    initial: ArrayLike | torch.Tensor | None = None,
    seeds: Sequence[int] | None = None,
    w1: ArrayLike | torch.Tensor | None = None,
    w2: ArrayLike | torch.Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Retrain with every source's weight changed by `epsilon`, all in one batch from the same initial weights.

    The batch holds the weights of (sources + 1) x seeds runs; of a large module, ask for a few sources at a time.

    Parameters
    ----------
    dataset
        Training set.
    config
        Settings of gradient descent; the paper's if not given.
    epsilon
        Change of the sample weight, >= -1 and not 0. -1 leaves the sample out.
    sources
        Names of the samples to reweight; all of them if not given.
    queries
        Samples whose loss is asked for; the training set if not given.
    model, initial, w1, w2, progress
        As for `train`.
    seeds
        Instead of one run for each source, one for each source and seed. A linear network's initial weights are drawn
        from the seed; a module's too, by its layers' ``reset_parameters``, unless `initial` gives them, shape
        (seeds, d).

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query), with `seeds` (seed, epoch, source, query): the change of the query's loss divided
        by `epsilon`, so that small `epsilon` approach the derivative and -1 gives the paper's loss difference.

    Raises
    ------
    TrainingDiverged
        If a loss is not finite at a checkpoint; the message names the source left out.
    ValueError, KeyError
        If there is no source, or one is named twice or unknown; otherwise as for `train`.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> difference = leave_one_out(hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500))
    >>> bool(difference.sel(source="dog", query="cat")[-1] < 0)
    True
    """
    groups = {name: [name] for name in source_names(dataset, sources)}
    descent, config = _begin(dataset, config, queries, model, initial, seeds, w1, w2)
    return _reweighted(descent, config, groups, epsilon, seeds, model, progress)


def leave_group_out(
    dataset: Dataset | Samples,
    groups: Mapping[str, Sequence[str]],
    config: TrainingConfig | None = None,
    *,
    epsilon: float = -1.0,
    queries: Asked = None,
    model: TorchModel | None = None,
    initial: ArrayLike | torch.Tensor | None = None,
    seeds: Sequence[int] | None = None,
    w1: ArrayLike | torch.Tensor | None = None,
    w2: ArrayLike | torch.Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Retrain with the weights of every whole group of samples changed by `epsilon`.

    Parameters
    ----------
    dataset, config, epsilon, queries, model, initial, seeds, w1, w2, progress
        As for `leave_one_out`.
    groups
        Names of the samples of each group; groups may overlap.

    Returns
    -------
    xarray.DataArray
        As for `leave_one_out`, a source for each group. The response to a group is not the sum of those to its members.

    Raises
    ------
    ValueError
        If there is no group, or a group is empty or repeats a sample; otherwise as for `leave_one_out`.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> kinds = {"mammals": ["dog", "cat"], "birds": ["sparrow", "penguin"]}
    >>> leave_group_out(hierarchical_dataset(), kinds, TrainingConfig(epochs=200)).sizes
    Frozen({'epoch': 3, 'source': 2, 'query': 8})
    """
    if not groups:
        raise ValueError("groups is empty; name at least one group of samples.")
    members = {name: source_names(dataset, group, f"group {name!r}") for name, group in groups.items()}
    descent, config = _begin(dataset, config, queries, model, initial, seeds, w1, w2)
    return _reweighted(descent, config, members, epsilon, seeds, model, progress)


def retrain(
    dataset: Dataset | Samples,
    weights: Mapping[str, ArrayLike],
    config: TrainingConfig | None = None,
    *,
    queries: Asked = None,
    model: TorchModel | None = None,
    initial: ArrayLike | torch.Tensor | None = None,
    seeds: Sequence[int] | None = None,
    w1: ArrayLike | torch.Tensor | None = None,
    w2: ArrayLike | torch.Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Train once for every given set of sample weights, all in one batch, and return the losses.

    Parameters
    ----------
    dataset, config, queries, model, initial, seeds, w1, w2, progress
        As for `leave_one_out`.
    weights
        By the name of the run: sample weights beta, >= 0, shape (N,), or (epochs, N) with row e for the step from
        epoch e to e + 1.

    Returns
    -------
    xarray.DataArray
        Losses, dims (epoch, run, query), with `seeds` (seed, epoch, run, query).

    Examples
    --------
    Every sample seen half of the time, in turns:

    >>> from theory.hierarchy import hierarchical_dataset
    >>> turns = np.indices((200, 8)).sum(0) % 2
    >>> runs = {"always": np.ones(8), "in turns": 2.0 * turns}
    >>> losses = retrain(hierarchical_dataset(), runs, TrainingConfig(epochs=200))
    >>> bool(abs(losses.sel(run="always") - losses.sel(run="in turns")).max() < 1e-6)
    True
    """
    if not weights:
        raise ValueError("weights is empty; name at least one run and give its sample weights.")
    descent, config = _begin(dataset, config, queries, model, initial, seeds, w1, w2)
    rows = [sample_weights(f"weights[{name!r}]", beta, len(dataset), config) for name, beta in weights.items()]
    names = list(weights)
    losses = descend(descent, rows, names, config, config.checkpoint_epochs, progress=progress)
    measured = descent.queries.measured
    attrs = {"long_name": measured, **recorded_settings(config, model)}
    return _labelled(
        "loss" if measured == "loss" else "value",
        losses,
        config.checkpoint_epochs,
        {"run": names},
        descent,
        seeds,
        attrs,
    )


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
        A window starts every so many epochs, from epoch 0 to the last that fits. All windows advance in one batch: it
        holds the weights of (sources + 1) x windows x seeds runs.

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
    epsilon = _weight_change(epsilon)
    window = checks.integer("window", window, at_least=1)
    every = checks.integer("every", every, at_least=1)
    names = source_names(dataset, sources)
    descent, config = _begin(dataset, config, queries, model, initial, seeds, w1, w2)
    if window > config.epochs:
        raise ValueError(f"a window of {window} epochs does not fit into a run of {config.epochs} epochs.")
    starts = np.arange(0, config.epochs - window + 1, every)
    kept: list[State] = []
    unchanged = np.ones(len(dataset))
    descend(descent, [unchanged], ["baseline"], config, starts, keep=lambda state: kept.append(copied(state)))

    rows = [unchanged, *_changed_weights(descent.samples, [[name] for name in names], epsilon)]
    summed = _summed(descent, kept, starts, rows, window)
    losses = summed.cpu().numpy().reshape(len(starts), -1, len(rows), len(descent.queries))
    refuse_not_finite(losses, ["baseline", *names], descent, config, starts + window)
    values = (losses[:, :, 1:] - losses[:, :, :1]) / epsilon
    attrs = {"estimator": "timed ablation", "window": window, "epsilon": epsilon, **recorded_settings(config, model)}
    return _labelled("integrated influence", values, starts, {"source": names}, descent, seeds, attrs)


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


def described(queries: Queries) -> dict[str, object]:
    """Return the name and units of an influence: only on losses is negative known to help."""
    if queries.measured == "loss":
        return {"long_name": "influence (negative = helps)", "units": "loss per sample weight"}
    return {"long_name": f"influence on {queries.measured}", "units": f"{queries.measured} per sample weight"}


def source_names(dataset: Dataset | Samples, sources: Sequence[str] | None, label: str = "sources") -> tuple[str, ...]:
    """Return the names of samples asked for, all if not given, refusing none, unknown ones and repetitions."""
    names = dataset.names if sources is None else tuple(sources)
    if not names:
        raise ValueError(f"{label} is empty; name at least one sample.")
    if twice := [name for k, name in enumerate(names) if name in names[:k]]:
        raise ValueError(f"{label} names {twice[0]!r} twice; name every sample once.")
    for name in names:
        dataset.index(name)
    return names


def _begin(
    dataset: Dataset | Samples,
    config: TrainingConfig | None,
    queries: Asked,
    model: TorchModel | None,
    initial: ArrayLike | torch.Tensor | None,
    seeds: Sequence[int] | None,
    w1: ArrayLike | torch.Tensor | None,
    w2: ArrayLike | torch.Tensor | None,
) -> tuple[Descent, TrainingConfig]:
    config = config or TrainingConfig()
    return descent_of(dataset, config, queries=queries, model=model, initial=initial, seeds=seeds, w1=w1, w2=w2), config


def _reweighted(
    descent: Descent,
    config: TrainingConfig,
    groups: Mapping[str, Sequence[str]],
    epsilon: float,
    seeds: Sequence[int] | None,
    model: TorchModel | None,
    progress: Callable[[int], object] | None,
) -> xr.DataArray:
    epsilon = _weight_change(epsilon)
    rows = [np.ones(len(descent.samples)), *_changed_weights(descent.samples, list(groups.values()), epsilon)]
    losses = descend(descent, rows, ["baseline", *groups], config, config.checkpoint_epochs, progress=progress)
    values = (losses[:, :, 1:] - losses[:, :, :1]) / epsilon
    attrs = {
        "estimator": "retraining",
        **described(descent.queries),
        "epsilon": epsilon,
        **recorded_settings(config, model),
    }
    return _labelled("influence", values, config.checkpoint_epochs, {"source": list(groups)}, descent, seeds, attrs)


def _changed_weights(
    samples: Samples, groups: Sequence[Sequence[str]], epsilon: float
) -> list[Float[np.ndarray, " n"]]:
    changed = [np.ones(len(samples)) for _ in groups]
    for weights, group in zip(changed, groups, strict=True):
        weights[[samples.index(name) for name in group]] += epsilon
    return changed


def _labelled(
    name: str,
    values: Float[np.ndarray, "t seeds runs m"],
    epochs: np.ndarray,
    runs: dict[str, Sequence[str]],
    descent: Descent,
    seeds: Sequence[int] | None,
    attrs: dict[str, object],
) -> xr.DataArray:
    coords = {"epoch": epochs, **runs, "query": descent.queries.names}
    if seeds is None:
        return labelled_array(values[:, 0], coords, name, attrs)
    attrs = {key: value for key, value in attrs.items() if key != "seed"}
    return labelled_array(np.swapaxes(values, 0, 1), {"seed": list(seeds), **coords}, name, attrs)


def _weight_change(epsilon: float) -> float:
    epsilon = float(checks.array("epsilon", epsilon, ndim=0))
    if epsilon < -1 or epsilon == 0:
        raise ValueError(f"epsilon must be at least -1 (left out) and not 0, but {epsilon} was given.")
    return epsilon
