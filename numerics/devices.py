"""Where tensors live: a device that this torch does not know, or that is not there, is refused before any work."""

from __future__ import annotations

import torch

__all__ = ["usable_device"]


def usable_device(device: str | torch.device) -> torch.device:
    """Return the device if a tensor can be put there.

    Raises
    ------
    ValueError
        If it cannot.

    Examples
    --------
    >>> usable_device("cpu")
    device(type='cpu')
    >>> usable_device("gpu")
    Traceback (most recent call last):
    ...
    ValueError: device 'gpu' cannot be used; try "cpu". torch says: Expected one of cpu, cuda, ...
    """
    try:
        torch.zeros(1, device=device).item()  # a number that comes back, which "meta" has none of
        return torch.device(device)
    except (AssertionError, RuntimeError, TypeError) as error:  # torch's ways to say that it is unknown or absent
        raise ValueError(
            f'device {str(device)!r} cannot be used; try "cpu". torch says: {str(error).splitlines()[0]}'
        ) from error
