"""Claims in the report: by families that fold, the statement first and its evidence below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from validation.page.parts import (
    badge,
    chart,
    count_of,
    css_class,
    filter_bar,
    numeral,
    plural,
    table,
    tile,
)
from validation.page.prose import mathematics
from validation.paper_sentences import quotes
from validation.registry import Check, Claim, ClaimResult, Verdict, Way
from validation.report import MARKS, bound, measured, reasons, smallest, tightest, used

__all__ = ["claim_article", "claims_section", "tally", "way_matrix"]

_STATED = (Verdict.FAILS, Verdict.INCONCLUSIVE)  # shown unfolded: nobody should have to look for them


def tally(results: Sequence[ClaimResult], *, words: bool = False) -> str:
    """Return how many claims have each verdict, as small marks with numbers, and in words if asked for."""
    found = [result.verdict for result in results]
    return "".join(count_of(v, MARKS[v], found.count(v), words=words) for v in Verdict if v in found)


def claims_section(families: Mapping[str, Sequence[ClaimResult]], seed: int) -> str:
    """Return all claims, with the bar that filters them by verdict."""
    results = [result for family in families.values() for result in family]
    found = [result.verdict for result in results]
    bar = filter_bar(
        "Show claims by verdict", "claims", [(css_class(v), MARKS[v], str(v), found.count(v)) for v in Verdict]
    )
    bodies = "".join(_family(title, family, seed) for title, family in families.items())
    return (
        '<section id="claims" class="filtered"><h2>Claims and their evidence</h2>'
        "<p>Each claim is one statement and the numbers that test it. Open a family to read its claims, and a claim's "
        "evidence to see every number beside the bound it must keep and where that bound comes from.</p>"
        f"{bar}{bodies}</section>"
    )


def _family(title: str, results: Sequence[ClaimResult], seed: int) -> str:
    name = results[0].claim.family.replace("_", "-")
    opened = " open" if any(result.verdict in _STATED for result in results) else ""
    articles = "".join(claim_article(result, seed) for result in results)
    return (
        f'<details class="group" id="family-{escape(name)}"{opened}><summary><h3>{escape(title)}</h3>'
        f'<span class="shown"></span><span class="counts">{tally(results)}</span></summary>{articles}</details>'
    )


def claim_article(result: ClaimResult, seed: int) -> str:
    """Return one claim with its statement, numbers, bounds, pictures and how to run it alone."""
    claim, style = result.claim, css_class(result.verdict)
    compares = "".join(
        f'<li><span class="way {escape(str(m.way).split()[0])}">{m.way}</span> {mathematics(m.what)}</li>'
        for m in claim.compares
    )
    problem = f'<p class="problem">{escape(result.problem)}</p>' if result.problem else ""
    figures = "".join(chart(plot) for plot in result.plots)
    figures = f'<div class="figures">{figures}</div>' if figures else ""
    noticed = f"<dt>planted faults noticed</dt><dd>{escape('; '.join(result.noticed))}</dd>" if result.noticed else ""
    command = f"python -m validation --only {claim.identifier} --seed {seed}"
    opened = " open" if result.verdict in _STATED else ""
    return (
        f'<article id="{claim.identifier}" class="claim {style}" data-verdict="{style}">'
        f'<header><h4>{mathematics(claim.statement)}</h4><p class="meta">{badge(result.verdict)}'
        f'<a class="id" href="#{claim.identifier}">{claim.identifier}</a>'
        f'<span class="soft">{mathematics(claim.source)}</span></p></header>'
        f'<div class="body{"" if figures else " plain"}"><div>{_quotes(claim)}{_instead(claim)}{problem}'
        f'<ul class="ways">{compares}</ul></div>{figures}</div>'
        f'<details class="evidence"{opened}><summary>{_closest(result)}</summary>{check_table(result.checks)}'
        f"<dl><dt>metric</dt><dd>{mathematics(claim.metric)}</dd>{_smallest(result)}{noticed}"
        f"<dt>run alone</dt><dd><code>{escape(command)}</code> ({result.seconds:.1f} s here)</dd></dl></details>"
        "</article>"
    )


def _closest(result: ClaimResult) -> str:
    """Return the evidence in one line: how many numbers, and the one that decides."""
    bounded = [check for check in result.checks if not check.only_reported]
    check = tightest(result)
    if check is None:
        return "Evidence: nothing was measured"
    share = f", {used(check)} of it used" if math.isfinite(check.use) else ""
    word = "closest to its bound" if check.verdict is Verdict.HOLDS else f"one {check.verdict}"
    return (
        f"Evidence: {plural(len(bounded), 'check')}; {word}: {mathematics(check.quantity)} "
        f"<b>{mathematics(measured(check))}</b>, bound {mathematics(bound(check))}{share}"
    )


def _quotes(claim: Claim) -> str:
    return "".join(
        f"<blockquote>{mathematics(sentence.text)} <cite>paper, {escape(sentence.section)}</cite></blockquote>"
        for sentence in quotes(claim.identifier)
    )


def _instead(claim: Claim) -> str:
    """Return what holds in place of a printed statement, and the readings of it that were tried."""
    if not claim.corrected:
        return ""
    word = "What must be added" if claim.expected is Verdict.IMPRECISE else "What holds instead"
    tried = "".join(
        f"<li><b>{'right' if reading.right else 'wrong'}</b>: {mathematics(reading.name)}</li>"
        for reading in claim.readings
    )
    readings = f"<p>Readings tried:</p><ul>{tried}</ul>" if tried else ""
    return f'<div class="instead"><p><b>{word}.</b> {mathematics(claim.corrected)}.</p>{readings}</div>'


def _smallest(result: ClaimResult) -> str:
    lines = "<br>".join(mathematics(line) for line in smallest(result))
    return f"<dt>smallest fault that turns it</dt><dd>{lines}</dd>" if lines else ""


def check_table(checks: Sequence[Check]) -> str:
    """Return the checks with their numbers, their bounds and where these come from."""
    rows = [
        [
            f'<span class="mark {css_class(c.verdict)}" title="{c.verdict}">{MARKS[c.verdict]}'
            f'<span class="away"> {c.verdict}</span></span>',
            mathematics(c.quantity),
            numeral(measured(c)),
            numeral(bound(c)),
            numeral(used(c)),
            _range(c),
            (f"<b>{mathematics(c.reading)}:</b> " if c.reading else "") + mathematics(reasons(c)),
        ]
        for c in checks
    ]
    columns = ["", "check", "#measured", "#bound", "#used", "in its bound", "where the bound comes from"]
    return table(columns, rows, "checks", "Checks of this claim")


def _range(check: Check) -> str:
    """Return a small drawing of the allowed range and the number in it; the numbers beside it say the same."""
    if check.only_reported or not math.isfinite(check.measured):
        return ""
    low, high = check.low, check.high
    reach = max(abs(check.measured), *(abs(b) for b in (low, high) if math.isfinite(b))) or 1.0
    left = low if math.isfinite(low) else min(0.0, check.measured, high) - 0.1 * reach
    right = high if math.isfinite(high) else max(0.0, check.measured, low) + 0.1 * reach
    margin = 0.12 * (right - left or 1.0)
    first = min(left, check.measured - 3 * check.error) - margin
    last = max(right, check.measured + 3 * check.error) + margin

    def place(value: float) -> float:
        return 100 * (value - first) / (last - first)

    parts = {"a": place(left), "b": place(right), "m": place(check.measured)}
    if check.error:
        parts["e"] = 100 * 3 * check.error / (last - first)
    style = ";".join(f"--{name}:{value:.0f}" for name, value in parts.items())
    ends = ("l" if math.isfinite(low) else "") + ("h" if math.isfinite(high) else "")
    outside = " out" if check.verdict is Verdict.FAILS else ""
    return f'<i class="range {ends}{outside}" style="{style}"></i>'


def way_matrix(families: Mapping[str, Sequence[ClaimResult]]) -> str:
    """Return families of claims by the ways they compare, a tile for each claim."""
    theory, numerics, retraining = Way.THEORY, Way.NUMERICS, Way.RETRAINING
    columns = {
        "all three": {theory, numerics, retraining},
        "theory, numerics": {theory, numerics},
        "theory, retraining": {theory, retraining},
        "numerics, retraining": {numerics, retraining},
        "theory twice": {theory},
        "numerics twice": {numerics},
        "retraining twice": {retraining},
    }
    cells = {
        title: [
            "".join(tile(r) for r in results if {m.way for m in r.claim.compares} == ways) for ways in columns.values()
        ]
        for title, results in families.items()
    }
    kept = [k for k in range(len(columns)) if any(row[k] for row in cells.values())]
    names = list(columns)
    rows = ([f"<b>{escape(title)}</b>", *(row[k] for k in kept)] for title, row in cells.items())
    inside = table(
        ["family", *(names[k] for k in kept)], rows, "tiles", "Claims by family and by the ways they compare"
    )
    return f'<div class="scroll" role="region" aria-label="Claims by family" tabindex="0">{inside}</div>'
