"""Figure 1: posterior concentration in a regular model against stagewise learning in a singular one, both exact."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, LEVEL_COLOURS, figure_style
from validation import LEVEL_NAMES
from validation.experiments.layer_chains import PRIOR_SPREAD, chain_posterior

__all__ = ["caption", "data", "draw"]

_DEPTHS = {"regular": 1, "singular": 3}
_LEVEL_SHOWN = 2  # of which (a) and (b) draw the density: mammals | birds and trees | flowers


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    times = {name: ", ".join(f"{t:.0f}" for t in shown[f"{name}_transition"].values) for name in _DEPTHS}
    largest = float(shown["n"][-1])
    ratios = {name: (shown[f"{name}_deviation"] / shown[f"{name}_bernstein_von_mises"])[:, -1] for name in _DEPTHS}
    peaks = shown["singular_deviation"].max("n")
    rising = bool((np.diff(shown["singular_transition"].values) > 0).all())
    order = "a level at a time in this order" if rising else "not in this order"
    spread = ", ".join(f"{float(ratios[name].min()):.2f} to {float(ratios[name].max()):.2f}" for name in _DEPTHS)
    return (
        "Figure 1 (after the paper's Figure 1). Exact posteriors of n observations of the semantic tree, by "
        "quadrature: the same data and the same normal prior on every layer's weight (standard deviation "
        f"{PRIOR_SPREAD:g}) for one layer, a regular model (left), and for a chain of three equal layers, a singular "
        "one (right). (a, b) Posterior density of the layer weight w of the modes that tell mammals from birds and "
        "trees from flowers, relative to the solution, each column over its largest value. (c, d) Posterior mean of "
        "every level's strength g / s. (e, f) Its posterior standard deviation, and (dashes) the one of Bernstein-von "
        "Mises, (N / n)^(1/2) / s. The levels, from the root down, of the regular model pass one half at n = "
        f"{times['regular']}; in the singular one w = 0 and the solution weigh the same at n = {times['singular']} "
        f"(thin verticals), {order}. The largest deviation of its levels is {float(peaks.min()):.2f} to "
        f"{float(peaks.max()):.2f}. Deviation over that of Bernstein-von Mises at n = {largest:.0f}, left and right: "
        f"{spread}. No sampling, so no seed."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows, names of the two models in front of each array's."""
    sizes = np.geomspace(1, 1e4, results.settings.posteriors)
    models = {
        name: results.kept("chain posterior", (depth, len(sizes)), partial(chain_posterior, depth, sizes))
        for name, depth in _DEPTHS.items()
    }
    return xr.Dataset({f"{name}_{key}": array for name, model in models.items() for key, array in model.items()})


def draw(results: Results) -> Figure:
    """Draw density, mean and deviation of both models on the same axis of n."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 5.6), layout="constrained")
        grid = figure.subplots(3, 2, sharex=True, sharey="row")
        for column, (name, depth) in zip(grid.T, _DEPTHS.items(), strict=True):
            density, strength, deviation = column
            _draw_density(density, shown[f"{name}_density"].sel(level=_LEVEL_SHOWN))
            density.set_title(f"{name}: {'one layer' if depth == 1 else 'three layers'}")
            for level in reversed(shown["level"].values):
                colour = LEVEL_COLOURS[level]
                strength.plot(
                    shown["n"], shown[f"{name}_strength"].sel(level=level), color=colour, label=LEVEL_NAMES[level]
                )
                deviation.plot(shown["n"], shown[f"{name}_deviation"].sel(level=level), color=colour)
                limit = shown[f"{name}_bernstein_von_mises"].sel(level=level)
                deviation.plot(shown["n"], limit, color=colour, linewidth=0.8, linestyle=(0, (3, 2)))
            if name == "singular":
                density.axvline(
                    float(shown["singular_transition"].sel(level=_LEVEL_SHOWN)), color="0.72", linewidth=0.5
                )
                for n in shown["singular_transition"].values:
                    strength.axvline(n, color="0.72", linewidth=0.5, zorder=-1)
                    deviation.axvline(n, color="0.72", linewidth=0.5, zorder=-1)
            strength.axhline(0.5, color="0.7", linewidth=0.5, zorder=-1)
        grid[0, 0].set_xscale("log")
        grid[0, 0].set_xlim(1, float(shown["n"][-1]))
        grid[2, 0].set_yscale("log")
        grid[2, 0].set_ylim(2e-3, 2)
        grid[0, 0].set_ylabel("layer weight w / solution")
        grid[1, 0].set_ylabel("mean of g / s")
        grid[2, 0].set_ylabel("deviation of g / s")
        grid[2, 0].plot([], [], color="0.3", linewidth=0.8, linestyle=(0, (3, 2)), label="Bernstein-von Mises")
        grid[2, 0].legend(loc="lower left")
        handles, labels = grid[1, 1].get_legend_handles_labels()
        grid[1, 0].legend(
            handles[::-1],
            labels[::-1],
            loc="lower right",
            bbox_to_anchor=(1.03, -0.04),
            handlelength=1.2,
            labelspacing=0.25,
        )
        for axes, letter in zip(grid.flat, "abcdef", strict=True):
            panel_label(axes, letter)
        for axes in grid[-1]:
            axes.set_xlabel("observations n")
    return figure


def _draw_density(axes: Axes, density: xr.DataArray) -> None:
    axes.pcolormesh(
        density["n"],
        density["relative_weight"],
        density.T,
        cmap="Greys",
        vmin=0,
        vmax=1,
        shading="nearest",
        rasterized=True,
    )
    axes.set_ylim(-0.5, 1.5)
