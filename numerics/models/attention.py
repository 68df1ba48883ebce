"""torch's inference path of attention layers, which has neither gradients nor a batching rule, switched off in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock

import torch

__all__ = ["without_fast_path"]

_LAYERS = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer, torch.nn.TransformerEncoder)


def without_fast_path(module: torch.nn.Module) -> Callable[[], AbstractContextManager[None]]:
    """Return the context in which to call the module: with the fast path off if it has layers that may take it.

    Examples
    --------
    >>> without_fast_path(torch.nn.Linear(1, 1)) is nullcontext
    True
    """
    return _switch.off if any(isinstance(layer, _LAYERS) for layer in module.modules()) else nullcontext


class _Switch:
    """torch's one switch for the process: off while any thread is inside, then as it was."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, True

    @contextmanager
    def off(self) -> Iterator[None]:
        """Return the context."""
        with self._lock:
            if self._inside == 0:
                self._before = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    torch.backends.mha.set_fastpath_enabled(self._before)


_switch = _Switch()
