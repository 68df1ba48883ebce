"""torch's kernels of attention, chosen for the process: those that have the derivatives and batching rules in use.

The inference path has neither gradients nor a batching rule; second derivatives only the elementary kernel has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from numerics.threads import ProcessSetting

__all__ = ["elementary_attention", "without_fast_path"]

_LAYERS = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer, torch.nn.TransformerEncoder)


def without_fast_path(module: torch.nn.Module) -> Callable[[], AbstractContextManager[None]]:
    """Return the context in which to call the module: with the fast path off if it has layers that may take it.

    Examples
    --------
    >>> without_fast_path(torch.nn.Linear(1, 1)) is nullcontext
    True
    """
    return _fast_path_off if any(isinstance(layer, _LAYERS) for layer in module.modules()) else nullcontext


@contextmanager
def _off() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


_fast_path_off = ProcessSetting(_off)
elementary_attention = ProcessSetting(lambda: sdpa_kernel(SDPBackend.MATH))
