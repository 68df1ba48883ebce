"""Figure 8: leave-one-out loss difference of every sample on every other one over training."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from paper_figs.every_source import describe_peaks, draw_every_source, peak_epochs
from paper_figs.results import Results, computed_once
from validation import agreement

__all__ = ["caption", "data", "draw"]


def caption(results: Results) -> str:
    """Return the caption."""
    training, shown = results.settings.toy.training, data(results)
    found = agreement(shown["retrained"], shown["closed_form"])
    return (
        "Figure 8 (after the paper's Figure 8). Leave-one-out loss difference, loss of j with sample i minus loss "
        "without it, by retraining from the same initial weights; negative = the source helps the query. "
        f"{describe_peaks(shown['retrained'])}. The closed form from the actual initial weights (in the data "
        f"file) has with it, for the worst pair, Pearson {found.worst_pearson:.6f} and slope off by "
        f"{found.worst_slope_error:.2%}. Thin verticals: half-rise times of the closed-form modes. "
        f"Influence on the sample itself is left out. {training.epochs} epochs of full-batch "
        f"descent at learning rate {training.lr:g}. Seed {training.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    return xr.Dataset(
        {
            "retrained": results.retrained,
            "closed_form": results.closed_leave_one_out,
            "peak_epoch": peak_epochs(results.retrained),
            "half_rise_time": results.transitions,
        }
    )


def draw(results: Results) -> Figure:
    """Draw a panel a source."""
    shown = data(results)
    return draw_every_source(
        shown["retrained"],
        shown["half_rise_time"],
        title="loss with source - loss without",
        last_epoch=results.last_shown_epoch,
    )
