"""Figure E6: which measures of influence agree, theory, sampling and retraining against each other."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, figure_style, text_colour
from paper_figs.wording import in_words
from validation import MATRIX, MEASURES, correlations

__all__ = ["caption", "data", "draw"]

# What a measure answers: what if the source had less of this weight?
_QUESTIONS = {
    "a little weight, all along": (
        "sample-weight",
        "derivative retrained",
        "weight 0.9 retrained",
        "paper-P1",
    ),
    "all its weight, all along": ("LOO closed form", "LOO retrained"),
    "a little weight, now": (
        "kernel",
        "brief ablation closed form",
        "brief ablation",
        "Hessian, damping gamma / n_beta",
        "Gauss-Newton, damping gamma / n_beta",
        "BIF",
    ),
}
_NONE = "none"
_SHORT = {
    "Hessian, damping gamma / n_beta": "damped Hessian",
    "Gauss-Newton, damping gamma / n_beta": "damped Gauss-Newton",
}
_WAY_COLOURS = {"theory": "#0072B2", "numerics": "#009E73", "retraining": "#D55E00"}


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    table, questions = shown["correlation"].values, shown["question"].values
    unasked = [str(name) for name in shown["measure"].values[questions == _NONE]]
    asked, pairs = questions != _NONE, ~np.eye(len(table), dtype=bool)
    same = table[pairs & (questions[:, None] == questions) & asked]
    different = table[(questions[:, None] != questions) & asked & asked[:, None]]
    outside = table[(~asked)[:, None] & asked]
    return (
        "Figure E6 (beyond the paper). Pearson correlation of every two measures of influence over all pairs of "
        f"different samples and all common epochs ({len(table)} measures: closed forms blue, sampling and curvature "
        "green, retraining orange), ordered by the question that they answer. Measures that answer the same question "
        f"correlate with {np.median(same):.3f} (median; {same.min():.2f} to {same.max():.4f}), others with "
        f"{np.median(different):.2f} ({different.min():.2f} to {different.max():.2f}). Measures without a question "
        f"({in_words(unasked)}): {outside.min():.2f} to {outside.max():.2f} with those that have one. "
        f"Seed {results.settings.toy.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    results.measure_everything()
    asked = [name for names in _QUESTIONS.values() for name in names]
    order = [*(name for name in asked if name in MATRIX), *(name for name in MATRIX if name not in asked)]
    results.reporter.announce("correlating every two measures")
    table = results.kept("correlations", (results.settings.toy, order), lambda: correlations(results.toy, order))
    question = {name: words.replace("\n", " ") for words, names in _QUESTIONS.items() for name in names}
    labels = [question.get(str(name), _NONE) for name in table["measure"].values]
    return xr.Dataset({"correlation": table}).assign_coords(question=("measure", labels))


def draw(results: Results) -> Figure:
    """Draw the matrix with its numbers, measures of one question together."""
    shown = data(results)
    table, questions = shown["correlation"], shown["question"].values
    names = [str(name) for name in table["measure"].values]
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 5.2), layout="constrained")
        axes = figure.subplots()
        axes.imshow(table, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
        for i, j in np.ndindex(*table.shape):
            value = float(table[i, j])
            text = f"{value:.2f}" if i == j or value < 0.995 else f"{value:.3f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color="white" if value > 0.8 else "black")
        short = [_SHORT.get(name, name) for name in names]
        axes.set_xticks(range(len(names)), short, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), short)
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            for label, name in zip(labels, names, strict=True):
                label.set_color(text_colour(_WAY_COLOURS[str(MEASURES[name].way)]))
        for edge in np.flatnonzero(questions[1:] != questions[:-1]) + 0.5:
            axes.axhline(edge, color="white", linewidth=3)
            axes.axvline(edge, color="white", linewidth=3)
        for words in _QUESTIONS:
            places = np.flatnonzero(questions == words)
            axes.text(places.mean(), -0.65, words.replace(", ", ",\n"), ha="center", va="bottom", fontweight="bold")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.legend(
            handles=[Patch(color=colour, label=way) for way, colour in _WAY_COLOURS.items()],
            loc="outside lower left",
            ncols=len(_WAY_COLOURS),
        )
    return figure
