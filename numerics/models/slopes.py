r"""Autograd's gradient is held against differences of the losses when a model and its samples first meet.

What ``detach()``, ``no_grad`` blocks, ``.data``, numpy and careless backward passes hide from autograd gives a gradient
that is wrong in part, and no sign of it. Along a direction v, with :math:`f = \sum_i c_i \ell_i` for random c,

.. math:: \frac{f(w + h v) - f(w - h v)}{2 h} = \nabla f(w + \xi v) \cdot v , \qquad |\xi| \le h ,

so the difference lies among the slopes that autograd finds between w - h v and w + h v, kinks between linear pieces
included, but for rounding. What has a jump at every step (``round``, ``argmax``) has the right slope, 0, almost
everywhere: there the losses change although no slope says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from numerics.errors import NotDifferentiable, WrongDerivative
from numerics.models.digest import digest
from numerics.models.module import TorchModel
from numerics.models.promise import in_double_if_possible, spread_out
from numerics.models.samples import Samples
from numerics.models.trees import described, leaves

__all__ = ["check_gradients"]

# Half the interval of a difference, relative to the weights. Where the smallest ones are lost in rounding, the next say
# more; where kinks lie densely, the slopes' own range says so.
_STEPS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_FIRST = 1e-5  # near the best step of a central difference in float64, eps^(1/3)
# A loss is rounded at most so many times its own size, in units of eps, where the scatter of neighbouring values does
# not say more.
_ROUNDINGS = 64
_INFORMATIVE = 0.1  # of the slope: what leaves a larger doubt says nothing
_MOVED = (0.1, 0.3, 1.0, 3.0)  # moves of weights without a slope, relative to all weights
_HALVINGS, _STRETCHES = 24, 8  # to find a jump
# Operations with derivative 0 almost everywhere, or that leave out where they jump.
_JUMPING = ("Round", "Floor", "Ceil", "Trunc", "Sign", "Sgn", "Frac", "Fmod", "Remainder")

_known: set[str] = set()  # digests of models and kinds of samples whose gradients are right

_REMEDY = (
    "write it so that autograd sees all of it, or, if the gradient is meant to be another (straight-through "
    "estimators, stop-gradients), say so by TorchModel(..., surrogate_gradients=True)"
)


def check_gradients(
    model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples, *, all_move: bool = False
) -> None:
    """Refuse a model whose losses change with the weights otherwise than autograd says.

    Four samples, two random places a tenth of the weights' size away from `weights`, and at each a random direction:
    six gradients, once for a model and a kind of samples. Only where two intervals and three directions contradict the
    gradient is it refused. In float64 where the module can be evaluated in it.

    The row of an embedding at its ``padding_idx`` has no gradient by torch's convention: it counts as fixed, unless
    `all_move` says that all weights move whatever their gradient, as a sampler's do.

    Raises
    ------
    WrongDerivative
        If differences contradict the gradient; the sentence names the parameters.
    NotDifferentiable
        If losses change with parameters that have no gradient, or a gradient is not finite where losses are.

    Examples
    --------
    >>> half = TorchModel(torch.nn.Linear(2, 1), lambda out, y: (out * (out - y).detach())[:, 0])
    >>> check_gradients(half, torch.ones(3), Samples(torch.eye(2), torch.zeros(2, 1)))
    Traceback (most recent call last):
    ...
    numerics.errors.WrongDerivative: the gradient of Linear is wrong: ...
    """
    trees = (samples.inputs, samples.targets)
    kind = (all_move, str(weights.dtype), *((n, tuple(v.shape[1:]), str(v.dtype)) for n, v in leaves("", trees)))
    if model.surrogate_gradients or kind in model.kinds_with_gradients:
        return
    key = _digest(model, kind)
    if key is None or key not in _known:
        few = spread_out(samples)
        try:
            _compare(*in_double_if_possible(model, weights.detach(), few), all_move)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise NotDifferentiable(
                f"{type(model.module).__name__} cannot be differentiated for inputs of {described(few.inputs)} with "
                f"targets of {described(few.targets)}: {str(error).strip().splitlines()[0]}"
            ) from error
    if key is not None:
        _known.add(key)
    model.kinds_with_gradients.add(kind)


def _digest(model: TorchModel, kind: object) -> str | None:
    try:
        return digest((model, kind))
    except TypeError:  # a loss that cannot be recognised again is tested again
        return None


def _compare(model: TorchModel, weights: torch.Tensor, samples: Samples, all_move: bool) -> None:
    name = type(model.module).__name__
    places = [_Place.near(model, weights, samples, seed) for seed in (0, 1)]
    for place in places:
        if not place.finite:
            continue  # weights that nobody asked for may have no loss
        for table, row in _padding(model) if all_move else ():
            if _moves(place, row, 1.0):
                raise NotDifferentiable(
                    f"the losses depend on the row of {table!r} at padding_idx, which a sampler moves but of which "
                    "autograd's gradient says nothing; set padding_idx = None there, mask the padding in the forward "
                    "pass, or choose parameters= without it."
                )
        if not place.slopes.isfinite().all():
            raise NotDifferentiable(
                f"the gradient of {name} is not finite although its losses are: look for an operation without a "
                "derivative there, such as sqrt at 0 or a branch of torch.where that is not taken."
            )
        if place.contradicted(place.direction(0)) and all(place.contradicted(place.direction(k)) for k in (1, 2)):
            raise WrongDerivative(_wrong(place, name))
    places = [place for place in places if place.finite]
    if places:
        _refuse_hidden(places, name)


class _Place:
    """Values and slopes of a random sum of losses around some weights."""

    def __init__(self, model: TorchModel, weights: torch.Tensor, samples: Samples, seed: int) -> None:
        self.model, self.weights, self._samples, self._seed = model, weights, samples, seed
        signs = torch.randn(len(samples), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self._signs = signs.to(weights)
        self.size = float(weights.norm()) or 1.0

    @classmethod
    def near(cls, model: TorchModel, weights: torch.Tensor, samples: Samples, seed: int) -> _Place:
        """Return a random place: at a minimum, say, much of what a gradient hides is zero."""
        noise = torch.randn(len(weights), generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
        size = 0.1 * (float(weights.double().square().mean()) ** 0.5 or 1.0)
        return cls(model, weights + size * noise.to(weights), samples, seed)

    def direction(self, number: int) -> torch.Tensor:
        """Return a unit vector."""
        generator = torch.Generator().manual_seed(1000 * (1 + number) + self._seed)
        result = torch.randn(len(self.weights), generator=generator, dtype=torch.float64).to(self.weights)
        for _, row in _padding(self.model):
            result[row] = 0
        return result / result.norm()

    def losses(self, at: torch.Tensor) -> torch.Tensor:
        return self.model.losses(at, self._samples)

    def value(self, at: torch.Tensor) -> float:
        with torch.no_grad():
            return float((self._signs * self.losses(at)).double().sum())

    def valued(self, at: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Return the value and autograd's gradient."""
        leaf = at.detach().clone().requires_grad_()
        with torch.enable_grad():
            value = (self._signs * self.losses(leaf)).sum()
        if not value.requires_grad:
            return float(value), torch.zeros_like(leaf)
        (slope,) = torch.autograd.grad(value, leaf, allow_unused=True)
        return float(value.detach()), torch.zeros_like(leaf) if slope is None else slope

    @cached_property
    def here(self) -> tuple[float, torch.Tensor]:
        return self.valued(self.weights)

    @property
    def slopes(self) -> torch.Tensor:
        return self.here[1]

    @cached_property
    def finite(self) -> bool:
        with torch.no_grad():
            return bool(self.losses(self.weights).isfinite().all())

    @cached_property
    def noise(self) -> float:
        """Rounding of a value: that of its own size in the coarsest numbers used, and the scatter of its neighbours."""
        with torch.no_grad(), _Coarsest(self.weights.dtype) as coarsest:
            size = float((self._signs * self.losses(self.weights)).abs().double().sum())
        middle, scatter, v = self.value(self.weights), 0.0, self.direction(9)
        for k in (1, 2, 3):
            ahead, behind = (self.value(self.weights + side * k * 1e-9 * self.size * v) for side in (1, -1))
            scatter = max(scatter, abs(ahead + behind - 2 * middle))
        return _ROUNDINGS * coarsest.eps * size + 2 * scatter

    def contradicted(self, direction: torch.Tensor) -> bool:
        """Return whether differences over the two shortest intervals that say something contradict the slope."""
        if self._verdict(direction, _FIRST) is False:
            return False
        verdicts = []
        for step in _STEPS:
            if (verdict := self._verdict(direction, step)) is not None:
                verdicts.append(verdict)
            if len(verdicts) == 2:
                return all(verdicts)
        return False

    def _verdict(self, direction: torch.Tensor, step: float) -> bool | None:
        """Return whether the difference over an interval contradicts the slopes in it; None if it says nothing."""
        h = step * self.size
        (ahead, right), (behind, left) = (self.valued(self.weights + side * h * direction) for side in (1, -1))
        slopes = [float(slope.double() @ direction.double()) for slope in (left, self.slopes, right)]
        if not all(map(torch.isfinite, torch.tensor([ahead, behind, *slopes]))):
            return None
        difference = (ahead - behind) / (2 * h)
        allowed = 2 * (max(slopes) - min(slopes)) + self.noise / h
        if allowed > _INFORMATIVE * max(abs(difference), abs(slopes[1])):
            return None
        return abs(difference - slopes[1]) > allowed

    def blocks(self) -> Iterable[tuple[str, slice]]:
        """Yield the parameters with their places among the weights."""
        first = 0
        for name, shape in self.model.shapes.items():
            yield name, slice(first, first := first + prod(shape))

    def along(self, block: slice) -> torch.Tensor:
        """Return a unit vector among one parameter's weights."""
        whole, result = self.direction(3), torch.zeros_like(self.weights)
        result[block] = whole[block] / (whole[block].norm() or 1.0)
        return result


def _wrong(place: _Place, name: str) -> str:
    """Say along which parameters differences contradict the gradient."""
    v = place.direction(0)
    wrong = [key for key, block in place.blocks() if place.contradicted(place.along(block))]
    listed = ", ".join(map(repr, wrong[:6])) + (", ..." if len(wrong) > 6 else "")
    step = next(s for s in (_FIRST, *_STEPS) if place._verdict(v, s))
    h = step * place.size
    difference = (place.value(place.weights + h * v) - place.value(place.weights - h * v)) / (2 * h)
    return (
        f"the gradient of {name} is wrong: along {listed or 'a random direction'} the losses do not change as autograd "
        f"says (by {difference:.4g} along a random direction, where it says {float(place.slopes @ v):.4g}). Something "
        "in the forward pass or the loss is hidden from it, such as by detach(), .data, no_grad, numpy, item(), "
        f"activation checkpointing or a backward pass of its own; {_REMEDY}."
    )


def _refuse_hidden(places: list[_Place], name: str) -> None:
    """Refuse parameters that change the losses although their gradient is zero, and operations that jump."""
    for key, block in places[0].blocks():
        if any(place.slopes[block].count_nonzero() for place in places):
            continue
        for place in places:
            if any(_moves(place, block, share) for share in _MOVED):
                raise NotDifferentiable(
                    f"the losses of {name} change with {key!r}, but autograd's gradient of it is zero"
                    f"{_blamed(_jumping(place))}. Something hides it, such as round, argmax, a comparison, detach(), "
                    f"no_grad or numpy; {_REMEDY}."
                )
    for place in places:
        if (found := _jumping(place)) and _jumps(place):
            raise NotDifferentiable(
                f"the losses of {name} jump where the weights change, of which its gradient knows nothing"
                f"{_blamed(found)}; {_REMEDY}."
            )


def _moves(place: _Place, block: slice, share: float) -> bool:
    """Return whether moving a parameter changes the value, with no gradient at the other end either."""
    noise = torch.randn(block.stop - block.start, generator=torch.Generator().manual_seed(4)).to(place.weights)
    move = torch.zeros_like(place.weights)
    move[block] = share * place.size / len(move) ** 0.5 * noise
    value, slope = place.valued(place.weights + move)
    return abs(value - place.here[0]) > 10 * place.noise and not slope[block].count_nonzero()


def _padding(model: TorchModel) -> list[tuple[str, slice]]:
    """Return the rows of embeddings that torch leaves out of their gradient, with their places among the weights."""
    found, first = [], 0
    layers = dict(model.module.named_modules())
    for name, shape in model.shapes.items():
        row = getattr(layers.get(name.rpartition(".")[0]), "padding_idx", None)
        if row is not None and name.endswith("weight") and len(shape) == 2:
            found.append((name, slice(first + row * shape[1], first + (row + 1) * shape[1])))
        first += prod(shape)
    return found


def _jumping(place: _Place) -> list[str]:
    """Return the operations between weights and losses that jump."""
    with torch.enable_grad():
        losses = place.losses(place.weights.detach().clone().requires_grad_())
    found, seen, stack = set(), set(), [losses.grad_fn]
    while stack:
        node: Any = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kind = node.name().removesuffix("0").removesuffix("Backward")
        found |= {kind} & set(_JUMPING)
        stack += [ahead for ahead, _ in node.next_functions]
    return sorted(word.lower() for word in found)


def _blamed(found: list[str]) -> str:
    return f" (there is {', '.join(found)} between the two)" if found else ""


def _jumps(place: _Place) -> bool:
    """Return whether the value changes over ever shorter stretches of a line by what no slope explains."""
    v, length = place.direction(5), place.size

    def at(t: float) -> tuple[float, float]:
        value, slope = place.valued(place.weights + t * length * v)
        return value, float(slope.double() @ v.double()) * length

    def unexplained(a: tuple[float, tuple[float, float]], b: tuple[float, tuple[float, float]]) -> float:
        return abs(b[1][0] - a[1][0] - (b[0] - a[0]) * (a[1][1] + b[1][1]) / 2)

    ends = [(t, at(t)) for t in (k / _STRETCHES for k in range(_STRETCHES + 1))]
    for a, b in pairwise(ends):
        left = [unexplained(a, b)]
        while len(left) <= _HALVINGS and left[-1] > 10 * place.noise:
            middle = (a[0] + b[0]) / 2
            m = (middle, at(middle))
            a, b = max(((a, m), (m, b)), key=lambda pair: unexplained(*pair))
            left.append(unexplained(a, b))
        # A jump stays; beside an infinite slope, as of sqrt at 0, half the halvings still leave 2^(-6).
        if len(left) > _HALVINGS and left[-1] > 0.1 * left[_HALVINGS // 2]:
            return True
    return False


class _Coarsest(TorchFunctionMode):
    """Notes the coarsest real numbers that functions return."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.eps = torch.finfo(dtype).eps

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                self.eps = max(self.eps, torch.finfo(leaf.dtype).eps)
        return result
