"""A device that cannot be used is refused in a sentence by whoever is told one."""

import numpy as np
import pytest
import torch

from numerics import SGLD, TrainingConfig, bayesian_influence, sample, train
from numerics.devices import usable_device
from theory import hierarchical_dataset

ABSENT = ["abacus", "meta", "cuda:999"]


@pytest.mark.parametrize("device", ABSENT)
def test_an_unusable_device_is_refused(device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used; try \"cpu\""):
        usable_device(device)


@pytest.mark.parametrize("measure", [sample, bayesian_influence])
@pytest.mark.parametrize("device", ABSENT)
def test_samplers_refuse_it_before_any_work(measure, device):
    data = hierarchical_dataset(2)
    run = train(data, TrainingConfig(epochs=2, checkpoint_every=2))
    with pytest.raises(ValueError, match="cannot be used"):
        measure(data, run.checkpoints, SGLD(1e-4, n_beta=10.0, localization=100.0), draws=4, device=device)


def test_a_usable_one_is_itself():
    assert usable_device(torch.device("cpu")) == torch.device("cpu")
    assert np.array_equal(torch.zeros(2, device=usable_device("cpu")).numpy(), np.zeros(2))
