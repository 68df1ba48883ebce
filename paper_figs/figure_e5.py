"""Figure E5: learning coefficients of small linear networks, measured by sampling, against Aoyagi's exact ones."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, figure_style
from validation.experiments.learning_coefficients import measured_coefficients

__all__ = ["caption", "data", "draw"]

_MULTIPLICITY = {1: ("o", "#0072B2"), 2: ("s", "#D55E00")}
_TEMPERATURES = ("0.75", "0.5")


def caption(results: Results) -> str:
    """Return the caption."""
    settings, shown = results.settings.coefficients, data(results)
    z = (shown["extrapolated"] - shown["exact"]) / shown["extrapolated_error"]
    relative = np.abs(shown["extrapolated"] / shown["exact"] - 1)
    found = "; ".join(
        f"{case}: {float(row['extrapolated']):.2f} +- {float(row['extrapolated_error']):.2f} against "
        f"{float(row['exact']):g} (m = {int(row['multiplicity'])})"
        for case, row in ((case, shown.sel(case=case)) for case in shown["case"].values)
    )
    raw = ", ".join(
        f"{float(np.abs(shown['estimate'].sel(n_beta=n) / shown['exact'] - 1).max()):.0%} at {n:g}"
        for n in shown["n_beta"].values
    )
    return (
        "Figure E5 (beyond the paper). Learning coefficient of two-layer linear networks at the most singular minimum "
        "for maps of several ranks: n_beta (E[L] - L(w*)) by MALA, without a bias of its own, and a localization of 1. "
        f"(a) Against Aoyagi's exact value: grey, at n_beta = {shown['n_beta'].values[0]:g} and "
        f"{shown['n_beta'].values[1]:g}, where it is up to {raw} off; colour, extrapolated to infinite n_beta with the "
        "correction that the multiplicity m asks for. (b) Relative difference of the extrapolated value, two standard "
        f"errors. {found}. Largest difference {float(relative.max()):.1%}, at most {float(np.abs(z).max()):.1f} "
        f"standard errors, which do not cover what the form of the extrapolation leaves out. {settings.chains} "
        "chains; largest R-hat "
        f"{float(shown['r_hat'].max()):.3f}. Seed {settings.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    settings = results.settings.coefficients

    def compute() -> xr.Dataset:
        with results.reporter.counted("measuring learning coefficients", len(settings.cases)) as advance:
            return measured_coefficients(settings, device=results.settings.device, progress=advance)

    return results.kept("learning coefficients", (settings, results.settings.device), compute)


def draw(results: Results) -> Figure:
    """Draw measured against exact, and their relative difference."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 3.1), layout="constrained")
        scatter, difference = figure.subplots(1, 2, width_ratios=(1, 1.1))
        _draw_scatter(scatter, shown)
        _draw_difference(difference, shown)
        for axes, letter in ((scatter, "a"), (difference, "b")):
            panel_label(axes, letter)
    return figure


def _draw_scatter(axes: Axes, shown: xr.Dataset) -> None:
    exact = shown["exact"]
    end = 1.1 * float(exact.max())
    axes.plot([0, end], [0, end], color="0.4", linewidth=0.7, zorder=0)
    for n_beta, shade in zip(shown["n_beta"].values, _TEMPERATURES, strict=True):
        axes.plot(
            exact, shown["estimate"].sel(n_beta=n_beta), "_", color=shade, markersize=9, label=f"at n_beta = {n_beta:g}"
        )
    for multiplicity, (marker, colour) in _MULTIPLICITY.items():
        chosen = shown.where(shown["multiplicity"] == multiplicity, drop=True)
        axes.errorbar(
            chosen["exact"],
            chosen["extrapolated"],
            2 * chosen["extrapolated_error"],
            fmt=marker,
            color=colour,
            markersize=4,
            capsize=1.5,
            elinewidth=0.8,
            label=f"extrapolated, m = {multiplicity}",
        )
    axes.set_xlim(0, end)
    reach = (shown["extrapolated"] + 2 * shown["extrapolated_error"]).max()
    axes.set_ylim(0, max(end, 1.05 * float(reach)))  # no point and no bar is cut off
    axes.set_xlabel("exact learning coefficient (Aoyagi)")
    axes.set_ylabel("measured")
    axes.set_title("measured against exact")
    axes.legend(loc="upper left")


def _draw_difference(axes: Axes, shown: xr.Dataset) -> None:
    places = np.arange(shown.sizes["case"])[::-1]
    relative = shown["extrapolated"] / shown["exact"] - 1
    for place, case in zip(places, shown["case"].values, strict=True):
        row = shown.sel(case=case)
        marker, colour = _MULTIPLICITY[int(row["multiplicity"])]
        error = 2 * float(row["extrapolated_error"] / row["exact"])
        axes.errorbar(
            float(relative.sel(case=case)),
            place,
            xerr=error,
            fmt=marker,
            color=colour,
            markersize=4,
            capsize=1.5,
            elinewidth=0.8,
        )
    axes.axvline(0, color="0.4", linewidth=0.7, zorder=0)
    axes.axvspan(-0.1, 0.1, color="0.955", linewidth=0, zorder=-2)
    axes.set_yticks(places, [str(case) for case in shown["case"].values])
    reach = (np.abs(relative) + 2 * shown["extrapolated_error"] / shown["exact"]).max()
    axes.set_xlim(*(sign * max(0.16, 1.05 * float(reach)) for sign in (-1, 1)))
    axes.set_ylim(-0.5, len(places) - 0.5)
    axes.set_xlabel("measured / exact - 1 (grey: 10 %)")
    axes.set_title("relative difference")
