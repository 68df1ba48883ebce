"""A user's data: both formats, every way to get them wrong with the line named, and whitening."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from theory import Dataset, hierarchical_dataset
from validation import dataset_of, dataset_of_arrays, load_dataset, read_dataset, save_dataset, whiten

GOOD = "name,x1,x2,y1,y2\ndog,1,0,3,0.5\ncat,0,1,2,-1e-3\n"


def written(folder, text, name="data.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_csv_file_is_read(tmp_path):
    data = load_dataset(written(tmp_path, GOOD))
    assert data.names == ("dog", "cat")
    np.testing.assert_array_equal(data.inputs, np.eye(2))
    np.testing.assert_array_equal(data.targets, [[3, 0.5], [2, -1e-3]])


def test_names_are_optional_columns_in_any_order_and_empty_lines_passed_over(tmp_path):
    data = load_dataset(written(tmp_path, "y, x\n\n2, 0.5\n\n3, 0.25\n", "d.csv"))
    assert data.names == ("sample-0", "sample-1")
    assert data.inputs.tolist() == [[0.5], [0.25]]
    assert data.targets.tolist() == [[2], [3]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; its first line must name the columns"),
        ("name,x1,y1\n", "has a header and no samples"),
        ("name,y1\na,1\n", "line 1: no input column; name at least one x1"),
        ("name,x1\na,1\n", "line 1: no target column; name at least one y1"),
        ("label,x1,y1\na,1,2\n", "line 1: column 'label' is neither 'name' nor an input"),
        ("name,name,x1,y1\na,b,1,2\n", "line 1: two columns are called 'name'"),
        ("x1,y1\n1,2\n3\n", "line 3: 1 fields, but the header has 2"),
        ("x1,y1\n1,2\n\n3,two\n", "line 4, column y1: 'two' is not a number"),
        ("x1,y1\n1,\n", "line 2, column y1: '' is not a number"),
        ("x1,y1\nnan,2\n", "line 2, column x1: 'nan' is not finite"),
        ("x1,y1\n1,inf\n", "line 2, column y1: 'inf' is not finite"),
        ("name,x1,y1\na,1,2\nb,1,2\na,1,2\n", "line 4: the name 'a' occurs for the second time"),
    ],
)
def test_a_malformed_csv_file_is_refused_with_its_line(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=r"data\.csv") as error:
        load_dataset(written(tmp_path, text))
    assert sentence in str(error.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.csv cannot be read: No such file"):
        load_dataset(tmp_path / "nothing.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_dataset(tmp_path / "folder.csv")
    with pytest.raises(ValueError, match=r"neither .npz nor .csv"):
        load_dataset(written(tmp_path, GOOD, "data.dat"))
    (tmp_path / "latin.csv").write_bytes("x1,y1\n1,2\n# é\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        load_dataset(tmp_path / "latin.csv")


def test_an_npz_file_goes_there_and_back(tmp_path):
    data = hierarchical_dataset()
    save_dataset(tmp_path / "tree.npz", data)
    again = load_dataset(tmp_path / "tree.npz")
    assert again.names == data.names
    np.testing.assert_array_equal(again.inputs, data.inputs)
    np.testing.assert_array_equal(again.targets, data.targets)


def test_names_are_optional_in_npz_too(tmp_path):
    np.savez(tmp_path / "d.npz", inputs=np.eye(2), targets=np.ones((2, 1)))
    assert load_dataset(tmp_path / "d.npz").names == ("sample-0", "sample-1")


def test_malformed_npz_files_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, inputs=np.eye(2))
    with pytest.raises(ValueError, match="has no array 'targets'; it has inputs"):
        load_dataset(path)
    np.savez(path, inputs=np.eye(2), targets=np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"d.npz: .*2.*3"):
        load_dataset(path)
    np.savez(path, inputs=np.eye(2), targets=np.array([["a"], ["b"]]))
    with pytest.raises(ValueError, match=r"d.npz: targets"):
        load_dataset(path)
    np.savez(path, inputs=np.eye(2), targets=np.array([None, {}], dtype=object))  # would be code in disguise
    with pytest.raises(ValueError, match="array 'targets' holds Python objects, which are not loaded"):
        load_dataset(path)
    path.write_bytes(b"PK not really")
    with pytest.raises(ValueError, match=r"is not a valid \.npz file"):
        load_dataset(path)


@given(seed=st.integers(0, 10_000), n=st.integers(3, 12), p=st.integers(1, 3))
def test_whitened_inputs_are_white_and_nearest(seed, n, p):
    random = np.random.default_rng(seed)
    raw = Dataset(random.normal(size=(n, p)), random.normal(size=(n, 2)))
    white = whiten(raw)
    condition = np.linalg.cond(raw.inputs)
    np.testing.assert_allclose(white.sxx, np.eye(p), atol=1e-14 * n)
    # X = U S V^T, so the nearest orthonormal columns U V^T have X^T (U V^T) = V S V^T: symmetric and positive.
    product = raw.inputs.T @ white.inputs
    assert np.abs(product - product.T).max() < 1e-13 * condition * np.abs(product).max()
    assert np.linalg.eigvalsh((product + product.T) / 2).min() > 0
    assert white.names == raw.names
    np.testing.assert_array_equal(white.targets, raw.targets)


def test_what_cannot_be_whitened_is_refused():
    dependent = Dataset(np.array([[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]]), np.eye(3))
    with pytest.raises(
        ValueError, match="2 input columns of 3 samples have rank 1 in float64 precision, so they cannot be whitened"
    ):
        whiten(dependent)
    with pytest.raises(ValueError, match="have rank 2"):
        whiten(Dataset(np.ones((2, 3)) + np.eye(2, 3), np.eye(2)))  # more columns than samples
    with pytest.raises(ValueError, match="have rank 0"):
        whiten(Dataset(np.zeros((3, 1)), np.eye(3)))


# --- ordinary files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "how"),
    [
        (b"\xef\xbb\xbfname,x1,x2,y1\r\ndog,1,0,3.5\r\ncat,0,1,2.25\r\n", "commas)"),
        (b"name;x1;x2;y1\ndog;1;0;3,5\ncat;0,0;1;2,25\n", "semicolons, decimal commas)"),
        (b"name;x1;x2;y1\ndog;1;0;3.5\ncat;0;1;2.25\n", "semicolons)"),
        (b"NAME\tX1\tX2\tY1\ndog\t1\t0\t3.5\ncat\t0\t1\t2.25", "tabs)"),
        (b"name,x1,x2,y1\rdog,1,0,3.5\rcat,0,1,+225e-2\r", "commas)"),
        (b'"name","x1","x2","y1"\n"dog","1","0","3.5"\n"cat",".0","1.","2.25"\n', "commas)"),
    ],
)
def test_tables_as_programs_write_them_are_read(tmp_path, data, how):
    (tmp_path / "d.CSV").write_bytes(data)
    reading = read_dataset(tmp_path / "d.CSV")
    assert reading.dataset.names == ("dog", "cat")
    np.testing.assert_array_equal(reading.dataset.inputs, np.eye(2))
    np.testing.assert_array_equal(reading.dataset.targets, [[3.5], [2.25]])
    assert how in reading.summary


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"x1 y1\n1 2\n", "columns are separated by spaces; use commas, semicolons or tabs"),
        (b"# measured in May\nx1,y1\n1,2\n", "the first line is a comment, '# measured in May'; leave comments out"),
        (b"x1|y1\n1|2\n", "columns are separated by bars"),
        (b"x1,y1\n1,5,2\n", "line 2: 3 fields, but the header has 2; a decimal comma needs semicolons or tabs"),
        (b"x1;y1\n1,5;2.5\n", "a decimal comma in line 2 and a point in line 2; use one"),
        (b"x1,y1\n1_000,2\n", "'1_000' is not a number"),
        ("x1,y1\n\u0661,2\n".encode(), "is not a number"),
        (b"x1,y1\n1e400,2\n", "'1e400' is not finite"),
        (b",x1,y1\n0,1,2\n", "column 1 has no name; give it one, or leave it out (pandas writes no index"),
        (b"x1,x1,y1\n1,1,2\n", "two columns are called 'x1'"),
        (b"name,x1,y1\n,1,2\n", "line 2: the name is empty"),
        (b"year,x1,y1\n1990,1,2\n", "column 'year' is neither 'name' nor an input"),
        (b"xmin,x1,y1\n1,1,2\n", "column 'xmin' is neither"),
        (b"x1,y1\n" + b"1" * 200_000 + b",2\n", "a cell is longer than 131072 characters"),
        (b'x1,y1\n"1,2\n3,4\n', "a quotation mark is left open"),
        ("x1,y1\n1,2\n".encode("utf-16"), "is a text file in UTF-16; save it in UTF-8"),
        (b"x1,y1\n1,\x002\n", "has a null character"),
    ],
)
def test_tables_that_are_not_clear_are_refused(tmp_path, data, sentence):
    (tmp_path / "d.csv").write_bytes(data)
    with pytest.raises(ValueError, match=r"d\.csv") as error:
        load_dataset(tmp_path / "d.csv")
    assert sentence in str(error.value)


def test_columns_are_named_by_arguments(tmp_path):
    path = written(tmp_path, "pet,year,legs,xmin,tail\ndog,2001,4,7,1\nhen,2002,2,8,0\n")
    reading = read_dataset(path, inputs=["legs", "xmin"], targets=["tail"], names="pet")
    np.testing.assert_array_equal(reading.dataset.inputs, [[4, 7], [2, 8]])
    assert reading.ignored == ("year",)
    assert "inputs legs, xmin; targets tail; names pet; left out year." in reading.summary
    with pytest.raises(ValueError, match="has no column 'leg'; it has 'pet', 'year'"):
        load_dataset(path, inputs=["leg"], targets=["tail"])
    with pytest.raises(ValueError, match="'legs' is asked for twice"):
        load_dataset(path, inputs=["legs"], targets=["legs"])
    with pytest.raises(ValueError, match="no target column"):
        load_dataset(path, inputs=["legs"])


def refusal(path):
    """Return the sentence with which a file is refused, or nothing if it is read."""
    try:
        assert np.isfinite(load_dataset(path).inputs).all()
    except ValueError as error:
        return str(error)
    return ""


text = st.text(st.characters(codec="utf-8"), max_size=80)
table = st.lists(st.lists(st.sampled_from(["x1", "y1", "name", "1", "2,5", "", '"', "é", "-1e3", "nan"])), max_size=6)


@given(
    content=text.map(str.encode) | st.binary(max_size=80) | table.map(lambda t: "\n".join(map(";".join, t)).encode())
)
def test_whatever_is_in_a_file_it_is_read_or_refused_in_a_sentence(content):
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".csv", ".npz", ".nc"):
            path = Path(folder) / f"d{suffix}"
            path.write_bytes(content)
            sentence = refusal(path)
            assert sentence == "" or sentence.startswith((str(path), "d."))


@given(cut=st.integers(0, 700), flip=st.integers(0, 700), value=st.integers(0, 255))
def test_damaged_archives_are_read_or_refused_in_a_sentence(cut, flip, value):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.npz"
        np.savez(path, inputs=np.eye(2), targets=np.ones((2, 1)))
        data = bytearray(path.read_bytes())
        data[flip % len(data)] = value
        path.write_bytes(bytes(data[: len(data) - cut % 40]))
        sentence = refusal(path)
        assert sentence == "" or "d.npz" in sentence


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"targets": np.ones(2)}, "its shape is (2,); targets[:, None] makes one column of it"),
        ({"names": np.array("dog")}, "names has shape (), but 2 names are needed"),
        ({"names": np.array(["a", ""])}, "the name of sample 1 is empty"),
        ({"names": np.array([b"\xff", b"a"])}, "holds bytes that are not UTF-8"),
        ({"names": np.array(["a", None], dtype=object)}, "save names as np.array(names, dtype=str)"),
        ({"inputs": np.eye(2) * 1j}, "inputs must be an array of real numbers"),
        ({"names": np.array(["a", "a"])}, "names must be different"),
    ],
)
def test_arrays_that_are_not_clear_are_refused(tmp_path, arrays, sentence):
    np.savez(tmp_path / "d.npz", **({"inputs": np.eye(2), "targets": np.ones((2, 1))} | arrays))
    with pytest.raises(ValueError, match=r"d\.npz") as error:
        load_dataset(tmp_path / "d.npz")
    assert sentence in str(error.value)


def test_arrays_as_people_keep_them_are_read(tmp_path):
    path = tmp_path / "d.NPZ"
    others = {"notes": np.array([{}], dtype=object)}  # not asked for, so that it does not block
    for names in (np.array([b"dog", b"cat"]), np.array([["dog"], ["cat"]])):
        with path.open("wb") as file:
            np.savez(file, inputs=np.eye(2), targets=np.ones((2, 1), dtype=np.float32), names=names, **others)
        reading = read_dataset(path)
        assert reading.dataset.names == ("dog", "cat")
        assert reading.ignored == ("notes",)
        assert "float64 and float32" in reading.summary


def test_one_array_is_not_an_archive(tmp_path):
    np.save(tmp_path / "d.npy", np.eye(2))
    with pytest.raises(ValueError, match=r"an .npy file holds one array, so save inputs and targets together"):
        load_dataset(tmp_path / "d.npy")
    (tmp_path / "d.npy").rename(tmp_path / "d.npz")
    with pytest.raises(ValueError, match=r"it holds one array without a name"):
        load_dataset(tmp_path / "d.npz")


def test_parquet_is_read_or_names_what_it_needs(tmp_path):
    frame = pd.DataFrame({"x1": [1.0, 0.0], "y1": [2.0, 3.0]})
    try:
        frame.to_parquet(tmp_path / "d.parquet")
    except ImportError:
        (tmp_path / "d.parquet").write_bytes(b"PAR1")
        with pytest.raises(ValueError, match="needs pyarrow to be read, which is not installed: pip install pyarrow"):
            load_dataset(tmp_path / "d.parquet")
    else:
        assert load_dataset(tmp_path / "d.parquet").targets.ravel().tolist() == [2.0, 3.0]


def test_pandas_tables_are_read():
    frame = pd.DataFrame({"x1": [1, 0], "x2": [0.0, 1.0], "y": pd.array([2, 3], dtype="Int64")}, index=["dog", "cat"])
    reading = dataset_of(frame)
    assert reading.dataset.names == ("dog", "cat")
    assert reading.dataset.targets.ravel().tolist() == [2.0, 3.0]
    assert dataset_of(frame.reset_index(drop=True)).dataset.names == ("sample-0", "sample-1")
    with pytest.raises(ValueError, match="column 'y' is missing or not finite in row 1"):
        dataset_of(frame.assign(y=pd.array([2, None], dtype="Int64")))
    with pytest.raises(TypeError, match="column 'y' holds"):
        dataset_of(frame.assign(y=["a", "b"]))
    with pytest.raises(ValueError, match="column 'z' is neither"):
        dataset_of(frame.assign(z=1))


def test_xarray_data_are_read(tmp_path):
    arrays = xr.Dataset({"inputs": (("pet", "p"), np.eye(2)), "targets": (("o", "pet"), [[3.0, 2.0]])})
    named = arrays.assign_coords(pet=["dog", "cat"])
    reading = dataset_of_arrays(named)
    assert reading.dataset.names == ("dog", "cat")
    assert reading.dataset.targets.tolist() == [[3.0], [2.0]]
    named.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    assert load_dataset(tmp_path / "d.nc").names == ("dog", "cat")
    with pytest.raises(ValueError, match="has no array 'targets'; it has inputs"):
        dataset_of_arrays(arrays.drop_vars("targets"))


# --- whitening ------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), powers=st.lists(st.integers(-150, 150), min_size=3, max_size=3))
def test_whitening_does_not_depend_on_units(seed, powers):
    """The span of the whitened inputs is that of the inputs, whatever the units of their columns."""
    random = np.random.default_rng(seed)
    raw = random.normal(size=(7, 3))
    scaled = Dataset(raw * 10.0 ** np.array(powers), np.ones((7, 1)))
    white = whiten(scaled).inputs
    np.testing.assert_allclose(white.T @ white, np.eye(3), atol=1e-13)
    basis = np.linalg.qr(raw)[0]
    assert np.abs(white - basis @ (basis.T @ white)).max() < 1e-13 * np.linalg.cond(raw)
    dependent = np.column_stack([raw[:, :2], raw[:, 0] - 2 * raw[:, 1]]) * 10.0 ** np.array(powers)
    with pytest.raises(ValueError, match="have rank 2 in float64 precision"):
        whiten(Dataset(dependent, np.ones((7, 1))))


def test_single_precision_is_not_taken_for_double():
    """Rank 2 in float32: three of five whitened inputs would be rounding noise."""
    random = np.random.default_rng(0)
    low = (random.normal(size=(9, 2)) @ random.normal(size=(2, 5))).astype(np.float32)
    with pytest.raises(ValueError, match="rank 2 in float32 precision"):
        whiten(Dataset(low, np.ones((9, 1))))
    with pytest.raises(ValueError, match="rank 2 in float16 precision"):
        whiten(Dataset(low.astype(np.float16), np.ones((9, 1))), precision=np.float16)
    exact = np.array([[1.0, 2.0**24 - 1], [1.0, 2.0**24], [1.0, 2.0**24 + 2]])  # whole numbers are what they are
    assert whiten(Dataset(exact, np.ones((3, 1)))).n_inputs == 2
    with pytest.raises(TypeError, match="precision must be a floating-point type"):
        whiten(Dataset(exact, np.ones((3, 1))), precision=int)
