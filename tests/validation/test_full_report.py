"""The ledger at full length: every claim comes out as expected, from more than one random start."""

import pytest

from numerics import TrainingConfig
from validation import PAIRS, Cost, Settings, ToyExperiment, Verdict, all_claims, compare, run_claim


def experiment_from(seed):
    return ToyExperiment(Settings(training=TrainingConfig(seed=seed), seed=seed))


@pytest.mark.slow  # 45 s a seed
@pytest.mark.parametrize("seed", range(4))
def test_quick_claims_come_out_as_expected_from_any_start(seed):
    experiment = experiment_from(seed)
    for pair in PAIRS:
        assert compare(pair, experiment).verdict != Verdict.FAILS, pair
    for claim in all_claims():
        if claim.cost is Cost.QUICK:
            result = run_claim(claim, experiment)
            assert result.verdict == claim.expected, (claim.identifier, result.problem, result.checks)


@pytest.mark.slow  # 100 s
def test_full_claims_come_out_as_expected():
    experiment = experiment_from(0)
    for claim in all_claims():
        if claim.cost is Cost.FULL:
            result = run_claim(claim, experiment)
            assert result.verdict == claim.expected, (claim.identifier, result.problem, result.checks)
            assert result.plots
