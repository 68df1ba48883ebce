"""Bounds derived from the data: they hold for errors of their size, and know when nothing can be said."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import validation.pairs
from numerics import RMSPropSGLD, bayesian_influence, gradient_kernel, train
from theory import Dataset
from validation import PAIRS, Experiment, Measure, Verdict, agreement, compare, settings_for
from validation.bounds import _deterministic
from validation.false_alarms import FAULTS, random_dataset, try_dataset
from validation.local_law import local_law


def labelled(values):
    t, n, m = values.shape
    coords = {"epoch": np.arange(t), "source": [f"s{k}" for k in range(n)], "query": [f"q{k}" for k in range(m)]}
    return xr.DataArray(values, coords, ("epoch", "source", "query"))


@given(seed=st.integers(0, 10**6), size=st.floats(1e-6, 0.9), scale=st.floats(1e-9, 1e9))
def test_any_error_of_the_size_stays_within_the_bounds(seed, size, scale):
    """The bounds on slope and correlation are theorems about the norm of the error."""
    random = np.random.default_rng(seed)
    reference = labelled(scale * random.normal(size=(5, 2, 3)))
    error = random.normal(size=reference.shape)
    error = labelled(size * error / np.linalg.norm(error) * np.linalg.norm(reference))
    bounds = _deterministic(reference, error, 0.0, 0.0, "why")
    found = agreement(reference, reference + error)
    for name, (low, high) in bounds.fields.items():
        assert low - 1e-12 <= getattr(found, name) <= high + 1e-12, name
    if abs(size - 0.5) > 1e-9:  # at a half itself rounding decides
        assert bool(bounds.undecided) == (size > 0.5)


def test_the_law_is_what_many_chains_give():
    """Within noise at every checkpoint: chains of Algorithm 1 against the series, without burn-in and with."""
    data = Dataset(np.eye(3), np.array([[2.0, 1.0], [0.5, -1.0], [1.0, 1.0]]))
    settings = settings_for(data)
    run = train(data, replace(settings.training, epochs=3000, checkpoint_every=1000)).checkpoints
    for burn_in in (0, 50):
        drawn = bayesian_influence(data, run, settings.sampler, chains=24, draws=300, burn_in=burn_in)
        law = local_law(data, run.w1.numpy(), run.w2.numpy(), settings.sampler, draws=300, chains=24, burn_in=burn_in)
        noise = float(np.sqrt((drawn["standard_error"] ** 2).sum()))
        difference = float(np.linalg.norm(drawn["covariance"].values - law.expected))
        assert difference < 2 * noise + law.remainder * np.linalg.norm(law.expected)
        assert noise < 0.08 * np.linalg.norm(law.expected)  # so that the start, 28 % without burn-in, is seen
    np.testing.assert_allclose(law.kernel * settings.sampler.localization, gradient_kernel(data, run).values, rtol=1e-9)


def test_weak_localisation_has_no_law():
    data = Dataset(np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match=r"raise the localization or lower n_beta"):
        local_law(data, np.ones((1, 1, 2)), np.ones((1, 2, 1)), RMSPropSGLD(1e-4, 1e5, 5e3), draws=10, chains=2)


@pytest.mark.parametrize("targets", [3 * np.eye(4), np.diag([3.0, 2.0, 1.0])], ids=["degenerate", "distinct"])
def test_orthogonal_targets_are_no_false_alarm(targets):
    """Between orthogonal samples there is nothing but the coupling of random weights: nothing can be said of it."""
    data = Dataset(np.eye(len(targets)), targets)
    settings = settings_for(data)
    training = replace(settings.training, epochs=3000, checkpoint_every=300)
    experiment = Experiment(data, replace(settings, training=training, draws=500, every=300))
    found = {(p.reference, p.measure): compare(p, experiment) for p in PAIRS if p.general}
    assert Verdict.FAILS not in {result.verdict for result in found.values()}
    coupled = found["derivative retrained", "sample-weight"]
    if len(targets) == 3:  # equal modes are rotated by the weights, so that samples do see each other
        assert coupled.verdict is Verdict.INCONCLUSIVE
        assert "agreement would say nothing" in coupled.undecided
    assert found["derivative retrained, decoupled start", "sample-weight"].verdict is Verdict.HOLDS
    lost = Measure(validation.Way.THEORY, lambda e: -e.sample_weight)
    pair = next(p for p in PAIRS if "decoupled" in p.reference)
    faulty = validation.pairs.MEASURES | {"sample-weight": lost}
    assert compare(pair, experiment, measures=faulty).verdict is Verdict.FAILS


@pytest.mark.parametrize("seed", [3, 7])
def test_random_data_raise_no_alarm_and_planted_faults_do(seed):
    """Two of the data sets of `make false-alarms`, which measures both shares over 500."""
    trial = try_dataset(seed)
    assert not trial.false_alarm, trial
    assert set(trial.faults) == set(FAULTS)
    assert "missed" not in {what for _, what in trial.faults.values()}, trial


def test_random_data_are_sound():
    for seed in range(60):
        data, _, scale = random_dataset(seed)
        assert 2 <= len(data) <= 8
        assert np.abs(data.sxx - np.eye(data.n_inputs)).max() < 1e-12
        assert np.any(data.syx)
        assert 1e-3 <= scale <= 1e3
