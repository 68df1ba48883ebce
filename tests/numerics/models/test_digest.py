"""Digests tell every pair of things apart with which something else would be computed, and no others."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

from numerics import MALA, SGLD, ModuleCheckpoints, Samples, TorchModel
from numerics.models.digest import digest

FACTOR = 1.0
ARRAY = xr.DataArray(np.zeros((1, 2, 2)), dims=("epoch", "source", "query"), coords={"epoch": [0], "query": ["a", "b"]})


def loss_with_a_global(outputs, targets):
    return FACTOR * (outputs - targets).square().sum(1)


class Scaled(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.linear, self.scale = torch.nn.Linear(2, 2), scale
        self.register_buffer("shift", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.linear(x) * self.scale + self.shift


class Doubled(Scaled):
    def forward(self, x):
        return 2 * super().forward(x)


def scaled(scale, kind=Scaled):
    torch.manual_seed(0)
    return kind(scale)


def test_values_are_told_apart():
    x = np.arange(6.0).reshape(2, 3)
    assert digest(x) == digest(np.asfortranarray(x)) == digest(torch.tensor(x))
    assert digest({"a": 1, "b": (None, "x")}) == digest({"a": 1, "b": [None, "x"]})
    different = [x, x.T, x.astype(np.float32), x + 1, x.ravel(), "x", ("x",), (("x",), ()), ("x", ()), None, 1, 1.0]
    different += [ARRAY, ARRAY + 1, ARRAY.rename(query="q"), SGLD(), MALA(), SGLD(1e-3), torch.nn.Linear(1, 1)]
    different += [functools.partial(torch.nn.functional.mse_loss, reduction="none"), torch.nn.functional.mse_loss]
    different += [torch.float32, torch.exp, torch.log, torch.zeros(2, dtype=torch.bfloat16), b"x", True]
    assert len({digest(value) for value in different}) == len(different)


def test_a_module_is_its_code_settings_parameters_and_buffers():
    base = scaled(1)
    shifted, moved, frozen = scaled(1), scaled(1), scaled(1)
    shifted.shift += 1
    with torch.no_grad():
        moved.linear.weight += 1
    hooked = scaled(1)
    hooked.register_forward_hook(lambda module, inputs, output: 2 * output)
    different = [base, scaled(2), scaled(1, Doubled), shifted, moved, hooked]
    assert len({digest(module) for module in different}) == len(different)
    assert digest(base) == digest(scaled(1))
    frozen.linear.bias.requires_grad_(False)
    assert digest(TorchModel(base)) != digest(TorchModel(frozen))


def test_a_loss_is_its_code_and_what_it_closes_over():
    def weighted(weight):
        return lambda outputs, targets: weight * (outputs - targets).square().sum(1)

    first, again, other = (TorchModel(scaled(1), weighted(weight)) for weight in (1.0, 1.0, 2.0))
    assert digest(first) == digest(again) != digest(other)
    table = torch.ones(2)
    by_table = weighted(table)
    before = digest(by_table)
    table += 1
    assert digest(by_table) != before


def test_a_global_that_a_function_names_counts(monkeypatch):
    before = digest(loss_with_a_global)
    assert digest(loss_with_a_global) == before
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    assert digest(loss_with_a_global) != before


def test_checkpoints_are_their_weights_and_states():
    model = TorchModel(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))
    weights = torch.ones(2, model.n_parameters)
    means = {"1.running_mean": torch.zeros(2, 2)}
    runs = [
        ModuleCheckpoints(np.array([0, 1]), model, weights),
        ModuleCheckpoints(np.array([0, 2]), model, weights),
        ModuleCheckpoints(np.array([0, 1]), model, 2 * weights),
        ModuleCheckpoints(np.array([0, 1]), model, weights, {"1.running_mean": means["1.running_mean"] + 1}),
    ]
    assert len({digest(run) for run in runs}) == len(runs)


def test_samples_are_their_numbers_and_names():
    x, y = torch.zeros(2, 1), torch.zeros(2, 1)
    present = torch.tensor([[True, False], [True, True]])
    all_of_them = [
        Samples(x, y),
        Samples(x, y, ("a", "b")),
        Samples({"x": x}, y),
        Samples((x, x), y),
        Samples(x, y, (), present),
    ]
    assert len({digest(samples) for samples in all_of_them}) == len(all_of_them)


def test_a_digest_is_the_same_in_another_process():
    code = (
        "import torch; from numerics.models.digest import digest; torch.manual_seed(0);"
        "print(digest((torch.nn.Linear(2, 2), {'a', 'b', 'c'}, lambda x: x + 1)))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] != ""


def test_what_cannot_be_recognised_again_is_refused():
    with pytest.raises(TypeError, match="a store cannot recognise"):
        digest(k for k in range(3))
