"""CPU time of functions, compared in one process."""

import time
from collections.abc import Callable

__all__ = ["cpu_seconds", "cpu_seconds_of_each"]


def cpu_seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """Return the least CPU time of some repeats: what disturbs a shared machine only adds."""
    return cpu_seconds_of_each([function], repeats)[0]


def cpu_seconds_of_each(functions: list[Callable[[], object]], repeats: int = 3) -> list[float]:
    """Return the same for several functions in turns, so that a drift of the machine's speed meets all of them."""
    least = [float("inf")] * len(functions)
    for _ in range(repeats):
        for k, function in enumerate(functions):
            start = time.process_time()
            function()
            least[k] = min(least[k], time.process_time() - start)
    return least
