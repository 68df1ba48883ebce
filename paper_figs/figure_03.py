"""Figure 3: influence of dog on every other sample over training, by sampling, by closed form and by retraining."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from paper_figs.panels import draw_transitions, mark_help_and_harm, mark_peak, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, GROUP_COLOURS, SAMPLE_COLOURS, figure_style
from paper_figs.wording import describe_order, describe_runs, in_words
from validation import GROUPS, clear_signs, epoch_runs, group_means, peaks, sign_agreement

__all__ = ["caption", "data", "draw"]

_SOURCE = "dog"
_MEASURES = {"bayesian": "a", "sample_weight": "b", "leave_one_out": "c"}
_DRAWN = ["bayesian", "bayesian_standard_error", "sample_weight", "paper_p1", "leave_one_out", "closed_leave_one_out"]


def caption(results: Results) -> str:
    """Return the caption."""
    s, shown = results.settings.toy, data(results)
    orders = in_words(
        [
            describe_order({name: float(shown[f"{measure}_peak"].sel(group=name)) for name in GROUPS}, unit="epochs")
            + f" in ({letter})"
            for measure, letter in _MEASURES.items()
        ]
    )
    first = shown["first_sign"]
    return (
        "Figure 3 (after the paper's Figure 3). Influence of dog on every other sample while the network trains; "
        f"negative = dog helps. {_describe_signs(shown)} Strongest harm comes {orders}. The first clear sign is help "
        "in "
        f"{int((first < 0).sum())} of {first.size} trajectories. Thin lines: single queries; thick lines: means over "
        "queries at one distance in the "
        "tree; triangles: strongest harm, with its epoch; thin verticals: half-rise times of the closed-form modes. "
        "(a) Bayesian influence, -(n_beta / N) Cov(l_i, l_j), by Algorithm 1 with "
        f"{s.chains} chains of {s.draws} draws at each of {len(results.toy.epochs)} checkpoints, n_beta = "
        f"{s.sampler.n_beta:g}, localization = {s.sampler.localization:g}, step size = {s.sampler.step_size:g}; bands "
        "are two standard errors. Steps from 4 / localization on are unstable; the paper's is 5 / localization. (b) "
        "Closed form: the derivative of weighted training (thick), and the paper's printed formula in its reading P1 "
        "(dots). (c) Leave-one-out, loss with dog minus loss without: retraining (lines) and closed form from the same "
        "initial weights (dashes). The three are different quantities, so scales differ: (a) is instantaneous, (b) "
        "the response to a small weight over all of training, (c) to the whole weight. "
        f"Seed {s.seed}."
    )


def _describe_signs(shown: xr.Dataset) -> str:
    """Say for every group and two measures at which share of the clear checkpoints signs agree, the fewest first."""
    found = []
    for group in GROUPS:
        for pair in range(shown.sizes["pair"]):
            one = shown.sel(group=group).isel(pair=pair)
            clear = int(one["clear"])
            if not clear:
                continue
            letters = " and ".join(f"({_MEASURES[str(one[side].item())]})" for side in ("first", "second"))
            words = f"on {group}, {letters} {float(one['share']):.0%} of {clear}"
            if bool(one["opposite"].any()):
                words += f" (opposite at {describe_runs(epoch_runs(one['opposite']))})"
            found.append((float(one["share"]), words))
    listed = "; ".join(words for _, words in sorted(found, key=lambda entry: entry[0]))
    return (
        "Share of checkpoints with the same sign, of those where both signs are clear (above 2 % of the trajectory's "
        f"largest value and two standard errors), lowest first: {listed}."
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
    groups = xr.DataArray(list(GROUPS), dims="group", name="group")
    means = {name: xr.concat(group_means(arrays[name], _SOURCE).values(), groups) for name in _MEASURES}
    errors = {"bayesian": xr.concat(group_means(arrays["bayesian_standard_error"], _SOURCE).values(), groups)}
    signs = {name: clear_signs(mean, errors.get(name)) for name, mean in means.items()}
    first = [sign.isel(epoch=(sign != 0).argmax("epoch")).drop_vars("epoch") for sign in signs.values()]
    return xr.Dataset(
        {name: array.sel(source=_SOURCE) for name, array in arrays.items()}
        | {f"{name}_peak": peaks(mean)["harm_epoch"] for name, mean in means.items()}
        | dict(sign_agreement(means, errors))
        | {
            "first_sign": xr.concat(first, xr.DataArray(list(_MEASURES), dims="measure", name="measure")),
            "half_rise_time": results.transitions,
        }
    )


def draw(results: Results) -> Figure:
    """Draw the three measures side by side, on the same epochs, negative = helps."""
    shown = data(results)
    measures = shown[_DRAWN].expand_dims(source=[_SOURCE], axis=1)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 3.1), layout="constrained")
        bayesian, analytic, retrained = figure.subplots(1, 3, sharex=True)
        bayesian.set_xlim(0, results.last_shown_epoch)
        bayesian.xaxis.set_major_locator(MultipleLocator(2000))
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
