"""The matrix of measures on a user's own data: scaling, honesty, and what is left out or refused."""

from dataclasses import replace

import numpy as np
import pytest

import validation.pairs
from numerics import TrainingConfig, leave_one_out
from theory import Dataset, hierarchical_dataset
from validation import PAIRS, Experiment, Settings, Verdict, compare, correlations, cross_check, settings_for, whiten


def random_data(n=9, p=3, o=4, seed=0, scale=1.0):
    """Return whitened inputs that overlap and targets that a network of rank p does not fit."""
    random = np.random.default_rng(seed)
    inputs = np.linalg.qr(random.normal(size=(n, p)))[0]
    wanted = np.linalg.qr(random.normal(size=(o, p)))[0] * np.array([4.0, 2.5, 1.5])[:p]
    names = tuple(f"item {k}" for k in range(n))
    return Dataset(inputs, scale * (inputs @ wanted.T + 0.1 * random.normal(size=(n, o))), names)


def test_the_toy_model_gets_its_own_settings():
    found, toy = settings_for(hierarchical_dataset()), Settings()
    for name in ("hidden", "epochs", "checkpoint_every", "seed"):
        assert getattr(found.training, name) == getattr(toy.training, name)
    for name in ("sigma", "lr"):
        assert getattr(found.training, name) == pytest.approx(getattr(toy.training, name), rel=1e-12)
    for name in ("step_size", "n_beta", "localization", "stability"):
        assert getattr(found.sampler, name) == pytest.approx(getattr(toy.sampler, name), rel=1e-12)
    assert (found.window, found.every, found.damping) == (toy.window, toy.every, toy.damping)


@pytest.mark.parametrize("scale", [1e-2, 30.0])
def test_scaled_targets_give_the_same_report(scale):
    """Influence scales with the square of the targets and nothing else changes, draw by draw."""
    one, other = (Experiment(d, settings_for(d)) for d in (random_data(), random_data(scale=scale)))
    for name in ("retrained", "closed_leave_one_out", "sample_weight"):
        a, b = getattr(one, name).values, getattr(other, name).values
        # the same floating-point operations up to factors that are not powers of two, amplified by growth e^12
        np.testing.assert_allclose(b, scale**2 * a, atol=1e-8 * scale**2 * np.abs(a).max())
    small = {"chains": 2, "draws": 30}
    sampled = [Experiment(e.dataset, replace(e.settings, **small)).bayesian["influence"].values for e in (one, other)]
    np.testing.assert_allclose(sampled[1], scale**2 * sampled[0], atol=1e-3 * scale**2 * np.abs(sampled[0]).max())


def check_strongest(extremes, data):
    """Names, order and values against leave-one-out itself, computed anew."""
    retrained = leave_one_out(data, settings_for(data).training)
    sizes = [abs(e.retrained) for e in extremes]
    assert len(extremes) == 12
    assert sizes == sorted(sizes, reverse=True)
    for e in extremes:
        assert e.source != e.query
        line = retrained.sel(source=e.source, query=e.query)
        assert e.retrained == pytest.approx(float(line.sel(epoch=e.epoch)), rel=1e-12)
        assert abs(e.retrained) == pytest.approx(float(abs(line).max()), rel=1e-12)
        assert e.helps == (e.retrained < 0)
        # descent is late by 2 % of the fastest rise, and checkpoints are neighbours of an extremum
        assert e.solved == pytest.approx(e.retrained, rel=0.04)
    others = abs(retrained.where(retrained["source"] != retrained["query"])).max("epoch").values
    assert min(sizes) == pytest.approx(np.sort(others[np.isfinite(others)])[-12], rel=1e-12)


@pytest.mark.slow  # a whole cross-check, 20 s
def test_the_matrix_holds_on_data_that_is_no_tree():
    data = random_data()
    seen = []
    ledger = cross_check(data, finished=lambda name, *_: seen.append(name))
    verdicts = {(r.pair.reference, r.pair.measure): r.verdict for r in ledger.pairs}
    assert verdicts["LOO retrained", "LOO closed form"] == Verdict.HOLDS
    assert verdicts["derivative retrained", "sample-weight"] == Verdict.HOLDS
    assert verdicts["brief ablation", "brief ablation closed form"] == Verdict.HOLDS
    assert not ledger.failed
    assert "9 samples, 3 inputs, 4 outputs" in ledger.title
    assert ledger.matrix.sizes["measure"] >= 10
    assert len(seen) == len(ledger.pairs)
    check_strongest(ledger.strongest, data)
    # what only describes the toy model is reported, and judged by nobody
    toy_only = {(p.reference, p.measure) for p in PAIRS if not p.general}
    assert all(v == Verdict.REPORTED for pair, v in verdicts.items() if pair in toy_only)


def test_a_wrong_formula_fails_on_the_users_data_too(monkeypatch):
    data = random_data()
    measure = validation.pairs.MEASURES["sample-weight"]
    halved = validation.pairs.Measure(measure.way, lambda e: measure.compute(e) / 2)
    monkeypatch.setitem(validation.pairs.MEASURES, "sample-weight", halved)
    pair = next(p for p in PAIRS if p.measure == "sample-weight")
    assert compare(pair, Experiment(data, settings_for(data))).verdict == Verdict.FAILS


def test_measures_that_are_not_defined_are_left_out_with_their_sentence():
    """Targets of rank 1: the printed formulas differentiate a map that has no derivative there."""
    inputs = np.eye(3)
    data = Dataset(inputs, np.outer([1.0, 2.0, 2.0], [1.0, 0.0, 1.0, 1.0]))
    experiment = Experiment(data, replace(settings_for(data), training=TrainingConfig(epochs=300)))
    pair = next(p for p in PAIRS if p.measure == "paper-P1" and p.reference == "spectral")
    result = compare(pair, experiment)
    assert result.verdict == Verdict.REPORTED
    assert "rank 1" in result.problem
    table = correlations(experiment, ["sample-weight", "paper-P1", "LOO closed form"])
    assert table["measure"].values.tolist() == ["sample-weight", "LOO closed form"]


def test_measures_without_correlation_are_marked(monkeypatch):
    data = random_data()
    experiment = Experiment(data, replace(settings_for(data), training=TrainingConfig(epochs=300)))
    nothing = validation.pairs.Measure(validation.Way.THEORY, lambda e: 0 * e.sample_weight)
    monkeypatch.setitem(validation.pairs.MEASURES, "nothing", nothing)
    table = correlations(experiment, ["sample-weight", "nothing", "LOO closed form"])
    assert np.isnan(table.sel(measure="nothing", other="sample-weight"))
    assert np.isnan(table.sel(measure="LOO closed form", other="nothing"))
    assert np.isfinite(table.sel(measure="LOO closed form", other="sample-weight"))


def test_hessians_that_would_take_minutes_are_left_out():
    wide = random_data(n=60, p=3, o=40)
    from validation.cross_check import too_large

    assert too_large(random_data(), settings_for(random_data())) == set()
    names = too_large(wide, settings_for(wide))
    assert names == {"Hessian, damping gamma / n_beta", "Hessian c=0.1"}


def test_unwhitened_data_is_refused_with_the_remedy():
    raw = Dataset(2 * np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match=r"cross_check needs whitened inputs .* validation.whiten\(dataset\) does it"):
        cross_check(raw)
    assert settings_for(whiten(raw)).training.epochs > 0


def test_other_data_that_cannot_be_checked_is_refused():
    with pytest.raises(ValueError, match="Y\\^T X is zero"):
        settings_for(Dataset(np.eye(2), np.zeros((2, 3))))
    with pytest.raises(ValueError, match="one sample, but influence on another needs two"):
        cross_check(Dataset(np.eye(1), np.ones((1, 3))))


def test_slow_modes_do_not_make_training_endless():
    data = Dataset(np.eye(2), np.array([[1.0, 0.0], [0.0, 1e-4]]))
    assert settings_for(data).training.epochs == 40_000
