"""Checkpoints from a training loop: what is written is what the module held, whole or not at all."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open

from numerics import CheckpointRecorder, ModuleCheckpoints, Samples, TorchModel, log_spaced_steps


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.head = torch.nn.Linear(4, 2)
        self.head.weight.requires_grad_(False)
        self.register_buffer("hidden", torch.tensor([1, 2]), persistent=False)

    def forward(self, inputs):
        return self.head(self.norm(self.embed(inputs)))


def trained(folder, steps=25, **keywords):
    """Train with two lines of recording; return every state passed through."""
    torch.manual_seed(0)
    module, states = Net(), []
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    recorder = CheckpointRecorder(module, folder, **keywords)
    for _ in range(steps):
        states.append({name: value.clone() for name, value in module.state_dict().items()})
        recorder.step()
        optimiser.zero_grad()
        module(torch.randn(8, 3)).square().sum().backward()
        optimiser.step()
    recorder.save()
    states.append({name: value.clone() for name, value in module.state_dict().items()})
    return module, states


@pytest.mark.parametrize(
    ("at", "expected"),
    [(10, [0, 10, 20, 25]), ([3, 7], [3, 7, 25]), (None, [*range(11), 13, 16, 20, 25]), (25, [0, 25])],
)
def test_every_file_holds_the_state_of_its_step(tmp_path, at, expected):
    _, states = trained(tmp_path, at=at)
    files = sorted(os.listdir(tmp_path))
    assert files == [f"step-{step:06d}.safetensors" for step in expected]
    for step, name in zip(expected, files, strict=True):
        with safe_open(tmp_path / name, "pt") as file:
            assert file.metadata()["epoch"] == str(step)
            assert file.metadata()["stagewise_format"] == "stagewise-1"
            assert set(file.keys()) == {*states[step], "hidden"}
            for key, value in states[step].items():
                assert torch.equal(file.get_tensor(key), value)


def test_the_folder_is_read_as_checkpoints_with_their_buffers(tmp_path):
    module, states = trained(tmp_path, at=10)
    run = ModuleCheckpoints.load(tmp_path, TorchModel(module))
    np.testing.assert_array_equal(run.epochs, [0, 10, 20, 25])
    samples = Samples(torch.randn(5, 3), torch.randn(5, 2))
    for t, step in enumerate([0, 10, 20, 25]):
        module.load_state_dict(states[step])
        module.eval()
        expected = 0.5 * (module(samples.inputs) - samples.targets).square().sum(1)
        # float32, a dozen operations on numbers of order one
        torch.testing.assert_close(run.model_at(t).losses(run.weights_at(t), samples), expected, rtol=0, atol=1e-5)
    assert not torch.equal(run.state_at(0)["norm.running_mean"], run.state_at(3)["norm.running_mean"])


def test_a_loop_that_resumes_goes_on_counting(tmp_path):
    module = torch.nn.Linear(2, 2)
    CheckpointRecorder(module, tmp_path, at=[0, 5]).step()
    with pytest.raises(ValueError, match=r"holds checkpoints already \(step-000000.safetensors to step-000000"):
        CheckpointRecorder(module, tmp_path)
    with CheckpointRecorder(module, tmp_path, at=[0, 5], resume=True) as recorder:
        assert recorder.step(4) is None
        assert recorder.step().name == "step-000005.safetensors"
    assert sorted(os.listdir(tmp_path))[-1] == "step-000006.safetensors"


def test_a_block_that_fails_saves_nothing_more(tmp_path):
    def interrupted():
        with CheckpointRecorder(torch.nn.Linear(2, 2), tmp_path, at=5) as recorder:
            recorder.step()
            recorder.step()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == ["step-000000.safetensors"]


def test_wrappers_and_shared_weights_are_looked_through(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    compiled = torch.nn.Module()  # as torch.compile wraps modules, without its compiler
    compiled._orig_mod = module
    CheckpointRecorder(compiled, tmp_path).save()
    with safe_open(tmp_path / "step-000000.safetensors", "pt") as file:
        assert set(file.keys()) == {"0.weight", "1.weight"}
        assert torch.equal(file.get_tensor("1.weight"), module[0].weight)


def test_steps_are_spaced_evenly_on_a_logarithmic_scale():
    steps = log_spaced_steps(100_000)
    assert (steps[0], steps[1], steps[-1]) == (0, 1, 100_000)
    assert all(np.diff(steps) > 0)
    ratios = np.diff(np.log10(steps[steps.index(100) :]))
    np.testing.assert_allclose(ratios, 0.1, atol=0.5 / 100 * 2)  # rounding to whole steps above 100
    assert log_spaced_steps(1) == [0, 1]


SLOW = """
import sys, torch
from numerics import CheckpointRecorder
module = torch.nn.Linear(1000, 1000)
recorder = CheckpointRecorder(module, sys.argv[1], at=1)
print("ready", flush=True)
while True:
    recorder.step()
"""


def test_a_killed_loop_leaves_whole_files_only(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline()
    while len(list(tmp_path.glob("*.safetensors"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    module = torch.nn.Linear(1000, 1000)
    run = ModuleCheckpoints.load(tmp_path, TorchModel(module))
    assert len(run) >= 3
    assert all(torch.equal(run.weights_at(t), run.weights_at(0)) for t in range(len(run)))
    # What was being written is swept away when the loop goes on.
    (tmp_path / "step-999999.safetensors.1-2.partial").write_text("half")
    CheckpointRecorder(module, tmp_path, resume=True)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda path: CheckpointRecorder("module", path), TypeError, "module"),
        (lambda path: CheckpointRecorder(torch.nn.Linear(1, 1), path, at=0), ValueError, "at must be at least 1"),
        (lambda path: CheckpointRecorder(torch.nn.Linear(1, 1), path, at=[-1]), ValueError, "every step of at must"),
        (lambda path: CheckpointRecorder(torch.nn.Linear(1, 1), path, at=[1.5]), TypeError, "at"),
        (lambda path: CheckpointRecorder(torch.nn.Linear(1, 1), path, at=[]), ValueError, "at is empty"),
        (lambda path: CheckpointRecorder(torch.nn.Linear(1, 1), path).save(-1), ValueError, "number must be at least"),
        (lambda path: log_spaced_steps(0), ValueError, "last must be at least 1"),
    ],
)
def test_bad_input_is_refused(tmp_path, call, error, match):
    with pytest.raises(error, match=match):
        call(tmp_path)


def test_weights_that_diverged_and_files_for_folders_are_refused(tmp_path):
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.weight[0, 0] = torch.nan
    recorder = CheckpointRecorder(module, tmp_path / "run")
    with pytest.raises(ValueError, match="weight is not finite at step 0, so nothing was saved"):
        recorder.step()
    assert os.listdir(tmp_path / "run") == []
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder for checkpoints"):
        CheckpointRecorder(module, file)
