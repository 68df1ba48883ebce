"""The parts of the HTML report: verdicts, claims with their numbers and pictures, and the tables that sum them up."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import xarray as xr

from validation.charts import to_svg
from validation.pairs import PairResult
from validation.paper_sentences import quotes
from validation.registry import Check, Claim, ClaimResult, Verdict, Way
from validation.report import MARKS, bound, measured, number, reasons, smallest, used

__all__ = [
    "badge",
    "claim_article",
    "css_class",
    "heat_map",
    "mathematics",
    "pair_table",
    "table",
    "tile",
    "way_matrix",
]


_GREEK = ("alpha", "beta", "gamma", "eps", "lambda", "sigma", "tau", "mu", "pi", "rho")
_MATHEMATICS = (
    (r"\^(?:\(([^()]*)\)|\{([^{}]*)\}|(-?\w+))", lambda m: f"<sup>{m[1] or m[2] or m[3]}</sup>"),
    (
        r"\b([A-Za-z]|mu|pi|Cov|Var)_(?:\{(\w+)\}|(\w{1,4}|perp|max|min))\b",
        lambda m: f"{m[1]}<sub>{m[2] or m[3]}</sub>",
    ),
    (rf"(?<![-\w])d?({'|'.join(_GREEK)})(?![-\w])", lambda m: m[0].replace(m[1], _letter(m[1]))),
    (r" \+- ", lambda _: " &plusmn; "),
    (r" -\+ ", lambda _: " &#8723; "),
    (r" &lt;= ", lambda _: " &le; "),
    (r" x (?=\d|\w)", lambda _: " &times; "),
)


def _letter(name: str) -> str:
    return "&epsilon;" if name == "eps" else f"&{name};"


def mathematics(text: str) -> str:
    """Return text as HTML with its powers, indices and Greek letters set as such.

    Examples
    --------
    >>> mathematics("tau / (2 s_k) ln(s / g0) <= e^{-2 s t / tau}")
    '&tau; / (2 s<sub>k</sub>) ln(s / g0) &le; e<sup>-2 s t / &tau;</sup>'
    """
    result = escape(text)
    for pattern, replacement in _MATHEMATICS:
        result = re.sub(pattern, replacement, result)
    return result


def css_class(verdict: Verdict) -> str:
    """Return the first word of a verdict, its class in the style sheet."""
    return str(verdict).split()[0]


def badge(verdict: Verdict) -> str:
    """Return a verdict with its mark, so that it can be told without its colour."""
    return f'<span class="badge {css_class(verdict)}">{MARKS[verdict]} {verdict}</span>'


def tile(result: ClaimResult) -> str:
    """Return a small square that links to a claim."""
    claim = result.claim
    return (
        f'<a class="tile {css_class(result.verdict)}" href="#{claim.identifier}" '
        f'title="{escape(claim.identifier)}: {result.verdict}">{MARKS[result.verdict]}</a>'
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """Return a table of cells that are already HTML; columns that start with # hold numbers."""
    numeric = [name.startswith("#") for name in columns]
    head = "".join(
        f"<th{_n(is_number)}>{escape(name.lstrip('#'))}</th>" for name, is_number in zip(columns, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{_n(n)}>{cell}</td>" for cell, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _n(is_number: bool) -> str:
    return ' class="n"' if is_number else ""


def way_matrix(families: Mapping[str, Sequence[ClaimResult]]) -> str:
    """Return the summary: families of claims by the ways they compare, a tile for each claim."""
    theory, numerics, retraining = Way.THEORY, Way.NUMERICS, Way.RETRAINING
    columns = {
        "theory x numerics x retraining": {theory, numerics, retraining},
        "theory x numerics": {theory, numerics},
        "theory x retraining": {theory, retraining},
        "numerics x retraining": {numerics, retraining},
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
    used = [k for k in range(len(columns)) if any(row[k] for row in cells.values())]
    names = list(columns)
    return table(
        ["family", *(names[k] for k in used)],
        ([f"<b>{escape(title)}</b>", *(row[k] for k in used)] for title, row in cells.items()),
        "tiles",
    )


def heat_map(matrix: xr.DataArray) -> str:
    """Return the correlation of every two measures, grouped by way; saturation and digits say the same."""
    names, ways = matrix["measure"].values, matrix["way"].values
    order = sorted(range(len(names)), key=lambda k: list(Way).index(Way(str(ways[k]))))
    head = "".join(f'<th class="col">{mathematics(str(names[k]))}</th>' for k in order)
    rows = []
    for i in order:
        cells = "".join(_heat_cell(float(matrix.values[i, j]), i == j) for j in order)
        label = f'<span class="way {str(ways[i]).split()[0]}">{ways[i]}</span>{mathematics(str(names[i]))}'
        rows.append(f'<tr><th class="row">{label}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table class="heat"><thead><tr><th></th>{head}</tr></thead>{"".join(rows)}</table></div>'
    )


def _heat_cell(value: float, diagonal: bool) -> str:
    if diagonal:
        return "<td></td>"
    if not math.isfinite(value):
        return '<td title="one of the two does not vary">-</td>'
    colour = "0, 114, 178" if value >= 0 else "213, 94, 0"
    share = min(abs(value), 1.0) ** 2
    ink = "#fff" if share > 0.55 else "inherit"
    return f'<td style="background: rgba({colour}, {share:.2f}); color: {ink}">{value:.3f}</td>'


def pair_table(pairs: Sequence[PairResult]) -> str:
    """Return the pairs of measures with what was expected and found."""
    rows = []
    for result in pairs:
        found, pair = result.found, result.pair
        numbers = ["-"] * 5
        if found is not None:
            numbers = [f"{found.pearson:.4f}", number(found.slope), number(found.relative_max_error)]
            numbers += [number(found.extremum_shift), f"{found.sign_agreement:.0%}"]
        judged = result.checks or pair.general
        text = f"<b>{escape(pair.expected)}</b>: {mathematics(pair.why)}" if judged else mathematics(pair.why)
        if result.problem:
            text = f"not defined here: {escape(result.problem)}"
        if result.undecided:
            text += f"<br><b>Not decided</b>: {escape(result.undecided)}."
        limits = "; ".join(
            f"{check.quantity} {number(check.measured)}, bound {bound(check)}" for check in result.checks
        )
        if limits:
            derivation = f" ({mathematics(result.checks[0].why)})" if pair.general else ""
            text += f'<br><span class="note">{escape(limits)}{derivation}</span>'
        rows.append([mathematics(pair.reference), mathematics(pair.measure), *numbers, text, badge(result.verdict)])
    columns = ["reference", "measure", "#Pearson", "#slope", "#rel. max error", "#peak shift (epochs)", "#same sign"]
    return table([*columns, "expected, and why", "verdict"], rows)


def claim_article(result: ClaimResult, seed: int) -> str:
    """Return one claim with its statement, numbers, bounds, pictures and how to run it alone."""
    claim, style = result.claim, css_class(result.verdict)
    compares = "<br>".join(f'<span class="way {m.way}">{m.way}</span>{mathematics(m.what)}' for m in claim.compares)
    problem = f'<div class="problem">{escape(result.problem)}</div>' if result.problem else ""
    if result.noticed:
        problem += f'<p class="note">Planted faults that it notices: {escape("; ".join(result.noticed))}.</p>'
    figures = "".join(
        f'<figure><img alt="{escape(plot.title)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(to_svg(plot)).decode()}"></figure>'
        for plot in result.plots
    )
    command = f"python -m validation --only {claim.identifier} --seed {seed}"
    return (
        f'<article id="{claim.identifier}" class="{style}{"" if figures else " plain"}" data-verdict="{style}">'
        f'<div class="top"><h3><a href="#{claim.identifier}">{claim.identifier}</a></h3>{badge(result.verdict)}</div>'
        f'<div class="body"><div><p class="statement">{mathematics(claim.statement)}</p>'
        f"{_quotes(claim)}{_instead(claim)}{problem}"
        f"<dl><dt>source</dt><dd>{mathematics(claim.source)}</dd><dt>compares</dt><dd>{compares}</dd>"
        f"<dt>metric</dt><dd>{mathematics(claim.metric)}</dd>{_smallest(result)}"
        f"<dt>run alone</dt><dd><code>{escape(command)}</code> ({result.seconds:.1f} s here)</dd></dl></div>"
        f"<div>{figures}</div></div>"
        f'<div class="checks">{_check_table(result.checks)}</div></article>'
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
    return f'<div class="instead"><b>{word}.</b> {mathematics(claim.corrected)}.{readings}</div>'


def _smallest(result: ClaimResult) -> str:
    lines = "<br>".join(mathematics(line) for line in smallest(result))
    return f"<dt>smallest fault</dt><dd>{lines}</dd>" if lines else ""


def _check_table(checks: Sequence[Check]) -> str:
    rows = [
        [
            f'<span class="mark {css_class(c.verdict)}" title="{c.verdict}">{MARKS[c.verdict]}</span>',
            mathematics(c.quantity),
            escape(measured(c)),
            escape(bound(c)),
            escape(used(c)),
            _range(c),
            (f"<b>{mathematics(c.reading)}:</b> " if c.reading else "") + mathematics(reasons(c)),
        ]
        for c in checks
    ]
    return table(["", "check", "#measured", "#bound", "#used", "", "where the bound comes from"], rows)


def _range(check: Check) -> str:
    """Return a small drawing of the allowed range and the number in it."""
    if check.only_reported or not math.isfinite(check.measured):
        return ""
    low, high = check.low, check.high
    reach = max(abs(check.measured), *(abs(b) for b in (low, high) if math.isfinite(b))) or 1.0
    left = low if math.isfinite(low) else min(0.0, check.measured, high) - 0.1 * reach
    right = high if math.isfinite(high) else max(0.0, check.measured, low) + 0.1 * reach
    margin = 0.12 * (right - left or 1.0)
    first = min(left, check.measured - 3 * check.error) - margin
    last = max(right, check.measured + 3 * check.error) + margin
    width = 120.0

    def place(value: float) -> float:
        return width * (value - first) / (last - first)

    size = max(place(right) - place(left), 1)
    bar = f'<rect x="{place(left):.1f}" y="4" width="{size:.1f}" height="6" rx="1" fill="#cfe6f3"/>'
    ends = "".join(
        f'<path d="M{place(b):.1f} 2v10" stroke="#0072b2" stroke-width="1.2"/>' for b in (low, high) if math.isfinite(b)
    )
    whisker = ""
    if check.error:
        a, b = (place(check.measured + sign * 3 * check.error) for sign in (-1, 1))
        whisker = f'<path d="M{a:.1f} 7H{b:.1f}" stroke="#1d2330" stroke-width="1.2"/>'
    colour = "#c24a00" if check.verdict is Verdict.FAILS else "#1d2330"
    point = f'<circle cx="{place(check.measured):.1f}" cy="7" r="3" fill="{colour}"/>'
    shapes = bar + ends + whisker + point
    return f'<svg width="{width:.0f}" height="14" role="img" aria-label="{escape(bound(check))}">{shapes}</svg>'
