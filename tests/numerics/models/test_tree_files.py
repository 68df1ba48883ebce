"""Files of states: what is written comes back; a damaged or foreign file is refused, never read as another state."""

import builtins
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import ChainState
from numerics.models.tree_files import read_tree, write_tree

DTYPES = [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16]
TENSORS = st.builds(
    lambda shape, dtype, seed: torch.tensor(np.random.default_rng(seed).normal(size=shape) * 9).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 99),
)
NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
TREES = st.recursive(
    NUMBERS | TENSORS,
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.tuples(parts, parts)
        | st.dictionaries(st.text(max_size=3) | st.integers(), parts, max_size=3)
    ),
    max_leaves=8,
)


def same(a, b):
    """Whether two trees agree in kinds, types and every bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@settings(max_examples=200)
@given(tree=TREES)
def test_what_is_written_comes_back(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("trees") / "state"
    write_tree(path, "tests", tree)
    assert same(read_tree(path, "tests"), tree)
    assert [file.name for file in path.parent.iterdir()] == ["state"]


def test_views_and_shared_memory_come_back(tmp_path):
    base = torch.arange(6.0).view(2, 3)
    tree = [base, base.T, base[:, 1], base]
    write_tree(tmp_path / "state", "tests", tree)
    assert same(read_tree(tmp_path / "state", "tests"), tree)


def test_what_is_no_state_is_refused(tmp_path):
    with pytest.raises(
        TypeError, match="a state holds mappings, lists, tuples, tensors, numbers and text, but set was"
    ):
        write_tree(tmp_path / "state", "tests", {"a": {1}})
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_tree(tmp_path / "state", "tests")
    write_tree(tmp_path / "state", "tests", 1)
    with pytest.raises(ValueError, match="is a state of tests, not a saved state of chains"):
        ChainState.load(tmp_path / "state")


STATE = {"steps": 12, "weights": [torch.arange(5.0), torch.ones(2, 2, dtype=torch.float64)], "name": "é", "rate": 0.1}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("damage") / "state"
    write_tree(path, "tests", STATE)
    return path.read_bytes()


def refused_or_same(tmp_path_factory, content):
    """Whether a file is refused by our sentence; if it is read, it must hold the same state."""
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        found = read_tree(path, "tests")
    except ValueError as error:
        return "saved state of tests" in str(error)
    assert same(found, STATE)
    return False


def test_every_change_of_a_byte_is_noticed(tmp_path_factory, written):
    """All places, a bit each; blanks that pad the header are what may change into other blanks."""
    unnoticed = 0
    for place in range(len(written)):
        content = bytearray(written)
        content[place] ^= 1 << place % 8
        unnoticed += not refused_or_same(tmp_path_factory, bytes(content))
    assert unnoticed <= 8


def test_every_shorter_file_is_refused(tmp_path_factory, written):
    for length in range(len(written)):
        assert refused_or_same(tmp_path_factory, written[:length])


@settings(max_examples=1000)
@given(data=st.data())
def test_files_cut_and_joined_are_refused(tmp_path_factory, written, data):
    """Pieces left out, put twice, or replaced by noise; and noise alone."""
    a, b = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(written))])))
    middle = data.draw(st.sampled_from([b"", 2 * written[a:b]]) | st.binary(max_size=40))
    rest = data.draw(st.sampled_from([(written[:a], written[b:]), (b"", b"")]))
    content = rest[0] + middle + rest[1]
    assert refused_or_same(tmp_path_factory, content) or content == written


class Trap:
    """Its pickle sets a mark when it is read."""

    def __reduce__(self):
        return exec, ("import builtins; builtins.trapped = True",)


def test_no_pickle_is_opened(tmp_path):
    """A bare pickle, one in an archive as torch.save writes it, and the states that earlier versions saved."""
    (tmp_path / "bare").write_bytes(pickle.dumps(Trap()))
    with zipfile.ZipFile(tmp_path / "zipped", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    torch.save({"fingerprint": "", "batches": [], "contents": []}, tmp_path / "earlier")
    for name, match in (("bare", "or it is damaged"), ("zipped", "pickles"), ("earlier", "earlier versions")):
        with pytest.raises(ValueError, match=match):
            ChainState.load(tmp_path / name)
    assert not hasattr(builtins, "trapped")
