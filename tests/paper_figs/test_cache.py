"""Kept results: recalled by key and code version, recomputed with a note when damaged, never lost by a kill."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from paper_figs import cache as cache_module
from paper_figs.cache import ResultCache, code_version

ARRAY = xr.DataArray(
    np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32),
    {"epoch": [0, 1, 2], "query": ["dog", "cat"], "level": ("query", [True, False]), "damping": 0.1},
    ("epoch", "query"),
    "influence",
    {"n_beta": 1e3, "names": ["a", "b"], "store": None, "seed": np.int64(3)},
)
VALUE = xr.Dataset({"a": (("x", "y"), np.random.default_rng(0).normal(size=(50, 40)))})


def stored_file(folder):
    (path,) = folder.rglob("*.npz")
    return path


def value(cache, name, settings, computed):
    """Return the number kept under a key, or else `computed`."""
    return int(cache.get(name, settings, lambda: xr.DataArray(computed)))


@pytest.mark.parametrize("kept", [VALUE, ARRAY, ARRAY.rename(None), ARRAY.to_dataset(), xr.DataArray(np.nan)])
def test_what_comes_back_is_what_was_kept(tmp_path, kept):
    ResultCache(tmp_path).get("a", "settings", lambda: kept)
    again = ResultCache(tmp_path).get("a", "settings", lambda: None)
    assert type(again) is type(kept)
    assert again.identical(kept)
    assert [again.coords[name].dtype for name in again.coords] == [kept.coords[name].dtype for name in kept.coords]


@pytest.mark.parametrize("odd", [xr.DataArray(np.array([object()])), xr.DataArray(1, attrs={"model": object()})])
def test_nothing_is_pickled(tmp_path, odd):
    with pytest.raises(TypeError, match=r"are kept"):
        ResultCache(tmp_path).get("a", "settings", lambda: odd)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_result_is_computed_once(tmp_path):
    calls = []
    for _ in range(2):
        cache = ResultCache(tmp_path)
        assert cache.get("a", ("settings", 1), lambda: calls.append(1) or VALUE).identical(VALUE)
    assert len(calls) == 1


@pytest.mark.parametrize("other", [("b", "settings"), ("a", "other settings")])
def test_another_name_or_other_settings_are_another_result(tmp_path, other):
    cache = ResultCache(tmp_path)
    assert [value(cache, *key, k) for k, key in enumerate([("a", "settings"), other, ("a", "settings")])] == [0, 1, 0]


def test_other_code_is_another_result(tmp_path, monkeypatch):
    cache = ResultCache(tmp_path)
    assert value(cache, "a", "settings", 1) == 1
    monkeypatch.setattr(cache_module, "code_version", lambda: "another")
    assert value(cache, "a", "settings", 2) == 2


def test_the_code_version_covers_what_computes_and_not_what_draws(tmp_path, monkeypatch):
    for package in ("theory", "numerics", "validation", "paper_figs"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "module.py").write_text("x = 1\n")
    (tmp_path / "paper_figs" / "figure_02.py").write_text("x = 1\n")
    monkeypatch.setattr(cache_module, "__file__", str(tmp_path / "paper_figs" / "cache.py"))
    versions = [code_version.__wrapped__()]
    for changed in ("theory/module.py", "numerics/module.py", "validation/module.py", "paper_figs/module.py"):
        (tmp_path / changed).write_text("x = 2\n")
        versions.append(code_version.__wrapped__())
    assert len(set(versions)) == 5
    (tmp_path / "paper_figs" / "figure_02.py").write_text("x = 2\n")
    assert code_version.__wrapped__() == versions[-1]


def test_damage_anywhere_is_found_and_computed_again_with_a_note(tmp_path):
    ResultCache(tmp_path).get("a", "settings", lambda: VALUE)
    path = stored_file(tmp_path)
    whole, rng = path.read_bytes(), random.Random(0)
    damaged = [whole[:0], whole[:100], whole[: len(whole) // 2], b"not an archive"]
    for _ in range(40):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        notes = []
        again = ResultCache(tmp_path, notes.append).get("a", "settings", lambda: VALUE)
        assert again.identical(VALUE)
        assert notes == ["The stored result 'a' is damaged; computing it again."]
        assert stored_file(tmp_path).read_bytes() == whole, "the repaired result is stored"


def test_without_folder_nothing_is_kept():
    cache = ResultCache(None)
    assert [value(cache, "a", "settings", k) for k in (1, 2)] == [1, 2]


def test_a_failed_computation_is_not_kept(tmp_path):
    cache = ResultCache(tmp_path)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", "settings", lambda: 1 / 0)
    assert value(cache, "a", "settings", 1) == 1


# Only the cache is imported, not the package with all of torch.
KILLED = """
import sys, time, types
from pathlib import Path
package = types.ModuleType("paper_figs")
package.__path__ = [sys.argv[2]]
sys.modules["paper_figs"] = package
import xarray as xr
from paper_figs.cache import ResultCache
cache = ResultCache(Path(sys.argv[1]))
print(int(cache.get("first", "settings", lambda: xr.DataArray(1))), flush=True)
cache.get("second", "settings", lambda: time.sleep(60))
"""


def test_a_killed_run_keeps_what_was_finished(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(cache_module.__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "1\n"
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = ResultCache(tmp_path)
    assert value(cache, "first", "settings", 2) == 1
    assert value(cache, "second", "settings", 3) == 3


def test_old_results_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_KEPT_BYTES", 3000)
    cache = ResultCache(tmp_path)
    for k in range(10):
        cache.get("a", k, lambda: xr.DataArray(np.random.default_rng(0).normal(size=100)))
        os.utime(cache.folder("a", k).with_suffix(".npz"), (k, k))
    parts = cache.folder("parts", "old")
    parts.mkdir(parents=True)
    (parts / "part").write_bytes(b"0" * 5000)
    os.utime(parts, (0, 0))
    cache.shrink()
    left = list(tmp_path.rglob("*.npz"))
    assert 0 < sum(path.stat().st_size for path in left) <= 3000
    assert cache.folder("a", 9).with_suffix(".npz") in left, "the newest stay"
    assert not parts.exists()


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_a_note_and_not_the_result(tmp_path, monkeypatch):
    notes = []
    cache = ResultCache(tmp_path, notes.append)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        assert value(cache, "a", "settings", 1) == 1
    assert notes == ["The result 'a' cannot be kept (No space left on device); a later run computes it again."]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing half-written stays"


TWO = """
import sys
from pathlib import Path
import xarray as xr
from paper_figs.cache import ResultCache
cache = ResultCache(Path(sys.argv[1]), lambda note: sys.exit(note))
for k in range(30):
    found = cache.get("a", k, lambda: xr.DataArray([float(k)] * 2000))
    assert (found == k).all() and found.size == 2000, k
"""


def test_two_runs_share_a_folder(tmp_path):
    root = str(Path(cache_module.__file__).parents[1])
    runs = [subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path)], cwd=root) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(list(tmp_path.rglob("*.npz"))) == 30
    assert not list(tmp_path.rglob("*.partial"))


def test_a_computation_may_keep_its_own_parts_under_the_same_key(tmp_path, monkeypatch):
    cache = ResultCache(tmp_path)
    folder = cache.folder("a sweep", "settings")
    assert folder == ResultCache(tmp_path).folder("a sweep", "settings")
    assert folder.parent.parent == tmp_path
    assert folder != cache.folder("a sweep", "other settings")
    monkeypatch.setattr(cache_module, "code_version", lambda: "another")
    assert folder != cache.folder("a sweep", "settings")
    assert ResultCache(None).folder("a sweep", "settings") is None
