"""The smallest fault that turns each claim's verdict: measured by planting ever smaller ones, and kept beside the code.

A fault spoils one measurement that the claim compares: it scales it, adds to it, shifts it along training, or scales
its standard error. ``python tests/measure_faults.py CLAIM`` bisects the size at which the verdict turns; a test plants
faults of the size that stands here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["SmallestFault", "command", "smallest_fault"]


@dataclass(frozen=True)
class SmallestFault:
    """The smallest change of one measurement that turns a claim, in either direction.

    Parameters
    ----------
    what
        The measurement that is changed.
    kind
        "scale" (share of itself), "offset" (share of its largest entry), "shift" (epochs) or "error" (factor on its
        standard error).
    down, up
        Size of the fault in either direction; None where none of those tried turns the claim.

    Examples
    --------
    >>> print(SmallestFault("leave-one-out by retraining", "scale", -0.004, 0.0031))
    leave-one-out by retraining scaled by -0.4 % or +0.31 %
    >>> print(SmallestFault("Bayesian influence", "shift", None, 300.0))
    Bayesian influence moved by +300 epochs
    """

    what: str
    kind: str
    down: float | None
    up: float | None

    def __str__(self) -> str:
        sizes = [size for size in (self.down, self.up) if size is not None]
        if self.kind == "shift":
            return f"{self.what} moved by {' or '.join(f'{size:+.3g}' for size in sizes)} epochs"
        if self.kind == "offset":
            return f"{self.what} off by {' or '.join(f'{100 * size:+.2g} %' for size in sizes)} of its largest entry"
        if self.kind == "error":
            return f"standard error of {self.what} times {' or '.join(f'{1 + size:.3g}' for size in sizes)}"
        return f"{self.what} scaled by {' or '.join(f'{100 * size:+.2g} %' for size in sizes)}"


@cache
def _measured() -> dict[str, SmallestFault]:
    found = json.loads(files("validation").joinpath("smallest_faults.json").read_text(encoding="utf-8"))
    return {claim: SmallestFault(**fault) for claim, fault in found.items()}


def smallest_fault(claim: str) -> SmallestFault | None:
    """Return the smallest fault measured for a claim, None for one that has none on record."""
    return _measured().get(claim)


def command(claim: str) -> str:
    """Return the command that measures the smallest fault of a claim again, in a checkout.

    Examples
    --------
    >>> command("stages-loo")
    'python tests/measure_faults.py stages-loo'
    """
    return f"python tests/measure_faults.py {claim}"
