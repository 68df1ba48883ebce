"""The paper's claim in the data of the figures: harm peaks in the order of the hierarchy, from the root down."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from paper_figs import FIGURES, FigureSettings, Results
from paper_figs.every_source import describe_peaks, peak_epochs
from theory.trajectories import trajectory


@pytest.mark.parametrize(
    "measure",
    [
        lambda r: r.retrained,
        lambda r: r.closed_leave_one_out,
        lambda r: r.toy.sample_weight,
        lambda r: r.retrained_derivative,
        lambda r: r.closed_brief_ablation,
        lambda r: -r.toy.kernel,
    ],
)
def test_peaks_come_in_the_order_of_the_hierarchy_for_every_source(results, measure):
    peaks = peak_epochs(measure(results))
    assert list(peaks["distance"].values) == [3, 2, 1]
    assert (peaks.diff("distance") > 0).all()


def test_peaks_of_the_sampled_influence_come_in_this_order(results):
    """With the figure's own draws the standard error at a peak is a tenth of it; peaks are 900 epochs apart or more."""
    toy = replace(results.settings.toy, chains=4, draws=1000)
    sampled = Results(FigureSettings(toy=toy)).bayesian["influence"]
    peaks = peak_epochs(sampled)
    assert (peaks.diff("distance") > 0).all()
    # Checkpoints are 250 epochs apart; the full figure has 2100, 3000 and 4400 to 4800.
    for peak, (low, high) in zip(
        peaks.sel(source="dog").values, ((1750, 2500), (2500, 3500), (4000, 5250)), strict=True
    ):
        assert low <= peak <= high


def test_transitions_come_in_the_order_of_the_levels(results):
    times = results.transitions
    by_level = [times.where(times["level"] == level, drop=True) for level in range(4)]
    for earlier, later in pairwise(by_level):
        assert float(earlier.max()) < float(later.min())


def test_brief_ablation_matters_earlier_for_sparrow_than_for_cat(results):
    shown = FIGURES["11"].data(results)["closed_form"]
    for extremum in ("idxmin", "idxmax"):
        times = getattr(shown, extremum)("start")
        assert float(times.sel(query="sparrow")) < float(times.sel(query="cat"))


def test_branches_part_in_this_order_after_the_influence_has_begun_to_harm(results):
    shown = FIGURES["4"].data(results)
    for name in ("leave_one_out_peak", "onset", "half_way"):
        assert (np.diff(shown[name].values) > 0).all(), name
    assert (shown["onset"] < shown["half_way"]).all()


def test_the_caption_says_when_a_source_is_out_of_order():
    """Dog's peaks are in order, cat's are not: both farther groups peak after the sibling."""
    names = ["dog", "cat", "sparrow", "penguin"]
    values = np.zeros((3, 4, 4))
    values[0, 0, 2:] = values[1, 0, 1] = 1.0
    values[1, 1, 2:] = values[0, 1, 0] = 1.0
    values[0, 2:, :2] = values[2, 2, 3] = values[2, 3, 2] = 1.0
    described = describe_peaks(trajectory(values, [100, 200, 300], names, names))
    assert "for 3 of 4 sources" in described
