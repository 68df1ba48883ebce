"""What figures share: settings, results computed once, and what is marked."""

import numpy as np
import pytest
import torch

from numerics import MALA, TrainingConfig, bayesian_influence, train
from paper_figs import FigureSettings, Results
from paper_figs.damping import indefinite
from paper_figs.results import computed_once


def test_indefinite_is_where_the_smallest_damped_eigenvalue_is_negative(results):
    marked = indefinite(results.hessian)
    lowest = results.hessian["min_eigenvalue"] / results.hessian["max_abs_eigenvalue"]
    for constant in marked["damping"].values:
        assert np.array_equal(marked.sel(damping=constant), lowest < -constant)
    assert not indefinite(results.gauss_newton).any()


def test_results_are_computed_once_for_each_run(results):
    calls = []

    @computed_once
    def data(given):
        calls.append(given)
        return len(calls)

    assert [data(results), data(results)] == [1, 1]
    assert data(Results(results.settings)) == 2


def test_settings_with_another_seed_are_another_key():
    assert repr(FigureSettings.seeded(0)) != repr(FigureSettings.seeded(1))
    for part in ("toy", "bias", "coefficients", "sweep"):
        assert (
            getattr(FigureSettings.seeded(5), part).seed
            == getattr(FigureSettings.seeded(5, quick=True), part).seed
            == 5
        )


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused(device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used"):
        FigureSettings(device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_sampling_on_a_gpu_gives_the_same_within_error(results):
    config = TrainingConfig(epochs=2000, checkpoint_every=1000)
    run = train(results.toy.dataset, config).checkpoints
    sampler = MALA(1e-6, 1e3, 5e3)
    found = [bayesian_influence(results.toy.dataset, run, sampler, draws=400, device=d) for d in ("cpu", "cuda")]
    difference = np.abs(found[0]["covariance"] - found[1]["covariance"])
    assert (difference < 6 * np.hypot(found[0]["standard_error"], found[1]["standard_error"])).all()
