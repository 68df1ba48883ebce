"""A folder that keeps the results of a sweep, one file a setting, each written whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
import xarray as xr

from numerics.errors import DamagedResultWarning, StoreMismatch

__all__ = ["SweepStore", "digest"]

_HEADER = "sweep.json"


class SweepStore:
    """Results by the setting they belong to, of one configuration.

    Parameters
    ----------
    folder
        Made if it does not exist.
    configuration
        What all results share, in words or digests by name; a store of another configuration is refused.

    Raises
    ------
    StoreMismatch
        If the folder belongs to another sweep.
    ValueError
        If it holds something else.

    Examples
    --------
    >>> import tempfile
    >>> store = SweepStore(tempfile.mkdtemp(), {"seed": "0"})
    >>> store.write("a", xr.Dataset({"value": 0.5}))
    >>> float(store.read("a")["value"]), store.read("b")
    (0.5, None)
    """

    def __init__(self, folder: str | os.PathLike[str], configuration: Mapping[str, str]) -> None:
        self._folder = Path(folder)
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"the store {self._folder} is a file; give a folder.")
        self._folder.mkdir(parents=True, exist_ok=True)
        header = self._folder / _HEADER
        if header.exists():
            self._check_header(header, configuration)
        elif any(self._folder.iterdir()):
            raise ValueError(f"the folder {self._folder} holds something else than a sweep; give a new or empty one.")
        else:
            _write(header, json.dumps(dict(configuration), indent=1))

    def _check_header(self, header: Path, configuration: Mapping[str, str]) -> None:
        try:
            stored = json.loads(header.read_text())
        except ValueError as error:
            raise ValueError(f"{header} cannot be read: {error}. Delete {self._folder}, or give another.") from error
        if different := [name for name, value in configuration.items() if stored.get(name) != value]:
            raise StoreMismatch(
                f"the store {self._folder} belongs to another sweep: its {', '.join(different)} "
                f"{'is' if len(different) == 1 else 'are'} not the same. Give another folder, or delete this one."
            )

    def read(self, key: str) -> xr.Dataset | None:
        """Return the result of a setting, None if there is none or, with a warning, if it is damaged."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            checksum, text = path.read_text().split("\n", 1)
            if hashlib.sha256(text.encode()).hexdigest() != checksum:
                raise ValueError("its checksum does not match")
            return xr.Dataset.from_dict(json.loads(text))
        except ValueError as error:  # too few lines, not text, or the checksum
            warnings.warn(f"{path} is damaged ({error}); its setting is computed again.", DamagedResultWarning, 2)
            return None

    def write(self, key: str, result: xr.Dataset) -> None:
        """Keep the result of a setting."""
        text = json.dumps(result.to_dict())  # digits of floats are enough to give back the same bits
        _write(self._path(key), f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _write(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all, even if the machine stops."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def digest(value: object) -> str:
    """Return a digest of numbers, arrays, tensors, names and what is built from them as tuples and dataclasses.

    Examples
    --------
    >>> digest((1.0, np.zeros(2))) == digest((1.0, torch.zeros(2, dtype=torch.float64)))
    True
    """
    result = hashlib.sha256()
    for piece in _pieces(value):
        result.update(f"{len(piece)} ".encode() + piece)
    return result.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield `value` in bytes that are the same in every process, with the length of whatever has parts."""
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        yield f"{value.dtype.str} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, torch.Tensor):
        yield from _pieces(value.detach().cpu().numpy())
    elif value is None or isinstance(value, (str, int, float, np.generic, torch.dtype)):
        yield repr(value).encode()
    else:
        name, parts = _parts(value)
        yield f"{name} {len(parts)}".encode()
        for part in parts:
            yield from _pieces(part)


def _parts(value: Any) -> tuple[str, Sequence[object]]:
    """Return a name and what else tells an object from others of that name."""
    if isinstance(value, (tuple, list)):
        return "list", value
    if isinstance(value, np.ndarray):
        return "list", value.tolist()
    if isinstance(value, Mapping):
        return "mapping", list(value.items())
    if is_dataclass(value) and not isinstance(value, type):
        return _name(type(value)), [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, xr.DataArray):
        return "DataArray", (value.dims, value.values, {str(k): c.values for k, c in sorted(value.coords.items())})
    if isinstance(value, torch.nn.Module):
        return str(value), (dict(value.state_dict()),)
    if isinstance(value, functools.partial):
        return "partial", (value.func, value.args, value.keywords)
    if isinstance(value, (FunctionType, BuiltinFunctionType)) and "<" not in value.__qualname__:
        return _name(value), ()
    raise TypeError(
        f"a store cannot recognise {value!r} again; name it at the top level of a module, or give no store."
    )


def _name(value: type | FunctionType | BuiltinFunctionType) -> str:
    return f"{value.__module__}.{value.__qualname__}"
