"""Diagnostics of draws: against an autoregression whose autocorrelation time is known, and refusals."""

import numpy as np
import pytest
import xarray as xr

from numerics import covariance_diagnostics, diagnose


def autoregression(rho, chains, draws, columns, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(chains, draws, columns))
    states = np.empty_like(noise)
    states[:, 0] = noise[:, 0]
    for k in range(1, draws):
        states[:, k] = rho * states[:, k - 1] + np.sqrt(1 - rho**2) * noise[:, k]
    return xr.DataArray(states[None], {"epoch": [7.0]}, ("epoch", "chain", "draw", "sample"))


def test_effective_draws_of_an_autoregression():
    """AR(1) has (1 - rho) / (1 + rho) effective draws a draw for means, and the same with rho^2 for products."""
    rho, chains, draws = 0.8, 4, 4000
    states = autoregression(rho, chains, draws, 3)
    result = diagnose(states)
    expected = chains * draws * (1 - rho) / (1 + rho)
    # ArviZ's estimate of the autocorrelation time has a relative error near sqrt(10 tau / draws) with tau = 9: 8 %.
    np.testing.assert_allclose(result["ess_bulk"], expected, rtol=0.25)
    np.testing.assert_allclose(result["mcse_mean"], 1 / np.sqrt(expected), rtol=0.15)
    assert float(result["r_hat"].max()) < 1.02
    pairs = covariance_diagnostics(states)
    effective = chains * draws * (1 - rho**2) / (1 + rho**2)
    # The product of two independent standard normals has variance 1, a square 2.
    expected = np.sqrt((1 + np.eye(3)) / effective)
    np.testing.assert_allclose(pairs["mcse_mean"][0], expected, rtol=0.15)
    np.testing.assert_array_equal(pairs["ess_bulk"][0], pairs["ess_bulk"][0].T)


def test_a_chain_apart_shows():
    states = autoregression(0.0, 4, 500, 2)
    states[0, 0, :, 1] += 3
    r_hat = diagnose(states)["r_hat"].sel(epoch=7.0).values
    assert r_hat[0] < 1.02
    assert r_hat[1] > 1.2


def test_settings_keep_their_dimension():
    states = xr.concat([autoregression(0.0, 2, 100, 2), autoregression(0.5, 2, 100, 2)], dim="setting")
    assert diagnose(states)["ess_bulk"].dims == ("setting", "epoch", "sample")
    with pytest.raises(ValueError, match="select a setting first"):
        covariance_diagnostics(states)


def test_bad_draws_are_refused():
    states = autoregression(0.0, 2, 10, 2)
    with pytest.raises(ValueError, match="chain is needed too"):
        diagnose(states.sel(chain=0, drop=True) if "chain" in states.coords else states[:, 0])
    with pytest.raises(ValueError, match="at least 4 draws, but there are 3"):
        covariance_diagnostics(states[:, :, :3])
