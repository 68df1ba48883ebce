r"""The moving part of each sampler: its state and its update for a batch of chains, in place.

Weights, gradients and noise come as parts, matrices with a row for every chain, or with a single row that holds all
chains where they share their settings. A setting is then a column of one number a row, and

.. math:: w \leftarrow w - \tfrac{\epsilon n_\beta}{2} \bigl[\nabla L(w) + \tfrac{\gamma}{n_\beta} (w - w^*)\bigr]
    + \sqrt{\epsilon}\, \xi

costs the same few passes whether chains agree or not. Gradients are those of the mean loss L.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float

__all__ = ["LangevinRule", "MetropolisRule", "Parts", "PreconditionedRule", "Rule"]

Parts = list[torch.Tensor]
Samplers = Sequence[Any]  # of one class; numerics.sampling.samplers defines them on top of this module


class Rule(ABC):
    """Update of a batch of chains.

    Parameters
    ----------
    samplers
        One for every row of the parts, or a single one.
    anchor
        Weights w* to which chains are pulled, in parts.
    """

    # True if `settle` must be called, with chains on rows of their own, the mean loss and one more normal number each.
    adjusts: ClassVar[bool] = False
    # Attributes that the next step depends on beside the weights.
    remembers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, samplers: Samplers, anchor: Parts) -> None:
        self._samplers, self._like = samplers, anchor[0]
        self._pull = self._column(lambda s: s.localization / s.n_beta)
        self._pulled = [part * self._pull for part in anchor]

    def _column(self, value: Callable[[Any], float]) -> Float[torch.Tensor, "rows 1"]:
        return self._like.new_tensor([value(s) for s in self._samplers]).unsqueeze(1)

    def settle(
        self, w: Parts, gradient: Parts, mean_loss: Float[torch.Tensor, " c"], luck: Float[torch.Tensor, " c"]
    ) -> Bool[torch.Tensor, " c"]:
        """Decide whether chains stay at `w` or go back to where they were, and return which stay."""
        raise TypeError(f"{type(self).__name__} accepts every step and has nothing to decide.")

    @abstractmethod
    def move(self, w: Parts, gradient: Parts, noise: Parts) -> None:
        """Advance `w` in place; `gradient` of L at `w` and standard normal `noise` may be overwritten."""

    @property
    def acceptance(self) -> float:
        """Share of proposals accepted so far over all chains; NaN where nothing is proposed."""
        return float("nan")

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on beside the weights: tensors, lists of tensors and numbers."""
        return {name: getattr(self, name) for name in self.remembers}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, which is taken over and not copied."""
        for name, value in state.items():
            setattr(self, name, value)


class LangevinRule(Rule):
    """Constant step."""

    def __init__(self, samplers: Samplers, anchor: Parts) -> None:
        super().__init__(samplers, anchor)
        self._drift = self._column(lambda s: -s.step_size * s.n_beta / 2)
        self._diffusion = self._column(lambda s: s.step_size**0.5)

    def move(self, w: Parts, gradient: Parts, noise: Parts) -> None:
        """See `Rule.move`."""
        for x, g, z, pulled in zip(w, gradient, noise, self._pulled, strict=True):
            g.addcmul_(x, self._pull).sub_(pulled)
            x.addcmul_(g, self._drift).addcmul_(z, self._diffusion)


class PreconditionedRule(Rule):
    """Step eps / (sqrt(V) + a) for every weight, V a running mean of squared gradients, frozen or not."""

    remembers = ("_squares", "_root", "_taken")

    def __init__(self, samplers: Samplers, anchor: Parts) -> None:
        super().__init__(samplers, anchor)
        self._half = self._column(lambda s: -s.n_beta / 2)
        self._fresh = self._column(lambda s: 1 - s.decay)
        self._offset = self._column(lambda s: s.stability / s.step_size)
        start = self._column(lambda s: s.initial_square / s.gradient_scale**2)
        self._squares = [torch.zeros_like(part) + start for part in anchor]
        self._root = [torch.empty_like(part) for part in anchor]
        self._taken = 0
        (self._adaptation,) = {s.adaptation for s in samplers}

    def move(self, w: Parts, gradient: Parts, noise: Parts) -> None:
        """See `Rule.move`."""
        if self._adaptation is None or self._taken < self._adaptation:
            self._adapt(gradient)
        for x, g, z, pulled, root in zip(w, gradient, noise, self._pulled, self._root, strict=True):
            # With root = sqrt(eps_t) the step is root [noise - n_beta / 2 root drift].
            g.addcmul_(x, self._pull).sub_(pulled).mul_(root)
            x.addcmul_(root, z.addcmul_(g, self._half))

    def _adapt(self, gradient: Parts) -> None:
        self._taken += 1
        scale = self._column(
            lambda s: s.gradient_scale / s.step_size / (1 - s.decay**self._taken if s.bias_correction else 1.0) ** 0.5
        )
        for g, squares, root in zip(gradient, self._squares, self._root, strict=True):
            squares.lerp_(torch.mul(g, g, out=root), self._fresh)
            torch.sqrt(squares, out=root).mul_(scale).add_(self._offset).rsqrt_()


class MetropolisRule(Rule):
    """Constant step as a proposal, accepted with the probability that makes the local posterior stationary."""

    adjusts = True
    remembers = ("_weights", "_slopes", "_energy", "_forward", "_accepted", "_proposed")

    def __init__(self, samplers: Samplers, anchor: Parts) -> None:
        super().__init__(samplers, anchor)
        self._anchor = [part.clone() for part in anchor]
        self._n_beta, self._localization, self._step = (
            self._column(value).double()
            for value in (lambda s: s.n_beta, lambda s: s.localization, lambda s: s.step_size)
        )
        self._drift = self._column(lambda s: -s.step_size * s.n_beta / 2)
        self._diffusion = self._column(lambda s: s.step_size**0.5)
        self._weights: Parts = []
        self._slopes: Parts = []
        self._energy = self._forward = torch.empty(0)
        self._accepted = self._proposed = 0.0

    def settle(
        self, w: Parts, gradient: Parts, mean_loss: Float[torch.Tensor, " c"], luck: Float[torch.Tensor, " c"]
    ) -> Bool[torch.Tensor, " c"]:
        """See `Rule.settle`; `gradient` becomes that of L with the pull where chains end up."""
        for x, g, pulled in zip(w, gradient, self._pulled, strict=True):
            g.addcmul_(x, self._pull).sub_(pulled)
        away = [x - a for x, a in zip(w, self._anchor, strict=True)]
        energy = self._n_beta[:, 0] * mean_loss.double() + self._localization[:, 0] / 2 * _square(away)
        if not self._weights:  # the start is nobody's proposal
            stay = torch.ones_like(energy, dtype=torch.bool)
        else:
            way_back = [
                c - x - self._drift * g for c, x, g in zip(self._weights, w, gradient, strict=True)
            ]  # sqrt(eps) times the noise that leads back
            backward = _square(way_back) / self._step[:, 0]
            log_ratio = self._energy - energy + (self._forward - backward) / 2
            # The distribution function of the normal turns luck into a uniform number.
            stay = torch.special.log_ndtr(luck.double()) < log_ratio
            self._accepted += float(stay.sum())
            self._proposed += len(stay)
            energy = torch.where(stay, energy, self._energy)
            for now, before in zip(w + gradient, self._weights + self._slopes, strict=True):
                torch.where(stay[:, None], now, before, out=now)
        self._energy = energy
        self._weights, self._slopes = [x.clone() for x in w], [g.clone() for g in gradient]
        return stay

    def move(self, w: Parts, gradient: Parts, noise: Parts) -> None:
        """Propose; see `Rule.move`."""
        for x, g, z in zip(w, gradient, noise, strict=True):
            x.addcmul_(g, self._drift).addcmul_(z, self._diffusion)
        self._forward = _square(noise)

    @property
    def acceptance(self) -> float:
        """See `Rule.acceptance`."""
        return self._accepted / self._proposed if self._proposed else float("nan")


def _square(parts: Parts) -> Float[torch.Tensor, " c"]:
    """Return the squared length of every row, in float64; as products, whose rounding no other row can change."""
    result = parts[0].new_zeros(len(parts[0]), dtype=torch.float64)
    for part in parts:
        rows = part.double()
        result += torch.bmm(rows[:, None], rows[:, :, None])[:, 0, 0]
    return result
