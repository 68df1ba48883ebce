"""What a call to a sampler is to do, checked and in one place: which chains, on which losses, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.digest import digest
from numerics.models.linear import Checkpoints
from numerics.models.samples import Samples
from numerics.sampling.samplers import Sampler
from theory.hierarchy import Dataset

__all__ = ["ChainPlan", "Data", "Observable", "Recorded", "Weights"]

Data = Dataset | Samples
Weights = Checkpoints | ModuleCheckpoints

# A number (or tensor of no dimension) from the parameters by name: "w1" (h, P) and "w2" (O, h) of a linear network, the
# names of ``named_parameters()`` of a module. Batched over chains by torch.func.vmap.
Observable = Callable[[dict[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Recorded:
    """What is recorded at every draw: the losses of some samples, then functions of the parameters.

    Parameters
    ----------
    samples
        Samples whose losses are recorded.
    functions
        Further observables by name.
    """

    samples: Data
    functions: Mapping[str, Observable] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of recorded numbers a draw."""
        return len(self.samples) + len(self.functions)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is recorded, in order."""
        return (*self.samples.names, *self.functions)


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
        settings = (self.samplers, self.chains, self.burn_in, self.thin, self.batch_size, self.seed, self.dtype)
        recorded = (self.recorded.samples, dict(self.recorded.functions))
        return digest((settings, self.device, self.checkpoints, self.data, self.weights, recorded))
