"""What a worker of a sweep does: sample one setting at every checkpoint, and measure it for all chains and draws."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product

import numpy as np
import torch
import xarray as xr

from numerics.plan import Data, Weights
from numerics.samplers import Sampler, SamplerDiverged
from numerics.sampling import sample
from numerics.sweep_measures import SweepMeasure

__all__ = ["SweepJob", "run_setting"]

Sizes = tuple[int, int]  # chains, draws


class _Refused(Exception):
    """A setting whose step is outside the stable range."""


@dataclass(frozen=True, eq=False)
class SweepJob:
    """What all settings of a sweep share.

    Parameters
    ----------
    dataset, checkpoints, burn_in, thin, seed, dtype
        As for `sample`, and checked: only a step can still be wrong.
    measure
        What is asked of the draws.
    chains, draws
        Numbers of which every combination is measured.
    """

    dataset: Data
    checkpoints: Weights
    measure: SweepMeasure
    chains: tuple[int, ...]
    draws: tuple[int, ...]
    burn_in: int
    thin: int
    seed: int
    dtype: torch.dtype

    def sampled(self, sampler: Sampler, chains: int, draws: int) -> xr.DataArray:
        """Return the losses of one setting, on one thread."""
        try:
            return sample(
                self.dataset,
                self.checkpoints,
                sampler,
                chains=chains,
                draws=draws,
                burn_in=self.burn_in,
                thin=self.thin,
                seed=self.seed,
                dtype=self.dtype,
                workers=1,
            )
        except ValueError as refusal:
            raise _Refused(str(refusal)) from refusal

    def measured(self, sampler: Sampler, losses: xr.DataArray) -> xr.Dataset:
        """Return what the measure makes of draws."""
        return self.measure.evaluate(losses, sampler, self.dataset, self.checkpoints).assign(reason="")

    def nothing(self, why: Exception) -> xr.Dataset:
        """Return the result of a setting without draws."""
        return self.measure.blank(self.dataset, self.checkpoints).assign(reason=str(why))

    @cached_property
    def packed(self) -> bytes:
        """The job as it travels; processes would otherwise receive each tensor through shared memory of its own."""
        return pickle.dumps([getattr(self, field.name) for field in fields(self)])

    def __reduce__(self) -> tuple[Callable[[bytes], SweepJob], tuple[bytes]]:
        return _unpacked, (self.packed,)


def _unpacked(packed: bytes) -> SweepJob:
    return SweepJob(*pickle.loads(packed))


def run_setting(task: tuple[SweepJob, Sampler]) -> xr.Dataset:
    """Return one sampler's results for every number of chains and draws, dims (chains, draws, ...)."""
    job, sampler = task
    sizes = list(product(job.chains, job.draws))
    try:
        found = _by_size(job, sampler, sizes)
    except _Refused as refusal:
        found = dict.fromkeys(sizes, job.nothing(refusal))
    rows = [xr.concat([found[c, d] for d in job.draws], xr.Variable("draws", np.array(job.draws))) for c in job.chains]
    return xr.concat(rows, xr.Variable("chains", np.array(job.chains)))


def _by_size(job: SweepJob, sampler: Sampler, sizes: list[Sizes]) -> dict[Sizes, xr.Dataset]:
    """Return results by chains and draws, each a part of the largest run that ends well.

    A chain's bits do not depend on how many chains and draws follow, so a divergence spoils all sizes that contain it,
    and no other.
    """
    found: dict[Sizes, xr.Dataset] = {}
    for chains, draws in sorted(sizes, reverse=True):
        left = [size for size in sizes if size not in found]
        if (chains, draws) not in left:
            continue
        try:
            losses = job.sampled(sampler, chains, draws)
        except SamplerDiverged as divergence:
            spoilt = [(c, d) for c, d in left if divergence.chain < c and divergence.draw < d]
            found |= dict.fromkeys(spoilt, job.nothing(divergence))
        else:
            for c, d in left:
                if c <= chains and d <= draws:
                    found[c, d] = job.measured(sampler, losses.isel(chain=slice(c), draw=slice(d)))
    return found
