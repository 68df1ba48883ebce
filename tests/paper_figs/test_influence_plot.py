"""Plots from arrays: what is drawn is what the array holds, what is marked is what the data functions return."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

import stagewise
from paper_figs import influence_plot
from paper_figs.style import SAMPLE_COLOURS
from theory.trajectories import trajectory

EPOCHS = np.arange(0, 2001, 100)


def wave(names=("dog", "cat", "oak"), sources=None):
    sources = names if sources is None else sources
    phase = np.arange(len(sources) * len(names)).reshape(len(sources), len(names)) / 5
    return trajectory(-np.sin(EPOCHS[:, None, None] / 300 + phase), EPOCHS, sources, names)


@pytest.fixture
def axes():
    return Figure().subplots()


def marked(axes, marker):
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_marker() == marker and len(line.get_xdata())
    ]


def test_every_other_query_is_a_line_in_its_own_colour(axes, has_line):
    influence = wave()
    assert stagewise.plot(influence, source="dog", axes=axes) is axes
    for query in ("cat", "oak"):
        line = influence.sel(source="dog", query=query)
        assert has_line(axes, EPOCHS, line)
    assert not has_line(axes, EPOCHS, influence.sel(source="dog", query="dog"))
    assert {SAMPLE_COLOURS["cat"], SAMPLE_COLOURS["oak"]} <= {line.get_color() for line in axes.lines}
    assert {"helps", "harms"} <= {text.get_text() for text in axes.texts}


def test_marks_are_the_peaks_and_flips_that_are_data(axes):
    influence = wave()
    stagewise.plot(influence, source="dog", axes=axes)
    shown = influence.sel(source="dog", query=["cat", "oak"])
    found, flips = stagewise.peaks(shown), stagewise.sign_flips(shown)
    assert sorted(marked(axes, "v")) == sorted(zip(found["harm_epoch"].values, found["harm"].values, strict=True))
    assert sorted(marked(axes, "^")) == sorted(zip(found["help_epoch"].values, found["help"].values, strict=True))
    circles = [x for line in axes.lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert sorted(circles) == sorted(flips["epoch"].values[np.isfinite(flips["epoch"].values)])
    written = {text.get_text() for text in axes.texts}
    assert {f"{epoch:.0f}" for epoch in found["harm_epoch"].values} <= written


def test_errors_are_bands_of_two(axes):
    influence = wave()
    stagewise.plot(influence, source="dog", queries=["cat"], error=xr.full_like(influence, 0.25), axes=axes)
    (band,) = axes.findobj(PolyCollection)
    low, high = band.get_paths()[0].get_extents().get_points()[:, 1]
    line = influence.sel(source="dog", query="cat").values
    assert (low, high) == pytest.approx((line.min() - 0.5, line.max() + 0.5), abs=1e-12)


def test_sampled_influence_brings_its_errors_along(results, axes):
    sampled = results.bayesian
    stagewise.plot(sampled, source="dog", queries=["cat"], axes=axes)
    (band,) = axes.findobj(PolyCollection)
    scale = results.settings.toy.sampler.n_beta / len(results.toy.dataset)
    line = sampled["influence"].sel(source="dog", query="cat")
    highest = float((line + 2 * scale * sampled["standard_error"].sel(source="dog", query="cat")).max())
    # one division and one product more than here: a few eps
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(highest, rel=1e-13)


def test_transitions_are_verticals(axes):
    stagewise.plot(wave(), source="dog", transitions=[310.0, 990.0], axes=axes)
    verticals = {line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1]}
    assert {310.0, 990.0} <= verticals


def test_names_of_any_data_can_be_drawn_and_told_apart(axes):
    names = [f"item {k}" for k in range(24)]
    stagewise.plot(wave(names, ["item 0"]), axes=axes, peaks=False, flips=False)
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in axes.lines[:23]}
    assert len(looks) == 23


def test_without_axes_pyplot_makes_some():
    axes = stagewise.plot(wave(), source="dog")
    assert plt.get_fignums()
    plt.close(axes.figure)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "has the sources dog, cat, oak; choose one by source="),
        ({"source": "cow"}, "there is no source 'cow'; there are dog, cat, oak"),
        ({"source": "dog", "queries": ["cow"]}, "there is no query 'cow'"),
        ({"source": "dog", "queries": []}, "0 lines cannot be drawn"),
    ],
)
def test_what_is_not_there_is_refused_in_a_sentence(axes, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        stagewise.plot(wave(), axes=axes, **change)
    assert not axes.lines


def test_what_is_no_influence_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match="give a labelled array with dims"):
        influence_plot._chosen(np.zeros((3, 1, 1)), "dog", None, None)
    with pytest.raises(ValueError, match="no 'influence'"):
        stagewise.plot(xr.Dataset({"loss": ("epoch", [1.0])}))
    with pytest.raises(ValueError, match="select one entry of damping first"):
        stagewise.plot(wave().expand_dims(damping=[1.0, 2.0]), source="dog")
    with pytest.raises(ValueError, match="25 lines cannot be drawn and told apart"):
        stagewise.plot(wave([str(k) for k in range(25)], ["a"]))
