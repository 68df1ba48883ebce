"""Tensors in mappings, tuples and lists: what modules are called with, as one thing with samples along its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

__all__ = ["Tree", "described", "leaves", "mapped", "plain", "row_count"]

# A tensor, or a mapping, tuple or list of trees. (beartype does not read recursive aliases.)
Tree = Any


def plain(name: str, value: Tree) -> Tree:
    """Return the tree with its mappings as dicts and its sequences as tuples, refusing leaves that are no tensors.

    Examples
    --------
    >>> plain("inputs", [torch.zeros(2), {"mask": torch.ones(2)}])
    (tensor([0., 0.]), {'mask': tensor([1., 1.])})
    >>> plain("inputs", {"ids": [[1, 2]]})
    Traceback (most recent call last):
    ...
    TypeError: inputs['ids'][0][0] must be a torch tensor, but int was given.
    """
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Mapping):
        return {key: plain(f"{name}[{key!r}]", part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(plain(f"{name}[{k}]", part) for k, part in enumerate(value))
    raise TypeError(f"{name} must be a torch tensor, but {type(value).__name__} was given.")


def leaves(name: str, tree: Tree) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a plain tree, each with the words that lead to it.

    Examples
    --------
    >>> [where for where, _ in leaves("inputs", {"ids": torch.zeros(2), "mask": (torch.zeros(2),)})]
    ["inputs['ids']", "inputs['mask'][0]"]
    """
    if isinstance(tree, torch.Tensor):
        yield name, tree
    else:
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(f"{name}[{key!r}]", part)


def mapped(function: Callable[[torch.Tensor], torch.Tensor], tree: Tree) -> Tree:
    """Return the plain tree with `function` applied to each of its tensors.

    Examples
    --------
    >>> mapped(torch.neg, {"a": torch.ones(1)})
    {'a': tensor([-1.])}
    """
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: mapped(function, part) for key, part in tree.items()}
    return tuple(mapped(function, part) for part in tree)


def row_count(tree: Tree) -> int:
    """Return the number of rows of the first tensor of a plain tree.

    Examples
    --------
    >>> row_count({"ids": torch.zeros(3, 5)})
    3
    """
    return len(next(leaves("tree", tree))[1])


def described(tree: Tree) -> str:
    """Return the shapes of a plain tree in words, for a sentence.

    Examples
    --------
    >>> described(torch.zeros(2, 3)), described({"ids": torch.zeros(2, 3), "mask": torch.ones(2)})
    ('shape (2, 3)', 'shapes ids (2, 3), mask (2,)')
    """
    if isinstance(tree, torch.Tensor):
        return f"shape {tuple(tree.shape)}"
    where = [name.removeprefix("x").replace("'", "").strip("[]") for name, _ in leaves("x", tree)]
    return "shapes " + ", ".join(
        f"{name} {tuple(leaf.shape)}" for name, (_, leaf) in zip(where, leaves("x", tree), strict=True)
    )
