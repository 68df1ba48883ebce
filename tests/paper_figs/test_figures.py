"""Every figure: it is drawn without warning, saved whole, legible, and its numbers and caption are those of the run."""

import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from matplotlib.text import Text

from paper_figs import FIGURES, FigureSettings, Results, find_figures, save_figure
from paper_figs.style import COLUMN_WIDTH, SMALLEST_FONT, contrast

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
def test_captions_draw_no_conclusion_of_their_own(results, identifier):
    """What a caption says of results follows the numbers; these are words of sentences that were written beforehand."""
    words = set(re.findall(r"[a-z]+", FIGURES[identifier].caption(results).lower()))
    assert not words & {"because", "since", "therefore", "thus", "agrees", "must", "never", "throughout", "owed"}
    assert not re.search(r"(^|[.:;] )So ", FIGURES[identifier].caption(results))


@pytest.mark.parametrize("identifier", FIGURES)
def test_captions_name_the_panels_that_are_there(results, drawn, identifier):
    labels = {text.get_text() for text in texts(drawn(identifier)) if re.fullmatch(r"\([a-z]\)", text.get_text())}
    there = {label[1] for label in labels}
    named = set()
    for group in re.findall(r"\(([a-h](?:-[a-h]|(?:, [a-h])*))\) ", FIGURES[identifier].caption(results)):
        first, _, last = group.partition("-")
        named |= set(map(chr, range(ord(first), ord(last) + 1))) if last else set(group.split(", "))
    assert named == there if named and identifier not in ("9", "10") else named <= there


def test_captions_of_figure_3_follow_the_data(results):
    """With leave-one-out turned upside down the same caption says the opposite."""
    figure, turned = FIGURES["3"], Results(results.settings)
    for name in ("bayesian", "retrained", "closed_leave_one_out"):
        vars(turned)[name] = getattr(results, name)
    vars(turned)["toy"] = results.toy
    vars(turned)["retrained"] = -results.retrained
    before, after = figure.caption(results), figure.caption(turned)
    helped = [int(re.search(r"help in (\d) of 9", text).group(1)) for text in (before, after)]
    assert helped[0] - helped[1] == 3, "leave-one-out helps each of three groups first, as its claims check"
    share = {text: int(re.search(r"on cat, \(b\) and \(c\) (\d+)%", text).group(1)) for text in (before, after)}
    assert abs(share[before] + share[after] - 100) <= 1, "percentages are rounded"


def test_pictures_have_200_dots_an_inch_and_say_when_they_are_quick(results, drawn, tmp_path):
    identifier = "11"
    figure = replace(FIGURES[identifier], draw=lambda _: drawn(identifier))
    paths = save_figure(figure, results, tmp_path)
    width, _ = drawn(identifier).get_size_inches()
    assert plt.imread(paths[0]).shape[1] / width >= 200
    assert any("quick settings" in text.get_text() for text in texts(drawn(identifier)))
    assert "quick settings" in paths[3].read_text()


def test_full_settings_are_not_called_quick():
    assert FigureSettings.seeded(0, quick=True).quick
    assert not FigureSettings.seeded(0).quick


@pytest.mark.parametrize("identifier", FIGURES)
def test_text_in_colour_can_be_read(drawn, identifier):
    for text in texts(drawn(identifier)):
        if text.get_text() in ("harms", "helps") or any(
            text in axes.texts for axes in drawn(identifier).axes if axes.images
        ):
            continue  # numbers on a map have its colour below them
        assert contrast(to_hex(text.get_color())) >= 4.5, text.get_text()


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
    before = plt.get_fignums()
    drawn(identifier)
    assert plt.get_fignums() == before


def test_figures_are_found_by_any_spelling_of_their_name():
    assert [f.identifier for f in find_figures(["03", "2", "E1", "a"])] == ["3", "2", "e1", "a"]
    assert [f.identifier for f in find_figures(None)] == list(FIGURES)
    assert [f.identifier for f in find_figures([])] == list(FIGURES)


def test_every_figure_of_the_theory_and_the_toy_model_is_there():
    paper = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"]
    assert set(FIGURES) == {*paper, "a", "e1", "e2", "e3", "e4", "e5", "e6", "l1"}


@pytest.mark.parametrize("name", ["99", "16", "", "0", "3a"])
def test_an_unknown_figure_is_refused_with_a_list(name):
    with pytest.raises(ValueError, match=rf"There is no figure '{name}' here; available are 1, 2, .*l1\."):
        find_figures(["2", name])
