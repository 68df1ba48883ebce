r"""Any torch module with a loss for every sample, seen as a function of one flat vector of weights.

Everything that this package does for two-layer linear networks it does for

.. math:: w \in R^d \;\mapsto\; (\ell_1(w), \dots, \ell_N(w)) , \qquad L(w; \beta) = \frac1N \sum_i \beta_i \ell_i(w) ,

through torch.func: batched over weights by vmap, differentiated without side effects. The weights of a module are its
parameters in the order of ``named_parameters()``, each flattened row by row.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch.func import functional_call

from numerics.networks import Checkpoints, increasing_epochs, saved_positions
from theory.hierarchy import Dataset

__all__ = ["LinearNetwork", "ModuleCheckpoints", "Samples", "TorchModel", "half_squared_error", "linear_as_module"]

SampleLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def half_squared_error(outputs: Float[torch.Tensor, "n *o"], targets: Float[torch.Tensor, "n *o"]) -> torch.Tensor:
    """Return 1/2 |y_i - f(x_i)|^2 of every sample, shape (n,).

    Examples
    --------
    >>> half_squared_error(torch.zeros(2, 3), torch.ones(2, 3))
    tensor([1.5000, 1.5000])
    """
    return 0.5 * (outputs - targets).square().flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of any kind: inputs and targets with the samples along the first axis.

    Parameters
    ----------
    inputs, targets
        Tensors, shapes (N, ...) and (N, ...), of any dtype; real ones are cast to the dtype of the weights where used.
    names
        N distinct names; "sample-0", "sample-1", ... if not given.

    Raises
    ------
    ValueError
        If there is no sample, lengths differ, a value is not finite, or a name stands twice.

    Examples
    --------
    >>> Samples(torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "b")).index("b")
    1
    >>> Samples(torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "a"))
    Traceback (most recent call last):
    ...
    ValueError: names must be distinct, but 'a' stands twice.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("inputs", "targets"):
            value = getattr(self, key)
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"{key} must be a torch tensor, but {type(value).__name__} was given.")
            if value.ndim == 0 or len(value) == 0:
                raise ValueError(f"{key} holds no sample: its shape is {tuple(value.shape)}.")
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise ValueError(f"{key} holds a value that is not finite; remove or impute it first.")
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"inputs hold {len(self.inputs)} samples, but targets {len(self.targets)}.")
        names = tuple(str(name) for name in self.names) or tuple(f"sample-{i}" for i in range(len(self.inputs)))
        if len(names) != len(self.inputs):
            raise ValueError(f"{len(names)} names were given for {len(self.inputs)} samples.")
        if twice := [name for k, name in enumerate(names) if name in names[:k]]:
            raise ValueError(f"names must be distinct, but {twice[0]!r} stands twice.")
        object.__setattr__(self, "names", names)

    @classmethod
    def of(cls, data: Dataset | Samples) -> Samples:
        """Return `data` as samples; the arrays of a `theory.Dataset` become float64 tensors."""
        if isinstance(data, Samples):
            return data
        return cls(torch.tensor(data.inputs), torch.tensor(data.targets), data.names)

    def __len__(self) -> int:
        """Return the number of samples N."""
        return len(self.inputs)

    def index(self, name: str) -> int:
        """Return the position of a sample, or say which names there are."""
        if name not in self.names:
            raise KeyError(f"no sample is called {name!r}; there are {', '.join(self.names)}.")
        return self.names.index(name)

    def like(self, weights: torch.Tensor) -> Samples:
        """Return the samples on the device of `weights`, real tensors in its dtype."""

        def cast(value: torch.Tensor) -> torch.Tensor:
            return value.to(weights) if value.is_floating_point() else value.to(weights.device)

        return Samples(cast(self.inputs), cast(self.targets), self.names)


@dataclass(frozen=True, eq=False)
class TorchModel:
    """A torch module and its loss for every sample.

    Parameters
    ----------
    module
        Copied, and used in evaluation mode: a loss must be a function of the weights, without dropout or running
        statistics. Buffers keep their values.
    loss
        ``loss(outputs, targets)``, shapes (n, ...) and (n, ...), returns n losses, each of its own sample alone;
        1/2 |y - f(x)|^2 if not given. For classes: ``functools.partial(torch.nn.functional.cross_entropy,
        reduction="none")``.

    Raises
    ------
    TypeError
        If `module` is not a torch module.
    ValueError
        If it has no parameters, or they are not all of one real dtype on one device.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(3, 2))
    >>> model.n_parameters
    8
    >>> model.losses(torch.zeros(8), Samples(torch.ones(4, 3), torch.ones(4, 2)))
    tensor([1., 1., 1., 1.])
    """

    module: torch.nn.Module
    loss: SampleLoss = half_squared_error

    def __post_init__(self) -> None:
        if not isinstance(self.module, torch.nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, but {type(self.module).__name__} was given.")
        kinds = {(p.dtype, p.device) for p in self.module.parameters()}
        if len(kinds) != 1 or not next(iter(kinds))[0].is_floating_point:
            listing = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds)) or "none"
            raise ValueError(
                f"the module's parameters must share one real dtype and one device, but there are {listing}."
            )
        object.__setattr__(self, "module", copy.deepcopy(self.module).eval().requires_grad_(False))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name, in the order in which they are flattened."""
        return {name: tuple(p.shape) for name, p in self.module.named_parameters()}

    @property
    def n_parameters(self) -> int:
        """Number d of parameters."""
        return sum(prod(shape) for shape in self.shapes.values())

    def initial(self) -> Float[torch.Tensor, " d"]:
        """Return the weights that the module holds, shape (d,)."""
        return torch.cat([p.flatten() for p in self.module.parameters()])

    def parameters(self, weights: Float[torch.Tensor, " d"]) -> dict[str, torch.Tensor]:
        """Return flat weights by parameter name; differentiable, and vmap goes through it."""
        sizes = [prod(shape) for shape in self.shapes.values()]
        pieces = weights.split(sizes)
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def outputs(self, weights: Float[torch.Tensor, " d"], inputs: torch.Tensor) -> torch.Tensor:
        """Return the module's outputs with the given weights."""
        return functional_call(self.module, self.parameters(weights), (inputs,))

    def losses(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> Float[torch.Tensor, " n"]:
        """Return the loss of every sample with the given weights, shape (n,).

        Raises
        ------
        ValueError
            If the loss does not return one number for every sample.
        """
        return self.sample_losses(weights, samples.inputs, samples.targets)

    def sample_losses(
        self, weights: Float[torch.Tensor, " d"], inputs: torch.Tensor, targets: torch.Tensor
    ) -> Float[torch.Tensor, " n"]:
        """Return the losses of samples given as tensors; see `losses`."""
        result = self.loss(self.outputs(weights, inputs), targets)
        if tuple(result.shape) != (len(inputs),):
            raise ValueError(
                f"the loss returned shape {tuple(result.shape)} for {len(inputs)} samples, but one number for each is "
                'needed; use reduction="none" and sum over the other axes.'
            )
        return result


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
    model = TorchModel(LinearNetwork(checkpoints.w1[0], checkpoints.w2[0]))
    return ModuleCheckpoints(checkpoints.epochs, model, checkpoints.flat)
