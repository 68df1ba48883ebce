"""What a call to a sampler is to do, checked and in one place: which chains, on which losses, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.digest import digest
from numerics.models.linear import Checkpoints
from numerics.models.samples import Parts, Samples
from numerics.sampling.engine import Engine, engine_of
from numerics.sampling.samplers import Sampler
from theory.hierarchy import Dataset

__all__ = ["STEPS_OF_NOISE", "ChainPlan", "Data", "Items", "Labels", "Observable", "Recorded", "Weights", "labels_of"]

STEPS_OF_NOISE = 4  # drawn in one call; part of the definition of a chain's stream
_ROUNDING = 2  # order of a step's operations, counted on when it changes: stores and states of another are refused

Data = Dataset | Samples
Items = Dataset | Samples | Parts  # whose losses can be recorded
Labels = tuple[str, ...] | tuple[tuple[str, str], ...]
Weights = Checkpoints | ModuleCheckpoints

# A number (or tensor of no dimension) from the parameters by name: "w1" (h, P) and "w2" (O, h) of a linear network, the
# names of ``named_parameters()`` of a module. Batched over chains by torch.func.vmap.
Observable = Callable[[dict[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Recorded:
    """What is recorded at every draw: losses of samples or of their parts, then functions of the parameters.

    Parameters
    ----------
    first
        Samples, or parts, whose losses are recorded.
    second
        More of them, not necessarily of the same kind.
    functions
        Further observables by name.
    """

    first: Items
    second: Items | None = None
    functions: Mapping[str, Observable] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of recorded numbers a draw."""
        return sum(map(len, self.groups)) + len(self.functions)

    @property
    def groups(self) -> tuple[Items, ...]:
        """Samples and parts whose losses are recorded, in order."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def labels(self) -> Labels:
        """Labels of what is recorded, in order: pairs (sample, part) if nothing but parts is recorded."""
        if self.second is None and not self.functions:
            return labels_of(self.first)
        names = [name for group in self.groups for name in _names(group)]
        if self.second is not None and len(set(names)) < len(names):
            names = [*_names(self.first), *(f"query {name}" for name in _names(self.second))]
        return (*names, *self.functions)


def labels_of(items: Items) -> Labels:
    """Return the names of samples, or the pairs (sample, part) of parts."""
    return items.labels if isinstance(items, Parts) else items.names


def _names(items: Items) -> list[str]:
    return [f"{name}, {part}" for name, part in items.labels] if isinstance(items, Parts) else list(items.names)


@dataclass(frozen=True, eq=False)
class ChainPlan:
    """What to run: chains count fastest, then checkpoints, then settings.

    Parameters
    ----------
    data
        Samples whose weighted mean loss L(w; beta) is sampled.
    weights
        Sample weights beta, shape (N,).
    recorded
        What is recorded.
    checkpoints
        Weights at which chains start and to which they are pulled.
    samplers
        Settings, all of one class.
    chains, draws
        Chains per checkpoint and draws per chain.
    burn_in, thin
        Steps before the first draw, and steps from one draw to the next.
    batch_size
        Samples of each step's gradient, drawn without replacement; all of them if None.
    block
        Draws handed over at once.
    seed
        Seed of all noise.
    dtype, device
        Of the chains.
    """

    data: Data
    weights: Float[np.ndarray, " n"]
    recorded: Recorded
    checkpoints: Weights
    samplers: tuple[Sampler, ...]
    chains: int
    draws: int
    burn_in: int
    thin: int
    batch_size: int | None
    block: int
    seed: int
    dtype: torch.dtype
    device: torch.device

    @property
    def total(self) -> int:
        """Number of chains over all settings and checkpoints."""
        return len(self.samplers) * len(self.checkpoints) * self.chains

    @property
    def n_weights(self) -> int:
        """Number of weights of a chain."""
        if isinstance(self.checkpoints, ModuleCheckpoints):
            return self.checkpoints.model.n_parameters
        return self.checkpoints.flat.shape[1]

    @property
    def steps(self) -> int:
        """Number of steps of every chain."""
        return self.burn_in + (self.draws - 1) * self.thin + 1

    @cached_property
    def engine(self) -> Engine:
        """How chains are evaluated."""
        if not isinstance(self.checkpoints, ModuleCheckpoints):
            return Engine("products of a linear network", self.total, len(self.data))
        weights = self.checkpoints.weights_at(0).to(self.device, self.dtype)
        n = len(self.data) if self.batch_size is None else self.batch_size
        return engine_of(self.checkpoints.model_at(0).to(weights), weights, Samples.of(self.data), n)

    def starts(self, checkpoints: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return weights, shape (c, d), and states, each of shape (c, ...), of chains that start at checkpoints."""
        if not isinstance(self.checkpoints, ModuleCheckpoints):
            return self.checkpoints.flat[torch.tensor(checkpoints)].to(self.device, self.dtype), {}
        weights, states = {}, {}
        for t in sorted(set(checkpoints)):  # each is read once
            weights[t], states[t] = self.checkpoints.weights_at(t), self.checkpoints.state_at(t)
        start = torch.stack([weights[t] for t in checkpoints]).to(self.device, self.dtype)
        names = states[checkpoints[0]]
        return start, {name: torch.stack([states[t][name] for t in checkpoints]) for name in names}

    def locate(self, chain: int) -> tuple[int, int, int]:
        """Return setting, checkpoint and chain within the checkpoint of a chain's number."""
        setting, rest = divmod(chain, len(self.checkpoints) * self.chains)
        return (setting, *divmod(rest, self.chains))

    def name(self, chain: int) -> str:
        """Return words that tell which chain it is."""
        setting, checkpoint, own = self.locate(chain)
        name = f"chain {own} at epoch {self.checkpoints.epochs[checkpoint]:g}"
        return name if len(self.samplers) == 1 else f"{name} of setting {setting}"

    def fingerprint(self) -> str:
        """Return a digest of everything that decides on the chains' bits, the number of draws apart."""
        run = (self.samplers, self.chains, self.burn_in, self.thin, self.batch_size, self.seed, self.dtype)
        recorded = (self.recorded.groups, dict(self.recorded.functions))
        return digest((_ROUNDING, run, self.device, self.checkpoints, self.data, self.weights, recorded))
