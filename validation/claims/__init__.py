"""The claims, one module a family; importing a family registers it, in the order of the report."""

from validation.claims import (  # isort: skip
    dynamics,
    response,
    influence,
    brief_ablation,
    curvature,
    bayesian,
    hierarchy,
)

__all__ = ["FAMILIES"]

FAMILIES = {
    "dynamics": "Learning dynamics",
    "response": "Response of the learned map",
    "influence": "Influence: derivative, reweighting, leave-one-out",
    "brief_ablation": "Brief ablation, and when a sample is seen",
    "curvature": "Curvature and classical influence",
    "bayesian": "Bayesian influence",
    "hierarchy": "Stages and the hierarchy",
}
_REGISTERED = (dynamics, response, influence, brief_ablation, curvature, bayesian, hierarchy)
