"""What the work holds at a time, measured in processes of their own, and the arithmetic of blocks."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from numerics import ModuleCheckpoints, Samples, TorchModel, gradient_kernel
from numerics.curvature import memory
from numerics.curvature.memory import allowed_bytes, blocks, counted_bytes

SETUP = """
import resource, sys
import numpy as np, torch
from numerics import *
torch.set_num_threads(1)
torch.manual_seed(0)
nn = torch.nn
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def checkpoints(model):
    return ModuleCheckpoints(np.array([0.0]), model, model.initial()[None])
"""
IMAGES = """
module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 3, padding=1))
samples = Samples(torch.randn(4, 1, 80, 80), torch.randn(4, 1, 80, 80))
model, before = TorchModel(module), peak()
found = gauss_newton_influence(samples, checkpoints(model), damping=10.0, method=METHOD, max_memory=2**26)
assert found["influence"].shape == (1, 1, 4, 4)
print(peak() - before)
"""
MANY = """
module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
samples = Samples(torch.randn(50_000, 4), torch.randint(3, (50_000,)))
few = Samples(samples.inputs[:5], samples.targets[:5], tuple("abcde"))
model = TorchModel(module, nn.CrossEntropyLoss(reduction="none"))
run = checkpoints(model)
before = peak()
settings = {"queries": few, "max_memory": 2**26}
assert gradient_kernel(samples, run, **settings).shape == (1, 50_000, 5)
assert tracin(samples, run, lr=0.1, **settings).shape == (1, 50_000, 5)
for measure in (gauss_newton_influence, hessian_influence):
    for method in ("dense", "matrix-free"):
        found = measure(samples, run, damping=5.0, method=method, **settings)["influence"]
        assert found.shape == (1, 1, 50_000, 5)
print(peak() - before)
"""


def growth(script):
    """Return by how many MiB the peak of a process grew."""
    done = subprocess.run([sys.executable, "-c", SETUP + script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


@pytest.mark.parametrize("method", ["dense", pytest.param("matrix-free", marks=pytest.mark.slow)])
def test_outputs_that_are_images_have_no_dense_curvature(method):
    """A dense Hessian of 6400 outputs takes 312 MiB a sample; 64 MiB are allowed here, and 3 x that is the bound.

    The allowance is of what the work holds; torch's allocator and the workspace of its convolutions come on top.
    """
    assert growth(IMAGES.replace("METHOD", repr(method))) < 3 * 64


def test_fifty_thousand_samples_of_a_small_net():
    """The results take below 10 MiB, and 50,000 gradients of 35 parameters 13; the rest is the 64 MiB allowed."""
    assert growth(MANY) < 3 * 64


@given(count=st.integers(1, 1000), each=st.integers(0, 10**6), allowed=st.integers(1, 10**9))
def test_blocks_cover_everything_once(count, each, allowed):
    found = blocks(count, each, allowed)
    assert [k for rows in found for k in range(rows.start, rows.stop)] == list(range(count))
    assert all(rows.stop - rows.start == 1 or (rows.stop - rows.start) * each <= allowed for rows in found)


def test_saved_tensors_are_counted_once():
    """Tanh and the product save their results or operands: y, of 80 bytes, by both, and x not at all."""
    x = torch.ones(10, dtype=torch.float64, requires_grad=True)
    with counted_bytes(besides=x) as kept:
        y = torch.tanh(x)
        z = y * y
    assert sum(kept.values()) == 80
    assert z.requires_grad


def test_results_that_no_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 100)
    model = TorchModel(torch.nn.Linear(2, 1))
    samples = Samples(torch.zeros(4, 2), torch.zeros(4, 1))
    run = ModuleCheckpoints(np.array([0.0]), model, torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"a kernel of 1 checkpoints x 4 sources x 4 queries would take .* GiB"):
        gradient_kernel(samples, run)


def test_what_is_allowed():
    cpu = torch.device("cpu")
    assert 0 < allowed_bytes(None, cpu) <= 2**30
    with pytest.raises(ValueError, match="max_memory must be at least 1, but 0 was given"):
        allowed_bytes(0, cpu)
