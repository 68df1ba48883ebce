"""Whatever is in a file, every reader reads it or refuses it in a sentence: files are cut, changed and mixed at random.

Each kind is damaged in `INPUTS` ways by hypothesis, besides those that a reader's own tests try. A reader
may not raise another class, warn, hang, or hand on a library's words without saying which file is meant.
"""

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from numerics import (
    SGLD,
    ChainState,
    DamagedResultWarning,
    ModuleCheckpoints,
    Samples,
    TokenDraws,
    TorchModel,
    bayesian_influence,
)
from numerics.stores import ResultStore
from paper_figs.cache import ResultCache
from validation import read_dataset

INPUTS = 60  # of each kind of file; `make validate-full` tries ten times as many
MODEL = TorchModel(torch.nn.Linear(2, 2, bias=False).double(), lambda out, y: (out - y).square().sum(1))
SAMPLES = Samples(torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64), ("a", "b"))
WEIGHTS = ModuleCheckpoints(np.array([0.0]), MODEL, torch.full((1, 4), 0.1, dtype=torch.float64))
SAMPLER = SGLD(1e-2, n_beta=10.0, localization=10.0)


def sampled(store):
    return bayesian_influence(SAMPLES, WEIGHTS, SAMPLER, chains=2, draws=20, store=store)


def checkpoint(path):
    run = ModuleCheckpoints.load(path, MODEL, epochs=[0])
    return run.weights_at(0)


def write_table(path):
    path.write_text("name;x1;x2;y1\ndog;1,0;0;2,5\ncat;0;1;1e-3\n")


def write_npz(path):
    np.savez(path, inputs=np.eye(2), targets=np.ones((2, 1)), names=np.array(["a", "b"]))


def write_netcdf(path):
    arrays = {"inputs": (("pet", "p"), np.eye(2)), "targets": (("pet", "o"), [[3.0], [2.0]])}
    xr.Dataset(arrays).to_netcdf(path, engine="h5netcdf")


def write_index(path):
    path.mkdir()
    save_file({"weight": torch.zeros(2, 2)}, path / "one.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": "one.safetensors"}}))


def write_draws(path):
    path.mkdir()
    call = {"key": "k", "epochs": [0.0], "chains": 1, "draws": 2, "shape": [2, 3], "attrs": {"n_beta": 1.0}}
    (path / "call.json").write_text(json.dumps(call))


def write_store(path):
    ResultStore(path, {"seed": "0"}, "sweep").write("a", xr.Dataset({"value": ("x", [0.5, 1.5])}))


def write_state(path):
    ChainState("f" * 16, [slice(0, 2)], [{"weights": torch.zeros(2, 4), "draw": torch.tensor(3)}]).save(path)


# kind -> (name of the file, how it is written, how it is read, the file that is damaged if it lies in a folder)
READERS = {
    "csv": ("d.csv", write_table, read_dataset, None),
    "tsv": ("d.tsv", write_table, read_dataset, None),
    "npz": ("d.npz", write_npz, read_dataset, None),
    "netcdf": ("d.nc", write_netcdf, read_dataset, None),
    "safetensors": ("step-1.safetensors", lambda p: save_file({"weight": torch.zeros(2, 2)}, p), checkpoint, None),
    "state dictionary": ("step-1.pt", lambda p: torch.save({"weight": torch.zeros(2, 2)}, p), checkpoint, None),
    "sharded checkpoint": ("step-1", write_index, checkpoint, "model.safetensors.index.json"),
    "chains": ("chains.pt", write_state, ChainState.load, None),
    "influence store": ("bif.npz", sampled, sampled, None),
    "draws of tokens": ("draws", write_draws, TokenDraws.open, "call.json"),
    "store of a sweep": ("sweep", write_store, lambda p: ResultStore(p, {"seed": "0"}, "sweep"), "sweep.json"),
}
PIECES = st.binary(max_size=4) | st.sampled_from(
    [b"\0", b"\xff", b"{", b"]", b'"', b"\n", b"1e999", b"NaN", b"-1", b"PK"]
)
EDITS = st.lists(
    st.tuples(st.sampled_from(["cut", "drop", "put", "swap"]), st.floats(0, 1), st.floats(0, 1), PIECES),
    min_size=1,
    max_size=4,
)


def damaged(content, edits):
    """Return the bytes after some of them were cut, dropped, put in or overwritten, one edit after another."""
    for what, where, extent, piece in edits:
        at = int(where * len(content))
        end = at + int(extent * 16)
        if what == "cut":
            content = content[:at]
        elif what == "drop":
            content = content[:at] + content[end:]
        elif what == "put":
            content = content[:at] + piece + content[at:]
        else:
            content = content[:at] + piece + content[at + len(piece) :]
    return content


@cache
def good_file(kind):
    name, write, read, _ = READERS[kind]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        read(Path(folder) / name)
        return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def read_or_refused(kind, edits):
    name, _, read, inside = READERS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        for part, content in good_file(kind).items():
            (Path(folder) / part).parent.mkdir(exist_ok=True)
            (Path(folder) / part).write_bytes(content)
        file = path / inside if inside else path
        file.write_bytes(damaged(file.read_bytes(), edits))
        try:
            read(path)
        except (ValueError, TypeError) as error:
            sentence = str(error)
            assert name.split(".")[0] in sentence or path.name in sentence, sentence


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=INPUTS)
@given(edits=EDITS)
@example(edits=[("cut", 0.0, 0.0, b""), ("put", 0.0, 0.0, b"1e999")])  # JSON, but a number
def test_a_damaged_file_is_read_or_refused_in_a_sentence(kind, edits):
    read_or_refused(kind, edits)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=10 * INPUTS)
@given(edits=EDITS)
def test_ten_times_as_many(kind, edits):
    read_or_refused(kind, edits)


@settings(max_examples=INPUTS)
@given(edits=EDITS)
def test_a_damaged_result_is_none_or_the_same(edits):
    """Stores and caches go further: what they hand out is what was written, bit for bit, or nothing."""
    value = xr.Dataset({"value": ("x", [0.5, 1.5])})
    with tempfile.TemporaryDirectory() as folder:
        store = ResultStore(folder, {"seed": "0"}, "sweep")
        store.write("a", value)
        path = Path(folder) / "a.json"
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, edits))
        if path.read_bytes() == whole:
            return
        with pytest.warns(DamagedResultWarning):
            assert store.read("a") is None


@settings(max_examples=INPUTS)
@given(edits=EDITS)
def test_a_damaged_kept_result_is_computed_again(edits):
    value = xr.DataArray([0.5, 1.5], dims="x")
    with tempfile.TemporaryDirectory() as folder:
        cache = ResultCache(Path(folder))
        cache.get("a", "b", lambda: value)
        path = cache.folder("a", "b").with_suffix(".npz")
        path.write_bytes(damaged(path.read_bytes(), edits))
        assert cache.get("a", "b", lambda: value).identical(value)
