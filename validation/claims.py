"""Claims: a sentence, the measurements that test it, and bounds whose derivation stands beside them.

A claim is a function from the shared experiment to `Check` objects, registered under an id. It holds when every check
holds. A claim about a printed formula that is expected not to hold is registered as an erratum: when its checks hold,
the formula is refuted as printed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from validation.toy import ToyExperiment

__all__ = ["Check", "Claim", "ClaimResult", "Verdict", "all_claims", "claim", "run_claim", "select_claims"]


class Verdict(StrEnum):
    """Outcome of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    REFUTED = "refuted as printed"
    REPORTED = "reported"


@dataclass(frozen=True)
class Check:
    """One measured number and its bound.

    Parameters
    ----------
    quantity
        What was measured.
    measured
        The number.
    low, high
        The bound: low <= measured <= high. Infinite on both sides for a number that is only reported.
    why
        Where the bound comes from.
    """

    quantity: str
    measured: float
    low: float = -math.inf
    high: float = math.inf
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether the number is within its bound; NaN never is."""
        return bool(self.low <= self.measured <= self.high)

    @property
    def only_reported(self) -> bool:
        """Whether the check has no bound."""
        return math.isinf(self.low) and math.isinf(self.high)


@dataclass(frozen=True)
class Claim:
    """A registered claim; see the module's description.

    Parameters
    ----------
    identifier
        Short name used by ``--only``.
    statement
        The claim in one sentence.
    source
        Paper section or equation, or "ours".
    measure
        Function that makes the checks.
    erratum
        Whether the checks show that a printed formula does not hold.
    sampled
        Whether the claim needs the sampled posterior, the slowest measurement.
    """

    identifier: str
    statement: str
    source: str
    measure: Callable[[ToyExperiment], Iterable[Check]]
    erratum: bool = False
    sampled: bool = False


@dataclass(frozen=True)
class ClaimResult:
    """The checks of one claim and the verdict that follows from them."""

    claim: Claim
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """Fails if any check does; otherwise holds, refutes, or only reports."""
        if not self.checks or not all(check.holds for check in self.checks):
            return Verdict.FAILS
        if all(check.only_reported for check in self.checks):
            return Verdict.REPORTED
        return Verdict.REFUTED if self.claim.erratum else Verdict.HOLDS


_REGISTRY: dict[str, Claim] = {}


def claim(
    identifier: str, statement: str, *, source: str, erratum: bool = False, sampled: bool = False
) -> Callable[[Callable[[ToyExperiment], Iterable[Check]]], Callable[[ToyExperiment], Iterable[Check]]]:
    """Register the decorated function as the measurement of a claim."""

    def register(measure: Callable[[ToyExperiment], Iterable[Check]]) -> Callable[[ToyExperiment], Iterable[Check]]:
        if identifier in _REGISTRY:
            raise ValueError(f"two claims are called {identifier!r}.")
        _REGISTRY[identifier] = Claim(identifier, statement, source, measure, erratum, sampled)
        return measure

    return register


def all_claims() -> tuple[Claim, ...]:
    """Return every registered claim in the order of registration."""
    return tuple(_REGISTRY.values())


def select_claims(names: Iterable[str]) -> tuple[Claim, ...]:
    """Return the claims whose id is or starts with one of `names`.

    Raises
    ------
    ValueError
        If a name matches none; the sentence suggests the nearest.
    """
    chosen = []
    for name in names:
        matching = [c for c in all_claims() if c.identifier == name or c.identifier.startswith(name)]
        if not matching:
            nearest = difflib.get_close_matches(name, _REGISTRY, n=1, cutoff=0.0)
            raise ValueError(f"no claim is called {name!r}; did you mean {nearest[0]!r}?")
        chosen += [c for c in matching if c not in chosen]
    return tuple(chosen)


def run_claim(claim: Claim, experiment: ToyExperiment) -> ClaimResult:
    """Measure one claim."""
    return ClaimResult(claim, tuple(claim.measure(experiment)))
