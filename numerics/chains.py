r"""Many Langevin chains of two-layer linear networks at once: one flat buffer, in place, a stream of losses out.

Layers are stored as W_1^T and W_2, so that both gradients are products with wide rows, and every update is one pass
over one flat buffer. Every chain draws its noise from its own generator, seeded by (seed, epoch, chain) and read in
blocks of fixed size; which chains share a batch, and on how many threads batches run, changes no bit of any of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import numpy as np
import torch
from jaxtyping import Float

from numerics.networks import Checkpoints
from numerics.samplers import Sampler, SamplerDiverged
from theory.hierarchy import Dataset

__all__ = ["ChainPlan", "run_chains"]

_CHAINS_TOGETHER = 104  # enough to hide the cost of calls, few enough for the state to stay in a core's cache
_STEPS_OF_NOISE = 4  # steps of noise drawn in one call; part of the definition of a chain's stream
_VECTOR = 64  # numbers a vector loop takes at once; a buffer of whole vectors has no tail that rounds differently


# Takes the chains, the number of the first draw, and their losses over consecutive draws (chains, draws, observables)
# in float64. Called once for each block of each batch of chains, from several threads.
Record = Callable[[slice, int, np.ndarray], None]


@dataclass(frozen=True, eq=False)
class ChainPlan:
    """What to run: chain number c belongs to checkpoint c // chains.

    Parameters
    ----------
    dataset
        Samples whose mean loss is sampled.
    observables
        Samples whose losses are recorded, inputs (M, P) and targets (M, O).
    checkpoints
        Weights at which chains start and to which they are pulled.
    sampler
        Hyper-parameters and update.
    chains, draws
        Chains per checkpoint and draws per chain.
    burn_in, thin
        Steps before the first draw, and steps from one draw to the next.
    block
        Draws handed over at once.
    seed
        Seed of all noise.
    dtype
        torch.float32 or torch.float64.
    """

    dataset: Dataset
    observables: tuple[np.ndarray, np.ndarray]
    checkpoints: Checkpoints
    sampler: Sampler
    chains: int
    draws: int
    burn_in: int
    thin: int
    block: int
    seed: int
    dtype: torch.dtype

    @property
    def total(self) -> int:
        """Number of chains over all checkpoints."""
        return self.chains * len(self.checkpoints)

    def name(self, chain: int) -> str:
        """Return words that tell which chain it is."""
        return f"chain {chain % self.chains} at epoch {self.checkpoints.epochs[chain // self.chains]:g}"


def run_chains(
    plan: ChainPlan, record: Record, *, workers: int | None = None, progress: Callable[[int], object] | None = None
) -> None:
    """Run every chain of the plan and hand its losses to `record`.

    Parameters
    ----------
    plan
        What to run.
    record
        Called with each block of losses.
    workers
        Threads, each on its own batch of chains; as many as this process may use cores if not given.
    progress
        Called with the number of chains of each finished batch.

    Raises
    ------
    SamplerDiverged
        At the first loss that is not finite.
    """
    workers = workers or len(os.sched_getaffinity(0))
    rounds = -(-plan.total // (_CHAINS_TOGETHER * workers))
    edges = np.linspace(0, plan.total, min(rounds * workers, plan.total) + 1).astype(int)
    batches = [slice(int(a), int(b)) for a, b in pairwise(edges)]

    def run(batch: slice) -> int:
        _run_batch(plan, batch, record)
        return batch.stop - batch.start

    pool = ThreadPoolExecutor(min(workers, len(batches)), initializer=torch.set_num_threads, initargs=(1,))
    with pool:
        futures = [pool.submit(run, batch) for batch in batches]
        try:
            for future in futures:
                finished = future.result()
                if progress is not None:
                    progress(finished)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run_batch(plan: ChainPlan, batch: slice, record: Record) -> None:
    at = np.arange(batch.start, batch.stop)
    checkpoint = torch.as_tensor(at // plan.chains)
    network = _NetworkBuffers(plan, plan.checkpoints.w1[checkpoint], plan.checkpoints.w2[checkpoint])
    update = plan.sampler.update_rule(network.weights.clone())
    noise = _Noise(plan, at)
    losses = torch.empty(len(at), plan.block, len(plan.observables[0]), dtype=plan.dtype)
    filled, first_draw = 0, 0
    for step in range(plan.burn_in + (plan.draws - 1) * plan.thin + 1):
        recording = step >= plan.burn_in and (step - plan.burn_in) % plan.thin == 0
        network.evaluate(losses[:, filled] if recording else None)
        if recording:
            filled += 1
            if filled == plan.block or first_draw + filled == plan.draws:
                _hand_over(plan, batch, first_draw, losses[:, :filled], record)
                first_draw, filled = first_draw + filled, 0
        update(network.weights, network.gradient, noise.next())


def _hand_over(plan: ChainPlan, batch: slice, first_draw: int, losses: torch.Tensor, record: Record) -> None:
    # The sum is finite unless an entry is not, or is about to be: a cheap first look.
    if not torch.isfinite(losses.sum()) and not (finite := torch.isfinite(losses).all(-1)).all():
        draw = int((~finite).any(0).nonzero()[0])
        chain = batch.start + int((~finite[:, draw]).nonzero()[0])
        raise SamplerDiverged(
            f"{plan.name(chain)} diverged: its loss at draw {first_draw + draw} is not finite. Use a smaller step_size "
            f"than {plan.sampler.step_size:g} or a stronger localization than {plan.sampler.localization:g}."
        )
    record(batch, first_draw, losses.to(torch.float64).numpy())


@dataclass(frozen=True)
class _Layout:
    """Where the layers of a batch of chains lie in a flat buffer: all W_1^T (P, h) first, then all W_2 (O, h).

    Matrix products round differently at different alignments. Inputs and outputs are therefore padded with rows of
    zeros until every chain's matrices start at a multiple of 64 bytes, in float32 and in float64.
    """

    chains: int
    inputs: int
    outputs: int
    hidden: int

    @classmethod
    def of(cls, plan: ChainPlan, chains: int) -> _Layout:
        """Return the layout of so many chains of the plan's network."""
        hidden, p = plan.checkpoints.w1.shape[1:]
        o = plan.checkpoints.w2.shape[1]
        return cls(chains, _aligned(p, hidden), _aligned(o, hidden), hidden)

    def empty(self, dtype: torch.dtype) -> Float[torch.Tensor, " size"]:
        """Return a buffer of zeros, whose length leaves no tail to vector loops."""
        size = self.chains * (self.inputs + self.outputs) * self.hidden
        return torch.zeros(-(-size // _VECTOR) * _VECTOR, dtype=dtype)

    def layers(
        self, flat: Float[torch.Tensor, " size"]
    ) -> tuple[Float[torch.Tensor, "c p h"], Float[torch.Tensor, "c o h"]]:
        """Return views of both layers."""
        middle = self.chains * self.inputs * self.hidden
        end = middle + self.chains * self.outputs * self.hidden
        return (
            flat[:middle].view(self.chains, self.inputs, self.hidden),
            flat[middle:end].view(self.chains, self.outputs, self.hidden),
        )


def _aligned(rows: int, columns: int) -> int:
    """Return the least number of rows, a multiple of 8, whose matrix of `columns` fills whole lines of 16 numbers."""
    unit = max(8, 16 // gcd(16, columns))
    return -(-rows // unit) * unit


class _NetworkBuffers:
    """Weights, gradients and losses of a batch of chains."""

    def __init__(self, plan: ChainPlan, w1: Float[torch.Tensor, "c h p"], w2: Float[torch.Tensor, "c o h"]) -> None:
        layout = _Layout.of(plan, len(w1))
        chains, p, o = layout.chains, layout.inputs, layout.outputs
        self.weights, self.gradient = layout.empty(plan.dtype), layout.empty(plan.dtype)
        self._layers, self._slopes = layout.layers(self.weights), layout.layers(self.gradient)
        self._layers[0][:, : w1.shape[2]] = w1.mT
        self._layers[1][:, : w2.shape[1]] = w2

        def padded(matrix: np.ndarray, rows: int, columns: int) -> torch.Tensor:
            result = torch.zeros(rows, columns, dtype=plan.dtype)
            result[: matrix.shape[0], : matrix.shape[1]] = torch.tensor(matrix)
            return result

        inputs, targets = plan.observables
        asked = _aligned(len(inputs), o)
        self._y = padded(targets.T, o, asked)
        self._x = padded(inputs.T, p, asked).repeat(chains, 1, 1)
        second_moment = plan.dataset.inputs.T @ plan.dataset.inputs
        self._rate = plan.sampler.n_beta / len(plan.dataset)
        self._syx = padded(plan.dataset.syx * -self._rate, o, p)
        self._sxx = padded(second_moment * self._rate, p, p).repeat(chains, 1, 1)
        # W X^T = W for one-hot inputs in order and W X^T X = W for white ones: the toy data has both.
        self._one_hot = np.array_equal(inputs, np.eye(inputs.shape[1])) and asked == p
        self._white = np.array_equal(second_moment, np.eye(len(second_moment)))
        self._map, self._dloss = torch.empty(2, chains, o, p, dtype=plan.dtype)
        self._residual, self._squares = torch.empty(2, chains, o, asked, dtype=plan.dtype)
        self._halves = torch.full((chains, 1, o), 0.5, dtype=plan.dtype)
        self._losses = torch.empty(chains, 1, asked, dtype=plan.dtype)

    def evaluate(self, losses: Float[torch.Tensor, "c m"] | None) -> None:
        """Compute the gradient of n_beta L and, if asked, the observables' losses."""
        first, second = self._layers
        torch.bmm(second, first.mT, out=self._map)
        if losses is not None:
            predicted = self._map if self._one_hot else torch.bmm(self._map, self._x, out=self._residual)
            torch.sub(predicted, self._y, out=self._residual)
            torch.mul(self._residual, self._residual, out=self._squares)
            # A product, because the order in which torch.sum adds depends on the number of chains.
            torch.bmm(self._halves, self._squares, out=self._losses)
            losses.copy_(self._losses[:, 0, : losses.shape[1]])
        if self._white:
            torch.add(self._syx, self._map, alpha=self._rate, out=self._dloss)
        else:
            torch.bmm(self._map, self._sxx, out=self._dloss).add_(self._syx)
        torch.bmm(self._dloss.mT, second, out=self._slopes[0])
        torch.bmm(self._dloss, first, out=self._slopes[1])


class _Noise:
    """Standard normal numbers for every chain from its own generator, laid out as the weights are."""

    def __init__(self, plan: ChainPlan, chains: np.ndarray) -> None:
        hidden, p = plan.checkpoints.w1.shape[1:]
        o = plan.checkpoints.w2.shape[1]
        layout = _Layout.of(plan, len(chains))
        self._split = hidden * p
        self._block = torch.empty(len(chains), _STEPS_OF_NOISE, hidden * (p + o), dtype=plan.dtype)
        generators = [_generator(plan, int(chain)) for chain in chains]
        self._rows = list(zip(self._block.unbind(), generators, strict=True))
        self._flat = layout.empty(plan.dtype)
        first, second = layout.layers(self._flat)
        self._first, self._second = first[:, :p].flatten(1), second[:, :o].flatten(1)
        self._used = _STEPS_OF_NOISE

    def next(self) -> Float[torch.Tensor, " size"]:
        """Return the noise of the next step, zero in the padding, in a buffer that may be overwritten."""
        if self._used == _STEPS_OF_NOISE:
            for row, generator in self._rows:
                row.normal_(generator=generator)
            self._used = 0
        self._first.copy_(self._block[:, self._used, : self._split])
        self._second.copy_(self._block[:, self._used, self._split :])
        self._used += 1
        return self._flat


def _generator(plan: ChainPlan, chain: int) -> torch.Generator:
    epoch = int(np.float64(plan.checkpoints.epochs[chain // plan.chains]).view(np.uint64))
    sequence = np.random.SeedSequence([plan.seed, epoch, chain % plan.chains])
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
