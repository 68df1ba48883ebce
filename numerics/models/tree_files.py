"""A state in one file: tensors in mappings, lists and tuples, with numbers and text, as safetensors and JSON.

Nothing in such a file is code, and none is run when it is read. A digest of all of it is kept with it, so that a file
with a bit that has changed, or that ends too early, is refused and not taken for another state.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from numerics.stores import write_whole

__all__ = ["read_tree", "write_tree"]

_FORMAT = "stagewise tree 1"
_SEQUENCES = {"list": list, "tuple": tuple}


def write_tree(path: str | os.PathLike[str], kind: str, value: Any) -> None:
    """Write a state to a file, which is never left half written.

    Parameters
    ----------
    path
        File.
    kind
        What it is a state of, which `read_tree` must be told again.
    value
        Mappings, lists and tuples of tensors, numbers, text and None.

    Raises
    ------
    TypeError
        If something else is in it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_tree(f"{folder}/state", "example", {0: [torch.ones(2), None], "step": (3, 0.1)})
    ...     read_tree(f"{folder}/state", "example")
    {0: [tensor([1., 1.]), None], 'step': (3, 0.1)}
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_packed(value, tensors))
    metadata = {"format": _FORMAT, "kind": kind, "tree": tree, "digest": _digest(kind, tree, tensors)}
    write_whole(Path(path), save(tensors, metadata))


def read_tree(path: str | os.PathLike[str], kind: str) -> Any:
    """Read a state from a file.

    Parameters
    ----------
    path
        File.
    kind
        What it is a state of.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not the file of such a state, or is damaged.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}.")
    with source.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        raise ValueError(
            f"{source} is not a saved state of {kind} as this version reads it: archives and pickles, as earlier "
            "versions and torch.save write them, are not opened. Delete it and run anew."
        )
    try:
        with safe_open(source, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        tree, given = metadata["tree"], metadata["kind"]
        sound = metadata["format"] == _FORMAT and metadata["digest"] == _digest(given, tree, tensors)
        value = _unpacked(json.loads(tree), tensors) if sound else None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{source} is not a saved state of {kind}, or it is damaged: delete it and run anew."
        ) from error
    if not sound or given != kind:
        what = f"is a state of {given}" if sound else "is damaged"
        raise ValueError(f"{source} {what}, not a saved state of {kind}: delete it and run anew, or name another file.")
    return value


def _packed(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return what JSON can hold, with the tensors put aside."""
    if isinstance(value, torch.Tensor):
        name = f"tensor {len(tensors)}"
        # A copy of its own: the format holds neither views nor memory that two of them share.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_packed(k, tensors), _packed(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_packed(part, tensors) for part in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"a state holds mappings, lists, tuples, tensors, numbers and text, but {type(value).__name__} was given."
    )


def _unpacked(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpacked(key, tensors): _unpacked(part, tensors) for key, part in content}
    return _SEQUENCES[kind](_unpacked(part, tensors) for part in content)


def _digest(kind: str, tree: str, tensors: dict[str, torch.Tensor]) -> str:
    result = hashlib.sha256()
    for text in (kind, tree):
        result.update(f"{len(text)} {text}".encode())
    for name, tensor in sorted(tensors.items()):
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        result.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return result.hexdigest()
