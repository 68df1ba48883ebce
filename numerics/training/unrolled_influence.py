r"""Influence as the derivative of a whole training run: how the losses along descent depend on sample weights.

.. math:: I_{ij}(t) = \frac{d \ell_j(w_t)}{d \beta_i}, \qquad
    I_{ij}(u, t) = \frac{d \ell_j(w_t)}{d \beta_i(u)} , \qquad I_{ij}(t) = \sum_{u < t} I_{ij}(u, t) ,

where beta_i(u) is the weight of sample i in the steps from epoch u to u + 1 alone: the exact derivative of what
`retrain` computes, and the counterpart in simulation of `theory.exposure_kernel`. Negative = sample i helps query j.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isqrt
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.curvature.influence_request import plain_labels, with_parts
from numerics.models.given import named_samples
from numerics.models.module import TorchModel
from numerics.models.queries import Asked
from numerics.models.samples import Parts, Samples
from numerics.training.descent import Descent, State, Step, TrainingConfig, check_training, copied
from numerics.training.initial import warn_if_trained
from numerics.training.linear_descent import LinearDescent
from numerics.training.linearised_descent import LinearisedDescent, LinearisedLinear, LinearisedModule
from numerics.training.module_descent import ModuleDescent
from numerics.training.part_weights import refuse_without_model
from numerics.training.reweighting import described
from numerics.training.train import descent_of, recorded_settings, refuse_not_finite
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["unrolled_influence"]

Progress = Callable[[int], object] | None


def unrolled_influence(
    dataset: Dataset | Samples,
    config: TrainingConfig | None = None,
    *,
    exposure_every: int | None = None,
    sources: Sequence[str] | Parts | None = None,
    queries: Asked = None,
    model: TorchModel | None = None,
    initial: ArrayLike | torch.Tensor | None = None,
    w1: ArrayLike | torch.Tensor | None = None,
    w2: ArrayLike | torch.Tensor | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """Differentiate gradient descent with respect to the weight of every source, at every checkpoint.

    Small changes of the weights are carried forward through the run, one for each source (and stretch of exposure), or
    covectors backward, one for each query and checkpoint: whichever are fewer.

    Parameters
    ----------
    dataset
        Training set; all its weights are 1 where the derivative is taken.
    config
        Settings of training; the paper's if not given. The influence is returned at its checkpoints. Mini-batches,
        schedules, `SGD` with momentum and weight decay, `Adam` and `AdamW` are differentiated, and any `Optimiser` that
        says its ``jacobian``. Adam divides by the size of gradients, and where these nearly vanish its steps bend
        sharply: its derivative is exact, but predicts retraining only for changes of weight far below 1.
    exposure_every
        Also resolve *when* a source is seen, in stretches of so many epochs; 1 resolves every epoch.
    sources
        Names of the samples whose weights change; all of them if not given. Or `Parts` of samples of `dataset`, each
        with its share 1 / k_i of its sample's loss.
    queries
        What is asked, as for `train`: samples whose loss is meant, a `Query`, or functions of the parameters by name;
        the training set if not given.
    model, initial, w1, w2
        As for `train`.
    progress
        Called with the number of epochs differentiated so far, from time to time.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query), in units of loss per sample weight. With `exposure_every` dims (exposure, epoch,
        source, query): the part due to the epochs u of the stretch that begins at ``exposure``, of which the parts of
        all stretches sum to the whole; 0 for those later than the epoch. The array itself takes 8 bytes x stretches x
        checkpoints x sources x queries: 0.5 GB for every epoch of the paper's run at all its checkpoints. Beyond it
        the work holds the smaller of stretches x sources and checkpoints x queries vectors of the size of the weights
        and the optimiser's memory, and 2 sqrt(steps) copies of these.

    Raises
    ------
    TrainingDiverged
        If a loss is not finite at a checkpoint.
    NotDifferentiable
        If the optimiser or the module has no derivative that is needed; the message names it.
    WrongDerivative
        If a second derivative by torch contradicts finite differences near the initial weights.
    ValueError, KeyError
        As for `leave_one_out`.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> config = TrainingConfig(epochs=1500, checkpoint_every=500)
    >>> influence = unrolled_influence(hierarchical_dataset(), config)
    >>> bool(influence.sel(source="dog", query="cat")[-1] < 0)
    True
    >>> parts = unrolled_influence(hierarchical_dataset(), config, exposure_every=250)
    >>> parts.sizes
    Frozen({'exposure': 6, 'epoch': 4, 'source': 8, 'query': 8})
    >>> bool(abs(parts.sum("exposure") - influence).max() < 1e-12)
    True
    """
    check_training(dataset, config, model)
    config = config or TrainingConfig()
    if model is not None and initial is None:
        warn_if_trained(model, Samples.of(dataset))
    stretch = config.epochs if exposure_every is None else checks.integer("exposure_every", exposure_every, at_least=1)
    refuse_without_model(model, None, sources)
    names: Sequence[Any] = sources.labels if isinstance(sources, Parts) else named_samples(dataset, sources)
    descent = differentiable(descent_of(dataset, config, queries=queries, model=model, initial=initial, w1=w1, w2=w2))
    if isinstance(sources, Parts):
        assert isinstance(descent, ModuleDescent)
        near: LinearisedDescent = LinearisedModule.of_parts(descent, dataset, sources)
    else:
        near = neighbourhood(descent, [dataset.index(name) for name in names])
    exposures, epochs = np.arange(0, config.epochs, stretch), config.checkpoint_epochs
    carried, pulled = len(exposures) * len(names), (len(epochs) - 1) * len(descent.queries)
    sweep = forward_sweep if carried <= pulled else backward_sweep
    with descent.threads():
        values = sweep(descent, near, config, exposures, len(names), progress)
    attrs: dict[str, object] = {"estimator": "unrolled", **described(descent.queries)}
    attrs |= {"engine": descent.engine, **recorded_settings(config, model)}
    labels = {"source": list(names)}
    coords = {"epoch": epochs, **plain_labels(labels), "query": descent.queries.names}
    if exposure_every is None:
        return with_parts(labelled_array(values[0], coords, "influence", attrs), labels)
    attrs["exposure_every"] = stretch
    array = labelled_array(values, {"exposure": exposures, **coords}, "exposure influence", attrs)
    return with_parts(array, labels)


def forward_sweep(
    descent: Descent,
    near: LinearisedDescent,
    config: TrainingConfig,
    exposures: Int[np.ndarray, " e"],
    n_sources: int,
    progress: Progress = None,
) -> Float[np.ndarray, "e t n m"]:
    """Return the influence of every stretch of exposure by carrying changes of the weights along with the run."""
    epochs = config.checkpoint_epochs
    values = np.zeros((len(exposures), len(epochs), n_sources, len(descent.queries)))
    state = copied(descent.start)
    move = descent.mover(state, np.ones((1, len(descent.samples))))
    saved = {int(epoch): position for position, epoch in enumerate(epochs)}
    begins = {int(exposure) for exposure in exposures}
    vectors = near.zeros(0)
    for done, stop in pairwise(sorted(saved.keys() | begins)):
        if done in begins:
            vectors = near.joined(vectors, near.zeros(n_sources))
        for epoch in range(done, stop):
            for step in descent.steps(epoch):
                vectors = near.forward(state, vectors, step)
                move(step)
        if stop in saved:
            _refuse_not_finite(descent, state, stop)
            change = near.products(vectors, near.query_gradients(state)).double().cpu().numpy()
            begun = len(change) // n_sources
            values[:begun, saved[stop]] = change.reshape(begun, n_sources, -1)
            if progress is not None:
                progress(stop)
    return values


def backward_sweep(
    descent: Descent,
    near: LinearisedDescent,
    config: TrainingConfig,
    exposures: Int[np.ndarray, " e"],
    n_sources: int,
    progress: Progress = None,
) -> Float[np.ndarray, "e t n m"]:
    """Return the influence of every stretch of exposure by pulling the queries' gradients back through the run.

    The run is kept at about sqrt(steps) places and repeated from one to the next.
    """
    epochs, n_queries = config.checkpoint_epochs, len(descent.queries)
    values = np.zeros((len(exposures), len(epochs), n_sources, n_queries))
    per_epoch = descent.n_steps // config.epochs
    saved = {int(epoch) * per_epoch: position for position, epoch in enumerate(epochs)}
    begins = {int(exposure) * per_epoch: position for position, exposure in enumerate(exposures)}
    marks = np.union1d(list(saved), np.arange(0, descent.n_steps, isqrt(descent.n_steps)))
    kept = _kept(descent, config, marks)
    move, moved = _mover(descent)
    vectors, positions = near.zeros(0), []
    total = vectors.new_zeros(0, n_sources)
    for k in range(len(marks) - 1, 0, -1):
        start, stop = int(marks[k - 1]), int(marks[k])
        if stop in saved:
            vectors = near.joined(vectors, near.query_gradients(kept[k]))
            total = torch.cat([total, total.new_zeros(n_queries, n_sources)])
            positions.append(saved[stop])
        steps = _steps(descent, per_epoch, start, stop)
        _overwrite(moved, kept[k - 1])
        passed = [kept[k - 1]]
        for step in steps[:-1]:
            move(step)
            passed.append(copied(moved))
        for count in range(stop - 1, start - 1, -1):
            vectors, effect = near.backward(passed[count - start], vectors, steps[count - start])
            total += effect
            if count in begins:
                parts = total.double().cpu().numpy().reshape(-1, n_queries, n_sources)
                values[begins[count], positions] = np.swapaxes(parts, 1, 2)
                total.zero_()
        if progress is not None:
            progress(config.epochs - start // per_epoch)
    return values


def _kept(descent: Descent, config: TrainingConfig, marks: Int[np.ndarray, " k"]) -> list[State]:
    """Return the states of the run after so many steps, refusing losses that are not finite at checkpoints."""
    move, state = _mover(descent)
    wanted, saved = {int(mark) for mark in marks}, {int(epoch) for epoch in config.checkpoint_epochs}
    kept: list[State] = []
    for epoch in range(config.epochs):
        if epoch in saved:
            _refuse_not_finite(descent, state, epoch)
        for number, step in enumerate(descent.steps(epoch)):
            if epoch * (descent.n_steps // config.epochs) + number in wanted:
                kept.append(copied(state))
            move(step)
    _refuse_not_finite(descent, state, config.epochs)
    return [*kept, copied(state)]


def _mover(descent: Descent) -> tuple[Callable[[Step], None], State]:
    """Return what moves a run with all sample weights 1, and its state."""
    state = copied(descent.start)
    return descent.mover(state, np.ones((1, len(descent.samples)))), state


def _overwrite(state: State, value: State) -> None:
    for held, given in zip(state, value, strict=True):
        held.copy_(given)


def _steps(descent: Descent, per_epoch: int, start: int, stop: int) -> list[Step]:
    """Return the steps from one number to another."""
    found: list[Step] = []
    for epoch in range(start // per_epoch, -(-stop // per_epoch)):
        first = epoch * per_epoch
        found += descent.steps(epoch)[max(0, start - first) : stop - first]
    return found


def _refuse_not_finite(descent: Descent, state: State, epoch: int) -> None:
    losses = descent.losses(state).double().cpu().numpy()
    refuse_not_finite(losses[None, None], ["0"], descent, descent.config, np.array([epoch]))


def neighbourhood(descent: LinearDescent | ModuleDescent, sources: Sequence[int]) -> LinearisedDescent:
    """Return what carries small changes along the runs of `descent`, exposed to the weights of `sources`."""
    if isinstance(descent, LinearDescent):
        return LinearisedLinear(descent, sources)
    return LinearisedModule(descent, sources)


def differentiable(descent: LinearDescent | ModuleDescent) -> LinearDescent | ModuleDescent:
    """Return the descent, that of a linear network as a module's where only the module's is differentiated."""
    if isinstance(descent, ModuleDescent) or descent.fast:
        return descent
    initial = torch.cat([layer[0].flatten() for layer in descent.all_hidden(*descent.weights(descent.start))])
    scale = 2 / descent.samples.targets.shape[1]  # the mean squared error is 2 / O times the mean of the losses
    return ModuleDescent(descent.model, descent.samples, descent.queries, descent.config, initial=initial, scale=scale)
