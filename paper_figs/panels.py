"""Pieces that figures share: panel letters, the mark of help and harm, transition times, trajectories of queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper_figs.style import GROUND, SAMPLE_COLOURS, SAMPLE_DASHES, text_colour
from validation import peaks

__all__ = [
    "draw_queries",
    "draw_transitions",
    "mark_help_and_harm",
    "mark_peak",
    "panel_label",
    "sample_legend",
]


def panel_label(axes: Axes, letter: str) -> None:
    """Write the panel's letter at its upper left."""
    axes.annotate(
        f"({letter})",
        (0, 1),
        (-20, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontweight="bold",
        ha="right",
    )


def mark_help_and_harm(axes: Axes, *, words: bool = True) -> None:
    """Draw the line of no influence, shade the side on which the source helps, and name both sides."""
    axes.axhline(0, color="0.4", linewidth=0.7, zorder=0)
    low, high = axes.get_ylim()
    axes.axhspan(low, 0, color=GROUND, linewidth=0, zorder=-2)
    axes.set_ylim(low, high)
    if words:
        for text, height, side in (("harms", 0.985, "top"), ("helps", 0.015, "bottom")):
            axes.text(
                0.985, height, text, transform=axes.transAxes, ha="right", va=side, color="0.4", style="italic", size=7
            )


def draw_transitions(axes: Axes, transitions: xr.DataArray, names: Sequence[str] = ()) -> None:
    """Draw a thin vertical where the closed form has each mode at half its strength, and name each level on top.

    Parameters
    ----------
    transitions
        Epochs, dims (mode,), with the coordinate ``level``.
    names
        Names of the levels, written above the panel; none if empty.
    """
    for epoch in transitions.values:
        axes.axvline(epoch, color="0.72", linewidth=0.5, zorder=-1)
    for level, name in enumerate(names):
        epoch = float(transitions.where(transitions["level"] == level, drop=True).mean())
        axes.annotate(
            name,
            (epoch, 1),
            (0, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color="0.45",
            fontsize=6.5,
        )


def draw_queries(axes: Axes, influence: xr.DataArray, *, leave_out: str = "", **style: Any) -> None:
    """Draw one line a query, dims (epoch, query), in the sample's own colour and dashes."""
    for query in influence["query"].values:
        if query != leave_out:
            line = influence.sel(query=query)
            look: dict[str, Any] = {"color": SAMPLE_COLOURS[query], "linestyle": SAMPLE_DASHES[query]}
            axes.plot(line["epoch"], line, **(look | {"linewidth": 1.0} | style))


def sample_legend(figure: Figure, names: Sequence[str], *, title: str, source: str = "") -> None:
    """Add a legend of samples on top, one column a pair of siblings, so that a column is one branch of the tree.

    The `source`, whose own loss is not drawn, is named without a line.
    """
    handles = [
        Line2D(
            [],
            [],
            color=SAMPLE_COLOURS[name],
            linestyle="none" if name == source else SAMPLE_DASHES[name],
            linewidth=1.4,
            label=f"({name})" if name == source else name,
        )
        for name in names
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(names) // 2, title=title, title_fontsize=7)


def mark_peak(axes: Axes, line: xr.DataArray, colour: str, *, lowest: bool = False, words: bool = True) -> None:
    """Mark the strongest harm (or help) of `line`, dims (epoch,), where it is drawn, by a triangle with its epoch.

    Nothing is marked if the line is never on that side.
    """
    side = "help" if lowest else "harm"
    found = peaks(line)
    epoch, height = float(found[f"{side}_epoch"]), float(found[side])
    if not found[f"{side}_epoch"].notnull():
        return
    marker, offset, above = ("^", -5, "top") if lowest else ("v", 5, "bottom")
    axes.plot(epoch, height, marker, color=colour, markersize=5, zorder=5, markeredgecolor="white", markeredgewidth=0.6)
    if words:
        axes.annotate(
            f"{epoch:.0f}",
            (epoch, height),
            (0, offset),
            textcoords="offset points",
            ha="center",
            va=above,
            fontsize=7,
            color=text_colour(colour),
            zorder=6,
        )
