r"""Training of two-layer linear networks and of torch modules, with a weight for every sample.

One epoch of full batches of a linear network is one step on torch's mean squared error with sample weights beta,

.. math::
    W \leftarrow W - \eta \nabla \frac{1}{N O} \sum_i \beta_i \| y_i - W_2 W_1 x_i \|^2 ,

so the flow's time constant is tau = N O / (2 eta) epochs. A module descends on :math:`\frac1N \sum_i \beta_i \ell_i`.
Ablating a sample sets beta_i = 0 and keeps N, as the paper does when it masks the sample's input and output (C.3).
Weights may change from epoch to epoch. With mini-batches B the mean is over B, and an epoch is a pass over all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Generic, TypeVar, overload

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.errors import TrainingDiverged
from numerics.models.checkpoints import ModuleCheckpoints, refuse_masked
from numerics.models.linear import Checkpoints
from numerics.models.module import TorchModel
from numerics.models.queries import Asked, Queries
from numerics.models.samples import Samples
from numerics.training.descent import Descent, State, TrainingConfig, check_training, copied, joined, repeated
from numerics.training.linear_descent import LinearDescent
from numerics.training.module_descent import ModuleDescent
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["TrainingRun", "train"]

AnyCheckpoints = TypeVar("AnyCheckpoints", bound=Checkpoints | ModuleCheckpoints, covariant=True)


@dataclass(frozen=True, eq=False)
class TrainingRun(Generic[AnyCheckpoints]):
    """Weights and losses of one run at its checkpoints.

    Parameters
    ----------
    checkpoints
        Weights at the saved epochs.
    losses
        Loss of every query, dims (epoch, query); 1/2 |y_j - W x_j|^2 for a linear network.
    """

    checkpoints: AnyCheckpoints
    losses: xr.DataArray


@overload
def train(
    dataset: Dataset,
    config: TrainingConfig | None = ...,
    *,
    weights: ArrayLike | None = ...,
    queries: Asked = ...,
    w1: ArrayLike | torch.Tensor | None = ...,
    w2: ArrayLike | torch.Tensor | None = ...,
    progress: Callable[[int], object] | None = ...,
) -> TrainingRun[Checkpoints]: ...


@overload
def train(
    dataset: Dataset | Samples,
    config: TrainingConfig | None = ...,
    *,
    model: TorchModel,
    weights: ArrayLike | None = ...,
    queries: Asked = ...,
    initial: ArrayLike | torch.Tensor | None = ...,
    progress: Callable[[int], object] | None = ...,
) -> TrainingRun[ModuleCheckpoints]: ...


def train(
    dataset: Dataset | Samples,
    config: TrainingConfig | None = None,
    *,
    weights: ArrayLike | None = None,
    queries: Asked = None,
    model: TorchModel | None = None,
    initial: ArrayLike | torch.Tensor | None = None,
    w1: ArrayLike | torch.Tensor | None = None,
    w2: ArrayLike | torch.Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> TrainingRun[Checkpoints | ModuleCheckpoints]:
    """Train one network, by full-batch gradient descent if nothing else is asked for, and keep its checkpoints.

    Parameters
    ----------
    dataset
        Training set; inputs need not be whitened. A linear network needs a `theory.Dataset`.
    config
        Settings; the paper's if not given.
    weights
        Sample weights beta, >= 0: shape (N,), or (epochs, N) with row e for the step from epoch e to e + 1. All 1 if
        not given; 0 ablates a sample.
    queries
        Samples whose losses are recorded, a `Query` for another measure of them, or functions of the parameters by
        name; the training set if not given.
    model
        A torch module and its loss. A two-layer linear network is trained if not given.
    initial
        Initial weights of the module, flat, shape (d,); those it holds if not given.
    w1, w2
        Initial weights of the linear network, shapes (h, P) and (O, h); drawn from ``config.seed`` if not given.
    progress
        Called with the number of epochs done after each stretch between checkpoints.

    Returns
    -------
    TrainingRun
        Its checkpoints are `Checkpoints` of a linear network, `ModuleCheckpoints` of a module.

    Raises
    ------
    TrainingDiverged
        If a loss is not finite at a checkpoint: the learning rate is too large.
    ValueError
        If weights are negative or do not fit, samples do not fit the network, or a loss is not finite at the start.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=200))
    >>> run.losses.sizes
    Frozen({'epoch': 3, 'query': 8})

    Without the first sample for the first half:

    >>> samples = Samples(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    >>> loss = lambda outputs, targets: torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    >>> seen = np.ones((100, 4))
    >>> seen[:50, 0] = 0.0
    >>> model = TorchModel(torch.nn.Linear(4, 2), loss)
    >>> train(samples, TrainingConfig(epochs=100), model=model, weights=seen).checkpoints.weights.shape
    torch.Size([2, 10])
    """
    check_training(dataset, config, model)
    config = config or TrainingConfig()
    descent = descent_of(dataset, config, queries=queries, model=model, initial=initial, w1=w1, w2=w2)
    beta = np.ones(len(dataset)) if weights is None else sample_weights("weights", weights, len(dataset), config)
    epochs = config.checkpoint_epochs
    kept: list[State] = []

    def keep(state: State) -> None:
        kept.append(copied(descent.weights(state)))

    losses = descend(descent, [beta], ["0"], config, epochs, keep=keep, progress=progress)
    coords = {"epoch": epochs, "query": descent.queries.names}
    measured = descent.queries.measured
    attrs = {"long_name": measured, **recorded_settings(config, model)}
    name = "loss" if measured == "loss" else "value"
    return TrainingRun(descent.checkpoints(epochs, joined(kept)), labelled_array(losses[:, 0, 0], coords, name, attrs))


def descent_of(
    dataset: Dataset | Samples,
    config: TrainingConfig,
    *,
    queries: Asked = None,
    model: TorchModel | None = None,
    initial: ArrayLike | torch.Tensor | None = None,
    seeds: Sequence[int] | None = None,
    w1: ArrayLike | torch.Tensor | None = None,
    w2: ArrayLike | torch.Tensor | None = None,
) -> LinearDescent | ModuleDescent:
    """Return the descent of a linear network or a module from one initial state, or one for each of several seeds."""
    asked = Queries.of(queries, dataset)
    if model is not None:
        if w1 is not None or w2 is not None:
            raise ValueError("w1 and w2 are a linear network's; give a module's weights as one vector, initial=.")
        return ModuleDescent(model, Samples.of(dataset), asked, config, initial=initial, seeds=seeds)
    if not isinstance(dataset, Dataset):
        raise TypeError(
            "a linear network needs a theory.Dataset, but Samples were given; give model= to train on them."
        )
    if initial is not None:
        raise ValueError("initial is a module's; give a linear network's weights as w1= and w2=.")
    return LinearDescent(dataset, asked, config, seeds=seeds, w1=w1, w2=w2)


def descend(
    descent: Descent,
    weights: Sequence[Float[np.ndarray, "..."]],
    names: Sequence[str],
    config: TrainingConfig,
    epochs: Int[np.ndarray, " t"],
    *,
    keep: Callable[[State], None] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Float[np.ndarray, "t starts runs m"]:
    """Train with every set of sample weights from every initial state, all in one batch, and return the losses.

    A set has shape (N,) or (epochs, N), and a name for errors. `epochs` begin with 0. `keep` is called with the state
    at each of them, in which the runs of one initial state stand side by side.
    """
    starts = len(descent.start[0])
    state = repeated(descent.start, len(weights))
    changes = {0}.union(*(_changes(w) for w in weights))
    losses = np.empty((len(epochs), starts, len(weights), len(descent.queries)))

    def record(position: int) -> None:
        losses[position] = descent.losses(state).double().cpu().numpy().reshape(losses.shape[1:])
        here = slice(position, position + 1)
        refuse_not_finite(losses[here], names, descent, config, epochs[here])
        if keep is not None:
            keep(state)

    saved = {int(epoch): position for position, epoch in enumerate(epochs)}
    stops = sorted(saved.keys() | {change for change in changes if change < epochs[-1]})
    with descent.threads():
        record(0)
        for done, stop in pairwise(stops):
            if done in changes:
                now = np.stack([w if w.ndim == 1 else w[done] for w in weights])
                move = descent.mover(state, np.tile(now, (starts, 1)))
            for epoch in range(done, stop):
                for step in descent.steps(epoch):
                    move(step)
            if stop in saved:
                record(saved[stop])
                if progress is not None:
                    progress(stop)
    return losses


def _changes(weights: Float[np.ndarray, "*epochs n"]) -> list[int]:
    """Return the epochs from which on other weights hold."""
    return [] if weights.ndim == 1 else [int(e) + 1 for e in np.flatnonzero((np.diff(weights, axis=0) != 0).any(1))]


def sample_weights(
    name: str, value: ArrayLike, n_samples: int, config: TrainingConfig
) -> Float[np.ndarray, "*epochs n"]:
    """Return checked sample weights, shape (N,) or (epochs, N)."""
    refuse_masked(name, value)
    beta = checks.nonnegative(name, value)
    if beta.shape not in ((n_samples,), (config.epochs, n_samples)):
        raise ValueError(
            f"{name} has shape {beta.shape}, but the data set has {n_samples} samples: give ({n_samples},), or "
            f"({config.epochs}, {n_samples}) to change them from epoch to epoch."
        )
    return beta


def recorded_settings(config: TrainingConfig, model: TorchModel | None) -> dict[str, object]:
    """Return the settings that a run depends on, to be stored with its results."""
    settings = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "max_memory"}
    default = TrainingConfig()
    for name in ("batch_size", "optimiser", "schedule"):
        value = settings.pop(name)
        if value != getattr(default, name):
            settings[name] = value if isinstance(value, int) else repr(value)
    if model is None:
        return settings
    network: dict[str, object] = {"model": type(model.module).__name__, "n_parameters": model.n_parameters}
    if model.surrogate_gradients:
        network["gradients"] = "surrogate"
    own = ["lr", "epochs", "checkpoint_every", "batch_size", "optimiser", "schedule"]
    own += ["seed"] * (config.batch_size is not None)
    return network | {key: settings[key] for key in own if key in settings}


def refuse_not_finite(
    losses: Float[np.ndarray, "t starts runs m"],
    names: Sequence[str],
    descent: Descent,
    config: TrainingConfig,
    epochs: Int[np.ndarray, " t"],
) -> None:
    """Refuse losses that are not finite: at the start for the weights' sake, later for the learning rate's."""
    bad = np.argwhere(~np.isfinite(losses))
    if not len(bad):
        return
    at, _, run, query = (int(k) for k in bad[0])
    if epochs[at] == 0:
        raise ValueError(f"the {_what(descent.queries, query)} is not finite at the initial weights; check the two.")
    what = _what(descent.queries, query) if descent.queries.measured != "loss" else "loss"
    raise TrainingDiverged(
        f"the {what} of run {names[run]} is not finite at epoch {epochs[at]} with lr={config.lr}; use a smaller "
        "learning rate."
    )


def _what(queries: Queries, position: int) -> str:
    """Return what is asked at a position, in words."""
    for query in queries.about:
        if position < len(query):
            return f"{query.measured} of sample {query.names[position]!r}"
        position -= len(query)
    return f"query {list(queries.functions)[position]!r}"
