"""Simulation: training, retraining, sampling and curvature, on torch."""

from numerics.bayesian_influence import bayesian_influence, sample
from numerics.classical_influence import (
    IndefiniteCurvature,
    gauss_newton_influence,
    gradient_kernel,
    hessian_influence,
)
from numerics.gradient_flow import gradient_flow
from numerics.networks import Checkpoints, initial_weights, per_sample_losses
from numerics.retraining import leave_one_out, timed_ablation
from numerics.samplers import SGLD, RMSPropSGLD, Sampler, SamplerDiverged, StepSizeWarning
from numerics.training import TrainingConfig, TrainingDiverged, TrainingRun, train

__all__ = [
    "SGLD",
    "Checkpoints",
    "IndefiniteCurvature",
    "RMSPropSGLD",
    "Sampler",
    "SamplerDiverged",
    "StepSizeWarning",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingRun",
    "bayesian_influence",
    "gauss_newton_influence",
    "gradient_flow",
    "gradient_kernel",
    "hessian_influence",
    "initial_weights",
    "leave_one_out",
    "per_sample_losses",
    "sample",
    "timed_ablation",
    "train",
]
