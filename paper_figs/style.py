"""How every figure looks: sizes for one text column, and a colour for each sample, its hue by branch of the tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl

__all__ = [
    "BRANCH_COLOURS",
    "COLUMN_WIDTH",
    "DIVERGING",
    "GROUP_COLOURS",
    "LEVEL_COLOURS",
    "PAIR_COLOURS",
    "SAMPLE_COLOURS",
    "SAMPLE_DASHES",
    "SMALLEST_FONT",
    "TOKEN_CLASS_COLOURS",
    "figure_style",
]

COLUMN_WIDTH = 6.75  # inches: the text width of a page with one column, at which figures are read without scaling
SMALLEST_FONT = 6.5  # points

# Animals are warm (mammals orange, birds magenta), plants cool (trees green, flowers blue); siblings differ in
# lightness. The eight are at least 20 CIELAB units apart for normal, protan, deutan and tritan readers (tested).
SAMPLE_COLOURS = {
    "dog": "#8A2D06",
    "cat": "#FEA02F",
    "sparrow": "#66086E",
    "penguin": "#E8559F",
    "pine": "#0A4D30",
    "oak": "#57C785",
    "rose": "#1237B8",
    "lily": "#8E9BFA",
}
BRANCH_COLOURS = {
    "living thing": "#262626",
    "animal": "#B5532F",
    "plant": "#064C57",
    "mammal": "#C9661A",
    "bird": "#C04B9C",
    "tree": "#2F8F5B",
    "flower": "#4A66DA",
}
SAMPLE_DASHES: dict[str, tuple[int, tuple[float, ...]]] = {
    name: (0, ()) if k % 2 == 0 else (0, (4, 1.2)) for k, name in enumerate(SAMPLE_COLOURS)
}
GROUP_COLOURS = {"plants": BRANCH_COLOURS["plant"], "birds": BRANCH_COLOURS["bird"], "cat": SAMPLE_COLOURS["cat"]}
LEVEL_COLOURS = ("#000000", "#4D4D4D", "#7A7A7A", "#A6A6A6")
# Pairs of tokens (Figure 15, after the paper's blue, red and green) and classes of tokens: Okabe and Ito's palette.
PAIR_COLOURS = {"repeated - repeated": "#0072B2", "fresh - fresh": "#D55E00", "fresh - repeated": "#009E73"}
TOKEN_CLASS_COLOURS = {
    "word part": "#0072B2",
    "word end": "#56B4E9",
    "formatting": "#7A7A7A",
    "induction pattern": "#CC79A7",
    "left delimiter": "#D55E00",
    "right delimiter": "#E69F00",
}
DIVERGING = "PuOr_r"  # purple = helps (negative), orange = harms; safe for colour-blind readers


@contextmanager
def figure_style() -> Iterator[None]:
    """Apply the common settings of all figures while drawing."""
    with mpl.rc_context(
        {
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.titleweight": "bold",
            "axes.labelsize": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.7,
            "axes.grid": False,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "xtick.major.width": 0.7,
            "ytick.major.width": 0.7,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "legend.frameon": False,
            "legend.fontsize": 7,
            "legend.handlelength": 1.8,
            "lines.linewidth": 1.3,
            "figure.dpi": 150,
            "savefig.dpi": 220,
            "pdf.fonttype": 42,
        }
    ):
        yield
