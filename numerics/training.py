r"""Full-batch gradient descent of two-layer linear networks, many runs at once, with a weight for every sample.

One epoch is one step on torch's mean squared error with sample weights beta,

.. math::
    W \leftarrow W - \eta \nabla \frac{1}{N O} \sum_i \beta_i \| y_i - W_2 W_1 x_i \|^2 ,

so the flow's time constant is tau = N O / (2 eta) epochs. Ablating a sample sets beta_i = 0 and keeps N, as the paper
does when it masks the sample's input and output (C.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from numerics.networks import Checkpoints, initial_weights, per_sample_losses
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["TrainingConfig", "TrainingDiverged", "TrainingRun", "train"]


class TrainingDiverged(ArithmeticError):
    """Gradient descent produced a loss that is not finite; the message names the run and the epoch."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of gradient descent; the defaults are the paper's (C.1).

    Parameters
    ----------
    hidden
        Hidden units h.
    sigma
        Standard deviation of the initial weights, >= 0.
    lr
        Learning rate on the mean squared error, > 0.
    epochs
        Number of epochs, >= 1.
    checkpoint_every
        Weights are kept every so many epochs, and at the last one.
    seed
        Seed of the initial weights.

    Examples
    --------
    >>> TrainingConfig(lr=0.0)
    Traceback (most recent call last):
    ...
    ValueError: lr must be a positive number, but 0.0 was given.
    """

    hidden: int = 50
    sigma: float = 1e-3
    lr: float = 5e-2
    epochs: int = 10_000
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        checks.integer("hidden", self.hidden, at_least=1)
        checks.nonnegative("sigma", self.sigma)
        checks.positive("lr", self.lr)
        checks.integer("epochs", self.epochs, at_least=1)
        checks.integer("checkpoint_every", self.checkpoint_every, at_least=1)
        checks.integer("seed", self.seed, at_least=0)

    @property
    def checkpoint_epochs(self) -> np.ndarray:
        """Epochs at which weights are kept, 0 and the last one included."""
        return np.unique(np.append(np.arange(0, self.epochs, self.checkpoint_every), self.epochs))


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """Weights and losses of one run at its checkpoints.

    Parameters
    ----------
    checkpoints
        Weights at the saved epochs.
    losses
        1/2 |y_j - W x_j|^2, dims (epoch, query).
    """

    checkpoints: Checkpoints
    losses: xr.DataArray


def train(
    dataset: Dataset,
    config: TrainingConfig | None = None,
    *,
    weights: ArrayLike | None = None,
    w1: ArrayLike | None = None,
    w2: ArrayLike | None = None,
    progress: Callable[[int], object] | None = None,
) -> TrainingRun:
    """Train one network by full-batch gradient descent and keep its checkpoints.

    Parameters
    ----------
    dataset
        Training set; inputs need not be whitened.
    config
        Settings; the paper's if not given.
    weights
        Sample weights beta, shape (N,), >= 0; all 1 if not given, 0 ablates a sample.
    w1, w2
        Initial weights, shapes (h, P) and (O, h); drawn from ``config.seed`` if not given.
    progress
        Called with the number of epochs done after each stretch between checkpoints.

    Raises
    ------
    TrainingDiverged
        If a loss is not finite at a checkpoint: the learning rate is too large.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=200))
    >>> run.losses.sizes
    Frozen({'epoch': 3, 'query': 8})
    """
    beta = np.ones(len(dataset)) if weights is None else checks.nonnegative("weights", weights)
    if beta.shape != (len(dataset),):
        raise ValueError(f"weights has shape {beta.shape}, but the data set has {len(dataset)} samples.")
    return train_batch(dataset, config or TrainingConfig(), beta[None], w1=w1, w2=w2, progress=progress)[0]


def train_batch(
    dataset: Dataset,
    config: TrainingConfig,
    weights: Float[np.ndarray, "runs n"],
    *,
    w1: ArrayLike | None = None,
    w2: ArrayLike | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[TrainingRun]:
    """Train one network for every row of sample weights, all from the same initial weights, in one batch."""
    start1, start2 = _start(dataset, config, w1, w2)
    rotation, start1, start2 = without_idle_units(start1, start2)
    runs = len(weights)
    first, second = start1.repeat(runs, 1, 1), start2.repeat(runs, 1, 1)
    epochs = config.checkpoint_epochs
    kept1, kept2 = [first.clone()], [second.clone()]
    with one_thread():
        step = gradient_step(dataset, torch.tensor(weights), config.lr, first, second)
        for done, stop in pairwise(epochs):
            for _ in range(int(stop - done)):
                step()
            kept1.append(first.clone())
            kept2.append(second.clone())
            if progress is not None:
                progress(int(stop))
    all1, all2 = rotation @ torch.stack(kept1, dim=1), torch.stack(kept2, dim=1) @ rotation.T
    losses = per_sample_losses(all2 @ all1, dataset)
    finite = torch.isfinite(losses).all(-1)
    if not finite.all():
        run, checkpoint = (int(i) for i in (~finite).nonzero()[0])
        raise TrainingDiverged(
            f"the loss of run {run} is not finite at epoch {epochs[checkpoint]} with lr={config.lr}; use a smaller "
            "learning rate."
        )
    attrs = {"long_name": "loss", **asdict(config)}
    return [
        TrainingRun(
            Checkpoints(epochs, all1[run], all2[run]),
            labelled_array(losses[run].numpy(), {"epoch": epochs, "query": dataset.names}, "loss", attrs),
        )
        for run in range(runs)
    ]


def _start(
    dataset: Dataset, config: TrainingConfig, w1: ArrayLike | None, w2: ArrayLike | None
) -> tuple[Float[torch.Tensor, "h p"], Float[torch.Tensor, "o h"]]:
    if (w1 is None) != (w2 is None):
        raise ValueError("give both w1 and w2 or neither; one layer alone does not start a network.")
    if w1 is None or w2 is None:
        return initial_weights(dataset, hidden=config.hidden, sigma=config.sigma, seed=config.seed)
    first = checks.matrix("w1", w1, (None, dataset.n_inputs))
    second = checks.matrix("w2", w2, (dataset.n_outputs, len(first)))
    return torch.tensor(first), torch.tensor(second)


def without_idle_units(
    w1: Float[torch.Tensor, "h p"], w2: Float[torch.Tensor, "o h"]
) -> tuple[Float[torch.Tensor, "h k"], Float[torch.Tensor, "k p"], Float[torch.Tensor, "o k"]]:
    """Rotate the hidden layer so that only k = min(h, P + O) units carry weight; return the rotation and the weights.

    Gradients of either layer lie in the span of the columns of W_1 and the rows of W_2, so the other directions of the
    hidden layer never move: training in the k rotated units is the same computation with fewer numbers.
    """
    rotation, triangle = torch.linalg.qr(torch.cat([w1, w2.T], dim=1))
    return rotation, triangle[:, : w1.shape[1]].contiguous(), triangle[:, w1.shape[1] :].T.contiguous()


def gradient_step(
    dataset: Dataset, beta: torch.Tensor, lr: float, w1: torch.Tensor, w2: torch.Tensor
) -> Callable[[], None]:
    """Return a function that advances `w1` (runs, h, P) and `w2` (runs, O, h) in place by one epoch.

    `beta` (runs, N) holds the sample weights of each run; a single row serves all runs.
    """
    x, y = torch.tensor(dataset.inputs), torch.tensor(dataset.targets)
    rate = 2 * lr / y.numel()
    # (Syx - W Sxx) of the weighted data, scaled by the rate once and for all.
    syx = rate * torch.einsum("rn,no,np->rop", beta, y, x)
    sxx = -rate * torch.einsum("rn,np,nq->rpq", beta, x, x)
    diagonal = torch.diagonal(sxx, dim1=1, dim2=2).clone()
    whitened_columns = bool((sxx == torch.diag_embed(diagonal)).all())
    product, error = torch.empty_like(syx), torch.empty_like(syx)
    gradient1 = torch.empty_like(w1)

    def step() -> None:
        torch.bmm(w2, w1, out=product)
        if whitened_columns:
            torch.addcmul(syx, product, diagonal[:, None], out=error)
        else:
            torch.baddbmm(syx, product, sxx, out=error)
        torch.bmm(w2.mT, error, out=gradient1)
        w2.baddbmm_(error, w1.mT)
        w1.add_(gradient1)

    return step


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch and BLAS on one thread: these matrices are small, and a second thread costs more than it does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)
