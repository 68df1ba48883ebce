"""Figure 2: the semantic tree, the correlation of its items, and its modes learned in stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from paper_figs.panels import draw_transitions, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import BRANCH_COLOURS, COLUMN_WIDTH, LEVEL_COLOURS, SAMPLE_COLOURS, figure_style
from paper_figs.wording import describe_order
from validation import LEVEL_NAMES

__all__ = ["caption", "data", "draw"]

_DOTS: dict[str, Any] = {"markersize": 2.6, "markerfacecolor": "white", "markeredgewidth": 0.7, "zorder": 4}


def caption(results: Results) -> str:
    """Return the caption."""
    training = results.settings.toy.training
    strengths = results.toy.mode_strengths
    worst = float(np.abs(strengths["closed form"] - strengths["simulation"]).max())
    times = results.transitions.groupby("level").mean()
    names = (name.replace("\n", " ") for name in LEVEL_NAMES)
    stages = describe_order({name: float(t) for name, t in zip(names, times, strict=True)})
    return (
        "Figure 2 (after the paper's Figure 2). The semantic tree and how a linear network learns it. (a) Each item is "
        "described by the nodes on its path from the root; each node's colour is its branch's in all figures. (b) "
        "Number of features that two items share. (c) Strength of every singular mode while the network trains, from "
        f"one random start (seed {training.seed}, {training.hidden} hidden units, learning rate {training.lr:g}): "
        "dots, simulation, the projection of W on the mode; lines, the closed form g(t) = s g0 / (s exp(-2 s t / tau) "
        "- g0 expm1(-2 s t / tau)), where g0 is |W1 v + W2^T u|^2 / 4 without the part shared with faster modes and "
        f"tau = {results.toy.tau:g} epochs, no parameter fitted. Dashes: singular values s. Thin verticals: half-rise "
        f"times of the closed form, by level on average {stages}. The largest difference between line and dot is "
        f"{worst:.3f}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    strengths = results.toy.mode_strengths
    return xr.Dataset(
        {
            "features": results.toy.features,
            "shared_features": results.toy.shared_features,
            "closed_form": strengths["closed form"],
            "simulation": strengths["simulation"],
            "half_rise_time": results.transitions,
        }
    )


def draw(results: Results) -> Figure:
    """Draw the three panels."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 5.2), layout="constrained")
        table, correlation, learning = figure.subplot_mosaic(
            [["table", "correlation"], ["learning", "learning"]], width_ratios=(1.45, 1), height_ratios=(1, 1.25)
        ).values()
        _draw_features(table, shown["features"])
        _draw_shared(correlation, shown["shared_features"])
        _draw_modes(learning, shown)
        for axes, letter in zip((table, correlation, learning), "abc", strict=True):
            panel_label(axes, letter)
    return figure


def _draw_features(axes: Axes, features: xr.DataArray) -> None:
    node_colours = BRANCH_COLOURS | SAMPLE_COLOURS
    colours = np.ones((*features.shape, 3))
    for k, node in enumerate(features["feature"].values):
        colours[features.values[:, k] > 0, k] = to_rgb(node_colours[node])
    axes.imshow(colours, aspect="auto")
    axes.set_xticks(range(features.sizes["feature"]), features["feature"].values, rotation=90)
    axes.set_yticks(range(features.sizes["item"]), features["item"].values)
    axes.set_xticks(np.arange(features.sizes["feature"] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(features.sizes["item"] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.set_title("Items and their features")


def _draw_shared(axes: Axes, shared: xr.DataArray) -> None:
    axes.imshow(shared, cmap="Greys", vmin=0, vmax=1.35 * float(shared.max()))
    for i, j in np.ndindex(*shared.shape):
        value = int(shared[i, j])
        axes.text(j, i, str(value), ha="center", va="center", fontsize=7, color="white" if value >= 3 else "black")
    axes.set_xticks(range(len(shared)), shared["item"].values, rotation=90)
    axes.set_yticks(range(len(shared)), shared["item"].values)
    axes.tick_params(length=0)
    axes.set_title("Features in common")


def _draw_modes(axes: Axes, shown: xr.Dataset) -> None:
    levels = shown["level"].values
    draw_transitions(axes, shown["half_rise_time"])
    every_other = shown["simulation"][::2]
    for k in reversed(range(shown.sizes["mode"])):
        colour = LEVEL_COLOURS[levels[k] % len(LEVEL_COLOURS)]
        axes.plot(shown["epoch"], shown["closed_form"][:, k], color=colour, linewidth=1.1, zorder=3)
        axes.plot(every_other["epoch"], every_other[:, k], "o", color=colour, **_DOTS)
        if k == 0 or levels[k] != levels[k - 1]:
            value = float(shown["value"][k])
            axes.axhline(value, color=colour, linestyle=(0, (4, 3)), linewidth=0.7, alpha=0.6)
            axes.annotate(
                f"{LEVEL_NAMES[levels[k]]},\ns = {value:.2f}",
                (1, value),
                (3, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axes.plot([], [], color="0.3", label="closed form")
    axes.plot([], [], "o", color="0.3", label="simulation", **_DOTS)
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.83))
    axes.set_xlim(0, float(shown["epoch"].max()))
    axes.set_ylim(0, 1.08 * float(shown["value"].max()))
    axes.set_xlabel("epoch")
    axes.set_ylabel("mode strength")
    axes.set_title("Strength of every mode")
