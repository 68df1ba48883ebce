"""Every figure: it is drawn without warning, saved whole, legible, and its numbers and caption are those of the run."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text

from paper_figs import FIGURES, find_figures, save_figure
from paper_figs.style import COLUMN_WIDTH, SMALLEST_FONT

SHOW_INFLUENCE = ["3", "4", "7", "8", "9", "10", "11", "12", "a", "e1", "e2", "e3"]


def texts(figure):
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


@pytest.mark.parametrize("identifier", FIGURES)
def test_a_figure_is_saved_with_its_numbers_and_caption(results, drawn, tmp_path, identifier):
    figure = replace(FIGURES[identifier], draw=lambda _: drawn(identifier))
    paths = save_figure(figure, results, tmp_path)
    assert [p.suffix for p in paths] == [".png", ".pdf", ".nc", ".txt"]
    assert sorted(tmp_path.iterdir()) == sorted(paths), "nothing else is left in the folder"
    assert paths[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert paths[1].read_bytes()[:5] == b"%PDF-"
    assert paths[3].read_text().startswith(f"Figure {identifier.upper()} ")
    with xr.open_dataset(paths[2], engine="h5netcdf") as stored:
        expected = figure.data(results)
        assert set(stored.data_vars) == set(expected.data_vars)
        for name, array in expected.items():
            np.testing.assert_array_equal(stored[name], array)


@pytest.mark.parametrize("identifier", FIGURES)
def test_captions_hold_numbers_and_no_holes(results, identifier):
    caption = FIGURES[identifier].caption(results)
    words = caption.replace(",", " ").replace(";", " ").replace("(", " ").split()
    assert "nan" not in words
    assert "inf" not in words
    assert any(character.isdigit() for character in caption.split(")", 1)[1])
    assert "eed" in caption, "the seed is stated, or that there is none"


@pytest.mark.parametrize("identifier", FIGURES)
def test_figures_are_legible_at_the_width_of_a_column(drawn, identifier):
    figure = drawn(identifier)
    width, height = figure.get_size_inches()
    assert width <= COLUMN_WIDTH
    assert height <= 9, "a page of 11 inches has margins"
    assert min(text.get_fontsize() for text in texts(figure)) >= SMALLEST_FONT


@pytest.mark.parametrize("identifier", SHOW_INFLUENCE)
def test_influence_is_drawn_with_its_sign_convention_and_zero_line(drawn, results, identifier):
    figure = drawn(identifier)
    words = [text.get_text() for text in texts(figure)]
    assert any("negative = " in word and "helps" in word for word in words)
    marked = [axes for axes in figure.axes if any(t.get_text() == "helps" for t in axes.texts)]
    assert marked
    for axes in marked:
        assert any(t.get_text() == "harms" for t in axes.texts)
        zero = [line for line in axes.lines if list(line.get_ydata()) == [0, 0] and list(line.get_xdata()) == [0, 1]]
        assert zero, "a line of no influence"
        low, high = axes.get_ylim()
        assert low < 0 < high
    assert "negative" in FIGURES[identifier].caption(results)


@pytest.mark.parametrize("identifier", FIGURES)
def test_no_figure_stays_open(drawn, identifier):
    drawn(identifier)
    assert plt.get_fignums() == []


def test_figures_are_found_by_any_spelling_of_their_name():
    assert [f.identifier for f in find_figures(["03", "2", "E1", "a"])] == ["3", "2", "e1", "a"]
    assert [f.identifier for f in find_figures(None)] == list(FIGURES)
    assert [f.identifier for f in find_figures([])] == list(FIGURES)


def test_every_figure_of_the_theory_and_the_toy_model_is_there():
    paper = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"]
    assert set(FIGURES) == {*paper, "a", "e1", "e2", "e3", "e4", "e5", "e6"}


@pytest.mark.parametrize("name", ["99", "16", "", "0", "3a"])
def test_an_unknown_figure_is_refused_with_a_list(name):
    with pytest.raises(ValueError, match=rf"There is no figure '{name}' here; available are 1, 2, .*e6\."):
        find_figures(["2", name])
