"""Figure 13: what each class of tokens is, token by token."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, TOKEN_CLASS_COLOURS, figure_style
from validation.experiments.token_examples import classified_examples

__all__ = ["caption", "data", "draw"]

_SHOWN = {"\n": "\u21b5", "\t": "\u2192", " ": "\u00b7"}


def caption(results: Results) -> str:
    """Return the caption."""
    counts = data(results)["member"].sum(("example", "place"))
    listing = ", ".join(f"{name} {int(count)}" for name, count in zip(counts["class"].values, counts, strict=True))
    return (
        "Figure 13 (after the paper's Figure 13). Classes of tokens by our reading of the paper's D.1.1, on its own "
        "examples (wavelength, differences, headings, A B ... A B) and some of ours. A box is a token; a bar below it, "
        "in the colour of the class, says that it belongs to the class; a token may belong to several or none. "
        f"Members here: {listing}. A dot stands for a space, an arrow for a line break. Nothing here depends on a seed."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    return classified_examples()


def draw(results: Results) -> Figure:
    """Draw a row of boxes an example."""
    shown = data(results)
    names = [str(name) for name in shown["class"].values]
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        for row, example in enumerate(shown["example"].values):
            chosen, left = shown.sel(example=example), 0.0
            axes.text(0, -row + 0.27, str(example), size=6.5, color="0.4")
            for place in range(chosen.sizes["place"]):
                token = str(chosen["token"].values[place])
                if not token:
                    break
                words = "".join(_SHOWN.get(character, character) for character in token)
                width = 0.6 + 0.42 * len(words)
                member = chosen["member"].values[place]
                inside = [name for name, here in zip(names, member, strict=True) if here]
                axes.add_patch(_box(left, -row - 0.2, width, 0.42, bold=bool(inside)))
                axes.text(left + width / 2, -row, words, ha="center", va="center", size=7, family="monospace")
                for k, name in enumerate(inside):
                    axes.plot(
                        [left + 0.1, left + width - 0.1],
                        [-row - 0.24 - 0.05 * k] * 2,
                        color=TOKEN_CLASS_COLOURS[name],
                        linewidth=2,
                        solid_capstyle="butt",
                    )
                left += width + 0.2
        for name in names:
            axes.plot([], [], color=TOKEN_CLASS_COLOURS[name], linewidth=2.5, label=name)
        axes.set_ylim(-shown.sizes["example"] + 0.5, 0.5)
        axes.autoscale_view(scaley=False)
        axes.axis("off")
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _box(left: float, bottom: float, width: float, height: float, *, bold: bool) -> Rectangle:
    return Rectangle(
        (left, bottom), width, height, fill=False, edgecolor="0.2" if bold else "0.75", linewidth=1.1 if bold else 0.6
    )
