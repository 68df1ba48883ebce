"""Small plots for the report: described as data by the claims, drawn as SVG only when a report is written."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from validation.vector_images import compact

__all__ = ["COLOURS", "Plot", "Series", "colour_of", "curves", "to_svg"]

# Okabe and Ito's palette, which colour-blind readers can tell apart, darkest contrasts first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_AXIS = "#8a8f98"
_ROOM = 60  # letters that stand side by side below the axis
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
_STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "svg.fonttype": "none",
    "path.simplify": False,  # `compact` leaves out what lies on the line
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _AXIS,
    "xtick.color": _AXIS,
    "ytick.color": _AXIS,
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


def to_svg(plot: Plot) -> str:
    """Return the plot as an SVG element for an HTML page, whose style sheet gives its classes their colours.

    Text stays text, coordinates have one decimal (a tenth of a point), and nothing carries an id, so that many stand
    on one page. Title and key are the page's: see `key`.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 2.5), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        for position, series in enumerate(plot.series):
            _draw(axes, series, COLOURS[colour_of(series, position)], base=_base(plot))
        if "x" in plot.log:
            axes.set_xscale("log", nonpositive="mask")
        if "y" in plot.log:
            axes.set_yscale("log", nonpositive="mask")
        _tick(axes, plot)
        if plot.zero:
            axes.axhline(0, color=_AXIS, linewidth=0.7, zorder=0)
        for place, label in plot.marks:
            axes.axvline(place, color=_AXIS, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
            axes.annotate(
                label,
                (place, 1),
                (2, -1),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=7,
                va="top",
            )
        axes.set_xlabel(plot.x)
        axes.set_ylabel(plot.y)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return compact(buffer.getvalue(), COLOURS, f"{plot.title}: {plot.y} over {plot.x}")


def colour_of(series: Series, position: int) -> int:
    """Return the index into the palette of the series at a position."""
    return (position if series.colour is None else series.colour) % len(COLOURS)


def _tick(axes: mpl.axes.Axes, plot: Plot) -> None:
    """Set few ticks, and powers of ten as text that any font has."""
    named = any(np.asarray(series.x).dtype.kind in "US" for series in plot.series)
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if name in plot.log:
            axis.set_major_locator(LogLocator(numticks=6))
            axis.set_major_formatter(_power)
            axis.set_minor_locator(NullLocator())
        elif not (named and name == "x"):
            axis.set_major_locator(MaxNLocator(5))
    if named:
        labels = axes.get_xticklabels()
        if sum(len(label.get_text()) for label in labels) > _ROOM:
            axes.tick_params(axis="x", labelrotation=20)
            for label in labels:
                label.set_horizontalalignment("right")


def _power(value: float, _: float | None = None) -> str:
    """Return a power of ten with its exponent raised."""
    exponent = round(math.log10(value))
    return "1" if exponent == 0 else "10" + str(exponent).translate(_RAISED)


def _base(plot: Plot) -> float:
    """Return where bars stand: at zero or, where there is none on the axis, a power of ten below the smallest."""
    if "y" not in plot.log:
        return 0.0
    values = np.concatenate([np.asarray(series.y, dtype=float).ravel() for series in plot.series])
    positive = values[values > 0]
    return float(10.0 ** (np.floor(np.log10(positive.min())) - 1)) if positive.size else 1.0


def _draw(axes: mpl.axes.Axes, series: Series, colour: str, base: float) -> None:
    if series.style == "bars":
        heights = np.where(np.asarray(series.y) > base, series.y - base, 0.0) if base else series.y
        axes.bar(series.x, heights, bottom=base, yerr=series.error, color=colour, ecolor=_AXIS, width=0.7)
    elif series.style == "points":
        axes.errorbar(series.x, series.y, yerr=series.error, fmt="o", markersize=3.5, color=colour, elinewidth=1)
    else:
        axes.plot(series.x, series.y, color=colour, linestyle=(0, (4, 2)) if series.style == "dashes" else "-")
        if series.error is not None:
            axes.fill_between(
                series.x, series.y - series.error, series.y + series.error, color=colour, alpha=0.2, linewidth=0
            )
