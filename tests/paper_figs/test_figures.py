"""Figures: what they draw is what was computed, and the command writes image, numbers and caption."""

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import paper_figs.__main__
from numerics import TrainingConfig
from paper_figs import FIGURES, save_figure
from paper_figs.style import GROUP_COLOURS
from validation import GROUPS, ToyExperiment, ToySettings


@pytest.fixture(scope="module")
def results():
    return ToyExperiment(ToySettings(draws=40))


@pytest.mark.parametrize("number", FIGURES)
def test_a_figure_is_saved_with_its_numbers_and_caption(results, tmp_path, number):
    paths = save_figure(FIGURES[number], results, tmp_path)
    assert [p.suffix for p in paths] == [".png", ".pdf", ".nc", ".txt"]
    assert all(p.stat().st_size > 0 for p in paths)
    assert paths[3].read_text().startswith(f"Figure {number} ")
    with xr.open_dataset(paths[2], engine="h5netcdf") as stored:
        for name, array in FIGURES[number].data(results).items():
            np.testing.assert_array_equal(stored[name], array)


def test_figure_2_draws_closed_form_lines_over_simulated_dots(results):
    axes = FIGURES[2].draw(results).axes[2]
    strengths = results.mode_strengths
    drawn = [line.get_ydata() for line in axes.lines]
    for k in range(strengths.sizes["mode"]):
        for name, step in (("closed form", 1), ("simulation", 2)):
            values = strengths[name].values[::step, k]
            assert any(len(y) == len(values) and np.array_equal(y, values) for y in drawn), (name, k)


def test_figure_3_shows_three_measures_on_the_same_epochs_with_the_same_sign(results):
    figure = FIGURES[3].draw(results)
    bayesian, analytic, retrained = figure.axes
    assert bayesian.get_xlim() == analytic.get_xlim() == retrained.get_xlim()
    for axes, measure in (
        (bayesian, results.bayesian["influence"]),
        (analytic, results.sample_weight),
        (retrained, results.retrained),
    ):
        for name, queries in GROUPS.items():
            expected = measure.sel(source="dog", query=list(queries)).mean("query").values
            thick = [li for li in axes.lines if li.get_color() == GROUP_COLOURS[name] and li.get_linewidth() == 2]
            assert np.array_equal(thick[0].get_ydata(), expected)


def run_command(*arguments):
    app = paper_figs.__main__.typer.Typer()
    app.command()(paper_figs.__main__.main)
    return CliRunner().invoke(app, arguments)


def test_the_command_draws_what_is_asked_for(tmp_path):
    result = run_command("2", "--out", str(tmp_path / "figures"))
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == [
        "figure_02.nc",
        "figure_02.pdf",
        "figure_02.png",
        "figure_02.txt",
    ]


def test_the_command_refuses_a_figure_that_is_not_there(tmp_path):
    result = run_command("99", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "There is no figure 99 here; available are 2, 3." in result.output


def test_a_short_run_is_drawn_too():
    quick = ToyExperiment(ToySettings(training=TrainingConfig(epochs=300), draws=10))
    for figure in FIGURES.values():
        assert figure.draw(quick).axes
