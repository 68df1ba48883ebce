"""Simulation: training, retraining, sampling and curvature, on torch."""

from numerics.bayesian_influence import bayesian_influence
from numerics.chain_state import ChainState
from numerics.classical_influence import (
    IndefiniteCurvature,
    gauss_newton_influence,
    gradient_kernel,
    hessian_influence,
)
from numerics.descent import TrainingConfig
from numerics.diagnostics import covariance_diagnostics, diagnose
from numerics.embedding import branching_epochs, classical_mds, hidden_representations, representation_embedding
from numerics.executors import WorkerLost
from numerics.gradient_flow import gradient_flow
from numerics.groups import group_influence
from numerics.learning_coefficient import estimate_learning_coefficient
from numerics.learning_coefficient_limits import (
    Extrapolation,
    extrapolate_learning_coefficient,
    gaussian_learning_coefficient,
)
from numerics.matrix_free import (
    CurvatureOperator,
    SolveNotConverged,
    extreme_eigenvalues,
    gauss_newton_operator,
    hessian_operator,
)
from numerics.minres import DampedSolution, damped_solve
from numerics.module_curvature import gauss_newton_matrix, hessian_matrix, sample_gradients
from numerics.modules import LinearNetwork, ModuleCheckpoints, Samples, TorchModel, half_squared_error, linear_as_module
from numerics.networks import Checkpoints, initial_weights, per_sample_losses
from numerics.over_checkpoints import over_checkpoints
from numerics.retraining import leave_group_out, leave_one_out, retrain, timed_ablation
from numerics.samplers import MALA, SGLD, RMSPropSGLD, Sampler, SamplerDiverged, StepSizeWarning
from numerics.sampling import sample
from numerics.sweep_grid import SweepGrid
from numerics.sweep_measures import LearningCoefficientError, LeaveOneOutCorrelation, SweepMeasure
from numerics.sweep_store import DamagedResultWarning
from numerics.sweeping import sweep
from numerics.tracin import tracin
from numerics.training import TrainingDiverged, TrainingRun, train
from numerics.unrolled_influence import unrolled_influence

__all__ = [
    "MALA",
    "SGLD",
    "ChainState",
    "Checkpoints",
    "CurvatureOperator",
    "DamagedResultWarning",
    "DampedSolution",
    "Extrapolation",
    "IndefiniteCurvature",
    "LearningCoefficientError",
    "LeaveOneOutCorrelation",
    "LinearNetwork",
    "ModuleCheckpoints",
    "RMSPropSGLD",
    "Sampler",
    "SamplerDiverged",
    "Samples",
    "SolveNotConverged",
    "StepSizeWarning",
    "SweepGrid",
    "SweepMeasure",
    "TorchModel",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingRun",
    "WorkerLost",
    "bayesian_influence",
    "branching_epochs",
    "classical_mds",
    "covariance_diagnostics",
    "damped_solve",
    "diagnose",
    "estimate_learning_coefficient",
    "extrapolate_learning_coefficient",
    "extreme_eigenvalues",
    "gauss_newton_influence",
    "gauss_newton_matrix",
    "gauss_newton_operator",
    "gaussian_learning_coefficient",
    "gradient_flow",
    "gradient_kernel",
    "group_influence",
    "half_squared_error",
    "hessian_influence",
    "hessian_matrix",
    "hessian_operator",
    "hidden_representations",
    "initial_weights",
    "leave_group_out",
    "leave_one_out",
    "linear_as_module",
    "over_checkpoints",
    "per_sample_losses",
    "representation_embedding",
    "retrain",
    "sample",
    "sample_gradients",
    "sweep",
    "timed_ablation",
    "tracin",
    "train",
    "unrolled_influence",
]
