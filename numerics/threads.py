"""How many threads there are, set on purpose, and settings of the process that its threads ask for side by side.

On small matrices a second thread costs more than it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock

import torch
from threadpoolctl import threadpool_limits

__all__ = ["ProcessSetting", "one_thread"]


class ProcessSetting:
    """A setting of the whole process: made when the first thread asks for it, undone when the last one is done.

    Parameters
    ----------
    setting
        Returns the context in which the setting holds.

    Examples
    --------
    >>> @contextmanager
    ... def lights():
    ...     print("on")
    ...     yield
    ...     print("off")
    >>> lit = ProcessSetting(lights)
    >>> with lit(), lit():
    ...     print("work")
    on
    work
    off
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[object]]) -> None:
        self._setting = setting
        self._lock, self._inside, self._held = Lock(), 0, ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Return the context."""
        with self._lock:
            if self._inside == 0:
                self._held.enter_context(self._setting())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._held.close()


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


one_thread = ProcessSetting(_one_thread)
"""Run torch and BLAS on one thread within the context ``one_thread()``."""
