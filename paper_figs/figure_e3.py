"""Figure E3: how much it matters when a sample is seen, closed form beside the derivative of the run itself."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from paper_figs.panels import draw_transitions, mark_help_and_harm, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, DIVERGING, SAMPLE_COLOURS, figure_style
from validation.experiments.exposure import exposure_influence

__all__ = ["caption", "data", "draw"]

_SOURCE, _QUERIES = "dog", ["cat", "sparrow"]
_RECENT = 1000  # epochs


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    closed, unrolled = shown["closed_form"], shown["unrolled"]
    pearson = float(np.corrcoef(closed.values.ravel(), unrolled.values.ravel())[0, 1])
    slope = float((closed * unrolled).sum() / (unrolled**2).sum())
    stretch = int(shown.attrs["stretch"])
    whole = stretch * unrolled.sum("exposure")
    derivative = results.retrained_derivative.sel(source=_SOURCE, query=_QUERIES)
    missing = float(np.abs(whole - derivative).max() / np.abs(derivative).max())
    shares = "; ".join(
        f"{query} at t = {epoch:.0f}: {_recent_share(unrolled.sel(query=query, epoch=epoch)):.0%}"
        for query in _QUERIES
        for epoch in _cuts(shown.sel(query=query))
    )
    return (
        "Figure E3 (beyond the paper). Influence of seeing dog at epoch u on the loss of a query at epoch t, per "
        "sample weight and epoch of exposure: negative, purple = it helps; orange = it harms. (a, d) Closed form, with "
        "the initial strengths of the actual weights. (b, e) Unrolled: derivative of the whole descent with respect to "
        f"dog's weight in stretches of {stretch} epochs. Over both queries they have Pearson {pearson:.4f} and "
        f"slope {slope:.3f}. (c, f) The maps along the dashed lines, at the epochs t of strongest help and strongest "
        f"harm: lines, closed form; dots, unrolled. Share of the exposures of the last {_RECENT} epochs in the whole: "
        f"{shares}. Summed over u the unrolled parts are the derivative of weighted retraining to {missing:.1g} of "
        "its largest value. Thin lines: half-rise times of the closed-form modes. Seed "
        f"{results.settings.toy.training.seed}."
    )


def _recent_share(influence: xr.DataArray) -> float:
    """Return which part of the influence at one epoch is due to the exposures of the epochs just before."""
    epoch = float(influence["epoch"])
    return float(influence.sel(exposure=slice(epoch - _RECENT, epoch)).sum() / influence.sum())


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    config = results.settings.toy.training
    found = results.kept("exposure", (config, _SOURCE), lambda: exposure_influence(results.toy, sources=[_SOURCE])).sel(
        source=_SOURCE, query=_QUERIES, drop=True
    )
    return xr.Dataset(
        {
            "closed_form": found["closed_form"],
            "unrolled": found["unrolled"],
            "half_rise_time": results.transitions,
        },
        attrs={"source": _SOURCE, "stretch": config.checkpoint_every},
    )


def draw(results: Results) -> Figure:
    """Draw both maps for two queries, and cuts through them."""
    shown = data(results)
    shown = shown.sel(epoch=slice(0, results.last_shown_epoch), exposure=slice(0, results.last_shown_epoch))
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 4.9), layout="constrained")
        grid = figure.subplots(2, 3, sharex=True)
        for row, query in zip(grid, _QUERIES, strict=True):
            part = shown.sel(query=query)
            bound = float(np.abs(part["unrolled"]).max())
            cuts = _cuts(part)
            for axes, name, words in zip(row, ("closed_form", "unrolled"), ("closed form", "unrolled"), strict=False):
                _draw_map(axes, part[name], bound)
                axes.set_title(words)
                _mark_cuts(axes, shown["half_rise_time"], cuts)
            bar = figure.colorbar(
                ScalarMappable(Normalize(-bound, bound), DIVERGING),
                ax=row[1],
                pad=0.02,
                aspect=30,
                format=_scientific(),
            )
            bar.ax.tick_params(labelsize=6.5)
            bar.ax.yaxis.get_offset_text().set_fontsize(6.5)
            row[0].set_ylabel(f"dog on {query}\nepoch t of the loss")
            _draw_cuts(row[2], part, cuts, SAMPLE_COLOURS[query])
            draw_transitions(row[2], shown["half_rise_time"])
        for axes in grid[1]:
            axes.set_xlabel("epoch u of exposure")
        for axes, letter in zip(grid.flat, "abcdef", strict=True):
            panel_label(axes, letter)
    return figure


def _scientific() -> ScalarFormatter:
    formatter = ScalarFormatter()
    formatter.set_powerlimits((-2, 2))
    return formatter


def _cuts(part: xr.Dataset) -> list[float]:
    """Return the epochs of strongest help and strongest harm by all exposures together."""
    whole = part["unrolled"].sum("exposure")
    return [float(whole.idxmin("epoch")), float(whole.idxmax("epoch"))]


def _draw_map(axes: Axes, influence: xr.DataArray, bound: float) -> None:
    values = influence.transpose("epoch", "exposure")
    seen = values.where(values["epoch"] > values["exposure"])
    axes.pcolormesh(
        values["exposure"],
        values["epoch"],
        seen,
        cmap=DIVERGING,
        vmin=-bound,
        vmax=bound,
        shading="nearest",
        rasterized=True,
    )
    axes.plot([0, float(values["epoch"][-1])], [0, float(values["epoch"][-1])], color="0.6", linewidth=0.6)
    axes.set_xlim(0, float(values["epoch"][-1]))
    axes.set_ylim(0, float(values["epoch"][-1]))


def _mark_cuts(axes: Axes, transitions: xr.DataArray, cuts: list[float]) -> None:
    draw_transitions(axes, transitions)
    for epoch in transitions.values:
        axes.axhline(epoch, color="0.72", linewidth=0.5, zorder=-1)
    for epoch in cuts:
        axes.plot([0, epoch], [epoch, epoch], color="black", linewidth=0.8, linestyle=(0, (3, 2)))


def _draw_cuts(axes: Axes, part: xr.Dataset, cuts: list[float], colour: str) -> None:
    for epoch, shade in zip(cuts, ("0.45", colour), strict=True):
        line, dots = (part[name].sel(epoch=epoch) for name in ("closed_form", "unrolled"))
        line, dots = (values.where(values["exposure"] < epoch, drop=True) for values in (line, dots))
        axes.plot(line["exposure"], line, color=shade, linewidth=1.1, label=f"t = {epoch:.0f}")
        axes.plot(
            dots["exposure"][::2],
            dots[::2],
            "o",
            color=shade,
            markersize=2.4,
            markerfacecolor="white",
            markeredgewidth=0.7,
        )
    axes.margins(y=0.12)
    mark_help_and_harm(axes)
    axes.set_title("along the dashes")
    axes.set_ylabel("influence (negative = helps)")
    axes.ticklabel_format(axis="y", scilimits=(-2, 2))
    axes.yaxis.get_offset_text().set_fontsize(6.5)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.06))
