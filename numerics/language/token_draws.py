"""Losses of every token at every draw, one memory-mapped file a chain, read as far as they are needed.

The folder holds ``call.json`` and, for each checkpoint, ``epoch-<epoch>/chain-<c>.npy`` with shape (draw, sequence,
position). A file has its name only when it is whole, so a run that was killed goes on with the chains that are missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from numerics.errors import StoreMismatch
from numerics.stores import read_object
from theory.trajectories import labelled_array

__all__ = ["TokenDraws", "as_token_draws", "chain_path"]

_CALL = "call.json"


def chain_path(folder: Path, epoch: float, chain: int) -> Path:
    """Return where the draws of a chain are kept.

    Examples
    --------
    >>> chain_path(Path("draws"), 100.0, 2).as_posix()
    'draws/epoch-100/chain-2.npy'
    """
    return folder / f"epoch-{float(epoch):.17g}" / f"chain-{chain}.npy"


@dataclass(frozen=True, eq=False)
class TokenDraws:
    """Losses of every token at every draw.

    Parameters
    ----------
    epochs
        Checkpoints, shape (T,).
    chains, draws
        Numbers of chains a checkpoint, and of draws a chain.
    shape
        Numbers of sequences and of positions (N, J).
    attrs
        How they were made.
    folder
        Where the files are; None for draws in memory.

    Examples
    --------
    >>> draws = as_token_draws(np.zeros((1, 2, 5, 3, 4)))
    >>> draws.chains, draws.draws, draws.tokens, draws.at(0.0)[1].shape
    (2, 5, 12, (5, 12))
    """

    epochs: np.ndarray
    chains: int
    draws: int
    shape: tuple[int, int]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    memory: Mapping[float, Sequence[np.ndarray]] = field(default_factory=dict, repr=False)

    @property
    def tokens(self) -> int:
        """Number of tokens N J."""
        return self.shape[0] * self.shape[1]

    def at(self, epoch: float) -> list[Float[np.ndarray, "draws tokens"]]:
        """Return the draws of each chain at a checkpoint, shape (draws, N J); files are mapped, not read.

        Raises
        ------
        ValueError
            If the epoch was not sampled, or a chain is missing or damaged.
        """
        if float(epoch) not in [float(e) for e in self.epochs]:
            raise ValueError(f"epoch {epoch:g} was not sampled; the sampled epochs are {self.epochs}.")
        if self.folder is None:
            return [chain.reshape(self.draws, -1) for chain in self.memory[float(epoch)]]
        found = []
        for chain in range(self.chains):
            path = chain_path(self.folder, epoch, chain)
            if not path.exists():
                raise ValueError(f"chain {chain} at epoch {epoch:g} is not there yet; call sample_tokens again.")
            try:
                values = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise ValueError(f"{path} is damaged; delete it and call sample_tokens again.") from error
            if values.shape != (self.draws, *self.shape):
                raise ValueError(f"{path} has shape {values.shape}, but {(self.draws, *self.shape)} is needed.")
            found.append(values.reshape(self.draws, -1))
        return found

    def to_xarray(self) -> xr.DataArray:
        """Return all draws in memory, dims (epoch, chain, draw, sequence, position)."""
        values = np.stack([np.stack([c.reshape(self.draws, *self.shape) for c in self.at(e)]) for e in self.epochs])
        dims = {"epoch": self.epochs, "chain": range(self.chains), "draw": range(self.draws)}
        dims |= {"sequence": range(self.shape[0]), "position": range(self.shape[1])}
        return labelled_array(values, dims, "loss", self.attrs)

    def save_call(self, key: str) -> None:
        """Write what was asked for, or refuse a folder of another call; `key` decides whether it is the same."""
        assert self.folder is not None
        path = self.folder / _CALL
        if path.exists():
            if _read_call(path)["key"] != key:
                raise StoreMismatch(
                    f"{self.folder} holds the draws of a call with other arguments; name another folder, or repeat "
                    "that call."
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "key": key,
            "epochs": [float(e) for e in self.epochs],
            "chains": self.chains,
            "draws": self.draws,
            "shape": list(self.shape),
            "attrs": labelled_array(0.0, {}, "loss", self.attrs).attrs,
        }
        partial = path.with_name(f"{_CALL}.{os.getpid()}.partial")
        partial.write_text(json.dumps(content, indent=1, default=_plain) + "\n")
        os.replace(partial, path)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> TokenDraws:
        """Return the draws that `sample_tokens` left in a folder.

        Raises
        ------
        ValueError
            If there are none.
        """
        path = Path(folder) / _CALL
        if not path.exists():
            raise ValueError(f"{folder} holds no draws of tokens: there is no {_CALL} in it.")
        content = _read_call(path)
        shape = (content["shape"][0], content["shape"][1])
        return cls(
            np.array(content["epochs"]), content["chains"], content["draws"], shape, content["attrs"], Path(folder)
        )


def as_token_draws(draws: TokenDraws | xr.DataArray | np.ndarray) -> TokenDraws:
    """Return draws in memory in the form in which files are read.

    Parameters
    ----------
    draws
        An array with dims (epoch, chain, draw, sequence, position), labelled or not.

    Raises
    ------
    ValueError
        If dimensions are missing.
    """
    if isinstance(draws, TokenDraws):
        return draws
    dims = ("epoch", "chain", "draw", "sequence", "position")
    if isinstance(draws, xr.DataArray):
        if set(draws.dims) != set(dims):
            raise ValueError(f"draws have dims {draws.dims}, but {dims} are needed.")
        ordered = draws.transpose(*dims)
        values, attrs = ordered.values, dict(draws.attrs)
        epochs = ordered["epoch"].values if "epoch" in ordered.coords else np.arange(len(values))
    else:
        values, attrs, epochs = draws, {}, np.arange(len(draws))
    if values.ndim != 5:
        raise ValueError(f"draws have shape {values.shape}, but {dims} are needed.")
    memory = {float(epoch): list(value) for epoch, value in zip(epochs, values, strict=True)}
    shape = (values.shape[3], values.shape[4])
    return TokenDraws(
        np.asarray(epochs, dtype=np.float64), values.shape[1], values.shape[2], shape, attrs, memory=memory
    )


def _read_call(path: Path) -> dict[str, Any]:
    try:
        content = read_object(path)
        return {key: content[key] for key in ("key", "epochs", "chains", "draws", "shape", "attrs")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged; delete the folder {path.parent} and sample again.") from error


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
