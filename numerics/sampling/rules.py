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
from math import log
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float

__all__ = ["LangevinRule", "MetropolisRule", "Parts", "PreconditionedRule", "Rule"]

Parts = list[torch.Tensor]
Factor = float | torch.Tensor  # the same for all rows, or a column
Samplers = Sequence[Any]  # of one class; numerics.sampling.samplers defines them on top of this module

_LARGEST_RATIO = 1e3  # of a running mean to what is kept of it: far from what float32 cannot hold


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
        self._like, self._anchor = anchor[0], [part.clone() for part in anchor]
        self._distinct = list(dict.fromkeys(samplers))
        self._which = torch.tensor([self._distinct.index(s) for s in samplers], device=self._like.device)

    def _column(self, value: Callable[[Any], float]) -> Float[torch.Tensor, "rows 1"]:
        return self._like.new_tensor([value(s) for s in self._distinct])[self._which].unsqueeze(1)

    def _factors(self, values: Callable[[Any], tuple[float, ...]]) -> Sequence[Factor]:
        """Return each of several numbers where all rows agree, else a column."""
        if len(self._distinct) == 1:
            return values(self._distinct[0])
        each = zip(*map(values, self._distinct), strict=True)
        return [v[0] if len(set(v)) == 1 else self._like.new_tensor(v)[self._which].unsqueeze(1) for v in each]

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
        self._return = self._column(lambda s: s.step_size * s.localization / 2)
        self._drift = self._column(lambda s: -s.step_size * s.n_beta / 2)
        self._diffusion = self._column(lambda s: s.step_size**0.5)

    def move(self, w: Parts, gradient: Parts, noise: Parts) -> None:
        """See `Rule.move`."""
        for x, g, z, anchor in zip(w, gradient, noise, self._anchor, strict=True):
            x.lerp_(anchor, self._return).addcmul_(g, self._drift).addcmul_(z, self._diffusion)


class PreconditionedRule(Rule):
    r"""Step eps / (sqrt(V) + a) for every weight, V a running mean of squared gradients, frozen or not.

    The mean takes one pass over the weights because V / b^k is what is kept, k counting steps since it was V itself:

    .. math:: V_t = b^k S_t, \quad S_t = S_{t-1} + \frac{1 - b}{b^k} q \odot q, \quad
        \epsilon_t = \frac{u_t}{\sqrt{S_t} + a_t}
    """

    remembers = ("_squares", "_root", "_taken")

    def __init__(self, samplers: Samplers, anchor: Parts) -> None:
        super().__init__(samplers, anchor)
        self._pull = self._column(lambda s: s.localization / s.n_beta)
        self._pulled = [part * self._pull for part in anchor]
        start = self._column(lambda s: s.initial_square / s.gradient_scale**2)
        self._squares = [torch.zeros_like(part) + start for part in anchor]
        self._root = [torch.empty_like(part) for part in anchor]
        self._taken = 0
        (self._adaptation,) = {s.adaptation for s in samplers}
        least = min(s.decay for s in samplers)
        self._cycle = 1 + int(log(_LARGEST_RATIO) / -log(least)) if least > 0 else 1

    def move(self, w: Parts, gradient: Parts, noise: Parts) -> None:
        """See `Rule.move`."""
        adapting = self._adaptation is None or self._taken < self._adaptation
        if adapting:
            self._count_step()
        fresh, offset, unit, half = self._factors(self._numbers)
        for x, g, z, pulled, squares, root in zip(
            w, gradient, noise, self._pulled, self._squares, self._root, strict=True
        ):
            if adapting:
                _add_product(squares, g, g, fresh, spare=root)
                torch.sqrt(squares, out=root).add_(offset).rsqrt_()
            # With root = sqrt(eps_t / u_t) the step is sqrt(u_t) root [noise - n_beta / 2 sqrt(u_t) root drift].
            g.addcmul_(x, self._pull).sub_(pulled)
            _add_product(z, g, root, half, spare=g)
            _add_product(x, z, root, unit, spare=z)

    def _count_step(self) -> None:
        if self._taken % self._cycle == 0:
            steps = self._cycle if self._taken else 1
            (kept,) = self._factors(lambda s: (s.decay**steps,))
            for squares in self._squares:
                squares.mul_(kept)
        self._taken += 1

    def _numbers(self, sampler: Any) -> tuple[float, float, float, float]:
        """Return (1 - b) / b^k and a_t of the last step at which the preconditioner moved, and by what to move w."""
        correction = 1 - sampler.decay**self._taken if sampler.bias_correction else 1.0
        power = sampler.decay ** ((self._taken - 1) % self._cycle)
        unit = sampler.step_size / sampler.gradient_scale * (correction / power) ** 0.5
        root = unit**0.5
        fresh, offset = (1 - sampler.decay) / power, sampler.stability / sampler.step_size * unit
        return fresh, offset, root, -sampler.n_beta / 2 * root


class MetropolisRule(Rule):
    """Constant step as a proposal, accepted with the probability that makes the local posterior stationary."""

    adjusts = True
    remembers = ("_weights", "_slopes", "_energy", "_forward", "_accepted", "_proposed")

    def __init__(self, samplers: Samplers, anchor: Parts) -> None:
        super().__init__(samplers, anchor)
        self._pull = self._column(lambda s: s.localization / s.n_beta)
        self._pulled = [part * self._pull for part in anchor]
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


def _add_product(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, factor: Factor, *, spare: torch.Tensor) -> None:
    """Add (factor a) b to `out`, with the same rounding for a number and for a column; `spare` may be overwritten."""
    if isinstance(factor, float):
        out.addcmul_(a, b, value=factor)
    else:
        out.addcmul_(torch.mul(a, factor, out=spare), b)


def _square(parts: Parts) -> Float[torch.Tensor, " c"]:
    """Return the squared length of every row, in float64; as products, whose rounding no other row can change."""
    result = parts[0].new_zeros(len(parts[0]), dtype=torch.float64)
    for part in parts:
        rows = part.double()
        result += torch.bmm(rows[:, None], rows[:, :, None])[:, 0, 0]
    return result
