"""Many tasks through any PEP 3148 executor: each result is handed over at once, and an interruption loses none."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed, wait
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from numerics.errors import StepSizeWarning, WorkerLost

__all__ = ["run_tasks"]

_LOST_ELSEWHERE = ("KilledWorker",)  # what dask raises, which is not imported for its name

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    finished: Callable[[int, Result], object],
    executor: Executor | None = None,
) -> None:
    """Call `function` on every task in an executor and hand every result over as soon as it is there.

    On Ctrl-C, or if a task fails, tasks that wait are cancelled; those that workers are busy with are waited for and
    handed over too, and then the error goes on to the caller.

    Parameters
    ----------
    function, tasks
        What to do; both must be picklable for executors that are not threads. Tasks go to workers as pickles, which is
        trust within one program: nothing that is read from a file or sent by others is ever unpickled.
    finished
        Called from the calling thread with the number of the task and its result, in any order.
    executor
        Any `concurrent.futures.Executor`, which stays open. If not given, fresh processes, one a core that this process
        may use, each with one thread; a script must then guard its main part by ``if __name__ == "__main__"``.

    Raises
    ------
    WorkerLost
        If a worker process dies.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> results = {}
    >>> with ThreadPoolExecutor(2) as threads:
    ...     run_tasks(abs, [-1, -2], results.__setitem__, threads)
    >>> sorted(results.items())
    [(0, 1), (1, 2)]
    """
    if executor is None:
        with _processes() as pool:
            run_tasks(function, tasks, finished, pool)
        return
    numbers: dict[Future[Result], int] = {}
    try:
        for number, task in enumerate(tasks):
            numbers[executor.submit(function, task)] = number
        for future in as_completed(list(numbers)):
            finished(numbers[future], future.result())
            del numbers[future]
    except BaseException as error:
        running = [future for future in numbers if not future.cancel()]
        for future in wait(running).done:
            if future.exception() is None:
                finished(numbers[future], future.result())
        if isinstance(error, BrokenExecutor) or type(error).__name__ in _LOST_ELSEWHERE:
            raise WorkerLost(
                f"a worker process died, killed or out of memory: {error} What was finished before has been handed "
                "over; the same call with a store goes on from there."
            ) from error
        raise


def _processes() -> ProcessPoolExecutor:
    """Return workers that are started afresh: a fork of a process in which torch has run threads may hang."""
    return ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )


def _start_worker() -> Any:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which lets workers finish what they do
    warnings.simplefilter("ignore", StepSizeWarning)  # grids cross the edge of stability on purpose
    torch.set_num_threads(1)
    threadpool_limits(1)
