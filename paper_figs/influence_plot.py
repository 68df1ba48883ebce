"""One source's influence over training drawn from any labelled array: lines, error bands, peaks, flips, transitions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from paper_figs.panels import draw_transitions, mark_help_and_harm, mark_peak
from paper_figs.style import COLUMN_WIDTH, SAMPLE_COLOURS, SAMPLE_DASHES, figure_style
from validation import sign_flips

__all__ = ["plot"]

_NUMBERED = 4  # peaks of so many lines have room for their epochs
_MOST_LINES = 3 * len(SAMPLE_COLOURS)
_DASHES: tuple[tuple[int, tuple[float, ...]], ...] = ((0, ()), (0, (4, 1.2)), (0, (1, 1.2)))


def plot(
    influence: xr.DataArray | xr.Dataset,
    *,
    source: str | None = None,
    queries: Sequence[str] | None = None,
    error: xr.DataArray | None = None,
    transitions: xr.DataArray | Sequence[float] = (),
    peaks: bool = True,
    flips: bool = True,
    ground: bool = True,
    axes: Axes | None = None,
) -> Axes:
    """Draw the influence of one source on each query over training, with the side on which it helps shaded.

    Triangles mark the strongest help and harm of each line (with their epochs if there are few lines), small circles
    its changes of sign; ``stagewise.peaks`` and ``stagewise.sign_flips`` return the same as data.

    Parameters
    ----------
    influence
        dims (epoch, source, query), or (epoch, query) of one source; negative = helps. Or what ``bayesian_influence``
        returns, whose standard errors are taken along.
    source
        Whose influence; needed if there is more than one. Its influence on itself is not drawn unless asked for.
    queries
        On which samples, all others if not given.
    error
        Standard errors in the units of `influence`; a band of two is drawn, and flips within it are not marked.
    transitions
        Epochs of thin verticals, such as half-rise times of modes.
    peaks, flips, ground
        Whether to mark extrema, changes of sign, and the sides of help and harm.
    axes
        Where to draw; new ones (by pyplot) if not given.

    Returns
    -------
    matplotlib.axes.Axes
        To be labelled, limited or saved (``axes.figure.savefig``) further.

    Raises
    ------
    TypeError, ValueError
        If `influence` is no labelled array, the source or a query is not there, or there are too many lines to tell
        apart.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from theory.trajectories import trajectory
    >>> wave = trajectory(-np.sin(np.arange(8.0))[:, None, None], 100 * np.arange(8), ["dog"], ["cat"])
    >>> axes = plot(wave, source="dog", transitions=[250.0], axes=Figure().subplots())
    >>> axes.get_title(), axes.get_ylabel()
    ('influence of dog', 'influence (negative = helps)')
    """
    lines, error, source = _chosen(influence, source, queries, error)
    looks = _looks([str(query) for query in lines["query"].values])
    with figure_style():
        if axes is None:
            axes = _new_axes()
        for query, look in looks.items():
            line = lines.sel(query=query)
            axes.plot(line["epoch"], line, linewidth=1.2, label=query, **look)
            if error is not None:
                band = 2 * error.sel(query=query)
                axes.fill_between(line["epoch"], line - band, line + band, color=look["color"], alpha=0.15, linewidth=0)
            if peaks:
                for lowest in (True, False):
                    mark_peak(axes, line, look["color"], lowest=lowest, words=len(looks) <= _NUMBERED)
            if flips:
                epochs = sign_flips(line, None if error is None else error.sel(query=query))["epoch"].values
                axes.plot(
                    epochs,
                    np.zeros(len(epochs)),
                    "o",
                    color=look["color"],
                    markersize=3.5,
                    markerfacecolor="white",
                    zorder=5,
                )
        verticals = np.asarray(transitions, dtype=float)
        draw_transitions(axes, xr.DataArray(verticals, dims="mode"))
        if ground:
            axes.margins(y=0.16)
            axes.autoscale_view(scalex=False)
            mark_help_and_harm(axes)
            axes.legend(title="on query", fontsize=7, title_fontsize=7)
        if source is not None:
            axes.set_title(f"influence of {source}")
        axes.set_xlabel("epoch")
        axes.set_ylabel("influence (negative = helps)")
    return axes


def _new_axes() -> Axes:
    from matplotlib import pyplot as plt  # notebooks show what pyplot made; only then is a backend chosen

    return plt.figure(figsize=(COLUMN_WIDTH, 3.0), layout="constrained").subplots()


def _chosen(
    influence: object, source: str | None, queries: Sequence[str] | None, error: xr.DataArray | None
) -> tuple[xr.DataArray, xr.DataArray | None, str | None]:
    """Return lines and errors, dims (epoch, query), and the name of the source if there is one."""
    if isinstance(influence, xr.Dataset):
        if "influence" not in influence:
            raise ValueError(
                f"the data set holds {', '.join(map(str, influence))} and no 'influence'; give what bayesian_influence "
                "returns, or one array."
            )
        if error is None and {"standard_error", "covariance"} <= set(influence):
            # influence is the covariance times a constant, -n_beta / N, and its standard error likewise
            constant = float(abs(influence["influence"]).max() / abs(influence["covariance"]).max())
            error = constant * influence["standard_error"]
        influence = influence["influence"]
    if not isinstance(influence, xr.DataArray):
        raise TypeError(
            f"influence is a {type(influence).__name__}; give a labelled array with dims (epoch, source, query), as "
            "theory and numerics return."
        )
    others = set(influence.dims) - {"epoch", "query", "source"}
    if others or not {"epoch", "query"} <= set(influence.dims):
        raise ValueError(
            f"influence has dims {influence.dims}; a plot needs (epoch, source, query) or (epoch, query): select one "
            f"entry of {', '.join(map(str, sorted(map(str, others)))) or 'the others'} first."
        )
    if "source" in influence.dims:
        there = [str(name) for name in influence["source"].values]
        if source is None and len(there) > 1:
            raise ValueError(f"influence has the sources {_some(there)}; choose one by source=.")
        source = there[0] if source is None else source
        if source not in there:
            raise ValueError(f"there is no source {source!r}; there are {_some(there)}.")
        influence = influence.sel(source=source)
        error = error.sel(source=source) if error is not None and "source" in error.dims else error
    elif source is None and "source" in influence.coords:
        source = str(influence["source"].item())
    there = [str(name) for name in influence["query"].values]
    wanted = [name for name in there if name != source] if queries is None else list(queries)
    missing = [name for name in wanted if name not in there]
    if missing:
        raise ValueError(f"there is no query {missing[0]!r}; there are {_some(there)}.")
    if not 0 < len(wanted) <= _MOST_LINES:
        raise ValueError(f"{len(wanted)} lines cannot be drawn and told apart; choose 1 to {_MOST_LINES} by queries=.")
    return influence.sel(query=wanted), None if error is None else error.sel(query=wanted), source


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour and dashes of every query: the toy's own, or the same colours in turn."""
    if all(name in SAMPLE_COLOURS for name in names):
        return {name: {"color": SAMPLE_COLOURS[name], "linestyle": SAMPLE_DASHES[name]} for name in names}
    colours = list(islice(cycle(SAMPLE_COLOURS.values()), len(names)))
    return {name: {"color": colours[k], "linestyle": _DASHES[k // len(SAMPLE_COLOURS)]} for k, name in enumerate(names)}
