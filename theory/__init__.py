"""Closed forms for influence while a network learns in stages. numpy, scipy and sympy only."""

from theory.dynamics.deep_chains import deep_mode_strength, deep_mode_time
from theory.dynamics.linear_networks import (
    LinearNetworkRun,
    linear_network_factors,
    linear_network_run,
    linear_network_solution,
)
from theory.dynamics.saxe import (
    Modes,
    aligned_modes,
    half_rise_time,
    initial_mode_strength,
    mode_strength,
    time_constant,
)
from theory.hierarchy import (
    Dataset,
    SingularStructure,
    hierarchical_dataset,
    hierarchical_structure,
    tree_distance,
)
from theory.influence.brief_ablation import brief_ablation_trajectory
from theory.influence.exposure import exposure_kernel
from theory.influence.leave_one_out import leave_group_out_trajectory, leave_one_out_trajectory
from theory.influence.svd_response import (
    PrintedSVDResponse,
    SVDResponse,
    paper_svd_response,
    spectral_derivative,
    svd_response,
)
from theory.influence.trajectory import influence_trajectory
from theory.posteriors.language import (
    bigram_covariance,
    entropy_rate,
    gate_correlation,
    gate_losses,
    gate_posterior,
    gate_slope,
    steepest_gate,
)
from theory.posteriors.learning_coefficient import learning_coefficient, monomial_learning_coefficient
from theory.posteriors.local_posterior import GaussianInfluence, gaussian_influence, quadratic_loss_covariance
from theory.posteriors.mixtures import (
    MixtureCovariance,
    decompose_covariance,
    total_covariance_gradient,
    total_covariance_hessian,
)
from theory.posteriors.phase_moments import SampledMixture, quadratic_loss_moments, sampled_decomposition
from theory.posteriors.phases import (
    Crossing,
    free_energy,
    phase_weights,
    power_moments,
    product_moments,
    transition_sample_size,
    type_b_transition,
)
from theory.posteriors.quadrature import TemperedPosterior, tempered_posterior
from theory.posteriors.sampler_laws import (
    AdaptiveLimit,
    StationaryLaw,
    adaptive_limit,
    covariance_standard_error,
    loss_autocorrelation_times,
    stationary_law,
)
from theory.posteriors.two_phases import PhaseTransition, phase_transition

__all__ = [
    "AdaptiveLimit",
    "Crossing",
    "Dataset",
    "GaussianInfluence",
    "LinearNetworkRun",
    "MixtureCovariance",
    "Modes",
    "PhaseTransition",
    "PrintedSVDResponse",
    "SVDResponse",
    "SampledMixture",
    "SingularStructure",
    "StationaryLaw",
    "TemperedPosterior",
    "adaptive_limit",
    "aligned_modes",
    "bigram_covariance",
    "brief_ablation_trajectory",
    "covariance_standard_error",
    "decompose_covariance",
    "deep_mode_strength",
    "deep_mode_time",
    "entropy_rate",
    "exposure_kernel",
    "free_energy",
    "gate_correlation",
    "gate_losses",
    "gate_posterior",
    "gate_slope",
    "gaussian_influence",
    "half_rise_time",
    "hierarchical_dataset",
    "hierarchical_structure",
    "influence_trajectory",
    "initial_mode_strength",
    "learning_coefficient",
    "leave_group_out_trajectory",
    "leave_one_out_trajectory",
    "linear_network_factors",
    "linear_network_run",
    "linear_network_solution",
    "loss_autocorrelation_times",
    "mode_strength",
    "monomial_learning_coefficient",
    "paper_svd_response",
    "phase_transition",
    "phase_weights",
    "power_moments",
    "product_moments",
    "quadratic_loss_covariance",
    "quadratic_loss_moments",
    "sampled_decomposition",
    "spectral_derivative",
    "stationary_law",
    "steepest_gate",
    "svd_response",
    "tempered_posterior",
    "time_constant",
    "total_covariance_gradient",
    "total_covariance_hessian",
    "transition_sample_size",
    "tree_distance",
    "type_b_transition",
]
