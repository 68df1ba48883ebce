r"""Influence measured by retraining with changed sample weights: one or a group left out, for good or for a while.

.. math:: \Delta_{ij}(t) = \frac{\ell_j^{(\beta_i = 1 + \epsilon)}(t) - \ell_j(t)}{\epsilon},
    \qquad \epsilon = -1: \; \ell_j^{D}(t) - \ell_j^{D \setminus i}(t) .

Negative = sample i helps query j, as everywhere (paper C.3, C.5). Runs of our own training advance in one batch, those
of several seeds included, or each by itself on an executor; those of a user's training function each by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int
from numpy.typing import ArrayLike

from numerics.models.given import named_samples
from numerics.models.module import TorchModel
from numerics.models.queries import Asked
from numerics.models.samples import Parts, Samples
from numerics.training.descent import TrainingConfig, check_training
from numerics.training.own_training import Fit
from numerics.training.part_weights import PartWeights, part_positions, refuse_without_model
from numerics.training.reweighting import changed_weights, described, labelled, weight_change
from numerics.training.runs import Problem
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["leave_group_out", "leave_one_out", "retrain"]


def leave_one_out(
    dataset: Dataset | Samples,
    config: TrainingConfig | None = None,
    *,
    epsilon: float = -1.0,
    sources: Sequence[str] | Parts | None = None,
    queries: Asked = None,
    model: TorchModel | None = None,
    initial: ArrayLike | torch.Tensor | None = None,
    seeds: Sequence[int] | None = None,
    w1: ArrayLike | torch.Tensor | None = None,
    w2: ArrayLike | torch.Tensor | None = None,
    fit: Fit | None = None,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    repeat: bool = True,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Retrain with every source's weight changed by `epsilon`, from the same initial weights and in the same order.

    All runs advance in one batch, which holds the weights of (sources + 1) x seeds runs; of a large module, ask for a
    few sources at a time, or give an executor or a store. A sample that is left out keeps its place in the order of
    mini-batches with weight 0, so that two runs differ by that sample alone.

    Parameters
    ----------
    dataset
        Training set.
    config
        Settings of training; the paper's if not given.
    epsilon
        Change of the sample weight, >= -1 and not 0. -1 leaves the sample out.
    sources
        Names of the samples to reweight; all of them if not given. Or `Parts` of samples of `dataset`, each reweighted
        within the mean of its sample's k_i parts; every run is then made by itself.
    queries
        What is asked, as for `train`: samples whose loss is recorded, a `Query`, or functions of the parameters by
        name; the training set if not given.
    model, initial, w1, w2
        As for `train`. A module holds initial weights, not those it was trained to.
    seeds
        Instead of one run for each source, one for each source and seed. A linear network's initial weights are drawn
        from the seed; a module's too, by its layers' ``reset_parameters``, unless `initial` gives them, shape
        (seeds, d). The order of mini-batches is drawn from it too.
    fit
        Your own training instead of `config` and what belongs to it: ``fit(sample_weights, seed)`` trains from the
        start, with every sample's loss times its weight (an array of shape (N,)) and every random number from the seed,
        and returns the checkpoints (`ModuleCheckpoints`, whose queries are evaluated here), or the losses by epoch:
        ``{epoch: array of losses}`` or an xarray.DataArray with dims (epoch, query). The seed is 0 without `seeds`.
    executor
        Any `concurrent.futures.Executor`, on which every run is a task. If not given, runs of `fit` are made here, one
        after the other.
    store
        Folder in which every finished run is kept, whole or not at all: a call that was interrupted, or asks for more
        sources, makes only what is missing. A store of another `fit`, model, data set or setting is refused; what a
        `fit` reads from elsewhere is not seen.
    repeat
        Whether the first run of `fit` is made twice: if the two differ (``repeat_difference``) by as much as a
        hundredth of what is measured, a warning says so.
    progress
        Called with the number of epochs done, or of runs where each is made by itself.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query), with `seeds` (seed, epoch, source, query): the change of the query's loss divided
        by `epsilon`, so that small `epsilon` approach the derivative and -1 gives the paper's loss difference.

    Raises
    ------
    TrainingDiverged
        If a loss is not finite at a checkpoint; the message names the run.
    StoreMismatch
        If the store is another call's.
    ValueError, TypeError, KeyError
        If there is no source, or one is named twice or unknown, or `fit` returns what it should not; otherwise as for
        `train`.

    Warns
    -----
    TrainedWeightsWarning
        If the weights that a module holds look trained, and neither `initial` nor `seeds` say otherwise.
    FitWarning
        If runs of `fit` are not repeatable, or do not depend on the sample weights.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> difference = leave_one_out(hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500))
    >>> bool(difference.sel(source="dog", query="cat")[-1] < 0)
    True

    With a training loop of one's own, here for the mean of numbers, and a store:

    >>> import tempfile
    >>> numbers = Samples(torch.tensor([[1.0], [2.0], [6.0]]), torch.zeros(3, 1), ("a", "b", "c"))
    >>> def fit(sample_weights, seed):
    ...     mean = np.average(numbers.inputs[:, 0], weights=sample_weights)
    ...     return {1: (numbers.inputs[:, 0].numpy() - mean) ** 2}
    >>> leave_one_out(numbers, fit=fit, store=tempfile.mkdtemp()).sel(source="c").values
    array([[ 3.75,  0.75, -11.25]])
    """
    check_training(dataset, config, model)
    refuse_without_model(model, fit, sources)
    if isinstance(sources, Parts):
        parts = PartWeights.of(dataset, sources)
        problem = Problem(dataset, config, queries, model, initial, seeds, parts=parts)
        positions = part_positions(dataset, sources)
        return _parts_reweighted(problem, sources, positions, epsilon, executor, store, progress)
    groups = {name: [name] for name in named_samples(dataset, sources)}
    problem = Problem(dataset, config, queries, model, initial, seeds, w1, w2, fit)
    return _reweighted(problem, groups, epsilon, executor, store, repeat, progress)


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
    fit: Fit | None = None,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    repeat: bool = True,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Retrain with the weights of every whole group of samples changed by `epsilon`.

    Parameters
    ----------
    dataset, config, epsilon, queries, model, initial, seeds, w1, w2, fit, executor, store, repeat, progress
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
    check_training(dataset, config, model)
    checks.instance("groups", groups, Mapping, made_by="{name: [names of samples]}")
    if not groups:
        raise ValueError("groups is empty; name at least one group of samples.")
    members = {name: named_samples(dataset, group, f"group {name!r}") for name, group in groups.items()}
    problem = Problem(dataset, config, queries, model, initial, seeds, w1, w2, fit)
    return _reweighted(problem, members, epsilon, executor, store, repeat, progress)


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
    fit: Fit | None = None,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    repeat: bool = True,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Train once for every given set of sample weights, from the same initial weights, and return the losses.

    Parameters
    ----------
    dataset, config, queries, model, initial, seeds, w1, w2, fit, executor, store, repeat, progress
        As for `leave_one_out`.
    weights
        By the name of the run: sample weights beta, >= 0, shape (N,), or (epochs, N) with row e for the steps from
        epoch e to e + 1. A `fit` gets them as they are.

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
    checks.instance("weights", weights, Mapping, made_by="{name: sample weights}")
    if not weights:
        raise ValueError("weights is empty; name at least one run and give its sample weights.")
    problem = Problem(dataset, config, queries, model, initial, seeds, w1, w2, fit)
    runs = {name: problem.checked(f"weights[{name!r}]", beta) for name, beta in weights.items()}
    found = problem.run(runs, executor=executor, store=store, repeat=repeat, progress=progress)
    measured = problem.asked.measured
    attrs = {"long_name": measured, **found.attrs}
    name = "loss" if measured == "loss" else "value"
    return labelled(name, found.values, found.epochs, {"run": list(runs)}, found.names, problem.seeds, attrs)


def _reweighted(
    problem: Problem,
    groups: Mapping[str, Sequence[str]],
    epsilon: float,
    executor: Executor | None,
    store: str | os.PathLike[str] | None,
    repeat: bool,
    progress: Callable[[int], object] | None,
) -> xr.DataArray:
    epsilon = weight_change(epsilon)
    changed = changed_weights(problem.dataset, list(groups.values()), epsilon)
    baseline = "baseline" if "baseline" not in groups else "all weights 1"
    runs = {baseline: np.ones(len(problem.dataset)), **dict(zip(groups, changed, strict=True))}
    found = problem.run(runs, executor=executor, store=store, repeat=repeat, progress=progress)
    values = (found.values[:, :, 1:] - found.values[:, :, :1]) / epsilon
    attrs = {"estimator": "retraining", **described(problem.asked), "epsilon": epsilon, **found.attrs}
    return labelled("influence", values, found.epochs, {"source": list(groups)}, found.names, problem.seeds, attrs)


def _parts_reweighted(
    problem: Problem,
    sources: Parts,
    positions: Int[np.ndarray, " n"],
    epsilon: float,
    executor: Executor | None,
    store: str | os.PathLike[str] | None,
    progress: Callable[[int], object] | None,
) -> xr.DataArray:
    epsilon = weight_change(epsilon)
    assert problem.parts is not None
    base = np.ones(len(problem.parts))
    runs = {"baseline": base}
    for (name, part), position in zip(sources.labels, positions, strict=True):
        runs[f"{name}, part {part}"] = base + epsilon * (np.arange(len(base)) == position)
    found = problem.run(runs, executor=executor, store=store, progress=progress)
    values = (found.values[:, :, 1:] - found.values[:, :, :1]) / epsilon
    attrs = {"estimator": "retraining", **described(problem.asked), "epsilon": epsilon, **found.attrs}
    labels = {"source": list(sources.labels)}
    return labelled("influence", values, found.epochs, labels, found.names, problem.seeds, attrs)
