"""Kept results: recalled by key and code version, recomputed with a note when damaged, never lost by a kill."""

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

VALUE = xr.Dataset({"a": (("x", "y"), np.random.default_rng(0).normal(size=(50, 40)))})


def stored_file(folder):
    (path,) = folder.rglob("output.pkl")
    return path


def test_a_result_is_computed_once(tmp_path):
    calls = []
    for _ in range(2):
        cache = ResultCache(tmp_path)
        assert cache.get("a", ("settings", 1), lambda: calls.append(1) or VALUE).identical(VALUE)
    assert len(calls) == 1


@pytest.mark.parametrize("other", [("b", "settings"), ("a", "other settings")])
def test_another_name_or_other_settings_are_another_result(tmp_path, other):
    cache = ResultCache(tmp_path)
    assert cache.get("a", "settings", lambda: 1) == 1
    assert cache.get(*other, lambda: 2) == 2
    assert cache.get("a", "settings", lambda: 3) == 1


def test_other_code_is_another_result(tmp_path, monkeypatch):
    cache = ResultCache(tmp_path)
    assert cache.get("a", "settings", lambda: 1) == 1
    monkeypatch.setattr(cache_module, "code_version", lambda: "another")
    assert cache.get("a", "settings", lambda: 2) == 2


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
    damaged = [whole[:0], whole[:100], whole[: len(whole) // 2], b"not a pickle"]
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
    assert [cache.get("a", "settings", lambda k=k: k) for k in (1, 2)] == [1, 2]


def test_a_failed_computation_is_not_kept(tmp_path):
    cache = ResultCache(tmp_path)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", "settings", lambda: 1 / 0)
    assert cache.get("a", "settings", lambda: 1) == 1


# Only the cache is imported, not the package with all of torch.
KILLED = """
import sys, time, types
from pathlib import Path
package = types.ModuleType("paper_figs")
package.__path__ = [sys.argv[2]]
sys.modules["paper_figs"] = package
from paper_figs.cache import ResultCache
cache = ResultCache(Path(sys.argv[1]))
print(cache.get("first", "settings", lambda: "kept"), flush=True)
cache.get("second", "settings", lambda: time.sleep(60))
"""


def test_a_killed_run_keeps_what_was_finished(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(cache_module.__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "kept\n"
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = ResultCache(tmp_path)
    assert cache.get("first", "settings", lambda: "lost") == "kept"
    assert cache.get("second", "settings", lambda: "computed") == "computed"


def test_old_results_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_KEPT_BYTES", 3000)
    cache = ResultCache(tmp_path)
    for k in range(10):
        cache.get("a", k, lambda: np.random.default_rng(0).normal(size=100))
    cache.shrink()
    assert sum(path.stat().st_size for path in tmp_path.rglob("output.pkl")) <= 3000


def test_a_computation_may_keep_its_own_parts_under_the_same_key(tmp_path, monkeypatch):
    cache = ResultCache(tmp_path)
    folder = cache.folder("a sweep", "settings")
    assert folder == ResultCache(tmp_path).folder("a sweep", "settings")
    assert folder.parent.parent == tmp_path
    assert folder != cache.folder("a sweep", "other settings")
    monkeypatch.setattr(cache_module, "code_version", lambda: "another")
    assert folder != cache.folder("a sweep", "settings")
    assert ResultCache(None).folder("a sweep", "settings") is None
