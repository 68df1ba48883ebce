"""Parts of the checkpoints on executors: the bits of one call, whatever runs them, and errors that come through."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr

from numerics import (
    SGLD,
    SamplerDiverged,
    TrainingConfig,
    UnstableStep,
    bayesian_influence,
    gradient_kernel,
    hessian_influence,
    over_checkpoints,
    sample,
    train,
)
from theory import hierarchical_dataset

DATA = hierarchical_dataset(levels=2)
RUN = train(DATA, TrainingConfig(hidden=5, sigma=0.05, epochs=900, checkpoint_every=100, lr=0.1)).checkpoints
QUICK = SGLD(step_size=1e-4, n_beta=50.0, localization=500.0)


@pytest.mark.parametrize(
    ("measure", "settings"),
    [
        (bayesian_influence, {"sampler": QUICK, "chains": 2, "draws": 30, "workers": 1}),
        (bayesian_influence, {"sampler": [QUICK, SGLD(1e-5, 50.0, 50.0)], "chains": 2, "draws": 30, "workers": 1}),
        (sample, {"sampler": QUICK, "chains": 2, "draws": 5, "workers": 1}),
        (hessian_influence, {"relative_damping": [0.1, 1.0]}),
        (gradient_kernel, {}),
    ],
    ids=["influence", "settings", "draws", "hessian", "kernel"],
)
@pytest.mark.parametrize("parts", [1, 3, 99])
def test_parts_change_no_bit(measure, settings, parts):
    done = []
    with ThreadPoolExecutor(2) as threads:
        joined = over_checkpoints(measure, DATA, RUN, parts=parts, executor=threads, progress=done.append, **settings)
    whole = measure(DATA, RUN, **settings)
    assert sum(done) == len(RUN)
    assert dict(joined.sizes) == dict(whole.sizes)
    for name in whole if hasattr(whole, "data_vars") else [...]:
        np.testing.assert_array_equal(joined[name], whole[name])
        assert joined[name].dims == whole[name].dims
    assert xr.Dataset(attrs=joined.attrs).identical(xr.Dataset(attrs=whole.attrs))


def test_fresh_processes_change_no_bit():
    settings = {"sampler": QUICK, "chains": 2, "draws": 30, "workers": 1}
    joined = over_checkpoints(bayesian_influence, DATA, RUN, parts=2, **settings)
    np.testing.assert_array_equal(joined["covariance"], bayesian_influence(DATA, RUN, **settings)["covariance"])


def test_errors_come_through():
    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(ValueError, match="parts must be at least 1"):
            over_checkpoints(gradient_kernel, DATA, RUN, parts=0, executor=threads)
        with pytest.raises(UnstableStep, match="outside the stable range"):
            over_checkpoints(sample, DATA, RUN, executor=threads, sampler=SGLD(1.0, 50.0, 500.0))
    # Across processes an exception arrives by pickle.
    error = pickle.loads(pickle.dumps(SamplerDiverged("chain 0 diverged.", 1, 400.0, 0, 7)))
    assert (str(error), error.setting, error.epoch, error.draw) == ("chain 0 diverged.", 1, 400.0, 7)
