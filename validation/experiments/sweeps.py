"""Correlation of Bayesian influence with leave-one-out over the sampler's hyper-parameters (paper C.2, Table 1)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from numerics import LeaveOneOutCorrelation, RMSPropSGLD, SweepGrid, sweep
from validation.experiments.base import Experiment

__all__ = ["SweepSettings", "leave_one_out_sweeps"]

_TOGETHER = 16  # settings sampled in one batch on a GPU


@dataclass(frozen=True)
class SweepSettings:
    """Grids of the sampler's hyper-parameters; the defaults span the paper's Table 1.

    Parameters
    ----------
    step_sizes, n_betas, localizations, chains, draws
        The main grid, at the decay rate and stability constant of the toy experiment's sampler.
    decays, stabilities, side_step_sizes, side_chains, side_draws
        The side grid, at the n_beta and localization of the toy experiment's sampler.
    every
        Of the experiment's checkpoints, one in so many is sampled.
    seed
        Seed of the sampler.
    processes
        Whether settings are shared out over processes, one a core; otherwise this one does all.
    """

    step_sizes: tuple[float, ...] = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    n_betas: tuple[float, ...] = (1e1, 1e2, 1e3, 1e4)
    localizations: tuple[float, ...] = (1e-2, 1.0, 1e2, 1e3, 1e4, 1e5, 1e6)
    chains: tuple[int, ...] = (2, 4, 8)
    draws: tuple[int, ...] = (200, 400, 800, 1000)
    decays: tuple[float, ...] = (0.8, 0.9, 0.95, 0.99)
    stabilities: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    side_step_sizes: tuple[float, ...] = (1e-7, 1e-6, 1e-5, 1e-4)
    side_chains: int = 4
    side_draws: int = 400
    every: int = 1
    seed: int = 0
    processes: bool = True

    def grids(self, sampler: RMSPropSGLD) -> tuple[SweepGrid, SweepGrid]:
        """Return the main grid and the side grid.

        Examples
        --------
        >>> [grid.size for grid in SweepSettings().grids(RMSPropSGLD())]
        [2016, 80]
        """
        main = SweepGrid(self.step_sizes, self.n_betas, self.localizations, chains=self.chains, draws=self.draws)
        side = SweepGrid(
            self.side_step_sizes,
            (sampler.n_beta,),
            (sampler.localization,),
            decay=self.decays,
            stability=self.stabilities,
            chains=(self.side_chains,),
            draws=(self.side_draws,),
        )
        return main, side


def leave_one_out_sweeps(
    experiment: Experiment,
    settings: SweepSettings,
    *,
    device: str = "cpu",
    store: Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Correlate Bayesian influence and leave-one-out at every setting of both grids.

    Parameters
    ----------
    experiment
        Trained and retrained network, and the sampler's hyper-parameters that a grid leaves open.
    settings
        The grids.
    device
        Where chains run; on a GPU many settings share a batch.
    store
        Folder that keeps finished settings, from which an interrupted sweep goes on.
    progress
        Called with the number of settings just finished; they add up to the sizes of both grids.

    Returns
    -------
    xarray.Dataset
        ``correlation``, over all epochs and pairs of different samples, with the hyper-parameters as dimensions, and
        ``side_correlation`` of the side grid, NaN where the step is refused or a chain diverged; ``reason`` and
        ``side_reason`` say why.
    """
    on_cpu = device == "cpu"
    sampler, epochs = experiment.settings.sampler, experiment.epochs[:: settings.every]
    measure = LeaveOneOutCorrelation(experiment.retrained.sel(epoch=epochs))
    found = []
    for name, grid in zip(("main", "side"), settings.grids(sampler), strict=True):
        with ThreadPoolExecutor(1) as one:
            result = sweep(
                experiment.dataset,
                experiment.checkpoints.at(epochs),
                grid,
                measure=measure,
                sampler=replace(sampler, adaptation=None),
                seed=settings.seed,
                device=device,
                together=1 if on_cpu else _TOGETHER,
                executor=None if on_cpu and settings.processes else one,
                store=None if store is None else store / name,
                progress=progress,
            )
        found.append(result[["correlation", "reason"]])
    main, side = found
    side = side.squeeze(["n_beta", "localization", "chains", "draws"], drop=True)
    side = side.rename({"correlation": "side_correlation", "reason": "side_reason", "step_size": "side_step_size"})
    return xr.merge([main, side], combine_attrs="override")
