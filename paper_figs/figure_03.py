"""Figure 3: influence of dog on every other sample over training, by sampling, by closed form and by retraining."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import draw_transitions, mark_help_and_harm, mark_peak, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, GROUP_COLOURS, SAMPLE_COLOURS, figure_style
from validation import GROUPS, group_means

__all__ = ["caption", "data", "draw"]

_SOURCE = "dog"


def caption(results: Results) -> str:
    """Return the caption."""
    s = results.settings.toy
    peaks = {
        name: ", ".join(str(int(mean.idxmax("epoch"))) for mean in group_means(measure, _SOURCE).values())
        for name, measure in (("bif", results.bayesian["influence"]), ("loo", results.retrained))
    }
    return (
        "Figure 3 (after the paper's Figure 3). Influence of dog on every other sample while the network trains; "
        "negative = dog helps. Thin lines: single queries; thick lines: means over queries at one distance in the "
        "tree; triangles: strongest harm, with its epoch; thin verticals: half-rise times of the closed-form modes. "
        "(a) Bayesian influence, -(n_beta / N) Cov(l_i, l_j), by Algorithm 1 with "
        f"{s.chains} chains of {s.draws} draws at each of {len(results.toy.epochs)} checkpoints, n_beta = "
        f"{s.sampler.n_beta:g}, localization = {s.sampler.localization:g}, step size = {s.sampler.step_size:g}; bands "
        "are two standard errors. The paper's step size 1e-3 is outside the stable range, 4 / localization. (b) "
        "Closed form: the derivative of weighted training (thick), and the paper's printed formula in its reading P1 "
        "(dots). (c) Leave-one-out, loss with dog minus loss without: retraining (lines) and closed form from the same "
        "initial weights (dashes). The three are different quantities, so scales differ: (a) is instantaneous, (b) "
        "the response to a small weight over all of training, (c) to the whole weight. Signs and stages agree: every "
        "group is helped first and harmed when it parts from dog, in the order plants, birds, cat (epochs "
        f"{peaks['bif']} in (a), {peaks['loo']} in (c)). Seed {s.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    scale = results.settings.toy.sampler.n_beta / len(results.toy.dataset)
    arrays = {
        "bayesian": results.bayesian["influence"],
        "bayesian_standard_error": results.bayesian["standard_error"] * scale,
        "sample_weight": results.toy.sample_weight,
        "paper_p1": results.toy.closed_form("paper-P1"),
        "leave_one_out": results.retrained,
        "closed_leave_one_out": results.closed_leave_one_out,
    }
    return xr.Dataset(
        {name: array.sel(source=_SOURCE) for name, array in arrays.items()} | {"half_rise_time": results.transitions}
    )


def draw(results: Results) -> Figure:
    """Draw the three measures side by side, with the same sign and the same epochs."""
    shown = data(results)
    measures = shown.drop_vars("half_rise_time").expand_dims(source=[_SOURCE], axis=1)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 3.1), layout="constrained")
        bayesian, analytic, retrained = figure.subplots(1, 3, sharex=True)
        bayesian.set_xlim(0, results.last_shown_epoch)
        _draw_measure(bayesian, measures["bayesian"])
        errors = group_means(measures["bayesian_standard_error"])
        for name, mean in group_means(measures["bayesian"]).items():
            band = 2 * errors[name]
            bayesian.fill_between(
                mean["epoch"], mean - band, mean + band, color=GROUP_COLOURS[name], alpha=0.15, linewidth=0
            )
        _draw_measure(analytic, measures["sample_weight"])
        _overlay(analytic, measures["paper_p1"], linestyle=(0, (1, 1.5)), label="as printed (P1)")
        _draw_measure(retrained, measures["leave_one_out"])
        _overlay(retrained, measures["closed_leave_one_out"], linestyle=(0, (3, 2)), label="closed form")
        panels = (
            (bayesian, "Bayesian influence\n(sampling)", "influence (negative = helps)"),
            (analytic, "Sample-weight derivative\n(closed form)", "influence"),
            (retrained, "Leave-one-out\n(retraining)", "loss with dog - loss without"),
        )
        for letter, (axes, title, label) in zip("abc", panels, strict=True):
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.margins(y=0.12)
            axes.autoscale_view(scalex=False)
            mark_help_and_harm(axes)
            draw_transitions(axes, shown["half_rise_time"])
            panel_label(axes, letter)
        handles = [
            bayesian.plot([], [], color=GROUP_COLOURS[name], linewidth=2, label=f"on {name}")[0] for name in GROUPS
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(GROUPS))
        for axes in (analytic, retrained):
            axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.06), handlelength=1.5)
    return figure


def _draw_measure(axes: Axes, influence: xr.DataArray) -> None:
    for name, mean in group_means(influence, _SOURCE).items():
        for query in GROUPS[name]:
            line = influence.sel(source=_SOURCE, query=query)
            axes.plot(line["epoch"], line, color=SAMPLE_COLOURS[query], linewidth=0.5, alpha=0.6)
        axes.plot(mean["epoch"], mean, color=GROUP_COLOURS[name], linewidth=1.8, zorder=4)
        mark_peak(axes, mean, GROUP_COLOURS[name])


def _overlay(axes: Axes, influence: xr.DataArray, *, linestyle: tuple[int, tuple[float, float]], label: str) -> None:
    for mean in group_means(influence, _SOURCE).values():
        axes.plot(mean["epoch"], mean, color="black", linewidth=0.9, linestyle=linestyle, zorder=5)
    axes.plot([], [], color="black", linewidth=0.9, linestyle=linestyle, label=label)
