"""Agreement of two measures on arrays whose correlation, slope and shifts are known by construction."""

import numpy as np
import pytest
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
    with pytest.raises(ValueError, match="share no epoch, source or query"):
        agreement(waves(), waves(names=("oak", "rose")))
    with pytest.raises(ValueError, match="the reference is constant"):
        agreement(0 * waves(), waves())
    with pytest.raises(ValueError, match="the reference is constant"):
        agreement(waves(), waves() * np.nan)
