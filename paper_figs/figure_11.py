"""Figure 11: leaving dog out briefly, at every time of training, by retraining and in closed form."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from paper_figs.influence_plot import plot
from paper_figs.panels import mark_help_and_harm, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, SAMPLE_COLOURS, figure_style, text_colour
from paper_figs.wording import describe_order, in_words
from validation import agreement, peaks, without_self

__all__ = ["caption", "data", "draw"]

_SOURCE, _QUERIES = "dog", ["cat", "sparrow"]
_PRINTED = {"help": 3000, "harm": 6000}  # the paper's epochs for cat
_SMALLER = 0.1  # initial weights of the third line, over those of the run


def caption(results: Results) -> str:
    """Return the caption."""
    s, shown = results.settings.toy, data(results)
    found = agreement(results.briefly_ablated, results.closed_brief_ablation)
    kernel = agreement(without_self(results.briefly_ablated), without_self(-results.toy.kernel))
    solved = peaks(shown["closed_form"].rename(start="epoch"))
    retrained = peaks(shown["retrained"])
    smaller = peaks(shown["closed_form_smaller_start"].rename(start="epoch"))
    printed = in_words(
        [
            f"strongest {side} {float(solved[f'{side}_epoch'].sel(query='cat')):.0f} in closed form and "
            f"{float(retrained[f'{side}_epoch'].sel(query='cat')):.0f} retrained, where the paper prints {epoch} "
            f"({float(smaller[f'{side}_epoch'].sel(query='cat')):.0f} from weights {_SMALLER:g} times as large, dashes)"
            for side, epoch in _PRINTED.items()
        ]
    )
    orders = in_words(
        [
            f"strongest {side} comes "
            + describe_order(
                {q: float(solved[f"{side}_epoch"].sel(query=q)) for q in reversed(_QUERIES)}, unit="starts at"
            )
            for side in _PRINTED
        ]
    )
    return (
        f"Figure 11 (after the paper's Figure 11). Dog is left out for {s.window} epochs only, from each start on; "
        "shown is the sum over this window of the query's loss with dog minus without; negative = dog helps. On cat: "
        f"{printed}. Dots: retraining, a start every {s.every} epochs; lines: the exact flow on every window from the "
        f"exact matrix solution, a start every {_spacing(shown):.0f} epochs, nothing fitted; triangles: extrema of the "
        f"lines. Pearson over all pairs and starts {found.pearson:.5f}, slope {found.slope:.3f}. The {orders}. Pearson "
        f"of brief ablation with the gradient kernel, at the checkpoints both have: {kernel.pearson:.4f}. Thin "
        f"verticals: half-rise times of the closed-form modes of the run. Seed {s.training.seed}."
    )


def _spacing(shown: xr.Dataset) -> float:
    return float(shown["start"].diff("start").max())


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    chosen = {"source": _SOURCE, "query": _QUERIES}
    smaller = results.brief_ablation_of_dog_from(_SMALLER * results.settings.toy.training.sigma)
    return xr.Dataset(
        {
            "retrained": results.briefly_ablated.sel(chosen),
            "closed_form": results.brief_ablation_of_dog.sel(chosen).rename(epoch="start"),
            "closed_form_smaller_start": smaller.sel(chosen).rename(epoch="start"),
            "half_rise_time": results.transitions,
        }
    )


def draw(results: Results) -> Figure:
    """Draw a panel a query."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 2.9), layout="constrained")
        row = figure.subplots(1, len(_QUERIES), sharex=True, sharey=True)
        row[0].set_xlim(0, results.last_shown_epoch)
        for axes, query, letter in zip(row, _QUERIES, "ab", strict=True):
            colour = SAMPLE_COLOURS[query]
            solved, smaller = (
                shown[name].rename(start="epoch") for name in ("closed_form", "closed_form_smaller_start")
            )
            axes.plot(
                smaller["epoch"],
                smaller.sel(query=query),
                color="0.4",
                linewidth=0.9,
                linestyle=(0, (3, 2)),
                label=f"closed form, initial weights {_SMALLER:g} times as large",
            )
            plot(solved, queries=[query], transitions=shown["half_rise_time"], axes=axes, ground=False, flips=False)
            dots = shown["retrained"].sel(query=query)
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
            axes.plot([], [], color="black", linewidth=1.2, label="closed form")
            axes.set_title(f"influence of {_SOURCE} on {query}", color=text_colour(colour))
            axes.set_xlabel(f"start of the window of {results.settings.toy.window} epochs without {_SOURCE}")
            axes.set_ylabel("")
            axes.margins(y=0.16)
            panel_label(axes, letter)
        for axes in row:
            axes.autoscale_view(scalex=False)
            mark_help_and_harm(axes)
        row[0].set_ylabel("summed loss with - without dog\n(negative = helps)")
        handles, labels = row[0].get_legend_handles_labels()
        kept = {label: handle for handle, label in zip(handles, labels, strict=True) if label not in _QUERIES}
        figure.legend(kept.values(), kept.keys(), loc="outside lower center", ncols=len(kept))
    return figure
