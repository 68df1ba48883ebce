"""Closed forms for influence while a network learns in stages. numpy, scipy and sympy only."""

from theory.brief_ablation import brief_ablation_trajectory
from theory.deep_chains import deep_mode_strength, deep_mode_time
from theory.exposure import exposure_kernel
from theory.hierarchy import (
    Dataset,
    SingularStructure,
    hierarchical_dataset,
    hierarchical_structure,
    tree_distance,
)
from theory.influence import influence_trajectory
from theory.leave_one_out import leave_group_out_trajectory, leave_one_out_trajectory
from theory.linear_networks import linear_network_factors, linear_network_solution
from theory.saxe import (
    Modes,
    aligned_modes,
    half_rise_time,
    initial_mode_strength,
    mode_strength,
    time_constant,
)
from theory.svd_response import (
    PrintedSVDResponse,
    SVDResponse,
    paper_svd_response,
    spectral_derivative,
    svd_response,
)

__all__ = [
    "Dataset",
    "Modes",
    "PrintedSVDResponse",
    "SVDResponse",
    "SingularStructure",
    "aligned_modes",
    "brief_ablation_trajectory",
    "deep_mode_strength",
    "deep_mode_time",
    "exposure_kernel",
    "half_rise_time",
    "hierarchical_dataset",
    "hierarchical_structure",
    "influence_trajectory",
    "initial_mode_strength",
    "leave_group_out_trajectory",
    "leave_one_out_trajectory",
    "linear_network_factors",
    "linear_network_solution",
    "mode_strength",
    "paper_svd_response",
    "spectral_derivative",
    "svd_response",
    "time_constant",
    "tree_distance",
]
