"""Simulation: training, retraining, sampling and curvature, on torch."""

from numerics.curvature.classical_influence import (
    IndefiniteCurvature,
    gauss_newton_influence,
    gradient_kernel,
    hessian_influence,
)
from numerics.curvature.minres import DampedSolution, damped_solve
from numerics.curvature.module import gauss_newton_matrix, hessian_matrix, sample_gradients
from numerics.curvature.operators import CurvatureOperator, extreme_eigenvalues, gauss_newton_operator, hessian_operator
from numerics.curvature.tracin import tracin
from numerics.embedding import branching_epochs, classical_mds, hidden_representations, representation_embedding
from numerics.errors import (
    DamagedResultWarning,
    SamplerDiverged,
    SolveNotConverged,
    StepSizeWarning,
    TrainingDiverged,
    UntrustedResultWarning,
    WorkerLost,
)
from numerics.fleets.over_checkpoints import over_checkpoints
from numerics.fleets.sweep import sweep
from numerics.fleets.sweep_grid import SweepGrid
from numerics.fleets.sweep_measures import LearningCoefficientError, LeaveOneOutCorrelation, SweepMeasure
from numerics.learning_coefficients.estimate import estimate_learning_coefficient
from numerics.learning_coefficients.limits import (
    Extrapolation,
    extrapolate_learning_coefficient,
    gaussian_learning_coefficient,
)
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.linear import Checkpoints, LinearNetwork, initial_weights, linear_as_module, per_sample_losses
from numerics.models.module import TorchModel, half_squared_error
from numerics.models.samples import Samples
from numerics.sampling.bayesian_influence import bayesian_influence
from numerics.sampling.chain_state import ChainState
from numerics.sampling.diagnostics import covariance_diagnostics, diagnose
from numerics.sampling.groups import group_influence
from numerics.sampling.sample import sample
from numerics.sampling.samplers import MALA, SGLD, RMSPropSGLD, Sampler
from numerics.sampling.trust import Trust, TrustLevel, trust
from numerics.training.descent import TrainingConfig
from numerics.training.gradient_flow import gradient_flow
from numerics.training.retraining import leave_group_out, leave_one_out, retrain, timed_ablation
from numerics.training.train import TrainingRun, train
from numerics.training.unrolled_influence import unrolled_influence

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
    "Trust",
    "TrustLevel",
    "UntrustedResultWarning",
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
    "trust",
    "unrolled_influence",
]
