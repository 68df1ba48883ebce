"""A model that threads share gives each of them what it gives one alone, bit for bit."""

import functools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from numerics import (
    SGLD,
    ModuleCheckpoints,
    Samples,
    TorchModel,
    TrainingConfig,
    bayesian_influence,
    gauss_newton_influence,
    gradient_kernel,
    hessian_influence,
    hidden_representations,
    leave_one_out,
    over_checkpoints,
)

nn = torch.nn
EPOCHS, THREADS = 4, 4


@pytest.fixture(autouse=True)
def hasty():
    """Switch threads as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, activation="gelu")
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.layer(x).mean(1))


def normalised():
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        module[1].running_mean.normal_()
        module[1].running_var.uniform_(0.5, 2)
    return module


def shared(make, shape, *, states):
    """Return checkpoints of one model object, each with buffers of its own or none, and samples."""
    torch.manual_seed(0)
    model = TorchModel(make().double(), functools.partial(nn.functional.cross_entropy, reduction="none"))
    samples = Samples(torch.randn(6, *shape, dtype=torch.float64), torch.randint(3, (6,)))
    start = model.initial()
    weights = start + 0.3 * torch.randn(EPOCHS, len(start), dtype=torch.float64)
    changed = {}
    if states:
        mean = model.state["1.running_mean"]
        changed["1.running_mean"] = torch.stack([mean + 0.1 * t for t in range(EPOCHS)])
    return ModuleCheckpoints(np.arange(EPOCHS), model, weights, changed), samples


def spread(measure, **settings):
    def on(run, samples, pool):
        found = over_checkpoints(measure, samples, run, parts=EPOCHS, executor=pool, **settings)
        return found["influence"].values if "influence" in getattr(found, "data_vars", ()) else found.values

    return on


def left_out(run, samples, pool):
    config = TrainingConfig(epochs=4, checkpoint_every=1, lr=0.1, batch_size=3)
    return leave_one_out(samples, config, model=run.model, initial=run.weights[0], executor=pool).values


SAMPLER = SGLD(1e-5, n_beta=10.0, localization=10.0)
JOBS = {
    "gradient_kernel": spread(gradient_kernel),
    "hessian_influence": spread(hessian_influence, damping=3.0),
    "gauss_newton_influence": spread(gauss_newton_influence, damping=3.0),
    "bayesian_influence": spread(bayesian_influence, sampler=SAMPLER, draws=8, workers=2, dtype=torch.float64),
    "leave_one_out": left_out,
}
CASES = {
    "buffers of each checkpoint": (normalised, (4,), True),
    "one module": (normalised, (4,), False),
    "attention": (Attending, (3, 4), False),
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("case", CASES)
def test_threads_do_not_see_each_other(case, job):
    make, shape, states = CASES[case]
    run, samples = shared(make, shape, states=states)
    with ThreadPoolExecutor(1) as alone:
        expected = JOBS[job](run, samples, alone)
    with ThreadPoolExecutor(THREADS) as pool:
        np.testing.assert_array_equal(JOBS[job](run, samples, pool), expected)


def test_layers_are_read_in_their_own_thread():
    run, samples = shared(normalised, (4,), states=False)
    measure = spread(functools.partial(hidden_representations, layer="0"))
    with ThreadPoolExecutor(1) as alone, ThreadPoolExecutor(THREADS) as pool:
        np.testing.assert_array_equal(measure(run, samples, pool), measure(run, samples, alone))


def test_kernels_of_attention_are_as_they_were():
    flags = torch.backends.cuda
    before = flags.flash_sdp_enabled(), flags.mem_efficient_sdp_enabled(), flags.math_sdp_enabled()
    test_threads_do_not_see_each_other("attention", "hessian_influence")
    assert before == (flags.flash_sdp_enabled(), flags.mem_efficient_sdp_enabled(), flags.math_sdp_enabled())
