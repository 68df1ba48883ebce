"""Figure 14: the class of a token, predicted from the tokens of highest influence on it, along training."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from paper_figs.panels import panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, TOKEN_CLASS_COLOURS, figure_style

__all__ = ["caption", "data", "draw"]


def caption(results: Results) -> str:
    """Return the caption."""
    s, shown = results.settings.text, data(results)
    last = shown.isel(epoch=-1)
    listing = ", ".join(
        f"{name} {float(row['recall']):.2f} (rate {float(row['rate']):.2f}, permuted {float(row['permuted']):.2f} +- "
        f"{float(row['permuted_spread']):.2f})"
        for name, row in ((name, last.sel({"class": name})) for name in last["class"].values)
    )
    return (
        "Figure 14 (after the paper's Figure 14). Recall of every class, predicted by the printed rule from the "
        f"{s.neighbours} tokens of highest influence: (a) less the class rate, the paper's baseline; (b) less the "
        "recall with the classes permuted among the tokens, which is what draws without information give; bands are "
        f"two of their standard deviations. At step {last['epoch'].item():g}: {listing}. Same model, sequences "
        f"and draws as in Figure 5. Seed {s.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    return results.text.recall[["recall", "predicted", "permuted", "permuted_spread", "rate"]]


def draw(results: Results) -> Figure:
    """Draw recall less either baseline over the logarithm of the step."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 2.9), layout="constrained")
        by_rate, by_chance = figure.subplots(1, 2, sharex=True, sharey=True)
        for name in shown["class"].values:
            chosen, colour = shown.sel({"class": name}), TOKEN_CLASS_COLOURS[str(name)]
            by_rate.plot(chosen["epoch"], chosen["recall"] - chosen["rate"], color=colour, label=name)
            gain, band = chosen["recall"] - chosen["permuted"], 2 * chosen["permuted_spread"]
            by_chance.plot(chosen["epoch"], gain, color=colour)
            by_chance.fill_between(chosen["epoch"], gain - band, gain + band, color=colour, alpha=0.12, linewidth=0)
        titles = ("recall less class rate", "recall less recall with permuted classes")
        for letter, axes, title in zip("ab", (by_rate, by_chance), titles, strict=True):
            axes.axhline(0, color="0.4", linewidth=0.7, zorder=0)
            axes.set_xscale("symlog", linthresh=10)
            axes.set_title(title)
            axes.set_xlabel("step")
            panel_label(axes, letter)
        figure.legend(loc="outside lower center", ncols=3)
    return figure
