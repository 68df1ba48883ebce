"""Figure 11: leaving dog out briefly, at every time of training, by retraining and in closed form."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from paper_figs.panels import draw_transitions, mark_help_and_harm, mark_peak, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, SAMPLE_COLOURS, figure_style
from validation import agreement, without_self

__all__ = ["caption", "data", "draw"]

_SOURCE, _QUERIES = "dog", ["cat", "sparrow"]


def caption(results: Results) -> str:
    """Return the caption."""
    s, shown = results.settings.toy, data(results)
    found = agreement(results.briefly_ablated, results.closed_brief_ablation)
    kernel = agreement(without_self(results.briefly_ablated), without_self(-results.toy.kernel))
    extrema = "; ".join(
        f"{query}: helped most at {int(line.idxmin('epoch'))}, harmed most at {int(line.idxmax('epoch'))}"
        for query, line in ((q, shown["retrained"].sel(query=q)) for q in _QUERIES)
    )
    return (
        f"Figure 11 (after the paper's Figure 11). Dog is left out for {s.window} epochs only, from each start on; "
        "shown is the sum over this window of the query's loss with dog minus without; negative = dog helps. Dots: "
        f"retraining, a start every {s.every} epochs; lines: the exact flow on every window from the exact matrix "
        f"solution, nothing fitted. They agree over all pairs and starts with Pearson {found.pearson:.5f} and slope "
        f"{found.slope:.3f}. When dog matters most depends on the query ({extrema}): sparrow, with which dog shares "
        "only the animal, earlier than its sibling cat. What a brief ablation measures is the instantaneous influence: "
        f"its Pearson with the gradient kernel, at the checkpoints both have, is {kernel.pearson:.4f}. Thin verticals: "
        f"half-rise times of the closed-form modes. Seed {s.training.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    chosen = {"source": _SOURCE, "query": _QUERIES}
    return xr.Dataset(
        {
            "retrained": results.briefly_ablated.sel(chosen),
            "closed_form": results.brief_ablation_of_dog.sel(chosen).rename(epoch="start"),
            "half_rise_time": results.transitions,
        }
    )


def draw(results: Results) -> Figure:
    """Draw a panel a query."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 2.7), layout="constrained")
        row = figure.subplots(1, len(_QUERIES), sharex=True, sharey=True)
        row[0].set_xlim(0, results.last_shown_epoch)
        for axes, query, letter in zip(row, _QUERIES, "ab", strict=True):
            dots, line = (shown[name].sel(query=query) for name in ("retrained", "closed_form"))
            colour = SAMPLE_COLOURS[query]
            axes.plot(line["start"], line, color=colour, linewidth=1.2, label="closed form")
            axes.plot(
                dots["epoch"],
                dots,
                "o",
                color=colour,
                markersize=3.2,
                markerfacecolor="white",
                markeredgewidth=0.8,
                label="retraining",
            )
            mark_peak(axes, dots, colour)
            mark_peak(axes, dots, colour, lowest=True)
            axes.set_title(f"dog left out: effect on {query}")
            axes.set_xlabel(f"start of the window of {results.settings.toy.window} epochs")
            axes.margins(y=0.16)
            axes.legend(loc="lower right", bbox_to_anchor=(1, 0.06))
            panel_label(axes, letter)
        for axes in row:
            axes.autoscale_view(scalex=False)
            mark_help_and_harm(axes)
            draw_transitions(axes, shown["half_rise_time"])
        row[0].set_ylabel("summed loss difference\n(negative = helps)")
    return figure
