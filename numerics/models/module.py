r"""Any torch module with a loss for every sample, seen as a function of one flat vector of weights.

Everything that this package does for two-layer linear networks it does for

.. math:: w \in R^d \;\mapsto\; (\ell_1(w), \dots, \ell_N(w)) , \qquad L(w; \beta) = \frac1N \sum_i \beta_i \ell_i(w) ,

without side effects on the module. The weights are its free parameters in the order of ``named_parameters()``, each
flattened row by row; frozen parameters and buffers are its state, which may differ from checkpoint to checkpoint. A
loss may have parts (tokens, pixels, outputs), of which a sample's loss is the mean.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch.func import functional_call

from numerics.models.attention import without_fast_path
from numerics.models.samples import Samples
from numerics.models.trees import Tree, described, row_count

__all__ = ["TorchModel", "half_squared_error"]

SampleLoss = Callable[[Any, Any], torch.Tensor]
State = Mapping[str, torch.Tensor]
Choice = str | Sequence[str] | Callable[[str], bool] | None


def half_squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return 1/2 |y_i - f(x_i)|^2 of every sample, shape (n,).

    Parameters
    ----------
    outputs, targets
        Shape (n, ...) both: shapes that differ would be broadcast to losses of pairs of samples.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> half_squared_error(torch.zeros(2, 3), torch.ones(2, 3))
    tensor([1.5000, 1.5000])
    >>> half_squared_error(torch.zeros(2, 1), torch.ones(2))
    Traceback (most recent call last):
    ...
    ValueError: outputs have shape (2, 1), but targets (2,): they must agree; reshape the targets to (2, 1).
    """
    for name, value in (("outputs", outputs), ("targets", targets)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} of half the squared error must be one tensor, but are {type(value).__name__}.")
    if outputs.shape != targets.shape:
        shape = tuple(outputs.shape)
        remedy = f"reshape the targets to {shape}" if outputs.numel() == targets.numel() else "give a loss of your own"
        raise ValueError(f"outputs have shape {shape}, but targets {tuple(targets.shape)}: they must agree; {remedy}.")
    return 0.5 * (outputs - targets).square().reshape(len(outputs), -1).sum(1)


@dataclass(frozen=True, eq=False)
class TorchModel:
    """A torch module and its loss for every sample.

    Parameters
    ----------
    module
        Copied, without what torch.compile or DataParallel put around it, and used in evaluation mode: a loss must be a
        function of the weights, without dropout, and normalised by running statistics if at all.
    loss
        ``loss(outputs, targets)`` returns n losses, each of its own sample alone, or (n, k) for k parts of each sample,
        whose mean is the sample's loss; 1/2 |y - f(x)|^2 if not given. For classes:
        ``functools.partial(torch.nn.functional.cross_entropy, reduction="none")``. Tensors that a partial or a loss
        module holds, such as class weights, follow the dtype of the weights.
    parameters
        Which parameters are weights: glob patterns of their names (``"head.*"``, ``["*lora_*"]``), or a function of the
        name. Those that require a gradient if not given; the rest is fixed.
    call
        ``call(module, inputs)`` returns the outputs. If not given, a tensor is the module's argument, a mapping its
        keyword arguments, a tuple its arguments; and of outputs with ``logits`` these are taken.
    surrogate_gradients
        Whether autograd's gradients are meant to differ from those of the losses, as of straight-through estimators and
        stop-gradients. They are used as they are then; otherwise gradients that differences of the losses contradict
        are refused.

    Raises
    ------
    TypeError
        If `module` is not a torch module.
    ValueError
        If no parameter is chosen, or those chosen are not all of one real dtype on one device.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(3, 2))
    >>> model.n_parameters
    8
    >>> model.losses(torch.zeros(8), Samples(torch.ones(4, 3), torch.ones(4, 2)))
    tensor([1., 1., 1., 1.])
    >>> two_layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    >>> TorchModel(two_layers, parameters="1.*").shapes
    {'1.weight': (2, 4), '1.bias': (2,)}
    """

    module: torch.nn.Module
    loss: SampleLoss = half_squared_error
    parameters: Choice = None
    call: Callable[[torch.nn.Module, Any], Any] | None = None
    surrogate_gradients: bool = False
    # Names of the parameters that are weights, in the order in which they are flattened.
    free: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.module, torch.nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, but {type(self.module).__name__} was given.")
        object.__setattr__(self, "module", _unwrapped(self.module))
        for name, held in self.module.named_parameters():
            if isinstance(held, torch.nn.parameter.UninitializedParameter):
                raise ValueError(
                    f"parameter {name!r} has no shape yet (a lazy module): call the module on an input first."
                )
            if held.is_meta:
                raise ValueError(f"parameter {name!r} holds no numbers (device 'meta'): load its weights first.")
        chosen = _chosen(self.module, self.parameters)
        kinds = {(p.dtype, p.device) for p in chosen.values()}
        if len(kinds) != 1 or not next(iter(kinds))[0].is_floating_point:
            listing = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds)) or "none"
            raise ValueError(
                f"the module's parameters must share one real dtype and one device, but there are {listing}."
            )
        object.__setattr__(self, "free", tuple(chosen))
        module = _copied(self.module).eval()
        for name, held in module.named_parameters():
            held.requires_grad_(name in chosen)
        for part in module.modules():
            if isinstance(part, (torch.nn.Embedding, torch.nn.EmbeddingBag)):
                part.sparse = False  # the same gradient, as one flat vector can hold it
        object.__setattr__(self, "module", module)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what the model is, not what it has worked out."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the free parameters by name, in the order in which they are flattened."""
        held = dict(self.module.named_parameters())
        return {name: tuple(held[name].shape) for name in self.free}

    @property
    def n_parameters(self) -> int:
        """Number d of free parameters."""
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """Frozen parameters and buffers that the module holds, by name."""
        held = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: value for name, value in held if name not in self.shapes}

    def initial(self) -> Float[torch.Tensor, " d"]:
        """Return the weights that the module holds, shape (d,)."""
        held = dict(self.module.named_parameters())
        return torch.cat([held[name].detach().flatten() for name in self.free])

    def parameters_of(self, weights: Float[torch.Tensor, " d"]) -> dict[str, torch.Tensor]:
        """Return flat weights by parameter name; differentiable, and vmap goes through it."""
        sizes = [prod(shape) for shape in self.shapes.values()]
        pieces = weights.split(sizes)
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def with_state(self, state: State) -> TorchModel:
        """Return the model with other frozen parameters and buffers, by name; this one if there are none."""
        if not state:
            return self
        module = copy.deepcopy(self.module)
        held = dict([*module.named_parameters(), *module.named_buffers()])
        with torch.no_grad():
            for name, value in state.items():
                held[name].copy_(value)
        return self._around(module)

    def to(self, weights: torch.Tensor) -> TorchModel:
        """Return the model with everything real that it holds in the dtype of `weights`, on their device."""
        held = [*self.module.parameters(), *self.module.buffers()]
        if all(v.device == weights.device and (v.dtype == weights.dtype or not v.is_floating_point()) for v in held):
            return self
        return self._around(copy.deepcopy(self.module).to(weights))

    def _around(self, module: torch.nn.Module) -> TorchModel:
        chosen = frozenset(self.free).__contains__
        return TorchModel(module, self.loss, chosen, self.call, self.surrogate_gradients)

    def outputs(self, weights: Float[torch.Tensor, " d"], inputs: Tree, state: State | None = None) -> Any:
        """Return the module's outputs with the given weights, and a state other than its own."""
        given = self.parameters_of(weights) | self._state_like(weights) | dict(state or {})
        with self._kernels():
            return functional_call(self._called, {f"module.{k}": v for k, v in given.items()}, (inputs,))

    def losses(
        self, weights: Float[torch.Tensor, " d"], samples: Samples, state: State | None = None
    ) -> Float[torch.Tensor, " n"]:
        """Return the loss of every sample with the given weights, shape (n,): the mean over its parts.

        Raises
        ------
        ValueError
            If the loss does not return one number for every sample, or one for each of its parts.
        """
        return self.sample_losses(weights, samples.inputs, samples.targets, state, samples.present)

    def sample_losses(
        self,
        weights: Float[torch.Tensor, " d"],
        inputs: Tree,
        targets: Tree,
        state: State | None = None,
        present: torch.Tensor | None = None,
    ) -> Float[torch.Tensor, " n"]:
        """Return the losses of samples given as trees of tensors; see `losses`."""
        result = self.loss_of_outputs(self.outputs(weights, inputs, state), targets)
        n = row_count(inputs)
        if tuple(result.shape) == (n,):
            return result
        if result.ndim != 2 or len(result) != n or (present is not None and present.shape[1] != result.shape[1]):
            expected = "" if present is None else f" ({present.shape[1]} of them)"
            raise ValueError(
                f"the loss returned shape {tuple(result.shape)} for {n} samples, but one number for each is needed, or "
                f'one for each of its parts{expected}; use reduction="none" and sum over the other axes.'
            )
        if present is None:
            return result.mean(1)
        # Left out, not multiplied by zero: what stands at an absent part does not matter if it is finite.
        return torch.where(present, result, torch.zeros_like(result)).sum(1) / present.sum(1)

    def part_losses(
        self, weights: Float[torch.Tensor, " d"], samples: Samples, state: State | None = None
    ) -> Float[torch.Tensor, "n k"]:
        """Return the losses of the parts of samples, shape (n, k), whatever stands at absent ones.

        Raises
        ------
        ValueError
            If the loss has no parts.
        """
        result = self.loss_of_outputs(self.outputs(weights, samples.inputs, state), samples.targets)
        if result.ndim != 2 or len(result) != len(samples):
            raise ValueError(
                f"the loss returned shape {tuple(result.shape)} for {len(samples)} samples, but parts need (n, k); let "
                "it return the losses of the parts, not their mean."
            )
        return result

    def loss_of_outputs(self, outputs: Any, targets: Tree) -> torch.Tensor:
        """Return what the loss makes of outputs, its own tensors in their dtype and on their device."""
        like = outputs if isinstance(outputs, torch.Tensor) else next(_tensors(outputs), None)
        loss = self.loss if like is None else _in_the_dtype_of(like, self.loss)
        result = loss(outputs, targets)
        if not isinstance(result, torch.Tensor):
            raise TypeError(f"the loss must return a tensor, but it returned {type(result).__name__}.")
        if not result.is_floating_point():
            raise TypeError(f"the loss must return real numbers that have a gradient, but it returned {result.dtype}.")
        return result

    @cached_property
    def _kernels(self) -> Callable[[], AbstractContextManager[None]]:
        return without_fast_path(self.module)

    @property
    def called(self) -> torch.nn.Module:
        """The module that calls of this thread go through: with the same tensors as `module`, but of this thread alone.

        A call puts weights into the module for as long as it lasts, which no other thread may see.
        """
        return self._called.module

    @property
    def _called(self) -> _Called:
        here = self._threads
        if not hasattr(here, "called"):
            shared = {id(t): t for t in (*self.module.parameters(), *self.module.buffers())}
            here.called = _Called(copy.deepcopy(self.module, shared), self.call)
        return here.called

    @cached_property
    def _threads(self) -> threading.local:
        return threading.local()

    def with_loss(self, loss: SampleLoss) -> TorchModel:
        """Return the model with another loss; both go through the same modules."""
        twin = copy.copy(self)
        object.__setattr__(twin, "loss", loss)
        object.__setattr__(twin, "_threads", self._threads)
        return twin

    def _state_like(self, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the module holds besides, cast to the dtype of the weights; nothing if it is that already."""
        key = (weights.dtype, weights.device)
        if key not in self._casts:
            changed = {}
            for name, value in self.state.items():
                cast = value.to(weights.device, weights.dtype if value.is_floating_point() else value.dtype)
                if cast is not value:
                    changed[name] = cast
            self._casts[key] = changed
        return self._casts[key]

    @cached_property
    def known_ways(self) -> dict[object, Any]:
        """Ways of evaluation that were tried, by the kind of samples; see `numerics.models.evaluation`."""
        return {}

    @cached_property
    def kinds_of_samples(self) -> set[object]:
        """Kinds of samples of which it is known that each loss is of its own sample alone."""
        return set()

    @cached_property
    def kinds_with_gradients(self) -> set[object]:
        """Kinds of samples for which it is known that gradients are those of the losses."""
        return set()

    @cached_property
    def _casts(self) -> dict[tuple[torch.dtype, torch.device], dict[str, torch.Tensor]]:
        return {}

    def evaluated(self, weights: Float[torch.Tensor, " d"], samples: Samples) -> Float[torch.Tensor, " n"]:
        """Return the losses as `losses` does, or say in a sentence why the module cannot evaluate the samples."""
        try:
            return self.losses(weights, samples)
        except (
            RuntimeError,
            IndexError,
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            NotImplementedError,
        ) as error:
            raise ValueError(
                f"{type(self.module).__name__} cannot evaluate inputs of {described(samples.inputs)} with targets of "
                f"{described(samples.targets)}: {error}"
            ) from error


class _Called(torch.nn.Module):
    """The module as it is called with one tree of inputs."""

    def __init__(self, module: torch.nn.Module, call: Callable[[torch.nn.Module, Any], Any] | None) -> None:
        super().__init__()
        self.module, self._call = module, call

    def forward(self, inputs: Any) -> Any:
        if self._call is not None:
            return self._call(self.module, inputs)
        if isinstance(inputs, dict):
            result = self.module(**inputs)
        elif isinstance(inputs, tuple):
            result = self.module(*inputs)
        else:
            result = self.module(inputs)
        if isinstance(result, Mapping):
            return result.get("logits", result)
        return getattr(result, "logits", result)


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module that torch.compile, DataParallel or DistributedDataParallel stand around."""
    while True:
        if isinstance(inner := getattr(module, "_orig_mod", None), torch.nn.Module):
            module = inner
        elif isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module


def _copied(module: torch.nn.Module) -> torch.nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # a module may hold anything
        raise ValueError(
            f"{type(module).__name__} cannot be copied: {error}. A module that holds the result of a computation, as "
            "torch.nn.utils.weight_norm and spectral_norm leave it, comes through torch.nn.utils.parametrizations "
            "instead, or with the hook removed."
        ) from error


def _chosen(module: torch.nn.Module, choice: Choice) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are weights, by name."""
    held = dict(module.named_parameters())
    if choice is None:
        chosen = {name: p for name, p in held.items() if p.requires_grad}
        if held and not chosen:
            raise ValueError(
                "every parameter of the module is frozen (requires_grad=False), so there are no weights; name those "
                'that are, for example parameters="*".'
            )
        return chosen
    if callable(choice):
        chosen = {name: p for name, p in held.items() if choice(name)}
    else:
        patterns = [choice] if isinstance(choice, str) else list(choice)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in held):
                shown = ", ".join(list(held)[:20]) + (", ..." if len(held) > 20 else "")
                raise ValueError(
                    f"parameters={pattern!r} matches no parameter of the module; there are {shown or 'none'}."
                )
        chosen = {name: p for name, p in held.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}
    if not chosen:
        raise ValueError("parameters chooses none of the module's parameters; choose at least one.")
    return chosen


def _tensors(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


def _in_the_dtype_of(like: torch.Tensor, loss: SampleLoss) -> SampleLoss:
    """Return the loss with the real tensors that it holds, as a partial or a module, in the dtype of `like`."""

    def cast(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.to(like.device, like.dtype)
        return value

    if isinstance(loss, functools.partial):
        arguments, keywords = tuple(map(cast, loss.args)), {key: cast(value) for key, value in loss.keywords.items()}
        if all(
            a is b for a, b in zip((*arguments, *keywords.values()), (*loss.args, *loss.keywords.values()), strict=True)
        ):
            return loss
        return functools.partial(loss.func, *arguments, **keywords)
    if isinstance(loss, torch.nn.Module):
        held = {name: cast(value) for name, value in (*loss.named_parameters(), *loss.named_buffers())}
        return (lambda *both: functional_call(loss, held, both)) if held else loss
    return loss
