"""One digest of everything that a result depends on: numbers, settings, modules with their code and state, functions.

Two values have one digest only if what is computed with them is the same: of a module the code of its classes, its
settings, parameters and buffers; of a function its compiled code, defaults, closure and the globals it names. Libraries
count by their version. What cannot be recognised again is refused.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
import xarray as xr

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.module import TorchModel

__all__ = ["digest"]

# Code of these counts by the version of the library, not line by line.
_OWN = ("theory", "numerics", "validation", "paper_figs")
_LIBRARIES = ("torch", "numpy", "scipy", "xarray", "transformers", "tokenizers", *_OWN)


def digest(value: object) -> str:
    """Return a digest of a value and of all that it is made of, the same in every process.

    Parameters
    ----------
    value
        Numbers, text, arrays, tensors, modules, functions, classes, and what is built from them as mappings, sequences,
        dataclasses and partial functions.

    Raises
    ------
    TypeError
        If something in it cannot be recognised again.

    Examples
    --------
    >>> digest((1.0, np.zeros(2))) == digest((1.0, torch.zeros(2, dtype=torch.float64)))
    True
    >>> digest(torch.nn.ReLU()) == digest(torch.nn.Tanh())
    False
    """
    result = hashlib.sha256()
    for piece in _pieces(value, ()):
        result.update(f"{len(piece)} ".encode() + piece)
    return result.hexdigest()


def _pieces(value: Any, above: tuple[int, ...]) -> Iterator[bytes]:
    """Yield `value` in bytes that are the same in every process, with the length of whatever has parts.

    `above` are the identities of what the value is part of, so that what contains itself ends.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        yield f"{value.dtype.str} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, torch.Tensor):
        held = value.detach().cpu().contiguous()
        if held.dtype == torch.bfloat16:
            held = held.view(torch.int16)
        yield from _pieces(held.numpy(), above)
    elif value is None or isinstance(value, (bool, str, int, float, complex, np.generic, torch.dtype, torch.device)):
        yield repr(value).encode()
    elif isinstance(value, (bytes, bytearray)):
        yield bytes(value)
    elif id(value) in above:
        yield f"again {len(above) - above.index(id(value))}".encode()
    else:
        name, parts = _parts(value)
        yield f"{name} {len(parts)}".encode()
        for part in parts:
            yield from _pieces(part, (*above, id(value)))


def _parts(value: Any) -> tuple[str, list[object]]:
    """Return a name and what else tells an object from others of that name."""
    if isinstance(value, (tuple, list)):
        return "list", list(value)
    if isinstance(value, (set, frozenset)):
        return "set", [*sorted(map(repr, value))]
    if isinstance(value, (range, slice)):
        return type(value).__name__, [repr(value)]
    if isinstance(value, PurePath):
        return "path", [str(value)]
    if isinstance(value, np.ndarray):
        return "list", value.tolist()
    if isinstance(value, Mapping):
        return "mapping", [part for pair in value.items() for part in pair]
    if isinstance(value, TorchModel):
        return "TorchModel", [value.module, value.loss, value.free, value.call]
    if isinstance(value, ModuleCheckpoints):
        read = [(value.weights_at(t), sorted(value.state_at(t).items())) for t in range(len(value))]
        return "ModuleCheckpoints", [value.epochs, value.model, *read]
    if isinstance(value, xr.DataArray):
        coords = [part for key, c in sorted(value.coords.items(), key=str) for part in (str(key), c.values)]
        return "DataArray", [list(map(str, value.dims)), value.values, coords]
    if isinstance(value, torch.nn.Module):
        return _name(type(value)), _of_module(value)
    if isinstance(value, functools.partial):
        return "partial", [value.func, value.args, dict(sorted(value.keywords.items()))]
    if isinstance(value, MethodType):
        return "method", [value.__self__, value.__func__]
    if isinstance(value, (staticmethod, classmethod)):
        return type(value).__name__, [value.__func__]
    if isinstance(value, (property, functools.cached_property)):
        return "property", [value.fget if isinstance(value, property) else value.func]
    if isinstance(value, FunctionType):
        return ("function", [_library(value)]) if _library(value) else ("function", _of_function(value))
    if isinstance(value, CodeType):
        return "code", [value.co_code, value.co_names, value.co_varnames, [c for c in value.co_consts if c is not None]]
    if isinstance(value, type):
        return ("class", [_library(value)]) if _library(value) else ("class", _of_class(value))
    if isinstance(value, ModuleType):
        return "library", [value.__name__, _version(value.__name__)]
    if isinstance(value, BuiltinFunctionType) or (callable(value) and hasattr(value, "__name__")):
        own = getattr(value, "__self__", None)
        bound = [] if own is None or isinstance(own, (ModuleType, type)) else [own]
        return "builtin", [str(getattr(value, "__module__", "")), value.__name__, *bound]
    if is_dataclass(value):
        held = [part for field in fields(value) for part in (field.name, getattr(value, field.name))]
        return _name(type(value)), [type(value), *held]
    if type(value).__module__.split(".")[0] in sys.stdlib_module_names and " at 0x" not in repr(value):
        return _name(type(value)), [repr(value)]
    if hasattr(value, "__dict__") and not inspect.isgenerator(value):
        return _name(type(value)), [type(value), dict(sorted(vars(value).items()))]
    raise TypeError(
        f"a store cannot recognise {value!r} of type {type(value).__name__} again; use functions, dataclasses, tensors "
        "and plain values, or give no store."
    )


def _of_module(value: torch.nn.Module) -> list[object]:
    """Return the code of a module's class, its settings, and the same of its children, with all tensors."""
    tensors = [*value.named_parameters(recurse=False), *value.named_buffers(recurse=False)]
    plain = {
        key: held
        for key, held in sorted(vars(value).items())
        if not key.startswith("_") and key != "training" and not isinstance(held, torch.Tensor)
    }
    settings = [value.extra_repr()] if _library(type(value)) else [plain]
    children = [part for pair in value.named_children() for part in pair]
    hooks = [*value._forward_hooks.values(), *value._forward_pre_hooks.values()]
    return [type(value), *settings, *[part for pair in tensors for part in pair], *children, *hooks]


def _of_function(value: FunctionType) -> list[object]:
    """Return a function's code, defaults, closure, and the globals that it names."""
    closure = [_content(cell) for cell in value.__closure__ or ()]
    named = [
        part for name in _names(value.__code__) if name in value.__globals__ for part in (name, value.__globals__[name])
    ]
    return [value.__code__, value.__defaults__, dict(sorted((value.__kwdefaults__ or {}).items())), closure, named]


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _names(code: CodeType) -> list[str]:
    """Return the names that a function and the functions within it look up."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return sorted({*code.co_names, *inner})


def _of_class(value: type) -> list[object]:
    """Return the bases and the functions of a class."""
    held = {
        key: member
        for key, member in sorted(vars(value).items())
        if isinstance(member, (FunctionType, staticmethod, classmethod, property, functools.cached_property))
        or (not key.startswith("__") and isinstance(member, (bool, int, float, str, tuple)))
    }
    return [_name(value), [base for base in value.__bases__ if base is not object], held]


def _library(value: Any) -> str:
    """Return the library that a function or class belongs to, with its version; empty for a user's own."""
    owner = (getattr(value, "__module__", None) or "").split(".")[0]
    if owner in _LIBRARIES or owner in sys.stdlib_module_names - {"__main__"}:
        return f"{_name(value)} {_version(owner)}"
    return ""


def _version(name: str) -> str:
    top = name.split(".")[0]
    if top in sys.stdlib_module_names:
        return sys.version.split()[0]
    try:
        return version("stagewise" if top in _OWN else top)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(top), "__version__", ""))


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
