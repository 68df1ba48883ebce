"""Figure 3: influence of dog on every other sample over training, by sampling, by closed form and by retraining."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.style import GROUP_COLOURS, figure_style, mark_help_and_harm, panel_label
from validation import GROUPS, ToyExperiment, group_means

__all__ = ["caption", "data", "draw"]

_SOURCE = "dog"


def caption(results: ToyExperiment) -> str:
    """Return the caption."""
    s = results.settings
    return (
        "Figure 3 (after the paper's Figure 3). Influence of dog on every other sample while the network trains; "
        "negative = dog helps. Thin lines: single queries; thick lines: means over queries at one distance in the "
        "tree; triangles: strongest harm, with its epoch. (a) Bayesian influence, -(n_beta / N) Cov(l_i, l_j), by "
        f"Algorithm 1 with {s.chains} chains of {s.draws} draws at each of {len(results.epochs)} checkpoints, n_beta = "
        f"{s.sampler.n_beta:g}, localization = {s.sampler.localization:g}, step size = {s.sampler.step_size:g}; bands "
        "are two standard errors. The paper's step size 1e-3 is outside the stable range, 4 / localization. (b) "
        "Closed form: the derivative of weighted training (thick), and the paper's printed formula in its reading P1 "
        "(dots). (c) Leave-one-out, loss with dog minus loss without: retraining (lines) and closed form from the same "
        "initial weights (dashes). The three are different quantities, so scales differ: (a) is instantaneous, (b) "
        "the response to a small weight over all of training, (c) to the whole weight. Signs and stages agree. Seed "
        f"{s.seed}."
    )


def data(results: ToyExperiment) -> xr.Dataset:
    """Return what the figure shows."""
    scale = results.settings.sampler.n_beta / len(results.dataset)
    arrays = {
        "bayesian": results.bayesian["influence"],
        "bayesian_standard_error": results.bayesian["standard_error"] * scale,
        "sample_weight": results.sample_weight,
        "paper_p1": results.closed_form("paper-P1"),
        "leave_one_out": results.retrained,
        "closed_leave_one_out": results.closed_leave_one_out,
    }
    return xr.Dataset({name: array.sel(source=_SOURCE) for name, array in arrays.items()})


def draw(results: ToyExperiment) -> Figure:
    """Draw the three measures side by side, with the same sign and the same epochs."""
    shown = data(results).expand_dims(source=[_SOURCE], axis=1)
    with figure_style():
        figure = Figure(figsize=(12, 4.0), layout="constrained")
        bayesian, analytic, retrained = figure.subplots(1, 3, sharex=True)
        _draw_measure(bayesian, shown["bayesian"])
        errors = group_means(shown["bayesian_standard_error"])
        for name, mean in group_means(shown["bayesian"]).items():
            band = 2 * errors[name]
            bayesian.fill_between(
                mean["epoch"], mean - band, mean + band, color=GROUP_COLOURS[name], alpha=0.15, linewidth=0
            )
        _draw_measure(analytic, shown["sample_weight"])
        _overlay(analytic, shown["paper_p1"], linestyle=(0, (1, 1.5)), label="as printed (P1)")
        _draw_measure(retrained, shown["leave_one_out"])
        _overlay(retrained, shown["closed_leave_one_out"], linestyle=(0, (3, 2)), label="closed form")
        panels = (
            (bayesian, "Bayesian influence (sampling)", "influence"),
            (analytic, "Closed form (sample-weight derivative)", "influence"),
            (retrained, "Leave-one-out (retraining)", "loss difference"),
        )
        for letter, (axes, title, label) in zip("abc", panels, strict=True):
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.margins(y=0.12)
            axes.autoscale_view()
            mark_help_and_harm(axes)
            panel_label(axes, letter)
        bayesian.set_xlim(0, min(8000, float(shown["epoch"].max())))
        for name, queries in GROUPS.items():
            bayesian.plot([], [], color=GROUP_COLOURS[name], label=f"on {name}" if len(queries) == 1 else _of(name))
        bayesian.legend(loc="lower right", bbox_to_anchor=(1, 0.05))
        analytic.legend(loc="lower right", bbox_to_anchor=(1, 0.05))
        retrained.legend(loc="lower right", bbox_to_anchor=(1, 0.05))
    return figure


def _of(name: str) -> str:
    return f"on {name} ({', '.join(GROUPS[name])})"


def _draw_measure(axes: Axes, influence: xr.DataArray) -> None:
    for name, mean in group_means(influence, _SOURCE).items():
        colour = GROUP_COLOURS[name]
        for query in GROUPS[name]:
            line = influence.sel(source=_SOURCE, query=query)
            axes.plot(line["epoch"], line, color=colour, linewidth=0.6, alpha=0.5)
        axes.plot(mean["epoch"], mean, color=colour, linewidth=2, zorder=4)
        peak = int(mean.idxmax("epoch"))
        height = float(mean.max())
        axes.plot(peak, height, "v", color=colour, markersize=6, zorder=5, markeredgecolor="white")
        axes.annotate(
            str(peak), (peak, height), (0, 6), textcoords="offset points", ha="center", fontsize=8, color=colour
        )


def _overlay(axes: Axes, influence: xr.DataArray, *, linestyle: tuple[int, tuple[float, float]], label: str) -> None:
    for mean in group_means(influence, _SOURCE).values():
        axes.plot(mean["epoch"], mean, color="black", linewidth=1.1, linestyle=linestyle, zorder=5)
    axes.plot([], [], color="black", linewidth=1.1, linestyle=linestyle, label=label)
