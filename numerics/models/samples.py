"""Samples of any kind: what a model is trained on, sampled under and asked about."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from theory.hierarchy import Dataset

__all__ = ["Samples"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of any kind: inputs and targets with the samples along the first axis.

    Parameters
    ----------
    inputs, targets
        Tensors, shapes (N, ...) and (N, ...), of any dtype; real ones are cast to the dtype of the weights where used.
    names
        N distinct names; "sample-0", "sample-1", ... if not given.

    Raises
    ------
    ValueError
        If there is no sample, lengths differ, a value is not finite, or a name stands twice.

    Examples
    --------
    >>> Samples(torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "b")).index("b")
    1
    >>> Samples(torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "a"))
    Traceback (most recent call last):
    ...
    ValueError: names must be distinct, but 'a' stands twice.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("inputs", "targets"):
            value = getattr(self, key)
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"{key} must be a torch tensor, but {type(value).__name__} was given.")
            if value.ndim == 0 or len(value) == 0:
                raise ValueError(f"{key} holds no sample: its shape is {tuple(value.shape)}.")
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise ValueError(f"{key} holds a value that is not finite; remove or impute it first.")
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"inputs hold {len(self.inputs)} samples, but targets {len(self.targets)}.")
        names = tuple(str(name) for name in self.names) or tuple(f"sample-{i}" for i in range(len(self.inputs)))
        if len(names) != len(self.inputs):
            raise ValueError(f"{len(names)} names were given for {len(self.inputs)} samples.")
        if twice := [name for k, name in enumerate(names) if name in names[:k]]:
            raise ValueError(f"names must be distinct, but {twice[0]!r} stands twice.")
        object.__setattr__(self, "names", names)

    @classmethod
    def of(cls, data: Dataset | Samples) -> Samples:
        """Return `data` as samples; the arrays of a `theory.Dataset` become float64 tensors."""
        if isinstance(data, Samples):
            return data
        return cls(torch.tensor(data.inputs), torch.tensor(data.targets), data.names)

    def __len__(self) -> int:
        """Return the number of samples N."""
        return len(self.inputs)

    def index(self, name: str) -> int:
        """Return the position of a sample, or say which names there are."""
        if name not in self.names:
            raise KeyError(f"no sample is called {name!r}; there are {', '.join(self.names)}.")
        return self.names.index(name)

    def __getitem__(self, positions: slice | torch.Tensor) -> Samples:
        """Return the samples at some positions."""
        names = tuple(self.names[i] for i in torch.arange(len(self))[positions].tolist())
        return Samples(self.inputs[positions], self.targets[positions], names)

    def like(self, weights: torch.Tensor) -> Samples:
        """Return the samples on the device of `weights`, real tensors in its dtype."""

        def cast(value: torch.Tensor) -> torch.Tensor:
            return value.to(weights) if value.is_floating_point() else value.to(weights.device)

        return Samples(cast(self.inputs), cast(self.targets), self.names)
