from .curvature.classical_influence import (
    gauss_newton_influence as gauss_newton_influence,
)
from .curvature.classical_influence import (
    gradient_kernel as gradient_kernel,
)
from .curvature.classical_influence import (
    hessian_influence as hessian_influence,
)
from .curvature.minres import DampedSolution as DampedSolution
from .curvature.minres import damped_solve as damped_solve
from .curvature.module import (
    gauss_newton_matrix as gauss_newton_matrix,
)
from .curvature.module import (
    hessian_matrix as hessian_matrix,
)
from .curvature.module import (
    sample_gradients as sample_gradients,
)
from .curvature.operators import (
    CurvatureOperator as CurvatureOperator,
)
from .curvature.operators import (
    extreme_eigenvalues as extreme_eigenvalues,
)
from .curvature.operators import (
    gauss_newton_operator as gauss_newton_operator,
)
from .curvature.operators import (
    hessian_operator as hessian_operator,
)
from .curvature.tracin import tracin as tracin
from .embedding import (
    branching_epochs as branching_epochs,
)
from .embedding import (
    classical_mds as classical_mds,
)
from .embedding import (
    hidden_representations as hidden_representations,
)
from .embedding import (
    representation_embedding as representation_embedding,
)
from .errors import (
    DamagedResultWarning as DamagedResultWarning,
)
from .errors import (
    FitWarning as FitWarning,
)
from .errors import (
    IndefiniteCurvature as IndefiniteCurvature,
)
from .errors import (
    NotDifferentiable as NotDifferentiable,
)
from .errors import (
    SamplerDiverged as SamplerDiverged,
)
from .errors import (
    SolveNotConverged as SolveNotConverged,
)
from .errors import (
    StepSizeWarning as StepSizeWarning,
)
from .errors import (
    StoreMismatch as StoreMismatch,
)
from .errors import (
    TrainedWeightsWarning as TrainedWeightsWarning,
)
from .errors import (
    TrainingDiverged as TrainingDiverged,
)
from .errors import (
    UnstableStep as UnstableStep,
)
from .errors import (
    UntrustedResultWarning as UntrustedResultWarning,
)
from .errors import (
    WorkerLost as WorkerLost,
)
from .errors import (
    WrongDerivative as WrongDerivative,
)
from .fleets.over_checkpoints import over_checkpoints as over_checkpoints
from .fleets.sweep import sweep as sweep
from .fleets.sweep_grid import SweepGrid as SweepGrid
from .fleets.sweep_measures import (
    LearningCoefficientError as LearningCoefficientError,
)
from .fleets.sweep_measures import (
    LeaveOneOutCorrelation as LeaveOneOutCorrelation,
)
from .fleets.sweep_measures import (
    SweepMeasure as SweepMeasure,
)
from .language.bigram import BigramModel as BigramModel
from .language.class_influence import class_influence as class_influence
from .language.gradient_cosine import class_gradient_cosine as class_gradient_cosine
from .language.gradient_cosine import gradient_cosine as gradient_cosine
from .language.induction import (
    attention_patterns as attention_patterns,
)
from .language.induction import (
    head_scores as head_scores,
)
from .language.induction import (
    induction_scores as induction_scores,
)
from .language.pretraining import (
    PretrainingConfig as PretrainingConfig,
)
from .language.pretraining import (
    TokenCorpus as TokenCorpus,
)
from .language.pretraining import (
    pretrain as pretrain,
)
from .language.recall import (
    chance_recall as chance_recall,
)
from .language.recall import (
    class_recall as class_recall,
)
from .language.recall import (
    top_influences as top_influences,
)
from .language.repeated import RepeatedSequences as RepeatedSequences
from .language.repeated import repeated_sequences as repeated_sequences
from .language.revisions import load_revisions as load_revisions
from .language.revisions import load_tokenizer as load_tokenizer
from .language.synthetic import SyntheticCorpus as SyntheticCorpus
from .language.text import (
    TokenSequences as TokenSequences,
)
from .language.text import (
    python_documents as python_documents,
)
from .language.text import (
    text_documents as text_documents,
)
from .language.text import (
    token_sequences as token_sequences,
)
from .language.text import (
    train_tokenizer as train_tokenizer,
)
from .language.token_classes import (
    TOKEN_CLASSES as TOKEN_CLASSES,
)
from .language.token_classes import (
    induction_pattern as induction_pattern,
)
from .language.token_classes import (
    text_classes as text_classes,
)
from .language.token_draws import TokenDraws as TokenDraws
from .language.token_draws import as_token_draws as as_token_draws
from .language.token_influence import token_influence as token_influence
from .language.token_sampling import sample_tokens as sample_tokens
from .language.tokens import (
    cut_documents as cut_documents,
)
from .language.tokens import (
    next_token_loss as next_token_loss,
)
from .language.tokens import (
    token_samples as token_samples,
)
from .language.transformer import CausalTransformer as CausalTransformer
from .language.transformer import TransformerConfig as TransformerConfig
from .learning_coefficients.estimate import estimate_learning_coefficient as estimate_learning_coefficient
from .learning_coefficients.limits import (
    Extrapolation as Extrapolation,
)
from .learning_coefficients.limits import (
    extrapolate_learning_coefficient as extrapolate_learning_coefficient,
)
from .learning_coefficients.limits import (
    gaussian_learning_coefficient as gaussian_learning_coefficient,
)
from .models.checkpoints import ModuleCheckpoints as ModuleCheckpoints
from .models.linear import (
    Checkpoints as Checkpoints,
)
from .models.linear import (
    LinearNetwork as LinearNetwork,
)
from .models.linear import (
    initial_weights as initial_weights,
)
from .models.linear import (
    linear_as_module as linear_as_module,
)
from .models.linear import (
    per_sample_losses as per_sample_losses,
)
from .models.module import TorchModel as TorchModel
from .models.module import half_squared_error as half_squared_error
from .models.queries import Query as Query
from .models.queries import correct_logit as correct_logit
from .models.queries import log_odds as log_odds
from .models.queries import margin as margin
from .models.recorder import CheckpointRecorder as CheckpointRecorder
from .models.recorder import log_spaced_steps as log_spaced_steps
from .models.samples import Parts as Parts
from .models.samples import Samples as Samples
from .outlook import MeasureOutlook as MeasureOutlook
from .outlook import ModelOutlook as ModelOutlook
from .outlook import check_model as check_model
from .sampling.bayesian_influence import bayesian_influence as bayesian_influence
from .sampling.chain_state import ChainState as ChainState
from .sampling.diagnostics import covariance_diagnostics as covariance_diagnostics
from .sampling.diagnostics import diagnose as diagnose
from .sampling.groups import group_influence as group_influence
from .sampling.sample import sample as sample
from .sampling.samplers import MALA as MALA
from .sampling.samplers import SGLD as SGLD
from .sampling.samplers import RMSPropSGLD as RMSPropSGLD
from .sampling.samplers import Sampler as Sampler
from .sampling.trust import Trust as Trust
from .sampling.trust import TrustLevel as TrustLevel
from .sampling.trust import trust as trust
from .training.descent import TrainingConfig as TrainingConfig
from .training.descent import batch_order as batch_order
from .training.gradient_flow import gradient_flow as gradient_flow
from .training.optimisers import SGD as SGD
from .training.optimisers import Adam as Adam
from .training.optimisers import AdamW as AdamW
from .training.optimisers import Optimiser as Optimiser
from .training.retraining import leave_group_out as leave_group_out
from .training.retraining import leave_one_out as leave_one_out
from .training.retraining import retrain as retrain
from .training.schedules import CosineDecay as CosineDecay
from .training.schedules import LinearDecay as LinearDecay
from .training.schedules import StepDecay as StepDecay
from .training.timed_ablation import timed_ablation as timed_ablation
from .training.train import TrainingRun as TrainingRun
from .training.train import train as train
from .training.unrolled_influence import unrolled_influence as unrolled_influence

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
    "Trust",
    "TrustLevel",
    "UnstableStep",
    "UntrustedResultWarning",
    "WorkerLost",
    "WrongDerivative",
    "as_token_draws",
    "attention_patterns",
    "batch_order",
    "bayesian_influence",
    "branching_epochs",
    "chance_recall",
    "check_model",
    "class_gradient_cosine",
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
    "gradient_cosine",
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
    "trust",
    "unrolled_influence",
]
