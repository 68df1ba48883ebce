"""The claims, one module a family; importing a family registers it, in the order of the report."""

from importlib import import_module

__all__ = ["FAMILIES"]

FAMILIES = {
    "dynamics": "Learning dynamics",
    "svd_response": "Response of singular values and vectors",
    "response": "Response of the learned map",
    "influence": "Influence: derivative, reweighting, leave-one-out",
    "brief_ablation": "Brief ablation, and when a sample is seen",
    "stages": "Stages: sign changes and peaks",
    "hierarchy": "The hierarchy, and what peaks mark",
    "bayesian": "Bayesian influence",
    "curvature": "Curvature and classical influence",
    "samplers": "Samplers",
    "free_energy": "Free energy and the large-data limit",
    "mixtures": "Mixtures of phases",
    "phases": "Phase transitions",
    "learning_coefficient": "Learning coefficients",
    "language": "Language models: influence between tokens",
    "engines": "Workings: estimators, chains, engines",
    "sensitivity": "Beyond the paper's settings",
}

for _name in FAMILIES:
    import_module(f"validation.claims.{_name}")
