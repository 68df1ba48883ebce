r"""Torch operations with right second derivatives, in float64: what a module runs in to be differentiated.

Fused attention has no second derivative, nor have cuDNN's recurrent layers: the kernels written in elementary
operations take their place. ``torch._weight_norm`` has a wrong one
(torch 2.13); it is

.. math:: W = v \, g / |v|

and is evaluated as that. Tensors that a module or a loss holds or makes in float32 (class weights, ``torch.zeros`` in
``forward``) go along in float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from numerics.models.attention import elementary_attention

__all__ = ["Elementary", "differentiable"]

_CASTS = (torch.Tensor.to, torch.Tensor.type, torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)


class Elementary(TorchFunctionMode):
    """Evaluates torch functions in float64 and weight normalisation in elementary operations; notes where it did.

    Parameters
    ----------
    float64
        Whether numbers go along in float64; if not, they stay what they are.

    Attributes
    ----------
    changed
        What it replaced, in words: "float64" where a tensor came in or came out in another dtype, "weight norm".

    Examples
    --------
    >>> with Elementary() as mode:
    ...     made = torch.ones(2) + torch.ones(2, dtype=torch.float64)
    >>> made.dtype, mode.changed
    (torch.float64, {'float64'})
    """

    def __init__(self, *, float64: bool = True) -> None:
        super().__init__()
        self.changed: set[str] = set()
        self._float64 = float64

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> object:
        """Evaluate one function."""
        if not self._float64:
            if func is not torch._weight_norm:
                return func(*args, **kwargs or {})
            self.changed.add("weight norm")
            return _normed(*args, **kwargs or {})
        if func in _CASTS:
            cast = func(*args, **kwargs or {})
            if not (isinstance(cast, torch.Tensor) and cast.is_floating_point() and args[0].is_floating_point()):
                return cast
            return cast if cast.dtype == torch.float64 else args[0].double()
        given = args, kwargs or {}
        args, kwargs = tree_map(_double, given)
        if func is torch._weight_norm:
            self.changed.add("weight norm")
            return _normed(*args, **kwargs)
        result = func(*args, **kwargs)
        if not isinstance(result, (torch.Tensor, tuple, list)):
            return result
        doubled = tree_map(_double, result)
        pairs = zip(tree_leaves((given, result)), tree_leaves(((args, kwargs), doubled)), strict=True)
        if any(before is not after for before, after in pairs):
            self.changed.add("float64")
        return doubled


def _double(value: object) -> object:
    if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point or value.dtype == torch.float64:
        return value
    return value.double()


def _normed(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> torch.Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


@contextmanager
def differentiable(module: torch.nn.Module, mode: Elementary | None = None) -> Iterator[None]:
    """Run a module's forward pass in kernels that have second derivatives, and in `mode` if one is given."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet implemented")
        stack.enter_context(elementary_attention())
        if torch.backends.cudnn.enabled and any(isinstance(m, torch.nn.RNNBase) for m in module.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if mode is not None:
            stack.enter_context(mode)
        yield
