"""Claims, verdicts, the report and the command line, down to a planted fault that must be found."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import validation.__main__
import validation.claims
import validation.toy
from numerics import TrainingConfig
from theory import hierarchical_dataset, influence_trajectory
from validation import (
    PAIRS,
    Check,
    Claim,
    ClaimResult,
    ToyExperiment,
    ToySettings,
    Verdict,
    all_claims,
    compare,
    run_claim,
    select_claims,
)
from validation.pairs import MEASURES
from validation.report import print_report, write_json


def verdict_of(*checks, erratum=False):
    return ClaimResult(Claim("id", "statement", "source", lambda _: checks, erratum), checks).verdict


@pytest.fixture(scope="module")
def experiment():
    """Return the paper's experiment with few draws: everything but the sampler is as in the report."""
    return ToyExperiment(ToySettings(draws=50))


def test_verdicts():
    good, bad, open_ended = Check("q", 1.0, high=2.0), Check("q", 3.0, high=2.0), Check("q", 1.0)
    assert verdict_of(good) == Verdict.HOLDS
    assert verdict_of(good, open_ended) == Verdict.HOLDS
    assert verdict_of(good, bad) == Verdict.FAILS
    assert verdict_of(open_ended) == Verdict.REPORTED
    assert verdict_of(good, erratum=True) == Verdict.REFUTED
    assert verdict_of(bad, erratum=True) == Verdict.FAILS
    assert verdict_of() == Verdict.FAILS
    assert verdict_of(Check("q", math.nan)) == Verdict.FAILS


def test_every_bound_says_where_it_comes_from(experiment):
    deterministic = [c for c in all_claims() if not c.sampled]
    assert len(deterministic) >= 10
    for claim in deterministic:
        result = run_claim(claim, experiment)
        assert result.verdict in (Verdict.HOLDS, Verdict.REFUTED), claim.identifier
        for check in result.checks:
            assert check.only_reported or check.why, check.quantity


def test_the_erratum_is_refuted_with_its_size(experiment):
    (claim,) = select_claims(["erratum-printed-response"])
    result = run_claim(claim, experiment)
    assert result.verdict == Verdict.REFUTED
    sizes = [check.measured for check in result.checks if "printed formula" in check.quantity]
    assert len(sizes) == 2
    assert min(sizes) > 0.1


def test_claims_are_selected_by_prefix_and_unknown_ones_refused():
    assert [c.identifier for c in select_claims(["stages"])] == ["stages-bif", "stages-loo"]
    assert len(select_claims(["stages-loo", "stages"])) == 2
    with pytest.raises(ValueError, match="no claim is called 'stage-loo'; did you mean 'stages-loo'"):
        select_claims(["stage-loo"])


def test_two_claims_cannot_share_a_name():
    with pytest.raises(ValueError, match="two claims are called 'stages-loo'"):
        validation.claims.claim("stages-loo", "again", source="ours")(lambda _: [])


def test_every_pair_names_known_measures_with_known_bounds():
    for pair in PAIRS:
        assert {pair.reference, pair.measure} <= set(MEASURES)
        assert pair.why
        assert pair.expected
    pair = next(p for p in PAIRS if p.measure == "LOO closed form")
    assert {"worst_pearson", "worst_slope_error"} <= set(pair.bounds)


@pytest.mark.parametrize("factor", [-1.0, 8.0, 0.5])
def test_a_lost_sign_or_factor_is_found(experiment, monkeypatch, factor):
    """A correlation does not see a lost 1/N; the slope does, and the pair fails."""
    pair = next(p for p in PAIRS if p.measure == "sample-weight" and p.reference == "derivative retrained")
    assert compare(pair, experiment).verdict == Verdict.HOLDS
    monkeypatch.setitem(MEASURES, "sample-weight", lambda e: factor * e.sample_weight)
    assert compare(pair, experiment).verdict == Verdict.FAILS


def test_a_wrong_formula_is_found(experiment, monkeypatch):
    """Plant the printed formula in place of the exact one."""

    def wrong(dataset, epochs, *, tau, g0, formula):
        planted = "paper-P1" if formula == "fixed-init" else formula
        return influence_trajectory(dataset, epochs, tau=tau, g0=1e-3 if planted == "paper-P1" else g0, formula=planted)

    monkeypatch.setattr(validation.response, "influence_trajectory", wrong)
    (claim,) = select_claims(["derivative-of-the-flow"])
    assert run_claim(claim, experiment).verdict == Verdict.FAILS


def test_the_report_names_everything_and_json_has_no_nan(experiment, tmp_path):
    claims = [run_claim(c, experiment) for c in select_claims(["stages-loo", "erratum"])]
    pairs = [compare(p, experiment) for p in PAIRS[:2]]
    console = Console(width=160, record=True, file=io.StringIO())
    print_report(console, claims, pairs)
    text = console.export_text()
    for word in ("stages-loo", "refuted as printed", "LOO closed form", "Pearson", "expected, and why"):
        assert word in text
    write_json(tmp_path / "out.json", experiment.settings, claims, pairs)
    document = json.loads((tmp_path / "out.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert [c["id"] for c in document["claims"]] == ["stages-loo", "erratum-printed-response"]
    assert document["claims"][1]["verdict"] == "refuted as printed"
    assert document["settings"]["sampler"]["step_size"] == 1e-4
    assert set(document["pairs"][0]["found"]) >= {"pearson", "slope", "relative_max_error", "extremum_shift"}


def run_command(*arguments):
    app = validation.__main__.typer.Typer()
    app.command()(validation.__main__.main)
    return CliRunner().invoke(app, arguments)


def test_the_command_reports_and_succeeds(tmp_path):
    result = run_command("--only", "matrix-solution", "--only", "mode", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "0 pairs, 2 claims: 2 holds. Seed 0." in result.output
    assert len(json.loads((tmp_path / "validation.json").read_text())["claims"]) == 2


def test_the_command_fails_when_a_claim_does(monkeypatch):
    def wrong(*arguments, **keywords):
        return np.zeros((101, 15, 8))

    monkeypatch.setattr(validation.toy, "linear_network_solution", wrong)
    result = run_command("--only", "matrix-solution")
    assert result.exit_code == 1
    assert "matrix-solution fails" in result.output


def test_the_quick_command_leaves_sampling_out(monkeypatch):
    monkeypatch.setattr(validation.toy, "bayesian_influence", lambda *_, **__: pytest.fail("sampled"))
    result = run_command("--quick")
    assert result.exit_code == 0, result.output
    assert "15 pairs, 10 claims" in result.output


def test_the_command_refuses_an_unknown_claim():
    result = run_command("--only", "matrx")
    assert result.exit_code == 2
    assert "no claim is called 'matrx'; did you mean 'matrix-solution'?" in result.output.replace("\n", " ")


def test_the_experiment_announces_and_computes_once():
    said = []
    quick = ToyExperiment(ToySettings(training=TrainingConfig(epochs=300)), said.append)
    assert quick.checkpoints is quick.checkpoints
    assert said == ["training the network"]
    assert quick.features.sum("feature").values.tolist() == [4.0] * 8
    assert quick.shared_features.sel(item="dog", other="cat") == 3
    assert quick.dataset.names == hierarchical_dataset().names
