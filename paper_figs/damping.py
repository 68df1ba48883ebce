"""Classical influence along training at several damping constants, a panel each, beside the matrix that is inverted."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from paper_figs.panels import draw_queries, draw_transitions, mark_help_and_harm, panel_label, sample_legend
from paper_figs.style import COLUMN_WIDTH, figure_style
from validation import agreement, sign_flips

__all__ = ["SOURCE", "describe_indefinite", "describe_kernel_limit", "describe_spikes", "draw_damped", "indefinite"]

SOURCE = "dog"
_CUT = 0.98  # quantile of the absolute values that decides where a panel's axis ends; near-singular matrices spike


def indefinite(curvature: xr.Dataset) -> xr.DataArray:
    """Return where the damped matrix still has a negative eigenvalue, dims (damping, epoch)."""
    lowest = curvature["min_eigenvalue"] + curvature["damping"] * curvature["max_abs_eigenvalue"]
    return (lowest < 0).transpose("damping", "epoch").rename("indefinite")


def describe_indefinite(curvature: xr.Dataset) -> str:
    """Say for each damping constant at how many checkpoints the damped matrix is indefinite."""
    counts = indefinite(curvature).sum("epoch")
    if not counts.any():
        return "none, at any damping"
    return ", ".join(f"{int(n)} at c = {float(c):g}" for c, n in zip(counts["damping"], counts, strict=True))


def describe_kernel_limit(curvature: xr.Dataset, kernel: xr.DataArray) -> str:
    """Say how close each damping constant times its influence is to minus the gradient kernel, its limit."""
    scaled = curvature["influence"] * curvature["max_abs_eigenvalue"]
    found = [agreement(-kernel, scaled.sel(damping=constant)).pearson for constant in curvature["damping"].values]
    return ", ".join(f"{r:.3f} at c = {float(c):g}" for c, r in zip(curvature["damping"], found, strict=True))


def describe_spikes(curvature: xr.Dataset) -> str:
    """Say how often the influence of dog changes its clear sign at each damping constant, at most and over queries."""
    influence = curvature["influence"].drop_sel(query=SOURCE)
    counts = sign_flips(influence)["epoch"].notnull().sum("flip").max("query")
    listed = ", ".join(f"{int(n)} at c = {float(c):g}" for c, n in zip(counts["damping"], counts, strict=True))
    return f"Most clear changes of sign of one trajectory: {listed}."


def draw_damped(curvature: xr.Dataset, transitions: xr.DataArray, *, matrix: str, last_epoch: float) -> Figure:
    """Draw the influence of dog at every damping constant, and the matrix's extreme eigenvalues.

    Parameters
    ----------
    curvature
        ``influence`` with dims (damping, epoch, query), the extreme eigenvalues with dims (epoch).
    transitions
        Half-rise epochs of the closed form's modes.
    matrix
        What is damped, for the titles.
    last_epoch
        Right end of the axes.
    """
    not_positive = indefinite(curvature)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 6.0), layout="constrained")
        grid = figure.subplots(3, 2, sharex=True)
        grid.flat[0].set_xlim(0, last_epoch)
        for axes, constant, letter in zip(grid.flat, curvature["damping"].values, "abcde", strict=False):
            influence = curvature["influence"].sel(damping=constant)
            draw_queries(axes, influence, leave_out=SOURCE)
            _cut_axis(axes, influence.drop_sel(query=SOURCE))
            mark_help_and_harm(axes)
            _mark_epochs(axes, not_positive.sel(damping=constant))
            axes.set_title(f"damping c = {constant:g}", pad=8)
            axes.set_ylabel("influence of dog")
            panel_label(axes, letter)
        if bool(not_positive.any()):
            grid.flat[5].plot([], [], color="0.35", linewidth=4, label="bar above a panel:\ndamped matrix indefinite")
        _draw_eigenvalues(grid.flat[5], curvature, matrix)
        panel_label(grid.flat[5], "f")
        for axes in grid.flat:
            draw_transitions(axes, transitions)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
        names = [str(q) for q in curvature["query"].values]
        sample_legend(figure, names, title=f"damped {matrix}, on query (negative = dog helps)", source=SOURCE)
    return figure


def _cut_axis(axes: Axes, influence: xr.DataArray) -> None:
    """End the axis where nearly all values fit, and say how far the others go."""
    largest = float(np.abs(influence).max())
    usual = 1.5 * float(np.quantile(np.abs(influence), _CUT, axis=influence.get_axis_num("epoch")).max())
    if largest > 2 * usual:
        axes.set_ylim(-usual, usual)
        axes.text(
            0.015,
            0.985,
            f"spikes to {largest:.3g}",
            transform=axes.transAxes,
            va="top",
            fontsize=6.5,
            zorder=6,
            bbox={"facecolor": "white", "linewidth": 0, "pad": 1},
        )
    else:
        axes.margins(y=0.12)
        axes.autoscale_view(scalex=False)


def _mark_epochs(axes: Axes, marked: xr.DataArray) -> None:
    """Draw a strip on top of the panel over the epochs where the matrix inverted is indefinite."""
    shown = marked.sel(epoch=slice(*axes.get_xlim()))
    axes.fill_between(
        shown["epoch"],
        1.0,
        1.035,
        where=shown.values,
        step="mid",
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        color="0.35",
        linewidth=0,
    )


def _draw_eigenvalues(axes: Axes, curvature: xr.Dataset, matrix: str) -> None:
    axes.plot(curvature["epoch"], curvature["max_abs_eigenvalue"], color="black", label="largest |eigenvalue|")
    axes.plot(curvature["epoch"], curvature["min_eigenvalue"], color="black", linestyle=(0, (3, 1.5)), label="smallest")
    axes.axhline(0, color="0.4", linewidth=0.7, zorder=0)
    axes.set_title(f"eigenvalues of the {matrix}")
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.62))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
