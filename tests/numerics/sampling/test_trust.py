"""Trust in sampled results: what is good, what is doubtful and why, and what says nothing."""

import numpy as np
import pytest
import xarray as xr

from numerics import (
    MALA,
    SGLD,
    TrainingConfig,
    TrustLevel,
    UntrustedResultWarning,
    bayesian_influence,
    covariance_diagnostics,
    diagnose,
    estimate_learning_coefficient,
    train,
    trust,
)
from theory import hierarchical_dataset

DATA = hierarchical_dataset(levels=1)
RUN = train(DATA, TrainingConfig(hidden=3, sigma=0.05, epochs=200, checkpoint_every=100, lr=0.1)).checkpoints


def draws_of(values):
    return xr.DataArray(values, {"epoch": [7.0]}, ("epoch", "chain", "draw", "sample"))


def noise(chains=4, draws=500, columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(1, chains, draws, columns))


def test_what_never_moves_is_not_known():
    """Constant draws have no effective sample size and no error, and least of all 800 and 0."""
    found = diagnose(draws_of(np.full((1, 4, 200, 1), 3.5)))
    for name in ("r_hat", "ess_bulk", "ess_tail", "mcse_mean"):
        assert np.isnan(found[name]).all(), name
    assert found["reason"].item() == "no chain moves"
    summary = trust(found, chains=4)
    assert summary.level is TrustLevel.UNUSABLE
    assert "no chain moves" in str(summary)


def test_stuck_chains_and_values_that_are_not_finite_are_named():
    values = noise()
    values[0, 1:, :, 1] = values[0, 1:, :1, 1]
    values[0, 2, 17, 2] = np.inf
    found = diagnose(draws_of(values))
    reasons = found["reason"].values[0]
    assert reasons[0] == ""
    assert reasons[1] == "3 of 4 chains never move: 1, 2, 3"
    assert reasons[2] == "not finite: inf in chain 2, draw 17"
    assert np.isfinite(found["mcse_mean"].values[0, 0])
    assert np.isnan(found["mcse_mean"].values[0, 1:]).all()
    entries = trust(found, chains=4).entries.values[0]
    assert entries.tolist() == ["good", "not to be used", "not to be used"]
    pairs = covariance_diagnostics(draws_of(values))
    assert pairs["reason"].values[0, 0, 0] == ""
    assert pairs["reason"].values[0, 0, 1].startswith("3 of 4 chains never move")
    assert pairs["reason"].values[0, 2, 0].startswith("not finite")
    assert np.isnan(pairs["r_hat"].values[0, 1]).all()


def test_a_single_chain_is_split():
    """Two halves of one law agree; a drift of one standard deviation from half to half does not."""
    assert abs(diagnose(draws_of(noise(chains=1, draws=2000, columns=1)))["r_hat"].item() - 1) < 0.01
    drifting = noise(chains=1, draws=2000, columns=1)
    drifting[:, :, 1000:] += 1.0
    # Means half a standard deviation off either way: B / W = 2 (1/2)^2 = 1/2 and R-hat = sqrt(1 + 1/2) = 1.22.
    assert diagnose(draws_of(drifting))["r_hat"].item() == pytest.approx(1.22, abs=0.06)


def test_good_draws_are_trusted_and_few_or_apart_are_not():
    assert trust(draws_of(noise())).level is TrustLevel.GOOD
    assert str(trust(draws_of(noise()))) == "good"
    few = trust(draws_of(noise(draws=40)))
    assert few.level is TrustLevel.DOUBTFUL
    assert "fewer than 100 effective draws a chain" in str(few)
    apart = noise(columns=1)
    apart[0, 0] += 1.0
    assert "R-hat above 1.05" in str(trust(draws_of(apart)))
    assert trust(draws_of(apart)).level is TrustLevel.UNUSABLE
    with pytest.raises(ValueError, match="r_hat and ess are needed"):
        trust(xr.Dataset({"influence": 0.0}))


def test_influence_has_its_own_diagnostics_and_they_are_those_of_arviz():
    """Block moments against ArviZ on the same draws: R-hat of products, and the error of their mean."""
    found = bayesian_influence(DATA, RUN, SGLD(1e-4, 50.0, 5e3), draws=2000, keep_draws=True)
    exact = covariance_diagnostics(found["draws"])
    # 128 blocks give a standard error that is itself off by 1 / sqrt(2 x 128) = 6 %, and its square by twice that.
    ratio = (found["ess"] / exact["ess_bulk"]).values
    assert 0.6 < np.median(ratio) < 1.6
    np.testing.assert_allclose(found["r_hat"], exact["r_hat"], atol=0.02)
    assert found.attrs["trust"].startswith("good")


def test_chains_that_refuse_every_step_say_nothing():
    found = bayesian_influence(DATA, RUN.at([200]), MALA(7.9e-4, 1.0, 5e3), chains=2, draws=50, burn_in=0)
    stuck = found["correlation"].isnull()
    assert np.isnan(found["standard_error"].values[stuck.values]).all()


def test_two_draws_have_no_error():
    found = bayesian_influence(DATA, RUN, SGLD(1e-4, 50.0, 5e3), chains=1, draws=2)
    assert np.isnan(found["standard_error"]).all()
    assert np.isfinite(found["influence"]).all()
    assert found.attrs["trust"].startswith("not to be used")


def test_a_coefficient_off_a_minimum_comes_with_a_warning():
    with pytest.warns(UntrustedResultWarning, match="the checkpoint is no minimum"):
        found = estimate_learning_coefficient(DATA, RUN.at([0]), SGLD(1e-3, 500.0, 10.0), draws=200, burn_in=200)
    assert float(found["learning_coefficient"][0]) < 0


@pytest.mark.filterwarnings("ignore::numerics.UntrustedResultWarning")
def test_coefficients_carry_their_trust():
    found = estimate_learning_coefficient(DATA, RUN.at([200]), SGLD(1e-4, 50.0, 5e3), draws=30, burn_in=100)
    assert "effective draws" in found.attrs["trust"]
