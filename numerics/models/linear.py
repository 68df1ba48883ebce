r"""Two-layer linear networks W = W_2 W_1 and the weights they pass through while training.

The hidden layer has h units; W_1 is (h, P), W_2 is (O, h), and the loss of sample i is

.. math:: \ell_i(W) = \tfrac12 \| y_i - W_2 W_1 x_i \|^2 .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from numerics.models.checkpoints import ModuleCheckpoints, increasing_epochs, refuse_masked, saved_positions
from numerics.models.module import TorchModel
from theory import checks
from theory.hierarchy import Dataset

__all__ = [
    "Checkpoints",
    "LinearNetwork",
    "initial_weights",
    "linear_as_module",
    "per_sample_losses",
    "without_idle_units",
]


@dataclass(frozen=True, eq=False)
class Checkpoints:
    """Weights of one two-layer linear network at several epochs of its training.

    Parameters
    ----------
    epochs
        Epochs, shape (T,), strictly increasing.
    w1, w2
        Weights, shapes (T, h, P) and (T, O, h), float64 on any device.

    Raises
    ------
    ValueError
        If shapes do not fit together, an entry is not finite, or the epochs do not increase.

    Examples
    --------
    >>> run = Checkpoints(np.array([0, 100]), torch.zeros(2, 5, 3), torch.zeros(2, 4, 5))
    >>> run.maps.shape
    torch.Size([2, 4, 3])
    """

    epochs: np.ndarray
    w1: torch.Tensor
    w2: torch.Tensor

    def __post_init__(self) -> None:
        epochs = increasing_epochs(self.epochs)
        for name, given in (("w1", self.w1), ("w2", self.w2)):
            refuse_masked(name, given)
        w1, w2 = (torch.as_tensor(w).to(torch.float64) for w in (self.w1, self.w2))
        fits = w1.ndim == w2.ndim == 3 and len(w1) == len(w2) == len(epochs) and w1.shape[1] == w2.shape[2]
        if not fits:
            raise ValueError(
                f"w1 has shape {tuple(w1.shape)} and w2 has shape {tuple(w2.shape)}, but {len(epochs)} epochs need "
                "(epochs, hidden, inputs) and (epochs, outputs, hidden)."
            )
        for name, w in (("w1", w1), ("w2", w2)):
            finite = torch.isfinite(w).flatten(1).all(1)
            if not finite.all():
                raise ValueError(f"{name} is not finite at epoch {epochs[int((~finite).nonzero()[0])]:g}.")
        for key, value in (("epochs", epochs), ("w1", w1), ("w2", w2)):
            object.__setattr__(self, key, value)

    def __len__(self) -> int:
        """Return the number of checkpoints T."""
        return len(self.epochs)

    @property
    def maps(self) -> Float[torch.Tensor, "t o p"]:
        """End-to-end maps W_2 W_1, shape (T, O, P)."""
        return self.w2 @ self.w1

    @property
    def flat(self) -> Float[torch.Tensor, "t d"]:
        """All weights of each checkpoint, W_1 row by row, then W_2 row by row, shape (T, h P + O h)."""
        return torch.cat([self.w1.flatten(1), self.w2.flatten(1)], dim=1)

    def at(self, epochs: ArrayLike) -> Checkpoints:
        """Return the checkpoints at the given epochs, which must have been saved."""
        positions = saved_positions(self.epochs, epochs)
        return Checkpoints(self.epochs[positions], self.w1[positions], self.w2[positions])

    def check_fits(self, dataset: Dataset) -> None:
        """Refuse a data set whose numbers of inputs or outputs are not this network's."""
        have = (self.w1.shape[2], self.w2.shape[1])
        if have != (dataset.n_inputs, dataset.n_outputs):
            raise ValueError(
                f"the network maps {have[0]} inputs to {have[1]} outputs, but the data set has {dataset.n_inputs} "
                f"inputs and {dataset.n_outputs} outputs."
            )


def initial_weights(
    dataset: Dataset, *, hidden: int = 50, sigma: float = 1e-3, seed: int = 0
) -> tuple[Float[torch.Tensor, "h p"], Float[torch.Tensor, "o h"]]:
    """Draw W_1 (h, P) and W_2 (O, h) with independent N(0, sigma^2) entries (paper C.1), float64.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> w1, w2 = initial_weights(hierarchical_dataset(), seed=1)
    >>> tuple(w1.shape), tuple(w2.shape)
    ((50, 8), (15, 50))
    """
    checks.instance("dataset", dataset, Dataset, made_by="theory.Dataset(inputs, targets)")
    hidden = checks.integer("hidden", hidden, at_least=1)
    sigma = checks.nonnegative_number("sigma", sigma)
    generator = torch.Generator().manual_seed(checks.integer("seed", seed, at_least=0))
    w1 = torch.randn(hidden, dataset.n_inputs, dtype=torch.float64, generator=generator)
    w2 = torch.randn(dataset.n_outputs, hidden, dtype=torch.float64, generator=generator)
    return sigma * w1, sigma * w2


def per_sample_losses(maps: Float[torch.Tensor, "*batch o p"], dataset: Dataset) -> Float[torch.Tensor, "*batch n"]:
    """Return l_i = 1/2 |y_i - W x_i|^2 for end-to-end maps W of shape (..., O, P), shape (..., N).

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> per_sample_losses(torch.zeros(15, 8, dtype=torch.float64), hierarchical_dataset())[0].item()
    2.0
    """
    inputs = torch.tensor(dataset.inputs, dtype=maps.dtype, device=maps.device)
    targets = torch.tensor(dataset.targets, dtype=maps.dtype, device=maps.device)
    return 0.5 * (maps @ inputs.T - targets.T).square().sum(-2)


class LinearNetwork(torch.nn.Module):
    """The two-layer linear network W_2 W_1 as a module, parameters ``w1`` (h, P) and ``w2`` (O, h).

    Examples
    --------
    >>> LinearNetwork(torch.ones(2, 3), torch.ones(1, 2))(torch.ones(1, 3))
    tensor([[6.]], grad_fn=<MmBackward0>)
    """

    def __init__(self, w1: Float[torch.Tensor, "h p"], w2: Float[torch.Tensor, "o h"]) -> None:
        super().__init__()
        self.w1, self.w2 = torch.nn.Parameter(w1.clone()), torch.nn.Parameter(w2.clone())

    def forward(self, inputs: Float[torch.Tensor, "n p"]) -> Float[torch.Tensor, "n o"]:
        """Return W_2 W_1 x for every row x of `inputs`."""
        return inputs @ self.w1.mT @ self.w2.mT


def linear_as_module(checkpoints: Checkpoints) -> ModuleCheckpoints:
    """Return the checkpoints of a linear network as those of a module, to run the general engine on them.

    Examples
    --------
    >>> run = Checkpoints(np.array([0]), torch.ones(1, 5, 3), torch.ones(1, 4, 5))
    >>> linear_as_module(run).weights.shape
    torch.Size([1, 35])
    """
    checks.instance("checkpoints", checkpoints, Checkpoints, made_by="train(...).checkpoints")
    model = TorchModel(LinearNetwork(checkpoints.w1[0], checkpoints.w2[0]))
    return ModuleCheckpoints(checkpoints.epochs, model, checkpoints.flat)


def without_idle_units(
    w1: Float[torch.Tensor, "*runs h p"], w2: Float[torch.Tensor, "*runs o h"]
) -> tuple[Float[torch.Tensor, "*runs h k"], Float[torch.Tensor, "*runs k p"], Float[torch.Tensor, "*runs o k"]]:
    """Rotate the hidden layer so that only k = min(h, P + O) units carry weight; return the rotation and the weights.

    Gradients of either layer lie in the span of the columns of W_1 and the rows of W_2, so the other directions of the
    hidden layer never move: training in the k rotated units is the same computation with fewer numbers.
    """
    rotation, triangle = torch.linalg.qr(torch.cat([w1, w2.mT], dim=-1))
    inputs = w1.shape[-1]
    return rotation, triangle[..., :inputs].contiguous(), triangle[..., inputs:].mT.contiguous()
