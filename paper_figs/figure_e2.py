"""Figure E2: linear response is not leave-one-out, from small changes of a sample's weight down to none of it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import draw_transitions, mark_help_and_harm, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, figure_style
from validation import agreement, without_self

__all__ = ["caption", "data", "draw"]

_SOURCE, _QUERIES = "dog", ["cat", "sparrow"]
_CHANGES = (-0.01, -0.1, -0.25, -0.5, -0.75, -0.9, -1.0)
_DRAWN = (-0.1, -0.25, -0.5, -0.75, -1.0)


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    found = "; ".join(
        f"{change:g}: {float(shown['pearson'].sel(change=change)):.2f}, {float(shown['slope'].sel(change=change)):.2f}"
        for change in _CHANGES[1:]
    )
    cat = shown["response"].sel(query="cat")
    small, whole = (int(cat.sel(change=change).idxmax("epoch")) for change in (_CHANGES[0], _CHANGES[-1]))
    return (
        "Figure E2 (beyond the paper). Change of the query's loss divided by the change epsilon of dog's weight, by "
        "retraining, for weights from 1 + epsilon = 0.9 down to 0, which is leave-one-out; negative = dog helps. Black "
        "dashes: the closed forms of both ends, the derivative (sample-weight formula) and leave-one-out (exact matrix "
        f"solution from the actual initial weights). (a) On cat; its strongest harm moves from epoch {small} to "
        f"{whole}. (b) On sparrow. (c) Agreement of the change at epsilon with the derivative over all pairs of "
        f"different samples and all epochs, Pearson and slope through the origin: {found} (linear response would give "
        "1 and 1). Thin verticals: half-rise times of the closed-form modes. Seed "
        f"{results.settings.toy.training.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    derivative = without_self(results.retrained_derivative)
    responses, pearson, slope = [], [], []
    for change in _CHANGES:
        response = results.retrained if change == -1 else results.reweighted(change)
        found = agreement(derivative, without_self(response))
        responses.append(response.sel(source=_SOURCE, query=_QUERIES))
        pearson.append(found.pearson)
        slope.append(found.slope)
    changes = xr.DataArray(list(_CHANGES), dims="change", name="change", attrs={"long_name": "change of the weight"})
    chosen = {"source": _SOURCE, "query": _QUERIES}
    return xr.Dataset(
        {
            "response": xr.concat(responses, changes),
            "closed_derivative": results.toy.sample_weight.sel(chosen),
            "closed_leave_one_out": results.closed_leave_one_out.sel(chosen),
            "pearson": ("change", np.array(pearson)),
            "slope": ("change", np.array(slope)),
            "half_rise_time": results.transitions,
        }
    )


def draw(results: Results) -> Figure:
    """Draw the response to growing changes of weight, and its agreement with the derivative."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 2.9), layout="constrained")
        row = figure.subplots(1, 3, width_ratios=(1.15, 1.15, 0.85))
        for axes, query in zip(row, _QUERIES, strict=False):
            _draw_responses(axes, shown.sel(query=query))
            axes.set_title(f"dog on {query}")
            axes.set_xlim(0, results.last_shown_epoch)
            mark_help_and_harm(axes)
            draw_transitions(axes, shown["half_rise_time"])
            axes.set_xlabel("epoch")
        row[0].set_ylabel("change of loss / change of weight\n(negative = dog helps)")
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), columnspacing=1.2)
        _draw_agreement(row[2], shown)
        for axes, letter in zip(row, "abc", strict=True):
            panel_label(axes, letter)
    return figure


def _draw_responses(axes: Axes, shown: xr.Dataset) -> None:
    shades = colormaps["viridis_r"](np.linspace(0.1, 0.95, len(_DRAWN)))
    for change, shade in zip(_DRAWN, shades, strict=True):
        line = shown["response"].sel(change=change)
        axes.plot(line["epoch"], line, color=shade, linewidth=1.3, label=f"$\\epsilon$ = {change:g}")
    for k, name in enumerate(("closed_derivative", "closed_leave_one_out")):
        label = "closed forms" if k == 0 else "_"
        axes.plot(shown["epoch"], shown[name], color="black", linewidth=0.8, linestyle=(0, (3, 2)), label=label)
    axes.margins(y=0.12)


def _draw_agreement(axes: Axes, shown: xr.Dataset) -> None:
    size = -shown["change"]
    axes.plot(size, shown["pearson"], "o-", color="black", markersize=3, label="Pearson")
    axes.plot(size, shown["slope"], "s--", color="0.5", markersize=3, label="slope")
    axes.axhline(1, color="0.7", linewidth=0.5, zorder=-1)
    axes.set_ylim(0, 1.1)
    axes.set_xlim(0, 1.05)
    axes.set_xlabel("weight taken away, $-\\epsilon$")
    axes.set_title("agreement")
    axes.set_ylabel("with the derivative")
    axes.legend(loc="lower left")
