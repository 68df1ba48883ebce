"""Influence of every sample on every other one over training: a panel a source, siblings side by side."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import draw_queries, draw_transitions, mark_help_and_harm, sample_legend
from paper_figs.style import COLUMN_WIDTH, SAMPLE_COLOURS, figure_style, text_colour
from theory import tree_distance
from theory.trajectories import labelled_array
from validation import peaks

__all__ = ["describe_peaks", "distance_means", "draw_every_source", "peak_epochs"]

_NUMBERS = "\N{CIRCLED DIGIT ONE}\N{CIRCLED DIGIT TWO}\N{CIRCLED DIGIT THREE}"


def distance_means(influence: xr.DataArray) -> xr.DataArray:
    """Return the influence of every source averaged over the queries at each tree distance.

    Parameters
    ----------
    influence
        dims (epoch, source, query), samples in tree order.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, distance), farthest queries first: distance 3 is the other half of the tree, 1 the sibling.
    """
    levels = int(np.log2(influence.sizes["query"]))
    apart = tree_distance(levels)
    distances = np.arange(levels, 0, -1)
    weights = np.stack([(apart == d) / np.sum(apart == d, axis=1, keepdims=True) for d in distances], axis=-1)
    values = np.einsum("tij,ijd->tid", influence.transpose("epoch", "source", "query").values, weights)
    coords = {"epoch": influence["epoch"].values, "source": influence["source"].values, "distance": distances}
    return labelled_array(values, coords, "mean influence")


def peak_epochs(influence: xr.DataArray) -> xr.DataArray:
    """Return the epoch at which each source harms the queries at each tree distance most, dims (source, distance)."""
    return peaks(distance_means(influence))["harm_epoch"].rename("peak epoch")


def describe_peaks(influence: xr.DataArray) -> str:
    """Say in which order the peaks come, and for how many sources."""
    harm = peak_epochs(influence)
    ordered = int((harm.diff("distance") > 0).all("distance").sum())
    spans = [_span(harm.sel(distance=distance)) for distance in harm["distance"].values]
    return (
        "Grey, under the lines: means over the queries at one distance in the tree; circled "
        "numbers: strongest harm to the other "
        "half of the tree (1), to the other branch of the same half (2) "
        f"and to the sibling (3), on average over these queries; they come in this order for {ordered} of "
        f"{harm.sizes['source']} sources, at epochs {', '.join(spans[:-1])} and {spans[-1]}"
    )


def _span(epochs: xr.DataArray) -> str:
    if epochs.isnull().any():
        return f"none for {int(epochs.isnull().sum())} sources"
    first, last = int(epochs.min()), int(epochs.max())
    return str(first) if first == last else f"{first} to {last}"


def draw_every_source(influence: xr.DataArray, transitions: xr.DataArray, *, title: str, last_epoch: float) -> Figure:
    """Draw one panel a source with one line a query, all on the same axes; the source's own loss is left out.

    Parameters
    ----------
    influence
        dims (epoch, source, query).
    transitions
        Half-rise epochs of the closed form's modes.
    title
        What is drawn, for the legend.
    last_epoch
        Right end of the axes.
    """
    names = [str(name) for name in influence["source"].values]
    means, harm = distance_means(influence), peak_epochs(influence)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 7.6), layout="constrained")
        grid = figure.subplots(len(names) // 2, 2, sharex=True, sharey=True)
        for axes, name in zip(grid.flat, names, strict=True):
            draw_queries(axes, influence.sel(source=name), leave_out=name)
            axes.set_title(f"influence of {name}", color=text_colour(SAMPLE_COLOURS[name]), loc="left")
            axes.margins(y=0.08)
        grid.flat[0].set_xlim(0, last_epoch)
        for axes, name in zip(grid.flat, names, strict=True):
            axes.autoscale_view(scalex=False)
            mark_help_and_harm(axes, words=axes is grid[0, 1])
            draw_transitions(axes, transitions)
            _number_peaks(axes, means.sel(source=name), harm.sel(source=name))
        figure.supxlabel("epoch", fontsize=8)
        figure.supylabel(f"{title} (negative = helps)", fontsize=8)
        sample_legend(figure, names, title="on query")
    return figure


def _number_peaks(axes: Axes, means: xr.DataArray, harm: xr.DataArray) -> None:
    """Draw each mean over several queries under its lines, and number the strongest harm where it is drawn."""
    for number, distance in zip(_NUMBERS, harm["distance"].values, strict=True):
        if distance > 1:
            line = means.sel(distance=distance)
            axes.plot(line["epoch"], line, color="0.78", linewidth=3.2, zorder=0.5, solid_capstyle="round")
        epoch = float(harm.sel(distance=distance))
        if np.isnan(epoch):
            continue
        height = float(means.sel(distance=distance, epoch=epoch))
        axes.annotate(number, (epoch, height), (0, 5), textcoords="offset points", ha="center", fontsize=8)
