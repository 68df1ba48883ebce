"""Plots as data, drawn as SVG that says what it should and nothing else."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from validation.charts import Plot, Series, curves, to_svg


def drawn(*series, **options):
    return ET.fromstring(to_svg(Plot("A title", "epochs", "loss", series, **options)))


@pytest.mark.parametrize("style", ["line", "dashes", "points"])
@pytest.mark.parametrize("error", [None, np.full(5, 0.1)])
@pytest.mark.parametrize("log", ["", "x", "y", "xy"])
def test_every_style_is_drawn_on_every_axis(style, error, log):
    picture = drawn(Series("a name", np.arange(1.0, 6), np.arange(1.0, 6), error, style=style), log=log)
    assert picture.tag.endswith("svg")
    assert picture.get("viewBox")


def test_bars_take_names_and_marks_and_zero_are_drawn():
    bars = Series("measured", np.array(["one", "two"]), np.array([1.0, -2.0]), style="bars")
    plain, marked = drawn(bars), drawn(bars, marks=((0.5, "here"),), zero=True)
    assert len(list(marked.iter())) > len(list(plain.iter()))


def test_nothing_outside_the_picture_is_asked_for():
    text = to_svg(Plot("t", "x", "y", curves([0, 1], line=[0, 1]))).decode()
    for word in ("<script", 'href="http', "@import", "url(http"):
        assert word not in text


def test_the_same_plot_gives_the_same_bytes():
    plot = Plot("t", "x", "y", curves(np.arange(3), a=[1, 2, 3], b=[3, 2, 1]))
    assert to_svg(plot) == to_svg(plot)


def test_curves_name_their_series():
    first, second = curves([0, 1], "dashes", closed_form=[1, 2], retrained=np.array([1, 2]))
    assert (first.name, second.name, first.style) == ("closed form", "retrained", "dashes")
    assert first.y.dtype == float
