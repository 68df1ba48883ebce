"""Every figure: it is drawn without warning, saved whole, and its numbers and caption are those of the results."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text

from paper_figs import FIGURES, find_figures, save_figure
from paper_figs.style import COLUMN_WIDTH, SMALLEST_FONT

# Nothing may reach a screen, whatever the machine's default is.
matplotlib.use("Agg")


@pytest.fixture(scope="session")
def drawn(results):
    """Return every figure, drawn once."""
    pictures = {}

    def draw(identifier):
        if identifier not in pictures:
            pictures[identifier] = FIGURES[identifier].draw(results)
        return pictures[identifier]

    return draw


@pytest.mark.parametrize("identifier", FIGURES)
def test_a_figure_is_saved_with_its_numbers_and_caption(results, tmp_path, identifier):
    figure = FIGURES[identifier]
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
def test_captions_state_the_seed_and_measured_numbers(results, identifier):
    caption = FIGURES[identifier].caption(results)
    assert "nan" not in caption.split()
    assert any(character.isdigit() for character in caption.split(")", 1)[1])


@pytest.mark.parametrize("identifier", FIGURES)
def test_figures_are_legible_at_the_width_of_a_column(drawn, identifier):
    figure = drawn(identifier)
    width, height = figure.get_size_inches()
    assert width <= COLUMN_WIDTH
    assert height <= 9.5, "a page is 11 inches high"
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= SMALLEST_FONT


@pytest.mark.parametrize("identifier", FIGURES)
def test_no_figure_stays_open(drawn, identifier):
    drawn(identifier)
    assert plt.get_fignums() == []


def test_figures_are_found_by_any_spelling_of_their_name():
    assert [f.identifier for f in find_figures(["03", "2"])] == ["3", "2"]
    assert [f.identifier for f in find_figures(None)] == list(FIGURES)


def test_an_unknown_figure_is_refused_with_a_list():
    with pytest.raises(ValueError, match=r"There is no figure '99' here; available are .*2, 3"):
        find_figures(["2", "99"])
