from .dynamics.deep_chains import deep_mode_strength as deep_mode_strength
from .dynamics.deep_chains import deep_mode_time as deep_mode_time
from .dynamics.linear_networks import (
    LinearNetworkRun as LinearNetworkRun,
)
from .dynamics.linear_networks import (
    linear_network_factors as linear_network_factors,
)
from .dynamics.linear_networks import (
    linear_network_run as linear_network_run,
)
from .dynamics.linear_networks import (
    linear_network_solution as linear_network_solution,
)
from .dynamics.saxe import (
    Modes as Modes,
)
from .dynamics.saxe import (
    aligned_modes as aligned_modes,
)
from .dynamics.saxe import (
    half_rise_time as half_rise_time,
)
from .dynamics.saxe import (
    initial_mode_strength as initial_mode_strength,
)
from .dynamics.saxe import (
    mode_strength as mode_strength,
)
from .dynamics.saxe import (
    time_constant as time_constant,
)
from .hierarchy import (
    Dataset as Dataset,
)
from .hierarchy import (
    SingularStructure as SingularStructure,
)
from .hierarchy import (
    hierarchical_dataset as hierarchical_dataset,
)
from .hierarchy import (
    hierarchical_structure as hierarchical_structure,
)
from .hierarchy import (
    tree_distance as tree_distance,
)
from .influence.brief_ablation import brief_ablation_trajectory as brief_ablation_trajectory
from .influence.exposure import exposure_kernel as exposure_kernel
from .influence.leave_one_out import (
    leave_group_out_trajectory as leave_group_out_trajectory,
)
from .influence.leave_one_out import (
    leave_one_out_trajectory as leave_one_out_trajectory,
)
from .influence.svd_response import (
    PrintedSVDResponse as PrintedSVDResponse,
)
from .influence.svd_response import (
    SVDResponse as SVDResponse,
)
from .influence.svd_response import (
    paper_svd_response as paper_svd_response,
)
from .influence.svd_response import (
    spectral_derivative as spectral_derivative,
)
from .influence.svd_response import (
    svd_response as svd_response,
)
from .influence.trajectory import influence_trajectory as influence_trajectory
from .posteriors.language import (
    bigram_covariance as bigram_covariance,
)
from .posteriors.language import (
    entropy_rate as entropy_rate,
)
from .posteriors.language import (
    gate_correlation as gate_correlation,
)
from .posteriors.language import (
    gate_losses as gate_losses,
)
from .posteriors.language import (
    gate_posterior as gate_posterior,
)
from .posteriors.language import (
    gate_slope as gate_slope,
)
from .posteriors.language import (
    pair_noise as pair_noise,
)
from .posteriors.language import (
    steepest_gate as steepest_gate,
)
from .posteriors.learning_coefficient import (
    learning_coefficient as learning_coefficient,
)
from .posteriors.learning_coefficient import (
    monomial_learning_coefficient as monomial_learning_coefficient,
)
from .posteriors.local_posterior import (
    GaussianInfluence as GaussianInfluence,
)
from .posteriors.local_posterior import (
    gaussian_influence as gaussian_influence,
)
from .posteriors.local_posterior import (
    quadratic_loss_covariance as quadratic_loss_covariance,
)
from .posteriors.mixtures import (
    MixtureCovariance as MixtureCovariance,
)
from .posteriors.mixtures import (
    decompose_covariance as decompose_covariance,
)
from .posteriors.mixtures import (
    total_covariance_gradient as total_covariance_gradient,
)
from .posteriors.mixtures import (
    total_covariance_hessian as total_covariance_hessian,
)
from .posteriors.phase_moments import (
    SampledMixture as SampledMixture,
)
from .posteriors.phase_moments import (
    quadratic_loss_moments as quadratic_loss_moments,
)
from .posteriors.phase_moments import (
    sampled_decomposition as sampled_decomposition,
)
from .posteriors.phases import (
    Crossing as Crossing,
)
from .posteriors.phases import (
    free_energy as free_energy,
)
from .posteriors.phases import (
    phase_weights as phase_weights,
)
from .posteriors.phases import (
    power_moments as power_moments,
)
from .posteriors.phases import (
    product_moments as product_moments,
)
from .posteriors.phases import (
    transition_sample_size as transition_sample_size,
)
from .posteriors.phases import (
    type_b_transition as type_b_transition,
)
from .posteriors.quadrature import TemperedPosterior as TemperedPosterior
from .posteriors.quadrature import tempered_posterior as tempered_posterior
from .posteriors.sampler_laws import (
    AdaptiveLimit as AdaptiveLimit,
)
from .posteriors.sampler_laws import (
    StationaryLaw as StationaryLaw,
)
from .posteriors.sampler_laws import (
    adaptive_limit as adaptive_limit,
)
from .posteriors.sampler_laws import (
    covariance_standard_error as covariance_standard_error,
)
from .posteriors.sampler_laws import (
    loss_autocorrelation_times as loss_autocorrelation_times,
)
from .posteriors.sampler_laws import (
    stationary_law as stationary_law,
)
from .posteriors.two_phases import PhaseTransition as PhaseTransition
from .posteriors.two_phases import phase_transition as phase_transition

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
    "pair_noise",
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
