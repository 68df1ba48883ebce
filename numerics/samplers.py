r"""Stochastic gradient Langevin samplers of the local posterior (paper Algorithm 1; Welling and Teh 2011).

The local posterior around trained weights w* is

.. math:: p(w) \propto \exp\bigl(-n_\beta L(w) - \tfrac{\gamma}{2} \| w - w^* \|^2\bigr) ,

L the mean loss. A sampler is a frozen set of hyper-parameters that knows two things: its update, in place on one flat
buffer that holds every chain, and the step sizes at which that update is stable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float

from theory import checks

__all__ = ["SGLD", "RMSPropSGLD", "Sampler", "SamplerDiverged", "StepSizeWarning"]

Update = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


class SamplerDiverged(ArithmeticError):
    """A chain produced a loss that is not finite; the message names the checkpoint, the chain and the draw."""


class StepSizeWarning(UserWarning):
    """The step size may lie outside the range in which the sampler is stable."""


@dataclass(frozen=True)
class Sampler(ABC):
    """What every sampler of the local posterior has.

    Parameters
    ----------
    step_size
        Step eps, > 0.
    n_beta
        Inverse temperature times the number of samples, > 0; multiplies the mean loss.
    localization
        Strength gamma of the pull towards the checkpoint, >= 0.
    """

    step_size: float = 1e-4
    n_beta: float = 1e3
    localization: float = 5e3

    def __post_init__(self) -> None:
        checks.positive("step_size", self.step_size)
        checks.positive("n_beta", self.n_beta)
        checks.nonnegative("localization", self.localization)

    @abstractmethod
    def update_rule(self, anchor: Float[torch.Tensor, " parameters"]) -> Update:
        """Return ``update(w, gradient, noise)``, which advances `w` in place by one step.

        `anchor` and `w` hold the parameters of all chains in one flat buffer, `gradient` that of n_beta L at `w`,
        `noise` standard normal numbers; the last two may be overwritten.
        """

    @abstractmethod
    def step_range(self, largest_gradient: float) -> tuple[float, float]:
        """Return the smallest and largest step the update can take, given the largest |dL/dw| on the way."""

    def check_step(self, curvature: tuple[float, float], largest_gradient: float, epoch: float) -> str | None:
        """Return a sentence if the step may be outside the stable range, None if it is inside.

        On a quadratic of curvature h the update is stable if and only if step x h < 4, with h = n_beta lambda + gamma.

        Parameters
        ----------
        curvature
            Lower and upper bound of the largest eigenvalue lambda of the Hessian of L.
        largest_gradient
            Bound of the absolute entries of the gradient of L that the chains meet.
        epoch
            Checkpoint, for the sentence.

        Raises
        ------
        ValueError
            If the step is outside the stable range even by the bounds that favour it.
        """
        smallest, largest = self.step_range(largest_gradient)
        surely, maybe = (
            step * (self.n_beta * max(bound, 0.0) + self.localization)
            for step, bound in zip((smallest, largest), curvature, strict=True)
        )
        limit = 4 * self.step_size / (largest * (self.n_beta * max(curvature[1], 0.0) + self.localization))
        advice = f"at epoch {epoch:g}; steps below {limit:.3g} are stable"
        if surely >= 4:
            raise ValueError(
                f"step_size {self.step_size:g} is outside the stable range: step x (n_beta lambda_max + localization) "
                f"is at least {surely:.3g}, but must be below 4, {advice}."
            )
        if maybe >= 4:
            return (
                f"step_size {self.step_size:g} may be outside the stable range: step x (n_beta lambda_max + "
                f"localization) may be as large as {maybe:.3g}, but must be below 4, {advice}."
            )
        return None


@dataclass(frozen=True)
class SGLD(Sampler):
    r"""Stochastic gradient Langevin dynamics with a constant step.

    .. math:: w \leftarrow w - \tfrac{\epsilon}{2} [n_\beta \nabla L(w) + \gamma (w - w^*)] + \sqrt{\epsilon}\, \xi

    Parameters
    ----------
    step_size, n_beta, localization
        See `Sampler`. On a quadratic of curvature h the stationary variance is 1 / (h (1 - step h / 4)).

    Examples
    --------
    >>> SGLD(step_size=-1e-4)
    Traceback (most recent call last):
    ...
    ValueError: step_size must be a positive number, but -0.0001 was given.
    """

    def update_rule(self, anchor: Float[torch.Tensor, " parameters"]) -> Update:
        """Return the in-place update; see `Sampler.update_rule`."""
        pull = self.localization * anchor
        drift, diffusion = -self.step_size / 2, sqrt(self.step_size)

        def update(w: torch.Tensor, gradient: torch.Tensor, noise: torch.Tensor) -> None:
            gradient.add_(w, alpha=self.localization).sub_(pull)
            w.add_(gradient, alpha=drift).add_(noise, alpha=diffusion)

        return update

    def step_range(self, largest_gradient: float) -> tuple[float, float]:
        """Return the constant step twice."""
        return self.step_size, self.step_size


@dataclass(frozen=True)
class RMSPropSGLD(Sampler):
    r"""The paper's Algorithm 1 as printed: Langevin steps preconditioned by a running mean of squared gradients.

    .. math::
        V \leftarrow b V + (1 - b)\, q \odot q, \qquad
        \epsilon_t = \frac{\epsilon}{\sqrt{V / (1 - b^t)} + a}, \qquad
        w \leftarrow w - \tfrac{\epsilon_t}{2} [n_\beta \nabla L(w) + \gamma (w - w^*)] + \sqrt{\epsilon_t}\, \xi

    The algorithm leaves out the divergence of the preconditioner, so its stationary law is not the local posterior
    unless a is large against sqrt(V). Algorithm 1 does not say whether q is the gradient of the mean loss or of n_beta
    times it; choose by `preconditioner`.

    Parameters
    ----------
    step_size, n_beta, localization
        See `Sampler`.
    decay
        b, in [0, 1).
    stability
        a, > 0.
    preconditioner
        "mean loss": q is the gradient of L (default); "tempered": of n_beta L.

    Examples
    --------
    >>> RMSPropSGLD(decay=1.0)
    Traceback (most recent call last):
    ...
    ValueError: decay must be in [0, 1), but 1.0 was given.
    """

    decay: float = 0.9
    stability: float = 1.0
    preconditioner: str = "mean loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), but {self.decay} was given.")
        checks.positive("stability", self.stability)
        checks.choice("preconditioner", self.preconditioner, ("mean loss", "tempered"))

    @property
    def _gradient_scale(self) -> float:
        """Scale of q relative to the gradient of n_beta L."""
        return 1.0 if self.preconditioner == "tempered" else 1 / self.n_beta

    def update_rule(self, anchor: Float[torch.Tensor, " parameters"]) -> Update:
        """Return the in-place update; see `Sampler.update_rule`."""
        pull = self.localization * anchor
        squares, root = torch.zeros_like(anchor), torch.empty_like(anchor)
        stability, amplitude = anchor.new_tensor(self.stability), sqrt(self.step_size)
        taken = 0

        def update(w: torch.Tensor, gradient: torch.Tensor, noise: torch.Tensor) -> None:
            nonlocal taken
            taken += 1
            squares.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
            corrected = self._gradient_scale / sqrt(1 - self.decay**taken)
            torch.sqrt(squares, out=root)
            torch.add(stability, root, alpha=corrected, out=root).rsqrt_()
            # With root = (sqrt(V) + a)^(-1/2) the step is sqrt(eps) root [noise - sqrt(eps) / 2 root drift].
            gradient.add_(w, alpha=self.localization).sub_(pull).mul_(root)
            w.addcmul_(root, noise.add_(gradient, alpha=-amplitude / 2), value=amplitude)

        return update

    def step_range(self, largest_gradient: float) -> tuple[float, float]:
        """Return eps / (a + |q|) for the largest |q|, and eps / a."""
        q = largest_gradient * self.n_beta * self._gradient_scale
        return self.step_size / (self.stability + q), self.step_size / self.stability
