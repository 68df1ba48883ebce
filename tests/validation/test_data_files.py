"""A user's data: both formats, every way to get them wrong with the line named, and whitening."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import Dataset, hierarchical_dataset
from validation import load_dataset, save_dataset, whiten

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
