"""Figure 2: the semantic tree, the correlation of its items, and its modes learned in stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.style import LEVEL_COLOURS, figure_style, panel_label
from validation import LEVEL_NAMES, ToyExperiment

__all__ = ["caption", "data", "draw"]

_DOTS: dict[str, Any] = {"markersize": 3.2, "markerfacecolor": "white", "markeredgewidth": 0.8, "zorder": 4}


def caption(results: ToyExperiment) -> str:
    """Return the caption."""
    training = results.settings.training
    worst = float(np.abs(results.mode_strengths["closed form"] - results.mode_strengths["simulation"]).max())
    return (
        "Figure 2 (after the paper's Figure 2). The semantic tree and how a linear network learns it. (a) Each item is "
        "described by the nodes on its path from the root. (b) Number of features that two items share. (c) Strength "
        "of every singular mode while the network trains, from one random start (seed "
        f"{training.seed}, {training.hidden} hidden units, learning rate {training.lr:g}): dots, simulation, the "
        "projection of W on the mode; lines, the closed form g(t) = s g0 / (s exp(-2 s t / tau) - g0 expm1(-2 s t / "
        "tau)), where g0 is |W1 v + W2^T u|^2 / 4 without the part shared with faster modes and tau = "
        f"{results.tau:g} epochs, no parameter fitted. Dashes: singular values s. The largest difference between line "
        f"and dot is {worst:.3f}."
    )


def data(results: ToyExperiment) -> xr.Dataset:
    """Return what the figure shows."""
    return xr.Dataset(
        {
            "features": results.features,
            "shared_features": results.shared_features,
            "closed_form": results.mode_strengths["closed form"],
            "simulation": results.mode_strengths["simulation"],
        }
    )


def draw(results: ToyExperiment) -> Figure:
    """Draw the three panels."""
    with figure_style():
        figure = Figure(figsize=(12, 4.2), layout="constrained")
        table, correlation, learning = figure.subplots(1, 3, width_ratios=(1.25, 0.85, 1.35))
        _draw_features(table, results.features)
        _draw_shared(correlation, results.shared_features)
        _draw_modes(learning, results)
        for axes, letter in zip((table, correlation, learning), "abc", strict=True):
            panel_label(axes, letter)
    return figure


def _draw_features(axes: Axes, features: xr.DataArray) -> None:
    levels = features["depth"].values
    colours = np.ones((*features.shape, 3))
    for level in np.unique(levels):
        shade = np.array([int(LEVEL_COLOURS[level % len(LEVEL_COLOURS)][k : k + 2], 16) / 255 for k in (1, 3, 5)])
        colours[(features.values > 0) & (levels == level)] = shade
    axes.imshow(colours, aspect="auto")
    axes.set_xticks(range(features.sizes["feature"]), features["feature"].values, rotation=90, fontsize=7)
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


def _draw_modes(axes: Axes, results: ToyExperiment) -> None:
    strengths = results.mode_strengths
    levels = strengths["level"].values
    for k in reversed(range(strengths.sizes["mode"])):
        colour = LEVEL_COLOURS[levels[k] % len(LEVEL_COLOURS)]
        first = k == 0 or levels[k] != levels[k - 1]
        line, dots = strengths["closed form"][:, k], strengths["simulation"][:, k]
        axes.plot(line["epoch"], line, color=colour, linewidth=1.2, zorder=3)
        axes.plot(dots["epoch"][::2], dots[::2], "o", color=colour, **_DOTS)
        if first:
            value = float(strengths["value"][k])
            axes.axhline(value, color=colour, linestyle=(0, (4, 3)), linewidth=0.8, alpha=0.6)
            axes.annotate(
                f"{LEVEL_NAMES[levels[k]]}, s = {value:.2f}",
                (1, value),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=7.5,
            )
    axes.plot([], [], color="0.3", label="closed form")
    axes.plot([], [], "o", color="0.3", label="simulation", **_DOTS)
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.8))
    axes.set_xlim(0, float(strengths["epoch"].max()))
    axes.set_ylim(0, 1.08 * float(strengths["value"].max()))
    axes.set_xlabel("epoch")
    axes.set_ylabel("mode strength")
    axes.set_title("Modes are learned in stages")
