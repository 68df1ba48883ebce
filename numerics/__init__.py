"""Simulation: training, retraining, sampling and curvature, on torch."""

from numerics.bayesian_influence import bayesian_influence, sample
from numerics.classical_influence import (
    IndefiniteCurvature,
    gauss_newton_influence,
    gradient_kernel,
    hessian_influence,
)
from numerics.embedding import branching_epochs, classical_mds, hidden_representations, representation_embedding
from numerics.gradient_flow import gradient_flow
from numerics.modules import LinearNetwork, ModuleCheckpoints, Samples, TorchModel, half_squared_error, linear_as_module
from numerics.networks import Checkpoints, initial_weights, per_sample_losses
from numerics.retraining import leave_one_out, timed_ablation
from numerics.samplers import SGLD, RMSPropSGLD, Sampler, SamplerDiverged, StepSizeWarning
from numerics.training import TrainingConfig, TrainingDiverged, TrainingRun, train

__all__ = [
    "SGLD",
    "Checkpoints",
    "IndefiniteCurvature",
    "LinearNetwork",
    "ModuleCheckpoints",
    "RMSPropSGLD",
    "Sampler",
    "SamplerDiverged",
    "Samples",
    "StepSizeWarning",
    "TorchModel",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingRun",
    "bayesian_influence",
    "branching_epochs",
    "classical_mds",
    "gauss_newton_influence",
    "gradient_flow",
    "gradient_kernel",
    "half_squared_error",
    "hessian_influence",
    "hidden_representations",
    "initial_weights",
    "leave_one_out",
    "linear_as_module",
    "per_sample_losses",
    "representation_embedding",
    "sample",
    "timed_ablation",
    "train",
]
