r"""Rules that turn gradients into steps, each with its derivative: torch's SGD with momentum, Adam and AdamW.

A rule is a function of every weight w, its gradient g and what it remembers of them, one weight at a time; so its
Jacobian is a number for every output, input and weight. With learning rate :math:`\eta`, at step t = 0, 1, ...:

.. math::
    \text{SGD:} \quad & g \leftarrow g + \lambda w, \quad b \leftarrow \mu b + g, \quad
        w \leftarrow w - \eta b \quad (\text{Nesterov: } w - \eta (g + \mu b)) \\
    \text{Adam:} \quad & g \leftarrow g + \lambda w \quad (\text{AdamW: } w \leftarrow (1 - \eta \lambda) w), \quad
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad s \leftarrow \beta_2 s + (1 - \beta_2) g^2, \\
    & w \leftarrow w - \eta \frac{m / (1 - \beta_1^{t + 1})}{\sqrt{s / (1 - \beta_2^{t + 1})} + \epsilon} .
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from numerics.errors import NotDifferentiable
from theory import checks

__all__ = ["SGD", "Adam", "AdamW", "Optimiser"]

# Derivatives of w, then of every memory, after a step (rows) by w, every memory and the gradient before it (columns).
Jacobian: TypeAlias = Sequence[Sequence[float | torch.Tensor]]


@dataclass(frozen=True)
class Optimiser(ABC):
    """A rule that turns gradients into steps; subclass it for one of your own.

    Attributes
    ----------
    memories
        How many numbers it remembers of every weight; all start as 0.
    linear
        Whether a step is linear in weights, memory and gradient, with the same numbers for every weight: then it
        commutes with rotations of the weights, and its derivative needs no gradient. Adam is not.
    """

    @property
    @abstractmethod
    def memories(self) -> int:
        """How many numbers are remembered of every weight."""

    @property
    def linear(self) -> bool:
        """Whether a step is linear, with the same numbers for every weight."""
        return False

    @abstractmethod
    def step(
        self,
        weights: torch.Tensor,
        gradient: torch.Tensor,
        memory: Sequence[torch.Tensor],
        rate: float,
        count: int,
    ) -> None:
        """Move the weights and memories in place by step number `count` (from 0) at learning rate `rate`."""

    def jacobian(
        self,
        weights: torch.Tensor,
        gradient: torch.Tensor,
        memory: Sequence[torch.Tensor],
        rate: float,
        count: int,
    ) -> Jacobian:
        """Return the derivatives of the step that `step` would take.

        Raises
        ------
        NotDifferentiable
            If the rule has none.
        """
        raise NotDifferentiable(
            f"{type(self).__name__} has no derivative, so a run with it cannot be unrolled; give it a method jacobian, "
            "or use SGD, Adam or AdamW, or retraining (leave_one_out) in place of the derivative."
        )


@dataclass(frozen=True)
class SGD(Optimiser):
    """Gradient descent, with momentum and weight decay if asked for, as torch.optim.SGD.

    Parameters
    ----------
    momentum
        Share mu of the last direction that is kept, in [0, 1).
    nesterov
        Whether the gradient is looked up ahead (Nesterov's momentum).
    weight_decay
        lambda >= 0: L gains lambda / 2 |w|^2.

    Examples
    --------
    >>> SGD(momentum=0.9)
    SGD(momentum=0.9, nesterov=False, weight_decay=0.0)
    >>> SGD(nesterov=True)
    Traceback (most recent call last):
    ...
    ValueError: nesterov needs a momentum above 0.
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _share("momentum", self.momentum)
        checks.nonnegative_number("weight_decay", self.weight_decay)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0.")

    @property
    def memories(self) -> int:
        """One with momentum, none without."""
        return int(self.momentum > 0)

    @property
    def linear(self) -> bool:
        """It is."""
        return True

    def step(
        self,
        weights: torch.Tensor,
        gradient: torch.Tensor,
        memory: Sequence[torch.Tensor],
        rate: float,
        count: int,
    ) -> None:
        """Move the weights and the direction in place."""
        if self.weight_decay:
            gradient = gradient.add(weights, alpha=self.weight_decay)
        if self.memories:
            (direction,) = memory
            direction.mul_(self.momentum).add_(gradient)
            gradient = gradient.add(direction, alpha=self.momentum) if self.nesterov else direction
        weights.sub_(gradient, alpha=rate)

    def jacobian(
        self,
        weights: torch.Tensor,
        gradient: torch.Tensor,
        memory: Sequence[torch.Tensor],
        rate: float,
        count: int,
    ) -> Jacobian:
        """Return the derivatives of the step: the same numbers for every weight."""
        if not self.memories:
            return [[1 - rate * self.weight_decay, -rate]]
        by_gradient = -rate * (1 + self.momentum) if self.nesterov else -rate
        by_direction = -rate * self.momentum ** (2 if self.nesterov else 1)
        return [
            [1 + by_gradient * self.weight_decay, by_direction, by_gradient],
            [self.weight_decay, self.momentum, 1.0],
        ]


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980), as torch.optim.Adam.

    Parameters
    ----------
    betas
        Shares of the running means of the gradient and of its square that are kept, each in [0, 1).
    eps
        Added to the root of the mean square, > 0.
    weight_decay
        lambda >= 0: L gains lambda / 2 |w|^2, whose gradient is divided by the root too. `AdamW` is usually meant.

    Examples
    --------
    >>> Adam(betas=(0.9, 1.0))
    Traceback (most recent call last):
    ...
    ValueError: betas[1] must be at least 0 and less than 1, but 1.0 was given.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, but {len(self.betas)} were given.")
        for k, beta in enumerate(self.betas):
            _share(f"betas[{k}]", beta)
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        checks.positive("eps", self.eps)
        checks.nonnegative_number("weight_decay", self.weight_decay)

    @property
    def memories(self) -> int:
        """Two: the running means of the gradient and of its square."""
        return 2

    @property
    def _decoupled(self) -> bool:
        return False

    def step(
        self,
        weights: torch.Tensor,
        gradient: torch.Tensor,
        memory: Sequence[torch.Tensor],
        rate: float,
        count: int,
    ) -> None:
        """Move the weights and the two means in place."""
        mean, square = memory
        gradient = self._decayed(weights, gradient)
        mean.lerp_(gradient, 1 - self.betas[0])
        square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        if self._decoupled:
            weights.mul_(1 - rate * self.weight_decay)
        share, root = self._corrections(count)
        weights.addcdiv_(mean, (square.sqrt() / root).add_(self.eps), value=-rate / share)

    def jacobian(
        self,
        weights: torch.Tensor,
        gradient: torch.Tensor,
        memory: Sequence[torch.Tensor],
        rate: float,
        count: int,
    ) -> Jacobian:
        """Return the derivatives of the step, for every weight its own.

        Where a gradient has been 0 so far, so have the means, and the step is its share of the gradient over eps.
        """
        first, second = self.betas
        gradient = self._decayed(weights, gradient)
        mean = torch.lerp(memory[0], gradient, 1 - first)
        square = (second * memory[1]).addcmul_(gradient, gradient, value=1 - second)
        share, root = self._corrections(count)
        scale = square.sqrt() / root
        by_mean = -rate / share / (scale + self.eps)
        by_square = rate / share * mean / (scale + self.eps).square() / (2 * root**2 * scale)
        by_square = torch.where(scale > 0, by_square, torch.zeros_like(by_square))
        of_square = 2 * (1 - second) * gradient
        by_gradient = by_mean * (1 - first) + by_square * of_square
        decay = 0.0 if self._decoupled else self.weight_decay
        shrunk = 1 - rate * self.weight_decay if self._decoupled else 1.0
        return [
            [shrunk + decay * by_gradient, by_mean * first, by_square * second, by_gradient],
            [(1 - first) * decay, first, 0.0, 1 - first],
            [of_square * decay, 0.0, second, of_square],
        ]

    def _decayed(self, weights: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        if self._decoupled or not self.weight_decay:
            return gradient
        return gradient.add(weights, alpha=self.weight_decay)

    def _corrections(self, count: int) -> tuple[float, float]:
        """Return what the mean and the root of the mean square have collected by now of what they would in the end."""
        first, second = self.betas
        return 1 - first ** (count + 1), (1 - second ** (count + 1)) ** 0.5


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), as torch.optim.AdamW.

    Parameters
    ----------
    betas, eps
        As for `Adam`.
    weight_decay
        lambda >= 0: weights shrink by the factor 1 - lr lambda in every step; torch's default.

    Examples
    --------
    >>> AdamW(weight_decay=0.1)
    AdamW(betas=(0.9, 0.999), eps=1e-08, weight_decay=0.1)
    """

    weight_decay: float = 1e-2

    @property
    def _decoupled(self) -> bool:
        return True


def _share(name: str, value: float) -> None:
    number = float(checks.array(name, value, ndim=0))
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, but {number} was given.")
