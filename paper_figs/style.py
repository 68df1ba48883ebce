"""How every figure looks: colours by tree distance, sizes, and the mark of help and harm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes

__all__ = ["GROUP_COLOURS", "LEVEL_COLOURS", "figure_style", "mark_help_and_harm", "panel_label"]

# Okabe and Ito's palette, which colour-blind readers can tell apart.
GROUP_COLOURS = {"plants": "#009E73", "birds": "#0072B2", "cat": "#D55E00"}
LEVEL_COLOURS = ("#000000", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")


@contextmanager
def figure_style() -> Iterator[None]:
    """Apply the common settings of all figures while drawing."""
    with mpl.rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "lines.linewidth": 1.6,
            "figure.dpi": 150,
            "savefig.dpi": 200,
            "pdf.fonttype": 42,
        }
    ):
        yield


def panel_label(axes: Axes, letter: str) -> None:
    """Write the panel's letter at its upper left."""
    axes.annotate(
        f"({letter})", (0, 1), (-30, 10), xycoords="axes fraction", textcoords="offset points", fontweight="bold"
    )


def mark_help_and_harm(axes: Axes) -> None:
    """Draw the line of no influence and say on which side the source helps."""
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=0)
    low, high = axes.get_ylim()
    axes.axhspan(low, 0, color="0.95", zorder=-1)
    axes.set_ylim(low, high)
    for text, height, side in (("harms", 0.985, "top"), ("helps", 0.015, "bottom")):
        axes.text(0.985, height, text, transform=axes.transAxes, ha="right", va=side, color="0.4", style="italic")
