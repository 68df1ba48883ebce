"""Cross-checks of theory, sampling and retraining: a ledger of claims, each with its measured error."""

from validation.agreement import Agreement, agreement, extremum_epochs, without_self
from validation.claims import FAMILIES
from validation.cross_check import cross_check
from validation.data_files import load_dataset, save_dataset, whiten
from validation.experiments.base import Experiment, Settings
from validation.experiments.scaled_settings import settings_for
from validation.experiments.toy import GROUPS, LEVEL_NAMES, ToyExperiment, ToySettings, group_means
from validation.pairs import MATRIX, MEASURES, PAIRS, Measure, Pair, PairResult, compare, correlations
from validation.registry import (
    Check,
    Claim,
    ClaimResult,
    Cost,
    Measurement,
    Verdict,
    Way,
    all_claims,
    run_claim,
    select_claims,
)
from validation.runner import Ledger, run_ledger
from validation.strongest import Extreme, strongest_influences
from validation.trajectory_marks import clear_signs, epoch_runs, peaks, sign_agreement, sign_flips

__all__ = [
    "FAMILIES",
    "GROUPS",
    "LEVEL_NAMES",
    "MATRIX",
    "MEASURES",
    "PAIRS",
    "Agreement",
    "Check",
    "Claim",
    "ClaimResult",
    "Cost",
    "Experiment",
    "Extreme",
    "Ledger",
    "Measure",
    "Measurement",
    "Pair",
    "PairResult",
    "Settings",
    "ToyExperiment",
    "ToySettings",
    "Verdict",
    "Way",
    "agreement",
    "all_claims",
    "clear_signs",
    "compare",
    "correlations",
    "cross_check",
    "epoch_runs",
    "extremum_epochs",
    "group_means",
    "load_dataset",
    "peaks",
    "run_claim",
    "run_ledger",
    "save_dataset",
    "select_claims",
    "settings_for",
    "sign_agreement",
    "sign_flips",
    "strongest_influences",
    "whiten",
    "without_self",
]
