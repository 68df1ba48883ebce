"""Closed forms for influence while a network learns in stages. numpy, scipy and sympy only."""

from theory.hierarchy import (
    Dataset,
    SingularStructure,
    hierarchical_dataset,
    hierarchical_structure,
    tree_distance,
)
from theory.influence import influence_trajectory
from theory.saxe import (
    Modes,
    aligned_modes,
    half_rise_time,
    initial_mode_strength,
    mode_strength,
    time_constant,
)

__all__ = [
    "Dataset",
    "Modes",
    "SingularStructure",
    "aligned_modes",
    "half_rise_time",
    "hierarchical_dataset",
    "hierarchical_structure",
    "influence_trajectory",
    "initial_mode_strength",
    "mode_strength",
    "time_constant",
    "tree_distance",
]
