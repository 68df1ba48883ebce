"""Sweeps over a sampler's hyper-parameters (paper C.2, Fig. 6, Table 1): parallel, resumable, one labelled result.

Every setting is a task for an executor. Since a chain's bits depend on its own seed, epoch and number alone, the result
is the same whatever the executor, the order, or how often the sweep was interrupted; and a setting with fewer chains or
draws is a part of the one with the most, so it is not sampled again.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr

from numerics.devices import usable_device
from numerics.errors import StepSizeWarning
from numerics.executors import run_tasks
from numerics.fleets.sweep_grid import SweepGrid
from numerics.fleets.sweep_measures import SweepMeasure
from numerics.fleets.sweep_task import SweepJob, run_settings
from numerics.models.digest import digest
from numerics.sampling.plan import Data, Weights
from numerics.sampling.samplers import RMSPropSGLD, Sampler
from numerics.stores import ResultStore
from theory import checks
from theory.trajectories import labelled_array

__all__ = ["sweep"]


def sweep(
    dataset: Data,
    checkpoints: Weights,
    grid: SweepGrid,
    *,
    measure: SweepMeasure,
    sampler: Sampler | None = None,
    burn_in: int = 0,
    thin: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    together: int = 1,
    executor: Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Sample every setting of a grid at every checkpoint, and measure.

    Parameters
    ----------
    dataset, checkpoints, burn_in, thin, seed, dtype, device
        As for `sample`.
    grid
        Settings.
    measure
        What is asked of the draws: `LeaveOneOutCorrelation`, `LearningCoefficientError`, or your own `SweepMeasure`.
    sampler
        Algorithm, and the hyper-parameters that the grid leaves open; `RMSPropSGLD()` if not given.
    together
        Settings that a worker samples in one batch, and holds in memory at once. On a CPU it makes nothing faster; on a
        GPU take many, with ``executor=ThreadPoolExecutor(1)``.
    executor
        Any PEP 3148 executor, for example ``Client(...).get_executor()`` of dask.distributed. If not given, one process
        a core, started afresh (in a script: under ``if __name__ == "__main__"``).
    store
        Folder that keeps every finished setting. Where it exists, what it holds is not sampled again, whether the sweep
        was interrupted or the grid has grown.
    progress
        Called with the number of settings that have just been finished or found in the store; they add up to
        ``grid.size``.

    Returns
    -------
    xarray.Dataset
        What the measure gives, with the hyper-parameters as first dimensions, and ``reason``: an empty string, or the
        sentence that says why there is only NaN (the step is refused as unstable, or a chain diverged).

    Raises
    ------
    TypeError
        If the measure is none, or the arguments cannot be sent to worker processes.
    ValueError
        If an argument does not fit, or `store` belongs to another sweep.
    WorkerLost
        If a worker process dies. Finished settings are in the store: call again to go on.

    Examples
    --------
    >>> from numerics import LeaveOneOutCorrelation, TrainingConfig, leave_one_out, train
    >>> from theory import hierarchical_dataset
    >>> data, config = hierarchical_dataset(), TrainingConfig(epochs=1500, checkpoint_every=500)
    >>> grid = SweepGrid(step_size=[1e-4, 1e-3], n_beta=[1e3], localization=[5e3], chains=[2], draws=[100])
    >>> with ThreadPoolExecutor(2) as threads:
    ...     found = sweep(
    ...         data,
    ...         train(data, config).checkpoints,
    ...         grid,
    ...         measure=LeaveOneOutCorrelation(leave_one_out(data, config)),
    ...         executor=threads,
    ...     )
    >>> found["correlation"].squeeze().notnull().values
    array([ True, False])
    >>> print(found["reason"].sel(step_size=1e-3).item())
    step_size 0.001 is outside the stable range: step x (n_beta lambda_max + localization) is at least ...
    """
    sampler = RMSPropSGLD() if sampler is None else sampler
    samplers = grid.samplers(sampler)
    sizes = (tuple(grid.chains), tuple(grid.draws))
    job = SweepJob(dataset, checkpoints, measure, *sizes, burn_in, thin, seed, dtype, usable_device(device))
    _check(job, grid, samplers[0], executor)
    checks.integer("together", together, at_least=1)
    keys = [digest((asdict(one), job.chains, job.draws)) for one in samplers]
    kept = None if store is None else ResultStore(store, _configuration(job, grid, sampler), "sweep")
    results: dict[int, xr.Dataset] = {}

    def finished(numbers: Sequence[int], found: Sequence[xr.Dataset]) -> None:
        results.update(zip(numbers, found, strict=True))
        if progress is not None:
            progress(len(numbers) * len(job.chains) * len(job.draws))

    for number, key in enumerate(keys):
        if kept is not None and (result := kept.read(key)) is not None:
            finished([number], [result])
    missing = [number for number in range(len(samplers)) if number not in results]
    groups = [missing[k : k + together] for k in range(0, len(missing), together)]

    def computed(position: int, found: Sequence[xr.Dataset]) -> None:
        for number, result in zip(groups[position], found, strict=True):
            if kept is not None:
                kept.write(keys[number], result)
        finished(groups[position], found)

    if groups:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StepSizeWarning)  # grids cross the edge of stability on purpose
            tasks = [(job, [samplers[number] for number in group]) for group in groups]
            run_tasks(run_settings, tasks, computed, executor)
    fixed = {name: value for name, value in asdict(sampler).items() if name not in grid.axes}
    return _assembled(job, grid, type(sampler).__name__, fixed, [results[k] for k in range(len(samplers))])


def _check(job: SweepJob, grid: SweepGrid, first: Sampler, executor: Executor | None) -> None:
    """Refuse now what is wrong with all settings, so that one refused later is refused for its step."""
    if not isinstance(job.measure, SweepMeasure):
        raise TypeError(
            "measure must be LeaveOneOutCorrelation(...), LearningCoefficientError(...) or a SweepMeasure of your own, "
            f"but {job.measure!r} was given."
        )
    job.plan(replace(first, step_size=1e-300))  # a stable step: what is refused now is wrong everywhere
    job.measure.check(job.dataset, job.checkpoints, grid)
    if not isinstance(executor, ThreadPoolExecutor):
        try:
            job.packed  # noqa: B018
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"the sweep cannot be sent to worker processes: {error}. Define module, loss and measure at the top "
                "level of a module, or give executor=ThreadPoolExecutor()."
            ) from error


def _configuration(job: SweepJob, grid: SweepGrid, sampler: Sampler) -> dict[str, str]:
    """Return what must agree for results to belong together, in words or as a digest."""
    left_open = {name: value for name, value in asdict(sampler).items() if name not in grid.sampler_axes}
    return {
        "data set": digest(job.dataset),
        "checkpoints": digest(job.checkpoints),
        "measure": digest(job.measure),
        "sampler": f"{type(sampler).__name__} {left_open}",
        **{name: str(getattr(job, name)) for name in ("burn_in", "thin", "seed", "dtype", "device")},
        "version of stagewise": version("stagewise"),
    }


def _assembled(
    job: SweepJob, grid: SweepGrid, estimator: str, fixed: dict[str, object], results: list[xr.Dataset]
) -> xr.Dataset:
    """Lay the results out on the grid."""
    axes = {name: np.array(values) for name, values in grid.axes.items()}
    shape = tuple(len(values) for values in grid.sampler_axes.values())
    variables: dict[str, Any] = {}
    for name, first in results[0].data_vars.items():
        own = [dim for dim in first.dims if dim not in ("chains", "draws")]
        values = np.stack([result[name].transpose("chains", "draws", *own).values for result in results])
        variables[str(name)] = ((*axes, *own), values.reshape(shape + values.shape[1:]))
    coords = {name: value for name, value in results[0].coords.items() if name not in ("chains", "draws")}
    settings = {name: getattr(job, name) for name in ("burn_in", "thin", "seed")}
    more = {"estimator": estimator, "measure": type(job.measure).__name__, "dtype": str(job.dtype).split(".")[1]}
    attrs = labelled_array(0.0, {}, "settings", fixed | settings | more).attrs
    return xr.Dataset(variables, coords=coords | axes, attrs=attrs)
