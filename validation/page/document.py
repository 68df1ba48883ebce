"""The HTML report as a whole: summary, matrix of measures, pairs, claims by family, and the paper's sentences."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from validation.claims import FAMILIES
from validation.page.parts import (
    badge,
    claim_article,
    css_class,
    heat_map,
    mathematics,
    pair_table,
    table,
    tile,
    way_matrix,
)
from validation.paper_sentences import SENTENCES, Sentence
from validation.registry import ClaimResult, Verdict
from validation.report import MARKS, number
from validation.runner import Ledger

__all__ = ["write_html"]

_ASSETS = files("validation.page")


def write_html(path: Path, ledger: Ledger) -> None:
    """Write one HTML file that needs nothing but a browser: pictures, style and script are inside it."""
    families: dict[str, list[ClaimResult]] = {}
    for result in ledger.claims:
        family = result.claim.family
        families.setdefault(FAMILIES.get(family, family.replace("_", " ")), []).append(result)
    body = [
        _header(ledger),
        _filter(ledger.claims) if ledger.claims else "",
        "<main>",
        _summary(families) if families else "",
        _measures(ledger),
        _pairs(ledger),
        _strongest(ledger),
        *(_family(title, results, ledger.settings.seed) for title, results in families.items()),
        _sentences(ledger.claims) if families else "",
        "</main>",
        _footer(ledger),
    ]
    style, script = (_ASSETS.joinpath(name).read_text() for name in ("style.css", "filter.js"))
    path.write_text(
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(ledger.title)}</title><style>{style}</style></head>'
        f"<body>{''.join(body)}<script>{script if ledger.claims else ''}</script></body></html>\n"
    )


def _header(ledger: Ledger) -> str:
    training, sampler = ledger.settings.training, ledger.settings.sampler
    partial = ""
    if ledger.unfinished:
        partial = (
            '<p class="partial"><b>Partial report.</b> The run was interrupted; not measured: '
            f"{escape(', '.join(ledger.unfinished))}.</p>"
        )
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in ledger.notes)
    counts = " ".join(f"{badge(verdict)} {count}" for verdict, count in ledger.verdicts.items())
    return (
        f"<header><div><h1>{escape(ledger.title)}</h1>"
        "<p class='lead'>Closed forms, simulation and retraining, each held against the others. A number stands beside "
        "the bound it must keep and the derivation of that bound. Negative influence means that a sample helps.</p>"
        f"<p>{counts}</p>{notes}"
        f"<p class='note'>{training.hidden} hidden units, initial weights {training.sigma:g}, learning rate "
        f"{training.lr:g}, {training.epochs} epochs; sampler with n<sub>&beta;</sub> = {sampler.n_beta:g}, &gamma; = "
        f"{sampler.localization:g}, step {sampler.step_size:g}, {ledger.settings.chains} &times; "
        f"{ledger.settings.draws} draws; seed {ledger.settings.seed}.</p>{partial}</div></header>"
    )


def _filter(claims: Sequence[ClaimResult]) -> str:
    found = [result.verdict for result in claims]
    buttons = [f'<button data-verdict="all" aria-pressed="true">all<b>{len(found)}</b></button>']
    buttons += [
        f'<button data-verdict="{css_class(v)}" aria-pressed="false">{MARKS[v]} {v}<b>{found.count(v)}</b></button>'
        for v in Verdict
        if v in found
    ]
    return f'<nav class="filter"><div><span>Show claims:</span>{"".join(buttons)}</div></nav>'


def _summary(families: Mapping[str, Sequence[ClaimResult]]) -> str:
    return (
        "<h2>Summary</h2><p class='note'>One tile a claim, under the ways that it compares: "
        "theory (closed form, quadrature, algebra), numerics (simulation, sampling, linear algebra), retraining.</p>"
        + way_matrix(families)
    )


def _measures(ledger: Ledger) -> str:
    if ledger.matrix is None:
        return ""
    return (
        "<h2>Measures of influence against each other</h2><p class='note'>Pearson correlation over pairs of different "
        "samples and common epochs. A high one does not make two measures equal: the table below has the slopes.</p>"
        + heat_map(ledger.matrix)
    )


def _pairs(ledger: Ledger) -> str:
    return "<h2>Pairs of measures</h2>" + pair_table(ledger.pairs) if ledger.pairs else ""


def _strongest(ledger: Ledger) -> str:
    if not ledger.strongest:
        return ""
    rows = [
        [
            escape(e.source),
            "helps" if e.helps else "harms",
            escape(e.query),
            *map(number, (e.retrained, e.epoch, e.solved, e.solved_epoch)),
        ]
        for e in ledger.strongest
    ]
    columns = ["source", "", "query", "#retrained", "#at epoch", "#closed form", "#at epoch"]
    return (
        "<h2>Strongest influences</h2><p class='note'>Loss of the query with the source less that without it, where it "
        "is largest along training; negative = the source helps.</p>" + table(columns, rows)
    )


def _family(title: str, results: Sequence[ClaimResult], seed: int) -> str:
    articles = "".join(claim_article(result, seed) for result in results)
    return f'<section class="family"><h2>{escape(title)}</h2>{articles}</section>'


def _sentences(claims: Sequence[ClaimResult]) -> str:
    results = {result.claim.identifier: result for result in claims}

    def tests(sentence: Sentence) -> str:
        if not sentence.claims:
            return f'<span class="note">{mathematics(sentence.reason)}</span>'
        links = []
        for identifier in sentence.claims:
            mark = tile(results[identifier]) if identifier in results else "not run: "
            links.append(f'<span style="white-space: nowrap">{mark} <a href="#{identifier}">{identifier}</a></span>')
        return "<br>".join(links)

    rows = ([escape(s.section), mathematics(s.text), tests(s)] for s in SENTENCES)
    return (
        "<h2>The paper's sentences</h2><p class='note'>Every testable sentence of sections 2 and 3 and appendices A "
        "to C, "
        "with the claims that test it or the reason why none does.</p>"
        + table(["section", "the paper says", "tested by"], rows)
    )


def _footer(ledger: Ledger) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("stagewise", "numpy", "torch"))
    return (
        f"<footer>{versions}, Python {platform.python_version()}. Measured in {ledger.seconds:.0f} s, "
        f"{datetime.now():%Y-%m-%d %H:%M}. An error bar is one standard error; a check with one holds if all within "
        "three "
        "of them does. The paper: Lee, Smith, Adam, Hoogland (2025), arXiv 2510.12071.</footer>"
    )
