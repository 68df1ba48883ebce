"""Figure E4: the bias of Algorithm 1, closed form beside measured, and samplers without it."""

from __future__ import annotations

from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, figure_style
from validation.experiments.sampler_bias import RELATIVE_STEP, quadratic_bias, toy_bias

__all__ = ["caption", "data", "draw"]

_DECAY_COLOURS = ("#D55E00", "#CC79A7", "#0072B2")
_DOTS: dict[str, Any] = {"markersize": 3.5, "linewidth": 0.8, "capsize": 1.5, "elinewidth": 0.8}


def caption(results: Results) -> str:
    """Return the caption."""
    bias, sampler, shown = results.settings.bias, results.settings.toy.sampler, data(results)
    limit = shown["limit"].values
    ratio = (shown["algorithm_1"].sel(decay=bias.decays[0]) / shown["limit"]).values
    start, end = (
        f"{float(shown['toy_algorithm_1'][k]):.2f} against {float(shown['toy_frozen'][k]):.2f} at a = "
        f"{float(shown['stability'][k]):g}"
        for k in (0, -1)
    )
    step = float(shown["discretised"])
    mala, sgld = (f"{float(shown[k]):.3f} +- {float(shown[f'{k}_error']):.3f}" for k in ("mala", "sgld"))
    return (
        "Figure E4 (beyond the paper). Algorithm 1 leaves out the divergence of its preconditioner, so its "
        f"stationary law is another one. (a) L = |w|^2 / 2 at n_beta = {bias.n_beta:g}: variance of the weights over "
        "the "
        "posterior's, against the stability constant a. Line: closed form of the limit in which V follows the weights "
        f"at once, where the law is p / G, not p, from {limit[0]:.2f} to {limit[-1]:.2f}; dots: Algorithm 1 at decay "
        f"rates b, two standard errors; b = {bias.decays[0]:g}, which is that limit but for the finite step, has "
        f"{ratio.min():.2f} to {ratio.max():.2f} times its variance. Squares: preconditioner frozen after the burn-in, "
        f"{float(shown['frozen'].min()):.2f} to {float(shown['frozen'].max()):.2f}; triangle: MALA, {mala}. Dashes: "
        f"what a finite step of {RELATIVE_STEP:g} in units of the curvature makes of the variance, {step:.3f} (SGLD, "
        f"measured: {sgld}). (b) The trained toy network at n_beta = {sampler.n_beta:g}, localization = "
        f"{sampler.localization:g}: scale of the covariances of all pairs of losses relative to MALA's, Algorithm 1 (b "
        f"= {sampler.decay:g}) against frozen: {start}, {end}; the finite step alone gives up to {step**2:.2f}. Seed "
        f"{bias.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    bias, toy, device = results.settings.bias, results.settings.toy, results.settings.device
    results.reporter.announce("sampling a quadratic")
    quadratic = results.kept("quadratic bias", (bias, device), lambda: quadratic_bias(bias, device=device))
    results.reporter.announce("sampling the trained network with and without bias")
    sampled = results.kept(
        "toy bias",
        (bias, toy.training, toy.sampler, device),
        lambda: toy_bias(results.toy, bias, device=device),
    )
    quadratic = quadratic.sel(relative_step=RELATIVE_STEP)
    return quadratic.assign({f"toy_{name}": array for name, array in sampled.items()})


def draw(results: Results) -> Figure:
    """Draw both measurements against the stability constant."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 3.2), layout="constrained")
        quadratic, toy = figure.subplots(1, 2)
        _draw_quadratic(quadratic, shown)
        _draw_toy(toy, shown)
        for axes, letter in ((quadratic, "a"), (toy, "b")):
            axes.set_xscale("log")
            axes.set_xlabel("stability constant a")
            axes.axhline(1, color="0.4", linewidth=0.7, zorder=0)
            panel_label(axes, letter)
        figure.legend(*quadratic.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_quadratic(axes: Axes, shown: xr.Dataset) -> None:
    a = shown["stability"]
    axes.plot(shown["fine_stability"], shown["fine_limit"], color="black", label="limit p / G (closed form)")
    for decay, colour in zip(shown["decay"].values, _DECAY_COLOURS, strict=False):
        values, errors = (shown[name].sel(decay=decay) for name in ("algorithm_1", "algorithm_1_error"))
        axes.errorbar(a, values, 2 * errors, fmt="o:", color=colour, label=f"Algorithm 1, b = {decay:g}", **_DOTS)
    axes.errorbar(a, shown["frozen"], 2 * shown["frozen_error"], fmt="s:", color="#009E73", label="frozen", **_DOTS)
    axes.errorbar(
        [float(a[-1])],
        [float(shown["mala"])],
        2 * float(shown["mala_error"]),
        fmt="^",
        color="black",
        label="MALA",
        **_DOTS,
    )
    axes.axhline(float(shown["discretised"]), color="0.5", linewidth=0.8, linestyle=(0, (3, 2)), label="finite step")
    axes.set_ylabel("variance / posterior variance")
    axes.set_title(r"quadratic, $L = |w|^2/2$")


def _draw_toy(axes: Axes, shown: xr.Dataset) -> None:
    a = shown["stability"]
    for name, marker, colour, label, aside in (  # side by side, for they may be nearly the same
        ("toy_algorithm_1", "o:", "#CC79A7", "Algorithm 1", 0.96),
        ("toy_frozen", "s:", "#009E73", "frozen", 1.04),
    ):
        errors = 2 * shown[f"{name}_error"]
        axes.errorbar(a * aside, shown[name], errors, fmt=marker, color=colour, label=label, **_DOTS)
    axes.set_ylabel("covariance of losses / MALA's")
    axes.set_title("toy network, trained")
