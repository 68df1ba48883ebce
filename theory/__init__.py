"""Closed forms for influence while a network learns in stages. numpy, scipy and sympy only."""

from theory.hierarchy import (
    Dataset,
    SingularStructure,
    hierarchical_dataset,
    hierarchical_structure,
    tree_distance,
)

__all__ = [
    "Dataset",
    "SingularStructure",
    "hierarchical_dataset",
    "hierarchical_structure",
    "tree_distance",
]
