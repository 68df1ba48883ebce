"""The bias of Algorithm 1 on a quadratic against its closed form."""

import numpy as np
import pytest
import xarray as xr

from validation.experiments.sampler_bias import RELATIVE_STEP, BiasSettings, quadratic_bias

SETTINGS = BiasSettings(
    stabilities=(0.1, 1.0), decays=(0.0, 0.9), weights=40, chains=2, burn_in=120, draws=320, relative_steps=(0.2, 2.0)
)


def test_the_limit_of_algorithm_1_is_reached_without_memory():
    """With b = 0 the variance is the limit's, but for Euler's first-order error, at most the step's: 1 / (1 - 1/20).

    The standard errors say how many of 2 x 40 weights times 320 draws are independent.
    """
    found = quadratic_bias(SETTINGS)
    limit = found["limit"].values
    ratio, error = found["algorithm_1"][0].values / limit, found["algorithm_1_error"][0].values / limit
    step = 1 / (1 - RELATIVE_STEP / 4)
    assert (ratio > 1 - 4 * error).all()
    assert (ratio < step + 4 * error).all()
    assert abs(float(found["mala"]) - 1) < 4 * float(found["mala_error"])
    # 1 / (1 - eps h / 4) is 2 at half of the largest stable step
    np.testing.assert_allclose(found["discretised"], [step, 2.0], rtol=1e-12)
    assert (np.abs(found["sgld"] - found["discretised"]) < 4 * found["sgld_error"]).all()
    assert (np.abs(found["frozen"] - 1) < step - 1 + 4 * found["frozen_error"]).all()
    assert float(found["fine_limit"][0]) == pytest.approx(float(limit[0]), rel=1e-9)


def test_a_setting_has_the_same_noise_whatever_is_asked_for_beside_it():
    whole = quadratic_bias(SETTINGS)
    part = quadratic_bias(
        BiasSettings(
            stabilities=(1.0,), decays=(0.9,), weights=40, chains=2, burn_in=120, draws=320, relative_steps=(2.0,)
        )
    )
    for name in ("algorithm_1", "algorithm_1_error", "frozen", "sgld", "limit", "discretised"):
        chosen = {dim: part[dim] for dim in part[name].dims}
        # The noise is the same; batches of another size round a product of float32 in another way, 1e-7 at each step.
        xr.testing.assert_allclose(part[name], whole[name].sel(chosen), rtol=1e-4)
