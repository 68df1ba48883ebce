r"""Many Langevin chains at once: batches on threads, in place, a stream of losses out.

Every chain draws its noise from its own generator, seeded by (seed, epoch, chain) and read in blocks of fixed size.
Which chains share a batch, on how many threads batches run, and which other settings run beside it change no bit of a
chain of linear networks. (Modules are evaluated by vmap, whose products round by the size of the batch; there the bits
are the same for the same call. On other devices than the CPU one generator serves a batch.)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from queue import SimpleQueue
from threading import Event
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.utils._pytree import tree_map

from numerics.errors import SamplerDiverged
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.sampling.chain_state import ChainState
from numerics.sampling.linear_target import LinearTarget
from numerics.sampling.module_target import ModuleTarget
from numerics.sampling.plan import STEPS_OF_NOISE, ChainPlan
from numerics.sampling.rules import Parts
from numerics.sampling.targets import Buffer, Target

__all__ = ["run_chains"]

_CHAINS_TOGETHER = 104  # enough to hide the cost of calls, few enough for the state to stay in a core's cache
_CHAINS_LAID = 16  # whose fresh noise is brought to its place while it is in cache
_NUMBERS_ON_DEVICE = 2**28  # weights of a batch on another device, which is idle unless it has all there is: 1 GB


# Takes the chains, the number of the first draw, and what is recorded over consecutive draws (chains, draws, columns)
# in float64. Called once for each block of each batch of chains, from several threads.
Record = Callable[[slice, int, np.ndarray], None]


def run_chains(
    plan: ChainPlan,
    record: Record,
    *,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
    finished: Callable[[slice], object] | None = None,
    skip: Iterable[int] = (),
    state: ChainState | None = None,
) -> float:
    """Run every chain of the plan and hand what it records to `record`.

    Parameters
    ----------
    plan
        What to run.
    record
        Called with each block of draws.
    workers
        Threads, each on its own batch of chains; as many as this process may use cores if not given.
    progress
        Called with the number of chains of each finished batch.
    finished
        Called with the chains of each finished batch, from the calling thread.
    skip
        Numbers of chains that need not run.
    state
        Where chains left off; they go on from there if it is not empty, and it holds their new state afterwards.

    Returns
    -------
    float
        Share of proposals accepted, NaN for samplers that accept all.

    Raises
    ------
    SamplerDiverged
        At the first recorded number that is not finite.
    """
    workers = workers or len(os.sched_getaffinity(0))
    batches = _batches(plan, workers, set(skip)) if state is None or state.empty else state.batches
    before: list[dict[str, Any] | None] = [None] * len(batches) if state is None or state.empty else [*state.contents]
    cancelled, threads = Event(), max(min(workers, len(batches)), 1)
    targets = _Targets(plan, batches, threads)

    def run(batch: slice, content: dict[str, Any] | None) -> tuple[float, dict[str, Any]]:
        with torch.no_grad(), targets.lent(batch) as target:
            running = _Batch(plan, batch, target, content)
            running.run(record, cancelled)
            return running.acceptance, {} if state is None else running.content()

    rates, after = [], []
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(run, batch, content) for batch, content in zip(batches, before, strict=True)]
        with _cancelling(cancelled, pool):
            for batch, future in zip(batches, futures, strict=True):
                rate, content = future.result()
                rates.append(rate)
                after.append(content)
                if finished is not None:
                    finished(batch)
                if progress is not None:
                    progress(batch.stop - batch.start)
    if state is not None:
        state.fingerprint, state.batches, state.contents = plan.fingerprint(), batches, after
    return float(np.mean(rates)) if rates else float("nan")


class _Targets:
    """Targets for batches of chains, one for each thread and size, used again for the next batch of the size."""

    def __init__(self, plan: ChainPlan, batches: list[slice], threads: int) -> None:
        kind = ModuleTarget if isinstance(plan.checkpoints, ModuleCheckpoints) else LinearTarget
        self._free: dict[int, SimpleQueue[Target]] = {}
        for size, count in Counter(batch.stop - batch.start for batch in batches).items():
            self._free[size] = SimpleQueue()
            for _ in range(min(count, threads)):
                self._free[size].put(kind(plan, size))

    @contextmanager
    def lent(self, batch: slice) -> Iterator[Target]:
        """Return the context in which a batch has a target."""
        free = self._free[batch.stop - batch.start]
        target = free.get()
        try:
            yield target
        finally:
            free.put(target)


@contextmanager
def _cancelling(cancelled: Event, pool: ThreadPoolExecutor) -> Iterator[None]:
    """Stop running batches at their next step when the caller is interrupted or one of them fails."""
    try:
        yield
    except BaseException:
        cancelled.set()
        pool.shutdown(cancel_futures=True)
        raise


def _batches(plan: ChainPlan, workers: int, skip: set[int]) -> list[slice]:
    """Return runs of consecutive chains that are left to do, in batches as equal as the number of threads allows."""
    together = _CHAINS_TOGETHER
    if isinstance(plan.checkpoints, ModuleCheckpoints):
        together = plan.engine.together
        workers = 1  # of batches' edges: bits of modules depend on them, and must not depend on the machine
    elif plan.device.type != "cpu":
        together, workers = max(1, _NUMBERS_ON_DEVICE // plan.n_weights), 1
    todo = np.array([chain for chain in range(plan.total) if chain not in skip], dtype=int)
    if len(todo) == 0:
        return []
    rounds = -(-len(todo) // (together * workers))
    edges = np.linspace(0, len(todo), min(rounds * workers, len(todo)) + 1).astype(int)
    result = []
    for a, b in pairwise(edges):
        runs = np.split(todo[a:b], np.flatnonzero(np.diff(todo[a:b]) != 1) + 1)
        result += [slice(int(run[0]), int(run[-1]) + 1) for run in runs]
    return result


class _Batch:
    """Chains that run together: their target, rule and noise, fresh or from where they left off."""

    def __init__(self, plan: ChainPlan, chains: slice, target: Target, before: dict[str, Any] | None) -> None:
        self._plan, self._chains, self._target = plan, chains, target
        numbers = range(chains.start, chains.stop)
        setting, checkpoint, _ = (list(part) for part in zip(*map(plan.locate, numbers), strict=True))
        target.load(*plan.starts(checkpoint))
        samplers = [plan.samplers[k] for k in setting]
        # Chains with equal settings go as one row, but for a sampler that decides for each of them.
        self._shared = len(set(samplers)) == 1 and not samplers[0].adjusts
        anchor = self._parts(target.weights)
        self._rule = samplers[0].rule(samplers[:1] if self._shared else samplers, anchor)
        self._noise = _Noise(plan, numbers, target, extra=int(samplers[0].adjusts))
        self._block = target.mean_loss.new_zeros(len(numbers), plan.block, len(plan.recorded))
        # A sampler that adjusts records every proposal; the chain's own numbers are those of the last one accepted.
        self._proposal = self._block.new_zeros(len(numbers), 1, len(plan.recorded))
        self._current = self._proposal[:, 0].clone()
        self._moved = self._drawn = 0
        if before is not None:
            self._moved, self._drawn = before["moved"], before["drawn"]
            for part, value in zip(target.weights.parts, before["weights"], strict=True):
                part.copy_(value)
            self._current = before["current"].to(plan.device)
            self._rule.restore(tree_map(_sent_to(plan.device), before["rule"]))
            self._noise.restore(before["noise"])

    def _parts(self, buffer: Buffer) -> Parts:
        return buffer.together if self._shared else buffer.parts

    def run(self, record: Record, cancelled: Event) -> None:
        """Take the plan's number of draws."""
        plan, target, rule, noise = self._plan, self._target, self._rule, self._noise
        w, gradient = self._parts(target.weights), self._parts(target.gradient)
        block = self._block
        target.record_into(self._proposal if rule.adjusts else block)
        filled = handed = 0
        last = plan.burn_in + (self._drawn + plan.draws - 1) * plan.thin
        for step in range(self._moved, last + 1):
            if cancelled.is_set():
                raise InterruptedError("the call was interrupted, or another batch of its chains failed.")
            normals = noise.next()
            drawing = step >= plan.burn_in and (step - plan.burn_in) % plan.thin == 0
            draw = 0 if rule.adjusts else filled if drawing else None
            target.evaluate(draw=draw, mean_loss=rule.adjusts, batch=noise.batch)
            if rule.adjusts:
                target.complete()
                stay = rule.settle(w, gradient, target.mean_loss, noise.luck)
                self._current = torch.where(stay[:, None], self._proposal[:, 0], self._current)
            if drawing:
                if rule.adjusts:
                    block[:, filled] = self._current
                filled += 1
                if filled == plan.block or handed + filled == plan.draws:
                    target.complete()
                    self._hand_over(self._drawn + handed, handed, block[:, :filled], record)
                    handed, filled = handed + filled, 0
            rule.move(w, gradient, self._parts(normals))
        self._moved, self._drawn = last + 1, self._drawn + plan.draws

    def _hand_over(self, draw: int, first: int, values: Float[torch.Tensor, "c b m"], record: Record) -> None:
        # The sum is finite unless an entry is not, or is about to be: a cheap first look.
        if not torch.isfinite(values.sum()) and not (finite := torch.isfinite(values).all(-1)).all():
            late = int((~finite).any(0).nonzero()[0])
            chain = self._chains.start + int((~finite[:, late]).nonzero()[0])
            setting, checkpoint, own = self._plan.locate(chain)
            sampler, epoch = self._plan.samplers[setting], float(self._plan.checkpoints.epochs[checkpoint])
            raise SamplerDiverged(
                f"{self._plan.name(chain)} diverged: its loss at draw {draw + late} is not finite. Use a smaller "
                f"step_size than {sampler.step_size:g} or a stronger localization than {sampler.localization:g}.",
                *(setting, epoch, own, draw + late),
            )
        record(self._chains, first, values.to("cpu", torch.float64).numpy())

    @property
    def acceptance(self) -> float:
        """Share of proposals accepted; NaN where nothing is proposed."""
        return self._rule.acceptance

    def content(self) -> dict[str, Any]:
        """Return everything the next step depends on."""
        return {
            "moved": self._moved,
            "drawn": self._drawn,
            "weights": [part.clone() for part in self._target.weights.parts],
            "current": self._current,
            "rule": self._rule.state(),
            "noise": self._noise.state(),
        }


class _Noise:
    """Random numbers of one step after the other for a batch of chains.

    A step takes a row of normal numbers for every chain: one for each weight, one more for the decision of a sampler
    that adjusts, and one for each sample where gradients come from batches of them: those with the largest are chosen.
    """

    def __init__(self, plan: ChainPlan, chains: range, target: Target, *, extra: int) -> None:
        self._target, self._batch_size = target, plan.batch_size
        self._d = plan.n_weights
        self._samples = 0 if plan.batch_size is None else len(plan.data)
        self._extra = extra
        width = self._d + extra + self._samples
        self._block = torch.empty(len(chains), STEPS_OF_NOISE, width, dtype=plan.dtype, device=plan.device)
        if plan.device.type == "cpu":
            rows = list(self._block.unbind())
            self._generators = [_generator(plan, chain) for chain in chains]
            size = _CHAINS_LAID
        else:
            rows, size = [self._block], len(chains)
            self._generators = [_generator(plan, chains[0])]
            size = len(chains)
        pairs = list(zip(rows, self._generators, strict=True))
        edges = [slice(k, min(k + size, len(chains))) for k in range(0, len(chains), size)]
        self._groups = [(edge, pairs[edge]) for edge in edges]
        self._normals = target.noise(self._block[..., : self._d])
        self._used = STEPS_OF_NOISE

    def next(self) -> Buffer:
        """Go to the next step and return its numbers for the weights."""
        if self._used == STEPS_OF_NOISE:
            for group, pairs in self._groups:
                for row, generator in pairs:
                    row.normal_(generator=generator)
                self._target.lay(group)
            self._used = 0
        self._used += 1
        return self._normals[self._used - 1]

    @property
    def luck(self) -> Float[torch.Tensor, " c"]:
        """The number that decides on a proposal."""
        return self._block[:, self._used - 1, self._d]

    @property
    def batch(self) -> Int[torch.Tensor, "c b"] | None:
        """Samples of this step's gradient; None for all of them."""
        if self._batch_size is None:
            return None
        return self._block[:, self._used - 1, self._d + self._extra :].topk(self._batch_size, dim=1).indices

    def state(self) -> dict[str, Any]:
        """Return the generators' states and what is left of the block."""
        states = torch.stack([generator.get_state() for generator in self._generators])
        return {"generators": states, "block": self._block, "used": self._used}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for generator, value in zip(self._generators, state["generators"], strict=True):
            generator.set_state(value.clone())  # torch reads the storage from its start, whatever the view
        self._block.copy_(state["block"])
        for group, _ in self._groups:
            self._target.lay(group)
        self._used = state["used"]


def _sent_to(device: torch.device) -> Callable[[Any], Any]:
    return lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf


def _generator(plan: ChainPlan, chain: int) -> torch.Generator:
    _, checkpoint, own = plan.locate(chain)
    epoch = int(np.float64(plan.checkpoints.epochs[checkpoint]).view(np.uint64))
    sequence = np.random.SeedSequence([plan.seed, epoch, own])
    return torch.Generator(plan.device).manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
