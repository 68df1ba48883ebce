"""Figure 12: influence of every sample on every other one over training in closed form."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from paper_figs.every_source import describe_peaks, draw_every_source, peak_epochs
from paper_figs.results import Results, computed_once
from validation import agreement, without_self

__all__ = ["caption", "data", "draw"]


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    truth = without_self(shown["retrained_derivative"])
    right, printed = (agreement(truth, without_self(shown[name])) for name in ("sample_weight", "paper_p1"))
    whole = agreement(without_self(results.retrained), without_self(shown["sample_weight"]))
    return (
        "Figure 12 (after the paper's Figure 12). Closed-form influence of every sample on every other one: derivative "
        "of the query's loss with respect to the source's weight, with the initial strengths of the actual weights; "
        f"negative = the source helps the query. {describe_peaks(shown['sample_weight'])}. Against the derivative of "
        f"weighted retraining (central difference, in the data file): Pearson {right.pearson:.3f}, slope "
        f"{right.slope:.2f}; the paper's printed formula (reading P1, in the data file) {printed.pearson:.3f} and "
        f"{printed.slope:.2f}. Leave-one-out (Figure 8), against this one: Pearson {whole.pearson:.2f}, and slope "
        f"{whole.slope:.2f} of this one on it. Thin verticals: half-rise times of the "
        f"closed-form modes. Influence on the sample itself is left out. Seed {results.settings.toy.training.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows, and what the caption compares it with."""
    influence = results.toy.sample_weight
    return xr.Dataset(
        {
            "sample_weight": influence,
            "paper_p1": results.toy.closed_form("paper-P1"),
            "retrained_derivative": results.retrained_derivative,
            "peak_epoch": peak_epochs(influence),
            "half_rise_time": results.transitions,
        }
    )


def draw(results: Results) -> Figure:
    """Draw a panel a source."""
    shown = data(results)
    return draw_every_source(
        shown["sample_weight"],
        shown["half_rise_time"],
        title="closed-form influence",
        last_epoch=results.last_shown_epoch,
    )
