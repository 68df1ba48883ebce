"""Figure L1: what the noise of single pairs hides, and what remains without a sampler: raw beside normalised."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, PAIR_COLOURS, figure_style
from validation.experiments.language import GROUPS_OF_PAIRS
from validation.experiments.token_pairs import limit_and_noise

__all__ = ["caption", "data", "draw"]

_PRINTED = 1e-6 * 1000 * 200 / 2  # relaxation times of a chain with the printed step, localization and draws (Table 2)


def caption(results: Results) -> str:
    """Return the caption."""
    s, shown = results.settings.induction, data(results)
    sampled, limit = (shown[name].sel(pair="repeated - repeated") for name in ("covariance", "covariance_limit"))
    peaks = [float(line[line.dims[0]][int(np.argmax(line.values))]) for line in (sampled, limit)]
    same = shown["correlation_limit"].sel(step=shown["epoch"].values).values
    agreement = float(np.corrcoef(same.ravel(), shown["correlation"].values.ravel())[0, 1])
    ratio = shown["noise"] / shown["unrelated"]
    level = float(shown["correlation"].sel(pair="repeated - repeated").max())
    times, noise = shown["relaxation_times"].values, shown["noise"].values
    short, long = noise[np.argmin(times)], noise[np.argmax(times)]
    return (
        "Figure L1 (beyond the paper). The model, sequences and pairs of Figure 15. (a) Mean covariance of the losses "
        "of two tokens (dots, with two standard errors) and its limit under strong localization, the product of both "
        "gradients over the localization (lines, at every checkpoint and without a sampler). Between repeated tokens "
        f"it peaks at step {peaks[0]:g}, in the limit at step {peaks[1]:g}. (b) Mean correlation, and the mean cosine "
        f"of both gradients. Over all sampled steps and kinds of pairs the two correlate with "
        f"{agreement:.2f} at localization {s.sampler.localization:g} and n_beta {s.sampler.n_beta:g}; what is left is "
        "curvature, which the limit does without. (c) Noise of a pair's correlation at the last checkpoint, from "
        f"{int(shown['noise'].attrs['chains'])} chains: measured (dots, {int(shown['noise'].attrs['tokens'])} tokens, "
        "one colour a step size), and that of two unrelated losses under the localization alone (lines, exact). "
        f"Measured over exact: {float(ratio.min()):.2f} to {float(ratio.max()):.2f}. It falls from {short:.2f} to "
        f"{long:.2f}, while no mean over a kind of pairs exceeds {level:.2f}; chains with the printed settings (thin "
        f"vertical) are {_PRINTED:g} relaxation times long. Seed {s.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    run = results.induction
    results.reporter.announce("comparing draws with gradients")
    return results.kept("limit and noise", (results.settings.induction, "L1"), lambda: limit_and_noise(run))


def draw(results: Results) -> Figure:
    """Draw covariance, correlation and noise."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 2.9), layout="constrained")
        covariance, correlation, noise = figure.subplots(1, 3)
        for axes, name in ((covariance, "covariance"), (correlation, "correlation")):
            axes.axhline(0, color="0.4", linewidth=0.7, zorder=0)
            for pair in GROUPS_OF_PAIRS:
                _line(axes, shown, name, pair)
            axes.set_xlabel("step")
        covariance.set_title("mean covariance (nats$^2$)")
        correlation.set_title("mean correlation")
        for step_size, colour in zip(np.unique(shown["step_size"]), ("#7A4FB5", "#1A1A1A"), strict=True):
            part = shown.isel(length=np.flatnonzero(shown["step_size"].values == step_size))
            noise.plot(part["relaxation_times"], part["unrelated"], color=colour, linewidth=1.0)
            noise.plot(
                part["relaxation_times"], part["noise"], "o", color=colour, markersize=3, label=f"step {step_size:g}"
            )
        noise.axvline(_PRINTED, color="0.72", linewidth=0.6, zorder=-1)
        noise.set_xscale("log")
        noise.set_ylim(0, None)
        noise.set_xlabel("relaxation times")
        noise.set_title("noise of a pair's correlation")
        noise.legend(loc="lower left")
        for letter, axes in zip("abc", (covariance, correlation, noise), strict=True):
            panel_label(axes, letter)
        handles, labels = correlation.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _line(axes: Axes, shown: xr.Dataset, name: str, pair: str) -> None:
    limit, sampled, error = (shown[f"{name}{end}"].sel(pair=pair) for end in ("_limit", "", "_error"))
    colour = PAIR_COLOURS[pair]
    axes.plot(limit["step"], limit, color=colour, linewidth=1.0, label=pair)
    axes.errorbar(
        sampled["epoch"], sampled, 2 * error, color=colour, fmt="o", markersize=2.5, linewidth=0.8, linestyle="none"
    )
