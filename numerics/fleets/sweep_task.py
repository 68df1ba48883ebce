"""What a worker of a sweep does: sample settings at every checkpoint, and measure them for all chains and draws."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import product

import numpy as np
import torch
import xarray as xr

from numerics.errors import SamplerDiverged, UnstableStep
from numerics.fleets.sweep_measures import SweepMeasure
from numerics.sampling.plan import ChainPlan, Data, Recorded, Weights
from numerics.sampling.sample import make_plan, sample
from numerics.sampling.samplers import Sampler
from numerics.sampling.settings import ChainSettings

__all__ = ["SweepJob", "run_settings"]

Sizes = tuple[int, int]  # chains, draws


@dataclass(frozen=True, eq=False)
class SweepJob:
    """What all settings of a sweep share.

    Parameters
    ----------
    dataset, checkpoints, burn_in, thin, seed, dtype, device
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
    device: torch.device

    def sampled(self, samplers: Sampler | Sequence[Sampler], chains: int, draws: int) -> xr.DataArray:
        """Return the losses of one setting, or of several in one batch, on one thread."""
        return sample(
            self.dataset,
            self.checkpoints,
            samplers,
            chains=chains,
            draws=draws,
            burn_in=self.burn_in,
            thin=self.thin,
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
            workers=1,
        )

    def plan(self, sampler: Sampler) -> ChainPlan:
        """Return what the largest run of a setting is to do; the checks of its arguments are made here.

        Raises
        ------
        UnstableStep
            If the step is outside the stable range.
        ValueError
            If another argument does not fit.
        """
        settings = ChainSettings(
            chains=max(self.chains),
            draws=max(self.draws),
            burn_in=self.burn_in,
            thin=self.thin,
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
        )
        return make_plan(self.dataset, Recorded(self.dataset), self.checkpoints, sampler, settings)

    def accepts(self, sampler: Sampler) -> bool:
        """Return whether the sampler's step may be stable."""
        try:
            self.plan(sampler)
        except UnstableStep:
            return False
        return True

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


def run_settings(task: tuple[SweepJob, Sequence[Sampler]]) -> list[xr.Dataset]:
    """Return each sampler's results for every number of chains and draws, dims (chains, draws, ...)."""
    job, samplers = task
    found: dict[int, xr.Dataset] = {}
    if len(samplers) > 1:
        found = _in_one_batch(job, samplers)
    return [found[k] if k in found else _one_setting(job, sampler) for k, sampler in enumerate(samplers)]


def _in_one_batch(job: SweepJob, samplers: Sequence[Sampler]) -> dict[int, xr.Dataset]:
    """Return the results of the settings that are stable and end well.

    What is refused or diverges leaves the batch, which then starts anew: chains do not depend on their company.
    """
    rest = [k for k, sampler in enumerate(samplers) if job.accepts(sampler)]
    while rest:
        try:
            losses = job.sampled([samplers[k] for k in rest], max(job.chains), max(job.draws))
        except SamplerDiverged as divergence:
            del rest[divergence.setting]
            continue
        found = {}
        for place, k in enumerate(rest):
            own = losses.isel(setting=place).reset_coords(drop=True).assign_attrs(asdict(samplers[k]))
            found[k] = _on_the_grid(job, {size: _part(job, samplers[k], own, size) for size in _sizes(job)})
        return found
    return {}


def _one_setting(job: SweepJob, sampler: Sampler) -> xr.Dataset:
    try:
        return _on_the_grid(job, _by_size(job, sampler, _sizes(job)))
    except UnstableStep as refusal:
        return _on_the_grid(job, dict.fromkeys(_sizes(job), job.nothing(refusal)))


def _sizes(job: SweepJob) -> list[Sizes]:
    return list(product(job.chains, job.draws))


def _part(job: SweepJob, sampler: Sampler, losses: xr.DataArray, size: Sizes) -> xr.Dataset:
    """Return the result of the first chains and draws."""
    return job.measured(sampler, losses.isel(chain=slice(size[0]), draw=slice(size[1])))


def _on_the_grid(job: SweepJob, found: Mapping[Sizes, xr.Dataset]) -> xr.Dataset:
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
                    found[c, d] = _part(job, sampler, losses, (c, d))
    return found
