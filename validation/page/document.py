"""The HTML report as a whole: opening, glossary, the paper's sentences, measures, claims by family."""

from __future__ import annotations

import platform
from datetime import datetime
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from numerics.stores import write_whole
from validation.claims import FAMILIES
from validation.page.claims import claims_section, tally, way_matrix
from validation.page.glossary import glossary
from validation.page.measures import heat_map, pair_table, strongest_table
from validation.page.opening import header, picture
from validation.page.sentences import sentences_section
from validation.registry import ClaimResult
from validation.runner import Ledger
from validation.sentence_verdicts import judge_sentences

__all__ = ["write_html"]

_ASSETS = files("validation.page")


def write_html(path: Path, ledger: Ledger) -> None:
    """Write one HTML file that needs nothing but a browser: drawings, style and script are inside it."""
    families: dict[str, list[ClaimResult]] = {}
    for result in ledger.claims:
        family = result.claim.family
        families.setdefault(FAMILIES.get(family, family.replace("_", " ")), []).append(result)
    about_paper = any(result.claim.family in FAMILIES for result in ledger.claims)
    sentences = judge_sentences(ledger.claims) if about_paper else ()
    sections = [
        ("picture", "The experiment", picture(ledger.settings) if about_paper else ""),
        ("sentences", "The paper's sentences", sentences_section(sentences) if sentences else ""),
        ("pairs", "Measures compared", _measures(ledger)),
        ("strongest", "Strongest influences", _strongest(ledger)),
        ("summary", "Claims at a glance", _summary(families) if families else ""),
        ("claims", "Claims and evidence", claims_section(families, ledger.settings.seed) if families else ""),
        ("glossary", "Words and symbols", glossary()),
    ]
    links = "".join(
        f'<li><a href="#{name}">{title}</a>{_family_links(families) if name == "claims" else ""}</li>'
        for name, title, body in sections
        if body
    )
    style, script = (_ASSETS.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    body = "".join(text for _, _, text in sections)
    write_whole(
        path,
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{escape(ledger.title)}</title><style>{style}</style></head>'
        '<body><a class="skip" href="#main">Skip to the report</a>'
        f'<nav class="contents" aria-label="Contents"><p>Contents</p><ol>{links}</ol></nav>'
        f'<main id="main">{header(ledger, sentences)}{body}</main>'
        f"{_footer(ledger)}<script>{script}</script></body></html>\n",
    )


def _family_links(families: dict[str, list[ClaimResult]]) -> str:
    items = "".join(
        f'<li><a href="#family-{escape(results[0].claim.family.replace("_", "-"))}">{escape(title)}</a></li>'
        for title, results in families.items()
    )
    return f"<ol>{items}</ol>"


def _measures(ledger: Ledger) -> str:
    parts = []
    if ledger.matrix is not None:
        parts.append(
            "<p>Pearson correlation over pairs of different samples and common epochs. A high one does not make two "
            "measures equal: the table below has the slopes.</p>" + heat_map(ledger.matrix)
        )
    if ledger.pairs:
        parts.append("<h3>Pairs that were judged</h3>" + pair_table(ledger.pairs))
    if not parts:
        return ""
    return f'<section id="pairs"><h2>Measures of influence against each other</h2>{"".join(parts)}</section>'


def _strongest(ledger: Ledger) -> str:
    if not ledger.strongest:
        return ""
    return (
        '<section id="strongest"><h2>Strongest influences</h2><p>Loss of the query with the source less that without '
        "it, where it is largest along training; negative = the source helps.</p>"
        f"{strongest_table(ledger.strongest)}</section>"
    )


def _summary(families: dict[str, list[ClaimResult]]) -> str:
    every = [result for results in families.values() for result in results]
    return (
        '<section id="summary"><h2>Claims at a glance</h2><p>One tile a claim, under the ways that it compares: '
        "theory (closed form, quadrature, algebra), numerics (simulation, sampling, linear algebra), retraining.</p>"
        f'<p class="counts">{tally(every)}</p>{way_matrix(families)}</section>'
    )


def _footer(ledger: Ledger) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("stagewise", "numpy", "torch"))
    return (
        f"<footer>{versions}, Python {platform.python_version()}; {datetime.now():%Y-%m-%d %H:%M}. An error bar is one "
        "standard error; a check with one holds if all within three of them does. The paper: Lee, Smith, Adam, "
        "Hoogland (2025), Influence Dynamics and Stagewise Data Attribution, arXiv 2510.12071.</footer>"
    )
