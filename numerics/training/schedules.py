r"""Learning rates that change from step to step: a factor on the learning rate, by the number of the step.

.. math:: \eta_t = \eta f(t, T), \qquad t = 0, \dots, T - 1 .
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

from theory import checks

__all__ = ["CosineDecay", "LinearDecay", "Schedule", "StepDecay"]

# The factor of step t of T; a function of one's own may be anything that does not depend on the run.
Schedule = Callable[[int, int], float]


@dataclass(frozen=True)
class LinearDecay:
    """Linear warm-up to 1 over the first steps, then a straight line down to `end` at the last step's end.

    Parameters
    ----------
    warmup
        Number of steps of warm-up, >= 0; step t of these has the factor (t + 1) / warmup.
    end
        What the factor comes down to, in [0, 1]; 1 keeps it constant after the warm-up.

    Examples
    --------
    >>> [LinearDecay(warmup=2)(t, 6) for t in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """

    warmup: int = 0
    end: float = 0.0

    def __post_init__(self) -> None:
        _check(self.warmup, self.end)

    def __call__(self, step: int, steps: int) -> float:
        """Return the factor of a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 1 - (1 - self.end) * (step - self.warmup) / max(1, steps - self.warmup)


@dataclass(frozen=True)
class CosineDecay:
    """Linear warm-up to 1 over the first steps, then half a cosine down to `end` at the last step's end.

    Parameters
    ----------
    warmup, end
        As for `LinearDecay`.

    Examples
    --------
    >>> [round(CosineDecay()(t, 4), 3) for t in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """

    warmup: int = 0
    end: float = 0.0

    def __post_init__(self) -> None:
        _check(self.warmup, self.end)

    def __call__(self, step: int, steps: int) -> float:
        """Return the factor of a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, steps - self.warmup)
        return self.end + (1 - self.end) * (1 + cos(pi * done)) / 2


@dataclass(frozen=True)
class StepDecay:
    """A factor that is multiplied once more after every so many steps.

    Parameters
    ----------
    every
        Number of steps, >= 1.
    factor
        In (0, 1].

    Examples
    --------
    >>> [StepDecay(every=2, factor=0.5)(t, 6) for t in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        checks.integer("every", self.every, at_least=1)
        if checks.positive("factor", self.factor) > 1:
            raise ValueError(f"factor must be at most 1, but {self.factor} was given.")

    def __call__(self, step: int, steps: int) -> float:
        """Return the factor of a step."""
        return self.factor ** (step // self.every)


def _check(warmup: int, end: float) -> None:
    checks.integer("warmup", warmup, at_least=0)
    if not 0 <= float(checks.array("end", end, ndim=0)) <= 1:
        raise ValueError(f"end must lie between 0 and 1, but {end} was given.")
