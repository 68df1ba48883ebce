"""A function of buffers, recorded once as a list of tensor operations and replayed without what is between them.

torch.func and autograd pay for what they do at every call, many times what the operations on a small network cost. What
they do is the same at every call, so the operations are recorded; views of the buffers and what depends on no buffer
are worked out once, views that change nothing are left out, and operations are called by their shortest way. The
operations and their operands stay the same, and so do the results, bit for bit: that is checked at other weights before
a recording is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["captured"]

Function = Callable[..., tuple[torch.Tensor, ...]]

_BY_SHAPE = {"ones_like", "zeros_like", "full_like", "new_zeros", "new_ones", "new_full", "scalar_tensor"}
_LARGEST_CONSTANT = 2**22  # numbers; what is larger is made anew at every call
_CHANGE = 0.1  # of weights, relative to their own size, where a recording is checked
# Values that code may branch on, and shapes that depend on them. (Chance does not pass the check.)
_REFUSED = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def captured(
    function: Function, buffers: tuple[torch.Tensor, ...], rest: tuple[torch.Tensor, ...] = (), *, into: torch.Tensor
) -> Function | None:
    """Return a function that does what `function` does, faster; None if it cannot be recorded.

    Parameters
    ----------
    function
        Of the buffers and further tensors; returns tensors, the first of which is written into `into`.
    buffers
        Weights, and what else changes in place. The result reads them where they are: it may only be called with these
        very tensors.
    rest
        Further arguments, of the shapes that calls will have.
    into
        Where the first result goes.

    Examples
    --------
    >>> w, slope = torch.ones(2), torch.zeros(2)
    >>> double = captured(lambda w: (2 * w, w.sum()), (w,), into=slope)
    >>> _ = w.fill_(3)
    >>> double(w)
    (tensor([6., 6.]), tensor(6.))
    """
    weights = buffers[0]
    before = weights.clone()
    try:
        with _Recorder() as recorder:
            results = function(*buffers, *rest)
        replay = _Program(recorder.calls, buffers, rest, results, into).function()
        generator = torch.Generator(weights.device).manual_seed(0)
        noise = torch.empty_like(weights).normal_(generator=generator)
        weights.addcmul_(noise, weights.abs() + weights.std(correction=0), value=_CHANGE)
        turned = tuple(tensor.flip(0) for tensor in rest)
        found = [tensor.clone() for tensor in replay(*buffers, *turned)]
        return replay if _same(found, function(*buffers, *turned)) else None
    except Exception:
        return None  # whatever speaks against recording a module, it can be run without
    finally:
        weights.copy_(before)


class _Call(NamedTuple):
    """One operation: the function, its arguments and what it returned."""

    way: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    written: set[int]  # places of operands that it changes


class _Recorder(TorchDispatchMode):
    """Keeps every operation on tensors that is carried out within, whatever transformations lie above it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _REFUSED.isdisjoint(func.tags):
            raise ValueError(f"{func} cannot be replayed.")
        name, way = func._schema.name.split("::")[-1], func
        if func._schema.is_mutable:
            pairs = [*zip(func._schema.arguments, args, strict=False)]
            pairs += [(a, kwargs[a.name]) for a in func._schema.arguments if a.name in kwargs]
            written = {
                _place(t) for a, value in pairs if a.alias_info and a.alias_info.is_write for t in _tensors(value)
            }
            result = func(*args, **kwargs)
        else:
            written, result = set(), func(*args, **kwargs)
            way = next((w for w in _ways(name) if _gives(w, args, kwargs, result)), func)
        self.calls.append(_Call(way, name, args, kwargs, result, written))
        return result


class _Program:
    """Recorded calls as the lines of a function."""

    def __init__(
        self,
        calls: list[_Call],
        buffers: tuple[torch.Tensor, ...],
        rest: tuple[torch.Tensor, ...],
        results: tuple[torch.Tensor, ...],
        into: torch.Tensor,
    ) -> None:
        self._results, self._into = results, into
        self._changing = {_place(buffer) for buffer in buffers}
        self._written = set[int]().union(*(call.written for call in calls))
        made, used = {id(t) for t in rest}, list(buffers)
        for call in calls:
            found = [t for t in _tensors((call.args, call.kwargs)) if id(t) not in made]
            used += found
            made.update(id(t) for t in (*found, *_tensors(call.result)))
        if any(_place(t) in self._written for t in (*rest, *used)):
            raise ValueError("what lives longer than a call is changed in place.")
        self._fixed = {id(t) for t in used}  # the same tensors at every call
        self._same_as: dict[int, torch.Tensor] = {}  # results that are their operand
        self._calls = self._needed([call for call in calls if not self._settled(call)])
        self._arguments = [f"x{k}" for k in range(len(buffers) + len(rest))]
        names = self._arguments[len(buffers) :]
        self._names = {id(t): name for name, t in zip(names, rest, strict=True)}
        self._constants: dict[str, Any] = {}

    def function(self) -> Function:
        """Return the function that carries out the calls."""
        last = {id(t): k for k, call in enumerate(self._calls) for t in self._operands(call)}
        lasting = {id(self._source(t)) for t in self._results} | {id(t) for t in self._results}
        lines, first = [], self._word(self._into)
        target = self._source(self._results[0])
        for k, call in enumerate(self._calls):
            arguments = [*map(self._word, call.args), *(f"{key}={self._word(v)}" for key, v in call.kwargs.items())]
            if call.result is target and call.name == "cat" and id(target) not in last:
                arguments.append(f"out={first}")
                self._names[id(target)] = first
                names = ["_"]
            else:
                names = self._new_names(k, call.result)
            lines.append(f"{', '.join(names)} = {self._word(call.way)}({', '.join(arguments)})")
            over = [t for t in self._operands(call) if last[id(t)] == k and id(t) not in lasting | self._fixed]
            if gone := sorted({self._names[id(t)] for t in over} - set(self._arguments)):
                lines.append(f"{' = '.join(gone)} = None")
        more = "".join(f"{self._word(t)}, " for t in self._results[1:])
        if target is not self._into and self._names.get(id(target)) != first:
            lines.append(f"{first}.copy_({self._word(target)})")
        lines.append(f"return ({first}, {more})")
        source = f"def replay({', '.join(self._arguments)}):\n" + "".join(f"    {line}\n" for line in lines)
        exec(compile(source, "<recorded operations>", "exec"), self._constants)
        return self._constants["replay"]

    def _settled(self, call: _Call) -> bool:
        """Return whether a call need not be repeated: its result is fixed, or is its operand."""
        if call.written:
            return False
        given, found = self._operands(call), _tensors(call.result)
        places = {_place(t) for t in given}
        is_view = bool(given) and all(_place(t) in places for t in found)
        small = is_view or sum(t.numel() for t in found) <= _LARGEST_CONSTANT
        fixed = call.name in _BY_SHAPE or (
            all(id(t) in self._fixed for t in given) and (is_view or places.isdisjoint(self._changing))
        )
        if fixed and small and self._written.isdisjoint(map(_place, found)):
            self._fixed.update(map(id, found))
            return True
        if is_view and len(given) == 1 and isinstance(call.result, torch.Tensor) and _alike(given[0], call.result):
            self._same_as[id(call.result)] = given[0]
            return True
        return False

    def _needed(self, calls: list[_Call]) -> list[_Call]:
        """Return the calls whose results are used."""
        wanted, kept = {id(self._source(t)) for t in self._results}, []
        for call in reversed(calls):
            if call.written or not wanted.isdisjoint(map(id, _tensors(call.result))):
                wanted.update(map(id, self._operands(call)))
                kept.append(call)
        return kept[::-1]

    def _source(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._same_as.get(id(tensor), tensor)

    def _operands(self, call: _Call) -> list[torch.Tensor]:
        return [self._source(t) for t in _tensors((call.args, call.kwargs))]

    def _new_names(self, k: int, result: Any) -> list[str]:
        """Name what a call returns: a tensor, or several."""
        if isinstance(result, torch.Tensor):
            self._names[id(result)] = f"v{k}"
            return [f"v{k}"]
        names = [f"v{k}_{j}" for j in range(len(result))]
        self._names.update({id(t): name for t, name in zip(result, names, strict=True)})
        return names + [""] * (len(names) == 1)

    def _word(self, value: Any) -> str:
        """Return the expression for an argument."""
        if isinstance(value, torch.Tensor):
            value = self._source(value)
            if id(value) in self._names:
                return self._names[id(value)]
        elif isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self._word, value))}]"
        elif value is None or isinstance(value, (bool, int)):
            return repr(value)
        name = f"k{id(value)}"
        self._constants[name] = value
        return name


def _ways(name: str) -> Iterator[Callable[..., Any]]:
    """Yield functions of an operation's name that torch binds directly, without looking up an overload."""
    name = {"_unsafe_view": "view"}.get(name, name)
    for owner in (torch, torch.Tensor, torch._C._nn):
        if callable(way := getattr(owner, name, None)):
            yield way


def _gives(way: Callable[..., Any], args: Any, kwargs: Any, value: Any) -> bool:
    try:
        return _same(way(*args, **kwargs), value)
    except (TypeError, RuntimeError, ValueError):
        return False


def _same(a: Any, b: Any) -> bool:
    """Whether two results agree in every bit and in their layout."""
    a, b = _tensors(a), _tensors(b)
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.stride() == y.stride() and torch.equal(x, y) for x, y in zip(a, b, strict=True)
    )


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.stride() == b.stride() and a.data_ptr() == b.data_ptr() and a.dtype == b.dtype


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
