"""One run of the ledger: measures pairs and claims one by one, and keeps what it has when it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from numerics.threads import one_thread
from validation.experiments.base import Experiment, Settings
from validation.pairs import MEASURES, Measure, Pair, PairResult, compare, correlations
from validation.registry import Claim, ClaimResult, Verdict, run_claim
from validation.second_process import SharedClaims
from validation.strongest import Extreme, strongest_influences

__all__ = ["Ledger", "run_ledger"]

Finished = Callable[[str, Verdict, float], object]


@dataclass(frozen=True, eq=False)
class Ledger:
    """What a run found.

    Parameters
    ----------
    title
        What was validated.
    settings
        Settings of the experiment.
    pairs, claims
        Results in the order of the run.
    matrix
        Correlation of every two measures, see `validation.pairs.correlations`; None if it was not asked for.
    strongest
        The strongest influences by name; empty if they were not asked for.
    unfinished
        Names of what an interrupted run did not reach; empty for a complete one.
    seconds
        Wall-clock time.
    notes
        Sentences about the data and where they came from.
    """

    title: str
    settings: Settings
    pairs: tuple[PairResult, ...]
    claims: tuple[ClaimResult, ...]
    matrix: xr.DataArray | None
    strongest: tuple[Extreme, ...]
    unfinished: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def verdicts(self) -> dict[Verdict, int]:
        """Number of claims and pairs of each verdict that occurs."""
        found = [pair.verdict for pair in self.pairs] + [claim.verdict for claim in self.claims]
        return {verdict: found.count(verdict) for verdict in Verdict if verdict in found}

    @property
    def failed(self) -> bool:
        """Whether something that should hold does not."""
        return Verdict.FAILS in self.verdicts

    @property
    def inconclusive(self) -> bool:
        """Whether something that should hold has not been shown to: an error bar reaches across its bound."""
        return Verdict.INCONCLUSIVE in self.verdicts


@one_thread()
def run_ledger(
    title: str,
    experiment: Experiment,
    *,
    claims: Sequence[Claim] = (),
    pairs: Sequence[Pair] = (),
    measures: Sequence[str] = (),
    own: Mapping[str, Measure] | None = None,
    notes: Sequence[str] = (),
    strongest: int = 0,
    general_only: bool = False,
    processes: int = 1,
    started: Callable[[str], object] = lambda _: None,
    finished: Finished = lambda *_: None,
) -> Ledger:
    """Measure pairs, then claims, then the correlations of all measures, each process on one thread.

    Parameters
    ----------
    title
        What is validated, for the reports.
    experiment
        The shared runs; a `ToyExperiment` for claims about the toy model.
    claims, pairs, measures
        What to check, and the names of the measures to correlate.
    own
        Measures by name beside `MEASURES`.
    notes
        Sentences for the head of the report.
    strongest
        How many of the strongest influences to name.
    general_only
        Whether only bounds that hold for any data count.
    processes
        2 hands claims of the ledger, from the last one on, to a second process with a toy experiment of its own.
    started, finished
        Called with the name of each entry before, and with its name, verdict and seconds after it is measured.

    Returns
    -------
    Ledger
        Complete, or what there was when the run was interrupted (Ctrl-C); then ``unfinished`` is not empty.
    """
    start = time.perf_counter()
    known = MEASURES | dict(own or {})
    names = [f"{pair.measure} against {pair.reference}" for pair in pairs] + [c.identifier for c in claims]
    found_pairs: list[PairResult] = []
    matrix: xr.DataArray | None = None
    extremes: tuple[Extreme, ...] = ()
    interrupted = False

    def report(result: ClaimResult) -> None:
        finished(result.claim.identifier, result.verdict, result.seconds)

    shared = SharedClaims(claims, experiment.settings if processes > 1 else None, started, report)
    try:
        for pair, name in zip(pairs, names, strict=False):
            started(name)
            before = time.perf_counter()
            found_pairs.append(compare(pair, experiment, bounded=not general_only, measures=known))
            finished(name, found_pairs[-1].verdict, time.perf_counter() - before)
        _measure(shared, experiment, started, report)
        if measures:
            started("correlations of all measures")
            matrix = correlations(experiment, measures, measures=known)
        shared.wait()
        _measure(shared, experiment, started, report)  # what a second process that died has left
        if strongest:
            started("strongest influences")
            extremes = strongest_influences(experiment, strongest)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        shared.stop()
    found_claims = tuple(shared.results[k] for k in sorted(shared.results))
    unfinished = names[len(found_pairs) : len(pairs)]
    unfinished += [c.identifier for k, c in enumerate(claims) if k not in shared.results]
    unfinished += ["correlations of all measures"] if measures and matrix is None else []
    unfinished += ["strongest influences"] if strongest and not extremes else []
    return Ledger(
        title,
        experiment.settings,
        tuple(found_pairs),
        found_claims,
        matrix,
        extremes,
        tuple(unfinished) if interrupted else (),
        time.perf_counter() - start,
        tuple(notes),
    )


def _measure(
    shared: SharedClaims,
    experiment: Experiment,
    started: Callable[[str], object],
    report: Callable[[ClaimResult], None],
) -> None:
    """Measure the claims that are left, from the front."""
    while (k := shared.next()) is not None:
        started(shared.claims[k].identifier)
        shared.results[k] = run_claim(shared.claims[k], experiment)
        report(shared.results[k])
