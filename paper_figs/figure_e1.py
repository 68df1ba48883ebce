"""Figure E1: the erratum, printed against exact response of the learned map to a sample's weight, over training."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import draw_transitions, mark_help_and_harm, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, SAMPLE_COLOURS, figure_style, text_colour
from paper_figs.wording import in_words
from validation.experiments.map_response import map_response

__all__ = ["caption", "data", "draw"]

_SOURCE, _QUERIES = "dog", ["pine", "sparrow", "cat"]
_PRINTED = {"paper-P1": ("printed, P1", (0, (4, 1.5))), "paper-P2": ("printed, P2", (0, (1, 1.2)))}
_EXACT = "spectral"


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    late = shown["relative_deviation"].sel(epoch=slice(1000, None))
    worst = ", ".join(f"{float(late.sel(formula=f).max()):.2f} ({f.removeprefix('paper-')})" for f in _PRINTED)
    start = ", ".join(f"{float(shown['relative_deviation'].sel(formula=f)[0]):.2f}" for f in _PRINTED)
    truth = shown["retrained_derivative"]
    by_map = zip(shown["map_formula"].values, shown["map_influence"], strict=True)
    distance = {
        name: abs(line - truth).max("epoch") / abs(truth).max("epoch")
        for name, line in (*by_map, ("own", shown["influence"]))
    }
    off = {name: ", ".join(f"{float(value):.1%}" for value in values) for name, values in distance.items()}
    nearer = [
        f"{formula.removeprefix('paper-')} on {query}"
        for query in _QUERIES
        for formula in _PRINTED
        if float(distance[formula].sel(query=query)) < float(distance[_EXACT].sel(query=query))
    ]
    against = (
        f"In this run printed readings come nearer to retraining than the exact derivative of the same map: "
        f"{in_words(nearer)}; both leave out the change of X^T X."
        if nearer
        else "In this run no printed reading comes nearer to retraining than the exact derivative of the same map."
    )
    return (
        f"Figure E1 (beyond the paper). {against} The printed rotations A_jk = Q_jk / (s_k - s_j) and B_jk with a "
        "single "
        "Q term (Eqs. 50-51, readings P1 and P2) hold for symmetric Q only; here Q = S alpha alpha^T is not symmetric. "
        "(a) Deviation of the printed dW = U (A G + G' dS + G B) V^T for the weight of dog from the exact derivative "
        f"of U g(S) V^T, in the Frobenius norm, relative to the latter: {start} at the start, up to {worst} from epoch "
        "1000 on. (b-d) The influence of dog on three queries that follows, negative = dog helps: exact derivative of "
        "the same map (grey), printed readings (dashes and dots), and, beyond both, the sample-weight formula "
        "(colour), which also has the change of X^T X that the paper leaves out, over the derivative measured by "
        "weighted retraining (circles). Largest difference from retraining, relative to its largest value: "
        f"on {_QUERIES[0]}, {_QUERIES[1]}, {_QUERIES[2]}: sample-weight {off['own']}; exact derivative of the map "
        f"{off[_EXACT]}; P1 {off['paper-P1']}; P2 {off['paper-P2']}. Thin verticals: half-rise times of the "
        "closed-form modes. "
        f"Seed {results.settings.toy.training.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    exact = map_response(results.toy, _EXACT, source=_SOURCE)
    deviations = [
        _size(map_response(results.toy, formula, source=_SOURCE) - exact) / _size(exact) for formula in _PRINTED
    ]
    chosen = {"source": _SOURCE, "query": _QUERIES}
    by_formula = [results.toy.closed_form(formula).sel(chosen) for formula in (_EXACT, *_PRINTED)]
    formulas = xr.DataArray(list(_PRINTED), dims="formula", name="formula")
    return xr.Dataset(
        {
            "relative_deviation": xr.concat(deviations, formulas),
            "map_influence": xr.concat(
                by_formula, xr.DataArray([_EXACT, *_PRINTED], dims="map_formula", name="map_formula")
            ),
            "influence": results.toy.sample_weight.sel(chosen),
            "retrained_derivative": results.retrained_derivative.sel(chosen),
            "half_rise_time": results.transitions,
        }
    )


def _size(response: xr.DataArray) -> xr.DataArray:
    return xr.DataArray(np.linalg.norm(response.values, axis=(1, 2)), {"epoch": response["epoch"]}, name="size")


def draw(results: Results) -> Figure:
    """Draw the deviation over training, and what it makes of the influence on three queries."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 5.0), layout="constrained")
        grid = figure.subplots(2, 2, sharex=True)
        grid[0, 0].set_xlim(0, results.last_shown_epoch)
        _draw_deviation(grid[0, 0], shown["relative_deviation"])
        for axes, query in zip(grid.flat[1:], _QUERIES, strict=True):
            _draw_influence(axes, shown.sel(query=query), query)
        handles, labels = grid[1, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), columnspacing=1.2)
        for axes, letter in zip(grid.flat, "abcd", strict=True):
            draw_transitions(axes, shown["half_rise_time"])
            panel_label(axes, letter)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
    return figure


def _draw_deviation(axes: Axes, deviation: xr.DataArray) -> None:
    for formula, (label, dashes) in _PRINTED.items():
        axes.plot(deviation["epoch"], deviation.sel(formula=formula), color="black", linestyle=dashes, label=label)
    axes.set_ylim(0, 1.1)
    axes.set_ylabel("relative deviation of dW")
    axes.set_title("Response of the map to dog's weight")
    axes.legend(loc="upper right")


def _draw_influence(axes: Axes, shown: xr.Dataset, query: str) -> None:
    lines, dots = shown["map_influence"], shown["retrained_derivative"]
    axes.plot(
        lines["epoch"],
        lines.sel(map_formula=_EXACT),
        color="0.6",
        linewidth=2.2,
        label="exact, same map",
    )
    for formula, (label, dashes) in _PRINTED.items():
        axes.plot(
            lines["epoch"], lines.sel(map_formula=formula), color="black", linewidth=0.9, linestyle=dashes, label=label
        )
    axes.plot(
        lines["epoch"], shown["influence"], color=SAMPLE_COLOURS[query], linewidth=1.1, label="sample-weight formula"
    )
    axes.plot(
        dots["epoch"][::2],
        dots[::2],
        "o",
        color=SAMPLE_COLOURS[query],
        markersize=2.6,
        markerfacecolor="white",
        markeredgewidth=0.7,
        label="retraining",
    )
    axes.margins(y=0.12)
    axes.autoscale_view(scalex=False)
    mark_help_and_harm(axes)
    axes.set_title(f"dog on {query}", color=text_colour(SAMPLE_COLOURS[query]))
    axes.set_ylabel("influence (negative = helps)")
