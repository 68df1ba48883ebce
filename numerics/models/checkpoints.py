"""Weights of one torch model at several epochs of its training, and which epochs those are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["ModuleCheckpoints", "increasing_epochs", "saved_positions"]


@dataclass(frozen=True, eq=False)
class ModuleCheckpoints:
    """Weights of one torch model at several epochs of its training.

    Parameters
    ----------
    epochs
        Epochs, shape (T,), strictly increasing.
    model
        The module and its loss.
    weights
        Flat weights, shape (T, d), float32 or float64 on any device.

    Raises
    ------
    ValueError
        If shapes do not fit together, an entry is not finite, or the epochs do not increase.
    TypeError
        If the weights are of another dtype.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(3, 2))
    >>> len(ModuleCheckpoints(np.array([0, 100]), model, torch.zeros(2, 8)))
    2
    """

    epochs: np.ndarray
    model: TorchModel
    weights: torch.Tensor

    def __post_init__(self) -> None:
        epochs = increasing_epochs(self.epochs)
        refuse_masked("weights", self.weights)
        weights = torch.as_tensor(self.weights).detach()
        if weights.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"weights must be float32 or float64, but are {weights.dtype}.")
        wanted = (len(epochs), self.model.n_parameters)
        if tuple(weights.shape) != wanted:
            raise ValueError(
                f"weights have shape {tuple(weights.shape)}, but (epochs, parameters) = {wanted} is needed."
            )
        finite = torch.isfinite(weights).all(1)
        if not finite.all():
            raise ValueError(f"the weights are not finite at epoch {epochs[int((~finite).nonzero()[0])]:g}.")
        object.__setattr__(self, "epochs", epochs)
        object.__setattr__(self, "weights", weights)

    def __len__(self) -> int:
        """Return the number of checkpoints T."""
        return len(self.epochs)

    @property
    def flat(self) -> Float[torch.Tensor, "t d"]:
        """All weights of each checkpoint, shape (T, d)."""
        return self.weights

    def at(self, epochs: ArrayLike) -> ModuleCheckpoints:
        """Return the checkpoints at the given epochs, which must have been saved."""
        positions = saved_positions(self.epochs, epochs)
        return ModuleCheckpoints(self.epochs[positions], self.model, self.weights[positions])

    def check_fits(self, data: Dataset | Samples) -> None:
        """Refuse samples that the model cannot read, in a sentence, by evaluating their losses once."""
        samples = Samples.of(data).like(self.weights)
        try:
            losses = self.model.losses(self.weights[0], samples)
        except (RuntimeError, IndexError) as error:  # torch's words for shapes, dtypes and classes that do not fit
            raise ValueError(
                f"the module cannot evaluate inputs of shape {tuple(samples.inputs.shape)} with targets of shape "
                f"{tuple(samples.targets.shape)}: {error}"
            ) from error
        if not torch.isfinite(losses).all():
            bad = samples.names[int((~torch.isfinite(losses)).nonzero()[0])]
            raise ValueError(f"the loss of sample {bad!r} is not finite at epoch {self.epochs[0]:g}.")


def increasing_epochs(epochs: ArrayLike) -> Float[np.ndarray, " t"]:
    """Return the epochs of checkpoints, refusing those that do not strictly increase."""
    refuse_masked("epochs", epochs)
    result = checks.nonnegative("epochs", np.atleast_1d(np.asarray(epochs)))
    if result.ndim != 1 or np.any(np.diff(result) <= 0):
        raise ValueError("epochs must be a strictly increasing list of times.")
    return result


def saved_positions(saved: Float[np.ndarray, " t"], epochs: ArrayLike) -> Int[np.ndarray, " k"]:
    """Return where the given epochs stand among the saved ones, refusing an epoch that was not saved."""
    refuse_masked("epochs", epochs)
    wanted = np.atleast_1d(np.asarray(epochs, dtype=np.float64))
    positions = np.minimum(np.searchsorted(saved, wanted), len(saved) - 1)
    if not np.array_equal(saved[positions], wanted):
        missing = wanted[saved[positions] != wanted][0]
        raise ValueError(f"epoch {missing:g} was not saved; the saved epochs are {saved}.")
    return positions


def refuse_masked(name: str, value: object) -> None:
    """Refuse a numpy array with masked entries, whose values torch and numpy would use all the same.

    Examples
    --------
    >>> refuse_masked("w1", np.ma.masked_equal([1.0, -999.0], -999.0))
    Traceback (most recent call last):
    ...
    ValueError: w1 has 1 masked value, and what is under a mask is not data; fill or remove it first.
    """
    if np.ma.is_masked(value):
        count = int(np.ma.count_masked(np.ma.asarray(value)))
        values, them = ("value", "it") if count == 1 else ("values", "them")
        raise ValueError(
            f"{name} has {count} masked {values}, and what is under a mask is not data; fill or remove {them} first."
        )
