"""Samples of any kind, and the parts they are made of: what a model is trained on, sampled under and asked about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from numerics.models.trees import Tree, leaves, mapped, plain
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["Parts", "Samples", "refuse_twice"]


def refuse_twice(label: str, names: Sequence[str]) -> None:
    """Refuse names of which one stands twice, in time linear in their number.

    Examples
    --------
    >>> refuse_twice("names", ("a", "b", "a"))
    Traceback (most recent call last):
    ...
    ValueError: names must be distinct, but 'a' stands twice.
    """
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{label} must be distinct, but {name!r} stands twice.")
        seen.add(name)


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of any kind: inputs and targets with the samples along the first axis.

    Parameters
    ----------
    inputs, targets
        Each a tensor of shape (N, ...), or a mapping, tuple or list of such tensors (of mappings ...), of any dtype;
        real tensors are cast to the dtype of the weights where used.
    names
        N distinct names; "sample-0", "sample-1", ... if not given.
    present
        Where a loss has several parts a sample, shape (N, k) of bool: which parts there are. A part that is absent
        counts nowhere. All of them if not given.

    Raises
    ------
    TypeError
        If there is something else than tensors.
    ValueError
        If there is no sample, lengths differ, a value is not finite, a name stands twice, or a sample has no part.

    Examples
    --------
    >>> Samples(torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "b")).index("b")
    1
    >>> Samples(torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "a"))
    Traceback (most recent call last):
    ...
    ValueError: names must be distinct, but 'a' stands twice.
    >>> ids = torch.tensor([[5, 3, 1], [2, 7, 4]])
    >>> len(Samples({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids)[1:])
    1
    """

    inputs: Tree
    targets: Tree
    names: tuple[str, ...] = ()
    present: torch.Tensor | None = None

    def __post_init__(self) -> None:
        counts = {}
        for key in ("inputs", "targets"):
            tree = plain(key, getattr(self, key))
            object.__setattr__(self, key, tree)
            tensors = list(leaves(key, tree))
            if not tensors:
                raise ValueError(f"{key} holds no tensor; give at least one.")
            for where, value in tensors:
                if value.ndim == 0 or len(value) == 0:
                    raise ValueError(f"{where} holds no sample: its shape is {tuple(value.shape)}.")
                if value.is_floating_point() and not torch.isfinite(value).all():
                    raise ValueError(f"{where} holds a value that is not finite; remove or impute it first.")
                counts[where] = len(value)
        (first, n), *others = counts.items()
        for where, count in others:
            if count != n:
                raise ValueError(f"{first} hold {n} samples, but {where} {count}.")
        names = tuple(map(str, self.names)) or tuple(f"sample-{i}" for i in range(n))
        if len(names) != n:
            raise ValueError(f"{len(names)} names were given for {n} samples.")
        refuse_twice("names", names)
        object.__setattr__(self, "names", names)
        if self.present is not None:
            self._check_present(n)

    def _check_present(self, n: int) -> None:
        present = self.present
        if not isinstance(present, torch.Tensor) or present.dtype != torch.bool:
            raise TypeError("present must be a torch tensor of bool, True where a sample has the part.")
        if present.ndim != 2 or len(present) != n:
            raise ValueError(f"present has shape {tuple(present.shape)}, but ({n}, parts of a sample) is needed.")
        if not (some := present.any(1)).all():
            raise ValueError(f"sample {self.names[int((~some).nonzero()[0])]!r} has no part that is present.")

    @classmethod
    def of(cls, data: Dataset | Samples) -> Samples:
        """Return `data` as samples; the arrays of a `theory.Dataset` become float64 tensors."""
        if isinstance(data, Samples):
            return data
        made_by = "numerics.Samples(inputs, targets) or theory.Dataset(inputs, targets)"
        checks.instance("dataset", data, Dataset, made_by=made_by)
        return cls(torch.tensor(data.inputs), torch.tensor(data.targets), data.names)

    def __len__(self) -> int:
        """Return the number of samples N."""
        return len(self.names)

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray | torch.Tensor) -> Samples:
        """Return some of the samples, by a slice or by positions."""
        where: slice | torch.Tensor = rows if isinstance(rows, slice) else torch.as_tensor(np.asarray(rows))
        positions = range(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows).tolist()

        def taken(value: torch.Tensor) -> torch.Tensor:
            return value[where if isinstance(where, slice) else where.to(value.device)]

        present = None if self.present is None else taken(self.present)
        names = tuple(self.names[i] for i in positions)
        return self._checked(mapped(taken, self.inputs), mapped(taken, self.targets), names, present)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Return the position of a sample, or say which names there are."""
        if name not in self._positions:
            shown = ", ".join(self.names[:20]) + (", ..." if len(self) > 20 else "")
            raise KeyError(f"no sample is called {name!r}; there are {shown}.")
        return self._positions[name]

    def like(self, weights: torch.Tensor) -> Samples:
        """Return the samples on the device of `weights`, real tensors in its dtype."""

        def cast(value: torch.Tensor) -> torch.Tensor:
            return value.to(weights) if value.is_floating_point() else value.to(weights.device)

        present = None if self.present is None else self.present.to(weights.device)
        return self._checked(mapped(cast, self.inputs), mapped(cast, self.targets), self.names, present)

    @classmethod
    def _checked(cls, inputs: Tree, targets: Tree, names: tuple[str, ...], present: torch.Tensor | None) -> Samples:
        """Return samples made from checked ones, without looking at every number again."""
        result = object.__new__(cls)
        for key, value in (("inputs", inputs), ("targets", targets), ("names", names), ("present", present)):
            object.__setattr__(result, key, value)
        return result

    @staticmethod
    def joined(first: Samples, second: Samples) -> Samples:
        """Return the samples of both, one after the other, with names of their own.

        Raises
        ------
        ValueError
            If their inputs, targets or parts are of another kind.
        """
        trees = []
        for key in ("inputs", "targets"):
            a, b = getattr(first, key), getattr(second, key)
            own, others = ([(w, tuple(v.shape[1:])) for w, v in leaves(key, tree)] for tree in (a, b))
            if own != others:
                raise ValueError(f"the two sets of samples cannot be joined: {own} and {others} differ.")
            rest = iter([value for _, value in leaves(key, b)])
            trees.append(_lengthened(a, rest))
        if (first.present is None) != (second.present is None):
            raise ValueError("the two sets of samples cannot be joined: only one of them says which parts are present.")
        present = None
        if first.present is not None and second.present is not None:
            present = torch.cat([first.present, second.present])
        names = tuple(f"sample-{i}" for i in range(len(first) + len(second)))
        return Samples._checked(trees[0], trees[1], names, present)


def _lengthened(tree: Tree, rest: Iterator[torch.Tensor]) -> Tree:
    return mapped(lambda value: torch.cat([value, next(rest).to(value)]), tree)


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of samples as items of their own: tokens of sequences, pixels of images, outputs of a regression.

    The training loss of a sample is the mean over its parts, so the weight of one of its k_i parts enters the mean
    loss by 1 / (N k_i).

    Parameters
    ----------
    samples
        The samples, whose loss has shape (N, k).
    names
        Names of the k parts, or their number, which names them "0", "1", ...

    Raises
    ------
    ValueError
        If the number of parts is not that of ``samples.present``, or a name stands twice.

    Examples
    --------
    >>> present = torch.tensor([[True, True], [True, False]])
    >>> tokens = Parts(Samples(torch.zeros(2, 3), torch.zeros(2, 2), ("a", "b"), present), 2)
    >>> tokens.labels
    (('a', '0'), ('a', '1'), ('b', '0'))
    >>> tokens.share
    array([0.5, 0.5, 1. ])
    """

    samples: Samples
    names: Sequence[str] | int

    def __post_init__(self) -> None:
        if not isinstance(self.samples, Samples):
            raise TypeError(f"samples must be Samples, but {type(self.samples).__name__} was given.")
        names = tuple(map(str, range(self.names) if isinstance(self.names, int) else self.names))
        if not names:
            raise ValueError("names is empty; a sample has at least one part.")
        refuse_twice("names", names)
        present = self.samples.present
        if present is not None and present.shape[1] != len(names):
            raise ValueError(f"{len(names)} parts were named, but samples.present has {present.shape[1]} of them.")
        object.__setattr__(self, "names", names)

    @cached_property
    def _where(self) -> tuple[np.ndarray, np.ndarray]:
        if self.samples.present is not None:
            rows, columns = self.samples.present.cpu().numpy().nonzero()
        else:
            assert not isinstance(self.names, int)
            rows, columns = np.indices((len(self.samples), len(self.names))).reshape(2, -1)
        return rows, columns

    @property
    def sample(self) -> Int[np.ndarray, " m"]:
        """Position of each part's sample, shape (m,)."""
        return self._where[0]

    @property
    def part(self) -> Int[np.ndarray, " m"]:
        """Position of each part within its sample, shape (m,)."""
        return self._where[1]

    @property
    def share(self) -> Float[np.ndarray, " m"]:
        """Share 1 / k_i of each part in the loss of its sample, shape (m,)."""
        return 1.0 / np.bincount(self.sample, minlength=len(self.samples))[self.sample]

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Name of the sample and of the part, for every part that is present."""
        assert not isinstance(self.names, int)
        return tuple((self.samples.names[i], self.names[k]) for i, k in zip(self.sample, self.part, strict=True))

    def __len__(self) -> int:
        """Return the number of parts that are present."""
        return len(self.sample)

    def flattened(self, losses: torch.Tensor) -> torch.Tensor:
        """Return the losses of parts that are present, shape (..., m), from losses of shape (..., N, k)."""
        assert not isinstance(self.names, int)
        if tuple(losses.shape[-2:]) != (len(self.samples), len(self.names)):
            raise ValueError(
                f"the loss has shape {tuple(losses.shape)}, but one number for each of the {len(self.samples)} samples "
                f"and {len(self.names)} parts is needed."
            )
        if self.samples.present is None:
            return losses.flatten(-2)
        rows, columns = (torch.as_tensor(index, device=losses.device) for index in self._where)
        return losses[..., rows, columns]
