"""Figure A: two phases compete, exchange in a transition of Type A, and influence peaks and flips sign on the way."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import mark_help_and_harm, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, figure_style, text_colour
from validation.experiments.two_wells import two_wells_transition

__all__ = ["caption", "data", "draw"]

_PHASES = {"U": "#7A7A7A", "V": "#000000"}
_EXPANSION = "#D55E00"
_PARTS = {
    "within": ("within phases", "#0072B2", (0, (4, 1.5))),
    "between": ("between phases", "#D55E00", (0, (1, 1.2))),
    "total": ("total", "black", (0, ())),
}
_PAIRS = {("1", "2"): "V fits both better", ("1", "6"): "V fits 6 worse", ("1", "4"): "V fits 4 as U does"}


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    loss, coefficient = shown["loss"].values, shown["learning_coefficient"].values
    closed, exact = float(shown["transition"]), float(shown["exact_transition"])
    position = shown["extremal_weight"].where((shown["extremal_weight"] > 0) & (shown["extremal_weight"] < 1))
    extremes = []
    for source, query in _PAIRS:
        between = shown["between"].sel(source=source, query=query)
        total = shown["total"].sel(source=source, query=query)
        flips = int(np.sum(np.diff(np.sign(total.values)) != 0))
        n = float(between["n"][int(np.argmax(np.abs(between.values)))])
        extremes.append(
            f"{source} on {query}: between-phase part up to {float(between.sel(n=n)):.3f} (at n = {n:.0f}), {flips} "
            f"change{'' if flips == 1 else 's'} of sign"
        )
    return (
        "Figure A (Appendix A of the paper). Exact posterior, by quadrature, of a model with six samples, one weight "
        f"and two ways to fit: U, a degenerate minimum of higher loss (L = {loss[0]:.4f}, lambda = "
        f"{coefficient[0]:g}), and V, a regular one of lower loss (L = {loss[1]:.4f}, lambda = {coefficient[1]:g}). "
        "(a) Local free energies less n L_V: exact (lines) and n L + lambda log n + C (dashes). (b) Posterior weights "
        f"of the phases: a transition of Type A at n = {exact:.0f}; the closed form by Lambert's W (thin vertical) "
        f"gives {closed:.0f}. (c-e) Bayesian influence -(n / 6) Cov(l_i, l_j) of three pairs of samples, exact, split "
        f"by the law of total covariance; negative = helps. Through the transition: {'; '.join(extremes)}. "
        "As a function of the weight of U alone the total is extremal at "
        f"{float(position.min()):.2f} to {float(position.max()):.2f} (the paper: 1/2), and nowhere for "
        f"{int(position.isnull().sum())} of {position.size} pairs. No sampling, so no seed."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    count = results.settings.posteriors
    return results.kept("two wells", count, lambda: two_wells_transition(count))


def draw(results: Results) -> Figure:
    """Draw free energies, weights, and the influence of three pairs."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 4.4), layout="constrained")
        panels = figure.subplot_mosaic("aaabbb;ccddee")
        for axes in panels.values():
            axes.set_xscale("log")
            axes.set_xlim(float(shown["n"][0]), float(shown["n"][-1]))
            axes.axvline(float(shown["transition"]), color="0.72", linewidth=0.5, zorder=-1)
            axes.set_xlabel("observations n")
        _draw_free_energies(panels["a"], shown)
        _draw_weights(panels["b"], shown)
        height = 1.25 * float(np.abs(shown["between"].sel(source="1", query=["2", "6", "4"])).max())
        for letter, ((source, query), words) in zip("cde", _PAIRS.items(), strict=True):
            axes = panels[letter]
            for part, (label, colour, dashes) in _PARTS.items():
                line = shown[part].sel(source=source, query=query)
                axes.plot(line["n"], line, color=colour, linestyle=dashes, label=label)
            axes.set_ylim(-height, height)
            axes.set_title(f"{source} on {query}: {words}")
            mark_help_and_harm(axes)
        panels["c"].set_ylabel("influence (negative = helps)")
        panels["c"].legend(loc="upper left")
        for letter, axes in panels.items():
            panel_label(axes, letter)
    return figure


def _draw_free_energies(axes: Axes, shown: xr.Dataset) -> None:
    reference = shown["n"] * shown["loss"].sel(phase="V")
    for phase, colour in _PHASES.items():
        exact, expansion = (shown[name].sel(phase=phase) - reference for name in ("free_energy", "expansion"))
        loss, coefficient = (float(shown[name].sel(phase=phase)) for name in ("loss", "learning_coefficient"))
        label = f"{phase}: L = {loss:.3f}, $\\lambda$ = {coefficient:g}"
        axes.plot(exact["n"], exact, color=colour, label=label)
        # In a colour of its own and on top: where the expansion is good it would not be seen under the exact line.
        axes.plot(expansion["n"], expansion, color=_EXPANSION, linewidth=1.1, linestyle=(0, (3, 3)), zorder=3)
    axes.plot([], [], color=_EXPANSION, linewidth=1.1, linestyle=(0, (3, 3)), label="expansion for large n")
    axes.set_ylim(-2, 12)
    axes.set_ylabel("free energy $-\\;n L_V$")
    axes.set_title("Loss against complexity")
    axes.legend(loc="upper left")


def _draw_weights(axes: Axes, shown: xr.Dataset) -> None:
    for phase, colour in _PHASES.items():
        axes.plot(shown["n"], shown["weight"].sel(phase=phase), color=colour)
        axes.plot(
            shown["n"], shown["expanded_weight"].sel(phase=phase), color=colour, linewidth=0.9, linestyle=(0, (3, 2))
        )
        axes.annotate(
            phase,
            (float(shown["n"][0]), float(shown["weight"].sel(phase=phase)[0])),
            (4, 3 if phase == "U" else 4),
            textcoords="offset points",
            color=text_colour(colour),
            fontweight="bold",
        )
    axes.set_ylabel("posterior weight")
    axes.set_ylim(0, 1.1)
    axes.set_title("The posterior changes phase")
