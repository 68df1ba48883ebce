"""How every figure looks: sizes for one text column, and a colour for each sample, its hue by branch of the tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex, to_rgb

__all__ = [
    "BRANCH_COLOURS",
    "COLUMN_WIDTH",
    "DIVERGING",
    "GROUND",
    "GROUP_COLOURS",
    "LEVEL_COLOURS",
    "PAIR_COLOURS",
    "SAMPLE_COLOURS",
    "SAMPLE_DASHES",
    "SMALLEST_FONT",
    "TOKEN_CLASS_COLOURS",
    "contrast",
    "figure_style",
    "text_colour",
]

COLUMN_WIDTH = 6.75  # inches: the text width of a page with one column, at which figures are read without scaling
SMALLEST_FONT = 6.5  # points

# Animals are warm (mammals brown and yellow, birds magenta), plants cool (trees green, flowers blue); siblings differ
# in lightness. The eight are at least 30 CIELAB units apart for normal, protan, deutan and tritan readers (tested).
SAMPLE_COLOURS = {
    "dog": "#402318",
    "cat": "#DEA600",
    "sparrow": "#7D0063",
    "penguin": "#F664B4",
    "pine": "#057924",
    "oak": "#52CC81",
    "rose": "#04269C",
    "lily": "#9284FF",
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
LEVEL_COLOURS = ("#1A1A1A", "#5B2A86", "#B8336A", "#E07B39")  # from the root down, the darkest first
DIVERGING = "PuOr_r"  # purple = helps (negative), orange = harms; safe for colour-blind readers

GROUND = "0.955"  # the shade of the side on which a source helps
_READABLE = 4.5  # contrast that WCAG 2.2 (1.4.3) asks of text


def contrast(colour: str, ground: str = "white") -> float:
    """Return the contrast ratio of two colours by WCAG 2.2, from 1 to 21.

    Examples
    --------
    >>> contrast("black"), round(contrast("#777777"), 2)
    (21.0, 4.48)
    """
    light, dark = sorted((_luminance(colour), _luminance(ground)), reverse=True)
    return float((light + 0.05) / (dark + 0.05))


def _luminance(colour: str) -> float:
    encoded = np.array(to_rgb(colour))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def text_colour(colour: str) -> str:
    """Return the colour, darkened until text in it can be read on white and on the shaded side alike.

    Examples
    --------
    >>> text_colour("#000000"), contrast(text_colour(SAMPLE_COLOURS["cat"])) > 4.5
    ('#000000', True)
    """
    for share in np.linspace(1, 0, 101):
        darker = to_hex(share * np.array(to_rgb(colour)))
        if contrast(darker, GROUND) >= _READABLE:
            return darker
    return "#000000"


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
