"""What every part of the report is made of: marks, verdicts, numbers that stand below each other, tables and charts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from validation.charts import Plot, colour_of, to_svg
from validation.page.prose import mathematics
from validation.registry import ClaimResult, Verdict
from validation.report import MARKS

__all__ = ["badge", "chart", "count_of", "css_class", "filter_bar", "numeral", "plural", "table", "tile"]

_NUMERAL = re.compile(r"(?P<whole>[^.\d]*-?\d+)(?P<rest>.*)", re.DOTALL)
_LONGEST = 24  # characters right of a decimal point that a column makes room for


def plural(count: int, noun: str) -> str:
    """Return a number of things in words: one claim, two claims.

    Examples
    --------
    >>> plural(1, "check"), plural(12, "check")
    ('1 check', '12 checks')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def css_class(verdict: str) -> str:
    """Return the first word of a verdict, its class in the style sheet."""
    return str(verdict).split()[0]


def badge(verdict: Verdict) -> str:
    """Return a verdict with its mark, so that it can be told without its colour."""
    return f'<span class="badge {css_class(verdict)}"><i aria-hidden="true">{MARKS[verdict]}</i> {verdict}</span>'


def count_of(verdict: str, mark: str, count: int, *, words: bool) -> str:
    """Return how often there is a verdict, with its mark; the word itself is always there for those who do not see."""
    style = css_class(verdict)
    text = f" {verdict}" if words else f'<span class="away"> {verdict} </span>'
    return f'<span class="count {style}" title="{verdict}"><i aria-hidden="true">{mark}</i>{count}{text}</span>'


def tile(result: ClaimResult) -> str:
    """Return a small square that links to a claim."""
    claim = result.claim
    return (
        f'<a class="tile {css_class(result.verdict)}" href="#{claim.identifier}" '
        f'title="{escape(claim.identifier)}: {result.verdict}">{MARKS[result.verdict]}'
        f'<span class="away"> {escape(claim.identifier)}: {result.verdict}</span></a>'
    )


def _powers(text: str) -> str:
    """Return number text with true minus signs and powers of ten."""
    raised = re.sub(
        r"e([+-]?)0*(\d+)",
        lambda m: f"&thinsp;&times;&thinsp;10<sup>{'&minus;' if m[1] == '-' else ''}{m[2]}</sup>",
        text,
    )
    return raised.replace("-", "&minus;")


def numeral(text: str) -> str:
    """Return a number, with what stands around it, split at its decimal point so that columns align there.

    Examples
    --------
    >>> numeral("-0.25")
    '&minus;0<span class="f f3">.25</span>'
    >>> numeral("≤ 1e-09")
    '≤ 1<span class="f f4">&thinsp;&times;&thinsp;10<sup>&minus;9</sup></span>'
    """
    found = _NUMERAL.fullmatch(text)
    if not found:
        return f'{escape(text)}<span class="f"></span>'
    rest = _powers(escape(found["rest"].replace(" ", "\N{NO-BREAK SPACE}", 1)))
    seen = re.sub(r"&\w+;", "x", rest.replace("&thinsp;", ""))
    width = min(len(re.sub(r"<sup>(.*?)</sup>", lambda m: m[1][: (len(m[1]) + 1) // 2], seen)), _LONGEST)
    tail = f'<span class="f f{width}">{rest}</span>' if width else '<span class="f"></span>'
    return f"{_powers(escape(found['whole']))}{tail}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], style: str, caption: str) -> str:
    """Return a table of cells that are already HTML; columns that start with # hold numbers, aligned at their points.

    The caption is for those who do not see the page. Where the screen is narrow a row becomes a block, its cells named
    by the style sheet.
    """
    rows = [tuple(row) for row in rows]
    numeric = [name.startswith("#") for name in columns]
    widths = [
        max((int(found[1]) for row in rows if (found := re.search(r'class="f f(\d+)"', row[k]))), default=0) if n else 0
        for k, n in enumerate(numeric)
    ]
    head = "".join(
        f'<th scope="col"{_numeric(n)}>{escape(name.lstrip("#")) or _away("mark")}</th>'
        for name, n in zip(columns, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{_numeric(n)}>{cell}</td>" for cell, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )
    room = "".join(f"--w{k + 1}:{width}ch;" for k, width in enumerate(widths) if width)
    return (
        f'<table class="{style}"{f" style={chr(34)}{room}{chr(34)}" if room else ""}>'
        f'<caption class="away">{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _numeric(is_number: bool) -> str:
    return ' class="n"' if is_number else ""


def _away(text: str) -> str:
    return f'<span class="away">{text}</span>'


def chart(plot: Plot) -> str:
    """Return a plot as a figure: its title, the key of its series, and the drawing."""
    keys = "".join(
        f'<li class="c{colour_of(series, k)}"><i class="{series.style}"></i>{mathematics(series.name)}</li>'
        for k, series in enumerate(plot.series)
        if series.name
    )
    key = f'<ul class="key">{keys}</ul>' if keys else ""
    return f"<figure><figcaption>{mathematics(plot.title)}{key}</figcaption>{to_svg(plot)}</figure>"


def filter_bar(label: str, noun: str, counts: Sequence[tuple[str, str, str, int]]) -> str:
    """Return buttons that show what has one verdict; `counts` has class, mark, verdict and number of each.

    The bar is hidden until the script is there to do what it says.
    """
    total = sum(count for *_, count in counts)
    buttons = [f'<button type="button" data-show="all" aria-pressed="true">all <b>{total}</b></button>']
    buttons += [
        f'<button type="button" class="{style}" data-show="{style}" aria-pressed="false">'
        f'<i aria-hidden="true">{mark}</i> {verdict} <b>{count}</b></button>'
        for style, mark, verdict, count in counts
        if count
    ]
    return (
        f'<div class="filter" role="group" aria-label="{escape(label)}" data-noun="{noun}" hidden>'
        f'<div class="buttons">{"".join(buttons)}<button type="button" class="fold" data-fold>open all</button></div>'
        f'<output aria-live="polite">{total} of {total} {noun}</output></div>'
    )
