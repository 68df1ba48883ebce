"""A function of a weights buffer recorded once as a list of tensor operations, and replayed without what is between them.

torch.func pays for its transformations at every call, many times what the operations on a small network cost. What it
does is the same at every call, so it is recorded (make_fx); views of the buffer and what does not depend on the weights
are worked out once, views that change nothing are left out, and operations are called by their shortest way. The
operations and their operands are the same, and so are the results, bit for bit: that is checked at other weights before
a recording is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

__all__ = ["captured"]

Function = Callable[..., tuple[torch.Tensor, ...]]

_BY_SHAPE = {"ones_like", "zeros_like", "full_like", "new_zeros", "new_ones", "new_full", "scalar_tensor"}
_LARGEST_CONSTANT = 2**22  # numbers; a larger one that could be kept is made anew at every call
_CHANGE = 0.1  # of weights, relative to their own size, where a recording is checked


def captured(
    function: Function, buffer: torch.Tensor, rest: tuple[torch.Tensor, ...] = (), *, into: torch.Tensor
) -> Function | None:
    """Return a function that does what `function` does, faster; None if it cannot be recorded.

    Parameters
    ----------
    function
        Of the buffer and further tensors; returns tensors, the first of which is written into `into`.
    buffer
        Weights. The result reads them where they are: it may only be called with this very tensor.
    rest
        Further arguments, of the shapes that calls will have.
    into
        Where the first result goes; nothing else is handed out twice.
    """
    before = buffer.clone()
    try:
        replay = _Recording(function, buffer, rest, into).function()
        generator = torch.Generator(buffer.device).manual_seed(0)
        noise = torch.empty_like(buffer).normal_(generator=generator)
        buffer.addcmul_(noise, buffer.abs() + buffer.std(), value=_CHANGE)
        turned = tuple(tensor.flip(0) for tensor in rest)
        if _same(replay(buffer, *turned), function(buffer, *turned)):
            return replay
    except Exception:  # noqa: BLE001, S110: whatever a tracer says of a module, the module can be run without it
        pass
    finally:
        buffer.copy_(before)
    return None


class _Recording:
    """The graph of a function, its nodes evaluated one by one and made simpler where that changes no result."""

    def __init__(self, function: Function, buffer: torch.Tensor, rest: tuple[torch.Tensor, ...], into: torch.Tensor):
        self._module: GraphModule = make_fx(function)(buffer, *rest)
        self._graph = self._module.graph
        if any(isinstance(node.target, OpOverload) and node.target._schema.is_mutable for node in self._graph.nodes):
            raise ValueError("an operation in place may change what others see of its operand.")
        self._place, self._into = _place(buffer), into
        self._values: dict[Node, Any] = {}
        self._fixed: set[Node] = set()  # values that are the same tensors at every call
        self._last = {user: node for node in self._graph.nodes for user in node.all_input_nodes}
        arguments = iter((buffer, *rest))
        for node in list(self._graph.nodes):
            if node.op == "placeholder":
                self._values[node] = next(arguments)
                if self._values[node] is buffer:
                    self._fixed.add(node)
            elif node.op == "get_attr":
                self._values[node] = getattr(self._module, node.target)
                self._fixed.add(node)
            elif node.op == "call_function":
                self._visit(node)
                self._forget(node)

    def function(self) -> Function:
        """Return the recorded function."""
        self._keep_fixed()
        self._redirect()
        self._graph.eliminate_dead_code()
        self._module.recompile()
        return self._module.forward

    def _visit(self, node: Node) -> None:
        """Evaluate a node; find out whether it is fixed, or changes nothing, or has a shorter call."""
        args, kwargs = (map_arg(part, self._values.__getitem__) for part in (node.args, node.kwargs))
        value = self._values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        inputs = [tensor for k in node.all_input_nodes for tensor in _tensors(self._values[k])]
        places = {_place(tensor) for tensor in inputs}
        is_view = all(_place(tensor) in places for tensor in _tensors(value))
        if isinstance(node.target, OpOverload) and node.target._schema.name.split("::")[-1] in _BY_SHAPE:
            fixed = True
        else:
            fixed = self._fixed.issuperset(node.all_input_nodes) and (is_view or self._place not in places)
        if fixed and (is_view or sum(tensor.numel() for tensor in _tensors(value)) <= _LARGEST_CONSTANT):
            self._fixed.add(node)
        elif is_view and len(inputs) == 1 and isinstance(value, torch.Tensor) and _alike(value, inputs[0]):
            self._values[node] = inputs[0]
            node.replace_all_uses_with(node.all_input_nodes[0])
        elif isinstance(node.target, OpOverload):
            node.target = next((way for way in _ways(node.target) if _gives(way, args, kwargs, value)), node.target)

    def _forget(self, node: Node) -> None:
        """Let go of values that no later node takes."""
        for used in node.all_input_nodes:
            if self._last.get(used) is node and used not in self._fixed:
                self._values.pop(used, None)

    def _keep_fixed(self) -> None:
        """Turn fixed values into attributes, plain ones: torch looks up registered buffers slowly."""
        fixed = [node for node in self._graph.nodes if node in self._fixed and node.op != "placeholder"]
        for k, node in enumerate(fixed):
            if isinstance(self._values[node], torch.Tensor) and not self._fixed.issuperset(node.users):
                self._module.__dict__[f"_fixed_{k}"] = self._values[node]
                with self._graph.inserting_before(node):
                    node.replace_all_uses_with(self._graph.create_node("get_attr", f"_fixed_{k}"))

    def _redirect(self) -> None:
        """Write the first result where it is asked for."""
        (output,) = (node for node in self._graph.nodes if node.op == "output")
        first = output.args[0][0]
        self._module.__dict__["_into"] = self._into
        with self._graph.inserting_before(first if first.target is torch.cat else output):
            into = self._graph.create_node("get_attr", "_into")
        if first.target is torch.cat and len(first.users) == 1:
            first.kwargs = {**first.kwargs, "out": into}
        else:
            with self._graph.inserting_before(output):
                copied = self._graph.call_function(torch.Tensor.copy_, (into, first))
            output.args = ((copied, *output.args[0][1:]),)


def _ways(operation: OpOverload) -> list[Callable[..., Any]]:
    """Return functions of the operation's name that torch binds directly, without looking up an overload."""
    name = operation._schema.name.split("::")[-1]
    name = {"_unsafe_view": "view"}.get(name, name)
    places = (torch, torch.Tensor, torch._C._nn)
    return [getattr(place, name) for place in places if callable(getattr(place, name, None))]


def _gives(way: Callable[..., Any], args: Any, kwargs: Any, value: Any) -> bool:
    try:
        return _same(way(*args, **kwargs), value)
    except (TypeError, RuntimeError, ValueError):
        return False


def _same(a: Any, b: Any) -> bool:
    """Whether two results agree in every bit and in their layout."""
    pairs = list(zip(_tensors(a), _tensors(b), strict=True))
    return all(x.stride() == y.stride() and torch.equal(x, y) for x, y in pairs)


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.stride() == b.stride() and a.data_ptr() == b.data_ptr() and a.dtype == b.dtype


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
