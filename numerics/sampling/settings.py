"""How chains are run, as every sampling measure is told it: checked once, and handed on as one thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from numerics.devices import usable_device
from theory import checks

__all__ = ["ChainSettings"]


@dataclass(frozen=True, eq=False)
class ChainSettings:
    """The keyword arguments that `sample`, `bayesian_influence`, `estimate_learning_coefficient` and `sweep` share.

    Parameters
    ----------
    chains, draws, burn_in, thin, weights, batch_size, seed, dtype, device
        As for `sample`.

    Raises
    ------
    ValueError
        If a number is too small, a weight is negative, or the device cannot be used.
    TypeError
        If a number is not whole, or `dtype` is neither float32 nor float64.

    Examples
    --------
    >>> ChainSettings(chains=0)
    Traceback (most recent call last):
    ...
    ValueError: chains must be at least 1, but 0 was given.
    """

    chains: int = 4
    draws: int = 1000
    burn_in: int = 0
    thin: int = 1
    weights: ArrayLike | None = None
    batch_size: int | None = None
    seed: int = 0
    dtype: torch.dtype = torch.float32
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        for name, least in (("chains", 1), ("draws", 1), ("burn_in", 0), ("thin", 1), ("seed", 0)):
            checks.integer(name, getattr(self, name), at_least=least)
        if self.batch_size is not None:
            checks.integer("batch_size", self.batch_size, at_least=1)
        if self.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype must be torch.float32 or torch.float64, but {self.dtype} was given.")
        usable_device(self.device)

    def sample_weights(self, n: int) -> Float[np.ndarray, " n"]:
        """Return beta for n samples, shape (n,), refusing weights of another number."""
        beta = np.ones(n) if self.weights is None else checks.nonnegative("weights", self.weights)
        if beta.shape != (n,):
            raise ValueError(f"weights has shape {beta.shape}, but the data set has {n} samples.")
        return beta
