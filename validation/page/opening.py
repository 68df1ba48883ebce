"""The report's opening: what was asked and found, and the experiment in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

import numpy as np
import xarray as xr

from theory import mode_strength
from validation.charts import Plot, Series
from validation.experiments.base import Settings
from validation.experiments.toy import ToyExperiment, group_means
from validation.page.claims import tally
from validation.page.parts import badge, chart, plural
from validation.page.prose import mathematics
from validation.page.sentences import stacked
from validation.registry import Verdict
from validation.runner import Ledger
from validation.sentence_verdicts import SentenceResult, SentenceVerdict

__all__ = ["header", "picture"]

_LEVELS = (("animals", "plants"), ("mammals", "birds", "trees", "flowers"))
_STAGES = ("animals | plants", "mammals | birds, trees | flowers", "dog | cat and other pairs")


def header(ledger: Ledger, sentences: Sequence[SentenceResult]) -> str:
    """Return title, question, and the run's verdicts counted; sentences are those of the paper, if it is about them."""
    lead = (
        "Does one training sample help or harm another, and when? Closed forms, sampling and retraining answer on the "
        "same data, each held against the others."
    )
    if sentences:
        lead = (
            "While a network learns in stages, the influence of one training sample on another rises, falls and "
            "changes sign. The paper says how and why. This report says which of its sentences are so: each is tested "
            "by claims, each claim by numbers from closed forms, sampling and retraining, and beside every number "
            "stands the bound it must keep."
        )
    rows = []
    if sentences:
        rows.append((plural(len(sentences), "sentence"), "of the paper", "#sentences", stacked(sentences, words=True)))
    if ledger.claims:
        target = f'<span class="counts">{tally(ledger.claims, words=True)}</span>'
        rows.append((plural(len(ledger.claims), "claim"), "measured in this run", "#claims", target))
    if ledger.pairs:
        found = [pair.verdict for pair in ledger.pairs]
        parts = "".join(f"<li>{badge(v)} {found.count(v)}</li>" for v in Verdict if v in found)
        target = f'<ul class="badges">{parts}</ul>'
        rows.append((plural(len(ledger.pairs), "pair"), "of measures compared", "#pairs", target))
    counts = "".join(
        f'<dt><a href="{link}">{number}</a> <span class="soft">{what}</span></dt><dd>{shown}</dd>'
        for number, what, link, shown in rows
    )
    partial = ""
    if ledger.unfinished:
        partial = (
            '<p class="problem"><b>Partial report.</b> The run was interrupted; not measured: '
            f"{escape(', '.join(ledger.unfinished))}.</p>"
        )
    notes = "".join(f"<p class='soft'>{escape(note)}</p>" for note in ledger.notes)
    return (
        f'<header class="page"><h1>{escape(ledger.title)}</h1><p class="lead">{lead}</p>{partial}'
        f'<dl class="tallies">{counts}</dl>{notes}{_settings(ledger.settings)}'
        f'<p class="soft">Measured in {ledger.seconds:.0f} s on {datetime.now():%d %B %Y}.</p></header>'
        f"{_refuted(sentences)}"
    )


def _settings(settings: Settings) -> str:
    training, sampler = settings.training, settings.sampler
    return (
        f"<p class='soft'>{training.hidden} hidden units, initial weights {training.sigma:g}, learning rate "
        f"{training.lr:g}, {training.epochs} epochs; sampler with n<sub>&beta;</sub> = {sampler.n_beta:g}, &gamma; = "
        f"{sampler.localization:g}, step {sampler.step_size:g}, {settings.chains} &times; {settings.draws} draws; seed "
        f"{settings.seed}.</p>"
    )


def _refuted(sentences: Sequence[SentenceResult]) -> str:
    """Return the sentences that this run contradicts, each with what holds instead."""
    refuted = [result for result in sentences if result.verdict is SentenceVerdict.CONTRADICTED]
    if not refuted:
        return ""
    rows = []
    for result in refuted:
        reasons = {vote.evidence.why or (vote.result.claim.corrected if vote.result else "") for vote in result.votes}
        instead = "; ".join(mathematics(reason) for reason in sorted(reasons - {""}))
        rows.append(
            f"<li><blockquote>{mathematics(result.sentence.text)} <cite>paper, {escape(result.sentence.section)}</cite>"
            f"</blockquote><p>{f'<b>Instead:</b> {instead}' if instead else ''}</p></li>"
        )
    listed = f'<ul class="refuted">{"".join(rows)}</ul>'
    return f'<section id="contradicted"><h2>What this run contradicts</h2>{listed}</section>'


def picture(settings: Settings) -> str:
    """Return the experiment in one picture, in closed form at the run's settings."""
    toy = ToyExperiment(settings)
    influence = group_means(toy.closed_leave_one_out)
    values, epochs = toy.modes.values, toy.epochs
    strengths = mode_strength(epochs[:, None], values, toy.modes.initial_strengths, toy.tau)
    distinct = np.unique(np.round(values, 6))[::-1][1:]  # the first is what all things share
    levels = [np.isclose(values, value, rtol=1e-3) for value in distinct]
    shares = [strengths[:, level].mean(axis=1) / values[level].mean() for level in levels]
    marks = tuple((float(np.interp(0.5, share, epochs)), "") for share in shares)
    learned = Plot(
        "It learns what they share from coarse to fine",
        "epoch",
        "share of a distinction learned",
        tuple(Series(name, epochs, share) for name, share in zip(_STAGES, shares, strict=True)),
        marks=marks,
    )
    felt = Plot(
        "The influence of dog on others changes with the stages",
        "epoch",
        "loss with dog less loss without",
        tuple(Series(f"on {name}", epochs, mean.values) for name, mean in influence.items()),
        marks=marks,
        zero=True,
    )
    return (
        '<section id="picture"><h2>The experiment in one picture</h2><div class="triptych">'
        f"<figure><figcaption>Eight things share features as in a tree</figcaption>{_tree(toy.dataset.names)}</figure>"
        f"{chart(learned)}{chart(felt)}</div>"
        "<p>A network of two linear layers learns which features each of eight things has. The things share features "
        "as the branches of a tree: all of them some, animals more, mammals more still. Dotted lines mark where half "
        "of a distinction is learned. Right, below zero dog <b>helps</b>, since the loss on the other thing is lower "
        f"with it than without; above zero it <b>harms</b>. {_turns(influence)} All three parts are closed forms at "
        "the settings of this run.</p></section>"
    )


def _turns(influence: Mapping[str, xr.DataArray]) -> str:
    """Return when dog helps and harms each group most, in words that follow the numbers."""
    parts = []
    for name, mean in sorted(influence.items(), key=lambda entry: float(entry[1].idxmax("epoch"))):
        helps, harms = (float(mean.idxmin("epoch")), float(mean.idxmax("epoch")))
        if float(mean.min()) >= 0 or float(mean.max()) <= 0:
            parts.append(f"it {'harms' if float(mean.max()) > 0 else 'helps'} {name} all along")
            continue
        first, second = ("helps", "harms") if helps < harms else ("harms", "helps")
        parts.append(
            f"it {first} {name} most at epoch {min(helps, harms):.0f} and {second} most at {max(helps, harms):.0f}"
        )
    return f"Here {'; '.join(parts)}."


def _tree(names: Sequence[str]) -> str:
    """Return the tree of things, a drawing as high as the charts beside it."""
    width, top, drop = 316.8, 18.0, 38.0
    xs = [(k + 0.5) * width / len(names) for k in range(len(names))]
    labels = [("all",), *_LEVELS, tuple(names)]
    lines, words, y = [], [], top
    while len(labels) > 1:
        count = len(labels[0])
        centres = [float(np.mean(xs[k * len(xs) // count : (k + 1) * len(xs) // count])) for k in range(count)]
        below = len(labels[1])
        children = [float(np.mean(xs[k * len(xs) // below : (k + 1) * len(xs) // below])) for k in range(below)]
        lines += [
            f"M{centres[k * count // below]:.1f} {y + 5:.0f}L{child:.1f} {y + drop - 11:.0f}"
            for k, child in enumerate(children)
        ]
        words += [_word(x, y, name) for x, name in zip(centres, labels[0], strict=True) if name != "all"]
        labels, y = labels[1:], y + drop
    words += [_word(x, y + 14 * (k % 2), name) for k, (x, name) in enumerate(zip(xs, names, strict=True))]
    return (
        f'<svg viewBox="0 0 {width} 180" role="img" aria-label="Tree: {escape(", ".join(names))}">'
        f'<path class="line axis" d="{"".join(lines)}"/>{"".join(words)}</svg>'
    )


def _word(x: float, y: float, name: str) -> str:
    return f'<text class="mid" x="{x:.1f}" y="{y:.0f}">{escape(name)}</text>'
