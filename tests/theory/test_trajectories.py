"""Labelled arrays: labels, what is recorded and in which form, and the way to a file and back."""

import numpy as np
import pytest
import xarray as xr

from theory.trajectories import labelled_array, trajectory


def test_labels_are_dimensions_in_order():
    values = np.arange(12.0).reshape(2, 3, 2)
    array = trajectory(values, [0, 10], ("a", "b", "c"), ["x", "y"], name="loss", attrs={"formula": "spectral"})
    assert array.dims == ("epoch", "source", "query")
    assert array.name == "loss"
    assert float(array.sel(epoch=10, source="c", query="x")) == 10.0
    assert array.attrs["formula"] == "spectral"
    assert set(array.attrs) == {"formula", "stagewise_version"}
    assert trajectory(values[:1], 5, ("a", "b", "c"), ["x", "y"]).name == "influence"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, "True"),
        (None, "None"),
        (3, 3),
        (0.5, 0.5),
        (np.float64(0.5), np.float64(0.5)),
        ("text", "text"),
        ([1, 2], np.array([1, 2])),
        ((0.5, 1.5), np.array([0.5, 1.5])),
        (np.eye(2), np.array([1.0, 0.0, 0.0, 1.0])),
        (["a", "b"], ["a", "b"]),
        ([True, False], ["True", "False"]),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_what_is_recorded_survives_a_file(value, stored, tmp_path):
    array = labelled_array([1.0, 2.0], {"query": ["dog", "cat"]}, "loss", {"it": value})
    assert type(array.attrs["it"]) is type(stored)
    np.testing.assert_array_equal(array.attrs["it"], stored)
    array.to_netcdf(tmp_path / "array.nc", engine="h5netcdf")
    again = xr.load_dataarray(tmp_path / "array.nc", engine="h5netcdf")
    xr.testing.assert_equal(again, array)
    np.testing.assert_array_equal(again.attrs["it"], stored)


def test_values_must_have_the_shape_of_their_labels():
    with pytest.raises(
        ValueError, match=r"influence has shape \(2, 1\), but its labels \('epoch', 'source', 'query'\)"
    ):
        trajectory(np.zeros((2, 1)), [0, 1], ["a"], ["b"])
