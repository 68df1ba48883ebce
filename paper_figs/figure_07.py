"""Figure 7: Bayesian influence of every sample on every other one over training."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from paper_figs.every_source import describe_peaks, draw_every_source, peak_epochs
from paper_figs.results import Results, computed_once

__all__ = ["caption", "data", "draw"]


def caption(results: Results) -> str:
    """Return the caption."""
    s, shown = results.settings.toy, data(results)
    error = float(shown["standard_error"].where(shown["source"] != shown["query"]).max())
    return (
        "Figure 7 (after the paper's Figure 7). Bayesian influence -(n_beta / N) Cov(l_i, l_j) of every sample i on "
        "every other sample j, estimated at every checkpoint by Algorithm 1 "
        f"({s.chains} chains of {s.draws} draws, n_beta = {s.sampler.n_beta:g}, localization = "
        f"{s.sampler.localization:g}, step size = {s.sampler.step_size:g}, stability = {s.sampler.stability:g}); "
        "negative = the source helps the query. Siblings stand side by side; hues are branches of the tree. "
        f"{describe_peaks(shown['influence'])}. Thin verticals: half-rise times of the closed-form modes. Influence on "
        f"the sample itself is left out. Largest standard error: {error:.2g}. Seed {s.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    toy = results.settings.toy
    influence = results.bayesian["influence"]
    return xr.Dataset(
        {
            "influence": influence,
            "standard_error": results.bayesian["standard_error"] * (toy.sampler.n_beta / len(results.toy.dataset)),
            "peak_epoch": peak_epochs(influence),
            "half_rise_time": results.transitions,
        }
    )


def draw(results: Results) -> Figure:
    """Draw a panel a source."""
    shown = data(results)
    return draw_every_source(
        shown["influence"],
        shown["half_rise_time"],
        title="Bayesian influence",
        last_epoch=results.last_shown_epoch,
    )
