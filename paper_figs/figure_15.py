"""Figure 15: influence between repeated tokens while induction heads form, raw beside normalised."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, PAIR_COLOURS, figure_style
from validation.experiments.language import GROUPS_OF_PAIRS, formation_of

__all__ = ["caption", "data", "draw"]


def caption(results: Results) -> str:
    """Return the caption."""
    s, shown = results.settings.induction, data(results)
    steps, at = shown["epoch"].values, float(shown["formation"])
    covariance = shown["covariance"].sel(pair="repeated - repeated")
    peak = float(covariance["epoch"][int(np.argmax(covariance.values))])
    loss = float(shown["loss_repeated"].sel(step=peak)) / np.log(s.model.vocabulary)
    return (
        "Figure 15 (after the paper's Figure 15). A transformer of "
        f"{s.model.layers} layers of attention alone, trained from scratch on Markov chains and repeated random "
        f"segments; {s.sequences} sequences of which the second half repeats the first, sharing no token. (a) Mean "
        "correlation of the losses of two tokens of different sequences under the local posterior (normalised BIF; "
        "positive = the source helps the query): both repeated, both of the first half, one of each. (b) The same as "
        "covariance, in nats squared, which -n_beta / (N J) turns into influence. Bands are two standard errors, the "
        "larger of those from blocks of draws and from chains. (c) Loss of both kinds of tokens; the dashed line is "
        "half of log V, where a gate between guessing and copying is steepest and its covariance peaks. (d) Induction "
        f"score of every head. The best score passes half of its largest at step {at:g} (thin vertical); covariance "
        f"of repeated tokens peaks at step {peak:g}, where their loss is {loss:.2f} log V, and is "
        f"{float(covariance[-1]) / float(covariance.max()):.1%} of that at step {steps[-1]:g}. "
        f"{type(s.sampler).__name__}, step {s.sampler.step_size:g}, n_beta {s.sampler.n_beta:g}, localization "
        f"{s.sampler.localization:g}, {s.chains} chains of {s.draws} draws, batches of {s.batch_size} sequences that "
        f"are not those recorded. Seed {s.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    return formation_of(results.induction)


def draw(results: Results) -> Figure:
    """Draw correlation, covariance, losses and scores over the same steps."""
    shown = data(results)
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 4.6), layout="constrained")
        (correlation, covariance), (losses, scores) = figure.subplots(2, 2, sharex=True)
        for axes, name in ((correlation, "correlation"), (covariance, "covariance")):
            axes.axhline(0, color="0.4", linewidth=0.7, zorder=0)
            for pair in GROUPS_OF_PAIRS:
                _line(axes, shown[name].sel(pair=pair), shown[f"{name}_error"].sel(pair=pair), PAIR_COLOURS[pair], pair)
        correlation.set_title("mean correlation of losses")
        covariance.set_title("mean covariance of losses (nats$^2$)")
        for name, pair in (("repeated", "repeated - repeated"), ("fresh", "fresh - fresh")):
            losses.plot(shown["step"], shown[f"loss_{name}"], color=PAIR_COLOURS[pair], label=name)
        half = float(shown["half_log_v"])
        losses.axhline(half, color="0.4", linewidth=0.8, linestyle=(0, (4, 2)), label="half of log V")
        losses.set_title("loss of a token (nats)")
        for layer in shown["layer"].values:
            for head in shown["head"].values:
                scores.plot(
                    shown["step"],
                    shown["induction"].sel(layer=layer, head=head),
                    color=f"C{int(head)}",
                    linestyle=("-", "--", ":", "-.")[int(layer) % 4],
                    linewidth=1.1,
                    label=f"head {layer}.{head}",
                )
        scores.set_title("induction score")
        for letter, axes in zip("abcd", (correlation, covariance, losses, scores), strict=True):
            axes.axvline(float(shown["formation"]), color="0.72", linewidth=0.6, zorder=-1)
            panel_label(axes, letter)
        for axes in (losses, scores):
            axes.set_xlabel("step")
        scores.legend(loc="best")
        losses.legend(loc="best")
        handles, labels = correlation.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _line(axes: Axes, values: xr.DataArray, errors: xr.DataArray, colour: str, label: str) -> None:
    axes.plot(values["epoch"], values, color=colour, marker="o", markersize=2, label=label)
    axes.fill_between(values["epoch"], values - 2 * errors, values + 2 * errors, color=colour, alpha=0.18, linewidth=0)
