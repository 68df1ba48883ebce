"""Processes killed, workers lost and disks full: nothing finished is lost, and nothing half-written is read."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import xarray as xr

from numerics import CheckpointRecorder, ModuleCheckpoints, TorchModel, WorkerLost
from numerics.executors import run_tasks
from numerics.stores import ResultStore, write_whole
from theory import hierarchical_dataset
from validation import save_dataset

SWEEP = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from numerics import LeaveOneOutCorrelation, SweepGrid, TrainingConfig, leave_one_out, sweep, train
from theory import hierarchical_dataset
data, config = hierarchical_dataset(), TrainingConfig(hidden=4, epochs=200, checkpoint_every=100)
measure = LeaveOneOutCorrelation(leave_one_out(data, config))
grid = SweepGrid([1e-4], list(np.linspace(20.0, 60.0, int(sys.argv[2]))), [500.0], chains=[2], draws=[400])
with ThreadPoolExecutor(1) as threads:
    found = sweep(data, train(data, config).checkpoints, grid, measure=measure, executor=threads, store=sys.argv[1],
                  progress=lambda _: print("done", flush=True))
found.to_netcdf(sys.argv[3], engine="h5netcdf")
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_sweep_killed_with_all_its_threads_goes_on_where_it_was(tmp_path):
    """Kill -9 of the whole process after the second of eight settings; the rerun gives what an unbroken run gives."""
    killed = start(SWEEP, tmp_path / "store", 8, tmp_path / "none.nc")
    for _ in range(2):
        assert killed.stdout.readline() == "done\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.json")}
    assert 3 <= len(kept) <= 9  # the header, and each setting that was reported
    for store in ("store", "whole"):
        again = start(SWEEP, tmp_path / store, 8, tmp_path / f"{store}.nc")
        assert again.communicate()[0].count("done") == 8
    for name, written in kept.items():
        assert (tmp_path / "store" / name).stat().st_mtime_ns == written, "a finished setting was computed again"
    found = [xr.load_dataset(tmp_path / f"{store}.nc", engine="h5netcdf") for store in ("store", "whole")]
    assert found[0].identical(found[1])


@pytest.mark.slow  # a dozen processes
def test_figures_killed_at_any_time_leave_whole_files(tmp_path):
    """Kill -9 when the first result is kept; what stands in the folder is whole, and the rerun ends well."""
    command = [sys.executable, "-m", "paper_figs", "3", "--quick", "--out", str(tmp_path)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob(".results/*/*.npz")) and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = {path: path.read_bytes() for path in tmp_path.glob(".results/*/*.npz")}
    assert kept
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is damaged" not in done.stdout
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len([path for path in tmp_path.iterdir() if path.is_file()]) == 4


def squared(x, folder):
    """Return x^2; the first worker that is given 3 dies of it, or each if there is no folder to remember in."""
    if x == 3 and (folder is None or not os.path.exists(f"{folder}/died")):
        if folder is not None:
            with open(f"{folder}/died", "w"):
                pass
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


class Squared:
    def __init__(self, folder=None):
        self.folder = folder

    def __call__(self, x):
        return squared(x, self.folder)


@pytest.mark.slow  # two clusters
@pytest.mark.filterwarnings("ignore")
def test_a_dask_worker_that_is_lost_once_costs_nothing_and_a_task_that_kills_all_ends_in_our_sentence(tmp_path):
    distributed = pytest.importorskip("distributed")
    once, always = {}, {}
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        cluster.scheduler.allowed_failures = 1
        run_tasks(Squared(str(tmp_path)), range(5), once.__setitem__, client.get_executor())
        with pytest.raises(WorkerLost, match="What was finished before has been handed over"):
            run_tasks(Squared(), range(5), always.__setitem__, client.get_executor())
    assert once == {k: k * k for k in range(5)}
    assert 3 not in always
    assert always.items() <= once.items()


@pytest.fixture
def room_for_1_kb():
    """Let writing more than 1 kB into a file fail, as on a full disk; a real one would have to be mounted."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_writing_to_a_full_disk_leaves_the_older_file(tmp_path, room_for_1_kb):
    path = tmp_path / "result"
    write_whole(path, "older")
    with pytest.raises(OSError, match="File too large"):
        write_whole(path, "x" * 5000)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_on_a_full_disk_keeps_what_it_has(tmp_path, room_for_1_kb):
    store = ResultStore(tmp_path, {"seed": "0"}, "sweep")
    store.write("small", xr.Dataset({"value": 0.5}))
    with pytest.raises(OSError, match="File too large"):
        store.write("large", xr.Dataset({"value": ("x", np.arange(1000.0))}))
    assert float(store.read("small")["value"]) == 0.5
    assert store.read("large") is None
    assert not list(tmp_path.glob("*.partial"))


def test_a_recorder_on_a_full_disk_leaves_whole_checkpoints(tmp_path, room_for_1_kb):
    small, large = torch.nn.Linear(2, 2), torch.nn.Linear(100, 100)
    CheckpointRecorder(small, tmp_path).save(1)
    with pytest.raises(OSError, match="File too large"):
        CheckpointRecorder(large, tmp_path, resume=True).save(2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001.safetensors"]
    model = TorchModel(small, lambda out, y: (out - y).square().sum(1))
    assert len(ModuleCheckpoints.load(tmp_path, model)) == 1


def test_data_on_a_full_disk_leave_no_half_file(tmp_path, room_for_1_kb):
    path = tmp_path / "white.npz"
    path.write_text("older")
    with pytest.raises(OSError, match="File too large"):
        save_dataset(path, hierarchical_dataset(5))
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]
