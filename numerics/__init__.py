"""Simulation: training, retraining, sampling and curvature, on torch."""

from numerics.curvature.classical_influence import (
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
    FitWarning,
    IndefiniteCurvature,
    NotDifferentiable,
    SamplerDiverged,
    SolveNotConverged,
    StepSizeWarning,
    StoreMismatch,
    TrainedWeightsWarning,
    TrainingDiverged,
    UnstableStep,
    WorkerLost,
    WrongDerivative,
)
from numerics.fleets.over_checkpoints import over_checkpoints
from numerics.fleets.sweep import sweep
from numerics.fleets.sweep_grid import SweepGrid
from numerics.fleets.sweep_measures import LearningCoefficientError, LeaveOneOutCorrelation, SweepMeasure
from numerics.language.bigram import BigramModel
from numerics.language.class_influence import class_influence
from numerics.language.induction import attention_patterns, head_scores, induction_scores
from numerics.language.pretraining import PretrainingConfig, TokenCorpus, pretrain
from numerics.language.recall import chance_recall, class_recall, top_influences
from numerics.language.repeated import RepeatedSequences, repeated_sequences
from numerics.language.revisions import load_revisions, load_tokenizer
from numerics.language.synthetic import SyntheticCorpus
from numerics.language.text import TokenSequences, python_documents, text_documents, token_sequences, train_tokenizer
from numerics.language.token_classes import TOKEN_CLASSES, induction_pattern, text_classes
from numerics.language.token_draws import TokenDraws, as_token_draws
from numerics.language.token_influence import token_influence
from numerics.language.token_sampling import sample_tokens
from numerics.language.tokens import cut_documents, next_token_loss, token_samples
from numerics.language.transformer import CausalTransformer, TransformerConfig
from numerics.learning_coefficients.estimate import estimate_learning_coefficient
from numerics.learning_coefficients.limits import (
    Extrapolation,
    extrapolate_learning_coefficient,
    gaussian_learning_coefficient,
)
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.linear import Checkpoints, LinearNetwork, initial_weights, linear_as_module, per_sample_losses
from numerics.models.module import TorchModel, half_squared_error
from numerics.models.queries import Query, correct_logit, log_odds, margin
from numerics.models.recorder import CheckpointRecorder, log_spaced_steps
from numerics.models.samples import Parts, Samples
from numerics.outlook import MeasureOutlook, ModelOutlook, check_model
from numerics.sampling.bayesian_influence import bayesian_influence
from numerics.sampling.chain_state import ChainState
from numerics.sampling.diagnostics import covariance_diagnostics, diagnose
from numerics.sampling.groups import group_influence
from numerics.sampling.sample import sample
from numerics.sampling.samplers import MALA, SGLD, RMSPropSGLD, Sampler
from numerics.training.descent import TrainingConfig, batch_order
from numerics.training.gradient_flow import gradient_flow
from numerics.training.optimisers import SGD, Adam, AdamW, Optimiser
from numerics.training.retraining import leave_group_out, leave_one_out, retrain
from numerics.training.schedules import CosineDecay, LinearDecay, StepDecay
from numerics.training.timed_ablation import timed_ablation
from numerics.training.train import TrainingRun, train
from numerics.training.unrolled_influence import unrolled_influence

__all__ = [
    "MALA",
    "SGD",
    "SGLD",
    "TOKEN_CLASSES",
    "Adam",
    "AdamW",
    "BigramModel",
    "CausalTransformer",
    "ChainState",
    "CheckpointRecorder",
    "Checkpoints",
    "CosineDecay",
    "CurvatureOperator",
    "DamagedResultWarning",
    "DampedSolution",
    "Extrapolation",
    "FitWarning",
    "IndefiniteCurvature",
    "LearningCoefficientError",
    "LeaveOneOutCorrelation",
    "LinearDecay",
    "LinearNetwork",
    "MeasureOutlook",
    "ModelOutlook",
    "ModuleCheckpoints",
    "NotDifferentiable",
    "Optimiser",
    "Parts",
    "PretrainingConfig",
    "Query",
    "RMSPropSGLD",
    "RepeatedSequences",
    "Sampler",
    "SamplerDiverged",
    "Samples",
    "SolveNotConverged",
    "StepDecay",
    "StepSizeWarning",
    "StoreMismatch",
    "SweepGrid",
    "SweepMeasure",
    "SyntheticCorpus",
    "TokenCorpus",
    "TokenDraws",
    "TokenSequences",
    "TorchModel",
    "TrainedWeightsWarning",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingRun",
    "TransformerConfig",
    "UnstableStep",
    "WorkerLost",
    "WrongDerivative",
    "as_token_draws",
    "attention_patterns",
    "batch_order",
    "bayesian_influence",
    "branching_epochs",
    "chance_recall",
    "check_model",
    "class_influence",
    "class_recall",
    "classical_mds",
    "correct_logit",
    "covariance_diagnostics",
    "cut_documents",
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
    "head_scores",
    "hessian_influence",
    "hessian_matrix",
    "hessian_operator",
    "hidden_representations",
    "induction_pattern",
    "induction_scores",
    "initial_weights",
    "leave_group_out",
    "leave_one_out",
    "linear_as_module",
    "load_revisions",
    "load_tokenizer",
    "log_odds",
    "log_spaced_steps",
    "margin",
    "next_token_loss",
    "over_checkpoints",
    "per_sample_losses",
    "pretrain",
    "python_documents",
    "repeated_sequences",
    "representation_embedding",
    "retrain",
    "sample",
    "sample_gradients",
    "sample_tokens",
    "sweep",
    "text_classes",
    "text_documents",
    "timed_ablation",
    "token_influence",
    "token_samples",
    "token_sequences",
    "top_influences",
    "tracin",
    "train",
    "train_tokenizer",
    "unrolled_influence",
]
