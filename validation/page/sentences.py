"""The paper's sentences in the report, each with the verdict that its claims in this run add up to, and why."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from validation.page.parts import count_of, filter_bar, plural, tile
from validation.page.prose import mathematics
from validation.paper_sentences import Bearing
from validation.registry import Verdict
from validation.sentence_verdicts import SentenceResult, SentenceVerdict, Vote

__all__ = ["sentences_section", "stacked"]

_MARKS = {
    SentenceVerdict.SUPPORTED: "✓",
    SentenceVerdict.PARTLY: "◐",
    SentenceVerdict.CONTRADICTED: "✗",
    SentenceVerdict.UNTESTED: "○",
}
_PARTS = {
    "2": "2 Theory",
    "3": "3 Toy model of development",
    "4": "4 Language models",
    "A": "A Phase transitions",
    "B": "B Bayesian influence functions",
    "C": "C Toy model in detail",
    "D": "D Language models in detail",
}
_SAYS = {Bearing.FOR: "for", Bearing.PARTLY: "in part", Bearing.AGAINST: "against"}


def stacked(results: Sequence[SentenceResult], *, words: bool = False) -> str:
    """Return the verdicts as a bar of parts and their numbers, in words for those who do not know the marks yet."""
    found = [result.verdict for result in results]
    parts = [(verdict, found.count(verdict)) for verdict in SentenceVerdict if verdict in found]
    bar = "".join(f'<i class="{verdict}" style="flex:{count}"></i>' for verdict, count in parts)
    counts = "".join(count_of(verdict, _MARKS[verdict], count, words=words) for verdict, count in parts)
    return f'<span class="stack" aria-hidden="true">{bar}</span><span class="counts">{counts}</span>'


def sentences_section(results: Sequence[SentenceResult]) -> str:
    """Return all sentences by the parts of the paper, with the bar that filters them by verdict."""
    found = [result.verdict for result in results]
    bar = filter_bar(
        "Show sentences by verdict",
        "sentences",
        [(verdict, _MARKS[verdict], verdict, found.count(verdict)) for verdict in SentenceVerdict],
    )
    groups: dict[str, list[SentenceResult]] = {}
    for result in results:
        groups.setdefault(result.sentence.section[0], []).append(result)
    bodies = "".join(
        f'<details class="group" id="paper-{name}"><summary><h3>{_PARTS[name]}</h3><span class="shown"></span>'
        f'{stacked(group)}</summary><ul class="sentences">{"".join(map(_row, group))}</ul></details>'
        for name, group in groups.items()
    )
    return (
        '<section id="sentences" class="filtered"><h2>The paper, sentence by sentence</h2>'
        "<p>Every testable sentence of sections 2 to 4 and appendices A to D, with what the claims of this run say of "
        "it. <b>Supported</b> and <b>contradicted</b> need all of its claims to say so; <b>partly</b> means that it "
        "holds under a condition or in one reading, or that a part of it is tested and holds; <b>untested</b> that no "
        "claim tests it or that this run has not decided those that do.</p>"
        f"{bar}{bodies}</section>"
    )


def _row(result: SentenceResult) -> str:
    sentence, verdict = result.sentence, result.verdict
    plain = [vote for vote in result.votes if vote.bearing is Bearing.FOR and not vote.evidence.why]
    reasons = f"<li><b>for</b> {' '.join(map(_link, plain))}</li>" if plain else ""
    reasons += "".join(f"<li>{_vote(vote)}</li>" for vote in result.votes if vote not in plain)
    if sentence.reason:
        reasons += f"<li>{mathematics(sentence.reason)}</li>"
    if sentence.untested:
        reasons += f"<li><b>not tested</b> {mathematics(sentence.untested)}</li>"
    return (
        f'<li class="sentence {verdict}" data-verdict="{verdict}"><p class="verdict">'
        f'<span class="badge {verdict}"><i aria-hidden="true">{_MARKS[verdict]}</i> {verdict}</span>'
        f'<span class="soft">{escape(sentence.section)}</span></p>'
        f'<div><p class="text">&ldquo;{mathematics(sentence.text)}&rdquo;</p><ul class="why">{reasons}</ul>'
        f"{_open(result)}</div></li>"
    )


def _link(vote: Vote) -> str:
    name = vote.evidence.claim
    mark = tile(vote.result) if vote.result else ""
    return f'<span class="link">{mark}<a class="id" href="#{name}">{name}</a></span>'


def _vote(vote: Vote) -> str:
    """Return what a claim says of the sentence, and why."""
    result = vote.result
    if result is None:
        return f"<b>not run</b> <code>{escape(vote.evidence.claim)}</code>"
    link = _link(vote)
    if vote.bearing is None:
        refuting = result.claim.expected is not Verdict.HOLDS
        why = "; it was to say where the sentence fails, and does not show it" if refuting else ""
        return f"<b>undecided</b> {link} {result.verdict}{why}"
    why = vote.evidence.why
    if not why and vote.bearing is not Bearing.FOR:
        why = result.claim.corrected if result.verdict is result.claim.expected else "a check is out of its bound"
    return f"<b>{_SAYS[vote.bearing]}</b> {link}{': ' + mathematics(why) if why else ''}"


def _open(result: SentenceResult) -> str:
    left, total = len(result.open), len(result.votes)
    if not left or total == 1 or result.verdict is not SentenceVerdict.UNTESTED:
        return ""
    return (
        f'<p class="soft">{left} of {plural(total, "claim")} not decided in this run, so neither is the sentence.</p>'
    )
