"""Losses and gradients of any torch module for many weights: recorded calls of torch.func, or chain by chain."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch.func import grad_and_value, vmap

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.module import TorchModel
from numerics.models.samples import Parts, Samples
from numerics.models.trees import leaves, mapped
from numerics.sampling.captured import captured
from numerics.sampling.plan import ChainPlan
from numerics.sampling.targets import Buffer, Target, functions_of

__all__ = ["ModuleTarget"]

State = Mapping[str, torch.Tensor]
Function = Callable[..., tuple[torch.Tensor, ...]]

_CALLS_WORTH_RECORDING = 32  # recording one costs as much as some tens of them


class ModuleTarget(Target):
    """See `Target`; weights, and so the noise, are ordered as the module's parameters are.

    Parameters
    ----------
    plan
        What to run.
    chains
        Number of chains c. One alone is evaluated by plain autograd, more by torch.func's vmap.
    """

    def __init__(self, plan: ChainPlan, chains: int) -> None:
        assert isinstance(plan.checkpoints, ModuleCheckpoints)
        self._plan, self._chains = plan, chains
        self._weights, self._slopes = self._new(chains, plan.n_weights), self._new(chains, plan.n_weights)
        self.weights, self.gradient = (Buffer([value], [value]) for value in (self._weights, self._slopes))
        self._model = _own(plan.checkpoints.model.to(self._weights))
        self._states: dict[str, torch.Tensor] = {}
        self._data = Samples.of(plan.data).like(self._weights)
        self._asked = [_Asked(plan, group, self._data, self._weights) for group in plan.recorded.groups]
        self._beta = self._weights.new_tensor(plan.weights)
        self._recorded = self._new(chains, len(plan.recorded))
        self.mean_loss = self._new(chains)
        self._worth = plan.steps * max(plan.total // chains, 1) >= _CALLS_WORTH_RECORDING
        self._replays: dict[str, Function] = {}

    def _new(self, *shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=self._plan.dtype, device=self._plan.device)

    def load(self, values: Float[torch.Tensor, "c d"], states: State) -> None:
        """See `Target.load`; `states` are frozen parameters and buffers of every chain, each of shape (c, ...)."""
        self._weights.copy_(values)
        for name, value in states.items():
            cast = value.to(self._weights) if value.is_floating_point() else value.to(self._weights.device)
            if name in self._states:
                self._states[name].copy_(cast)
            else:
                self._states[name] = cast.clone()

    def noise(self, block: Float[torch.Tensor, "c s d"]) -> list[Buffer]:
        """See `Target.noise`; the numbers are used where they are."""
        return [Buffer([rows], [rows]) for rows in block.unbind(1)]

    def record_into(self, block: Float[torch.Tensor, "c b m"]) -> None:
        """See `Target.record_into`."""
        self._places = block.unbind(1)

    def evaluate(self, *, draw: int | None, mean_loss: bool, batch: Int[torch.Tensor, "c b"] | None) -> None:
        """See `Target.evaluate`."""
        shared: dict[int, torch.Tensor] = {}
        if batch is not None:
            drawn = [value[batch] for value in self._flat_data]
            self._run("batch", self._on_batch, self._slopes, *drawn)
        elif self._chunks:
            self._by_chunks(shared)
        else:
            found = self._run("all", self._on_all, self._slopes)
            self.mean_loss = found[1]
            shared = dict(zip(self._with_data, found[2:], strict=True))
        if draw is not None:
            first = 0
            for k, asked in enumerate(self._asked):
                place = self._recorded[:, first : first + len(asked)]
                if k in shared:
                    place.copy_(shared[k])
                else:
                    self._record(k, asked, place)
                first += len(asked)
            if self._plan.recorded.functions:
                self._run("functions", self._functions, self._recorded[:, first:])
            self._places[draw].copy_(self._recorded)

    # --- Functions of the buffers, for all chains at once ---

    def _run(self, name: str, function: Function, into: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call a function of weights and states, recorded if that pays, with its first result in `into`."""
        buffers = (self._weights, *self._states.values())
        if name not in self._replays:
            replay = captured(function, buffers, rest, into=into) if self._worth else None
            self._replays[name] = replay or _plain(function, into)
        return self._replays[name](*buffers, *rest)

    def _on_all(self, weights: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return gradient, mean loss, and the losses asked for of the training samples."""
        return self._with_gradient(self._mean_and_losses, weights, *states)

    def _on_batch(self, weights: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._with_gradient(self._mean_of_batch, weights, *more)

    def _functions(self, weights: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (functions_of(self._plan, vmap(self._model.parameters_of)(weights)),)

    def _record(self, k: int, asked: _Asked, place: torch.Tensor) -> None:
        """Write the losses of a group of samples, in chunks that fit in memory."""
        for number, (columns, chunk) in enumerate(asked.chunks(self._plan.engine.rows)):

            def losses(weights: torch.Tensor, *states: torch.Tensor, chunk: _Asked = chunk) -> tuple[torch.Tensor]:
                return (self._each(lambda w, *s: chunk.losses(self._model, w, self._named(s)))(weights, *states),)

            self._run(f"group {k}, chunk {number}", losses, place[:, columns])

    def _with_gradient(self, function: Function, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the gradient of the first result for every chain, and all results."""
        if self._chains > 1:
            slopes, (mean, more) = vmap(grad_and_value(_first_apart(function), has_aux=True))(*arguments)
            return slopes, mean, *more
        leaf = arguments[0][0].detach().requires_grad_()
        with torch.enable_grad():
            mean, *more = function(leaf, *(value[0] for value in arguments[1:]))
            (slope,) = torch.autograd.grad(mean, leaf, materialize_grads=True)
        return tuple(value.detach()[None] for value in (slope, mean, *more))

    def _each(self, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        if self._chains > 1:
            return vmap(function)
        return lambda *arguments: function(*(value[0] for value in arguments))[None]

    def _by_chunks(self, shared: dict[int, torch.Tensor]) -> None:
        """Evaluate one chain on all samples, so many at a time."""
        mean = self._weights.new_zeros(1)
        columns: dict[int, list[torch.Tensor]] = {k: [] for k in self._with_data}
        self._slopes.zero_()
        for rows, pieces in self._chunks:

            def function(w: torch.Tensor, *states: torch.Tensor, rows: slice = rows, pieces: Any = pieces) -> Any:
                losses, recorded = _losses(self._model, w, pieces, self._named(states), self._data[rows])
                return (self._beta[rows] * losses).sum() / len(self._data), *recorded

            slope, part, *recorded = self._with_gradient(function, self._weights, *self._states.values())
            self._slopes += slope
            mean += part
            for found, value in zip(columns.values(), recorded, strict=True):
                found.append(value)
        self.mean_loss = mean
        shared.update({k: torch.cat(found, 1) for k, found in columns.items()})

    # --- Functions of one chain ---

    def _mean_and_losses(self, w: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        groups = [self._asked[k] for k in self._with_data]
        losses, recorded = _losses(self._model, w, groups, self._named(states), self._data)
        return (self._beta * losses).mean(), *recorded

    def _mean_of_batch(self, w: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states, drawn = more[: len(self._states)], iter(more[len(self._states) :])
        beta = next(drawn)
        inputs, targets = (mapped(lambda _: next(drawn), tree) for tree in (self._data.inputs, self._data.targets))
        losses = self._model.sample_losses(w, inputs, targets, self._named(states), next(drawn, None))
        return ((beta * losses).mean(),)

    def _named(self, states: tuple[torch.Tensor, ...]) -> State:
        return dict(zip(self._states, states, strict=True))

    @cached_property
    def _flat_data(self) -> list[torch.Tensor]:
        data = self._data
        trees = [value for tree in (data.inputs, data.targets) for _, value in leaves("", tree)]
        return [self._beta, *trees, *([] if data.present is None else [data.present])]

    @cached_property
    def _with_data(self) -> list[int]:
        """Groups of what is recorded whose losses come with those of the training set."""
        return [k for k, asked in enumerate(self._asked) if asked.samples is self._data]

    @cached_property
    def _chunks(self) -> list[tuple[slice, list[_Asked]]]:
        """Rows of the training set that fit in memory, and what is recorded of them; none if all of them fit."""
        rows, n = self._plan.engine.rows, len(self._data)
        if rows >= n:
            return []
        parts = [slice(k, min(k + rows, n)) for k in range(0, n, rows)]
        return [(part, [self._asked[k].of_rows(part) for k in self._with_data]) for part in parts]


class _Asked:
    """Samples, or parts of samples, whose losses are recorded."""

    def __init__(self, plan: ChainPlan, group: Any, data: Samples, like: torch.Tensor) -> None:
        self.is_parts = isinstance(group, Parts)
        samples = group.samples if isinstance(group, Parts) else group
        self.samples = data if samples is plan.data else Samples.of(samples).like(like)
        self._set(group.names if isinstance(group, Parts) else ())

    def _set(self, names: Any) -> None:
        self._names = names
        if self.is_parts:
            self.parts = Parts(self.samples, names)
            like = next(value for _, value in leaves("", self.samples.targets)).device
            self.sample = torch.as_tensor(self.parts.sample, device=like)
            self.share = torch.as_tensor(self.parts.share, device=like)

    def __len__(self) -> int:
        return len(self.parts) if self.is_parts else len(self.samples)

    def of_rows(self, rows: slice) -> _Asked:
        """Return what is asked of some of the samples."""
        result = object.__new__(_Asked)
        result.is_parts, result.samples = self.is_parts, self.samples[rows]
        result._set(self._names)
        return result

    def chunks(self, rows: int) -> list[tuple[slice, _Asked]]:
        """Return so many samples at a time, each with its columns."""
        if rows not in self._kept:
            pieces, first = [], 0
            for k in range(0, len(self.samples), rows):
                piece = self.of_rows(slice(k, k + rows)) if rows < len(self.samples) else self
                pieces.append((slice(first, first + len(piece)), piece))
                first += len(piece)
            self._kept[rows] = pieces
        return self._kept[rows]

    @cached_property
    def _kept(self) -> dict[int, list[tuple[slice, _Asked]]]:
        return {}

    def losses(self, model: Any, w: torch.Tensor, state: State) -> torch.Tensor:
        """Return the recorded losses at weights w."""
        if self.is_parts:
            return self.parts.flattened(model.part_losses(w, self.samples, state))
        return model.losses(w, self.samples, state)


def _losses(
    model: Any, w: torch.Tensor, groups: list[_Asked], state: State, samples: Samples
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the losses of samples, and what groups of those samples ask for, from one evaluation."""
    parts = next((group for group in groups if group.is_parts), None)
    if parts is None:
        losses = model.losses(w, samples, state)
        return losses, [losses for _ in groups]
    flat = parts.losses(model, w, state)
    losses = flat.new_zeros(len(samples)).index_add(0, parts.sample, flat * parts.share.to(flat))
    return losses, [flat if group.is_parts else losses for group in groups]


def _own(model: TorchModel) -> TorchModel:
    """Return the model around a module of its own with the same tensors: a call puts weights into the module.

    Targets run on several threads, and no thread may see the weights of another.
    """
    result, loss = copy.copy(model), model.loss
    modules = [model.module, *([loss] if isinstance(loss, torch.nn.Module) else [])]
    shared = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
    object.__setattr__(result, "module", copy.deepcopy(model.module, dict(shared)))
    if isinstance(loss, torch.nn.Module):
        object.__setattr__(result, "loss", copy.deepcopy(loss, dict(shared)))
    return result


def _first_apart(function: Function) -> Callable[..., tuple[torch.Tensor, tuple[torch.Tensor, ...]]]:
    def split(*arguments: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        first, *more = function(*arguments)
        return first, tuple(more)

    return split


def _plain(function: Function, into: torch.Tensor) -> Function:
    def call(*arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, *more = function(*arguments)
        return into.copy_(first), *more

    return call
