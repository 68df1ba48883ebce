"""Cross-checks of theory, sampling and retraining, each with its measured error."""

from validation import dynamics, response, stages
from validation.agreement import Agreement, agreement, extremum_epochs, without_self
from validation.claims import Check, Claim, ClaimResult, Verdict, all_claims, run_claim, select_claims
from validation.pairs import PAIRS, Pair, PairResult, compare
from validation.stages import GROUPS, group_means
from validation.toy import LEVEL_NAMES, ToyExperiment, ToySettings

# Importing a family of claims registers it; the order here is the order of the report.
FAMILIES = (dynamics, response, stages)

__all__ = [
    "FAMILIES",
    "GROUPS",
    "LEVEL_NAMES",
    "PAIRS",
    "Agreement",
    "Check",
    "Claim",
    "ClaimResult",
    "Pair",
    "PairResult",
    "ToyExperiment",
    "ToySettings",
    "Verdict",
    "agreement",
    "all_claims",
    "compare",
    "extremum_epochs",
    "group_means",
    "run_claim",
    "select_claims",
    "without_self",
]
