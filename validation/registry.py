"""The ledger's entries: claims, the numbers that test them, and the verdicts that follow.

A claim is a sentence and a function that measures it: from the shared experiment it yields `Check` objects, each a
number with a bound and the derivation of that bound, and `Plot` objects for the report. It holds when every check
does. A printed statement that is expected not to hold carries what holds in its place and the readings that were tried,
each with checks of its own: it is wrong if every reading is, it depends on the reading if some are right, and it is
imprecise if it becomes right once something is added. A claim that could not fail says nothing, so that faults may be
planted: each must turn its verdict.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from validation.charts import Plot
from validation.experiments.base import Experiment

__all__ = [
    "CAUCHY",
    "ORDER",
    "QUADRATURE",
    "REFUTES",
    "ROOMY",
    "ROUNDING",
    "WORST",
    "Check",
    "Claim",
    "ClaimResult",
    "Cost",
    "Measurement",
    "PlantedFault",
    "Reading",
    "Verdict",
    "Way",
    "all_claims",
    "claim",
    "numerics",
    "planted_fault",
    "retraining",
    "run_claim",
    "select_claims",
    "theory",
]

# Reasons why a bound is roomy that hold for many checks.
ORDER = "an order is claimed; the epochs themselves are held against the closed form"
REFUTES = "a refutation, the clearer the further away"
CAUCHY = "reached only if two independent errors point the same way"
QUADRATURE = "adaptive quadrature is better than it promises"
ROUNDING = "rounding differs between machines, and no fault of a formula is as small"
WORST = "a worst case over directions and signs, which a random start does not reach"

ROOMY = 0.2  # a check that uses less of its bound than this says why
STANDARD_ERRORS = 3.0  # half-width of the interval of a number with an error bar: one false alarm in 370


class Verdict(StrEnum):
    """Outcome of a check, a claim or a pair of measures."""

    HOLDS = "holds"
    WRONG = "wrong in every reading tried"
    DEPENDS = "depends on the reading"
    IMPRECISE = "imprecise"
    INCONCLUSIVE = "inconclusive"
    FAILS = "fails"
    REPORTED = "reported"


class Way(StrEnum):
    """The independent ways to a number."""

    THEORY = "theory"
    NUMERICS = "numerics"
    RETRAINING = "retraining"
    OWN = "your own"


class Cost(StrEnum):
    """Quick claims take less than five seconds once the shared runs are there, and ``--quick`` checks only those."""

    QUICK = "quick"
    FULL = "full"


@dataclass(frozen=True)
class Measurement:
    """One of the measurements that a claim compares: the way it is made and what is measured."""

    way: Way
    what: str


def theory(what: str) -> Measurement:
    """Return a measurement by closed form, quadrature or computer algebra."""
    return Measurement(Way.THEORY, what)


def numerics(what: str) -> Measurement:
    """Return a measurement by simulation, sampling, automatic differentiation or linear algebra."""
    return Measurement(Way.NUMERICS, what)


def retraining(what: str) -> Measurement:
    """Return a measurement by training again with changed data."""
    return Measurement(Way.RETRAINING, what)


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
    error
        One standard error of the number, 0 where it has none.
    reading
        Name of the claim's reading that the check decides on; empty if it belongs to all.
    roomy
        Why the bound is more than five times what was measured, where it is.

    Examples
    --------
    >>> [str(Check("variance ratio", 1.02, 0.9, 1.1, error=e).verdict) for e in (0.01, 0.1)]
    ['holds', 'inconclusive']
    """

    quantity: str
    measured: float
    low: float = -math.inf
    high: float = math.inf
    why: str = ""
    error: float = 0.0
    reading: str = ""
    roomy: str = ""

    @property
    def use(self) -> float:
        """Share of the bound that the number uses with three standard errors: above 1 outside, NaN without a bound.

        Examples
        --------
        >>> Check("slope", 1.05, 0.9, 1.1).use, Check("error", 0.2, high=0.5).use, Check("gap", 8.0, low=4.0).use
        (0.5, 0.4, 0.5)
        """
        if self.only_reported or math.isnan(self.measured):
            return math.nan
        reach = STANDARD_ERRORS * self.error
        if math.isfinite(self.low) and math.isfinite(self.high):
            half = (self.high - self.low) / 2
            away = abs(self.measured - (self.low + self.high) / 2) + reach
            return round(away / half, 12) if half else (1.0 if away == 0 else math.inf)
        sign = 1.0 if math.isfinite(self.high) else -1.0
        bound, worst = (sign * (self.high if sign > 0 else self.low), sign * self.measured + reach)  # worst <= bound
        if bound > 0:
            return max(worst, 0.0) / bound
        if bound < 0:
            return bound / worst if worst < 0 else math.inf
        return 1.0 if self.measured == 0 else (reach / abs(self.measured) if worst <= 0 else math.inf)

    @property
    def slack(self) -> float:
        """By how much the number may change before the check turns, standard errors counted; NaN without a bound.

        Examples
        --------
        >>> round(Check("slope", 1.05, 0.9, 1.1).slack, 12), Check("error", 0.2, high=0.5, error=0.05).slack
        (0.05, 0.15)
        """
        if self.only_reported:
            return math.nan
        reach = STANDARD_ERRORS * self.error
        return round(min(self.high - self.measured - reach, self.measured - reach - self.low), 15)

    @property
    def verdict(self) -> Verdict:
        """Holds or fails if all within three standard errors does; NaN always fails."""
        if self.only_reported:
            return Verdict.FAILS if math.isnan(self.measured) else Verdict.REPORTED
        reach = STANDARD_ERRORS * self.error
        below, above = self.measured - reach, self.measured + reach
        if self.low <= below and above <= self.high:
            return Verdict.HOLDS
        if below <= self.high and self.low <= above:
            return Verdict.INCONCLUSIVE
        return Verdict.FAILS

    @property
    def only_reported(self) -> bool:
        """Whether the check has no bound."""
        return math.isinf(self.low) and math.isinf(self.high)


@dataclass(frozen=True)
class PlantedFault:
    """A fault in words, and the function that makes it in an experiment."""

    name: str
    plant: Callable[[Any], object]


@dataclass(frozen=True)
class Reading:
    """One way to read a printed statement, and whether the statement is right under it.

    Parameters
    ----------
    name
        The reading, in a few words; checks refer to it.
    right
        Whether the checks of this reading show the statement right.
    """

    name: str
    right: bool = False


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
    compares
        The two or three independent measurements that are compared.
    metric
        What is computed from them and held against a bound.
    measure
        Function that makes the checks.
    corrected
        Empty for a claim that should hold. For a printed statement that is expected not to, what holds in its place, or
        what must be added to it.
    readings
        The ways to read a printed statement that were tried; none for a statement that is only imprecise.
    cost
        Whether ``--quick`` checks it.
    faults
        Faults that must make it fail.
    """

    identifier: str
    statement: str
    source: str
    compares: tuple[Measurement, ...]
    metric: str
    measure: Callable[[Any], Iterable[Check | Plot]]
    corrected: str = ""
    readings: tuple[Reading, ...] = ()
    cost: Cost = Cost.QUICK
    faults: tuple[PlantedFault, ...] = ()

    def __post_init__(self) -> None:
        if self.readings and not self.corrected:
            raise ValueError(f"claim {self.identifier!r} lists readings but not what holds instead; give `corrected`.")
        if self.readings and all(reading.right for reading in self.readings):
            raise ValueError(f"claim {self.identifier!r} is right in every reading; then it holds and needs none.")

    @property
    def family(self) -> str:
        """Name of the module that holds the claim."""
        return self.measure.__module__.rsplit(".", 1)[-1]

    @property
    def expected(self) -> Verdict:
        """The verdict if everything is in order."""
        if not self.corrected:
            return Verdict.HOLDS
        if not self.readings:
            return Verdict.IMPRECISE
        return Verdict.DEPENDS if any(reading.right for reading in self.readings) else Verdict.WRONG


@dataclass(frozen=True)
class ClaimResult:
    """What one claim's measurement found.

    Parameters
    ----------
    claim, checks, plots
        The claim, its numbers and its pictures.
    seconds
        Wall-clock time, shared runs that this claim was the first to ask for included.
    problem
        The sentence of the error that ended the measurement, if one did, or of a planted fault that was not noticed.
    noticed
        The planted faults that made it fail, as they should.
    """

    claim: Claim
    checks: tuple[Check, ...]
    plots: tuple[Plot, ...] = ()
    seconds: float = 0.0
    problem: str = ""
    noticed: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Fails if a check or the measurement does; then inconclusive if one check is; else as expected.

        A reading that no check decides on has not been tried, so the claim fails.
        """
        verdicts = [check.verdict for check in self.checks]
        bounded = [v for v in verdicts if v is not Verdict.REPORTED]
        tried = {check.reading for check in self.checks if check.reading and not check.only_reported}
        if self.problem or not bounded or tried != {reading.name for reading in self.claim.readings}:
            return Verdict.FAILS
        if Verdict.FAILS in bounded:
            return Verdict.FAILS
        return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in bounded else self.claim.expected

    @property
    def closest(self) -> Check | None:
        """The check that the smallest change of its number, relative to number and bound, would turn; None without one.

        Flags and counts, whose bound is the number, say nothing of how small a fault they see.
        """

        def relative(check: Check) -> float:
            ends = [abs(end) for end in (check.measured, check.low, check.high) if math.isfinite(end)]
            return check.slack / max(ends)

        graded = [c for c in self.checks if c.verdict is Verdict.HOLDS and 0 < c.slack < math.inf]
        return min(graded, key=relative, default=None)


_REGISTRY: dict[str, Claim] = {}

Measure = Callable[[Any], Iterable[Check | Plot]]


def claim(
    identifier: str,
    statement: str,
    *,
    source: str,
    compares: tuple[Measurement, ...],
    metric: str,
    corrected: str = "",
    readings: tuple[Reading, ...] = (),
    cost: Cost = Cost.QUICK,
) -> Callable[[Measure], Measure]:
    """Register the decorated function as the measurement of a claim; arguments as for `Claim`."""

    def register(measure: Measure) -> Measure:
        if identifier in _REGISTRY:
            raise ValueError(f"two claims are called {identifier!r}.")
        _REGISTRY[identifier] = Claim(
            identifier, statement, source, compares, metric, measure, corrected, readings, cost
        )
        return measure

    return register


def planted_fault(identifier: str, name: str) -> Callable[[Callable[[Any], object]], Callable[[Any], object]]:
    """Register the decorated function as a fault that must make the claim fail.

    It is given a copy of the experiment, whose measures it may replace: ``experiment.kernel = experiment.kernel / 2``.

    Raises
    ------
    ValueError
        If there is no such claim yet.
    """

    def register(plant: Callable[[Any], object]) -> Callable[[Any], object]:
        if identifier not in _REGISTRY:
            raise ValueError(f"no claim is called {identifier!r}; register the claim before its faults.")
        found = _REGISTRY[identifier]
        _REGISTRY[identifier] = replace(found, faults=(*found.faults, PlantedFault(name, plant)))
        return plant

    return register


def withdraw(identifiers: Iterable[str]) -> None:
    """Take claims out of the ledger, those of a file that is read again or cannot be read."""
    for identifier in identifiers:
        _REGISTRY.pop(identifier, None)


def all_claims() -> tuple[Claim, ...]:
    """Return every registered claim in the order of registration."""
    return tuple(_REGISTRY.values())


def select_claims(names: Iterable[str]) -> tuple[Claim, ...]:
    """Return the claims whose id is or starts with one of `names`, or whose family is.

    Raises
    ------
    ValueError
        If a name matches none; the sentence suggests the nearest.
    """
    chosen = []
    for name in names:
        matching = [c for c in all_claims() if c.identifier.startswith(name) or c.family == name]
        if not matching:
            nearest = difflib.get_close_matches(name, _REGISTRY, n=1, cutoff=0.0)
            raise ValueError(f"no claim is called {name!r}; did you mean {nearest[0]!r}?")
        chosen += [c for c in matching if c not in chosen]
    return tuple(chosen)


def run_claim(claim: Claim, experiment: Experiment) -> ClaimResult:
    """Measure one claim, and then with each of its planted faults.

    A measurement that is refused or diverges is a failed claim with the error's sentence.
    """
    start = time.perf_counter()
    found, problem = _measured(claim, experiment)
    checks = tuple(entry for entry in found if isinstance(entry, Check))
    plots = tuple(entry for entry in found if isinstance(entry, Plot))
    result = ClaimResult(claim, checks, plots, problem=problem)
    if claim.faults and result.verdict is claim.expected:
        noticed, problem = _faults_noticed(claim, experiment)
        result = replace(result, noticed=noticed, problem=problem)
    return replace(result, seconds=time.perf_counter() - start)


def _measured(claim: Claim, experiment: Experiment) -> tuple[list[Check | Plot], str]:
    found: list[Check | Plot] = []
    try:
        found.extend(claim.measure(experiment))
    except (ValueError, ArithmeticError, RuntimeError) as error:
        return found, str(error)
    return found, ""


def _faults_noticed(claim: Claim, experiment: Experiment) -> tuple[tuple[str, ...], str]:
    """Return the planted faults that turn the verdict, and a sentence about the first that does not."""
    noticed: list[str] = []
    for fault in claim.faults:
        damaged = experiment.twin()
        fault.plant(damaged)
        found, problem = _measured(claim, damaged)
        checks = tuple(entry for entry in found if isinstance(entry, Check))
        if ClaimResult(claim, checks, problem=problem).verdict is not Verdict.FAILS:
            return tuple(noticed), f"the planted fault {fault.name!r} is not noticed, so that holding says nothing."
        noticed.append(fault.name)
    return tuple(noticed), ""
