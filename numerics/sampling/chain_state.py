"""Where chains left off: everything their next step depends on, so that a run goes on with the same bits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from numerics.errors import StoreMismatch
from numerics.models.tree_files import read_tree, write_tree

__all__ = ["ChainState"]

_KIND = "chains"


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
        """Write the state to a file, which is never left half written and holds no code."""
        edges = [(batch.start, batch.stop) for batch in self.batches]
        write_tree(path, _KIND, {"fingerprint": self.fingerprint, "batches": edges, "contents": self.contents})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ChainState:
        """Read a state from a file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a saved state, is damaged, or is of a version that saved pickles.
        """
        content = read_tree(path, _KIND)
        return cls(content["fingerprint"], [slice(*edge) for edge in content["batches"]], content["contents"])
