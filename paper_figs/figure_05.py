"""Figure 5: influence between classes of tokens along training, a panel a query class."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, TOKEN_CLASS_COLOURS, figure_style

__all__ = ["caption", "data", "draw"]


def caption(results: Results) -> str:
    """Return the caption."""
    s, shown = results.settings.text, data(results)
    last = shown["correlation"].isel(epoch=-1)
    own = np.array([float(last.sel(source=name, query=name)) for name in last["source"].values])
    table = last.values
    across = table[~np.eye(len(table), dtype=bool)]
    z = float((np.abs(shown["correlation"]) / shown["error"]).max())
    return (
        "Figure 5 (after the paper's Figure 5). Mean correlation of the losses of two tokens under the local posterior "
        "(normalised BIF; positive = the source helps the query), by their classes, pairs of equal tokens left out. A "
        "panel a query class, a line a source class, thick where it is the same; bands are two standard errors. At "
        f"step {last['epoch'].item():g} "
        f"the mean within a class is {own.mean():.4f}, between classes {across.mean():.4f}; the largest value is "
        f"{z:.1f} standard errors from 0. {_model(results)} {s.sequences} sequences of {s.model.context} predictions "
        f"recorded, {s.chains} chains of {s.draws} draws, step {s.sampler.step_size:g}, n_beta {s.sampler.n_beta:g}, "
        f"localization {s.sampler.localization:g}. Classes by our reading of D.1.1. Seed {s.seed}."
    )


def _model(results: Results) -> str:
    s = results.settings.text
    if s.checkpoints:
        return f"Revisions in {s.checkpoints}."
    where = f"the text in {s.corpus}" if s.corpus else "the documentation and source text that Python carries"
    return (
        f"A transformer of {s.model.layers} layer{'' if s.model.layers == 1 else 's'}, width {s.model.width} "
        f"and {s.model.vocabulary} tokens, trained here on {where}: not a Pythia model."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    found = results.text.influence
    error = xr.apply_ufunc(np.fmax, found["correlation_error"], found["correlation_chain_error"])
    return xr.Dataset({"correlation": found["correlation"], "error": error, "pairs": found["pairs"]}).assign_attrs(
        corpus=results.text.sequences.corpus
    )


def draw(results: Results) -> Figure:
    """Draw a panel a query class over the logarithm of the step."""
    shown = data(results)
    names = [str(name) for name in shown["query"].values]
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 1.9 * -(-len(names) // 3) + 0.5), layout="constrained")
        panels = figure.subplots(-(-len(names) // 3), 3, sharex=True, squeeze=False).ravel()
        for axes, query in zip(panels, names, strict=False):
            axes.axhline(0, color="0.4", linewidth=0.7, zorder=0)
            for source in names:
                line = shown["correlation"].sel(source=source, query=query)
                band = 2 * shown["error"].sel(source=source, query=query)
                colour = TOKEN_CLASS_COLOURS[source]
                axes.plot(line["epoch"], line, color=colour, linewidth=1.8 if source == query else 1.0, label=source)
                axes.fill_between(line["epoch"], line - band, line + band, color=colour, alpha=0.12, linewidth=0)
            axes.set_xscale("symlog", linthresh=10)
            axes.set_title(f"on {query}")
        for axes in panels[len(names) :]:
            axes.axis("off")
        for axes in panels[max(0, len(names) - 3) : len(names)]:
            axes.set_xlabel("step")
        figure.supylabel("mean correlation of losses (positive = helps)", fontsize="medium")
        handles, labels = panels[0].get_legend_handles_labels()
        for handle in figure.legend(handles, labels, loc="outside lower center", ncols=3).get_lines():
            handle.set_linewidth(1.4)  # thick is a class on itself, wherever it stands
    return figure
