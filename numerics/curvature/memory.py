"""How many samples, vectors or gradients fit into the memory that a call may take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from theory import checks

__all__ = ["allowed_bytes", "blocks", "counted_bytes", "refuse_too_large"]

_DEFAULT = 2**30  # bytes; more makes nothing faster here


def allowed_bytes(max_memory: int | None, device: torch.device) -> int:
    """Return how many bytes the work of a call may hold at a time: those given, or 1 GiB, or a quarter of what is free.

    Examples
    --------
    >>> allowed_bytes(10**6, torch.device("cpu"))
    1000000
    """
    if max_memory is not None:
        return checks.integer("max_memory", max_memory, at_least=1)
    return min(_DEFAULT, _free_bytes(device) // 4)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as table:  # pages that the system gives back when asked count too
            fields = dict(line.split(":") for line in table)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def refuse_too_large(numbers: int, what: str, remedy: str) -> None:
    """Refuse a result of so many float64 numbers that memory cannot hold it."""
    free = _free_bytes(torch.device("cpu"))
    if 8 * numbers > free:
        raise ValueError(f"{what} would take {8 * numbers / 2**30:.3g} GiB, but {free / 2**30:.3g} are free; {remedy}.")


def blocks(count: int, bytes_each: int, allowed: int) -> list[slice]:
    """Return slices of 0..count, each of so many items as fit, and of one at least.

    Examples
    --------
    >>> blocks(5, 10, 25)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    size = max(1, allowed // max(1, bytes_each))
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


@contextmanager
def counted_bytes(besides: torch.Tensor) -> Iterator[dict[int, int]]:
    """Count what graphs built meanwhile keep for their backward pass, besides one tensor: bytes by address.

    Examples
    --------
    >>> x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    >>> with counted_bytes(besides=x) as kept:
    ...     y = (2 * x).exp()
    >>> sum(kept.values())
    24
    """
    kept: dict[int, int] = {}
    own = besides.untyped_storage().data_ptr()

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() != own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield kept
