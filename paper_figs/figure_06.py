"""Figure 6: correlation of Bayesian influence with leave-one-out over the sampler's hyper-parameters."""

from __future__ import annotations

from string import ascii_lowercase

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from paper_figs.panels import panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, figure_style
from paper_figs.wording import panels_in_words
from validation import agreement, without_self

__all__ = ["caption", "data", "draw"]

_MAP, _SCALE = "viridis", Normalize(0, 0.8)
_REFUSED = "0.8"


def caption(results: Results) -> str:
    """Return the caption."""
    shown, sampler = data(results), results.settings.toy.sampler
    longest, kernel = _longest(shown), float(shown["kernel_correlation"])
    best, anywhere = (values.where(values == values.max(), drop=True) for values in (longest, shown["correlation"]))
    by_localization = longest.max(["step_size", "n_beta"])
    trend = ", ".join(f"{float(v):.2f} at {float(v['localization']):g}" for v in by_localization)
    *maps_of, lines, last = tuple(_letters(shown))
    maps = panels_in_words("".join(maps_of))
    stable = longest.notnull()
    steps = stable["step_size"]
    drawn = stable.any("step_size")
    longest_stable = steps.where(stable).max("step_size")
    best_step = longest.fillna(-np.inf).idxmax("step_size")
    edge, columns = int(((best_step == longest_stable) & drawn).sum()), int(drawn.sum())
    side = shown["side_correlation"].max("side_step_size")
    by_decay = float((side.max("decay") - side.min("decay")).max())
    by_stability = float((side.max("stability") - side.min("stability")).max())
    return (
        "Figure 6 (after the paper's Figure 6). Pearson correlation of the Bayesian influence by Algorithm 1 with "
        f"leave-one-out, over all pairs of different samples and all checkpoints. {maps} Every step size and "
        f"localization at several n_beta, {int(shown['chains'][-1])} chains of {int(shown['draws'][-1])} draws (the "
        f"data file has fewer as well), decay b = {sampler.decay:g}, stability a = {sampler.stability:g}; grey: the "
        f"step is outside the stable range, or a chain diverged ({int(longest.isnull().sum())} of {longest.size} "
        f"settings). ({lines}) Against the number of draws, at the best setting. ({last}) Best over step sizes for "
        f"every b and a, "
        f"at n_beta = {sampler.n_beta:g} and localization = {sampler.localization:g}. Best with the longest chains: "
        f"{_setting(best)}; best of all: {_setting(anywhere)}, with {int(anywhere['chains'][0])} chains of "
        f"{int(anywhere['draws'][0])} draws. The exact gradient kernel, to which strong localization tends, has "
        f"{kernel:.3f} (line in {lines}). Best by localization: {trend}. For {edge} of {columns} choices of n_beta "
        "and localization with a stable step the longest such step is the best one. "
        f"From the worst to the best decay rate the correlation changes by at most {by_decay:.2f}, over the stability "
        f"constants by {by_stability:.2f}. The paper's setting has step size x localization = 5; from 4 on it is "
        f"refused. Seed {results.settings.sweep.seed}."
    )


def _letters(shown: xr.Dataset) -> str:
    """Return the letters of the panels: a map for every n_beta, then two more."""
    return ascii_lowercase[: shown.sizes["n_beta"] + 2]


def _setting(best: xr.DataArray) -> str:
    step, n_beta, localization = (float(best[name][0]) for name in ("step_size", "n_beta", "localization"))
    return f"{float(best.max()):.3f} at step size {step:g}, n_beta {n_beta:g}, localization {localization:g}"


def _longest(shown: xr.Dataset) -> xr.DataArray:
    """Return the correlation with the most chains and draws."""
    return shown["correlation"].isel(chains=-1, draws=-1)


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    kernel = agreement(without_self(results.retrained), without_self(-results.toy.kernel))
    return results.sweeps.assign(kernel_correlation=kernel.pearson)


def draw(results: Results) -> Figure:
    """Draw a map for every n_beta, the dependence on the number of draws, and the side grid."""
    shown = data(results)
    longest = _longest(shown)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 6.9), layout="constrained")
        rows = -(-shown.sizes["n_beta"] // 2)
        grid = figure.subplots(rows + 1, 2)
        maps = list(grid[:rows].flat)[: shown.sizes["n_beta"]]
        for axes, n_beta in zip(maps, shown["n_beta"].values, strict=True):
            _draw_map(axes, longest.sel(n_beta=n_beta), "step_size", "localization")
            axes.set_title(f"n_beta = {n_beta:g}")
            axes.set_ylabel("localization")
            axes.set_xlabel("step size")
        lines, side = grid[rows]
        _draw_lengths(lines, shown)
        _draw_map(side, shown["side_correlation"].max("side_step_size"), "stability", "decay")
        side.set_xlabel("stability constant a")
        side.set_ylabel("decay rate b")
        side.set_title("best over step sizes")
        figure.colorbar(ScalarMappable(_SCALE, _MAP), ax=maps, label="correlation with leave-one-out", aspect=40)
        for axes, letter in zip((*maps, lines, side), _letters(shown), strict=True):
            panel_label(axes, letter)
    return figure


def _draw_map(axes: Axes, correlation: xr.DataArray, across: str, up: str) -> None:
    table = correlation.transpose(up, across)
    axes.set_facecolor(_REFUSED)
    axes.imshow(table, cmap=_MAP, norm=_SCALE, origin="lower", aspect="auto")
    for i, j in np.ndindex(*table.shape):
        value = float(table[i, j])
        if np.isfinite(value):
            shade = "white" if value < 0.5 else "black"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=shade)
    axes.set_xticks(range(table.shape[1]), [_power(v) for v in table[across].values])
    axes.set_yticks(range(table.shape[0]), [_power(v) for v in table[up].values])
    axes.tick_params(length=0)


def _power(value: float) -> str:
    exponent = round(np.log10(value))
    return f"$10^{{{exponent}}}$" if np.isclose(value, 10.0**exponent) else f"{value:g}"


def _draw_lengths(axes: Axes, shown: xr.Dataset) -> None:
    longest = _longest(shown)
    best = longest.where(longest == longest.max(), drop=True)
    at_best = shown["correlation"].sel({name: best[name].values[0] for name in ("step_size", "n_beta", "localization")})
    for chains, shade in zip(at_best["chains"].values, ("0.7", "0.4", "0.0"), strict=False):
        line = at_best.sel(chains=chains)
        axes.plot(
            line["draws"], line, "o-", color=shade, markersize=3, label=f"{chains} chain{'s' if chains > 1 else ''}"
        )
    axes.axhline(
        float(shown["kernel_correlation"]),
        color="#D55E00",
        linewidth=0.9,
        linestyle=(0, (3, 2)),
        label="gradient kernel",
    )
    axes.set_xlabel("draws a chain")
    axes.set_ylabel("correlation with leave-one-out")
    axes.set_title("length of the chains, best setting")
    axes.margins(y=0.25)
    axes.legend(loc="upper right")
