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

import torch
from jaxtyping import Float
from torch.func import functional_call

from numerics.models.samples import Samples

__all__ = ["TorchModel", "half_squared_error"]

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
