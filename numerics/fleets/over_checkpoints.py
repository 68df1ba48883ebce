"""Any measure along training, a part of the checkpoints at a time, on the workers of any PEP 3148 executor."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import xarray as xr

from numerics.executors import run_tasks
from numerics.sampling.plan import Data, Weights
from numerics.sampling.trust import trust
from theory import checks

__all__ = ["over_checkpoints"]

Measured = TypeVar("Measured", xr.DataArray, xr.Dataset)


def over_checkpoints(
    measure: Callable[..., Measured],
    dataset: Data,
    checkpoints: Weights,
    *,
    parts: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[int], object] | None = None,
    **settings: Any,
) -> Measured:
    """Call ``measure(dataset, part of the checkpoints, **settings)`` for every part and join the results along epochs.

    What is measured at one checkpoint does not depend on the others, and the bits of a chain depend on its seed, epoch
    and number alone: the result is the same on every executor, and in one call. (Modules are evaluated in batches,
    whose products round by their size: there the last bits depend on `parts`.)

    Parameters
    ----------
    measure
        `bayesian_influence`, `sample`, `hessian_influence`, `gauss_newton_influence`, `gradient_kernel`, or any
        function that can be called like them and returns labelled arrays with a dimension ``epoch``.
    dataset, checkpoints
        Samples and weights.
    parts
        Number of parts; one for each core that this process may use if not given, but no more than checkpoints.
    executor
        Any `concurrent.futures.Executor`, such as that of a dask client. Fresh processes if not given: then a script
        must guard its main part by ``if __name__ == "__main__"``, and a module's loss must be importable.
    progress
        Called with the number of checkpoints of each finished part.
    settings
        Further arguments of `measure`. Samplers start threads of their own: give them ``workers=1`` in processes.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        What `measure` returns for all checkpoints.

    Raises
    ------
    WorkerLost
        If a worker process dies.
    ValueError
        If `parts` is not positive, or whatever `measure` raises.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from numerics import TrainingConfig, hessian_influence, train
    >>> from theory import hierarchical_dataset
    >>> data = hierarchical_dataset()
    >>> run = train(data, TrainingConfig(epochs=400))
    >>> with ThreadPoolExecutor(2) as threads:
    ...     result = over_checkpoints(hessian_influence, data, run.checkpoints, executor=threads, damping=5.0)
    >>> bool((result["influence"] == hessian_influence(data, run.checkpoints, damping=5.0)["influence"]).all())
    True
    """
    count = len(os.sched_getaffinity(0)) if parts is None else checks.integer("parts", parts, at_least=1)
    stretches = np.array_split(np.asarray(checkpoints.epochs), min(count, len(checkpoints)))
    results: dict[int, Measured] = {}

    def finished(number: int, result: Measured) -> None:
        results[number] = result
        if progress is not None:
            progress(len(stretches[number]))

    tasks = [_Part(measure, dataset, checkpoints.at(stretch), settings) for stretch in stretches]
    run_tasks(_run, tasks, finished, executor)
    ordered = [results[number] for number in range(len(tasks))]
    if isinstance(ordered[0], xr.DataArray):
        return xr.concat(ordered, dim="epoch", combine_attrs="override")
    whole = xr.concat(
        ordered, dim="epoch", data_vars="minimal", coords="minimal", compat="override", combine_attrs="override"
    )
    # What a part says of its own chains is not what is to be said of all of them.
    return whole.assign_attrs(trust=str(trust(whole))) if "trust" in whole.attrs else whole


class _Part(NamedTuple):
    measure: Callable[..., Any]
    dataset: Data
    checkpoints: Weights
    settings: dict[str, Any]


def _run(part: _Part) -> Any:
    return part.measure(part.dataset, part.checkpoints, **part.settings)
