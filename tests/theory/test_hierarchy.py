"""The semantic tree against its definition, and its exact singular structure against LAPACK and exact arithmetic."""

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from theory import Dataset, hierarchical_dataset, hierarchical_structure, tree_distance

EPS = np.finfo(float).eps


def test_paper_data_set():
    data = hierarchical_dataset()
    assert data.names == ("dog", "cat", "sparrow", "penguin", "pine", "oak", "rose", "lily")
    assert np.array_equal(data.inputs, np.eye(8))
    assert data.targets.shape == (8, 15)
    root, animals, plants, mammals, birds, trees, flowers = data.targets.T[:7]
    assert root.all()
    assert np.array_equal(animals, [1, 1, 1, 1, 0, 0, 0, 0])
    assert np.array_equal(plants, 1 - animals)
    assert np.array_equal(mammals + birds, animals)
    assert np.array_equal(trees + flowers, plants)
    assert np.array_equal(mammals, [1, 1, 0, 0, 0, 0, 0, 0])
    assert np.array_equal(data.targets.T[7:], np.eye(8))


@given(st.integers(1, 6))
def test_targets_count_common_ancestors(levels):
    """y_i . y_j is the number of nodes on both paths: levels + 1 less the height of the lowest common ancestor."""
    data = hierarchical_dataset(levels)
    n = 2**levels
    paths = [{(depth, leaf >> (levels - depth)) for depth in range(levels + 1)} for leaf in range(n)]
    common = np.array([[len(a & b) for b in paths] for a in paths])
    assert data.targets.shape == (n, 2 ** (levels + 1) - 1)
    assert np.array_equal(data.targets @ data.targets.T, common)
    assert np.array_equal(levels + 1 - tree_distance(levels), common)


@given(st.integers(1, 6))
def test_structure_is_the_svd(levels):
    data, exact = hierarchical_dataset(levels), hierarchical_structure(levels)
    n = len(data)
    # products of n terms of size <= s_max: rounding n eps s_max
    tolerance = 4 * n * EPS * exact.values[0]
    assert np.allclose(exact.left * exact.values @ exact.right.T, data.syx, rtol=0, atol=tolerance)
    assert np.allclose(exact.left.T @ exact.left, np.eye(n), rtol=0, atol=tolerance)
    assert np.allclose(exact.right.T @ exact.right, np.eye(n), rtol=0, atol=tolerance)
    assert np.allclose(np.linalg.svd(data.syx, compute_uv=False), exact.values, rtol=0, atol=tolerance)
    assert np.array_equal(np.bincount(exact.levels), [1, *(2 ** (level - 1) for level in range(1, levels + 1))])


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_singular_values_are_exact(levels):
    """The characteristic polynomial of the integer matrix Y Y^T has the stated roots with the stated multiplicities."""
    targets = sympy.Matrix(hierarchical_dataset(levels).targets.astype(int))
    roots = sympy.roots((targets * targets.T).charpoly().as_expr())
    expected = {2 ** (levels + 1) - 1: 1}
    for level in range(1, levels + 1):
        value = 2 ** (levels + 1 - level) - 1
        expected[value] = expected.get(value, 0) + 2 ** (level - 1)
    assert {int(root): count for root, count in roots.items()} == expected


def test_three_levels_unless_told_otherwise():
    assert np.array_equal(hierarchical_structure().values, hierarchical_structure(3).values)
    assert np.array_equal(tree_distance(), tree_distance(3))
    assert len(hierarchical_dataset()) == 8


def test_without_drops_rows_and_keeps_names():
    data = hierarchical_dataset().without(["dog", "lily"])
    assert data.names == ("cat", "sparrow", "penguin", "pine", "oak", "rose")
    assert np.array_equal(data.inputs, np.eye(8)[1:7])
    assert hierarchical_dataset().without("dog").names[0] == "cat"


def test_moments():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    data = Dataset(x, y)
    assert data.names == tuple(f"sample-{i}" for i in range(5))
    assert (data.n_inputs, data.n_outputs, len(data)) == (3, 2, 5)
    assert np.allclose(data.syx, sum(np.outer(b, a) for a, b in zip(x, y, strict=True)))
    assert np.allclose(data.sxx, sum(np.outer(a, a) for a in x))


def test_arrays_are_copied_and_read_only():
    x = np.eye(2)
    data = Dataset(x, np.eye(2))
    x[0, 0] = 5
    assert data.inputs[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        data.targets[0, 0] = 2


@pytest.mark.parametrize(
    ("inputs", "targets", "names", "sentence"),
    [
        (np.eye(2), np.eye(3), (), r"inputs \(2\), targets \(3\) must have the same number of rows"),
        (np.array([[np.nan]]), np.eye(1), (), r"inputs holds a non-finite value \(nan at index \(0, 0\)\)"),
        (np.eye(1), np.array([[np.inf]]), (), "targets holds a non-finite value"),
        (np.ones(2), np.eye(2), (), "inputs must have 2 dimension"),
        (np.ones((0, 2)), np.ones((0, 2)), (), "inputs is empty"),
        (np.eye(2), np.eye(2), ("a",), "names has 1 entries, but there are 2 samples"),
        (np.eye(2), np.eye(2), ("a", "a"), "names must be different, but 'a' is repeated"),
    ],
)
def test_bad_data_is_refused(inputs, targets, names, sentence):
    with pytest.raises(ValueError, match=sentence):
        Dataset(inputs, targets, names)


def test_non_numeric_data_is_refused():
    with pytest.raises(TypeError, match="inputs must be an array of real numbers"):
        Dataset(np.array([["a"]]), np.eye(1))


@pytest.mark.parametrize("function", [hierarchical_dataset, hierarchical_structure, tree_distance])
def test_bad_levels_are_refused(function):
    with pytest.raises(ValueError, match="levels must be at least 1, but 0 was given"):
        function(0)


def test_unknown_sample_is_refused():
    with pytest.raises(KeyError, match="no sample is called 'wolf'; there are dog, cat"):
        hierarchical_dataset().index("wolf")


def names_of(given):
    """Return the names read off `given`, of any type: the type checker of the tests lets only tuples of text pass."""
    data = object.__new__(Dataset)
    object.__setattr__(data, "names", given)
    return data._given_names()


def test_names_of_bytes_are_text_and_missing_ones_are_refused():
    assert names_of(np.array([b"dog", "ké".encode()], dtype=object)) == ("dog", "ké")
    for missing in (None, float("nan")):
        with pytest.raises(TypeError, match=r"entry 1 is .*, a missing value"):
            names_of(np.array(["dog", missing], dtype=object))
    with pytest.raises(ValueError, match="bytes that are not text"):
        names_of([b"dog", b"\xff"])
