"""Small plots for the report: described as data by the claims, drawn as SVG only when a report is written."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

__all__ = ["COLOURS", "Plot", "Series", "curves", "to_svg"]

# Okabe and Ito's palette, which colour-blind readers can tell apart, darkest contrasts first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3c424c",
    "xtick.color": "#5d646f",
    "ytick.color": "#5d646f",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.5,
    "svg.hashsalt": "stagewise",
}


@dataclass(frozen=True, eq=False)
class Series:
    """One line, set of points or set of bars.

    Parameters
    ----------
    name
        Its entry in the legend; none if empty.
    x, y
        Values, shape (n,); x may hold the names of bars.
    error
        Half-width of the error bars or of the band around a line.
    style
        "line", "dashes", "points" or "bars".
    colour
        Index into the palette; the position among the series if not given.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None
    style: str = "line"
    colour: int | None = None

    def __post_init__(self) -> None:
        if np.shape(self.x) != np.shape(self.y):
            raise ValueError(
                f"the series {self.name!r} cannot be drawn: x has shape {np.shape(self.x)}, but y {np.shape(self.y)}."
            )


@dataclass(frozen=True, eq=False)
class Plot:
    """A plot with its labels.

    Parameters
    ----------
    title, x, y
        Title and axis labels.
    series
        What is drawn.
    log
        Which axes are logarithmic: "", "x", "y" or "xy".
    marks
        Vertical lines as (position, label).
    zero
        Whether to draw the line y = 0.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log: str = ""
    marks: tuple[tuple[float, str], ...] = field(default=())
    zero: bool = False


def curves(x: ArrayLike, style: str = "line", /, **named: ArrayLike) -> tuple[Series, ...]:
    """Return one series for every named array over the same x; underscores in names become spaces.

    Examples
    --------
    >>> [series.name for series in curves([0, 1], closed_form=[1.0, 2.0], measured=[1.1, 2.1])]
    ['closed form', 'measured']
    """
    return tuple(
        Series(name.replace("_", " "), np.asarray(x), np.asarray(y, dtype=float), style=style)
        for name, y in named.items()
    )


def to_svg(plot: Plot) -> bytes:
    """Return the plot as a self-contained SVG image."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = figure.subplots()
        for position, series in enumerate(plot.series):
            _draw(axes, series, COLOURS[(position if series.colour is None else series.colour) % len(COLOURS)])
        if "x" in plot.log:
            axes.set_xscale("log")
        if "y" in plot.log:
            axes.set_yscale("log")
        if plot.zero:
            axes.axhline(0, color="#8a8f98", linewidth=0.7, zorder=0)
        for place, label in plot.marks:
            axes.axvline(place, color="#8a8f98", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
            axes.annotate(
                label,
                (place, 1),
                (2, -1),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=7,
                color="#5d646f",
                va="top",
            )
        axes.set_title(plot.title)
        axes.set_xlabel(plot.x)
        axes.set_ylabel(plot.y)
        if any(series.name for series in plot.series):
            if any(series.style == "bars" for series in plot.series):
                axes.margins(y=0.3)  # room for the legend
            axes.legend()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _draw(axes: mpl.axes.Axes, series: Series, colour: str) -> None:
    label = series.name or None
    if series.style == "bars":
        axes.bar(series.x, series.y, yerr=series.error, color=colour, label=label, width=0.7)
    elif series.style == "points":
        axes.errorbar(series.x, series.y, yerr=series.error, fmt="o", markersize=3.5, color=colour, label=label)
    else:
        axes.plot(
            series.x, series.y, color=colour, label=label, linestyle=(0, (4, 2)) if series.style == "dashes" else "-"
        )
        if series.error is not None:
            axes.fill_between(
                series.x, series.y - series.error, series.y + series.error, color=colour, alpha=0.2, linewidth=0
            )
