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
    assert picture.tag == "svg"
    assert picture.get("viewBox")
    kinds = {path.get("class") for path in picture.iter("path")}
    assert {"line": "line c0", "dashes": "line dashed c0", "points": "points c0"}[style] in kinds
    assert ("area c0" in kinds) == (error is not None and style != "points")


def test_bars_take_names_and_marks_and_zero_are_drawn():
    bars = Series("measured", np.array(["one", "two"]), np.array([1.0, -2.0]), style="bars")
    plain, marked = drawn(bars), drawn(bars, marks=((0.5, "here"),), zero=True)
    assert len(list(marked.iter())) > len(list(plain.iter()))


def test_bars_stand_on_a_logarithmic_axis_in_the_order_of_their_values():
    bars = Series("", np.array(["one", "two", "none"]), np.array([1e-9, 1e-3, 0.0]), style="bars")
    picture = drawn(bars, log="y")
    heights = [np.ptp(points(path)[0][:, 1]) for path in picture.iter("path") if path.get("class") == "bar c0"]
    assert len(heights) >= 2
    assert 0 < heights[0] < heights[1] < 200
    assert heights[2:] in ([], [0.0])


def test_nothing_outside_the_picture_is_asked_for():
    text = to_svg(Plot("t", "x", "y", curves([0, 1], line=[0, 1])))
    for word in ("<script", 'href="http', "@import", "url(http"):
        assert word not in text


def points(path):
    """Return the corners of a path of relative lines."""
    corners = []
    for move in path.get("d").replace("-", " -").split("M")[1:]:
        start, _, steps = move.partition("l")
        numbers = np.array([float(v) for v in (start + " " + steps).replace("z", "").split()]).reshape(-1, 2)
        corners.append(numbers.cumsum(axis=0))
    return corners


def test_a_line_keeps_its_shape_with_fewer_points():
    """What is left out lies within 0.12 of a point of the line, and rounding to 0.1 adds half a diagonal of 0.1."""
    x = np.linspace(0, 10, 2001)
    picture = drawn(*curves(x, wave=np.sin(x)))
    (line,) = points(next(path for path in picture.iter("path") if path.get("class") == "line c0"))
    assert len(line) < 200
    across = np.polyval(np.polyfit([0, 10], line[[0, -1], 0], 1), x)
    down = np.polyval(np.polyfit([1, -1], [line[:, 1].min(), line[:, 1].max()], 1), np.sin(x))
    true = np.stack([across, down], axis=1)[:, None]
    start, along = line[:-1], np.diff(line, axis=0)
    share = (((true - start) * along).sum(-1) / np.square(along).sum(-1)).clip(0, 1)
    distance = np.linalg.norm(true - start - share[..., None] * along, axis=-1).min(axis=1)
    assert distance.max() < 0.12 + 0.1 * 0.71 + 0.05  # the extremes that set the scale are rounded too


def test_a_picture_is_small_and_names_nothing():
    x = np.arange(101.0)
    text = to_svg(Plot("A & b", "x", "y", curves(x, a=np.sin(x / 9), b=np.cos(x / 7)), log=""))
    assert len(text) < 4000
    assert "id=" not in text
    assert "style=" not in text
    assert 'aria-label="A &amp; b: y over x"' in text


def test_powers_of_ten_and_long_names_are_text():
    picture = drawn(*curves(10.0 ** np.arange(-9, 1), a=10.0 ** np.arange(10)), log="xy")
    words = [text.text for text in picture.iter("text")]
    assert "10⁻⁹" in words or "10⁻⁸" in words
    names = np.array([f"a rather long name, {k}" for k in range(5)])
    slanted = drawn(Series("m", names, np.arange(5.0), style="bars"))
    assert any("rotate(-20)" in text.get("transform", "") for text in slanted.iter("text"))


def test_the_same_plot_gives_the_same_bytes():
    plot = Plot("t", "x", "y", curves(np.arange(3), a=[1, 2, 3], b=[3, 2, 1]))
    assert to_svg(plot) == to_svg(plot)


def test_curves_name_their_series():
    first, second = curves([0, 1], "dashes", closed_form=[1, 2], retrained=np.array([1, 2]))
    assert (first.name, second.name, first.style) == ("closed form", "retrained", "dashes")
    assert first.y.dtype == float
