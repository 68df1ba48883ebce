"""Agreement of two measures on arrays whose correlation, slope and shifts are known by construction."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from theory.trajectories import trajectory
from validation import agreement, extremum_epochs, without_self

NAMES = ("dog", "cat", "pine")
EPOCHS = np.arange(0, 1000, 10)


def waves(shift=0.0, names=NAMES):
    """Return one period of a sine for every pair, each with its own amplitude, delayed by `shift` epochs."""
    amplitude = 1 + np.arange(len(names) ** 2).reshape(len(names), -1)
    phase = 2 * np.pi * (EPOCHS - shift) / 1000
    return trajectory(np.sin(phase)[:, None, None] * amplitude, EPOCHS, names, names)


@given(factor=st.floats(-1e6, 1e6).filter(lambda c: abs(c) > 1e-6))
def test_a_multiple_has_its_factor_as_slope(factor):
    reference = waves()
    result = agreement(reference, factor * reference)
    assert result.slope == pytest.approx(factor, rel=1e-12)
    assert result.pearson == pytest.approx(np.sign(factor), abs=1e-12)
    assert result.relative_max_error == pytest.approx(abs(factor - 1), rel=1e-9, abs=1e-12)
    assert result.sign_agreement == (1.0 if factor > 0 else 0.0)
    assert result.worst_slope_error == pytest.approx(abs(factor - 1), rel=1e-9, abs=1e-12)


@given(offset=st.floats(-10, 10), factor=st.floats(0.5, 2))
def test_an_offset_changes_the_slope_since_there_is_no_intercept(offset, factor):
    """With r = wave + 2, the slope through the origin of factor r + offset is factor + offset <r> / <r^2>, by hand."""
    reference = waves() + 2.0
    result = agreement(reference, factor * reference + offset)
    wanted = factor + offset * 2.0 / float(np.square(reference).mean())
    assert result.slope == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    each = factor + offset * 2.0 / np.square(reference).mean("epoch").values
    assert result.worst_slope_error == pytest.approx(np.abs(each - 1).max(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shift", [0, 30, 120])
def test_a_delay_shows_as_a_shift_of_the_extrema(shift):
    assert agreement(waves(), waves(shift)).extremum_shift == shift
    low, high = extremum_epochs(waves(shift))
    assert np.all(low == 750 + shift)
    assert np.all(high == 250 + shift)


def test_a_delayed_sine_has_the_cosine_as_slope_and_correlation():
    # Over whole periods <sin(x), sin(x - d)> = cos(d) <sin, sin>; the sums over 100 equidistant points are exact.
    result = agreement(waves(), waves(100))
    expected = np.cos(2 * np.pi * 0.1)
    assert result.slope == pytest.approx(expected, rel=1e-12)
    assert result.worst_pearson == pytest.approx(expected, rel=1e-12)


def test_common_entries_are_compared_whatever_the_order():
    other = waves().isel(epoch=slice(None, None, 2)).sel(query=["pine", "dog"])
    result = agreement(waves(), 3 * other)
    assert result.slope == pytest.approx(3, rel=1e-12)


def test_influence_on_oneself_can_be_left_out():
    reference = waves()
    spoiled = reference.where(reference["source"] != reference["query"], 1e9)
    assert agreement(without_self(reference), spoiled).pearson == pytest.approx(1, abs=1e-12)
    assert agreement(reference, spoiled).pearson < 0.5


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"share no source: the reference has dog, cat, pine, the measure oak, rose"):
        agreement(waves(), waves(names=("oak", "rose")))
    with pytest.raises(ValueError, match="the reference is constant"):
        agreement(0 * waves(), waves())
    with pytest.raises(ValueError, match=r"the reference is constant.*every entry is NaN"):
        agreement(waves(), waves() * np.nan)


def test_every_result_says_how_much_was_compared():
    result = agreement(without_self(waves()), waves())
    assert (result.n_epochs, result.n_pairs, result.interpolation_error) == (100, 6, 0.0)
    gap = waves().where(waves()["epoch"] != 500)
    assert agreement(waves(), gap).n_epochs == 99
    few = agreement(waves(), waves().isel(epoch=[0, 25, 70]))
    assert (few.n_epochs, few.n_pairs) == (3, 9)


def at(epochs, period=1000.0):
    """Return the sine of the epoch for two pairs, one twice the other."""
    phase = 2 * np.pi * np.asarray(epochs, float) / period
    return trajectory(np.sin(phase)[:, None, None] * np.array([[[1.0], [2.0]]]), epochs, ["dog", "cat"], ["pine"])


@pytest.mark.parametrize(("first", "second"), [(10, 7), (7, 10), (10, 30.5)])
def test_different_grids_are_aligned_by_interpolation(first, second):
    a, b = at(np.arange(0, 1000, first)), at(np.arange(0, 1000, second))
    result = agreement(a, b)
    finer, coarser = sorted((first, second))
    assert result.n_epochs == np.sum(np.arange(0, 1000, coarser) <= np.arange(0, 1000, finer)[-1])
    # Linear interpolation of a sine of angular frequency w is off by (h w)^2 / 8 of its height at most.
    bound = (finer * 2 * np.pi / 1000) ** 2 / 8
    assert 0 < result.interpolation_error <= 1.01 * bound
    assert result.relative_max_error <= 1.01 * bound
    assert result.slope == pytest.approx(1, abs=bound)


@given(shift=st.integers(1, 9), step=st.integers(2, 40))
def test_the_stated_error_of_interpolation_covers_the_true_one(shift, step):
    fine, coarse = np.arange(0, 1001, 10), np.arange(shift, 1000, 10 * step)
    result = agreement(at(coarse), at(fine))
    assert result.n_epochs == coarse.size
    # Curvature is measured on the grid, where a chord sees sin's by (1 - cos(w h)) / (w h)^2 * 2 > 0.999 of it.
    assert result.relative_max_error <= result.interpolation_error / 0.99 + 1e-12


def test_only_where_both_were_measured_is_compared():
    result = agreement(at(np.arange(0, 600, 10)), at(np.arange(205, 1000, 10)))
    assert result.n_epochs == 39  # 205, 215, ..., 585
    with pytest.raises(ValueError, match="share no epoch: the reference has 60 from 0 to 590, the measure 40 from 600"):
        agreement(at(np.arange(0, 600, 10)), at(np.arange(600, 1000, 10)))


def test_grids_too_coarse_to_be_interpolated_are_refused():
    with pytest.raises(ValueError, match="stand on different epochs, and interpolating them is off by"):
        agreement(at(np.arange(0, 1000, 150)), at(np.arange(40, 1000, 160)))


def test_a_single_shared_epoch_is_said():
    start = at(np.arange(0, 1000, 10))
    other = at(np.arange(0, -1000, -10)[::-1])
    with pytest.raises(
        ValueError, match=r"constant where both are known.*it is 0 there.*1 epoch\(s\) \(0.0\), 2 source"
    ):
        agreement(start, other)


def test_arrays_that_cannot_be_matched_by_labels_end_in_sentences():
    good = at(np.arange(0, 100, 10))
    bare = xr.DataArray(good.values, dims=good.dims)
    for bad, words in (
        (good.values, "DataArray"),
        (bare, "has no labels along epoch"),
        (good.drop_vars("source"), "has no labels along source"),
        (good.rename(epoch="time"), "must have dims"),
        (good.isel(epoch=slice(0, 0)), "is empty"),
        (xr.concat([good, good], "epoch"), "a label twice along epoch"),
        (good.astype(str), "must hold real numbers"),
        (good.assign_coords(epoch=[str(k) for k in range(10)]), "finite numbers as epochs"),
        (good * np.inf, "infinite"),
    ):
        for pair in ((good, bad), (bad, good)):
            with pytest.raises((TypeError, ValueError), match=words):
                agreement(*pair)
