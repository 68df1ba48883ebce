"""Where chains left off: everything their next step depends on, so that a run goes on with the same bits."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from numerics.errors import StoreMismatch

__all__ = ["ChainState"]


@dataclass(eq=False)
class ChainState:
    """State of all chains of a call to `sample`.

    Hand an empty one to `sample`: afterwards it holds the state of the chains. Hand it over again, with the same
    arguments but any number of draws, and the chains go on: the draws of both calls are those of one long call, bit for
    bit.

    Examples
    --------
    >>> from numerics import ChainState, TrainingConfig, sample, train
    >>> from theory import hierarchical_dataset
    >>> data = hierarchical_dataset()
    >>> run = train(data, TrainingConfig(epochs=200))
    >>> state = ChainState()
    >>> first = sample(data, run.checkpoints, chains=2, draws=3, state=state)
    >>> second = sample(data, run.checkpoints, chains=2, draws=2, state=state)
    >>> bool((sample(data, run.checkpoints, chains=2, draws=5)[:, :, 3:] == second.values).all())
    True
    """

    fingerprint: str = ""
    batches: list[slice] = field(default_factory=list)
    contents: list[dict[str, Any]] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether no chain has run yet."""
        return not self.batches

    def check_belongs(self, fingerprint: str) -> None:
        """Refuse to go on with other arguments than those the chains started with."""
        if not self.empty and fingerprint != self.fingerprint:
            raise StoreMismatch(
                "the state is of a call with other data, checkpoints, sampler, chains, burn-in, thinning, seed or "
                "dtype; go on with the arguments it was made with, or start with an empty ChainState()."
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, which is never left half written."""
        target = Path(path)
        partial = target.with_name(f"{target.name}.partial")
        edges = [(batch.start, batch.stop) for batch in self.batches]
        torch.save({"fingerprint": self.fingerprint, "batches": edges, "contents": self.contents}, partial)
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ChainState:
        """Read a state from a file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a saved state.
        """
        try:
            content = torch.load(Path(path), weights_only=True)
            edges = [slice(start, stop) for start, stop in content["batches"]]
            return cls(content["fingerprint"], edges, content["contents"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a saved state of chains, or it is damaged: {error}") from error
