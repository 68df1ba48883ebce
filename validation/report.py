"""The report of a run on the terminal and as JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from validation.pairs import PairResult
from validation.paper_sentences import quotes
from validation.registry import Check, ClaimResult, Verdict
from validation.runner import Ledger
from validation.sentence_verdicts import SentenceVerdict, judge_sentences
from validation.smallest_faults import command, smallest_fault
from validation.strongest import Extreme

__all__ = ["MARKS", "bound", "number", "print_ledger", "reasons", "smallest", "summary", "used", "write_json"]

MARKS = {
    Verdict.HOLDS: "✓",
    Verdict.WRONG: "≠",
    Verdict.DEPENDS: "≷",
    Verdict.IMPRECISE: "≈",
    Verdict.INCONCLUSIVE: "?",
    Verdict.FAILS: "✗",
    Verdict.REPORTED: "·",
}
_WIDE = 130  # columns of a terminal that has room for reasons and sources
STYLES = {
    Verdict.HOLDS: "green",
    Verdict.WRONG: "magenta",
    Verdict.DEPENDS: "magenta",
    Verdict.IMPRECISE: "cyan",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.FAILS: "bold red",
    Verdict.REPORTED: "dim",
}


def number(value: float) -> str:
    """Return a number with the digits that a reader needs.

    Examples
    --------
    >>> [number(x) for x in (0.99987, 2100.0, 1.234e-9, float("nan"))]
    ['0.9999', '2100', '1.23e-09', 'nan']
    """
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and 10 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.4g}" if 0.99 < abs(value) < 1 else f"{value:.3g}"


def measured(check: Check) -> str:
    """Return a check's number with its standard error."""
    return number(check.measured) + (f" ± {check.error:.1g}" if check.error else "")


def bound(check: Check) -> str:
    """Return a check's bound as an inequality or a range.

    Examples
    --------
    >>> bound(Check("error", 0.1, high=0.5)), bound(Check("slope", 1.0, low=0.9, high=1.1))
    ('≤ 0.5', '0.9 to 1.1')
    """
    if check.only_reported:
        return "-"
    if check.low == check.high:
        return f"= {number(check.low)}"
    if math.isinf(check.low):
        return f"≤ {number(check.high)}"
    if math.isinf(check.high):
        return f"≥ {number(check.low)}"
    return f"{number(check.low)} to {number(check.high)}"


def smallest(result: ClaimResult) -> list[str]:
    """Return the smallest faults that turn a claim: one planted in a measurement, one of a checked number."""
    name = result.claim.identifier
    planted, close = smallest_fault(name), result.closest
    lines = [] if planted is None else [f"{planted}, by {command(name)}"]
    if close is not None:
        only = "" if planted else ", the checked number itself"
        lines.append(f"{close.quantity}: a change by {number(close.slack)}{only}")
    return lines


def reasons(check: Check) -> str:
    """Return where a check's bound comes from, and why it is roomy where it is."""
    return check.why + (f". Roomy: {check.roomy}" if check.roomy else "")


def print_ledger(console: Console, ledger: Ledger, *, details: bool) -> None:
    """Print the table of pairs and the table of claims; with `details`, and for what fails, every check."""
    if ledger.pairs:
        console.print(_pair_table(ledger.pairs, wide=console.width >= _WIDE))
    if ledger.claims:
        console.print(_claim_table(ledger.claims, wide=console.width >= _WIDE))
    if ledger.strongest:
        console.print(_strongest_table(ledger.strongest))
    for pair in ledger.pairs:
        if pair.verdict in (Verdict.FAILS, Verdict.INCONCLUSIVE):
            _print_pair(console, pair)
    for result in ledger.claims:
        if details or result.verdict in (Verdict.FAILS, Verdict.INCONCLUSIVE):
            _print_details(console, result)


def summary(ledger: Ledger) -> str:
    """Return the run in one line."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in ledger.verdicts.items()) or "nothing measured"
    partial = f" Interrupted: {len(ledger.unfinished)} not measured." if ledger.unfinished else ""
    return (
        f"{len(ledger.pairs)} pairs, {len(ledger.claims)} claims in {ledger.seconds:.0f} s: {counts}. "
        f"Seed {ledger.settings.seed}.{partial}{_sentences(ledger)}"
    )


def _sentences(ledger: Ledger) -> str:
    """Return how the paper's sentences fare, where the run decides on one."""
    found = [result.verdict for result in judge_sentences(ledger.claims)]
    counts = [f"{found.count(verdict)} {verdict}" for verdict in SentenceVerdict]
    decided = len(found) - found.count(SentenceVerdict.UNTESTED)
    return f" Of the paper's {len(found)} sentences {', '.join(counts)}." if decided else ""


def _verdict(verdict: Verdict) -> str:
    return f"[{STYLES[verdict]}]{MARKS[verdict]} {verdict}[/]"


def _pair_table(pairs: Sequence[PairResult], *, wide: bool) -> Table:
    table = Table(title="Pairs of measures (measure against reference; negative influence = helps)")
    columns = ["reference", "measure", "Pearson", "slope"]
    columns += ["rel. max error", "peak shift", "same sign", "epochs x pairs", "expected, and why"] if wide else []
    for column in (*columns, "verdict"):
        table.add_column(column, no_wrap=column in ("Pearson", "slope", "verdict"))
    for result in pairs:
        found = result.found
        numbers = ["-"] * 6
        if found is not None:
            numbers = [f"{found.pearson:.4f}", *map(number, (found.slope, found.relative_max_error))]
            numbers += [number(found.extremum_shift), f"{found.sign_agreement:.0%}"]
            numbers += [f"{found.n_epochs} x {found.n_pairs}"]
        text = f"{result.pair.expected}: {result.pair.why}" if result.checks else result.pair.why
        cells = [*numbers, escape(result.problem or result.undecided or text)] if wide else numbers[:2]
        table.add_row(result.pair.reference, result.pair.measure, *cells, _verdict(result.verdict))
    return table


def _strongest_table(extremes: Sequence[Extreme]) -> Table:
    table = Table(title="Strongest influences (leave-one-out; negative = helps)")
    for column in ("source", "", "query", "retrained", "epoch", "closed form", "epoch"):
        table.add_column(column)
    for e in extremes:
        word = "helps" if e.helps else "harms"
        numbers = map(number, (e.retrained, e.epoch, e.solved, e.solved_epoch))
        table.add_row(escape(e.source), word, escape(e.query), *numbers)
    return table


def tightest(result: ClaimResult) -> Check | None:
    """Return the check that decides: one that does not hold, else the one that uses most of its bound."""
    bounded = [check for check in result.checks if not check.only_reported]
    return max(bounded, key=lambda c: c.use if c.verdict is Verdict.HOLDS else math.inf, default=None)


def used(check: Check) -> str:
    """Return what share of its bound a check uses; "-" where it has none.

    Examples
    --------
    >>> used(Check("slope", 1.05, low=0.9, high=1.1)), used(Check("slope", 1.05))
    ('50 %', '-')
    """
    return f"{check.use:.0%}".replace("%", " %") if math.isfinite(check.use) else "-"


def _claim_table(claims: Sequence[ClaimResult], *, wide: bool) -> Table:
    table = Table(title="Claims, each with the check that comes closest to its bound")
    for column in ("claim", "source", "check", "measured", "bound", "used", "checks", "verdict"):
        if wide or column not in ("source", "used", "checks"):
            table.add_column(column, no_wrap=column in ("claim", "measured", "verdict"))
    family = ""
    for result in claims:
        if family and result.claim.family != family:
            table.add_section()
        family = result.claim.family
        check = tightest(result)
        held = sum(check.verdict is Verdict.HOLDS for check in result.checks)
        total = sum(not check.only_reported for check in result.checks)
        cells = [
            escape(result.problem or (check.quantity if check else "")),
            measured(check) if check else "",
            bound(check) if check else "",
        ]
        if wide:
            share = used(check) if check else ""
            cells = [escape(result.claim.source), *cells, share, f"{held}/{total}"]
        verdict = _verdict(result.verdict) if wide else f"[{STYLES[result.verdict]}]{MARKS[result.verdict]}[/]"
        table.add_row(result.claim.identifier, *cells, verdict)
    return table


def _print_details(console: Console, result: ClaimResult) -> None:
    claim = result.claim
    console.print(f"\n[bold]{claim.identifier}[/]: {result.verdict}", style=STYLES[result.verdict], highlight=False)
    console.print(f"{escape(claim.statement)} [dim]({escape(claim.source)})[/]")
    for sentence in quotes(claim.identifier):
        console.print(f'  [dim]the paper, {escape(sentence.section)}:[/] "{escape(sentence.text)}"')
    for measurement in claim.compares:
        console.print(f"  [dim]{measurement.way}:[/] {escape(measurement.what)}")
    if claim.corrected:
        console.print(f"  [dim]what holds instead:[/] {escape(claim.corrected)}")
    for reading in claim.readings:
        console.print(f"  [dim]{'right' if reading.right else 'wrong'} under the reading:[/] {escape(reading.name)}")
    for line in smallest(result):
        console.print(f"  [dim]smallest fault that turns it:[/] {escape(line)}")
    if result.problem:
        console.print(f"  [bold red]{escape(result.problem)}[/]")
    if result.noticed:
        console.print(f"  [dim]planted and noticed:[/] {escape('; '.join(result.noticed))}")
    _print_checks(console, result.checks)


def _print_pair(console: Console, result: PairResult) -> None:
    pair = result.pair
    title = f"{pair.measure} against {pair.reference}: {result.verdict}"
    console.print(f"\n{title}", style=STYLES[result.verdict], highlight=False, markup=False)
    for text in (result.problem, result.undecided):
        if text:
            console.print(f"  {text}.".replace("..", "."), highlight=False, markup=False)
    if result.checks:
        _print_checks(console, result.checks)


def _print_checks(console: Console, checks: Sequence[Check]) -> None:
    table = Table(box=None, pad_edge=True, show_header=True, header_style="dim")
    for column in ("", "check", "measured", "bound", "used", "why"):
        table.add_column(column)
    for check in checks:
        mark = f"[{STYLES[check.verdict]}]{MARKS[check.verdict]}[/]"
        row = (mark, escape(check.quantity), measured(check), bound(check), used(check))
        table.add_row(*row, f"[dim]{escape(reasons(check))}[/]")
    console.print(table)


def write_json(path: Path, ledger: Ledger) -> None:
    """Write settings, versions, pairs and claims to a JSON file; numbers that are not finite become null."""
    document = {
        "title": ledger.title,
        "complete": not ledger.unfinished,
        "unfinished": ledger.unfinished,
        "notes": ledger.notes,
        "seconds": round(ledger.seconds, 2),
        "versions": {name: version(name) for name in ("stagewise", "numpy", "torch")}
        | {"python": platform.python_version()},
        "settings": asdict(ledger.settings),
        "verdicts": ledger.verdicts,
        "pairs": [
            {
                "reference": result.pair.reference,
                "measure": result.pair.measure,
                "expected": result.pair.expected,
                "why": result.pair.why,
                "checks": [asdict(check) | {"verdict": check.verdict} for check in result.checks],
                "undecided": result.undecided,
                "found": None if result.found is None else asdict(result.found),
                "problem": result.problem,
                "verdict": result.verdict,
            }
            for result in ledger.pairs
        ],
        "strongest": [asdict(extreme) for extreme in ledger.strongest],
        "sentences": [
            {
                "section": result.sentence.section,
                "text": result.sentence.text,
                "verdict": result.verdict,
                "claims": {vote.evidence.claim: vote.bearing for vote in result.votes},
                "reason": result.sentence.reason,
                "untested": result.sentence.untested,
            }
            for result in judge_sentences(ledger.claims)
        ],
        "claims": [
            {
                "id": result.claim.identifier,
                "family": result.claim.family,
                "statement": result.claim.statement,
                "source": result.claim.source,
                "compares": [asdict(measurement) for measurement in result.claim.compares],
                "metric": result.claim.metric,
                "quotes": [sentence.text for sentence in quotes(result.claim.identifier)],
                "corrected": result.claim.corrected,
                "readings": [asdict(reading) for reading in result.claim.readings],
                "smallest_faults": smallest(result),
                "cost": result.claim.cost,
                "seconds": round(result.seconds, 3),
                "verdict": result.verdict,
                "problem": result.problem,
                "noticed": result.noticed,
                "checks": [asdict(check) | {"verdict": check.verdict, "use": check.use} for check in result.checks],
            }
            for result in ledger.claims
        ],
    }
    path.write_text(json.dumps(_finite(document), indent=2) + "\n", encoding="utf-8")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
