"""Weights of one torch model at several epochs of its training, in memory or read from files one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.models.module import TorchModel
from numerics.models.promise import check_own_losses
from numerics.models.samples import Samples
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["ModuleCheckpoints", "increasing_epochs", "saved_positions"]


@runtime_checkable
class WeightReader(Protocol):
    """Where weights come from, one checkpoint at a time."""

    def __len__(self) -> int:
        """Return the number of checkpoints T."""
        ...

    def read(self, t: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return flat weights, shape (d,), and frozen parameters and buffers by name."""
        ...

    def part(self, positions: Sequence[int]) -> WeightReader:
        """Return some of the checkpoints."""
        ...


@dataclass(frozen=True, eq=False)
class ModuleCheckpoints:
    """Weights of one torch model at several epochs of its training.

    Parameters
    ----------
    epochs
        Epochs, shape (T,), strictly increasing.
    model
        The module and its loss.
    weights
        Flat weights, shape (T, d), float32 or float64 on any device; or what reads them, see `load`.
    states
        Frozen parameters and buffers that differ between checkpoints (statistics of batch normalisation, say), by
        name, each of shape (T, ...). What is not named is the module's own at every checkpoint.

    Raises
    ------
    ValueError
        If shapes do not fit together, an entry is not finite, a name is unknown, or the epochs do not increase.
    TypeError
        If the weights are of another dtype.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(3, 2))
    >>> len(ModuleCheckpoints(np.array([0, 100]), model, torch.zeros(2, 8)))
    2
    """

    epochs: np.ndarray
    model: TorchModel
    weights: torch.Tensor | WeightReader
    states: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        epochs = increasing_epochs(self.epochs)
        refuse_masked("weights", self.weights)
        object.__setattr__(self, "epochs", epochs)
        if not isinstance(self.weights, (torch.Tensor, np.ndarray, list, tuple)):
            if len(self.weights) != len(epochs):
                raise ValueError(f"there are {len(self.weights)} checkpoints, but {len(epochs)} epochs.")
            return
        weights = torch.as_tensor(self.weights).detach()
        if weights.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"weights must be float32 or float64, but are {weights.dtype}.")
        wanted = (len(epochs), self.model.n_parameters)
        if tuple(weights.shape) != wanted:
            raise ValueError(
                f"weights have shape {tuple(weights.shape)}, but (epochs, parameters) = {wanted} is needed."
            )
        self._check_finite("the weights are", weights)
        object.__setattr__(self, "weights", weights)
        self._check_states()

    def _check_states(self) -> None:
        held = self.model.state
        for name, value in self.states.items():
            if name not in held:
                shown = ", ".join(held) or "none"
                raise ValueError(f"states names {name!r}, but the frozen parameters and buffers are {shown}.")
            wanted = (len(self.epochs), *held[name].shape)
            if tuple(value.shape) != wanted:
                raise ValueError(f"states[{name!r}] has shape {tuple(value.shape)}, but {wanted} is needed.")
            if value.is_floating_point():
                self._check_finite(f"{name!r} is", value)

    def _check_finite(self, what: str, values: torch.Tensor) -> None:
        finite = torch.isfinite(values).flatten(1).all(1)
        if not finite.all():
            raise ValueError(f"{what} not finite at epoch {self.epochs[int((~finite).nonzero()[0])]:g}.")

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        model: TorchModel,
        *,
        epochs: ArrayLike | None = None,
        rename: Callable[[str], str] | None = None,
        ignore: Sequence[str] = (),
    ) -> ModuleCheckpoints:
        """Return checkpoints that stay in their files and are read one at a time, when they are needed.

        Parameters
        ----------
        source
            A folder of checkpoints, or the checkpoints: files (.safetensors, or state dictionaries saved by torch.save:
            .pt, .pth, .bin, .ckpt) and folders as Hugging Face writes them, sharded or not. Names may carry the
            prefixes of DistributedDataParallel, torch.compile and Lightning. Only tensors are read: no code in a file
            is run.
        model
            The module whose weights they are.
        epochs
            Epochs, in the order of `source`; read from the names of files or folders if not given ("step-1000",
            "epoch=3", "checkpoint-500"), or from the metadata that `CheckpointRecorder` writes.
        rename
            Changes a tensor's name in the files to its name in the module.
        ignore
            Glob patterns of tensors in the files that the module does not have and does not need.

        Raises
        ------
        FileNotFoundError
            If there is no such file or folder.
        ValueError
            If a tensor is missing, left over or of another shape (it is named), a file cannot be read or holds more
            than tensors, or epochs cannot be told.

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> module = torch.nn.Linear(3, 2)
        >>> for step in (0, 10, 200):
        ...     torch.save(module.state_dict(), f"{folder}/step-{step}.pt")
        >>> ModuleCheckpoints.load(folder, TorchModel(module)).epochs
        array([  0.,  10., 200.])
        """
        from numerics.models.files import CheckpointFiles

        reader, found = CheckpointFiles.find(source, model, epochs, rename, ignore)
        return cls(found, model, reader)

    @classmethod
    def of_states(
        cls, epochs: ArrayLike, model: TorchModel, states: Sequence[Mapping[str, torch.Tensor]]
    ) -> ModuleCheckpoints:
        """Return checkpoints from state dictionaries in memory, by the names of their tensors.

        Parameters
        ----------
        epochs
            Epochs, shape (T,), strictly increasing.
        model
            The module whose states they are.
        states
            A ``module.state_dict()`` for each epoch. (A module goes on changing the tensors of its own: copy them.)

        Raises
        ------
        ValueError
            If a tensor is missing, left over or of another shape.

        Examples
        --------
        >>> module = torch.nn.Linear(3, 2)
        >>> ModuleCheckpoints.of_states([0], TorchModel(module), [module.state_dict()]).weights.shape
        torch.Size([1, 8])
        """
        own = {name: tuple(value.shape) for name, value in model.module.state_dict().items()}
        for state in states:
            if missing := own.keys() - state.keys():
                raise ValueError(f"a state lacks {', '.join(sorted(missing))}.")
            if extra := state.keys() - own.keys():
                raise ValueError(f"a state has {', '.join(sorted(extra))}, which the module does not have.")
            for name, shape in own.items():
                if tuple(state[name].shape) != shape:
                    raise ValueError(
                        f"{name} has shape {tuple(state[name].shape)} in a state, but {shape} in the module."
                    )
        like, held = model.initial(), [name for name in model.state if name in own]
        weights = [torch.cat([state[name].flatten().to(like) for name in model.free]) for state in states]
        rest = {name: torch.stack([state[name].to(model.state[name]) for state in states]) for name in held}
        return cls(np.atleast_1d(np.asarray(epochs)), model, torch.stack(weights), rest)

    def __len__(self) -> int:
        """Return the number of checkpoints T."""
        return len(self.epochs)

    def _read(self, t: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if isinstance(self.weights, torch.Tensor):
            return self.weights[t], {name: value[t] for name, value in self.states.items()}
        weights, state = self.weights.read(t)
        for name, value in {"the weights": weights, **state}.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise ValueError(f"{name} are not finite in the checkpoint of epoch {self.epochs[t]:g}.")
        return weights, state

    def weights_at(self, t: int) -> Float[torch.Tensor, " d"]:
        """Return the flat weights of the t-th checkpoint, shape (d,)."""
        return self._read(t)[0]

    def state_at(self, t: int) -> dict[str, torch.Tensor]:
        """Return the frozen parameters and buffers of the t-th checkpoint that may differ from the module's own."""
        return self._read(t)[1]

    def model_at(self, t: int) -> TorchModel:
        """Return the model with the frozen parameters and buffers of the t-th checkpoint."""
        return self.model.with_state(self.state_at(t))

    @property
    def like(self) -> torch.Tensor:
        """An empty tensor in the dtype and on the device of the weights."""
        return self.weights[:0] if isinstance(self.weights, torch.Tensor) else self.model.initial()[:0]

    @property
    def flat(self) -> Float[torch.Tensor, "t d"]:
        """All weights of all checkpoints in memory at once, shape (T, d)."""
        if isinstance(self.weights, torch.Tensor):
            return self.weights
        return torch.stack([self.weights_at(t) for t in range(len(self))])

    def at(self, epochs: ArrayLike) -> ModuleCheckpoints:
        """Return the checkpoints at the given epochs, which must have been saved."""
        positions = saved_positions(self.epochs, epochs)
        chosen = self.epochs[positions]
        if isinstance(self.weights, torch.Tensor):
            states = {name: value[positions] for name, value in self.states.items()}
            return ModuleCheckpoints(chosen, self.model, self.weights[positions], states)
        return ModuleCheckpoints(chosen, self.model, self.weights.part(positions.tolist()))

    def check_fits(self, data: Dataset | Samples) -> None:
        """Refuse samples that the model cannot read, in a sentence, by evaluating their losses at the first checkpoint.

        A loss that is not of its own sample alone, or that is random, is refused too.
        """
        model, weights = self.model_at(0), self.weights_at(0)
        samples = Samples.of(data).like(weights)
        losses = model.evaluated(weights, samples)
        if not torch.isfinite(losses).all():
            bad = samples.names[int((~torch.isfinite(losses)).nonzero()[0])]
            raise ValueError(f"the loss of sample {bad!r} is not finite at epoch {self.epochs[0]:g}.")
        check_own_losses(model, weights, samples)


def increasing_epochs(epochs: ArrayLike) -> Float[np.ndarray, " t"]:
    """Return the epochs of checkpoints, refusing those that do not strictly increase."""
    refuse_masked("epochs", epochs)
    result = checks.nonnegative("epochs", np.atleast_1d(np.asarray(epochs)))
    if result.ndim != 1 or np.any(np.diff(result) <= 0):
        raise ValueError("epochs must be a strictly increasing list of times.")
    return result


def saved_positions(saved: Float[np.ndarray, " t"], epochs: ArrayLike) -> Int[np.ndarray, " k"]:
    """Return where the given epochs stand among the saved ones, refusing an epoch that was not saved."""
    refuse_masked("epochs", epochs)
    wanted = np.atleast_1d(np.asarray(epochs, dtype=np.float64))
    positions = np.minimum(np.searchsorted(saved, wanted), len(saved) - 1)
    if not np.array_equal(saved[positions], wanted):
        missing = wanted[saved[positions] != wanted][0]
        raise ValueError(f"epoch {missing:g} was not saved; the saved epochs are {saved}.")
    return positions


def refuse_masked(name: str, value: object) -> None:
    """Refuse a numpy array with masked entries, whose values torch and numpy would use all the same.

    Examples
    --------
    >>> refuse_masked("w1", np.ma.masked_equal([1.0, -999.0], -999.0))
    Traceback (most recent call last):
    ...
    ValueError: w1 has 1 masked value, and what is under a mask is not data; fill or remove it first.
    """
    if np.ma.is_masked(value):
        count = int(np.ma.count_masked(np.ma.asarray(value)))
        values, them = ("value", "it") if count == 1 else ("values", "them")
        raise ValueError(
            f"{name} has {count} masked {values}, and what is under a mask is not data; fill or remove {them} first."
        )
