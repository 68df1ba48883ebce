"""Simulation: training, retraining, sampling and curvature, on torch."""

from numerics.gradient_flow import gradient_flow
from numerics.networks import Checkpoints, initial_weights, per_sample_losses
from numerics.retraining import leave_one_out, timed_ablation
from numerics.training import TrainingConfig, TrainingDiverged, TrainingRun, train

__all__ = [
    "Checkpoints",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingRun",
    "gradient_flow",
    "initial_weights",
    "leave_one_out",
    "per_sample_losses",
    "timed_ablation",
    "train",
]
