"""Figure 4: influence peaks while hidden representations branch."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.panels import draw_transitions, mark_help_and_harm, panel_label
from paper_figs.results import Results, computed_once
from paper_figs.style import COLUMN_WIDTH, GROUP_COLOURS, SAMPLE_COLOURS, SAMPLE_DASHES, figure_style, text_colour
from paper_figs.wording import describe_order, in_words
from validation import GROUPS, group_means, peaks
from validation.experiments.toy import BRANCHES

__all__ = ["caption", "data", "draw"]

_SOURCE = "dog"
# Where dog parts from each group of queries: the two branches, dog's own first.
_BRANCHES = dict(zip(GROUPS, BRANCHES.values(), strict=True))
_TITLES = {"plants": "animals | plants", "birds": "mammals | birds", "cat": "dog | cat"}
_TIMES = {
    "influence_peak": "strongest harm comes",
    "leave_one_out_peak": "that of leave-one-out",
    "onset": "branches begin",
    "half_way": "they are half way",
}
_ONSET = 0.1  # share of the final squared distance that counts as the beginning of a branch


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    explained = shown["plane"]["explained"].values
    orders = in_words(
        [
            f"{words} {describe_order({name: float(shown[variable].sel(group=name)) for name in _BRANCHES})}"
            for variable, words in _TIMES.items()
        ]
    )
    early = (shown["half_way"] - shown["influence_peak"]).values
    late = (shown["influence_peak"] - shown["onset"]).values
    return (
        "Figure 4 (after the paper's Figure 4). (a) Bayesian influence of dog, averaged over plants, birds and cat; "
        "negative = dog helps. Numbers: strongest harm. (b-d) The hidden representations of the two branches at which "
        "dog parts from these groups, along one axis each of the classical multidimensional scaling beside; diamonds: "
        "the branch begins, a tenth of the final squared distance between the branches; squares: half of it. (e) All "
        f"samples in two dimensions (axes common to all epochs, {explained[0]:.0%} and {explained[1]:.0%} of the "
        "spread) and (f) the animals alone, in the plane of their first axis and the one that parts dog from cat; "
        f"dots: where dog is at the epochs of the numbered peaks. {orders[0].upper()}{orders[1:]}. For these three the "
        f"peak of influence is {_signed(late)} epochs after the branch begins, and {_signed(early)} before it is half "
        "way. Thin verticals: half-rise times of the closed-form modes. Seed "
        f"{results.settings.toy.seed}."
    )


def _signed(epochs: np.ndarray) -> str:
    return ", ".join(f"{epoch:.0f}" for epoch in epochs)


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    toy = results.toy
    influence = group_means(results.bayesian["influence"], _SOURCE)
    retrained = group_means(results.retrained, _SOURCE)
    groups = xr.DataArray(list(_BRANCHES), dims="group", name="group")
    animal_plane = _along_dog_and_cat(toy.embedding(dims=4, leave_out=GROUPS["plants"]))
    means = xr.concat([influence[name] for name in _BRANCHES], groups)
    return xr.Dataset(
        {
            "influence": means,
            "influence_peak": peaks(means)["harm_epoch"],
            "leave_one_out_peak": peaks(xr.concat([retrained[name] for name in _BRANCHES], groups))["harm_epoch"],
            "onset": _branching(results, _ONSET),
            "half_way": _branching(results, 0.5),
            "plane": toy.embedding(),
            "animal_plane": animal_plane,
            "half_rise_time": results.transitions,
        }
    )


def _along_dog_and_cat(animals: xr.DataArray) -> xr.DataArray:
    """Return the first axis of the animals and, of the others, the one along which dog and cat end farthest apart."""
    apart = np.abs(animals.sel(sample="dog") - animals.sel(sample="cat"))[-1]
    chosen = animals.isel(axis=[0, 1 + int(np.argmax(apart.values[1:]))])
    return chosen.drop_vars("explained").rename(sample="animal", axis="animal_axis")


def _branching(results: Results, fraction: float) -> xr.DataArray:
    return results.toy.branching(fraction).rename(branch="group").assign_coords(group=list(_BRANCHES))


def draw(results: Results) -> Figure:
    """Draw influence and branches on one axis of epochs, and the branches in the plane."""
    shown = data(results)
    harm = {name: int(shown["influence_peak"].sel(group=name)) for name in _BRANCHES}
    with figure_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 5.6), layout="constrained")
        over_time, in_plane = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.15, 1))[0]
        left = list(over_time.subplots(4, 1, sharex=True, height_ratios=(2, 1, 1, 1)))
        upper, lower = in_plane.subplots(2, 1)
        left[0].set_xlim(0, results.last_shown_epoch)
        _draw_influence(left[0], shown, harm)
        animals = shown["animal_plane"].rename(animal="sample", animal_axis="axis")
        for axes, name, (plane, axis) in zip(
            left[1:], _BRANCHES, ((shown["plane"], 0), (animals, 0), (animals, 1)), strict=True
        ):
            _draw_line(axes, plane.sel(sample=[s for side in _BRANCHES[name] for s in side]).isel(axis=axis))
            _mark_branch(axes, shown.sel(group=name))
            axes.set_title(_TITLES[name], loc="left")
            axes.axvline(harm[name], color=GROUP_COLOURS[name], linewidth=0.8)
        for axes in left:
            draw_transitions(axes, shown["half_rise_time"])
        left[-1].set_xlabel("epoch")
        _draw_plane(upper, shown["plane"], harm, "all items")
        _draw_plane(lower, animals, harm, "animals")
        for letter, axes in zip("abcdef", (*left, upper, lower), strict=True):
            panel_label(axes, letter)
    return figure


def _draw_influence(axes: Axes, shown: xr.Dataset, harm: dict[str, int]) -> None:
    for number, (name, epoch) in enumerate(harm.items(), start=1):
        line = shown["influence"].sel(group=name)
        axes.plot(line["epoch"], line, color=GROUP_COLOURS[name], label=f"dog on {name}")
        axes.axvline(epoch, color=GROUP_COLOURS[name], linewidth=0.8, ymax=0.92)
        _number(axes, epoch, float(line.sel(epoch=epoch)), number, (0, 7))
    axes.margins(y=0.18)
    axes.autoscale_view(scalex=False)
    mark_help_and_harm(axes)
    axes.set_ylabel("Bayesian influence\n(negative = helps)")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.06))


def _draw_line(axes: Axes, line: xr.DataArray) -> None:
    for sample in line["sample"].values:
        values = line.sel(sample=sample)
        axes.plot(values["epoch"], values, color=SAMPLE_COLOURS[sample], linestyle=SAMPLE_DASHES[sample], linewidth=1.0)
    axes.set_ylabel(f"MDS axis {int(line['axis']) + 1}")


def _mark_branch(axes: Axes, shown: xr.Dataset) -> None:
    for part, marker in (("onset", "D"), ("half_way", "s")):
        axes.plot(float(shown[part]), 0, marker, color="black", markersize=4, markerfacecolor="white", zorder=5)


def _draw_plane(axes: Axes, plane: xr.DataArray, harm: dict[str, int], title: str) -> None:
    for sample in plane["sample"].values:
        path = plane.sel(sample=sample)
        colour = SAMPLE_COLOURS[sample]
        axes.plot(path[:, 0], path[:, 1], color=colour, linestyle=SAMPLE_DASHES[sample], linewidth=1.0)
        axes.plot(path[-1, 0], path[-1, 1], "o", color=colour, markersize=3)
    _label_ends(axes, plane.isel(epoch=-1))
    for number, epoch in enumerate(harm.values(), start=1):
        place = plane.sel(sample=_SOURCE, epoch=epoch)
        axes.plot(*place.values, "o", color="black", markersize=3.5, zorder=5)
        _number(axes, float(place[0]), float(place[1]), number, (-6, 7))
    axes.margins(x=0.35, y=0.1)
    axes.set_aspect("equal", adjustable="datalim")
    first, second = plane["axis"].values + 1
    axes.set_xlabel(f"MDS axis {first}")
    axes.set_ylabel(f"MDS axis {second}")
    axes.set_title(title)


def _label_ends(axes: Axes, ends: xr.DataArray) -> None:
    """Name the samples where they end, together those that end in the same place."""
    near = 0.1 * float(np.ptp(ends.values))
    named: list[str] = []
    for sample in ends["sample"].values:
        place = ends.sel(sample=sample)
        if sample in named:
            continue
        together = ends["sample"].values[np.all(np.abs(ends.values - place.values) < near, axis=1)]
        named += list(together)
        x, y = (float(value) for value in place)
        axes.annotate(
            ",\n".join(together),
            (x, y),
            (6, 0) if x > 0 else (5, 4 if y < -near else -4),
            textcoords="offset points",
            ha="left",
            va="center" if x > 0 else "bottom" if y < -near else "top",
            fontsize=7,
            color=text_colour(SAMPLE_COLOURS[str(together[0])]),
        )


def _number(axes: Axes, x: float, y: float, number: int, offset: tuple[float, float]) -> None:
    axes.annotate(
        str(number),
        (x, y),
        offset,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=6.5,
        zorder=6,
        bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "black", "linewidth": 0.6},
    )
