"""Runs of language models: kept and shared between processes, and the noise of pairs against its law."""

from dataclasses import replace

import numpy as np
import pytest

from numerics import as_token_draws
from theory import pair_noise
from validation.experiments import language, token_pairs
from validation.experiments.language import InductionRun, InductionSettings, induction_runs, kept_folder

QUICK = InductionSettings.seeded(0, quick=True)


def test_a_kept_run_is_trained_and_sampled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("STAGEWISE_CACHE", str(tmp_path))
    first = InductionRun(QUICK)
    expected = first.influence["covariance"]
    assert first.folder.is_relative_to(tmp_path)

    def never(*_args, **_more):
        raise AssertionError("computed again")

    monkeypatch.setattr("numerics.language.token_sampling._run_chain", never)
    monkeypatch.setattr("numerics.language.pretraining._save_step", never)
    np.testing.assert_array_equal(InductionRun(QUICK).influence["covariance"], expected)
    longer = InductionRun(replace(QUICK, draws=20))
    assert longer.folder == first.folder
    assert len(longer.checkpoints) == 5  # trained with the first
    with pytest.raises(AssertionError, match="computed again"):
        _ = longer.draws
    assert InductionRun(replace(QUICK, every=20)).folder != first.folder


def test_other_code_is_another_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STAGEWISE_CACHE", str(tmp_path))
    before = kept_folder("induction", 0)
    monkeypatch.setattr(language, "_code", lambda: "another")
    assert kept_folder("induction", 0) != before
    monkeypatch.delenv("STAGEWISE_CACHE")
    assert kept_folder("induction", 0) is None


def test_brief_runs_share_the_training_of_whole_ones():
    whole, brief = InductionSettings.seeded(1), InductionSettings.seeded(1, brief=True)
    assert whole.trained_by == brief.trained_by
    assert brief.draws < whole.draws


@pytest.mark.slow
def test_runs_side_by_side_are_those_of_one_process():
    settings = [replace(QUICK, seed=seed) for seed in (11, 12)]
    found = [run.influence["covariance"] for run in induction_runs(settings)]
    for values, each in zip(found, settings, strict=True):
        np.testing.assert_array_equal(values, InductionRun(each).influence["covariance"])


@pytest.mark.parametrize("times", [0.2, 10.0])
def test_noise_of_simulated_chains_has_its_law(times):
    """Linear losses along orthogonal gradients, of chains that start at the checkpoint."""
    rng, tokens, draws = np.random.default_rng(0), 60, 100
    noise = rng.normal(size=(1, 8, draws, 1, tokens))
    losses = np.zeros_like(noise)
    for k in range(1, draws):
        losses[:, :, k] = (1 - times / draws) * losses[:, :, k - 1] + noise[:, :, k]
    found = token_pairs.measured_noise(as_token_draws(losses), 0.0, np.arange(tokens), draws)
    # 1,770 pairs share 60 tokens: their squares are worth some 60 x 8 independent ones, of relative spread sqrt 2.
    assert found == pytest.approx(pair_noise(times, chains=4, draws=draws), rel=4 * 0.5 * np.sqrt(2 / 480))
