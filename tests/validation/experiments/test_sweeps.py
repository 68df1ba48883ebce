"""The sweep over the sampler's hyper-parameters: each setting is what the sampler gives alone, and it goes on."""

import numpy as np
import pytest
import xarray as xr

from numerics import RMSPropSGLD, bayesian_influence
from validation.experiments.sweeps import SweepSettings, leave_one_out_sweeps

SETTINGS = SweepSettings(
    step_sizes=(1e-4, 1e-2),
    n_betas=(1e2, 1e3),
    localizations=(1e2, 1e4),
    chains=(1, 2),
    draws=(20, 40),
    decays=(0.9,),
    stabilities=(1e-1, 1.0),
    side_step_sizes=(1e-5, 1e-4),
    side_chains=1,
    side_draws=20,
    processes=False,
)


@pytest.fixture(scope="module")
def swept(toy):
    return leave_one_out_sweeps(toy, SETTINGS)


@pytest.mark.parametrize("every", [1, 4])
def test_a_setting_of_the_sweep_is_what_the_sampler_gives_alone(toy, swept, every):
    if every > 1:
        swept = leave_one_out_sweeps(
            toy, SweepSettings(**{**vars(SETTINGS), "step_sizes": (1e-4, 1e-2), "n_betas": (1e3,), "every": every})
        )
    sampler = toy.settings.sampler
    found = swept.sel(step_size=1e-4, n_beta=1e3, localization=1e4, chains=2, draws=40)
    epochs = toy.epochs[::every]
    alone = bayesian_influence(
        toy.dataset,
        toy.checkpoints.at(epochs),
        RMSPropSGLD(1e-4, 1e3, 1e4, sampler.decay, sampler.stability),
        chains=2,
        draws=40,
        seed=SETTINGS.seed,
    )["influence"]
    different = ~np.eye(8, dtype=bool)
    retrained = toy.retrained.sel(epoch=epochs)
    pearson = np.corrcoef(alone.values[:, different].ravel(), retrained.values[:, different].ravel())[0, 1]
    # Covariances of float32 losses, accumulated in another order.
    assert float(found["correlation"]) == pytest.approx(pearson, abs=1e-4)
    unstable = swept.sel(step_size=1e-2, localization=1e4)
    assert unstable["correlation"].isnull().all()
    assert all("outside the stable range" in str(reason) for reason in unstable["reason"].values.ravel())


def test_an_interrupted_sweep_goes_on_from_its_store(toy, swept, tmp_path):
    done = []

    def interrupt(settings_done):
        done.append(settings_done)
        if sum(done) >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_one_out_sweeps(toy, SETTINGS, store=tmp_path, progress=interrupt)
    again = []
    found = leave_one_out_sweeps(toy, SETTINGS, store=tmp_path, progress=again.append)
    assert sum(again) == sum(grid.size for grid in SETTINGS.grids(toy.settings.sampler))
    xr.testing.assert_identical(found, swept)


def test_the_whole_grid_spans_the_papers_table():
    settings = SweepSettings()
    assert (min(settings.step_sizes), max(settings.step_sizes)) == (1e-7, 1e-2)
    assert (min(settings.n_betas), max(settings.n_betas)) == (1e1, 1e4)
    assert (min(settings.localizations), max(settings.localizations)) == (1e-2, 1e6)
    assert settings.chains == (2, 4, 8)
    assert settings.draws == (200, 400, 800, 1000)
    assert settings.decays == (0.8, 0.9, 0.95, 0.99)
    assert (min(settings.stabilities), max(settings.stabilities)) == (1e-4, 1.0)
