"""Peaks, flips and agreement of signs are those of trajectories whose answer is known beforehand."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from theory.trajectories import trajectory
from validation import clear_signs, epoch_runs, peaks, sign_agreement, sign_flips, trajectory_marks


def line(values, epochs=None):
    epochs = 100 * np.arange(len(values)) if epochs is None else epochs
    return xr.DataArray(np.asarray(values, dtype=float), {"epoch": epochs}, name="influence")


def test_peaks_of_a_sine_are_where_calculus_has_them():
    epochs = np.arange(0, 361)
    sine = -np.sin(np.deg2rad(epochs))  # helps most at 90, harms most at 270
    found = peaks(trajectory(sine[:, None, None], epochs, ["dog"], ["cat"]))
    assert found["help_epoch"].item() == 90
    assert found["harm_epoch"].item() == 270
    assert found["help_inside"].all()
    assert found["harm_inside"].all()
    # sin(90 degrees) is rounded once, its argument too, where the slope is zero: one eps.
    assert found["help"].item() == pytest.approx(-1, abs=2.3e-16)


def test_a_trajectory_that_never_harms_has_no_harm():
    found = peaks(line([0.0, -1.0, -0.5]))
    assert np.isnan(found["harm_epoch"])
    assert np.isnan(found["harm"])
    assert not found["harm_inside"]


def test_an_extremum_at_the_end_is_said_to_stand_there():
    found = peaks(line([-1.0, 0.5, 2.0]))
    assert not found["help_inside"]
    assert not found["harm_inside"]
    assert found["harm_epoch"] == 200


def test_missing_entries_are_left_out():
    found = peaks(line([np.nan, -1.0, np.nan, 3.0, 1.0]))
    assert (found["help_epoch"], found["harm_epoch"]) == (100, 300)
    nothing = peaks(line([np.nan, np.nan]))
    assert np.isnan(nothing["help_epoch"])
    assert np.isnan(nothing["harm"])


@given(
    root=st.floats(0.05, 0.95),
    slope=st.sampled_from([-2.0, -1.0, 1.0, 3.0]),
    spacing=st.integers(1, 7),
)
def test_the_flip_of_a_straight_line_is_its_root(root, slope, spacing):
    epochs = np.arange(0, 1001, spacing)
    zero = root * float(epochs[-1])
    flips = sign_flips(line(slope * (epochs - zero), epochs))
    assert flips.sizes["flip"] == 1
    # one interpolation between numbers below 1000: a few eps of 1000
    assert flips["epoch"].item() == pytest.approx(zero, abs=1e-11)
    assert flips["to"].item() == np.sign(slope)
    assert flips["before"].item() < zero < flips["after"].item()


def test_noise_within_two_standard_errors_makes_no_flip():
    noisy = line([-1.0, 0.2, -0.3, 0.1, 1.0])
    assert sign_flips(noisy).sizes["flip"] == 3
    flips = sign_flips(noisy, xr.full_like(noisy, 0.2))
    assert flips.sizes["flip"] == 1
    assert (flips["before"].item(), flips["after"].item()) == (0, 400)
    assert flips["epoch"].item() == 200  # a straight line from -1 to 1


def test_flips_of_many_trajectories_stand_side_by_side():
    values = np.stack([[-1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, -1.0, -1.0]], axis=1)[:, None]
    flips = sign_flips(trajectory(values, [0, 10, 20, 30], ["dog"], ["cat", "oak"]))
    assert flips["epoch"].sel(source="dog", query="cat").values.tolist() == [5.0, 15.0]
    assert flips["to"].sel(source="dog", query="cat").values.tolist() == [1.0, -1.0]
    assert flips["epoch"].sel(query="oak").isnull().all()


@given(st.lists(st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=30))
def test_signs_between_flips_are_constant(values):
    given_line = line(values)
    flips, signs = sign_flips(given_line), clear_signs(given_line).values
    clear = signs[signs != 0]
    assert flips.sizes["flip"] == int(np.sum(clear[1:] != clear[:-1]))


def test_scale_changes_no_mark():
    wave = line(np.sin(np.arange(50) / 3) * np.exp(-np.arange(50) / 30))
    for scale in (1e-12, 1e9):
        np.testing.assert_allclose(sign_flips(scale * wave)["epoch"], sign_flips(wave)["epoch"], rtol=1e-14)
        assert peaks(scale * wave)["harm_epoch"] == peaks(wave)["harm_epoch"]


def test_agreement_counts_clear_epochs_only():
    first = line([-1.0, -1.0, 0.001, 1.0, 1.0])
    second = line([-5.0, 5.0, 5.0, 5.0, -5.0])
    found = sign_agreement({"a": first, "b": second})
    assert found["clear"].item() == 4
    assert found["share"].item() == 0.5
    assert epoch_runs(found["opposite"].isel(pair=0)) == [(100.0, 100.0), (400.0, 400.0)]
    unclear = sign_agreement({"a": first, "b": second}, {"b": xr.full_like(second, 3.0)})
    assert unclear["clear"].item() == 0
    assert np.isnan(unclear["share"].item())


def test_every_two_measures_are_compared_at_the_epochs_they_share():
    first = line([-1.0, 1.0, 1.0])
    found = sign_agreement({"a": first, "b": -first, "c": line([1.0, 1.0], [100, 200])})
    assert found.sizes["epoch"] == 2
    assert list(zip(found["first"].values, found["second"].values, strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found["share"].values.tolist() == [0.0, 1.0, 0.0]


def test_what_cannot_be_marked_is_refused_in_a_sentence():
    # The check itself, since the run-time type checker of the tests answers before it would.
    with pytest.raises(TypeError, match="give a labelled array with the dim epoch"):
        trajectory_marks._refuse_unfit(np.zeros(3))
    for function in (peaks, sign_flips, clear_signs):
        with pytest.raises(ValueError, match="need a labelled dim epoch"):
            function(xr.DataArray(np.zeros(3), dims="start"))
    with pytest.raises(ValueError, match="give two or more"):
        sign_agreement({"a": line([1.0])})
    with pytest.raises(ValueError, match="share no epoch"):
        sign_agreement({"a": line([1.0], [0]), "b": line([1.0], [1])})
