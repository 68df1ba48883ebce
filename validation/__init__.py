"""Cross-checks of theory, sampling and retraining: a ledger of claims, each with its measured error."""

from validation.agreement import Agreement, agreement, extremum_epochs, without_self
from validation.archives import dataset_of_arrays
from validation.bounds import Bounds
from validation.charts import Plot, Series, curves
from validation.claims import FAMILIES
from validation.cross_check import cross_check
from validation.data_files import load_dataset, read_dataset, save_dataset, whiten
from validation.experiments.base import Experiment, Settings
from validation.experiments.scaled_settings import settings_for
from validation.experiments.toy import GROUPS, LEVEL_NAMES, ToyExperiment, ToySettings, group_means
from validation.own_claims import load_claims
from validation.pairs import MATRIX, MEASURES, PAIRS, Measure, Pair, PairResult, compare, correlations
from validation.registry import (
    Check,
    Claim,
    ClaimResult,
    Cost,
    Measurement,
    PlantedFault,
    Verdict,
    Way,
    all_claims,
    claim,
    numerics,
    planted_fault,
    retraining,
    run_claim,
    select_claims,
    theory,
)
from validation.runner import Ledger, run_ledger
from validation.strongest import Extreme, strongest_influences
from validation.tables import DataReading, dataset_of
from validation.trajectory_marks import clear_signs, epoch_runs, peaks, sign_agreement, sign_flips

__all__ = [
    "FAMILIES",
    "GROUPS",
    "LEVEL_NAMES",
    "MATRIX",
    "MEASURES",
    "PAIRS",
    "Agreement",
    "Bounds",
    "Check",
    "Claim",
    "ClaimResult",
    "Cost",
    "DataReading",
    "Experiment",
    "Extreme",
    "Ledger",
    "Measure",
    "Measurement",
    "Pair",
    "PairResult",
    "PlantedFault",
    "Plot",
    "Series",
    "Settings",
    "ToyExperiment",
    "ToySettings",
    "Verdict",
    "Way",
    "agreement",
    "all_claims",
    "claim",
    "clear_signs",
    "compare",
    "correlations",
    "cross_check",
    "curves",
    "dataset_of",
    "dataset_of_arrays",
    "epoch_runs",
    "extremum_epochs",
    "group_means",
    "load_claims",
    "load_dataset",
    "numerics",
    "peaks",
    "planted_fault",
    "read_dataset",
    "retraining",
    "run_claim",
    "run_ledger",
    "save_dataset",
    "select_claims",
    "settings_for",
    "sign_agreement",
    "sign_flips",
    "strongest_influences",
    "theory",
    "whiten",
    "without_self",
]
